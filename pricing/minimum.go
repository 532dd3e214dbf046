package pricing

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// raise is the class in a charge for what a minimum adds to the price of the usage.
const raise meter.Class = "minimum"

// ParseMinimum reads the words A per call, which follow `minimum` in `minimum 0.001 per call`.
func ParseMinimum(args []string) (decimal.Decimal, error) {
	p, word, err := parsePer(args)
	if err != nil {
		return decimal.Decimal{}, fmt.Errorf("minimum: %w", err)
	}
	if p.Per != 1 || singular(word) != "call" {
		return decimal.Decimal{}, fmt.Errorf("minimum %s: expected A per call, as in minimum 0.001 per call", strings.Join(args, " "))
	}
	_, err = compileMinimum(p.Amount)
	return p.Amount, err
}

// compileMinimum returns a minimum in nanos.
func compileMinimum(amount decimal.Decimal) (int64, error) {
	p := Price{Amount: amount, Unit: string(meter.Calls)}
	if _, err := p.check(nil); err != nil {
		return 0, fmt.Errorf("minimum: %w", err)
	}
	nanos, err := roundNanos(amount.Shift(ledgerDigits).Rat())
	if err != nil {
		return 0, fmt.Errorf("minimum: %w", err)
	}
	return nanos, nil
}

// least is the least that a usage costs: the minimum for each call. While a call runs and is not counted yet, it is 0.
func (r *Rates) least(u *meter.Usage) (int64, error) {
	calls := u.Units[meter.Calls] / micro
	if r.minimum == 0 || calls <= 0 {
		return 0, nil
	}
	hi, lo := bits.Mul64(uint64(r.minimum), uint64(calls))
	if hi > 0 || lo > maxNanos {
		return maxNanos, ErrOverflow
	}
	return int64(lo), nil
}

// atLeast raises an amount to the least that the usage costs.
func (r *Rates) atLeast(u *meter.Usage, nano int64, err error) (int64, error) {
	least, overflow := r.least(u)
	if err = errors.Join(err, overflow); err != nil {
		return maxNanos, ErrOverflow
	}
	return max(nano, least), nil
}

// raiseUnits are the units by which a call is raised, and raiseWords their price. It is one unit, or a hundred if the price of one would be
// too large for a price.
func raiseUnits(by int64) meter.Quantity {
	if decimal.New(by, -ledgerDigits).GreaterThan(maxAmount) {
		return meter.Whole(100)
	}
	return meter.Whole(1)
}

func raiseWords(by int64) string {
	price := decimal.New(by, -ledgerDigits)
	if raiseUnits(by) > micro {
		price = price.Shift(-2)
	}
	return Price{Amount: price, Unit: string(meter.Calls)}.String()
}

// raised is what must be added to the price of the usage to reach the minimum.
func (r *Rates) raised(u *meter.Usage) int64 {
	least, err := r.least(u)
	if err != nil || least == 0 {
		return 0
	}
	nano, err := r.byPrices(u, down)
	if err != nil {
		return 0
	}
	return max(0, least-nano)
}
