package gateway

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
	"github.com/tallygate/tallygate/pricing"
)

// Reported prices work that the payee of a route reports, which did not pass the gateway. It returns what the route's meter would have ordered and
// settled for one call with these units. See [escrow.Tx.Report].
func (g *Gateway) Reported(route *Route, o escrow.ReportOrder) (order escrow.CallOrder, s escrow.Settlement, err error) {
	q, refusal := g.reported(route, o)
	if refusal != nil {
		return order, s, refusal
	}
	usage, refusal := q.reportedUsage(o)
	if refusal != nil {
		return order, s, refusal
	}
	order = escrow.CallOrder{By: q.payer, Payee: route.Payee, Route: route.Name, Pattern: Pattern(q.rates), Model: o.Model}
	route.payment().order(q, &order)
	price := func(used pricing.Used) (bill, error) { return q.priceUsage(usage, used) }
	b, err := price(nil)
	if err != nil {
		return order, s, refuse(escrow.InvalidRequest, "these units cost more than an amount can be: "+err.Error(), "field", "units")
	}
	s = escrow.Settlement{Amount: b.amount, Units: b.units, UnitPrices: b.prices}
	if most := route.MaxCharge; most > 0 {
		s.Amount = min(s.Amount, most)
	}
	if plan, is := route.payment().(*Subscription); is {
		s.Quota, s.Over, s.OverAfter = plan.used(usage.Units), plan.over, plan.overAfter
	}
	if b.tiered && route.payment().charges() {
		s.Price = q.tiered(price, false, route.MaxCharge)
	}
	return order, s, nil
}

// reported is the call that a report stands for, with its prices.
func (g *Gateway) reported(route *Route, o escrow.ReportOrder) (*asked, *ledger.Refusal) {
	switch {
	case route.Shadow:
		return nil, refuse(escrow.InvalidRequest, "the route only counts, and charges nothing (enforce off)", "field", "route")
	case route.Quality != nil:
		return nil, refuse(escrow.InvalidRequest, "the price depends on the quality of an answer, which a report does not have", "field", "route")
	}
	q := &asked{
		arrival: &arrival{gateway: g, route: route, payer: escrow.Actor{Agent: o.Payer}},
		call:    &meter.Call{Format: wire.Generic, Model: o.Model, ServiceTier: o.ServiceTier}, rates: route.Rates, dear: route.Rates,
	}
	for name := range o.Units {
		if tool, is := strings.CutPrefix(name, toolPrefix); is {
			q.call.Tools = append(q.call.Tools, tool)
		}
	}
	if route.Tariff == nil {
		return q, nil
	}
	q.tariff = route.Tariff.Under(o.Payer, g.book.Now())
	if refusal := q.findRates(); refusal != nil {
		return nil, refusal
	}
	return q, nil
}

// toolPrefix begins the names of units that are calls of one tool, as in charges.
const toolPrefix = "tool:"

// reportedUsage is the usage that a report states. Each of its units must have a price, or be what the plan includes, so that nothing is free by
// accident.
func (q *asked) reportedUsage(o escrow.ReportOrder) (meter.Usage, *ledger.Refusal) {
	usage := meter.Usage{Units: meter.Units{}, Model: o.Model, ServiceTier: o.ServiceTier, Source: meter.Stated}
	var counts []string
	for _, count := range q.route.Counts {
		counts = append(counts, string(count.Class))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Units)) {
		n, err := meter.ParseQuantity(o.Units[name])
		if err != nil {
			return usage, refuse(escrow.InvalidRequest, err.Error(), "field", "units."+name)
		}
		if tool, is := strings.CutPrefix(name, toolPrefix); is {
			if !q.rates.PricesTool(tool) {
				return usage, q.unknownUnit(name, "the tool "+strconv.Quote(tool)+" has no price")
			}
			if usage.Tools == nil {
				usage.Tools = map[string]int64{}
			}
			usage.Tools[tool] = n.Ceil()
			usage.Units.Add(meter.ToolCall, meter.Whole(n.Ceil()))
			continue
		}
		units, err := pricing.UnitsOf(name, n, counts...)
		if err != nil {
			return usage, q.unknownUnit(name, err.Error())
		}
		for class, quantity := range units {
			if !q.counts(class) {
				return usage, q.unknownUnit(name, strconv.Quote(name)+" has no price")
			}
			if before := usage.Units[class]; before+quantity > meter.MaxQuantity {
				return usage, refuse(escrow.InvalidRequest, "units: more "+name+" than can be counted", "field", "units."+name)
			}
			usage.Units[class] += quantity
		}
	}
	if _, stated := usage.Units[meter.Calls]; !stated && q.counts(meter.Calls) {
		usage.Units[meter.Calls] = meter.Whole(1) // as a meter counts it
	}
	usage.PromptTokens = pricing.Measure{N: 1, Unit: "input_token"}.In(usage.Units).Ceil()
	return usage, nil
}

// counts reports whether units of a class have a price, or are what the plan includes. A plan that includes everything counts any class.
func (q *asked) counts(class meter.Class) bool {
	plan, is := q.route.payment().(*Subscription)
	return q.rates.Prices(class) || is && (plan.Included == nil || plan.counts(class))
}

// unknownUnit refuses a unit, and names those that have a price.
func (q *asked) unknownUnit(name, why string) *ledger.Refusal {
	var priced []string
	for _, class := range q.rates.Charged() {
		priced = append(priced, string(class))
	}
	return refuse(escrow.InvalidRequest, "units: "+why+" here; these have: "+strings.Join(priced, ", "), "field", "units."+name)
}
