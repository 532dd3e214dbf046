package gateway

import (
	"maps"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// Prices with tiers depend on what the payer has used in the period. Holds and quotes use the most expensive tier. A call is priced when it
// is settled, in the same operation that counts its use.

// booksCounter returns the books' counter for a counter of prices. Prices of a route without a tariff are counted for the route.
func (q *asked) booksCounter(c pricing.Counter) escrow.Counter {
	if q.tariff == nil {
		c.Name = q.route.Name + " " + c.Name
	}
	return escrow.Counter{Name: c.Name, Each: c.Each}
}

// usedBefore returns what the payer has used so far, according to the books. What can't be read counts as 0.
func (q *asked) usedBefore(c pricing.Counter) meter.Quantity {
	units, err := q.gateway.book.Used(q.payer.Agent, q.route.Payee, q.booksCounter(c))
	if err != nil {
		return 0
	}
	return meter.Quantity(units)
}

// priceTiers lets the books price a settlement with tiers. limit is the most that it may cost; 0: no limit.
func (c *counting) priceTiers(s *escrow.Settlement, usage meter.Usage, cut bool, limit ledger.Amount) {
	usage.Units = maps.Clone(usage.Units)
	s.Price = c.tiered(func(used pricing.Used) (bill, error) { return c.bill(usage, cut, used) }, usage.Suspect, limit)
}

// tiered returns the function by which the books price a call with tiers. suspect is whether its usage is absurd.
func (q *asked) tiered(price func(pricing.Used) (bill, error), suspect bool, limit ledger.Amount) func(func(escrow.Counter) int64) escrow.Priced {
	return func(used func(escrow.Counter) int64) escrow.Priced {
		b, err := price(func(of pricing.Counter) meter.Quantity { return meter.Quantity(used(q.booksCounter(of))) })
		p := escrow.Priced{Amount: b.amount, Units: b.units, UnitPrices: b.prices, Suspect: err != nil}
		if limit > 0 && p.Amount > limit {
			p.Amount = limit
		}
		if suspect {
			return p // an absurd usage makes nothing cheaper
		}
		for _, use := range b.uses {
			of := q.booksCounter(use.Counter)
			p.Uses = append(p.Uses, escrow.Use{Counter: of, Units: int64(use.Quantity)})
		}
		return p
	}
}
