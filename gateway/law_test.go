package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// The law: a complete answer goes out only if its whole price, according to the tariff, is charged. If the price can't be charged in full,
// the call is refused before the provider works, or the answer is cut or withheld. No limit, balance or quota of the payer lowers the price
// of what is delivered.

// TestTheLaw sells everything in each way of paying, to payers that have too little, just enough and plenty, and that limit the call to
// less than its price, its price, and more.
func TestTheLaw(t *testing.T) {
	t.Parallel()
	for _, good := range sales() {
		for _, pays := range []string{"wallet", "escrow", "milestone", "quota", "quality"} {
			for _, has := range []string{"0.03", "0.1", "1"} {
				for _, limit := range []string{"", "0.000000001", "0.05", "0.1"} {
					name := fmt.Sprintf("%s/streamed=%v/%s of %s/limit %s", good.name, good.streamed, pays, has, limit)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						holdsTheLaw(t, good, pays, has, limit)
					})
				}
			}
		}
	}
}

func holdsTheLaw(t *testing.T, good sale, pays, has, limit string) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	purse := good.purse(t, &route, pays, has)
	s := openShop(t, escrow.Rules{Plans: purse.plans}, gateway.Options{}, route, good.provider)
	must(t, s.do(purse.fill))
	headers := purse.headers
	if limit != "" {
		headers = append(headers, "Tallygate-Max-Charge", limit)
	}
	status, body, complete := good.ask(t, s, good.streamed, headers...)
	price := amount(good.price)
	affordable := amount(has) >= price
	// What a plan includes, and the work of a milestone, cost the call nothing.
	free := pays == "quota" || pays == "milestone"
	allowed := limit == "" || amount(limit) >= price || free
	charged, units := good.paid(s, pays)
	if complete && charged < price {
		t.Errorf("a complete answer of %s was had for %s: %s", price, charged, units)
	}
	if complete && (!affordable || !allowed) {
		t.Errorf("complete, although there was no money, or a limit, for it: charged %s", charged)
	}
	if charged > price || !affordable && charged > amount(has) {
		t.Errorf("%s was charged for what costs %s", charged, price)
	}
	enough := affordable && !(good.isTokens() && good.streamed && amount(has) == price)
	if !complete && enough && limit == "" {
		t.Errorf("an honest call is refused: %d %s", status, body)
	}
	if charged > 0 && limit != "" && charged > amount(limit) && !free {
		t.Errorf("%s was charged, over the limit of %s", charged, limit)
	}
	report, err := s.book.Check(t.Context(), nil)
	must(t, err)
	if len(report.Wrong)+len(report.Ledger.Wrong) > 0 {
		t.Errorf("books: %v %v", report.Wrong, report.Ledger.Wrong)
	}
}

// TestAnAgentWhoseAnswersAreWithheldIsBounded: an agent makes the provider work for nothing until it is refused. It also uses the name of
// an address, since clients on this machine are not limited elsewhere.
func TestAnAgentWhoseAnswersAreWithheldIsBounded(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{"bob", "127.0.0.1"} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.2 per byte")}, document("", "", "0123456789"))
		must(t, s.do(func(tx *escrow.Tx) (err error) {
			if _, _, s.key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: agent}); err != nil {
				return err
			}
			_, err = tx.Deposit(operator, escrow.PaymentOrder{To: agent, Amount: amount("1")})
			return err
		}))
		refused := false
		for range 100 {
			status, _, complete := (sold{}).ask(t, s, false)
			if complete {
				t.Fatal("an answer of 2 was had for 1")
			}
			refused = refused || status == http.StatusTooManyRequests
		}
		if !refused {
			t.Errorf("100 answers to %s were withheld, and it goes on", agent)
		}
		want(t, "wallet", s.balance(agent), "1")
	}
}

// TestALimitBesideAQuota: what a plan includes costs a call nothing, whatever its limit is. What is beyond the quota is bounded by the
// limit.
func TestALimitBesideAQuota(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"call", "byte"} {
		included := pricing.Measure{N: 1, Unit: unit}
		if unit == "byte" {
			included.N = ten
		}
		plan := escrow.Plan{
			Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: unit, Included: included.N * escrow.Micro,
			Overage: true, OveragePrice: "0.02 per " + unit,
		}
		route := gateway.Route{Rates: rates(t, "0.02 per "+unit), Payment: &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0.02 per "+unit)}}
		s := openShop(t, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, route, document("", "", "0123456789"))
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
			return err
		}))
		good := sold{}
		status, body, complete := good.ask(t, s, false, "Tallygate-Max-Charge", "0.001")
		if !complete {
			t.Errorf("%s: what the plan includes is refused for a limit: %d %s", unit, status, body)
		}
		want(t, unit+": wallet", s.balance("alice"), "0.9")
		status, body, complete = good.ask(t, s, false, "Tallygate-Max-Charge", "0.001")
		if complete || status != http.StatusPaymentRequired || !strings.Contains(body, "limit_exceeded") {
			t.Errorf("%s: what is beyond the plan costs more than the limit: %d %s", unit, status, body)
		}
		want(t, unit+": wallet after a refusal", s.balance("alice"), "0.9")
		if _, _, complete = good.ask(t, s, false, "Tallygate-Max-Charge", "0.5"); !complete {
			t.Errorf("%s: what is beyond the plan is refused", unit)
		}
	}
}

// TestAnAbsurdUsageEndsAStream: of an impossible usage only what is held is charged, so nothing more may be sent for it.
func TestAnAbsurdUsageEndsAStream(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.0001 per token")}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":900000,"completion_tokens":1,"total_tokens":900001}}`+"\n\n")
		w.(http.Flusher).Flush()
		for range 5000 {
			_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":" word"}}]}`+"\n\n")
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	_, body, _ := (sold{request: `{"model":"m","messages":[],"stream":%t}`}).ask(t, s, true)
	if words := strings.Count(body, " word"); words > 1000 {
		t.Errorf("%d words were had for %s", words, s.charges()[0].Amount)
	}
	if len(s.charges()) != 1 || s.charges()[0].Amount == 0 || !s.charges()[0].Suspect {
		t.Errorf("charges %+v", s.charges())
	}
}
