package pricing

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"

	"github.com/shopspring/decimal"
)

// Percent is a share that is added to an amount, as in `markup 20%`. In JSON it is "20%"; "20" and 20 are accepted too.
type Percent struct{ value decimal.Decimal }

var maxPercent = decimal.New(1, 6)

// ParsePercent reads "20%" or "20", from 0 to 1000000.
func ParsePercent(word string) (Percent, error) {
	d, err := ParseAmount(strings.TrimSuffix(word, "%"))
	if err != nil || d.GreaterThan(maxPercent) {
		return Percent{}, fmt.Errorf("percentage %q: use a decimal from 0%% to %s%%", word, maxPercent)
	}
	return Percent{d}, nil
}

// String writes "20%".
func (p Percent) String() string { return p.value.String() + "%" }

// IsZero reports whether nothing is added.
func (p Percent) IsZero() bool { return p.value.IsZero() }

// MarshalText writes "20%".
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalJSON reads "20%", "20" or 20.
func (p *Percent) UnmarshalJSON(data []byte) error {
	word := string(data)
	if strings.HasPrefix(word, `"`) {
		if err := json.Unmarshal(data, &word); err != nil {
			return err
		}
	}
	var err error
	*p, err = ParsePercent(word)
	return err
}

// onTop returns d plus the percentage of d, exactly.
func (p Percent) onTop(d decimal.Decimal) decimal.Decimal {
	return d.Add(d.Mul(p.value).Shift(-2))
}

// MarkupCost returns the price in nanos, rounded as in [Rates.Due], of a call whose cost the provider states (`cost header|json`). cost is
// a decimal as the provider wrote it. A cost that is negative, not a number, or absurd is refused.
func MarkupCost(cost string, markup Percent) (int64, error) {
	d, err := ParseAmount(cost)
	if err != nil {
		return 0, fmt.Errorf("provider's cost: %w", err)
	}
	return roundNanos(new(big.Rat).Mul(markup.onTop(d).Rat(), big.NewRat(nano, 1)))
}

// ScaleCost converts a cost that the provider states in units of scale to the currency: 37756000 in units of 1e-10 is 0.0037756. A scale of
// zero means no conversion.
func ScaleCost(cost string, scale decimal.Decimal) string {
	if scale.IsZero() {
		return cost
	}
	d, err := ParseAmount(cost)
	if err != nil {
		return cost // MarkupCost will refuse it
	}
	return d.Mul(scale).String()
}
