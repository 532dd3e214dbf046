package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow/api"
)

// FuzzBodies sends any body to the routes that move money. Each answer must match the contract, and no money may be created.
func FuzzBodies(f *testing.F) {
	g := newGate(f, rules(), api.Options{})
	alice := g.agent("alice", "1000")
	g.agent("bob", "0")
	id := g.post("/escrow", alice, `{"to_agent_id":"bob","amount":100}`).str("escrow_id")
	paths := []string{"/wallet/transfer", "/escrow", "/escrow/" + id + "/release-partial", "/escrow/" + id + "/refund", "/subscriptions", "/webhooks", "/agents/me/keys", "/wallet/debit"}
	for _, body := range []string{
		`{"to_agent_id":"bob","amount":"1"}`, `{"to_agent_id":"bob","amount":1e-9,"auto_release_hours":0.5,"milestones":[{"name":"a","amount":1}]}`,
		`{"amount":2.6000000000000002e-05}`, `{"amount":1e999999999}`, `{"payee":"bob","plan":"x"}`, `{"url":"http://10.0.0.1"}`, `{"events":[1]}`, `[]`, ``,
		`{"auto_release_hours":1e308}`, `{"auto_release_hours":"1e-999999999"}`, "{\"memo\":\"\x00\"}", `{"agent_id":"alice","amount":"1"}`,
	} {
		for i := range paths {
			f.Add(i, body)
		}
	}
	f.Fuzz(func(t *testing.T, path int, body string) {
		g := g.by(t)
		a := g.do("POST", "/api/v1"+paths[uint(path)%uint(len(paths))], alice, body)
		if a.status >= 500 {
			t.Fatalf("%d: %s", a.status, a.text)
		}
		total := int64(0)
		for _, agent := range []string{"alice", "bob"} {
			w, err := g.book.Wallet(context.Background(), agent)
			must(t, err)
			if w.Available < 0 {
				t.Fatalf("%s has %s available", agent, w.Available)
			}
			total += int64(w.Balance)
		}
		if total > 1000e9 {
			t.Fatalf("there is more money than there was")
		}
	})
}

// FuzzCursors sends anything as a cursor.
func FuzzCursors(f *testing.F) {
	g := newGate(f, rules(), api.Options{})
	alice := g.agent("alice", "1000")
	g.agent("bob", "0")
	for range 3 {
		g.post("/escrow", alice, `{"to_agent_id":"bob","amount":1}`).want(201)
	}
	f.Add(g.get("/escrow?limit=1&status=open", alice).str("next_cursor"), "/escrow")
	f.Add(g.get("/wallet/entries?limit=1", alice).str("next_cursor"), "/wallet/entries")
	f.Add("eyJiIjoiIn0", "/charges")
	f.Fuzz(func(t *testing.T, cursor, path string) {
		if path != "/wallet/entries" && path != "/charges" && path != "/subscriptions" {
			path = "/escrow"
		}
		g := g.by(t)
		a := g.get(path+"?cursor="+url.QueryEscape(cursor), alice)
		if a.status != 200 && a.status != 422 && a.status != 403 {
			t.Fatalf("%d: %s", a.status, a.text)
		}
	})
}

// FuzzAuthorization sends anything as a key.
func FuzzAuthorization(f *testing.F) {
	g := newGate(f, rules(), api.Options{})
	f.Add("Bearer tg_x")
	f.Add("Basic YTpi")
	f.Add("bearer")
	f.Fuzz(func(t *testing.T, header string) {
		if strings.Contains(header, operatorKey) {
			return
		}
		req := httptest.NewRequest(http.MethodGet, "/api/v1/wallet", nil)
		req.RemoteAddr = "127.0.0.1:4711"
		req.Header["Authorization"] = []string{header}
		w := httptest.NewRecorder()
		g.http.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized {
			t.Fatalf("%q: %d %s", header, w.Code, w.Body)
		}
	})
}
