package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func TestAgentsAndKeys(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	made := g.post("/agents", "", `{"agent_id":"alice","name":"Alice"}`).want(201, "agent_id", "alice", "name", "Alice")
	key := made.str("api_key")
	g.post("/agents", "", `{"agent_id":"alice"}`).want(409, "code", "already_exists")
	g.post("/agents", "", ``).want(201)
	g.post("/agents", "", `{"agent_id":"a b"}`).want(422, "code", "invalid_request", "field", "agent_id")
	g.get("/agents/me", key).want(200, "agent_id", "alice", "name", "Alice")
	g.get("/agents/me", operatorKey).want(200, "agent_id", "operator", "operator", "true")

	second := g.post("/agents/me/keys", key, `{"name":"reader","read_only":true}`).want(201, "read_only", "true")
	reader, id := second.str("api_key"), second.str("key_id")
	g.get("/wallet", reader).want(200)
	g.post("/faucet", reader, "").want(403, "code", "forbidden")
	g.post("/agents/me/keys", reader, "{}").want(403)
	g.get("/agents/me/keys", key).want(200, "keys.1.revoked_at", "null", "keys.2.name", "<none>")
	if text := g.get("/agents/me/keys", key).text; strings.Contains(text, "api_key") {
		t.Errorf("a list shows keys: %s", text)
	}
	g.do("DELETE", "/api/v1/agents/me/keys/"+id, key, "").want(204)
	g.do("DELETE", "/api/v1/agents/me/keys/"+id, key, "").want(409)
	g.do("DELETE", "/api/v1/agents/me/keys/nonsense", key, "").want(404)
	if detail := g.get("/wallet", reader).want(401, "code", "unauthorized").str("detail"); !strings.Contains(detail, "revoked") {
		t.Errorf("a revoked key is told %q", detail)
	}
	mistyped := []byte(key)
	mistyped[20] = map[bool]byte{true: 'b', false: 'a'}[mistyped[20] == 'a']
	if detail := g.get("/wallet", string(mistyped)).want(401).str("detail"); !strings.Contains(detail, "mistyped") {
		t.Errorf("a mistyped key is told %q", detail)
	}
	g.get("/wallet", "").want(401, "code", "unauthorized", "type", "/problems/unauthorized", "status", "401")
	g.get("/agents", key).want(403)
	g.get("/agents", operatorKey).want(200, "agents.1.agent_id", "alice")
}

func TestKeysBoundToPayees(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	g.agent("shop", "0")
	g.agent("other", "0")
	bound := g.post("/agents/me/keys", alice, `{"payees":["shop"]}`).want(201).str("api_key")
	g.post("/wallet/transfer", bound, `{"to_agent_id":"shop","amount":1}`).want(200, "balance", "9")
	g.post("/wallet/transfer", bound, `{"to_agent_id":"other","amount":1}`).want(403, "code", "forbidden")
	g.post("/escrow", bound, `{"to_agent_id":"other","amount":1}`).want(403)
	g.post("/agents/me/keys", bound, `{}`).want(403)
	g.do("PUT", "/api/v1/wallet/allowances/other", bound, `{"amount":1}`).want(403)
	g.post("/agents/me/keys", alice, `{"payees":["nobody"]}`).want(422, "field", "payees")
}

func TestRegistrationByTheOperator(t *testing.T) {
	r := rules()
	r.OpenRegistration = false
	g := newGate(t, r, api.Options{})
	g.post("/agents", "", `{}`).want(401)
	key := g.post("/agents", operatorKey, `{"agent_id":"alice"}`).want(201).str("api_key")
	g.post("/agents", key, `{}`).want(403)
	g.post("/agents/me/keys", operatorKey, `{"agent_id":"alice"}`).want(201)
	g.post("/agents/me/keys", operatorKey, `{}`).want(422, "field", "agent_id")
}

func TestAmounts(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "100")
	g.agent("shop", "0")
	for amount, want := range map[string]string{
		`"0.001"`: "0.001", `0.001`: "0.001", `1e-3`: "0.001", `"1E-3"`: "0.001", `5`: "5", `"5.000"`: "5",
		`"2.6000000000000002e-05"`: "0.000026", `2.6000000000000002e-05`: "0.000026", `0.1e1`: "1", `"0.000000001"`: "0.000000001",
	} {
		g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":`+amount+`}`).want(200, "amount", want)
	}
	for _, amount := range []string{
		`0`, `"0"`, `-1`, `"-0.5"`, `"NaN"`, `"Infinity"`, `""`, `"1,5"`, `true`, `[]`, `{}`, `0.0000000001`, `"1.0000000015"`, `1e400`, `"1e999999999"`, `"0x10"`, `null`,
	} {
		g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":`+amount+`}`).want(422, "code", "invalid_request", "field", "amount")
	}
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop"}`).want(422, "field", "amount")
	g.post("/wallet/transfer", alice, `{"amount":1}`).want(422, "field", "to_agent_id")
	g.post("/wallet/transfer", alice, `{"to_agent_id":7,"amount":1}`).want(422, "field", "to_agent_id")
	for _, body := range []string{`[]`, `"x"`, `{`, `nonsense`, `{"a":1}{`} {
		g.post("/wallet/transfer", alice, body).want(422, "field", "body")
	}
	g.post("/wallet/transfer", alice, `{"memo":"`+strings.Repeat("x", 65<<10)+`"}`).want(413, "code", "request_too_large")
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":1,"memo":"`+strings.Repeat("x", 2000)+`"}`).want(422, "field", "memo")
}

func TestInsufficientFundsTellHowToMendIt(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "1")
	g.agent("shop", "0")
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":"2.5"}`).want(402,
		"code", "insufficient_funds", "required", "2.5", "available", "1", "currency", "USDC", "payee", "shop",
		"pay.0.method", "faucet", "title", "Not enough money", "error", "null")
}

func TestEscrowObject(t *testing.T) {
	r := rules()
	r.CommissionPPM = 10000
	g := newGate(t, r, api.Options{})
	alice, shop, eve := g.agent("alice", "100"), g.agent("shop", "0"), g.agent("eve", "0")
	made := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":5,"memo":"work","auto_release_hours":"168"}`).want(201,
		"status", "open", "from_agent_id", "alice", "to_agent_id", "shop", "amount", "5", "released", "0", "refunded", "0", "remaining", "5",
		"held", "0", "commission", "0", "currency", "USDC", "memo", "work", "auto_release_hours", "168", "auto_release_at", "2026-12-01T12:00:00Z",
		"on_expiry", "release", "milestones", "[]", "created_at", "2026-11-24T12:00:00Z", "updated_at", "2026-11-24T12:00:00Z")
	id := made.str("escrow_id")
	path := "/escrow/" + id
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1,"auto_release_hours":0.5}`).want(201, "auto_release_hours", "0.5", "auto_release_at", "2026-11-24T12:30:00Z")
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201, "auto_release_hours", "null", "auto_release_at", "null")
	for _, hours := range []string{`0`, `-1`, `"x"`, `1e30`, `true`} {
		g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1,"auto_release_hours":`+hours+`}`).want(422, "field", "auto_release_hours")
	}
	g.balance(alice, "93")
	g.post(path+"/release-partial", alice, `{"amount":"2"}`).want(200, "released", "2", "remaining", "3", "commission", "0.02")
	g.post(path+"/release-partial", alice, `{"amount":"3.1"}`).want(422, "code", "exceeds_remaining", "remaining", "3")
	g.post(path+"/release-partial", alice, `{}`).want(422, "field", "amount")
	g.post(path+"/release-partial", shop, `{"amount":1}`).want(403)
	g.post(path+"/release-partial", eve, `{"amount":1}`).want(404)
	g.post(path+"/refund", alice, `{"amount":1,"reason":"slow"}`).want(200, "status", "refund_requested", "refund_request.amount", "1", "refund_request.reason", "slow", "refund_request.granted_at", "2026-11-27T12:00:00Z")
	g.do("DELETE", "/api/v1"+path+"/refund", alice, "").want(204)
	g.post(path+"/refund", shop, `{"amount":0}`).want(422, "field", "amount")
	g.post(path+"/refund", shop, `{"amount":1}`).want(200, "status", "open", "refunded", "1")
	g.post(path+"/dispute", shop, `{"reason":"he does not pay"}`).want(200, "status", "disputed", "dispute.by", "shop")
	g.post(path+"/release", alice, ``).want(409, "code", "invalid_status")
	g.post(path+"/resolve", alice, `{"to_payee":1,"to_payer":1}`).want(403)
	g.post(path+"/resolve", operatorKey, `{}`).want(422)
	g.post(path+"/resolve", operatorKey, `{"to_payee":"1.5","to_payer":0.5,"note":"both are right"}`).want(200, "status", "settled", "released", "3.5", "refunded", "1.5", "commission", "0.035", "dispute.resolution", "both are right")
	g.get(path, eve).want(404, "code", "not_found")
	g.get(path, alice).want(200, "status", "settled")
	g.get("/escrow/"+strings.Repeat("x", 200), alice).want(404)

	second := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).str("escrow_id")
	g.post("/escrow/"+second+"/release", alice, ``).want(200, "status", "released")
	third := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).str("escrow_id")
	g.post("/escrow/"+third+"/release", alice, `{}`).want(200, "status", "released")
}

func TestMilestones(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "100"), g.agent("bob", "0")
	id := g.post("/escrow", alice, `{"to_agent_id":"bob","amount":"10","milestones":[{"name":"spec_approved","amount":"2.50"},{"name":"draft","amount":5},{"name":"final","amount":2.5}]}`).
		want(201, "milestones.0.name", "spec_approved", "milestones.0.amount", "2.5", "milestones.0.status", "pending", "milestones.2.delivered_at", "null").str("escrow_id")
	g.post("/escrow/"+id+"/milestones/spec_approved/deliver", bob, ``).want(200, "milestones.0.status", "delivered", "milestones.0.delivered_at", "2026-11-24T12:00:00Z")
	g.post("/escrow/"+id+"/milestones/nix/deliver", bob, ``).want(404)
	g.post("/escrow/"+id+"/release-partial", alice, `{"milestone":"spec_approved"}`).want(200, "released", "2.5", "milestones.0.status", "accepted")
	g.post("/escrow/"+id+"/release-partial", alice, `{"milestone":"nix"}`).want(422, "field", "milestone")
	g.post("/escrow/"+id+"/release-partial", alice, `{"milestone":"draft","amount":5}`).want(422)
	g.post("/escrow", alice, `{"to_agent_id":"bob","amount":"10","milestones":[{"name":"a","amount":"x"}]}`).want(422, "field", "milestones")
}

func TestTime(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "10"), g.agent("bob", "0")
	id := g.post("/escrow", alice, `{"to_agent_id":"bob","amount":10,"auto_release_hours":168}`).str("escrow_id")
	g.wait(168*time.Hour - time.Nanosecond)
	g.balance(bob, "0")
	g.wait(time.Nanosecond)
	g.balance(bob, "10")
	g.get("/escrow/"+id, bob).want(200, "status", "released")
}

func TestListsGoOnWithTheirFilter(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "100"), g.agent("bob", "100")
	var made []string
	for i := range 7 {
		from, to := alice, "bob"
		if i == 3 {
			from, to = bob, "alice"
		}
		made = append(made, g.post("/escrow", from, `{"to_agent_id":"`+to+`","amount":1}`).want(201).str("escrow_id"))
	}
	var seen []string
	page := g.get("/escrow?role=payer&limit=4", alice).want(200)
	g.post("/escrow", alice, `{"to_agent_id":"bob","amount":1}`).want(201) // comes in front, and moves nothing
	for {
		for _, e := range page.body["escrows"].([]any) {
			seen = append(seen, e.(map[string]any)["escrow_id"].(string))
		}
		cursor := page.str("next_cursor")
		if cursor == "null" {
			break
		}
		g.get("/escrow?role=payee&cursor="+cursor, alice).want(422, "field", "cursor")
		g.get("/escrow?cursor="+cursor, bob).want(200)
		page = g.get("/escrow?limit=4&cursor="+cursor, alice).want(200)
	}
	want := fmt.Sprint([]string{made[6], made[5], made[4], made[2], made[1], made[0]})
	if fmt.Sprint(seen) != want {
		t.Errorf("paged through %v, want %v", seen, want)
	}
	g.get("/escrow?cursor=nonsense", alice).want(422, "field", "cursor")
	g.get("/escrow?limit=0", alice).want(422, "field", "limit")
	g.get("/escrow?limit=x", alice).want(422, "field", "limit")
	g.get("/escrow?status=x", alice).want(422, "field", "status")
	g.get("/escrow?agent_id=bob", alice).want(404, "code", "not_found")
	g.get("/wallet?agent_id=bob", alice).want(404, "code", "not_found")
	g.get("/escrow?agent_id=bob", operatorKey).want(200)
	g.get("/escrow?limit=1", operatorKey).want(200, "escrows.0.from_agent_id", "alice") // all agents'
	g.get("/escrow?status=disputed", operatorKey).want(200, "escrows", "[]")
	g.get("/escrow?role=payer", operatorKey).want(422, "field", "role")
	g.get("/wallet", operatorKey).want(422, "field", "agent_id")
	g.post("/escrow/"+made[2]+"/dispute", bob, "").want(200)
	g.get("/escrow?status=disputed", operatorKey).want(200, "escrows.0.escrow_id", made[2], "escrows.1", "<none>")
	g.get("/escrow?status=active&limit=500", operatorKey).want(200, "escrows.7.escrow_id", made[0])

	first := g.get("/wallet/entries?limit=3", alice).want(200, "entries.0.kind", "escrow", "entries.0.amount", "-1")
	g.get("/wallet/entries?cursor="+first.str("next_cursor"), alice).want(200, "entries.4.kind", "deposit", "entries.4.amount", "100", "entries.4.balance_after", "100", "entries.4.counterparty", "world", "next_cursor", "null")
}

func TestIdempotency(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "10"), g.agent("bob", "1")
	once := func(key, path, who, body string) answer { return g.post(path, who, body, "Idempotency-Key", key) }

	first := once("1", "/wallet/transfer", alice, `{"to_agent_id":"bob","amount":"2"}`).want(200, "balance", "8")
	again := once("1", "/wallet/transfer", alice, ` { "amount":"2", "to_agent_id":"bob"}`).want(200, "balance", "8")
	if again.text != first.text || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the second answer is %s %v, the first %s", again.text, again.header, first.text)
	}
	once("1", "/wallet/transfer", alice, `{"to_agent_id":"bob","amount":"3"}`).want(409, "code", "idempotency_conflict")
	once("1", "/escrow", alice, `{"to_agent_id":"bob","amount":"2"}`).want(409, "code", "idempotency_conflict")
	once("1", "/wallet/transfer", bob, `{"to_agent_id":"alice","amount":"2"}`).want(200) // the keys of two callers are separate
	g.balance(alice, "10")

	// A refusal is stored, but not one for lack of money.
	once("2", "/escrow", alice, `{"to_agent_id":"carol","amount":"2"}`).want(422)
	once("3", "/escrow", alice, `{"to_agent_id":"bob","amount":"20"}`).want(402)
	g.agent("carol", "0")
	g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":20}`).want(200)
	once("2", "/escrow", alice, `{"to_agent_id":"carol","amount":"2"}`).want(422)
	once("3", "/escrow", alice, `{"to_agent_id":"bob","amount":"20"}`).want(201)
	once("3", "/escrow", alice, `{"to_agent_id":"bob","amount":"20"}`).want(201)
	g.balance(alice, "10")
	once("4", "/wallet/transfer", "tg_nonsense", `{}`).want(401)
	once(strings.Repeat("x", 300), "/wallet/transfer", alice, `{"to_agent_id":"bob","amount":"2"}`).want(422, "field", "Idempotency-Key")

	// An agent's key is shown once.
	body := `{"agent_id":"dave"}`
	if once("5", "/agents", "", body).want(201).str("api_key") == "null" {
		t.Error("a new agent gets no key")
	}
	once("5", "/agents", "", body).want(201, "agent_id", "dave", "api_key", "null")
	once("6", "/agents", "", body).want(409)
	if once("7", "/agents/me/keys", alice, `{}`).want(201).str("api_key") == "null" {
		t.Error("a new key is not shown")
	}
	once("7", "/agents/me/keys", alice, `{}`).want(201, "api_key", "null")
}

func TestOperatorActsAreLogged(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	g.agent("bob", "0")
	id := g.post("/escrow", alice, `{"to_agent_id":"bob","amount":5}`).str("escrow_id")
	g.post("/escrow/"+id+"/release", operatorKey, ``).want(200)
	g.post("/escrow/"+id+"/release", operatorKey, ``).want(409)
	g.get("/audit", operatorKey).want(200, "audit.0.what", "escrow.release", "audit.0.subject", id, "audit.1.what", "wallet.deposit", "audit.2", "<none>")
	g.get("/audit", alice).want(403)
}

func TestPathsAndMethods(t *testing.T) {
	g := newGate(t, rules(), api.Options{Prefix: "/gate"})
	alice := g.agent("alice", "10")
	g.get("/nix", alice).want(404, "code", "not_found")
	allow := g.do("PATCH", "/api/v1/escrow", alice, "").want(405, "code", "method_not_allowed").header.Get("Allow")
	if allow != "GET, POST" {
		t.Errorf("Allow: %s", allow)
	}
	preflight := g.do("OPTIONS", "/api/v1/escrow", "", "", "Origin", "https://example.com", "Access-Control-Request-Method", "POST")
	if preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(preflight.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("%d %v", preflight.status, preflight.header)
	}
	if exposed := g.get("/wallet", alice).header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Tallygate-Charge") {
		t.Errorf("exposed: %s", exposed)
	}
	g.do("GET", "/api/v1/wallet", "", "", "Authorization", "Basic abc").want(401)
	g.do("GET", "/api/v1/wallet", "", "", "Authorization", "bearer "+alice).want(200)
	for path, want := range map[string]bool{"/api/v1": false, "/api/v1/x": false, "/api/v1/wallet": true, "/api/v1/escrow/esc_1/release": true, "/api/v1/chat/completions": false, "/mcp": true, "/openapi.json": true, "/llms.txt": true, "/api/v2": false, "/": false, "/v1/chat": false, "/api/v1x": false} {
		if api.Serves(path) != want {
			t.Errorf("Serves(%q) is %v", path, !want)
		}
	}
}

func TestLedgerUnavailable(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	g.agent("bob", "0")
	must(t, g.book.Ledger().Close())
	g.post("/wallet/transfer", alice, `{"to_agent_id":"bob","amount":1}`).want(503, "code", "ledger_unavailable", "charge", "none")
	g.book = nil
	g.get("/wallet", alice).want(503, "code", "ledger_unavailable")
}

func TestProblemsOfMeteredRoutes(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{
		{&escrow.Refusal{Outcome: "no_price", Detail: "no price for gpt-9"}, 422, "no_price"},
		{&escrow.Refusal{Outcome: escrow.EscrowRequired}, 402, "escrow_required"},
		{&escrow.Refusal{Outcome: "too_early"}, 425, "too_early"},
		{fmt.Errorf("settling: %w", ledger.ErrOutcomeUnknown), 503, "ledger_unavailable"},
		{fmt.Errorf("anything"), 500, "internal"},
		{&escrow.Refusal{Outcome: ledger.Overflow}, 422, "invalid_request"},
	} {
		w := httptest.NewRecorder()
		api.WriteProblem(w, test.err, api.Shop{}, api.OpenAI)
		body := w.Body.String()
		if w.Code != test.status || w.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"code":"`+test.code+`"`) || !strings.Contains(body, `"error":{"code":"`+test.code+`","message":`) {
			t.Errorf("%v: %d %s", test.err, w.Code, body)
		}
		if strings.Contains(body, "anything") {
			t.Errorf("a failure's own words go out: %s", body)
		}
	}
	w := httptest.NewRecorder()
	api.WriteProblem(w, &escrow.Refusal{Outcome: escrow.RateLimited, Fields: map[string]string{"retry_after": "7"}}, api.Shop{}, api.Plain)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "7" || strings.Contains(w.Body.String(), `"error"`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestReferencesAreBookedOnce(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "0")
	body := `{"agent_id":"alice","amount":"5","reference":"bank-1"}`
	first := g.post("/wallet/deposit", operatorKey, body).want(200, "balance", "5")
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Error("the first booking says that it was replayed")
	}
	g.wait(48 * time.Hour)
	again := g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":5.0,"reference":"bank-1"}`, "Idempotency-Key", "another").want(200)
	if again.header.Get("Idempotency-Replayed") != "true" || again.text != first.text {
		t.Errorf("the second answer is %s, replayed %q; the first was %s", again.text, again.header.Get("Idempotency-Replayed"), first.text)
	}
	g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":6,"reference":"bank-1"}`).want(409,
		"code", "already_exists", "reference", "bank-1", "agent_id", "alice", "amount", "5", "created_at", "2026-11-24T12:00:00Z")
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":2,"reference":"bank-1"}`).want(200, "balance", "3")
	if g.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":2,"reference":"bank-1"}`).want(200, "balance", "3").header.Get("Idempotency-Replayed") != "true" {
		t.Error("a repeated withdrawal does not say so")
	}
	g.balance(alice, "3")
}

func TestKeysThatExpireRotateAndChange(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	g.agent("shop", "0")
	made := g.post("/agents/me/keys", alice, `{"name":"ci","expires_at":"2026-11-24T14:00:00Z","models":["small*"],"routes":["/v1/*"],"rate":{"requests_per_minute":60}}`).want(201,
		"expires_at", "2026-11-24T14:00:00Z", "models.0", "small*", "routes.0", "/v1/*", "rate.requests_per_minute", "60")
	key, path := made.str("api_key"), "/api/v1/agents/me/keys/"+made.str("key_id")
	g.post("/agents/me/keys", alice, `{"expires_at":"2026-11-24T11:00:00Z"}`).want(422, "field", "expires_at")
	g.post("/agents/me/keys", alice, `{"models":[""]}`).want(422, "field", "models")
	g.post("/agents/me/keys", alice, `{"rate":{"requests_per_minute":-1}}`).want(422, "field", "rate")

	// A key with restrictions can't lift them, nor have another key made, nor change the agent.
	g.do("PUT", path, key, `{"models":[]}`).want(403)
	g.post("/agents/me/keys", key, `{}`).want(403)
	g.do("PUT", "/api/v1/limits", key, `{"limits":[]}`).want(403)
	g.do("PUT", "/api/v1/agents/me", key, `{"name":"x"}`).want(403)

	// What is missing stays; what is empty goes.
	g.do("PUT", path, alice, `{"name":"tests","models":[]}`).want(200, "name", "tests", "models", "null", "routes.0", "/v1/*", "expires_at", "2026-11-24T14:00:00Z")
	g.do("PUT", path, alice, `{"expires_at":"2026-11-24T11:00:00Z"}`).want(422, "field", "expires_at")
	g.do("PUT", path, alice, `{"payees":["nobody"]}`).want(422, "field", "payees")
	g.do("PUT", path, alice, `{"payees":["shop"]}`).want(200, "payees.0", "shop")

	// Both secrets are valid for the overlap; a further rotation ends the oldest. A restricted key may rotate itself, and only itself.
	g.do("PUT", "/api/v1/wallet/allowances/shop", key, `{"amount":5}`).want(200)
	second := g.post("/agents/me/keys/"+made.str("key_id")+"/rotate", key, `{"overlap_hours":1}`).want(200, "key_id", made.str("key_id"), "old_key_until", "2026-11-24T13:00:00Z").str("api_key")
	g.get("/agents/me", key).want(200)
	g.get("/agents/me", second).want(200, "key_id", made.str("key_id"))
	third := g.post("/agents/me/keys/"+made.str("key_id")+"/rotate", second, `{}`, "Idempotency-Key", "r").want(200, "old_key_until", "2026-11-25T12:00:00Z").str("api_key")
	g.post("/agents/me/keys/"+made.str("key_id")+"/rotate", second, `{}`, "Idempotency-Key", "r").want(200, "api_key", "null")
	g.get("/agents/me", key).want(401)
	g.get("/agents/me", second).want(200)
	fourth := g.post("/agents/me/keys/"+made.str("key_id")+"/rotate", alice, `{"overlap_hours":0}`).want(200).str("api_key")
	if detail := g.get("/agents/me", third).want(401).str("detail"); !strings.Contains(detail, "replaced") {
		t.Errorf("a replaced key is told %q", detail)
	}
	g.post("/agents/me/keys/"+g.get("/agents/me", alice).str("key_id")+"/rotate", fourth, `{}`).want(403)
	shop := g.post("/agents/me/keys", operatorKey, `{"agent_id":"shop"}`).want(201).str("api_key")
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":1}`).want(200) // the allowance goes on, since the key is the same
	g.wait(2 * time.Hour)
	if detail := g.get("/agents/me", fourth).want(401).str("detail"); !strings.Contains(detail, "expired") {
		t.Errorf("an expired key is told %q", detail)
	}
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":1}`).want(403) // what an expired key began stops
	g.do("PUT", path, alice, `{"expires_at":"","payees":[],"routes":[],"rate":{}}`).want(200, "expires_at", "null")
	g.get("/agents/me", fourth).want(200)
	g.post("/agents/me/keys", fourth, `{}`).want(201)
}

func TestTheOperatorsHold(t *testing.T) {
	r := rules()
	r.DefaultLimits = []escrow.Limit{{Amount: 3 * ledger.Unit, Window: 24 * time.Hour}}
	g := newGate(t, r, api.Options{})
	alice, shop := g.agent("alice", "10"), g.agent("shop", "0")

	// New agents have the default limits, which they can't lift.
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":4}`).want(402, "code", "limit_exceeded", "set_by", "operator")
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[]}`).want(200, "limits.0.set_by", "operator", "limits.0.amount", "3")
	g.do("PUT", "/api/v1/agents/alice/limits", alice, `{"limits":[]}`).want(403)
	g.do("PUT", "/api/v1/agents/nobody/limits", operatorKey, `{"limits":[]}`).want(404)
	g.do("PUT", "/api/v1/agents/alice/limits", operatorKey, `{"rate":{"tokens_per_minute":5}}`).want(200, "limits.0.amount", "3", "rate.tokens_per_minute", "5")
	g.do("PUT", "/api/v1/agents/alice/limits", operatorKey, `{"limits":[{"amount":5,"window_hours":1}]}`).want(200, "limits.0.amount", "5", "limits.1", "<none>", "rate.tokens_per_minute", "5")
	g.get("/agents/alice", operatorKey).want(200, "status", "active", "wallet.balance", "10", "limits.0.amount", "5")
	g.get("/agents/alice", alice).want(403)

	// A suspended agent reads. Nothing of it moves, by itself or by those whom it has let.
	g.do("PUT", "/api/v1/wallet/allowances/shop", alice, `{"amount":5}`).want(200)
	sub := g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":1,"period_hours":1}`).want(201).str("subscription_id")
	g.post("/agents/alice/suspend", operatorKey, `{"reason":"stolen card"}`).want(200, "status", "suspended", "reason", "stolen card")
	g.post("/agents/alice/suspend", operatorKey, `{}`).want(409)
	g.get("/wallet", alice).want(200, "balance", "9")
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":1}`).want(403, "code", "forbidden", "agent_status", "suspended", "reason", "stolen card")
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":1}`).want(403)
	g.wait(time.Hour)
	g.get("/subscriptions/"+sub, alice).want(200, "status", "suspended")
	g.balance(shop, "1") // the period that was paid goes to the payee
	g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":1}`).want(200, "balance", "10")
	g.post("/agents/alice/resume", operatorKey, ``).want(200, "status", "active", "reason", "null")
	g.post("/agents/alice/resume", operatorKey, ``).want(409)
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":1}`).want(200)

	// An agent is closed when nothing of it is left elsewhere, and its money is paid out, once.
	escrowID := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":2}`).want(201).str("escrow_id")
	g.post("/agents/alice/close", operatorKey, `{"reference":"wire-9"}`).want(409, "code", "invalid_status", "escrow_id", escrowID)
	g.post("/escrow/"+escrowID+"/release", alice, ``).want(200)
	g.post("/agents/alice/close", alice, `{}`).want(403)
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"shop","amount":1,"reference":"wire-8"}`).want(200)
	g.post("/agents/alice/close", operatorKey, `{"reference":"wire-8"}`).want(409, "code", "already_exists")
	g.post("/agents/alice/close", operatorKey, `{"reference":"wire-9","reason":"as asked"}`).want(200, "status", "closed", "payout.amount", "7", "payout.balance", "0", "payout.reference", "wire-9")
	g.post("/agents/alice/close", operatorKey, `{}`).want(409)
	g.get("/wallet", alice).want(200, "balance", "0")
	g.post("/faucet", alice, ``).want(403, "agent_status", "closed")
	g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":1}`).want(409)
	g.post("/agents/alice/resume", operatorKey, ``).want(409)
	g.get("/agents", operatorKey).want(200, "agents.0.status", "closed")
	g.do("PUT", "/api/v1/agents/me", shop, `{"name":"The Shop"}`).want(200, "name", "The Shop")
}
