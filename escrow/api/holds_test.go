package api_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// unitEach prices reported work at one for each job.
func unitEach(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
	cost, err := ledger.ParseAmount(o.Units["job"])
	if err != nil {
		return escrow.CallOrder{}, escrow.Settlement{}, &escrow.Refusal{Outcome: escrow.InvalidRequest, Fields: map[string]string{"field": "units"}, Detail: "no jobs"}
	}
	return escrow.CallOrder{By: escrow.Actor{Agent: o.Payer}, Payee: o.Payee, Route: o.Route, Pattern: "per_unit"},
		escrow.Settlement{Amount: cost, Units: o.Units, UnitPrices: map[string]string{"job": "1 per job"}}, nil
}

func TestHolds(t *testing.T) {
	r := rules()
	r.CommissionPPM = 10_000
	g := newGate(t, r, api.Options{})
	alice, shop, eve := g.agent("alice", "100"), g.agent("shop", "0"), g.agent("eve", "0")
	made := g.post("/holds", alice, `{"to_agent_id":"shop","amount":"50","expires_in_hours":24,"memo":"a long job"}`).want(201,
		"status", "open", "amount", "50", "captured", "0", "remaining", "50", "memo", "a long job", "expires_at", "2026-11-25T12:00:00Z", "by_allowance", "null")
	id := made.str("hold_id")
	g.balance(alice, "50")
	g.get("/holds/"+id, eve).want(404, "code", "not_found")
	g.get("/holds/"+id, shop).want(200, "to_agent_id", "shop")
	g.get("/escrow/"+id, shop).want(404, "code", "not_found", "hold_id", id)

	capture := `{"amount":20,"reference":"part 1"}`
	first := g.post("/holds/"+id+"/capture", shop, capture).want(200, "captured", "20", "remaining", "30", "commission", "0.2",
		"charge.amount", "20", "charge.reference", "part 1", "charge.pattern", "capture", "charge.source", "reported", "charge.status", "charged")
	request := first.str("charge.request_id")
	again := g.post("/holds/"+id+"/capture", shop, capture).want(200, "captured", "20", "charge.request_id", request)
	if again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("a repeated capture is not marked")
	}
	g.post("/holds/"+id+"/capture", shop, `{"amount":21,"reference":"part 1"}`).want(409, "code", "already_exists", "request_id", request)
	g.post("/holds/"+id+"/capture", shop, `{"amount":"30.1","reference":"part 2"}`).want(422, "code", "exceeds_remaining", "remaining", "30")
	g.post("/holds/"+id+"/capture", shop, `{"amount":1}`).want(422, "field", "reference")
	g.post("/holds/"+id+"/capture", alice, `{"amount":1,"reference":"mine"}`).want(403)
	g.post("/holds/"+id+"/void", alice, ``).want(403, "code", "forbidden", "expires_at", "2026-11-25T12:00:00Z")
	g.post("/holds/"+id+"/capture", shop, `{"amount":5,"reference":"part 2","final":true}`).want(200, "status", "settled", "returned", "25", "remaining", "0")
	g.balance(alice, "75")
	g.balance(shop, "24.75")

	// a capture is a charge like others: with a receipt, disputed by its payer, refunded
	g.get("/charges/"+request, alice).want(200, "escrow_id", id, "commission", "0.2")
	if receipt := g.get("/charges/"+request, alice).str("receipt"); receipt == "<none>" {
		t.Error("a capture has no receipt")
	}
	g.get("/charges", shop).want(200, "charges.0.reference", "part 2", "charges.1.reference", "part 1")
	g.post("/charges/"+request+"/dispute", alice, `{"reason":"not done"}`).want(200, "status", "disputed")
	g.post("/charges/"+request+"/refund", shop, ``).want(200, "status", "refunded")
	g.balance(alice, "95")

	g.do("PUT", "/api/v1/wallet/allowances/shop", alice, `{"amount":30}`).want(200)
	under := g.post("/holds", shop, `{"from_agent_id":"alice","amount":10}`).want(201, "by_allowance", "true", "expires_at", "2026-12-01T12:00:00Z").str("hold_id")
	g.get("/wallet/allowances/shop", alice).want(200, "remaining", "20")
	g.post("/holds", shop, `{"from_agent_id":"alice","amount":21}`).want(402, "limit", "allowance")
	g.post("/holds", eve, `{"from_agent_id":"alice","amount":1}`).want(403, "payer", "alice")
	g.get("/holds?status=open&role=payer", alice).want(200, "holds.0.hold_id", under, "holds.1", "<none>")
	g.get("/holds?status=settled", shop).want(200, "holds.0.hold_id", id)
	g.get("/holds?status=refunded", shop).want(422, "field", "status")
	g.get("/escrow", alice).want(200, "escrows.0", "<none>")
	g.post("/holds/"+under+"/void", shop, ``).want(200, "status", "returned")
	g.get("/wallet/allowances/shop", alice).want(200, "remaining", "30")
	g.post("/holds/"+under+"/void", shop, ``).want(409, "code", "invalid_status")

	late := g.post("/holds", alice, `{"to_agent_id":"shop","amount":10}`).want(201).str("hold_id")
	g.wait(7 * 24 * time.Hour)
	g.get("/holds/"+late, alice).want(200, "status", "returned", "returned", "10")
}

func TestReportedCharges(t *testing.T) {
	g := newGate(t, rules(), api.Options{Price: unitEach})
	alice, shop := g.agent("alice", "100"), g.agent("shop", "0")
	report := `{"payer":"alice","route":"/jobs","reference":"job-1","units":{"job":"2.50"}}`
	g.post("/charges", shop, report).want(403, "code", "forbidden", "payer", "alice", "payee", "shop")
	g.do("PUT", "/api/v1/wallet/allowances/shop", alice, `{"amount":30}`).want(200)
	first := g.post("/charges", shop, report).want(201, "amount", "2.5", "units.job", "2.5", "unit_prices.job", "1 per job", "source", "reported", "reference", "job-1", "route", "/jobs")
	again := g.post("/charges", shop, `{"units":{"job":2.5},"route":"/jobs","reference":"job-1","payer":"alice"}`).want(201, "request_id", first.str("request_id"))
	if again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Error("a repeated report is not marked as such")
	}
	g.balance(alice, "97.5")
	for body, field := range map[string]string{
		`{"payer":"alice","route":"/jobs","reference":"x"}`:                                                 "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{}}`:                                      "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"job":-1}}`:                              "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"job":0.0000001}}`:                       "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"job":1e13}}`:                            "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"job":"many"}}`:                          "units",
		`{"payer":"alice","route":"/jobs","units":{"job":1}}`:                                               "reference",
		`{"payer":"alice","reference":"x","units":{"job":1}}`:                                               "route",
		`{"payer":"alice","route":"/jobs","plan":"week","reference":"x","units":{"job":1}}`:                 "route",
		`{"payer":"nobody","route":"/jobs","reference":"x","units":{"job":1}}`:                              "payer",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"page":1}}`:                              "units",
		`{"payer":"alice","route":"/jobs","reference":"x","units":{"job":1},"from":"2026-11-24T12:00:00Z"}`: "from",
	} {
		g.post("/charges", shop, body).want(422, "code", "invalid_request", "field", field)
	}
	g.post("/charges", shop, `{"payer":"alice","route":"/jobs","reference":"x","units":{"job":28}}`).want(402, "code", "limit_exceeded", "limit", "allowance", "available", "27.5")
	g.balance(alice, "97.5")
	g.get("/charges", alice).want(200, "charges.1", "<none>")

	hold := g.post("/holds", alice, `{"to_agent_id":"shop","amount":3}`).want(201).str("hold_id")
	g.post("/charges", shop, `{"payer":"alice","route":"/jobs","reference":"job-2","hold_id":"`+hold+`","units":{"job":2}}`).want(201, "escrow_id", hold)
	g.get("/holds/"+hold, alice).want(200, "captured", "2", "remaining", "1")
	g.post("/charges", operatorKey, `{"payer":"alice","payee":"shop","route":"/jobs","reference":"job-3","units":{"job":50}}`).want(201, "payee", "shop")
	g.get("/usage?group_by=route", shop).want(200, "usage.0.calls", "3", "usage.0.earned", "54.5")
	g.get("/usage?group_by=payer&top=1&top_of=earned", shop).want(200, "usage.0.group", "alice", "usage.0.earned", "54.5", "usage.1", "<none>")
	g.get("/usage?top=1&top_of=paid", shop).want(200, "usage.0", "<none>")
	g.get("/usage?top=-1", shop).want(422, "field", "top")
	g.get("/usage?top=1&top_of=calls", shop).want(422, "field", "top_of")
	g.get("/usage?top=1001", shop).want(422, "field", "top")
	g.get("/charges?suspect=true", shop).want(200, "charges.0", "<none>")
	g.get("/charges?suspect=maybe", shop).want(422, "field", "suspect")
}

// TestWithheldCallsAreTheOperatorsToSee: the operator sees the calls whose answers were withheld, and nobody else does.
func TestWithheldCallsAreTheOperatorsToSee(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	id := g.book.NewRequestID()
	_, err := escrow.Do(t.Context(), g.book, func(tx *escrow.Tx) (struct{}, error) {
		return struct{}{}, tx.Withheld(escrow.WithheldCall{Request: id, Payer: "alice", Payee: "shop", Route: "/a", Reason: escrow.InsufficientFunds})
	})
	must(t, err)
	g.get("/withheld", operatorKey).want(200, "withheld.0.request_id", id, "withheld.0.payer", "alice", "withheld.0.reason", "insufficient_funds", "withheld.1", "<none>")
	g.get("/withheld", alice).want(403)
}

// TestHoldTools: what a payer and a payee do with holds, they do over MCP too.
func TestHoldTools(t *testing.T) {
	g := newGate(t, rules(), api.Options{Price: unitEach})
	alice, shop := g.agent("alice", "100"), g.agent("shop", "0")
	server := httptest.NewServer(g.http)
	defer server.Close()
	payer, payee := session(t, server.URL, alice), session(t, server.URL, shop)
	id := use(t, payer, false, "hold_open", map[string]any{"to_agent_id": "shop", "amount": "10"}).want(0, "status", "open").str("hold_id")
	use(t, payer, true, "hold_void", map[string]any{"hold_id": id}).want(0, "code", "forbidden")
	use(t, payee, false, "hold_capture", map[string]any{"hold_id": id, "amount": 4, "reference": "one"}).want(0, "captured", "4", "charge.amount", "4")
	use(t, payee, false, "charge_report", map[string]any{"payer": "alice", "route": "/jobs", "hold_id": id, "reference": "two", "units": map[string]any{"job": 1}}).want(0, "amount", "1")
	use(t, payee, false, "hold_void", map[string]any{"hold_id": id}).want(0, "status", "settled", "returned", "5")
	use(t, payer, false, "hold_status", map[string]any{"hold_id": id}).want(0, "captured", "5")
	use(t, payer, false, "hold_list", nil).want(0, "holds.0.hold_id", id)
}
