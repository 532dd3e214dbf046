package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow/api"
)

// A name that a request can't have is refused wherever it stands: what was meant by it would not take place.
func TestUnknownNamesAreRefused(t *testing.T) {
	e := newEstate(t)
	for _, test := range []struct{ method, path, body, field, detail string }{
		{"POST", "/agents/me/keys", `{"expire_at":"2027-01-01T00:00:00Z"}`, "expire_at", "expire_at"},
		{"POST", "/escrow", `{"to_agent_id":"bob","amount":1,"expires_at":"2027-01-01T00:00:00Z"}`, "expires_at", "auto_release_hours"},
		{"POST", "/escrow", `{"to_agent_id":"bob","amount":1,"auto_release_hour":1}`, "auto_release_hour", "did you mean auto_release_hours?"},
		{"POST", "/escrow", `{"to_agent_id":"bob","amount":1,"autoReleaseHours":1}`, "autoReleaseHours", "did you mean auto_release_hours?"},
		{"POST", "/escrow", `{"to_agent_id":"bob","Amount":1}`, "Amount", "did you mean amount?"},
		{"POST", "/escrow", `{"to_agent_id":"bob","amount":1,"x":1,"currency":"EUR"}`, "currency", "there are no fields currency, x"},
		{"POST", "/escrow", `{"to_agent_id":"bob","amount":1,"milestones":[{"name":"a","amount":1},{"name":"b","amount":1,"due":"soon"}]}`, "milestones.1.due", "name, amount"},
		{"POST", "/escrow/" + e.own["escrow"] + "/release", `{"amount":"1"}`, "amount", "this request has memo"},
		{"POST", "/wallet/transfer", `{"to_agent_id":"bob","amount":1,"dry_run":true}`, "dry_run", "dry_run"},
		{"POST", "/wallet/transfer?amount=1", `{"to_agent_id":"bob","amount":1}`, "amount", "amount is a field of the body"},
		{"POST", "/subscriptions/" + e.own["subscriptions"] + "/resume", `{"amount":1}`, "amount", "this request has none"},
		{"PUT", "/limits", `{"limits":[{"amount":1,"window_hours":1,"model":"x"}]}`, "limits.0.model", "window_hours"},
		{"DELETE", "/agents/me/keys/" + e.own["keys"], `{"agent_id":"bob"}`, "agent_id", "agent_id is a parameter of the query"},
		{"GET", "/escrow?payee=bob", "", "payee", "status"},
		{"GET", "/wallet/entries?kind=faucet", "", "kind", "agent_id"},
		{"GET", "/charges?payeee=bob", "", "payeee", "did you mean payee?"},
		{"GET", "/charges?payee=bob&payee=eve", "", "payee", "2 times"},
		{"GET", "/usage?model=x", "", "model", "group_by"},
		{"GET", "/agents/me?verbose=1", "", "verbose", "this request has none"},
	} {
		a := e.do(test.method, "/api/v1"+test.path, e.alice, test.body).want(422, "code", "invalid_request", "field", test.field)
		if !strings.Contains(a.str("detail"), test.detail) {
			t.Errorf("%s: %s, want %s", a.what, a.str("detail"), test.detail)
		}
	}
	e.balance(e.alice, "83.75")

	// Null gives nothing, so it changes nothing.
	e.post("/wallet/transfer", e.alice, `{"to_agent_id":"bob","amount":1,"expires_at":null}`).want(200)
	// An answer may be sent back.
	e.do("PUT", "/api/v1/limits", e.alice, `{"limits":[{"payee":"bob","amount":5,"window_hours":24}]}`).want(200)
	e.do("PUT", "/api/v1/limits", e.alice, e.get("/limits", e.alice).text).want(200, "limits.0.payee", "bob", "limits.1", "<none>")
}

func TestUnknownArgumentsOfToolsAreRefused(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "20")
	g.agent("bob", "0")
	server := httptest.NewServer(g.http)
	defer server.Close()
	s := session(t, server.URL, alice)
	use(t, s, true, "escrow_create", map[string]any{"to_agent_id": "bob", "amount": 5, "expires_at": "2027-01-01T00:00:00Z"}).want(0, "code", "invalid_request", "field", "expires_at")
	use(t, s, true, "escrow_list", map[string]any{"payee": "bob"}).want(0, "code", "invalid_request", "field", "payee")
	use(t, s, true, "wallet_balance", map[string]any{"idempotency_key": "k"}).want(0, "field", "idempotency_key")
	g.balance(alice, "20")
}
