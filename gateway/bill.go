package gateway

import (
	"errors"
	"maps"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// bill is a usage, priced: the amount, the units, and the prices that it comes from, or the provider's cost and the markup.
type bill struct {
	amount       ledger.Amount
	units        map[string]string
	prices       map[string]string
	cost, markup string
	uses         []pricing.Use // what it adds to what was used in the period
	tiered       bool          // some price depends on that
}

// bill prices a usage at the cost that the provider states; where that is none, at the prices. Some providers state 0 in each event
// until the last one: in an answer that was cut that is no cost. used tells what was used before; nil: prices with tiers count at the
// dearest.
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

// absurd is how many times what the prices come to a stated cost is at most. A greater one is an error of units (cents, ticks), and
// the prices are charged.
const absurd = 1000

// errAbsurdCost marks a charge as suspect: the provider states a cost that is beyond anything that the usage can cost.
var errAbsurdCost = errors.New("the stated cost is more than a thousand times what the prices come to")

// priceUsage prices a usage. What ran on another model than the one that was asked for is priced as that model's; it stands in the
// bill as CLASS@MODEL.
func (q *asked) priceUsage(usage meter.Usage, used pricing.Used) (bill, error) {
	b := bill{units: make(map[string]string), prices: make(map[string]string)}
	var failed error
	if tariff := q.tariff; tariff != nil {
		usage.Units = maps.Clone(usage.Units)
		for _, pass := range usage.Beside {
			if rates, ok := tariff.For(pass.Model); ok {
				failed = errors.Join(failed, b.add(rates, meter.Usage{Units: pass.Units}, used, "@"+pass.Model))
			} else {
				failed = errNoPriceBeside
			}
		}
		main := q.dearer(usage)
		for _, pass := range usage.Passes {
			rates, ok := tariff.For(pass.Model)
			if !ok && q.call.AnyModel {
				rates, failed = q.rates, errNoPriceBeside
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

// dearer are the prices of the model that was asked for, or of the one that the answer says it comes from: those by which the usage
// costs more. A caller must not be served by a dear model for the price of a cheap one that it names. Where the answer names no model that
// has a price, it may come from any of those that the request names. What is answered over a connection, by one model after another, may be of
// any that was named there.
func (q *asked) dearer(usage meter.Usage) *pricing.Rates {
	if q.tariff == nil || usage.Model == q.call.Model && usage.Model != "" && !q.call.Talks {
		return q.rates
	}
	answered, priced := q.tariff.For(usage.Model)
	if priced && usage.Model != "" && (q.call.AnyModel || q.call.Talks) && q.call.Model == "" {
		return answered // q.rates are those of the dearest model that there is
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

// add prices a part of a usage; suffix tells its classes in the bill from those of other parts.
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

// after is what was used before the next part of a usage: before the call, and by its parts so far.
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

// errNoPriceBeside marks a charge as suspect: the answer used another model than the one that was asked for, and that one has
// no price.
var errNoPriceBeside = errors.New("no price for a model that was used beside the one that was asked for")

// errNoPriceTier marks a charge as suspect: the answer states a service tier or a speed without a price, and is charged at the dearest.
var errNoPriceTier = errors.New("no price for the service tier that the answer states")

// everyAnswerHas reports whether a class can be counted on any traffic: it stands in a bill only where it is charged.
func everyAnswerHas(class meter.Class) bool {
	return class == meter.Calls || class == meter.Event || class == meter.Byte
}
