package caddymodule

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
}

// priceUsage prices a usage. What ran on another model than the one that was asked for is priced as that model's; it stands in the
// bill as CLASS@MODEL.
func (c *call) priceUsage(usage meter.Usage) (bill, error) {
	b := bill{units: make(map[string]string), prices: make(map[string]string)}
	var failed error
	add := func(rates *pricing.Rates, part meter.Usage, suffix string) {
		nano, err := rates.Due(part)
		sum, overflow := b.amount.Add(ledger.Amount(nano))
		b.amount, failed = sum, errors.Join(failed, err, overflow)
		prices := rates.UnitPrices(part)
		for class, price := range prices {
			b.prices[string(class)+suffix] = price
		}
		for class, quantity := range rates.Quantities(part) {
			if _, priced := prices[class]; priced || !everyResponseHas(class) {
				b.units[string(class)+suffix] = quantity.String()
			}
		}
	}
	if c.meter.tariff != nil {
		usage.Units = maps.Clone(usage.Units)
		for _, pass := range usage.Beside {
			if rates, ok := c.meter.tariff.For(pass.Model); ok {
				add(rates, meter.Usage{Units: pass.Units}, "@"+pass.Model)
			} else {
				failed = errNoPriceBeside
			}
		}
		for _, pass := range usage.Passes {
			rates, ok := c.meter.tariff.For(pass.Model)
			if !ok || rates == c.rates {
				continue
			}
			for class, quantity := range pass.Units {
				usage.Units[class] = max(0, usage.Units[class]-quantity)
			}
			add(rates, meter.Usage{Units: pass.Units, PromptTokens: usage.PromptTokens}, "@"+pass.Model)
		}
	}
	add(c.rates, usage, "")
	return b, failed
}

// errNoPriceBeside marks a charge as suspect: the answer used another model than the one that was asked for, and that one has
// no price.
var errNoPriceBeside = errors.New("no price for a model that was used beside the one that was asked for")

// everyResponseHas reports whether a class can be counted on any traffic: it stands in a bill only where it is charged.
func everyResponseHas(class meter.Class) bool {
	return class == meter.Calls || class == meter.Event || class == meter.Byte
}
