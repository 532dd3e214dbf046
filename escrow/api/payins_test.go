package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// cards is a service for cards. Each message to it is the id of a payment, which alice has made.
type cards struct {
	ledger string
	fails  error // what it answers, if not nil
	orders []string
}

func (*cards) Name() string { return "cards" }

func (c *cards) Every() time.Duration { return time.Second }

func (c *cards) Page(_ context.Context, o cashier.Order) (cashier.Page, error) {
	c.ledger = o.Ledger
	return cashier.Page{ID: "page_1", URL: "https://cards.example/" + o.Agent, ExpiresAt: time.Unix(1_800_000_000, 0).UTC()}, c.fails
}

func (c *cards) payment(id, order string, amount ledger.Amount) cashier.Facts {
	return cashier.Facts{Payments: []cashier.Payment{{
		RailPayment: escrow.RailPayment{Rail: "cards", ID: id, Agent: "alice", Amount: amount, Outside: "out_" + id}, Ledger: c.ledger, Method: "saved", Order: order,
	}}}
}

func (c *cards) Read(_ context.Context, header http.Header, body []byte) (cashier.Facts, error) {
	if header.Get("Signed") == "" {
		return cashier.Facts{}, &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: "not signed"}
	}
	return c.payment(string(body), "", 3*ledger.Unit), c.fails
}

func (c *cards) Charge(_ context.Context, _ string, a escrow.AutoTopUp) (cashier.Facts, error) {
	c.orders = append(c.orders, a.Order)
	if c.fails != nil {
		return cashier.Facts{}, c.fails
	}
	return c.payment("for_"+a.Order, a.Order, a.Asked), nil
}

func (c *cards) Send(context.Context, escrow.Payout) (string, error) { return "sent_1", c.fails }

// newTill returns a gate with a service for cards.
func newTill(t *testing.T) (*gate, *cards, *cashier.Cashier) {
	service, g := &cards{}, (*gate)(nil)
	till := &cashier.Cashier{Service: service, Book: func() *escrow.Book { return g.book }, Logger: slog.New(slog.DiscardHandler)}
	g = newGate(t, rules(), api.Options{Cashier: till})
	return g, service, till
}

func TestPayingByCard(t *testing.T) {
	g, service, _ := newTill(t)
	alice := g.agent("alice", "0")
	g.post("/checkout", alice, `{"amount":3}`).want(201, "checkout_id", "page_1", "url", "https://cards.example/alice", "amount", "3", "currency", "USDC", "expires_at", "2027-01-15T08:00:00Z")
	g.post("/checkout", operatorKey, `{"amount":3,"agent_id":"alice"}`).want(201, "agent_id", "alice")
	g.post("/checkout", alice, `{"amount":"-1"}`).want(422, "field", "amount")
	g.post("/checkout", operatorKey, `{"amount":3,"agent_id":"commission"}`).want(422, "field", "agent_id")
	service.fails = errors.New("down")
	g.post("/checkout", alice, `{"amount":3}`).want(503, "code", "rail_unavailable", "paid", "none")
	g.do("POST", "/api/v1/checkout/events", "", "one", "Signed", "yes").want(503)
	service.fails = nil
	g.do("POST", "/api/v1/checkout/events", "", "one").want(401)
	for range 2 {
		g.do("POST", "/api/v1/checkout/events", "", "one", "Signed", "yes").want(204)
	}
	g.do("GET", "/api/v1/checkout/events", "", "").want(405)
	g.balance(alice, "3")
	service.ledger = "another"
	g.do("POST", "/api/v1/checkout/events", "", "two", "Signed", "yes").want(204)
	g.balance(alice, "3")
	g.post("/agents/alice/close", operatorKey, ``).want(200)
	g.post("/checkout", operatorKey, `{"amount":3,"agent_id":"alice"}`).want(409, "code", "invalid_status")

	none := newGate(t, rules(), api.Options{})
	bob := none.agent("bob", "0")
	none.post("/checkout", bob, `{"amount":3}`).want(404)
	none.do("PUT", "/api/v1/wallet/top-up", bob, `{"below":1,"amount":1,"per_day":1}`).want(404)
	none.post("/checkout/events", "", `{}`).want(404)
}

func TestToppingUp(t *testing.T) {
	g, service, till := newTill(t)
	alice := g.agent("alice", "1")
	round := func() {
		t.Helper()
		must(t, till.TopUps(t.Context()))
	}
	set := func(body string) answer { return g.do("PUT", "/api/v1/wallet/top-up", alice, body) }
	g.get("/wallet/top-up", alice).want(404)
	set(`{"below":2,"amount":4,"per_day":5}`).want(409, "code", "invalid_status")
	g.post("/checkout", alice, `{"amount":3,"save":true}`).want(201)
	g.do("POST", "/api/v1/checkout/events", "", "one", "Signed", "yes").want(204)
	set(`{"below":10,"amount":4,"per_day":3}`).want(422, "field", "per_day")
	set(`{"below":10,"amount":4,"per_day":9}`).want(200, "active", "true", "paid_today", "0", "rail", "cards")
	round()
	round()
	round() // the day allows no third
	g.balance(alice, "12")
	g.get("/wallet/top-up", alice).want(200, "paid_today", "8", "pending", "false")
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":12}`).want(200)
	round()
	g.balance(alice, "0")

	g.pass(24 * time.Hour)
	service.fails = errors.New("no answer")
	round()
	round()
	if n := len(service.orders); n != 4 || service.orders[2] != service.orders[3] {
		t.Errorf("an order without an outcome is asked for again as another: %v", service.orders)
	}
	g.get("/wallet/top-up", alice).want(200, "pending", "true")
	g.do("DELETE", "/api/v1/wallet/top-up", alice, "").want(204) // while it is being paid
	service.fails = nil
	round()
	g.balance(alice, "4")
	g.get("/wallet/top-up", alice).want(404)
	g.do("DELETE", "/api/v1/wallet/top-up", alice, "").want(404)

	// A refusal ends it, and so does a day without an answer.
	g.do("POST", "/api/v1/checkout/events", "", "two", "Signed", "yes").want(204)
	set(`{"below":10,"amount":4,"per_day":9}`).want(200)
	service.fails = &cashier.Declined{Why: "no money"}
	round()
	g.get("/wallet/top-up", alice).want(200, "active", "false", "failed", "no money", "paid_today", "0")
	set(`{"below":10,"amount":4,"per_day":9}`).want(200, "active", "true")
	service.fails = errors.New("no answer")
	round()
	g.pass(24 * time.Hour)
	asked := len(service.orders)
	round()
	if got := g.get("/wallet/top-up", alice).want(200, "active", "false").str("failed"); got == "null" || len(service.orders) != asked {
		t.Errorf("an order of yesterday: failed %s, asked %v", got, service.orders[asked:])
	}
	g.post("/agents/alice/suspend", operatorKey, ``).want(200)
	service.fails = nil
	must(t, till.Notify(t.Context(), http.Header{"Signed": {"yes"}}, []byte("three"))) // what was paid is booked all the same
	g.balance(alice, "10")
}

func TestPayingOut(t *testing.T) {
	g, service, _ := newTill(t)
	alice := g.agent("alice", "10")
	one := g.post("/payouts", alice, `{"amount":4,"to":"bank","memo":"june"}`).want(201, "status", "requested", "to", "bank", "decided_at", "null").str("payout_id")
	g.get("/wallet", alice).want(200, "balance", "10", "held", "4", "available", "6")
	g.post("/payouts", alice, `{"amount":7,"to":"bank"}`).want(402, "available", "6")
	g.post("/payouts", alice, `{"amount":1,"to":""}`).want(422, "field", "to")
	g.get("/payouts?status=odd", alice).want(422, "field", "status")
	g.get("/payouts/pay_none", alice).want(404)
	g.post("/agents/alice/close", operatorKey, ``).want(409)
	two := g.post("/payouts", operatorKey, `{"amount":1,"to":"bank","agent_id":"alice"}`).want(201).str("payout_id")
	g.get("/payouts?limit=1", alice).want(200, "payouts.0.payout_id", two)
	g.post("/payouts/"+one+"/book", operatorKey, `{"reference":""}`).want(422, "field", "reference")
	g.post("/payouts/"+one+"/book", operatorKey, `{"reference":"bank-1"}`).want(200, "status", "paid", "reference", "bank-1")
	if again := g.post("/payouts/"+one+"/book", operatorKey, `{"reference":"bank-1"}`).want(200); again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the repetition does not say so")
	}
	g.post("/wallet/withdraw", operatorKey, `{"agent_id":"alice","amount":1,"reference":"bank-1"}`).want(409, "code", "already_exists")
	g.post("/payouts/"+two+"/refuse", operatorKey, `{"reason":"no"}`).want(200, "status", "refused", "reason", "no")
	g.post("/payouts/"+two+"/refuse", operatorKey, `{}`).want(409)
	g.post("/payouts/"+two+"/send", operatorKey, ``).want(409)
	three := g.post("/payouts", alice, `{"amount":1,"to":"acct"}`).want(201).str("payout_id")
	service.fails = errors.New("no answer")
	g.post("/payouts/"+three+"/send", operatorKey, ``).want(503, "paid", "unknown")
	g.get("/payouts/"+three, alice).want(200, "status", "sending")
	service.fails = nil
	g.post("/payouts/"+three+"/send", operatorKey, ``).want(200, "status", "paid", "reference", "sent_1")
	g.get("/wallet", alice).want(200, "balance", "5", "held", "0")
	report, err := g.book.Check(t.Context(), nil)
	must(t, err)
	if !report.Good() {
		t.Errorf("the books: %v %v", report.Wrong, report.Ledger.Wrong)
	}
}
