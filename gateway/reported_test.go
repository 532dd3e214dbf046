package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// report charges alice for work that acme reports, without an allowance, as the operator may.
func (s *shop) report(route *gateway.Route, o escrow.ReportOrder) (escrow.Charge, error) {
	route.Payee = "acme"
	o.Payer, o.Payee = "alice", "acme"
	g := gateway.New(s.book, gateway.Options{})
	r, err := escrow.Do(s.t.Context(), s.book, func(tx *escrow.Tx) (escrow.Reported, error) {
		return tx.Report(operator, o, func(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) { return g.Reported(route, o) })
	})
	return r.Charge, err
}

// units reads "second=90 page=2".
func units(words string) map[string]string {
	all := map[string]string{}
	for word := range strings.FieldsSeq(words) {
		name, n, _ := strings.Cut(word, "=")
		all[name] = n
	}
	return all
}

func classPrice(t *testing.T, words string) pricing.Price {
	class, rest, _ := strings.Cut(words, " ")
	price, err := pricing.ParseClassPrice(class, strings.Fields(rest))
	must(t, err)
	return price
}

// reportTariff is a tariff with all that a price may depend on.
func reportTariff(t *testing.T) *pricing.Tariff {
	tool, err := pricing.ParseToolPrice(strings.Fields("search* 0.02 per call"))
	must(t, err)
	tariff := &pricing.Tariff{
		Models: []pricing.Model{{
			Glob: "m", Prices: []pricing.Price{classPrice(t, "input 1 per 1k tokens"), classPrice(t, "output 2 per 1k tokens")},
			Above:    []pricing.Above{{Tokens: 50, Prices: []pricing.Price{classPrice(t, "input 3 per 1k tokens")}}},
			Services: []pricing.Service{{Name: "flex", Prices: []pricing.Price{classPrice(t, "output 1 per 1k tokens")}}},
		}},
		Tools: []pricing.ToolPrice{tool},
		Cases: []pricing.Case{{Agents: []string{"carol"}, Tariff: pricing.Tariff{Models: perToken(t, "0.5")}}},
	}
	must(t, tariff.Compile(nil))
	return tariff
}

// TestReportedWorkIsPricedAsACall: what a payee reports costs what a call with these units costs.
func TestReportedWorkIsPricedAsACall(t *testing.T) {
	t.Parallel()
	tiers := tieredRates(t, tiersOf(t, "0.01 per second", "after 10 0.001", "each day"))
	for _, test := range []struct {
		name, units, model, tier, price, code, field string
		route                                        gateway.Route
	}{
		{name: "by the second", route: gateway.Route{Rates: rates(t, "0.01 per second")}, units: "second=12.5", price: "0.125"},
		{name: "by the minute, in seconds", route: gateway.Route{Rates: rates(t, "0.06 per minute")}, units: "second=90", price: "0.09"},
		{name: "by the second, in minutes", route: gateway.Route{Rates: rates(t, "0.001 per second")}, units: "minutes=1.5", price: "0.09"},
		{name: "in two units", route: gateway.Route{Rates: rates(t, "0.001 per second")}, units: "minute=1 second=30", price: "0.09"},
		{name: "a call", route: gateway.Route{Rates: rates(t, "0.1 per call")}, units: "call=3", price: "0.3"},
		{name: "a unit of the provider's own", route: counted(t), units: "rows=4", price: "0.04"},
		{name: "a unit without a price", route: gateway.Route{Rates: rates(t, "0.01 per second")}, units: "page=1", code: "invalid_request", field: "units.page"},
		{name: "an unknown unit", route: gateway.Route{Rates: rates(t, "0.01 per second")}, units: "furlong=1", code: "invalid_request", field: "units.furlong"},
		{name: "tokens of any kind", route: gateway.Route{Rates: rates(t, "0.01 per token")}, units: "token=1", code: "invalid_request", field: "units.token"},
		{name: "tokens", route: gateway.Route{Rates: rates(t, "0.01 per token")}, units: "input=10 output=5", price: "0.15"},
		{name: "more than there can be", route: gateway.Route{Rates: rates(t, "1000 per hour")}, units: "hour=1000000000", code: "invalid_request", field: "units.hour"},
		{name: "more than an amount", route: gateway.Route{Rates: rates(t, "1000 per second")}, units: "second=1000000000", code: "invalid_request", field: "units"},
		{name: "a limit of the provider's", route: gateway.Route{Rates: rates(t, "0.01 per second"), MaxCharge: amount("0.05")}, units: "second=12.5", price: "0.05"},
		{name: "a model", route: gateway.Route{Tariff: reportTariff(t)}, model: "m", units: "input=10 output=10", price: "0.03"},
		{name: "a long prompt", route: gateway.Route{Tariff: reportTariff(t)}, model: "m", units: "input=100", price: "0.3"},
		{name: "a service tier", route: gateway.Route{Tariff: reportTariff(t)}, model: "m", tier: "flex", units: "output=10", price: "0.01"},
		{name: "an unknown tier", route: gateway.Route{Tariff: reportTariff(t)}, model: "m", tier: "fast", units: "output=10", code: "no_price"},
		{name: "an unknown model", route: gateway.Route{Tariff: reportTariff(t)}, model: "n", units: "output=10", code: "no_price"},
		{name: "no model", route: gateway.Route{Tariff: reportTariff(t)}, units: "output=10", code: "no_price"},
		{name: "a tool", route: gateway.Route{Tariff: reportTariff(t)}, units: "tool:search_web=3", price: "0.06"},
		{name: "an unknown tool", route: gateway.Route{Tariff: reportTariff(t)}, units: "tool:rm=1", code: "invalid_request", field: "units.tool:rm"},
		{name: "an unknown tool beside a known one", route: gateway.Route{Tariff: reportTariff(t)}, units: "tool:rm=1 tool:search=1", code: "invalid_request", field: "units.tool:rm"},
		{name: "tiers", route: gateway.Route{Name: "/jobs", Rates: tiers}, units: "second=15", price: "0.105"},
		{name: "a route that only counts", route: gateway.Route{Rates: rates(t, "0.01 per second"), Shadow: true}, units: "second=1", code: "invalid_request", field: "route"},
		{name: "a judged route", route: gateway.Route{Rates: rates(t, "0.01 per call"), Quality: &gateway.Quality{}}, units: "call=1", code: "invalid_request", field: "route"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openShopAt(t, time.Now, escrow.Rules{}, gateway.Options{}, test.route, nil)
			c, err := s.report(&test.route, escrow.ReportOrder{Model: test.model, ServiceTier: test.tier, Units: units(test.units), Reference: "one"})
			if test.code != "" {
				refusal := (*ledger.Refusal)(nil)
				if !errors.As(err, &refusal) || string(refusal.Outcome) != test.code || refusal.Fields["field"] != test.field {
					t.Fatalf("refused with %v (%v), want %s of %q", err, refusal, test.code, test.field)
				}
				return
			}
			must(t, err)
			want(t, "price", c.Amount, test.price)
			for class, n := range c.Units {
				if _, priced := c.UnitPrices[class]; !priced && n != "0" {
					t.Errorf("%s %s has no price in %v", n, class, c.UnitPrices)
				}
			}
		})
	}
}

// TestReportedWorkCostsWhatTheSameCallCost: the units of a call's charge, reported as work, cost the same and have the same prices.
func TestReportedWorkCostsWhatTheSameCallCost(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: reportTariff(t), Shared: shared(t, "*")}, chat(false))
	good := sold{request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`}
	good.request = strings.Replace(good.request, "%t", "false", 1)
	_, body, complete := good.ask(t, s, false)
	if !complete {
		t.Fatalf("cut: %s", body)
	}
	charges, _, err := s.book.Charges(escrow.ChargeFilter{}, escrow.Page{})
	must(t, err)
	call := charges[0]
	c, err := s.report(&gateway.Route{Tariff: reportTariff(t)}, escrow.ReportOrder{Model: "m", Units: call.Units, Reference: "the same"})
	must(t, err)
	if call.Amount == 0 || c.Amount != call.Amount || fmt.Sprint(c.Units, c.UnitPrices) != fmt.Sprint(call.Units, call.UnitPrices) {
		t.Errorf("the call cost %s, by %v at %v; the report costs %s, by %v at %v", call.Amount, call.Units, call.UnitPrices, c.Amount, c.Units, c.UnitPrices)
	}
}

// TestReportedWorkCountsInTiers: what is reported and what is called count together.
func TestReportedWorkCountsInTiers(t *testing.T) {
	t.Parallel()
	route := gateway.Route{Name: "/jobs", Rates: tieredRates(t, tiersOf(t, "0.01 per second", "after 10 0.001", "each day"))}
	s := openShopAt(t, func() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }, escrow.Rules{}, gateway.Options{}, route, nil)
	for i, price := range []string{"0.08", "0.026", "0.008"} {
		c, err := s.report(&route, escrow.ReportOrder{Units: units("second=8"), Reference: fmt.Sprint(i)})
		must(t, err)
		want(t, fmt.Sprint("report ", i), c.Amount, price)
	}
}

// TestReportedWorkOfAPlan: what a plan includes pays for it, and beyond that the overage.
func TestReportedWorkOfAPlan(t *testing.T) {
	t.Parallel()
	included := pricing.Measure{N: 1, Unit: "minute"}
	plan := &gateway.Subscription{
		Plan: escrow.Plan{
			Payee: "acme", Name: "gpu", Price: amount("0.5"), Period: 168 * time.Hour, Included: escrow.Micro, Unit: "minute", Overage: true, OveragePrice: "0.1 per minute",
		},
		Included: &included, Rates: rates(t, "0.1 per minute"),
	}
	route := gateway.Route{Payment: plan, Rates: plan.Rates}
	s := openShopAt(t, time.Now, escrow.Rules{Plans: []escrow.Plan{plan.Plan}, MinEscrow: 1}, gateway.Options{}, route, nil)
	_, err := s.report(&route, escrow.ReportOrder{Plan: "gpu", Units: units("second=30"), Reference: "early"})
	if !escrow.IsRefusal(err, escrow.SubscriptionRequired) {
		t.Fatal(err)
	}
	must(t, s.do(func(tx *escrow.Tx) error {
		_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "gpu"})
		return err
	}))
	for i, test := range []struct{ units, price, left string }{{"second=30", "0", "0.5"}, {"second=60", "0.05", "0"}, {"minute=1", "0.1", "0"}} {
		c, err := s.report(&route, escrow.ReportOrder{Plan: "gpu", Units: units(test.units), Reference: fmt.Sprint(i)})
		must(t, err)
		want(t, "price of "+test.units, c.Amount, test.price)
		if left := escrow.Units(c.QuotaLeft); left != test.left || c.Pattern != "subscription" {
			t.Errorf("%s: %s left, want %s; pattern %s", test.units, left, test.left, c.Pattern)
		}
	}
	_, err = s.report(&route, escrow.ReportOrder{Plan: "gpu", Units: units("call=1"), Reference: "unknown"})
	if !escrow.IsRefusal(err, escrow.InvalidRequest) {
		t.Errorf("a unit that the plan does not count: %v", err)
	}
}
