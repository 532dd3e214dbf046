package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// has takes money from an agent until it has an amount left of its 1.00, and gives it an amount of credit at acme.
func (s *shop) has(agent, money, credit string) {
	s.t.Helper()
	must(s.t, s.do(func(tx *escrow.Tx) error {
		if rest := amount("1") - amount(money); rest > 0 {
			if _, err := tx.Withdraw(operator, escrow.PaymentOrder{From: agent, Amount: rest}); err != nil {
				return err
			}
		}
		if amount(credit) == 0 {
			return nil
		}
		_, err := tx.IssueCredit(operator, escrow.CreditOrder{Payee: "acme", Agent: agent, Amount: amount(credit)})
		return err
	}))
}

func (s *shop) credit(agent string) string {
	s.t.Helper()
	left, err := s.book.UsableCredit(agent, "acme")
	must(s.t, err)
	return left.String()
}

// locked is what is left in an agent's escrows.
func (s *shop) locked(agent string) (sum ledger.Amount) {
	s.t.Helper()
	escrows, _, err := s.book.Escrows(s.t.Context(), escrow.EscrowFilter{Agent: agent}, escrow.Page{})
	must(s.t, err)
	for _, e := range escrows {
		sum += e.Remaining()
	}
	return sum
}

// sound checks the books.
func (s *shop) sound() {
	s.t.Helper()
	report, err := s.book.Check(s.t.Context(), nil)
	must(s.t, err)
	if !report.Good() {
		s.t.Errorf("the books are wrong: %v %v", report.Ledger.Wrong, report.Wrong)
	}
}

// TestTheLawWithCredit sells everything to payers whose credit and money together are too little, just enough and plenty, with the money in
// the wallet or in an escrow. An answer is complete only if they cover its whole price, and credit is used first.
func TestTheLawWithCredit(t *testing.T) {
	t.Parallel()
	for _, good := range sales() {
		for _, has := range [][2]string{{"0.03", "0"}, {"0.03", "0.03"}, {"0.03", "0.07"}, {"0.1", "0"}, {"0.099999999", "0.000000001"}, {"1", "0"}, {"0.05", "1"}} {
			for _, from := range []string{"wallet", "escrow", "opened"} {
				t.Run(fmt.Sprintf("%s/streamed=%v/%s and %s/%s", good.name, good.streamed, has[0], has[1], from), func(t *testing.T) {
					t.Parallel()
					holdsTheLawWithCredit(t, good, has[0], has[1], from)
				})
			}
		}
	}
}

func holdsTheLawWithCredit(t *testing.T, good sale, credit, money, from string) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	switch from {
	case "escrow":
		route.Payment = gateway.Escrow{}
	case "opened":
		route.Payment = gateway.Escrow{Open: amount("0.5"), OpenFor: time.Hour}
	}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, route, good.provider)
	s.has("alice", money, credit)
	if from == "escrow" && amount(money) > 0 {
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount(money)})
			return err
		}))
	}
	status, body, complete := good.ask(t, s, good.streamed)
	price, all := amount(good.price), amount(credit)+amount(money)
	var charge escrow.Charge
	charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
	must(t, err)
	if len(charges) > 0 {
		charge = charges[0]
	}
	if complete && (all < price || charge.Amount != price) {
		t.Errorf("a complete answer of %s was had for %s, by who has %s", price, charge.Amount, all)
	}
	enough := all > price || all == price && !(good.isTokens() && good.streamed)
	if !complete && enough {
		t.Errorf("an honest call is refused: %d %s", status, body)
	}
	if charge.Credit != min(charge.Amount, amount(credit)) {
		t.Errorf("of %s, %s was credit, and %s was there", charge.Amount, charge.Credit, credit)
	}
	want(t, "credit left", s.credit("alice"), amount(credit)-charge.Credit)
	want(t, "money left", amount(s.balance("alice"))+s.locked("alice"), amount(money)-(charge.Amount-charge.Credit))
	want(t, "money earned", s.balance("acme"), charge.Amount-charge.Credit)
	s.sound()
}

// TestCreditIsTold: headers, trailers and quotes state what credit pays. For a call without credit they state nothing.
func TestCreditIsTold(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]http.HandlerFunc{
		"whole": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") },
		"streamed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
		},
	} {
		for price, words := range map[string]string{"known before": "0.01 per call", "known after": "0.001 per byte"} {
			t.Run(name+", price "+price, func(t *testing.T) {
				t.Parallel()
				route := gateway.Route{Payee: "acme", Rates: rates(t, words)}
				s := openShop(t, escrow.Rules{}, gateway.Options{}, route, provider)
				s.has("alice", "1", "0.015")
				q, err := gateway.Quote(t.Context(), escrow.Actor{Agent: "alice"}, api.QuoteOrder{Method: "GET", Path: "/search"}, nil, metered{gateway.New(s.book, gateway.Options{}), &route})
				must(t, err)
				want(t, "quoted credit", q.Credit, "0.015")
				spent := amount("0")
				for range 3 {
					answer, _ := s.get()
					told := func(header string) string {
						if value := answer.Header.Get(header); value != "" {
							return value
						}
						return answer.Trailer.Get(header)
					}
					charge := amount(told("Tallygate-Charge"))
					credit := min(charge, amount("0.015")-min(spent, amount("0.015")))
					spent += charge
					expected := credit.String()
					if credit == 0 {
						expected = ""
					}
					want(t, "Tallygate-Credit", told("Tallygate-Credit"), expected)
				}
				want(t, "money left", s.balance("alice"), amount("1")-(spent-amount("0.015")))
			})
		}
	}
}

// TestCreditPaysOverage: what a plan does not include is paid with credit first, and then from the pool or the wallet. What it includes uses no
// credit.
func TestCreditPaysOverage(t *testing.T) {
	t.Parallel()
	for name, pool := range map[string]string{"from the wallet": "0", "from a pool": "0.2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: "call", Included: 2 * escrow.Micro, Overage: true, OveragePrice: "0.1 per call", Pool: amount(pool)}
			route := gateway.Route{Rates: rates(t, "0.1 per call"), Payment: &gateway.Subscription{Plan: plan, Included: &pricing.Measure{N: 2, Unit: "call"}, Rates: rates(t, "0.1 per call")}}
			s := openShop(t, escrow.Rules{Plans: []escrow.Plan{plan}, MinEscrow: amount("0.01")}, gateway.Options{}, route, results)
			s.has("alice", "0.5", "0.15")
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
				return err
			}))
			earned := amount(s.balance("acme"))
			for i, credit := range []string{"0", "0", "0.1", "0.05", "0"} {
				answer, _ := s.get()
				want(t, "status", answer.StatusCode, 200)
				if charge := s.charges()[0]; charge.Credit != amount(credit) || i >= 2 && charge.Amount != amount("0.1") {
					t.Errorf("call %d costs %s, of it credit %s, want %s", i, charge.Amount, charge.Credit, credit)
				}
			}
			want(t, "earned by overage", amount(s.balance("acme"))-earned, amount("0.15"))
			s.sound()
		})
	}
}

// TestCreditWithEscrows: on a route that opens escrows, a call that credit covers opens none. One that names an escrow uses credit, and then the
// escrow. A refund gives both back.
func TestCreditWithEscrows(t *testing.T) {
	t.Parallel()
	route := gateway.Route{Rates: rates(t, "0.1 per call"), Payment: gateway.Escrow{Open: amount("0.5"), OpenFor: time.Hour}}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, route, results)
	s.has("alice", "0.7", "0.15")
	want(t, "locked", s.locked("alice"), amount("0"))
	answer, _ := s.get()
	want(t, "status", answer.StatusCode, 200)
	want(t, "locked", s.locked("alice"), amount("0"))
	want(t, "credit", s.charges()[0].Credit, amount("0.1"))

	var id string
	must(t, s.do(func(tx *escrow.Tx) error {
		e, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount("0.3")})
		id = e.ID
		return err
	}))
	answer, _ = s.get("Tallygate-Escrow", id)
	want(t, "status", answer.StatusCode, 200)
	charge := s.charges()[0]
	want(t, "credit", charge.Credit, amount("0.05"))
	want(t, "escrow", charge.EscrowID, id)
	want(t, "left in the escrow", s.locked("alice"), amount("0.25"))
	must(t, s.do(func(tx *escrow.Tx) error { // half of the charge comes back as credit
		_, err := tx.RefundCharge(escrow.Actor{Agent: "acme"}, charge.RequestID, 0, "sorry")
		return err
	}))
	want(t, "credit", s.credit("alice"), "0.05")
	want(t, "money", s.balance("alice"), "0.45")
	s.sound()
}

// TestAJudgedAnswerIsPaidWithMoney: the price of an answer whose quality is not decided is locked, which is possible only with money.
func TestAJudgedAnswerIsPaidWithMoney(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]escrow.Verdict{"in part": {Share: 500_000}, "in dispute": {Dispute: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quality := &gateway.Quality{Judge: lengthJudge{}, Tiers: []escrow.Tier{{Verdict: verdict}}}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call"), Quality: quality}, results)
			s.has("alice", "1", "1")
			answer, _ := s.get()
			want(t, "status", answer.StatusCode, 200)
			want(t, "credit", s.credit("alice"), "1")
			s.sound()
		})
	}
}

// TestCreditOfACallThatFails: an answer that costs nothing uses no credit.
func TestCreditOfACallThatFails(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call")}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	})
	s.has("alice", "0", "0.1")
	for range 2 {
		answer, _ := s.get()
		want(t, "status", answer.StatusCode, 502)
		want(t, "credit", s.credit("alice"), "0.1")
	}
	s.sound()
}

// TestCreditThatExpiresInTheMiddleOfACall: the call uses what it holds, and the rest is taken back.
func TestCreditThatExpiresInTheMiddleOfACall(t *testing.T) {
	t.Parallel()
	var hours atomic.Int64
	now := func() time.Time {
		return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).Add(time.Duration(hours.Load()) * time.Hour)
	}
	var s *shop
	s = openShopAt(t, now, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call")}, func(w http.ResponseWriter, _ *http.Request) {
		hours.Add(2)
		if _, err := s.book.RunDue(t.Context()); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "results")
	})
	s.has("alice", "0", "0")
	var credit escrow.Credit
	must(t, s.do(func(tx *escrow.Tx) (err error) {
		credit, err = tx.IssueCredit(operator, escrow.CreditOrder{Payee: "acme", Agent: "alice", Amount: amount("0.3"), ExpiresAt: now().Add(time.Hour)})
		return err
	}))
	answer, _ := s.get()
	want(t, "status", answer.StatusCode, 200)
	if answer, _ := s.get(); answer.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a call after the credit has expired: %s", answer.Status)
	}
	hours.Add(1)
	_, err := s.book.RunDue(t.Context())
	must(t, err)
	c, err := s.book.Credit(operator, credit.ID)
	must(t, err)
	want(t, "credit", fmt.Sprint(c.Status, " ", c.Used(), " ", c.Ended, " ", c.Left), "expired 0.1 0.2 0")
	want(t, "money", ledger.Amount(0), s.balance("acme"))
	s.sound()
}
