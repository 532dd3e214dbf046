package api_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// call runs a metered call between two agents and returns its request id.
func (g *gate) call(payer, payee, amount string) string {
	g.t.Helper()
	cost, err := ledger.ParseAmount(amount)
	must(g.t, err)
	id := g.book.NewRequestID()
	a, err := g.book.Authorise(context.Background(), escrow.CallOrder{Request: id, By: escrow.Actor{Agent: payer}, Payee: payee, Route: "/search*", Pattern: "per_call", Least: cost})
	must(g.t, err)
	_, err = a.Settle(context.Background(), escrow.Settlement{
		Amount: cost, Units: map[string]string{"call": "1"}, UnitPrices: map[string]string{"call": amount}, Source: "stated", Cut: "none", HTTPStatus: 200,
	})
	must(g.t, err)
	return id
}

// operation is an operation of the contract, with alice's things as its parameters.
type operation struct {
	id, method, path, body string
}

// operations returns all operations of the contract, so that no new route is forgotten.
func operations(t *testing.T, own map[string]string) (all []operation) {
	for template, methods := range theContract.Paths {
		for method, op := range methods {
			o := operation{id: op.OperationID, method: strings.ToUpper(method), path: "/api/v1" + template}
			o.path = strings.NewReplacer("{payee}", "bob", "{name}", "spec", "{month}", "2026-11", "{id}", own[strings.Split(template, "/")[1]]).Replace(o.path)
			if strings.Contains(o.path, "{") {
				t.Fatalf("%s: what stands for the parameters?", template)
			}
			if rest, is := strings.CutPrefix(template, "/agents/me/keys/{id}"); is {
				o.path = "/api/v1/agents/me/keys/" + own["keys"] + rest
			}
			if o.method == "GET" || o.method == "DELETE" {
				o.path += "?agent_id=alice"
			}
			if o.id == "getInvoice" {
				o.path += "&payer=alice&payee=bob"
			}
			o.body = fill(t, op.RequestBody.Content["application/json"].Schema)
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// fill makes a body that refers to alice's things.
func fill(t *testing.T, schema json.RawMessage) string {
	if schema == nil {
		return ""
	}
	var s struct {
		Properties map[string]struct{ Type any }
		Required   []string
	}
	must(t, json.Unmarshal(schema, &s))
	body := map[string]any{}
	for name := range s.Properties {
		switch name {
		case "agent_id", "from_agent_id":
			body[name] = "alice"
		case "to_agent_id", "payee":
			body[name] = "bob"
		case "amount", "to_payee":
			body[name] = "1"
		case "units":
			body[name] = map[string]any{"job": 1}
		case "url":
			body[name] = "https://example.com/hook"
		case "uses":
			body[name] = 1
		case "period_hours":
			body[name] = 1
		default:
			if slices.Contains(s.Required, name) {
				body[name] = "x"
			}
		}
	}
	text, err := json.Marshal(body)
	must(t, err)
	return string(text)
}

// estate are alice's things: an escrow with bob, a charge, a key, an allowance. eve is not a party to any of them.
type estate struct {
	*gate
	alice, bob, eve, reader string
	own                     map[string]string
}

// paysIn books a payment by a rail, and returns the id of its deposit.
func (e *estate) paysIn(agent string) string {
	paid, err := escrow.Do(e.t.Context(), e.book, func(tx *escrow.Tx) (escrow.RailPayment, error) {
		p, _, err := tx.Fund(escrow.RailPayment{Rail: "cards", ID: "pi_1", Agent: agent, Amount: 5 * ledger.Unit})
		return p, err
	})
	must(e.t, err)
	return paid.Deposit
}

func newEstate(t *testing.T) *estate {
	e := &estate{gate: newGate(t, rules(), api.Options{})}
	e.alice, e.bob, e.eve = e.agent("alice", "100"), e.agent("bob", "0"), e.agent("eve", "50")
	made := e.post("/agents/me/keys", e.alice, `{"read_only":true}`).want(201)
	e.reader = made.str("api_key")
	e.own = map[string]string{
		"keys":    made.str("key_id"),
		"escrow":  e.post("/escrow", e.alice, `{"to_agent_id":"bob","amount":10,"milestones":[{"name":"spec","amount":10}]}`).want(201).str("escrow_id"),
		"holds":   e.post("/holds", e.alice, `{"to_agent_id":"bob","amount":10}`).want(201).str("hold_id"),
		"charges": e.call("alice", "bob", "0.25"),
		"agents":  "alice",

		"subscriptions": e.post("/subscriptions", e.alice, `{"to_agent_id":"bob","amount":1,"period_hours":1}`).want(201).str("subscription_id"),
		"webhooks":      e.post("/webhooks", e.alice, `{"url":"https://example.com/hook"}`).want(201).str("webhook_id"),
		"credits":       e.post("/credits", e.alice, `{"agent_id":"bob","amount":3}`).want(201).str("credit_id"),
		"payouts":       e.post("/payouts", e.alice, `{"amount":1,"to":"bank"}`).want(201).str("payout_id"),
		"deposits":      e.paysIn("alice"),
		"coupons":       e.post("/coupons", e.alice, `{"amount":3,"uses":2}`).want(201).str("coupon_id"),
	}
	e.do("PUT", "/api/v1/wallet/allowances/bob", e.alice, `{"amount":7}`).want(200)
	return e
}

// state returns everything that alice can see of her own things.
func (e *estate) state() string {
	var all []string
	for _, path := range []string{"/wallet", "/wallet/entries", "/wallet/allowances", "/escrow", "/holds", "/charges", "/agents/me/keys", "/subscriptions", "/limits", "/webhooks", "/credits", "/coupons", "/deposits", "/payouts"} {
		all = append(all, e.get(path, e.alice).want(200).text)
	}
	return strings.Join(all, "\n")
}

// shared are the operations whose answer to anybody may name alice.
var shared = []string{"getReputation"}

func TestNobodyElseReadsOrMovesAnything(t *testing.T) {
	e := newEstate(t)
	before := e.state()
	for _, o := range operations(t, e.own) {
		for _, who := range []struct{ name, key string }{{"eve", e.eve}, {"nobody", ""}, {"alice's reader", e.reader}} {
			a := e.do(o.method, o.path, who.key, o.body)
			switch {
			case a.status >= 500:
				t.Errorf("%s by %s: %s", o.id, who.name, a.text)
			case who.name == "nobody" && a.status != 401 && !openToAll(o.id):
				t.Errorf("%s without a key: %d %s", o.id, a.status, a.text)
			case who.name == "alice's reader":
				if o.method != "GET" && a.status < 400 && o.id != "quote" {
					t.Errorf("%s by a read-only key: %d %s", o.id, a.status, a.text)
				}
			case a.status < 400 && !slices.Contains(shared, o.id):
				for what, id := range e.own {
					if strings.Contains(a.text, id) {
						t.Errorf("%s by %s shows alice's %s: %s", o.id, who.name, what, a.text)
					}
				}
			case a.status == 403 && strings.Contains(o.path, "/escrow/"):
				t.Errorf("%s by %s tells that alice's escrow is there: %s", o.id, who.name, a.text)
			}
			if after := e.state(); after != before {
				t.Fatalf("%s by %s changed what is alice's:\n%s\nwas\n%s", o.id, who.name, after, before)
			}
		}
	}
}

func openToAll(id string) bool {
	return slices.Contains([]string{"createAgent", "listTariffs", "quote", "getReceiptKeys", "getHealth", "getReady"}, id)
}

// TestAnothersIsAsIfItWereNotThere: requests about another agent's things get the same answer as requests about things that do not exist.
func TestAnothersIsAsIfItWereNotThere(t *testing.T) {
	e := newEstate(t)
	absent := map[string]string{"keys": "zzzzzzzzzz", "escrow": "esc_01JDF5ZK3Q8X2M7V4T9B6N0RWC", "charges": "req_01JDF5ZK3Q8X2M7V4T9B6N0RWC",
		"subscriptions": "sub_01JDF5ZK3Q8X2M7V4T9B6N0RWC", "webhooks": "whk_01JDF5ZK3Q8X2M7V4T9B6N0RWC",
		"credits": "crd_01JDF5ZK3Q8X2M7V4T9B6N0RWC", "coupons": "cpn_01JDF5ZK3Q8X2M7V4T9B6N0RWC"}
	for what := range absent {
		for _, o := range operations(t, e.own) {
			if !strings.Contains(o.path, e.own[what]) {
				continue
			}
			path := strings.TrimSuffix(o.path, "?agent_id=alice")
			theirs := e.do(o.method, path, e.eve, o.body)
			none := e.do(o.method, strings.ReplaceAll(path, e.own[what], absent[what]), e.eve, o.body)
			if theirs.status != none.status || strings.ReplaceAll(theirs.text, e.own[what], absent[what]) != none.text {
				t.Errorf("%s: %d %s, and of what is not there %d %s", o.id, theirs.status, theirs.text, none.status, none.text)
			}
		}
	}
}

func TestCharges(t *testing.T) {
	r := rules()
	r.CommissionPPM = 100_000
	g := newGate(t, r, api.Options{})
	alice, bob := g.agent("alice", "10"), g.agent("bob", "0")
	id := g.call("alice", "bob", "2")
	fields := []string{
		"request_id", id, "payer", "alice", "payee", "bob", "route", "/search*", "pattern", "per_call", "model", "", "units.call", "1", "unit_prices.call", "2",
		"amount", "2", "commission", "0.2", "source", "stated", "cut", "none", "status", "charged", "escrow_id", "null", "tags", "{}", "created_at", "2026-11-24T12:00:00Z",
	}
	g.get("/charges/"+id, alice).want(200, fields...)
	g.get("/charges/"+id, bob).want(200, fields...)
	g.get("/charges/"+id, operatorKey).want(200, fields...)
	second := g.call("alice", "bob", "1")
	g.wait(1e9)
	g.call("alice", "bob", "0.5")
	g.get("/charges?limit=2", alice).want(200, "charges.0.amount", "0.5", "charges.1.request_id", second)
	g.get("/charges?from=2026-11-24T12:00:01Z", alice).want(200, "charges.0.amount", "0.5", "charges.1", "<none>")
	g.get("/charges?to=2026-11-24T12:00:01Z", bob).want(200, "charges.1.request_id", id, "charges.2", "<none>")
	g.get("/charges?payee=alice", bob).want(200, "charges", "[]")
	g.get("/charges?route=/search*&status=charged&payer=alice", bob).want(200, "charges.2.request_id", id)
	g.get("/charges?from=2026-11-24T12:00:01Z", operatorKey).want(200, "charges.0.amount", "0.5", "charges.1", "<none>")
	g.get("/charges", operatorKey).want(200, "charges.2.request_id", id)
	g.get("/charges?from=yesterday", bob).want(422, "field", "from")

	g.post("/charges/"+id+"/refund", alice, `{}`).want(403)
	g.post("/charges/"+id+"/refund", bob, `{"amount":"0"}`).want(422, "field", "amount")
	g.post("/charges/"+id+"/refund", bob, `{"amount":"0.5","reason":"slow"}`).want(200, "refunded", "0.5", "status", "partly_refunded")
	g.post("/charges/"+id+"/refund", bob, `{"amount":"1.6"}`).want(422, "code", "exceeds_remaining", "remaining", "1.5")
	g.post("/charges/"+id+"/refund", bob, ``).want(200, "refunded", "2", "status", "refunded")
	g.get("/charges?status=refunded", alice).want(200, "charges.0.request_id", id, "charges.1", "<none>")
	g.balance(alice, "8.5")
}

func TestWalletActs(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, shop := g.agent("alice", "1"), g.agent("shop", "0")
	g.post("/faucet", alice, ``).want(200, "kind", "faucet", "amount", "10", "balance", "11", "available", "11", "held", "0", "currency", "USDC", "agent_id", "alice")
	g.post("/faucet", alice, ``).want(409, "code", "already_exists")
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":1,"reference":"wire 7"}`).want(200, "balance", "10", "reference", "wire 7")
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":"0.001","memo":"a query"}`).want(403, "code", "forbidden")
	g.do("PUT", "/api/v1/wallet/allowances/shop", alice, `{"amount":"0.002"}`).want(200, "remaining", "0.002", "payer", "alice")
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":"0.001","memo":"a query"}`).want(200,
		"kind", "debit", "from_agent_id", "alice", "to_agent_id", "shop", "amount", "0.001", "agent_id", "shop", "balance", "0.001", "memo", "a query")
	g.get("/wallet/allowances/shop", alice).want(200, "amount", "0.002", "remaining", "0.001")
	g.get("/wallet/allowances", alice).want(200, "allowances.0.payee", "shop")
	g.post("/wallet/debit", shop, `{"agent_id":"alice","amount":"0.0011"}`).want(402, "code", "limit_exceeded", "limit", "allowance", "available", "0.001")
	g.post("/wallet/debit", operatorKey, `{"agent_id":"alice","to_agent_id":"shop","amount":"1"}`).want(200, "balance", "8.999", "agent_id", "alice")
	g.do("DELETE", "/api/v1/wallet/allowances/shop", alice, "").want(204)
	g.do("DELETE", "/api/v1/wallet/allowances/shop", alice, "").want(404)
	g.get("/wallet/allowances/shop", alice).want(404)
	g.get("/wallet?agent_id=commission", operatorKey).want(200, "balance", "0")
}

func TestDisputesOfCharges(t *testing.T) {
	r := rules()
	r.CommissionPPM = 100_000
	g := newGate(t, r, api.Options{})
	alice, bob, eve := g.agent("alice", "10"), g.agent("bob", "0"), g.agent("eve", "0")
	id := g.call("alice", "bob", "2")
	dispute := func(id, key string) answer {
		g.t.Helper()
		return g.post("/charges/"+id+"/dispute", key, `{"reason":"empty answer"}`)
	}
	resolve := func(id, body string) answer { return g.post("/charges/"+id+"/resolve", operatorKey, body) }
	dispute(id, eve).want(404)
	dispute(id, bob).want(403)
	resolve(id, `{"to_payer":1}`).want(409)
	dispute(id, alice).want(200, "status", "disputed", "dispute.reason", "empty answer", "dispute.resolved_at", "null")
	dispute(id, alice).want(409, "code", "invalid_status")
	g.balance(bob, "1.8") // it moves nothing
	g.get("/charges?status=disputed", operatorKey).want(200, "charges.0.request_id", id)
	g.post("/charges/"+id+"/resolve", alice, `{"to_payer":2}`).want(403)
	resolve(id, `{"to_payer":"2.1"}`).want(422, "code", "exceeds_remaining", "remaining", "2")

	// The payee may refund a part meanwhile; the dispute goes on, and the operator decides the rest.
	g.post("/charges/"+id+"/refund", bob, `{"amount":"0.5"}`).want(200, "status", "disputed", "refunded", "0.5")
	resolve(id, `{"to_payer":"1","note":"half of it was there"}`).want(200, "status", "partly_refunded", "refunded", "1.5", "dispute.note", "half of it was there")
	g.balance(alice, "9.5")
	g.balance(bob, "0.45")
	resolve(id, `{}`).want(409)
	dispute(id, alice).want(409) // once
	g.post("/charges/"+id+"/refund", bob, ``).want(200, "status", "refunded", "refunded", "2")

	// Without a refund, taken back, refunded whole, too late, and when the payee has nothing left.
	second := g.call("alice", "bob", "1")
	dispute(second, alice).want(200)
	resolve(second, `{"note":"it was fine"}`).want(200, "status", "charged", "refunded", "0")
	third := g.call("alice", "bob", "1")
	dispute(third, alice).want(200)
	g.do("DELETE", "/api/v1/charges/"+third+"/dispute", bob, "").want(403)
	g.do("DELETE", "/api/v1/charges/"+third+"/dispute", alice, "").want(204)
	g.do("DELETE", "/api/v1/charges/"+third+"/dispute", alice, "").want(409)
	g.get("/charges/"+third, alice).want(200, "status", "charged", "dispute.note", "withdrawn")
	fourth := g.call("alice", "bob", "1")
	dispute(fourth, alice).want(200)
	g.post("/charges/"+fourth+"/refund", bob, ``).want(200, "status", "refunded", "dispute.note", "refunded")
	resolve(fourth, `{"to_payer":1}`).want(409)
	fifth := g.call("alice", "bob", "1")
	dispute(fifth, alice).want(200)
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"bob","amount":`+g.get("/wallet", bob).str("balance")+`}`).want(200)
	resolve(fifth, `{"to_payer":1}`).want(402, "code", "insufficient_funds")
	g.get("/charges/"+fifth, alice).want(200, "status", "disputed")
	late := g.call("alice", "bob", "1")
	g.wait(escrow.DefaultRefundWindow)
	dispute(late, alice).want(409, "code", "invalid_status")
}

// TestRefundDeposit: where no rail gives money back by itself, the operator has to: the request is a payout that waits.
func TestRefundDeposit(t *testing.T) {
	e := newEstate(t)
	path := "/deposits/" + e.own["deposits"] + "/refund"
	e.post(path, e.bob, `{"amount":1}`).want(404)
	e.post(path, e.alice, `{"amount":6}`).want(422)
	asked := e.post(path, e.alice, `{"amount":1}`).want(201)
	if asked.str("status") != "requested" || asked.str("deposit_id") != e.own["deposits"] {
		t.Errorf("the refund: %s", asked.body)
	}
	e.post(path, e.alice, `{"amount":5}`).want(409)
}
