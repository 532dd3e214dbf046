package gateway

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// bill is a usage with its price: the amount, and the units and prices from which it comes, or the provider's cost and the markup.
type bill struct {
	amount       ledger.Amount
	units        map[string]string
	prices       map[string]string
	cost, markup string
	uses         []pricing.Use // what it adds to the counters of the period
	tiered       bool          // a price depends on those counters
}

// bill prices a usage. If the provider states a cost, that cost is charged, and otherwise the prices. Some providers state a cost of 0 in
// each event until the last one, so 0 does not count as a cost in an answer that was cut. used returns what was used before the call; if it
// is nil, prices with tiers are those of the most expensive tier.
func (c *counting) bill(usage meter.Usage, cut bool, used pricing.Used) (bill, error) {
	b, err := c.priceUsage(usage, used)
	if usage.Cost == "" || !c.statesCost() {
		return b, err
	}
	markup := c.route.Cost.Markup
	usage.Cost = pricing.ScaleCost(usage.Cost, c.route.Cost.Scale)
	nano, refused := pricing.MarkupCost(usage.Cost, markup)
	if refused != nil {
		return b, errors.Join(err, refused)
	}
	cost, _ := pricing.ParseAmount(usage.Cost)
	if cut && cost.IsZero() {
		return b, err
	}
	if b.amount > 0 && nano/absurd >= int64(b.amount) && nano > absurd*int64(b.amount) {
		return b, errors.Join(err, errAbsurdCost)
	}
	return bill{amount: ledger.Amount(nano), units: b.units, cost: cost.String(), markup: markup.String()}, nil
}

// absurd is how many times the price a stated cost may be. A larger cost is taken for an error of units (cents, ticks), and the prices are
// charged.
const absurd = 1000

// errAbsurdCost marks a charge as suspect: the provider states a cost that is far above what the usage can cost.
var errAbsurdCost = errors.New("the stated cost is more than a thousand times the price")

// priceUsage prices a usage. Usage of another model than the requested one is priced as that model's, and listed in the bill as
// CLASS@MODEL.
func (q *asked) priceUsage(usage meter.Usage, used pricing.Used) (bill, error) {
	b := bill{units: make(map[string]string), prices: make(map[string]string)}
	usage, failed := q.matched(usage)
	if tariff := q.tariff; tariff != nil {
		usage.Units = maps.Clone(usage.Units)
		for _, pass := range usage.Beside {
			rates, ok, err := ofPass(tariff, pass)
			failed = errors.Join(failed, err)
			if ok {
				failed = errors.Join(failed, b.add(rates, meter.Usage{Units: pass.Units}, used, "@"+pass.Model))
			} else {
				failed = errors.Join(failed, errNoPriceBeside)
			}
		}
		main := q.dearer(usage)
		for _, pass := range usage.Passes {
			rates, ok, err := ofPass(tariff, pass)
			failed = errors.Join(failed, err)
			if !ok && q.call.AnyModel {
				rates, failed = q.rates, errors.Join(failed, errNoPriceBeside)
			} else if !ok {
				continue
			}
			if rates == main || q.call.Talks && !costsMore(rates, main, meter.Usage{Units: pass.Units}) {
				continue
			}
			for class, quantity := range pass.Units {
				usage.Units[class] = max(0, usage.Units[class]-quantity)
			}
			failed = errors.Join(failed, b.add(rates, meter.Usage{Units: pass.Units, PromptTokens: usage.PromptTokens, ServiceTier: usage.ServiceTier}, used, "@"+pass.Model))
		}
	}
	return b, errors.Join(failed, b.add(q.dearer(usage), usage, used, ""))
}

// matched returns a usage in which each result of a tool call is of a tool. If nobody knows of which, it is of the most expensive that it
// may be of. The error marks the charge as suspect.
func (q *asked) matched(usage meter.Usage) (meter.Usage, error) {
	if usage.Unmatched == 0 {
		return usage, nil
	}
	price := func(tool string) int64 {
		nano, _ := q.rates.Due(meter.Usage{Tools: map[string]int64{tool: 1}, Units: meter.Units{meter.ToolCall: meter.Whole(1)}})
		return nano
	}
	dearestFirst := slices.SortedFunc(slices.Values(usage.Waiting), func(a, b string) int { return cmp.Compare(price(b), price(a)) })
	n := min(int(usage.Unmatched), len(dearestFirst))
	tools := make(map[string]int64, len(usage.Tools)+n)
	maps.Copy(tools, usage.Tools)
	usage.Tools = tools
	for _, tool := range dearestFirst[:n] {
		usage.Tools[tool]++
	}
	if n < len(dearestFirst) && price(dearestFirst[0]) != price(dearestFirst[len(dearestFirst)-1]) {
		return usage, errUnmatched
	}
	return usage, nil
}

// errUnmatched marks a charge as suspect: a result is of one of several tools with different prices.
var errUnmatched = errors.New("nobody knows of which tool a result is")

// ofPass returns the prices of a pass. Where nobody knows which models it is of, they are those of the most expensive one.
func ofPass(tariff *pricing.Tariff, pass meter.Pass) (rates *pricing.Rates, ok bool, err error) {
	if pass.Model == meter.FurtherModels {
		rates, ok = tariff.Dearest()
		return rates, ok, errManyModels
	}
	rates, ok = tariff.For(pass.Model)
	return rates, ok, nil
}

// dearer returns the prices of the requested model or those of the model that the answer names, whichever make the usage more expensive.
// Otherwise a caller could name a cheap model and get the answer of an expensive one. If the answer names no model that has a price, it may
// come from any of those that the request names. What is answered over a connection, by one model after another, may be of
// any that was named there.
func (q *asked) dearer(usage meter.Usage) *pricing.Rates {
	if q.tariff == nil || usage.Model == q.call.Model && usage.Model != "" && !q.call.Talks {
		return q.rates
	}
	answered, priced := q.tariff.For(usage.Model)
	if priced && usage.Model != "" && (q.call.AnyModel || q.call.Talks) && q.call.Model == "" {
		return answered // q.rates are those of the most expensive model of the tariff
	}
	dearest := q.rates
	may := []string{usage.Model}
	switch {
	case usage.Model == "" || !priced:
		may = q.call.Models
	case q.call.Talks:
		may = append(may, q.call.Models...)
	}
	for _, model := range may {
		if rates, ok := q.tariff.For(model); ok && rates != dearest && costsMore(rates, dearest, usage) {
			dearest = rates
		}
	}
	return dearest
}

// costsMore reports whether a usage costs more at some prices than at others.
func costsMore(rates, than *pricing.Rates, usage meter.Usage) bool {
	most, _ := than.Due(usage)
	due, err := rates.Due(usage)
	return err == nil && due > most
}

// add prices a part of a usage. suffix is added to the names of its classes in the bill.
func (b *bill) add(rates *pricing.Rates, part meter.Usage, used pricing.Used, suffix string) error {
	priced, err := rates.Price(part, b.after(used))
	if !rates.PricesTier(part.ServiceTier) {
		err = errors.Join(err, errNoPriceTier)
	}
	sum, overflow := b.amount.Add(ledger.Amount(priced.Nano))
	b.amount = sum
	b.uses, b.tiered = append(b.uses, priced.Uses...), b.tiered || rates.HasTiers()
	for class, price := range priced.UnitPrices {
		b.prices[string(class)+suffix] = price
	}
	for class, quantity := range priced.Units {
		if _, charged := priced.UnitPrices[class]; charged || !everyAnswerHas(class) {
			b.units[string(class)+suffix] = quantity.String()
		}
	}
	return errors.Join(err, overflow)
}

// after is what was used before the next part of a usage: before the call, and by the parts of the call so far.
func (b *bill) after(used pricing.Used) pricing.Used {
	if used == nil {
		return nil
	}
	return func(c pricing.Counter) meter.Quantity {
		sum := used(c)
		for _, use := range b.uses {
			if use.Counter == c {
				sum += use.Quantity
			}
		}
		return sum
	}
}

// errNoPriceBeside marks a charge as suspect: the answer used another model besides the requested one, and that model has no price.
var errNoPriceBeside = errors.New("no price for another model that was used besides the requested one")

// errManyModels marks a charge as suspect: the answer names so many models that some are charged at the prices of the most expensive one.
var errManyModels = errors.New("more models have answered than are told apart")

// errNoPriceTier marks a charge as suspect: the answer states a service tier or a speed without a price, so it is charged at the most
// expensive prices.
var errNoPriceTier = errors.New("no price for the service tier that the answer states")

// everyAnswerHas reports whether a class can be counted in any answer. Such a class is listed in a bill only if it is charged.
func everyAnswerHas(class meter.Class) bool {
	return class == meter.Calls || class == meter.Event || class == meter.Byte
}
