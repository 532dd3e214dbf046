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

// sound checks the books.
func (s *shop) sound() {
	s.t.Helper()
	report, err := s.book.Check(s.t.Context(), nil)
	must(s.t, err)
	if !report.Good() {
		s.t.Errorf("the books are wrong: %v %v", report.Ledger.Wrong, report.Wrong)
	}
}

// TestTheLawWithCredit sells everything to payers whose credit and money together are too little, just enough and plenty. An answer is
// complete only if they cover its whole price, and credit is used first.
func TestTheLawWithCredit(t *testing.T) {
	t.Parallel()
	for _, good := range sales() {
		for _, has := range [][2]string{{"0.03", "0"}, {"0.03", "0.03"}, {"0.03", "0.07"}, {"0.1", "0"}, {"0.099999999", "0.000000001"}, {"1", "0"}, {"0.05", "1"}} {
			t.Run(fmt.Sprintf("%s/streamed=%v/%s and %s", good.name, good.streamed, has[0], has[1]), func(t *testing.T) {
				t.Parallel()
				holdsTheLawWithCredit(t, good, has[0], has[1])
			})
		}
	}
}

func holdsTheLawWithCredit(t *testing.T, good sale, credit, money string) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, route, good.provider)
	s.has("alice", money, credit)
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
	want(t, "money left", s.balance("alice"), amount(money)-(charge.Amount-charge.Credit))
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
