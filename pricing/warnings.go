package pricing

import (
	"fmt"
	"slices"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Warnings returns what is allowed in a list of prices but is probably a mistake. Each warning is one sentence.
func Warnings(prices []Price, counts ...string) []string {
	var list []string
	for _, p := range prices {
		u, err := findUnit(p.Unit, counts)
		if err != nil || !slices.ContainsFunc(u.priced, func(c meter.Class) bool { return slices.Contains(tokenClasses, c) }) {
			continue
		}
		per := decimal.NewFromInt(max(p.Per, 1))
		if p.Amount.GreaterThan(per) {
			list = append(list, fmt.Sprintf("%s costs more than 1 per token: did you mean %s %s per 1M tokens?", p.Unit, p.Unit, p.Amount))
		}
	}
	return list
}

// Counts reports whether the measure counts anything that has a price in r, so that it can be full.
func (m Measure) Counts(r *Rates, names ...string) bool {
	u, err := findUnit(m.Unit, names)
	return err != nil || slices.ContainsFunc(u.whole, r.Uses)
}
