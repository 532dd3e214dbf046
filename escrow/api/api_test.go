package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

const operatorKey = "the operator's own words"

// gate is the API with a ledger in a real file, and a clock that tests set.
type gate struct {
	t    testing.TB
	book *escrow.Book
	http http.Handler

	mu  sync.Mutex
	now time.Time
}

func rules() escrow.Rules {
	return escrow.Rules{
		OpenRegistration: true, Faucet: 10 * ledger.Unit, MinEscrow: ledger.Unit, OperatorKeyHash: escrow.HashKey(operatorKey),
	}
}

// newGate is a gate whose operations all run twice.
func newGate(t testing.TB, r escrow.Rules, o api.Options) *gate {
	t.Helper()
	g := &gate{t: t, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	store, err := bolt.Open(filepath.Join(t.TempDir(), "ledger.db"), bolt.Options{NoSync: true})
	must(t, err)
	l, err := ledger.New(ledgertest.Twice(store), ledger.Options{Now: g.clock, Currency: "USDC"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	g.book = escrow.New(l, r)
	g.http = api.New(func() *escrow.Book { return g.book }, o)
	return g
}

// by returns the same gate for another test.
func (g *gate) by(t testing.TB) *gate { return &gate{t: t, book: g.book, http: g.http, now: g.clock()} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *gate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// wait moves the clock and does what is due, as a server's worker does.
func (g *gate) wait(d time.Duration) {
	g.pass(d)
	if _, err := g.book.RunDue(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// pass moves the clock, and does nothing that is due.
func (g *gate) pass(d time.Duration) {
	g.mu.Lock()
	g.now = g.now.Add(d)
	g.mu.Unlock()
}

// answer is the answer to a request.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	text   string
	body   map[string]any
}

// do sends a request; headers are names and values by turns.
func (g *gate) do(method, path, key, body string, headers ...string) answer {
	g.t.Helper()
	req := httptest.NewRequest(method, "http://gate"+path, strings.NewReader(body))
	req.RemoteAddr = "127.0.0.1:4711"
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, req)
	text, err := io.ReadAll(w.Result().Body)
	must(g.t, err)
	a := answer{t: g.t, what: method + " " + path, status: w.Code, header: w.Result().Header, text: string(text)}
	if len(text) > 0 && strings.Contains(a.header.Get("Content-Type"), "json") {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&a.body); err != nil {
			g.t.Fatalf("%s: %v in %s", a.what, err, text)
		}
	}
	if err := theContract.validate(method, path, a); err != nil {
		g.t.Errorf("%s: the answer breaks the contract: %v: %s", a.what, err, text)
	}
	return a
}

func (g *gate) get(path, key string) answer {
	g.t.Helper()
	return g.do("GET", "/api/v1"+path, key, "")
}
func (g *gate) post(path, key, body string, headers ...string) answer {
	g.t.Helper()
	return g.do("POST", "/api/v1"+path, key, body, headers...)
}

// want checks the status and some fields of the answer: names and values by turns.
func (a answer) want(status int, fields ...string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: %d, want %d: %s", a.what, a.status, status, a.text)
	}
	for i := 0; i < len(fields); i += 2 {
		if got := a.str(fields[i]); got != fields[i+1] {
			a.t.Fatalf("%s: %s is %q, want %q: %s", a.what, fields[i], got, fields[i+1], a.text)
		}
	}
	return a
}

// str is a field as text; a.b is field b of object a, a.0 the first of array a.
func (a answer) str(path string) string {
	var v any = a.body
	for _, name := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i := int(name[0] - '0')
			if i >= len(at) {
				return "<none>"
			}
			v = at[i]
		default:
			return "<none>"
		}
	}
	switch v := v.(type) {
	case string:
		return v
	case nil:
		return "null"
	default:
		text, _ := json.Marshal(v)
		return string(text)
	}
}

// agent makes an agent with money and returns its key.
func (g *gate) agent(id, money string) (key string) {
	g.t.Helper()
	key = g.post("/agents", "", `{"agent_id":"`+id+`"}`).want(201, "agent_id", id).str("api_key")
	if money != "0" {
		g.post("/wallet/deposit", operatorKey, `{"agent_id":"`+id+`","amount":"`+money+`"}`).want(200)
	}
	return key
}

func (g *gate) balance(key, want string) {
	g.t.Helper()
	g.get("/wallet", key).want(200, "balance", want)
}

// openAPIOf returns the description that a handler serves.
func openAPIOf(h http.Handler) []byte {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://gate/openapi.json", nil))
	return w.Body.Bytes()
}
