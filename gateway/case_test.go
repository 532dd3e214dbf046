package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// perToken is a model with a price for its output.
func perToken(t *testing.T, price string) []pricing.Model {
	output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
	must(t, err)
	return []pricing.Model{{Glob: "*", Prices: []pricing.Price{output}}}
}

// metered is a route for quotes.
type metered struct {
	gateway *gateway.Gateway
	route   *gateway.Route
}

func (m metered) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return m.gateway.Serve(m.route, w, r, nobody{})
}

type nobody struct{}

func (nobody) ServeHTTP(http.ResponseWriter, *http.Request) error { return nil }

// TestPricesByCallerAndHour: a call is held, quoted and charged at the prices of its caller, at the hour at which it arrives. If the answer
// ends in another hour, the prices are still those of the arrival.
func TestPricesByCallerAndHour(t *testing.T) {
	t.Parallel()
	hours, err := pricing.ParseHours([]string{"09:00-18:00", "UTC"})
	must(t, err)
	tariff := &pricing.Tariff{Models: perToken(t, "0.01"), Cases: []pricing.Case{
		{Agents: []string{"carol"}, Tariff: pricing.Tariff{Models: perToken(t, "0.001")}},
		{At: hours, Tariff: pricing.Tariff{Models: perToken(t, "0.02")}},
	}}
	must(t, tariff.Compile(nil))
	for _, test := range []struct {
		name, agent  string
		hour, later  int // at which the call arrives, and its answer does
		stream       bool
		quote, price string
	}{
		{"by night", "alice", 8, 8, false, "0.1", "0.1"},
		{"by day", "alice", 9, 9, false, "0.2", "0.2"},
		{"by day, streamed", "alice", 9, 9, true, "0.2", "0.2"},
		{"from day into night", "alice", 17, 18, false, "0.2", "0.2"},
		{"from night into day", "alice", 8, 9, true, "0.1", "0.1"},
		{"a customer by day", "carol", 9, 9, false, "0.01", "0.01"},
		{"a customer by day, streamed", "carol", 9, 9, true, "0.01", "0.01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var hour atomic.Int64
			hour.Store(int64(test.hour))
			clock := func() time.Time { return time.Date(2026, 11, 24, int(hour.Load()), 0, 0, 0, time.UTC) }
			answer := chat(test.stream)
			s := openShopAt(t, clock, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, func(w http.ResponseWriter, r *http.Request) {
				hour.Store(int64(test.later))
				answer(w, r)
			})
			if test.agent != "alice" {
				must(t, s.do(func(tx *escrow.Tx) (err error) {
					if _, _, s.key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: test.agent}); err != nil {
						return err
					}
					_, err = tx.Deposit(operator, escrow.PaymentOrder{To: test.agent, Amount: amount("1")})
					return err
				}))
			}
			good := sold{request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`}
			request := strings.Replace(good.request, "%t", "false", 1)
			g := gateway.New(s.book, gateway.Options{})
			route := gateway.Route{Payee: "acme", Tariff: tariff}
			quote, err := gateway.Quote(t.Context(), escrow.Actor{Agent: test.agent}, api.QuoteOrder{Path: "/v1/chat/completions", Body: []byte(request)}, nil, metered{g, &route})
			must(t, err)
			want(t, "quoted at most", *quote.Most, test.quote)
			_, body, complete := good.ask(t, s, test.stream)
			if !complete {
				t.Fatalf("cut: %s", body)
			}
			charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: test.agent}, escrow.Page{})
			must(t, err)
			want(t, "charge", charges[0].Amount, test.price)
		})
	}
}
