package gateway

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

var (
	// ErrNoUsage is returned for a charge that is not the price of a usage: the capture of a hold, what was owed, and what a plan includes.
	ErrNoUsage = errors.New("the charge is not the price of a usage")
	// ErrNoPrice is returned for a charge of which the tariff does not price the model or the tool.
	ErrNoPrice = errors.New("the tariff has no price for it")
)

// Reprice returns what the usage that a charge records would cost under a tariff, and what it adds to the counters of prices with tiers. used
// says how much of a counter was used before. Who called and when are those of the charge, so the cases of the tariff (for, at) apply as they
// would have. The service tier is not in a charge: its prices are the normal ones.
func Reprice(t *pricing.Tariff, c escrow.Charge, used pricing.Used) (amount ledger.Amount, uses []pricing.Use, err error) {
	if _, owed := escrow.OwedFor(c.RequestID); owed || c.Pattern == escrow.CapturePattern || c.Plan != "" || len(c.Units) == 0 {
		return 0, nil, ErrNoUsage
	}
	t = t.Under(c.Payer, c.CreatedAt)
	parts, err := partsOf(c)
	if err != nil {
		return 0, nil, err
	}
	after := func(of pricing.Counter) meter.Quantity { // the parts before it count too
		n := used(of)
		for _, use := range uses {
			if use.Counter == of {
				n += use.Quantity
			}
		}
		return n
	}
	for _, model := range slices.Sorted(maps.Keys(parts)) {
		usage := pricing.UsageOf(parts[model])
		rates, err := ratesOf(t, c, model, usage)
		if err != nil {
			return 0, nil, err
		}
		priced, err := rates.Price(usage, after)
		if err != nil {
			return 0, nil, err
		}
		if amount, err = amount.Add(ledger.Amount(priced.Nano)); err != nil {
			return 0, nil, err
		}
		uses = append(uses, priced.Uses...)
	}
	return amount, uses, nil
}

// partsOf returns the units of a charge by the model that used them. What other models than the charge's have used has their names behind an @,
// see [bill.add].
func partsOf(c escrow.Charge) (map[string]meter.Units, error) {
	parts := map[string]meter.Units{}
	for name, text := range c.Units {
		q, err := meter.ParseQuantity(text)
		if err != nil {
			return nil, err
		}
		class, model := name, c.Model
		if !strings.HasPrefix(name, toolPrefix) {
			if of, other, found := strings.Cut(name, "@"); found {
				class, model = of, other
			}
		}
		if parts[model] == nil {
			parts[model] = meter.Units{}
		}
		parts[model].Add(meter.Class(class), q)
	}
	return parts, nil
}

// ratesOf returns the prices of a model. For the charge's own model they are those of the model that was asked for, if that one costs more, as
// for a call.
func ratesOf(t *pricing.Tariff, c escrow.Charge, model string, usage meter.Usage) (*pricing.Rates, error) {
	rates, ok := t.For(model)
	if model == meter.FurtherModels {
		rates, ok = t.Dearest()
	}
	if model == "" && !ok {
		rates, ok = t.ForTools()
	}
	if model == c.Model && c.AskedModel != "" {
		if asked, priced := t.For(c.AskedModel); priced && (!ok || costsMore(asked, rates, usage)) {
			rates, ok = asked, true
		}
	}
	if !ok {
		return nil, ErrNoPrice
	}
	for tool := range usage.Tools {
		if !rates.PricesTool(tool) && !rates.Prices(meter.Calls) {
			return nil, ErrNoPrice
		}
	}
	return rates, nil
}
