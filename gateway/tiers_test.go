package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// tiersOf is a price with tiers: "0.01 per call", "after 2 0.005", "volume", "each day".
func tiersOf(t *testing.T, words string, more ...string) pricing.Price {
	price, err := pricing.ParsePrice(strings.Fields(words))
	must(t, err)
	var tiers pricing.Tiers
	for _, line := range more {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "after":
			tier, err := pricing.ParseTier(strings.Fields(rest))
			must(t, err)
			tiers.After = append(tiers.After, tier)
		case "volume":
			tiers.Volume = true
		default:
			tiers.Each = rest
		}
	}
	price, err = price.WithTiers(tiers)
	must(t, err)
	return price
}

func tieredRates(t *testing.T, prices ...pricing.Price) *pricing.Rates {
	r, err := pricing.NewRates(prices)
	must(t, err)
	return r
}

// amounts are the amounts of all charges, the oldest first.
func (s *shop) amounts() string {
	s.t.Helper()
	charges, _, err := s.book.Charges(escrow.ChargeFilter{}, escrow.Page{})
	must(s.t, err)
	var list []string
	for _, c := range slices.Backward(charges) {
		list = append(list, c.Amount.String())
	}
	return strings.Join(list, " ")
}

// TestTiersOfCalls makes call after call. Each has the price of its tier, in documents and in streams, and a new period begins with the
// first tier.
func TestTiersOfCalls(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		route    func(t *testing.T) gateway.Route
		provider http.HandlerFunc
		calls    string
	}{
		{
			"calls", func(t *testing.T) gateway.Route {
				return gateway.Route{Rates: tieredRates(t, tiersOf(t, "0.01 per call", "after 2 0.005", "after 3 0.02"))}
			}, results, "0.01 0.01 0.005 0.02",
		},
		{
			"free bytes", func(t *testing.T) gateway.Route {
				return gateway.Route{Rates: tieredRates(t, tiersOf(t, "0 per byte", "after 10 0.001"))}
			}, results, "0 0.004 0.007 0.007",
		},
		{
			"events", func(t *testing.T) gateway.Route {
				return gateway.Route{Rates: tieredRates(t, tiersOf(t, "0.01 per event", "after 15 0.001"))}
			}, events, "0.1 0.055 0.01 0.01",
		},
		{
			"events by volume, and a call", func(t *testing.T) gateway.Route {
				return gateway.Route{Rates: tieredRates(t, tiersOf(t, "0.01 per event", "after 15 0.001", "volume"), tiersOf(t, "0.05 per call", "after 1000 0.01"))}
			}, events, "0.15 0.06 0.06",
		},
		{
			"tenths of a nano", func(t *testing.T) gateway.Route {
				return gateway.Route{Rates: tieredRates(t, tiersOf(t, "0.0000000001 per byte", "after 1M 0"))}
			}, results, "0 0.000000001 0.000000001 0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var month atomic.Int64
			clock := func() time.Time {
				return time.Date(2026, time.November+time.Month(month.Load()), 30, 23, 0, 0, 0, time.UTC)
			}
			s := openShopAt(t, clock, escrow.Rules{}, gateway.Options{}, test.route(t), test.provider)
			wanted := strings.Fields(test.calls)
			for range wanted {
				if answer, body := s.get(); answer.StatusCode != 200 {
					t.Fatalf("%d %s", answer.StatusCode, body)
				}
			}
			want(t, "charges", s.amounts(), test.calls)
			month.Add(1)
			s.get()
			want(t, "in the next month", s.amounts(), test.calls+" "+wanted[0])
		})
	}
}

// TestParallelCallsClimbTogether: in whatever order calls end, together they cost as much as all their use at once, and the books count it
// once.
func TestParallelCallsClimbTogether(t *testing.T) {
	t.Parallel()
	const calls = 40
	price := tiersOf(t, "0.003 per byte", "after 100 0.001", "after 200 0.0000000001")
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: tieredRates(t, price)}, results)
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() { s.get() })
	}
	wg.Wait()
	charges, _, err := s.book.Charges(escrow.ChargeFilter{}, escrow.Page{})
	must(t, err)
	var sum ledger.Amount
	for _, c := range charges {
		sum += c.Amount
	}
	want(t, "charges", len(charges), calls)
	want(t, "all together", sum, "0.400000008") // 100 x 0.003, 100 x 0.001, 80 x a tenth of a nano
	used, err := s.book.Used("alice", "acme", escrow.Counter{Name: "  byte", Each: "month"})
	must(t, err)
	want(t, "counted", used, calls*len("results")*escrow.Micro)
}

// TestMoneyForTheDearestTier: a call begins only with money for the most expensive tier, however much was used before. It is charged at its
// own tier.
func TestMoneyForTheDearestTier(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: tieredRates(t, tiersOf(t, "0.1 per call", "after 1 0.9"))}, results)
	if answer, _ := s.get(); answer.StatusCode != 200 {
		t.Fatal(answer.Status)
	}
	want(t, "charges", s.amounts(), "0.1")
	if answer, body := s.get(); answer.StatusCode != 200 { // exactly what is left
		t.Fatal(answer.Status, body)
	}
	want(t, "charges", s.amounts(), "0.1 0.9")
	if answer, _ := s.get(); answer.StatusCode != 402 {
		t.Errorf("a call without money: %s", answer.Status)
	}
}

// TestQuotesTellTheTier: estimate and most are at the most expensive tier, and the quote states the tier that the caller has reached.
func TestQuotesTellTheTier(t *testing.T) {
	t.Parallel()
	route := gateway.Route{Payee: "acme", Rates: tieredRates(t, tiersOf(t, "0.01 per call", "after 1 0.005", "each day"))}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, route, results)
	s.get()
	g := gateway.New(s.book, gateway.Options{})
	for agent, tier := range map[string]string{"alice": "call 0.005 1 call day 1", "bob": "call 0.01 1 call day 0", "": "call 0.01 1 call day 0"} {
		q, err := gateway.Quote(t.Context(), escrow.Actor{Agent: agent}, api.QuoteOrder{Method: "GET", Path: "/search"}, nil, metered{g, &route})
		must(t, err)
		now := q.Tiers[0]
		want(t, "quote for "+agent, fmt.Sprint(q.Estimate, " ", *q.Most), "0.01 0.01")
		want(t, "tier of "+agent, fmt.Sprint(now.Class, " ", now.Amount, " ", now.Per, " ", now.Unit, " ", now.Each, " ", now.Used), tier)
	}
}

// TestTiersOfAnOverage: the overage of a plan has tiers that count in the plan's period.
func TestTiersOfAnOverage(t *testing.T) {
	t.Parallel()
	plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: "call", Included: 2 * escrow.Micro, Overage: true}
	route := gateway.Route{Payment: &gateway.Subscription{
		Plan: plan, Included: &pricing.Measure{N: 2, Unit: "call"}, Rates: tieredRates(t, tiersOf(t, "0.01 per call", "after 1 0.02", "after 3 0.001")),
	}}
	route.Rates = route.Payment.(*gateway.Subscription).Rates
	var hour atomic.Int64
	clock := func() time.Time { return time.Date(2026, 11, 24, int(hour.Load()), 0, 0, 0, time.UTC) }
	s := openShopAt(t, clock, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, route, results)
	must(t, s.do(func(tx *escrow.Tx) error {
		_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
		return err
	}))
	for range 6 {
		s.get()
	}
	want(t, "charges", s.amounts(), "0 0 0.01 0.02 0.02 0.001")
}

// TestAShadowClimbsToo: in shadow mode the price of a call also depends on what was used before.
func TestAShadowClimbsToo(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Shadow: true, Rates: tieredRates(t, tiersOf(t, "0.01 per call", "after 1 0.005"))}, results)
	s.get()
	s.get()
	charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
	must(t, err)
	want(t, "prices", fmt.Sprint(charges[1].Price, " ", charges[0].Price), "0.01 0.005")
	want(t, "balance", s.balance("alice"), "1")
}
