package api_test

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	_ "github.com/tallygate/tallygate/internal/steady"
)

// withKey sends a key with each request, as the `headers` in a client's config do.
type withKey string

func (k withKey) RoundTrip(req *http.Request) (*http.Response, error) {
	if k != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+string(k))
	}
	return http.DefaultTransport.RoundTrip(req)
}

// session connects the official client.
func session(t *testing.T, url, key string) *mcp.ClientSession {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	s, err := client.Connect(context.Background(), &mcp.StreamableClientTransport{Endpoint: url + "/mcp", HTTPClient: &http.Client{Transport: withKey(key)}}, nil)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// use calls a tool and returns its answer, which must be an error or not.
func use(t *testing.T, s *mcp.ClientSession, wantError bool, name string, arguments map[string]any) answer {
	t.Helper()
	result, err := s.CallTool(context.Background(), &mcp.CallToolParams{Name: name, Arguments: arguments})
	must(t, err)
	text := result.Content[0].(*mcp.TextContent).Text
	if result.IsError != wantError {
		t.Fatalf("%s %v: isError is %v: %s", name, arguments, result.IsError, text)
	}
	structured, err := json.Marshal(result.StructuredContent)
	must(t, err)
	a := answer{t: t, what: name, text: text}
	must(t, json.Unmarshal(structured, &a.body))
	var same map[string]any
	must(t, json.Unmarshal([]byte(text), &same))
	if len(same) != len(a.body) {
		t.Errorf("%s: the text is %s, the structured content %s", name, text, structured)
	}
	return a
}

func TestMCP(t *testing.T) {
	g := newGate(t, rules(), api.Options{Version: "1"})
	alice, bob := g.agent("alice", "20"), g.agent("bob", "0")
	server := httptest.NewServer(g.http)
	defer server.Close()
	a, b := session(t, server.URL, alice), session(t, server.URL, bob)

	listed, err := a.ListTools(context.Background(), nil)
	must(t, err)
	var names []string
	for _, tool := range listed.Tools {
		names = append(names, tool.Name)
	}
	for _, name := range strings.Fields("escrow_create escrow_release escrow_status escrow_list escrow_refund escrow_dispute escrow_resolve wallet_balance wallet_statement faucet_claim credit_issue credit_list credit_revoke coupon_issue coupon_list coupon_revoke coupon_redeem quote agent_register wallet_transfer subscribe subscription_list subscription_end tariffs charges limits limits_set") {
		if !slices.Contains(names, name) {
			t.Errorf("no tool %s in %v", name, names)
		}
	}

	use(t, a, false, "faucet_claim", nil).want(0, "balance", "30")
	use(t, a, true, "faucet_claim", nil).want(0, "code", "already_exists", "status", "409")
	made := use(t, a, false, "escrow_create", map[string]any{"to_agent_id": "bob", "amount": 5, "memo": "work", "auto_release_hours": 24.5}).want(0, "status", "open", "amount", "5", "auto_release_hours", "24.5")
	id := made.str("escrow_id")
	use(t, a, false, "escrow_release", map[string]any{"escrow_id": id, "amount": "1.25"}).want(0, "released", "1.25", "remaining", "3.75")
	use(t, b, true, "escrow_release", map[string]any{"escrow_id": id}).want(0, "code", "forbidden")
	use(t, b, false, "escrow_refund", map[string]any{"escrow_id": id, "amount": "0.75"}).want(0, "refunded", "0.75")
	use(t, b, true, "escrow_refund", map[string]any{"escrow_id": id, "amount": "0"}).want(0, "code", "invalid_request", "field", "amount")
	use(t, a, false, "escrow_refund", map[string]any{"escrow_id": id, "reason": "slow"}).want(0, "status", "refund_requested")
	use(t, b, false, "escrow_dispute", map[string]any{"escrow_id": id, "reason": "no"}).want(0, "status", "disputed")
	use(t, a, true, "escrow_resolve", map[string]any{"escrow_id": id, "to_payee": 3}).want(0, "code", "forbidden")
	op := session(t, server.URL, operatorKey)
	use(t, op, false, "escrow_resolve", map[string]any{"escrow_id": id, "to_payee": "1", "to_payer": "2", "note": "so be it"}).want(0, "status", "settled")
	use(t, a, false, "escrow_status", map[string]any{"escrow_id": id}).want(0, "status", "settled", "released", "2.25")
	use(t, a, true, "escrow_status", map[string]any{"escrow_id": "esc_x/../../wallet"}).want(0, "code", "not_found")
	use(t, a, true, "escrow_status", nil).want(0, "code", "not_found")
	use(t, b, false, "wallet_balance", nil).want(0, "balance", "2.25")

	second := use(t, a, false, "escrow_create", map[string]any{"to_agent_id": "bob", "amount": "1", "idempotency_key": "k1"}).str("escrow_id")
	use(t, a, false, "escrow_create", map[string]any{"to_agent_id": "bob", "amount": "1", "idempotency_key": "k1"}).want(0, "escrow_id", second)
	use(t, a, false, "escrow_release", map[string]any{"escrow_id": second}).want(0, "status", "released")
	page := use(t, a, false, "escrow_list", map[string]any{"limit": 1, "role": "payer"}).want(0, "escrows.0.escrow_id", second)
	use(t, a, false, "escrow_list", map[string]any{"cursor": page.str("next_cursor")}).want(0, "escrows.0.escrow_id", id, "next_cursor", "null")
	use(t, a, false, "wallet_statement", map[string]any{"limit": 2}).want(0, "entries.0.kind", "escrow")
	use(t, a, true, "escrow_list", map[string]any{"limit": "x"}).want(0, "field", "limit")
	credit := use(t, b, false, "credit_issue", map[string]any{"agent_id": "alice", "amount": "2"}).want(0, "remaining", "2").str("credit_id")
	coupon := use(t, b, false, "coupon_issue", map[string]any{"amount": "3", "uses": 1}).want(0, "redeemed", "0")
	use(t, a, false, "coupon_redeem", map[string]any{"code": coupon.str("code")}).want(0, "amount", "3", "payee", "bob")
	use(t, a, false, "wallet_balance", nil).want(0, "credit.0.payee", "bob", "credit.0.available", "5")
	use(t, b, false, "credit_revoke", map[string]any{"credit_id": credit}).want(0, "status", "revoked", "ended", "2")
	use(t, b, false, "coupon_revoke", map[string]any{"coupon_id": coupon.str("coupon_id")}).want(0, "redeemed", "1")
	use(t, b, false, "coupon_list", nil).want(0, "coupons.0.redeemed", "1")
	use(t, a, false, "credit_list", map[string]any{"status": "active"}).want(0, "credits.0.amount", "3")
	use(t, a, true, "quote", map[string]any{"path": "/search"}).want(0, "code", "not_found")

	use(t, a, false, "wallet_transfer", map[string]any{"to_agent_id": "bob", "amount": "1", "memo": "thanks"}).want(0, "kind", "transfer", "amount", "1")
	plan := use(t, a, false, "subscribe", map[string]any{"to_agent_id": "bob", "amount": 1, "period_hours": 24}).want(0, "status", "active").str("subscription_id")
	use(t, a, false, "subscription_end", map[string]any{"subscription_id": plan}).want(0)
	use(t, a, false, "subscription_list", nil).want(0, "subscriptions.0.status", "ending")
	use(t, a, false, "limits_set", map[string]any{"limits": []any{map[string]any{"amount": 5, "window_hours": 24, "payee": "bob"}}}).want(0, "limits.0.amount", "5")
	use(t, a, false, "limits", nil).want(0, "limits.0.payee", "bob")
	request := g.call("alice", "bob", "0.25")
	use(t, a, false, "charges", map[string]any{"payee": "bob"}).want(0, "charges.0.request_id", request)

	// Without a key the tools can be listed, agents register, and prices are read. Other tools say how to give a key. A wrong key is refused at once.
	nobody := session(t, server.URL, "")
	use(t, nobody, false, "tariffs", nil).want(0, "currency", "USDC")
	use(t, nobody, false, "agent_register", map[string]any{"agent_id": "carol"}).want(0, "agent_id", "carol")
	told := use(t, nobody, true, "wallet_balance", nil).want(0, "code", "unauthorized", "status", "401").str("detail")
	for _, part := range []string{`"headers": {"Authorization": "Bearer KEY"}`, "?key=KEY", "agent_register"} {
		if !strings.Contains(told, part) {
			t.Errorf("no %s in %s", part, told)
		}
	}
	refused := g.do("POST", "/mcp", "tg_wrong", `{}`).want(401, "code", "unauthorized")
	if challenge := refused.header.Get("WWW-Authenticate"); challenge != `Bearer realm="tallygate", resource_metadata="http://gate/.well-known/oauth-protected-resource/mcp"` {
		t.Errorf("the challenge is %s", challenge)
	}
	g.do("GET", "/mcp", alice, "").want(405, "code", "method_not_allowed")
}

// A client that is given nothing but a URL has the key in it. The key in a header counts before it.
func TestKeyInTheURLOfMCP(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "3"), g.agent("bob", "4")
	server := httptest.NewServer(g.http)
	defer server.Close()
	for _, test := range []struct{ query, header, balance string }{{"?key=" + alice, "", "3"}, {"?x=1&key=" + alice, bob, "4"}} {
		client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
		s, err := client.Connect(context.Background(), &mcp.StreamableClientTransport{Endpoint: server.URL + "/mcp" + test.query, HTTPClient: &http.Client{Transport: withKey(test.header)}}, nil)
		must(t, err)
		use(t, s, false, "wallet_balance", nil).want(0, "balance", test.balance)
		s.Close()
	}
	g.do("POST", "/mcp?key=tg_wrong", "", `{}`).want(401, "code", "unauthorized")
}

// Registrations over MCP are counted by the client's address, as those over REST are.
func TestRegistrationsOverMCPAreLimitedByClient(t *testing.T) {
	g := newGate(t, rules(), api.Options{Client: func(r *http.Request) string {
		address, _ := r.Context().Value(clientKey{}).(string)
		return address
	}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.http.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, r.URL.Query().Get("from"))))
	}))
	defer server.Close()
	from := func(address string) *mcp.ClientSession {
		client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
		s, err := client.Connect(context.Background(), &mcp.StreamableClientTransport{Endpoint: server.URL + "/mcp?from=" + address}, nil)
		must(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	busy, other := from("10.0.0.1"), from("10.0.0.2")
	for range 1000 {
		result, err := busy.CallTool(context.Background(), &mcp.CallToolParams{Name: "agent_register"})
		must(t, err)
		if result.IsError {
			use(t, busy, true, "agent_register", nil).want(0, "code", "rate_limited")
			use(t, other, false, "agent_register", nil)
			return
		}
	}
	t.Error("one client may register without a limit")
}

type clientKey struct{}

// TestWhatIsNotMCPGetsAProblem: errors of the transport are problems, with the status that MCP's clients look for.
func TestWhatIsNotMCPGetsAProblem(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	server := httptest.NewServer(g.http)
	defer server.Close()
	for _, test := range []struct {
		method, kind, accept, body string
		status                     int
		code                       string
	}{
		{"GET", "", "text/event-stream", "", 405, "method_not_allowed"},
		{"DELETE", "", "", "", 405, "method_not_allowed"},
		{"PUT", "application/json", "", "{}", 405, "method_not_allowed"},
		{"POST", "application/json", "application/json, text/event-stream", "nonsense", 400, "malformed_request"},
		{"POST", "application/json", "application/json, text/event-stream", "", 400, "malformed_request"},
		{"POST", "application/json", "text/html", "{}", 400, "malformed_request"},
		{"POST", "text/plain", "application/json, text/event-stream", "{}", 415, "unsupported_media"},
		{"POST", "application/json", "application/json, text/event-stream", strings.Repeat(" ", 70<<10) + "{}", 413, "request_too_large"},
	} {
		r, err := http.NewRequest(test.method, server.URL+"/mcp", strings.NewReader(test.body))
		must(t, err)
		r.Header.Set("Content-Type", test.kind)
		r.Header.Set("Accept", test.accept)
		response, err := http.DefaultClient.Do(r)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != test.status || response.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(body), `"code":"`+test.code+`"`) {
			t.Errorf("%s %.20q: %d %s %s", test.method, test.body, response.StatusCode, response.Header.Get("Content-Type"), body)
		}
		if test.status == 405 && response.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", test.method)
		}
	}
}

// TestNoPageFromElsewhereReachesMCPHere: on an address of this machine, MCP refuses requests with another host name (DNS rebinding), unless they come
// through a trusted proxy.
func TestNoPageFromElsewhereReachesMCPHere(t *testing.T) {
	g := newGate(t, rules(), api.Options{Proxied: func(r *http.Request) bool { return r.Header.Get("X-Test-Proxied") != "" }})
	server := httptest.NewServer(g.http)
	defer server.Close()
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	const list = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	for _, test := range []struct {
		host, origin, proxied string
		status                int
	}{
		{"127.0.0.1:" + port, "", "", 200},
		{"localhost:" + port, "http://localhost:3000", "", 200},
		{"LOCALHOST", "http://127.0.0.1", "", 200},
		{"[::1]:" + port, "http://[::1]:3000", "", 200},
		{"shop.localhost:" + port, "", "", 200},
		{"evil.example:" + port, "", "", 403},
		{"evil.example:" + port, "http://evil.example:" + port, "", 403},
		{"localhost.evil.example", "", "", 403},
		{"127.0.0.1.evil.example", "", "", 403},
		{"10.0.0.1", "", "", 403},
		{"localhost", "https://evil.example", "", 403},
		{"localhost", "null", "", 403},
		{"localhost", "http://localhost.evil.example", "", 403},
		{"shop.example", "https://app.example", "yes", 200},
	} {
		r, err := http.NewRequest("POST", server.URL+"/mcp", strings.NewReader(list))
		must(t, err)
		r.Host = test.host
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		for name, value := range map[string]string{"Origin": test.origin, "X-Test-Proxied": test.proxied} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		response, err := http.DefaultClient.Do(r)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != test.status || (test.status == 403) != strings.Contains(string(body), `"code":"forbidden"`) {
			t.Errorf("host %s, origin %q: %d %s", test.host, test.origin, response.StatusCode, body)
		}
	}
}

func TestQuoteAndTariffs(t *testing.T) {
	most := 2 * ledger.Unit
	o := api.Options{
		Tariffs: func(q api.TariffQuery) iter.Seq2[string, func() api.Tariff] {
			return func(yield func(string, func() api.Tariff) bool) {
				for _, model := range []string{"small", "large", "huge"} {
					made := func() api.Tariff {
						return api.Tariff{
							Route: "/v1/*", Payee: "acme", Pattern: "per_token", Charge: "wallet", Model: model, When: []string{"for " + q.By.Agent},
							Prices: []api.TariffPrice{{Class: "input", Amount: decimal.New(15, -2), Per: 1e6, Unit: "token"}},
						}
					}
					if (q.Model == "" || q.Model == model) && !yield(model, made) {
						return
					}
				}
			}
		},
		Quote: func(_ context.Context, by escrow.Actor, q api.QuoteOrder) (api.Quote, error) {
			if q.Path != "/search" {
				return api.Quote{}, &escrow.Refusal{Outcome: escrow.NotFound, Detail: "no metered route"}
			}
			return api.Quote{Route: q.Method + " /search*", Payee: "acme-search", Estimate: ledger.Unit, Most: &most, Affordable: by.Agent == "alice"}, nil
		},
	}
	g := newGate(t, rules(), o)
	alice := g.agent("alice", "1")
	g.get("/tariffs", "").want(200, "tariffs.0.prices.0.amount", "0.15", "tariffs.0.prices.0.per", "1000000", "tariffs.2.model", "huge", "next_cursor", "null", "currency", "USDC")
	g.get("/tariffs", alice).want(200, "tariffs.0.when.0", "for alice")
	g.get("/tariffs?model=large", "").want(200, "tariffs.0.model", "large", "tariffs.1.model", "<none>")
	first := g.get("/tariffs?limit=2", "")
	first.want(200, "tariffs.1.model", "large", "tariffs.2.model", "<none>")
	second := g.get("/tariffs?limit=2&cursor="+first.str("next_cursor"), "")
	second.want(200, "tariffs.1.model", "<none>", "tariffs.0.model", "huge", "next_cursor", "null")
	g.get("/tariffs?model=small&cursor="+first.str("next_cursor"), "").want(422, "field", "cursor")
	g.get("/tariffs", "wrong").want(401)
	g.post("/quote", alice, `{"path":"/search"}`).want(200, "route", "GET /search*", "estimate", "1", "most", "2", "affordable", "true", "currency", "USDC")
	g.post("/quote", "", `{"path":"/search","body":{"model":"x"}}`).want(200, "route", "POST /search*", "affordable", "false")
	g.post("/quote", alice, `{"path":"/other"}`).want(404)
	g.post("/quote", alice, `{}`).want(422, "field", "path")
	newGate(t, rules(), api.Options{}).get("/tariffs", "").want(200, "tariffs", "[]")
}

func TestLLMsText(t *testing.T) {
	g := newGate(t, rules(), api.Options{Prefix: "/gate"})
	a := g.do("GET", "/llms.txt", "", "")
	if a.status != 200 || !strings.Contains(a.text, "POST /gate/api/v1/faucet") || strings.Contains(a.text, "PREFIX") {
		t.Errorf("%d %s", a.status, a.text)
	}
}
