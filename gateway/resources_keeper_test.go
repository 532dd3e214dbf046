package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// keeper is a provider that keeps what it makes for its one customer.
type keeper struct {
	mu     sync.Mutex
	made   int
	things map[string][]string // by the path of their collection
	seen   []string
	answer func(w http.ResponseWriter, r *http.Request) bool // nil, or false where the keeper answers as it does
	shape  collection
}

// collection is a collection of a provider: where it is, and how its provider speaks of it.
type collection struct {
	path   string
	create string // the path that makes one, where that is not the collection's
	body   string // of the request that makes one
	id     string // what ids look like; %d is a number
	made   string // the answer that tells of a new one; %s is the id
	list   string // the list's key; empty: the list is the body
	named  string // the field of a list's element
	below  string // what there is below one
	uses   []use
}

// use is a request that names one.
type use struct{ path, body string } // %s is the id

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, r.Method+" "+r.URL.RequestURI())
	if k.answer != nil && k.answer(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	c := k.shape
	ids := k.things[c.path]
	rest, below := strings.CutPrefix(r.URL.Path, c.path+"/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == c.creates():
		k.made++
		id := fmt.Sprintf(c.id, k.made)
		k.things[c.path] = append(ids, id)
		fmt.Fprintf(w, c.made, id)
	case r.Method == http.MethodGet && r.URL.Path == c.path:
		var elements []string
		for _, id := range ids {
			elements = append(elements, fmt.Sprintf(`{%q:%q}`, c.named, id))
		}
		list := "[" + strings.Join(elements, ", ") + "]"
		if c.list != "" {
			list = fmt.Sprintf(`{"object": "list", %q: %s, "first_id": "f", "last_id": "l", "has_more": true, "total": 99, "next": {"id": "x"}}`, c.list, list)
		}
		_, _ = io.WriteString(w, list)
	case below && r.Method != http.MethodPost && !slices.ContainsFunc(ids, func(id string) bool { name := last(id); return rest == name || strings.HasPrefix(rest, name+"/") }):
		w.WriteHeader(http.StatusNotFound)
	case below && r.Method == http.MethodDelete:
		k.things[c.path] = slices.DeleteFunc(ids, func(id string) bool { return rest == last(id) })
		_, _ = io.WriteString(w, `{"deleted": true}`)
	default:
		_, _ = io.WriteString(w, `{"id": "inner", "usage": {"input_tokens": 1, "output_tokens": 1, "total_input_tokens": 1, "total_output_tokens": 1},
			"content": [{"type": "text", "text": "w"}], "candidates": [{"content": {"parts": [{"text": "w"}]}}]}`)
	}
}

func (c collection) creates() string {
	if c.create != "" {
		return c.create
	}
	return c.path
}

// last is the last part of a name such as files/abc.
func last(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// storehouse is a metered route before a keeper, over books that outlive it, and two agents.
type storehouse struct {
	*shop
	keeper *keeper
	keys   map[string]string
}

func openStorehouse(t *testing.T, route gateway.Route, shape collection) *storehouse {
	t.Helper()
	k := &keeper{things: map[string][]string{}, shape: shape}
	m := &storehouse{shop: openShop(t, escrow.Rules{}, gateway.Options{}, route, k.ServeHTTP), keeper: k}
	m.keys = map[string]string{"alice": m.key, "bob": m.agent("bob", "1")}
	return m
}

// ask makes a call of an agent, and says whether it went to the provider.
func (m *storehouse) ask(agent, method, path, body string, headers ...string) (status int, answer string, forwarded bool) {
	m.t.Helper()
	m.keeper.mu.Lock()
	before := len(m.keeper.seen)
	m.keeper.mu.Unlock()
	r, err := http.NewRequestWithContext(m.t.Context(), method, m.url+path, strings.NewReader(body))
	must(m.t, err)
	r.Header.Set("Authorization", "Bearer "+m.keys[agent])
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	must(m.t, err)
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	must(m.t, err)
	m.keeper.mu.Lock()
	defer m.keeper.mu.Unlock()
	return response.StatusCode, string(all), len(m.keeper.seen) > before
}

// serves checks that a call is served, or that it is refused as one for something that is not there, and has not reached the provider.
func (m *storehouse) serves(is bool, agent, method, path, body string, headers ...string) {
	m.t.Helper()
	status, answer, forwarded := m.ask(agent, method, path, body, headers...)
	switch {
	case is && status/100 != 2:
		m.t.Errorf("%s: %s %s %s: %d %s", agent, method, path, body, status, answer)
	case !is && (status != 404 || !strings.Contains(answer, "unknown_resource") && method != "HEAD" || forwarded):
		m.t.Errorf("%s: %s %s %s: %d, forwarded %t: %s", agent, method, path, body, status, forwarded, answer)
	}
}

// make has an agent make one, and returns its id.
func (m *storehouse) make(agent string) string {
	m.t.Helper()
	c := m.keeper.shape
	if status, answer, _ := m.ask(agent, http.MethodPost, c.creates(), c.body); status != 200 {
		m.t.Fatalf("%s: POST %s: %d %s", agent, c.creates(), status, answer)
	}
	m.keeper.mu.Lock()
	defer m.keeper.mu.Unlock()
	return fmt.Sprintf(c.id, m.keeper.made)
}

// anyCall prices tokens, and all other calls by the call.
func anyCall(t *testing.T) gateway.Route {
	t.Helper()
	output, err := pricing.ParseClassPrice("output", strings.Fields("0.000001 per token"))
	must(t, err)
	call, err := pricing.ParsePrice(strings.Fields("0.0001 per call"))
	must(t, err)
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{output, call}}}, MaxOutput: 100}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// byCall prices calls alone, and keeps payers apart since it is told to.
func byCall(t *testing.T) gateway.Route {
	t.Helper()
	return gateway.Route{Rates: rates(t, "0.0001 per call"), Shared: shared(t, "none")}
}

func shared(t *testing.T, words ...string) *gateway.Shared {
	t.Helper()
	s, err := gateway.ParseShared(words)
	must(t, err)
	return s
}

const respond = `{"model":"m","input":"hi"}`

// lists checks what an agent sees in the list.
func (m *storehouse) lists(agent string, ids ...string) {
	m.t.Helper()
	c := m.keeper.shape
	status, answer, _ := m.ask(agent, "GET", c.path, "")
	list := gjson.Parse(answer)
	if c.list != "" {
		list = list.Get(c.list)
	}
	var seen []string
	for _, e := range list.Array() {
		seen = append(seen, e.Get(c.named).String())
	}
	if status != 200 || !gjson.Valid(answer) || !slices.Equal(seen, ids) {
		m.t.Errorf("%s sees %d %s, want %q", agent, status, answer, ids)
	}
	if c.list == "" {
		return
	}
	first, end, more := "null", "null", "false"
	if len(ids) > 0 {
		more = "true"
		if c.named == "id" {
			first, end = strconv.Quote(ids[0]), strconv.Quote(ids[len(ids)-1])
		}
	}
	want(m.t, "the list's own words", []string{gjson.Get(answer, "first_id").Raw, gjson.Get(answer, "last_id").Raw, gjson.Get(answer, "has_more").Raw,
		gjson.Get(answer, "total").Raw, gjson.Get(answer, "next").Raw}, []string{first, end, more, fmt.Sprint(len(ids)), ""})
}

// stream makes a streamed call and reads as far as it comes.
func (m *storehouse) stream(agent, body string) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.url+"/v1/responses", strings.NewReader(body))
	must(m.t, err)
	r.Header.Set("Authorization", "Bearer "+m.keys[agent])
	r.Header.Set("X-Stream", "1")
	response, err := http.DefaultClient.Do(r)
	must(m.t, err)
	_, _ = io.ReadAll(response.Body)
	_ = response.Body.Close()
	m.await()
}

// await waits until no call runs: what a call settles after its answer has ended is settled.
func (m *storehouse) await() {
	for m.book.Claims().Taken(escrow.Thing{Kind: escrow.RunningCalls, Owner: "alice"}) > 0 {
		if err := m.do(func(*escrow.Tx) error { return nil }); err != nil {
			m.t.Fatal(err)
		}
	}
}
