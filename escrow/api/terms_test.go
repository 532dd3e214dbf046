package api_test

import (
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func TestSubscriptions(t *testing.T) {
	r := rules()
	r.Plans = []escrow.Plan{{
		Payee: "shop", Name: "base", Price: 5 * ledger.Unit, Period: 168 * time.Hour, Included: 1000 * escrow.Micro, Unit: "call",
		Overage: true, OveragePrice: "0.01 per call", Pool: 5 * ledger.Unit,
	}}
	g := newGate(t, r, api.Options{})
	alice, shop, eve := g.agent("alice", "25"), g.agent("shop", "0"), g.agent("eve", "0")
	made := g.post("/subscriptions", alice, `{"payee":"shop","plan":"base"}`).want(201,
		"status", "active", "from_agent_id", "alice", "to_agent_id", "shop", "plan", "base", "amount", "5", "pool", "5", "period_hours", "168",
		"included", "1000", "used", "0", "unit", "call", "overage", "0.01 per call", "period_end", "2026-12-01T12:00:00Z", "periods", "1", "renewal_funded", "true")
	id := made.str("subscription_id")
	g.get("/escrow/"+made.str("pool_escrow_id"), alice).want(200, "on_expiry", "refund", "subscription_id", id, "auto_release_at", "2026-12-01T12:00:00Z")
	g.post("/subscriptions", alice, `{"payee":"shop","plan":"base"}`).want(409, "code", "already_exists", "subscription_id", id)
	g.post("/subscriptions", alice, `{"payee":"shop","plan":"gold"}`).want(422, "field", "plan")
	g.post("/subscriptions", alice, `{"payee":"shop"}`).want(422, "field", "plan")
	g.post("/subscriptions", alice, `{"payee":"shop","plan":"base","amount":1}`).want(422, "field", "plan")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":1}`).want(422, "field", "period_hours")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":100,"period_hours":1}`).want(402, "code", "insufficient_funds", "payee", "shop")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":1,"period_hours":0.9}`).want(422, "field", "period_hours")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":0.9,"period_hours":1}`).want(422, "field", "amount")
	weekly := g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":"2.5","period_hours":"1.5","memo":"salary"}`).want(201, "plan", "null", "amount", "2.5", "period_hours", "1.5", "memo", "salary").str("subscription_id")
	g.get("/subscriptions", shop).want(200, "subscriptions.0.subscription_id", weekly, "subscriptions.1.subscription_id", id)
	g.get("/subscriptions?status=ended", alice).want(200, "subscriptions", "[]")
	g.get("/subscriptions?status=x", alice).want(422, "field", "status")
	g.get("/subscriptions/"+id, eve).want(404)
	g.do("DELETE", "/api/v1/subscriptions/"+weekly, eve, "").want(404)
	g.do("DELETE", "/api/v1/subscriptions/"+weekly, alice, "").want(204)
	g.get("/subscriptions/"+weekly, alice).want(200, "status", "ending")
	g.post("/subscriptions/"+weekly+"/resume", shop, "").want(403, "code", "forbidden")
	g.wait(90 * time.Minute)
	g.get("/subscriptions/"+weekly, alice).want(200, "status", "ended")
	g.balance(shop, "2.5")
	g.balance(alice, "12.5")
	g.wait(168 * time.Hour)
	g.balance(shop, "7.5")
	g.balance(alice, "7.5") // 5 of the pool came back, the next period is locked
	g.wait(168 * time.Hour)
	g.get("/subscriptions/"+id, alice).want(200, "status", "active", "periods", "3", "renewal_funded", "false")
	g.wait(168 * time.Hour)
	g.get("/subscriptions/"+id, alice).want(200, "status", "suspended", "escrow_id", "null")
	g.post("/subscriptions/"+id+"/resume", alice, "").want(402)
	g.post("/wallet/deposit", operatorKey, `{"agent_id":"alice","amount":10}`).want(200)
	g.post("/subscriptions/"+id+"/resume", alice, "").want(200, "status", "active")
}

func TestLimits(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	made := g.post("/agents/me/keys", alice, `{}`)
	key, id := made.str("api_key"), made.str("key_id")
	g.get("/limits", alice).want(200, "limits", "[]")
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[{"key_id":"`+id+`","amount":"2","window_hours":24},{"payee":"shop","amount":5,"window_hours":"0.5"}]}`).want(200,
		"limits.0.key_id", id, "limits.0.payee", "null", "limits.0.amount", "2", "limits.0.window_hours", "24", "limits.0.spent", "0", "limits.0.until", "null", "limits.1.window_hours", "0.5")
	g.post("/wallet/transfer", key, `{"to_agent_id":"shop","amount":"1.5"}`).want(200)
	g.post("/wallet/transfer", key, `{"to_agent_id":"shop","amount":"0.6"}`).want(402, "code", "limit_exceeded", "limit", "spending", "key_id", id, "required", "0.6", "available", "0.5", "window", "24h")
	g.post("/wallet/transfer", alice, `{"to_agent_id":"shop","amount":"3.6"}`).want(402, "code", "limit_exceeded", "payee", "shop", "available", "3.5")
	g.get("/limits", alice).want(200, "limits.0.spent", "1.5", "limits.0.until", "2026-11-25T12:00:00Z", "limits.1.spent", "1.5")
	g.do("PUT", "/api/v1/limits", key, `{"limits":[]}`).want(403)
	g.post("/agents/me/keys", key, `{}`).want(403)
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[{"key_id":"nonsense","amount":"2","window_hours":24}]}`).want(422, "field", "key_id")
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[{"amount":"2","window_hours":0}]}`).want(422)
	g.do("PUT", "/api/v1/limits", alice, `{}`).want(422, "field", "limits")
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[]}`).want(200, "limits", "[]")
}

func TestReports(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, shop := g.agent("alice", "25"), g.agent("shop", "0")
	id := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":4}`).str("escrow_id")
	g.wait(90 * time.Minute)
	g.post("/escrow/"+id+"/release", alice, "").want(200)
	g.get("/agents/shop/reputation", alice).want(200, "agent_id", "shop", "as_payee.escrows_completed", "1", "as_payee.value", "4", "as_payee.refund_rate", "0",
		"as_payee.median_hours_to_release", "1.5", "as_payer.escrows_completed", "0", "as_payer.median_hours_to_release", "null")
	g.get("/agents/nemo/reputation", alice).want(404)
	g.call("alice", "shop", "0.5")
	g.call("alice", "shop", "0.25")
	g.get("/usage", alice).want(200, "group_by", "payee", "usage.0.group", "shop", "usage.0.calls", "2", "usage.0.paid", "0.75", "usage.0.earned", "0", "usage.0.units.call", "2", "complete", "true")
	g.get("/usage?group_by=day&from=2026-11-24", shop).want(200, "usage.0.group", "2026-11-24", "usage.0.earned", "0.75")
	g.get("/usage?group_by=payee,day", alice).want(200, "group_by", "payee,day", "usage.0.group", "shop,2026-11-24", "usage.0.by.payee", "shop", "usage.0.by.day", "2026-11-24", "usage.0.fees", "0")
	g.get("/usage?group_by=payer,payee", operatorKey).want(200, "usage.0.group", "alice,shop", "usage.0.earned", "0.75", "usage.0.paid", "0")
	g.get("/usage?group_by=x", shop).want(422, "field", "group_by")
	g.get("/statements?month=2026-11", alice).want(200, "opening_balance", "0", "closing_balance", "20.25", "lines.0.kind", "charge", "lines.0.count", "2", "lines.0.out", "0.75")
	g.get("/statements", alice).want(200, "month", "2026-11")
	g.get("/statements?month=nov", alice).want(422, "field", "month")
}

func TestQuality(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, shop := g.agent("alice", "10"), g.agent("shop", "0")
	id := g.book.NewRequestID()
	a, err := g.book.Authorise(t.Context(), escrow.CallOrder{Request: id, By: escrow.Actor{Agent: "alice"}, Payee: "shop", Least: ledger.Unit})
	must(t, err)
	_, err = a.Settle(t.Context(), escrow.Settlement{Amount: ledger.Unit, Source: "stated", Cut: "none", Quality: &escrow.Quality{Hold: true, Decision: &escrow.Decision{
		DecideBy: g.clock().Add(time.Hour), ByPayer: true,
		Tiers: []escrow.Tier{{AtLeast: "0.9", Verdict: escrow.Verdict{Share: 1_000_000}}, {AtLeast: "0.7", Verdict: escrow.Verdict{Share: 700_000}}, {}},
	}}})
	must(t, err)
	held := g.get("/charges/"+id, alice).want(200, "status", "held", "amount", "0", "price", "1").str("escrow_id")
	g.get("/escrow/"+held, shop).want(200, "remaining", "1", "auto_release_at", "2026-11-24T13:00:00Z")
	g.get("/charges?status=held", alice).want(200, "charges.0.request_id", id)
	g.get("/charges?status=x", alice).want(422, "field", "status")
	path := "/api/v1/charges/" + id + "/quality"
	g.do("PUT", path, shop, `{"score":1}`).want(403)
	g.do("PUT", path, alice, `{"score":"good"}`).want(422, "field", "score")
	g.do("PUT", path, alice, `{"score":true}`).want(422, "field", "score")
	g.do("PUT", path, alice, `{}`).want(422, "field", "score")
	g.do("PUT", path, alice, `{"score":0.75}`).want(200, "status", "charged", "amount", "0.7", "price", "1", "score", "0.75")
	g.do("PUT", path, alice, `{"score":1}`).want(409, "code", "invalid_status")
	g.balance(shop, "0.7")
}

func TestMonthlySubscriptions(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, shop := g.agent("alice", "10"), g.agent("shop", "0")
	id := g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":2,"period":"monthly"}`).want(201,
		"period", "1mo", "period_start", "2026-11-24T12:00:00Z", "period_end", "2026-12-24T12:00:00Z", "period_hours", "720").str("subscription_id")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":2,"period":"1mo","period_hours":3}`).want(422, "field", "period")
	g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":2,"period":"1x"}`).want(422, "field", "period")
	g.do("DELETE", "/api/v1/subscriptions/"+id, alice, "").want(204)
	g.post("/subscriptions/"+id+"/resume", alice, ``).want(200, "status", "active")
	g.wait(15 * 24 * time.Hour)
	g.post("/subscriptions/"+id+"/cancel", alice, ``).want(200, "status", "ended", "period_end", "2026-12-09T12:00:00Z")
	g.balance(alice, "9")
	g.balance(shop, "1")
}
