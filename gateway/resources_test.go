package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
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

// collections are those of the providers that are known.
var collections = []collection{
	{path: "/v1/files", body: `{"purpose":"x"}`, id: "file-%d", made: `{"id": %q, "object": "file"}`, list: "data", named: "id", below: "/content", uses: []use{
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":%q}]}]}`},
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","fi\u006ce_ID":%q}]}]}`},
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["%s"]}}]}`},
		{"/v1/responses", `{"model":"m","prompt":{"id":"pmpt_1","variables":{"x":{"type":"input_file","file_id":%q}}}}`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":%q}}]}]}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":%q}}]}]}`},
		{"/v1/batches", `{"input_file_id":%q,"endpoint":"/v1/responses"}`},
		{"/v1/fine_tuning/jobs", `{"training_file":%q,"model":"m"}`},
		{"/v1/threads", `{"messages":[{"role":"user","content":"x","attachments":[{"file_id":%q}]}]}`},
		{"/v1/vector_stores", `{"file_ids":[%q]}`},
		{"/v1/evals", `{"data_source":{"type":"jsonl","source":{"type":"file_id","id":%q}}}`},
	}},
	{path: "/v1/responses", body: respond, id: "resp_%d", made: `{"id": %q, "object": "response", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}`,
		named: "id", list: "data", below: "/input_items", uses: []use{
			{"/v1/responses", `{"model":"m","input":"hi","previous_response_id":%q}`},
			{"/v1/responses/input_tokens", `{"model":"m","input":"hi","previous_response_id":%q}`},
			{"/v1/responses", `{"model":"m","input":"hi","previous_re\u017fponse_id":%q}`},
			{"/v1/responses/%s/cancel", `{}`},
		}},
	{path: "/v1/conversations", body: `{}`, id: "conv_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/items", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","conversation":%q}`},
		{"/v1/responses", `{"model":"m","input":"hi","conversation":{"id":%q}}`},
		{"/v1/conversations/%s/items", `{"items":[]}`},
	}},
	{path: "/v1/chat/completions", body: `{"model":"m","messages":[],"store":true}`, id: "chatcmpl-%d", named: "id", list: "data", below: "/messages",
		made: `{"id": %q, "object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}`},
	{path: "/v1/threads", body: `{}`, id: "thread_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/messages", uses: []use{
		{"/v1/threads/%s/messages", `{"role":"user","content":"x"}`}, {"/v1/threads/%s/runs", `{"stream":true}`},
	}},
	{path: "/v1/assistants", body: `{"model":"m"}`, id: "asst_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{
		{"/v1/threads/runs", `{"assistant_id":%q}`}, {"/v1/assistants/%s", `{"name":"x"}`},
	}},
	{path: "/v1/vector_stores", body: `{}`, id: "vs_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/files", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"file_search","vector_store_ids":["%s"]}]}`},
		{"/v1/assistants", `{"model":"m","tool_resources":{"file_search":{"vector_store_ids":["%s"]}}}`},
		{"/v1/vector_stores/%s/search", `{"query":"x"}`},
	}},
	{path: "/v1/containers", body: `{"name":"x"}`, id: "cntr_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/files/cfile_1/content", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"code_interpreter","container":%q}]}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":%q}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":{"id":%q,"skills":[{"type":"anthropic","skill_id":"pptx"}]}}`},
	}},
	{path: "/v1/batches", body: `{"endpoint":"/v1/responses"}`, id: "batch_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/batches/%s/cancel", `{}`}}},
	{path: "/v1/messages/batches", body: `{"requests":[]}`, id: "msgbatch_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/messages/batches/%s/cancel", `{}`}}},
	{path: "/v1/batch/jobs", body: `{"model":"m"}`, id: "job-%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/batch/jobs/%s/cancel", ``}}},
	{path: "/v1/fine_tuning/jobs", body: `{"model":"m"}`, id: "ftjob-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/events", uses: []use{{"/v1/fine_tuning/jobs/%s/cancel", ``}}},
	{path: "/v1/evals", body: `{"name":"x"}`, id: "eval_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/runs"},
	{path: "/v1/videos", body: `{"model":"m","seconds":"4"}`, id: "video_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content", uses: []use{
		{"/v1/videos/%s/remix", `{"model":"m","seconds":"4"}`}, {"/v1/videos/edits", `{"model":"m","seconds":"4","video":{"id":%q}}`},
	}},
	{path: "/v1/videos", create: "/v1/videos/generations", body: `{"model":"m","duration":4}`, id: "req-%d", made: `{"request_id": %q}`, named: "id", list: "data"},
	{path: "/v1/skills", body: `{}`, id: "skill_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/versions", uses: []use{
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":{"skills":[{"type":"custom","skill_id":%q}]}}`},
	}},
	{path: "/v1/conversations", body: `{"inputs":"x","model":"m"}`, id: "c-%d", made: `{"conversation_id": %q, "outputs": []}`, named: "id", below: "/history", uses: []use{ // Mistral's
		{"/v1/conversations/%s", `{"inputs":"y"}`},
	}},
	{path: "/v1/agents", body: `{"model":"m","name":"x"}`, id: "ag_%d", made: `{"id": %q}`, named: "id", uses: []use{
		{"/v1/agents/completions", `{"agent_id":%q,"messages":[]}`}, {"/v1/agents", `{"model":"m","handoffs":[%q]}`},
	}},
	{path: "/v1/datasets", body: `{}`, id: "ds-%d", made: `{"id": %q}`, named: "id", list: "datasets", uses: []use{{"/v1/embed-jobs", `{"dataset_id":%q}`}}},
	{path: "/v1/embed-jobs", body: `{}`, id: "ej-%d", made: `{"job_id": %q}`, named: "job_id", list: "embed_jobs"},
	{path: "/v1beta/files", create: "/upload/v1beta/files", body: `{"file":{}}`, id: "files/f%d", made: `{"file": {"name": %q}}`, named: "name", list: "files", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/%s"}}]}]}`},
		{"/v1beta/models/g:generateContent", `{"contents":[{"parts":[{"file_data":{"file_uri":"HTTPS://other.googleapis.com/v1beta//%s?alt=media"}}]}]}`},
		{"/v1beta/interactions", `{"model":"m","input":[{"type":"document","uri":"https://generativelanguage.googleapis.com/v1beta/%s"}]}`},
	}},
	{path: "/v1beta/cachedContents", body: `{"model":"m"}`, id: "cachedContents/c%d", made: `{"name": %q}`, named: "name", list: "cachedContents", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[],"cachedContent":%q}`},
		{"/v1beta/models/g:generateContent", `{"contents":[],"cached_content":"projects/p/locations/l/%s"}`},
	}},
	{path: "/v1beta/models/veo/operations", create: "/v1beta/models/veo:predictLongRunning", body: `{}`, id: "models/veo/operations/o%d", made: `{"name": %q}`, named: "name", list: "operations"},
	{path: "/v1beta/batches", create: "/v1beta/models/g:batchGenerateContent", body: `{}`, id: "batches/b%d", made: `{"name": %q}`, named: "name", list: "operations"},
	{path: "/v1beta/fileSearchStores", body: `{}`, id: "fileSearchStores/s%d", made: `{"name": %q}`, named: "name", list: "fileSearchStores", below: "/documents", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[],"tools":[{"fileSearch":{"fileSearchStoreNames":[%q]}}]}`},
	}},
	{path: "/v1beta/interactions", body: `{"model":"m","input":"x"}`, id: "in-%d", made: `{"id": %q, "model": "m", "usage": {"total_input_tokens": 1, "total_output_tokens": 1}}`, named: "id", list: "data", uses: []use{
		{"/v1beta/interactions", `{"model":"m","input":"y","previous_interaction_id":%q}`},
	}},
	{path: "/v1/collections", body: `{"collection_name":"x"}`, id: "collection_%d", made: `{"collection_id": %q}`, named: "collection_id", list: "collections", below: "/documents", uses: []use{ // xAI's
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"file_search","vector_store_ids":["%s"]}]}`},
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"collections_search","collection_ids":["%s"]}]}`},
		{"/v1/documents/search", `{"query":"x","source":{"collection_ids":["%s"]}}`},
	}},
	{path: "/v1/finetuning/finetuned-models", body: `{"name":"x"}`, id: "00000000-0000-4000-8000-%012d", made: `{"finetuned_model": {"id": %q}}`, named: "id", list: "finetuned_models", uses: []use{ // Cohere's
		{"/v2/chat", `{"model":"%s-ft","messages":[{"role":"user","content":"hi"}]}`}, {"/v1/chat", `{"model":%q,"message":"hi"}`},
		{"/v2/rerank", `{"model":"%s-FT","query":"x","documents":["y"]}`},
	}},
	{path: "/openai/files", body: `{}`, id: "assistant-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content"}, // Azure's
	{path: "/files", body: `{}`, id: "file-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content"},
}

// TestResourcesBelongToWhoMadeThem has two agents make one of each collection: each reads, uses, lists and deletes its own, and for the other it
// is not there.
func TestResourcesBelongToWhoMadeThem(t *testing.T) {
	t.Parallel()
	for _, c := range collections {
		for name, route := range map[string]func(*testing.T) gateway.Route{"a tariff": anyCall, "by the call": byCall} {
			t.Run(c.creates()+" "+name, func(t *testing.T) {
				t.Parallel()
				m := openStorehouse(t, route(t), c)
				alices, bobs := m.make("alice"), m.make("bob")
				m.lists("alice", alices)
				m.lists("bob", bobs)
				for _, id := range []string{alices, bobs} {
					at := c.path + "/" + last(id)
					is := id == alices
					m.serves(is, "alice", "GET", at, "")
					m.serves(is, "alice", "HEAD", at, "")
					m.serves(is, "alice", "GET", at+c.below, "")
					m.serves(is, "alice", "GET", strings.ToUpper(c.path[:2])+c.path[2:]+"//"+last(id), "")
					for _, u := range c.uses {
						body, path := u.body, u.path
						if strings.Contains(path, "%") {
							path = fmt.Sprintf(path, last(id))
						} else {
							body = fmt.Sprintf(body, id)
						}
						m.serves(is, "alice", "POST", path, body)
					}
				}
				m.serves(false, "alice", "DELETE", c.path+"/"+last(bobs), "")
				m.serves(false, "alice", "DELETE", c.path, "")
				m.serves(true, "alice", "DELETE", c.path+"/"+last(alices), "")
				m.serves(false, "alice", "GET", c.path+"/"+last(alices), "")
				m.lists("bob", bobs)
				m.serves(false, "alice", "GET", c.path+"/unknown", "")
				m.serves(false, "alice", "GET", c.path+"?after="+last(bobs), "")
				m.serves(true, "bob", "GET", c.path+"?after="+last(bobs), "")
			})
		}
	}
}

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

// TestSharedResources: what nobody made here is nobody's, but for what the provider shares.
func TestSharedResources(t *testing.T) {
	t.Parallel()
	files := collections[0]
	for _, test := range []struct {
		shared string
		ids    string // that alice may use
	}{
		{"none", ""}, {"file-a*", "file-a1"}, {"files/*", "file-a1 file-b1"}, {"vector_stores/*", ""}, {"*1", "file-a1 file-b1"}, {"f*-b*", "file-b1"}, {"FILES/file-b1", "file-b1"},
		{"*", "file-a1 file-b1 file-c2"}, {"file-a1 file-b1", "file-a1 file-b1"},
	} {
		route := anyCall(t)
		route.Shared = shared(t, strings.Fields(test.shared)...)
		m := openStorehouse(t, route, files)
		m.keeper.things[files.path] = []string{"file-a1", "file-b1"}
		for _, id := range []string{"file-a1", "file-b1"} {
			is := slices.Contains(strings.Fields(test.ids), id)
			m.serves(is, "alice", "GET", "/v1/files/"+id, "")
			m.serves(is, "alice", "POST", files.uses[0].path, fmt.Sprintf(files.uses[0].body, id))
		}
		if test.shared == "*" {
			continue
		}
		m.lists("alice", strings.Fields(test.ids)...)
	}
	for _, wrong := range []string{"", "none file-a", "nothing/*", "files/", "a\x00"} {
		if _, err := gateway.ParseShared(strings.Split(wrong, " ")); err == nil {
			t.Errorf("shared %q is taken", wrong)
		}
	}
	// What is shared stays so, also when an answer tells of it.
	route := anyCall(t)
	route.Shared = shared(t, "conv_old")
	m := openStorehouse(t, route, collections[1])
	m.keeper.shape.made = `{"id": %q, "conversation": {"id": "conv_old"}, "usage": {"input_tokens": 1, "output_tokens": 1}}`
	m.make("alice")
	m.serves(true, "bob", "GET", "/v1/conversations/conv_old/items", "")
}

// TestWhatCameOfResources: what an answer tells of, beside the thing that was asked for, belongs to the same payer.
func TestWhatCameOfResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		shape            collection
		get, told        string // %s is the id
		method, path     string
		body             string
		othersGetItFirst bool
	}{
		{collections[8], "/v1/batches/%s", `{"id":"x","output_file_id":"file-out","error_file_id":null}`, "GET", "/v1/files/file-out/content", "", false},
		{collections[11], "/v1/fine_tuning/jobs/%s", `{"fine_tuned_model":"ft:m:me::1","result_files":["file-out"]}`, "GET", "/v1/files/file-out", "", false},
		{collections[11], "/v1/fine_tuning/jobs/%s", `{"fine_tuned_model":"ft:m:me::1"}`, "POST", "/v1/chat/completions", `{"model":"ft:m:me::1","messages":[]}`, false},
		{collections[22], "/v1beta/models/veo/operations/%s", `{"done":true,"response":{"generateVideoResponse":{"generatedSamples":[{"video":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/v1:download?alt=media"}}]}}}`,
			"GET", "/v1beta/files/v1:download", "", false},
		{collections[4], "/v1/threads/%s/messages", `{"data":[{"content":[{"image_file":{"file_id":"file-img"}}]}]}`, "GET", "/v1/files/file-img/content", "", false},
	} {
		m := openStorehouse(t, anyCall(t), test.shape)
		id := last(m.make("alice"))
		m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
			told := test.told
			if r.URL.Path != fmt.Sprintf(test.get, id) {
				told = `{"usage":{"prompt_tokens":1,"completion_tokens":1}}`
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, told)
			return true
		}
		m.serves(false, "alice", test.method, test.path, test.body)
		if _, answer, _ := m.ask("alice", "GET", fmt.Sprintf(test.get, id), ""); answer != test.told {
			t.Errorf("%s: %s", test.get, answer)
		}
		m.serves(true, "alice", test.method, test.path, test.body)
		m.serves(false, "bob", test.method, test.path, test.body)
	}
}

// responseStream is the stream of a response that has run code.
const responseStream = `data: {"type":"response.created","response":{"id":"resp_s"}}

data: {"type":"response.output_item.added","item":{"id":"msg_s","type":"message"}}

data: {"type":"response.output_text.delta","delta":"hello world"}

`

const responseEnd = `data: {"type":"response.completed","response":{"id":"resp_s","output":[{"id":"ci_s","type":"code_interpreter_call","container_id":"cntr_s"}],"usage":{"input_tokens":1,"output_tokens":2}}}

`

// TestStreamsMakeResources: of a stream, also of one that broke off, what its events have told belongs to who asked for it. Of one whose money ran
// out nothing does: it could be read whole.
func TestStreamsMakeResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		stream    string
		cut       bool
		price     string
		stored    string
		mine, not []string
	}{
		{"whole", responseStream + responseEnd, false, "0.000001", "", []string{"/v1/responses/resp_s", "/v1/containers/cntr_s", "item msg_s", "item ci_s"}, nil},
		{"cut by the provider", responseStream, true, "0.000001", "", []string{"/v1/responses/resp_s", "item msg_s"}, []string{"/v1/containers/cntr_s", "item ci_s"}},
		{"out of money", responseStream + strings.Repeat(strings.Split(responseStream, "\n\n")[2]+"\n\n", 100) + responseEnd, false, "0.01", "", nil, []string{"/v1/responses/resp_s", "item msg_s"}},
		{"not stored", responseStream + responseEnd, false, "0.000001", `,"store":false`, []string{"/v1/containers/cntr_s"}, []string{"/v1/responses/resp_s", "item msg_s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			output, err := pricing.ParseClassPrice("output", strings.Fields(test.price+" per token"))
			must(t, err)
			tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{output}}}, MaxOutput: 10}
			must(t, tariff.Compile(nil))
			m := openStorehouse(t, gateway.Route{Tariff: tariff}, collections[1])
			m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost || r.Header.Get("X-Stream") == "" {
					return false
				}
				w.Header().Set("Content-Type", "text/event-stream")
				for event := range strings.SplitAfterSeq(test.stream, "\n\n") {
					_, _ = io.WriteString(w, event)
					_ = http.NewResponseController(w).Flush()
				}
				if test.cut {
					panic(http.ErrAbortHandler)
				}
				return true
			}
			m.keeper.things["/v1/responses"] = []string{"resp_s"}
			m.stream("alice", `{"model":"m","input":"x","stream":true`+test.stored+`}`)
			m.keeper.answer = nil
			request := func(what string) (method, path, body string) {
				if item, ok := strings.CutPrefix(what, "item "); ok {
					return "POST", "/v1/responses", `{"model":"m","input":[{"type":"item_reference","id":"` + item + `"}]}`
				}
				return "GET", what, ""
			}
			check := func(is bool, agent, what string) {
				t.Helper()
				method, path, body := request(what)
				m.serves(is, agent, method, path, body)
			}
			for _, what := range test.mine {
				check(true, "alice", what)
				check(false, "bob", what)
			}
			for _, what := range test.not { // what is paid for only in part is had for the rest of its price
				method, path, body := request(what)
				if status, answer, forwarded := m.ask("alice", method, path, body); forwarded || status != 404 && status != 402 {
					t.Errorf("%s: %d %s", what, status, answer)
				}
			}
		})
	}
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

// TestAClientThatHangsUpKeepsWhatItWasTold: what was made in a stream that its client leaves is its client's.
func TestAClientThatHangsUpKeepsWhatItWasTold(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	m := openStorehouse(t, anyCall(t), collections[1])
	m.keeper.things["/v1/responses"] = []string{"resp_s"}
	m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Stream") == "" {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, responseStream)
		_ = http.NewResponseController(w).Flush()
		<-left
		_, _ = io.WriteString(w, responseEnd)
		return true
	}
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url+"/v1/responses", strings.NewReader(`{"model":"m","input":"x","stream":true}`))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+m.key)
	r.Header.Set("X-Stream", "1")
	response, err := http.DefaultClient.Do(r)
	must(t, err)
	_, err = io.ReadFull(response.Body, make([]byte, 100))
	must(t, err)
	hangUp()
	_ = response.Body.Close()
	close(left)
	m.await()
	m.serves(true, "alice", "GET", "/v1/responses/resp_s", "")
	m.serves(false, "bob", "GET", "/v1/responses/resp_s", "")
}

// TestResourcesOutliveTheServer: what belongs to whom is durable before the answer goes out, and all keys of an agent are the same payer.
func TestResourcesOutliveTheServer(t *testing.T) {
	t.Parallel()
	memory := new(ledgertest.Memory)
	m := &storehouse{shop: &shop{t: t}, keeper: &keeper{things: map[string][]string{}, shape: collections[0]}, keys: map[string]string{}}
	open := func() (closed func()) {
		books, err := ledger.New(memory.Open(), ledger.Options{Currency: "USDC"})
		must(t, err)
		m.book = escrow.New(books, escrow.Rules{OpenRegistration: true})
		must(t, m.book.Reserve(t.Context(), "acme"))
		route := anyCall(t)
		route.Payee, route.Logger = "acme", slog.New(slog.DiscardHandler)
		server := httptest.NewServer(gateway.New(m.book, gateway.Options{}).Handler(&route, m.keeper))
		m.url = server.URL
		return func() { server.Close(); must(t, books.Close()) }
	}
	closed := open()
	m.keys["alice"], m.keys["bob"] = m.agent("alice", "1"), m.agent("bob", "1")
	id := m.make("alice")
	must(t, m.do(func(tx *escrow.Tx) (err error) {
		_, m.keys["alice again"], err = tx.CreateKey(escrow.Actor{Agent: "alice"}, "alice", escrow.KeyOrder{Name: "second"})
		return err
	}))
	closed()
	defer open()()
	m.serves(true, "alice", "GET", "/v1/files/"+id, "")
	m.serves(true, "alice again", "GET", "/v1/files/"+id, "")
	m.serves(false, "bob", "GET", "/v1/files/"+id, "")
}

// TestReplaysKeepTheirResources: an answer that is given again names what was made the first time.
func TestReplaysKeepTheirResources(t *testing.T) {
	t.Parallel()
	route := anyCall(t)
	route.Keep = &gateway.Keep{Size: 1 << 20, For: 1 << 40}
	m := openStorehouse(t, route, collections[0])
	_, first, _ := m.ask("alice", "POST", "/v1/files", `{}`, "Idempotency-Key", "k")
	_, again, forwarded := m.ask("alice", "POST", "/v1/files", `{}`, "Idempotency-Key", "k")
	if first != again || forwarded {
		t.Errorf("%s, then %s, forwarded %t", first, again, forwarded)
	}
	m.serves(true, "alice", "GET", "/v1/files/"+gjson.Get(first, "id").String(), "")
	m.serves(false, "bob", "GET", "/v1/files/"+gjson.Get(first, "id").String(), "")
}

// TestWhatNamesNoResource: words that a tool is called with, or that the caller keeps for itself, are no ids of the provider's; and a route that does
// not keep payers apart lets all pass.
func TestWhatNamesNoResource(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"model":"m","input":"x","metadata":{"file_id":"mine"}}`,
		`{"model":"m","input":[{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{\"file_id\":\"mine\"}"}]}`,
		`{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":{"properties":{"file_id":{"enum":["mine"]}}}}]}`,
		`{"model":"m","input":"x","previous_response_id":null,"conversation":""}`,
		`{"model":"m","input":"x","prompt":{"id":"pmpt_1"}}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_url":"https://example.com/v1/files/x.pdf"}]}]}`,
	} {
		m := openStorehouse(t, anyCall(t), collections[1])
		m.serves(true, "alice", "POST", "/v1/responses", body)
	}
	for path, body := range map[string]string{
		"/v1/messages":                     `{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"file_id":"mine"}}]}]}`,
		"/v1beta/models/g:generateContent": `{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"file_id":"mine"}}},{"fileData":{"fileUri":"https://youtu.be/x"}}]}]}`,
	} {
		m := openStorehouse(t, anyCall(t), collections[1])
		m.serves(true, "alice", "POST", path, body)
	}
	open := openStorehouse(t, gateway.Route{Rates: rates(t, "0.0001 per call")}, collections[0])
	open.keeper.things["/v1/files"] = []string{"file-old"}
	open.serves(true, "alice", "GET", "/v1/files/file-old", "")
	open.serves(true, "alice", "POST", "/v1/responses", `{"previous_response_id":"resp_old"}`)
}

// TestWhatCannotBeReadIsRefused: a request in which a provider may find the id of what is another's, and a list that can't be cut down.
func TestWhatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	m := openStorehouse(t, anyCall(t), collections[0])
	for _, test := range []struct{ path, body, kind string }{
		{"/v1/batches", "\xff\xfe{\x00", "application/json"},
		{"/v1/batches", "input_file_id=file-1", "application/x-www-form-urlencoded"},
		{"/v1/batches", `{"input_file_id":"file-1","Input_file_id":"file-2"}`, "application/json"},
		{"/v1/files?after=%zz", "", ""},
	} {
		method := "POST"
		if test.body == "" {
			method = "GET"
		}
		if status, answer, forwarded := m.ask("alice", method, test.path, test.body, "Content-Type", test.kind); status != 422 || forwarded {
			t.Errorf("%s %q: %d %s", test.path, test.body, status, answer)
		}
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	must(t, w.WriteField("file_id", "file-1"))
	must(t, w.Close())
	m.keeper.shape = collections[7]
	container := m.make("alice")
	m.serves(false, "alice", "POST", "/v1/containers/"+container+"/files", form.String(), "Content-Type", w.FormDataContentType())

	for _, answer := range []string{`no JSON`, `"text"`, `{"data":[{"id":"file-1"}]`, `{"data":[` + strings.Repeat(`{"id":"file-1"},`, 300_000) + `{}]}`} {
		m.keeper.answer = func(w http.ResponseWriter, _ *http.Request) bool { _, _ = io.WriteString(w, answer); return true }
		if status, told, _ := m.ask("alice", "GET", "/v1/files", ""); status != 422 || strings.Contains(told, "file-1") {
			t.Errorf("%.40s: %d %.200s", answer, status, told)
		}
	}
}

// TestANameIsNoID: a name that an agent chooses for what it makes does not make it the owner of what has such an id; and no cache in front gives one
// agent's list to another.
func TestANameIsNoID(t *testing.T) {
	t.Parallel()
	files := collections[0]
	files.made = `{"id": %q, "name": "file-old"}`
	m := openStorehouse(t, anyCall(t), files)
	m.keeper.things[files.path] = []string{"file-old"}
	m.make("alice")
	m.serves(false, "alice", "GET", "/v1/files/file-old", "")

	m.keeper.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Cache-Control", "public, max-age=60")
		return false
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/v1/files", nil)
	must(t, err)
	r.Header.Set("X-Api-Key", m.key)
	response, err := http.DefaultClient.Do(r)
	must(t, err)
	_ = response.Body.Close()
	want(t, "Cache-Control", response.Header.Get("Cache-Control"), "private, max-age=60")
}

// TestAWithheldAnswerMakesNothing: what was not paid for can't be had from the provider's store.
func TestAWithheldAnswerMakesNothing(t *testing.T) {
	t.Parallel()
	m := openStorehouse(t, gateway.Route{Rates: rates(t, "0.02 per byte"), Shared: shared(t, "none")}, collections[1])
	if status, answer, _ := m.ask("alice", "POST", "/v1/responses", respond); status != 402 || !strings.Contains(answer, "withheld") {
		t.Fatalf("%d %s", status, answer)
	}
	m.serves(false, "alice", "GET", "/v1/responses/resp_1", "")
}

// TestShadowModeKeepsNobodyOut: in shadow mode nothing is refused or left out.
func TestShadowModeKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	route := anyCall(t)
	route.Shadow = true
	m := openStorehouse(t, route, collections[0])
	id := m.make("alice")
	m.serves(true, "bob", "GET", "/v1/files/"+id, "")
	m.serves(true, "bob", "POST", "/v1/responses", `{"model":"m","input":"x","previous_response_id":"resp_x"}`)
	if _, list, _ := m.ask("bob", "GET", "/v1/files", ""); !strings.Contains(list, id) {
		t.Errorf("bob sees %s", list)
	}
}
