package pricing

import (
	"fmt"
	"math/big"
	"slices"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// pieces are classes of which a call often has just one. The price of a call is rounded down to nanos once. So if the price of a piece were
// finer than a nano, every call would lose the same part of it: 0.0000000015 per call would always be charged as 0.000000001. Such a price
// is refused, or rounded up if it comes from a catalog. Of tokens, bytes and seconds a call has many, and all of them together lose less
// than a nano.
var pieces = []meter.Class{
	meter.Calls, meter.ToolCall, meter.WebSearch, meter.MapsSearch, meter.FileSearch, meter.CodeSession, meter.ContainerMinute, meter.Page, meter.SearchUnit,
	meter.AskedImage,
}

// ledgerDigits is the number of decimal digits of an amount in the ledger.
const ledgerDigits = 9

// checkDigits refuses the price of a piece that is finer than an amount in the ledger.
func (p Price) checkDigits(u unit) error {
	if p.isWhole(u) {
		return nil
	}
	q := p.roundedUp()
	return fmt.Errorf("%s is finer than the %d digits that the ledger keeps: each %s would be charged less than its price; use %s", p, ledgerDigits, u.word, q)
}

// isWhole reports whether one unit costs a whole number of nanos, or is not a piece.
func (p Price) isWhole(u unit) bool {
	if !slices.Contains(pieces, u.priced[0]) {
		return true
	}
	one := new(big.Rat).Mul(p.nanosPerMicro(u.scale), big.NewRat(micro, 1))
	return one.IsInt()
}

// roundedUp returns the price of one unit, rounded up to the ledger's digits.
func (p Price) roundedUp() Price {
	one := new(big.Rat).Mul(p.nanosPerMicro(1), big.NewRat(micro, 1))
	nanos, rest := new(big.Int).QuoRem(one.Num(), one.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		nanos.Add(nanos, big.NewInt(1))
	}
	return Price{Amount: decimal.NewFromBigInt(nanos, -ledgerDigits), Per: 1, Unit: p.Unit}
}

// charged returns the price of a catalog as it is charged: the price of a piece is rounded up to the ledger's digits.
func (p Price) charged() Price {
	if u, err := findUnit(p.Unit, nil); err == nil && !p.isWhole(u) {
		return p.roundedUp()
	}
	return p
}

// roundNanos rounds an amount that is not negative down, but never to zero: something with a price is not free, however little it is.
func roundNanos(r *big.Rat) (int64, error) {
	q := new(big.Int).Quo(r.Num(), r.Denom())
	if !q.IsInt64() {
		return maxNanos, ErrOverflow
	}
	if q.Sign() == 0 && r.Sign() > 0 {
		return 1, nil
	}
	return q.Int64(), nil
}
