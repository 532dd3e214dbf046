package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Amount is money in nanos: 10^-9 of one unit of the ledger's currency. It holds up to about 9.2 billion units.
type Amount int64

// Unit is one whole unit of the currency, in nanos.
const Unit Amount = 1_000_000_000

// maxAmountText is the longest text that ParseAmount reads, in bytes. An exact amount with binary-float noise is shorter.
const maxAmountText = 128

var (
	// ErrInexact is returned for a decimal that has more than nine digits after the point and is not merely binary-float noise.
	ErrInexact = errors.New("amount has more than nine decimal places")
	// ErrOverflow is returned when a result does not fit into an Amount.
	ErrOverflow = errors.New("amount is beyond the ledger's range")
	// ErrAmountSyntax is returned for a text that is not a decimal number.
	ErrAmountSyntax = errors.New("amount is not a decimal number")
)

// ParseAmount reads a decimal such as "0.001", "-5" or "2.6e-05". An amount with more than nine digits after the point is rounded if
// rounding changes it by less than 10^-12 of its value, since such digits are binary-float noise ("2.6000000000000002e-05"). Otherwise
// it is refused with [ErrInexact]. ParseAmount accepts zero and negative amounts; the caller decides whether they make sense.
func ParseAmount(s string) (Amount, error) {
	if s == "" || len(s) > maxAmountText {
		return 0, fmt.Errorf("amount %.40q: %w; write it like 0.001", s, ErrAmountSyntax)
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return 0, fmt.Errorf("amount %q: %w; write it like 0.001", s, ErrAmountSyntax)
	}
	return AmountFromDecimal(d)
}

// AmountFromDecimal is like [ParseAmount], for a number that is already a decimal.
func AmountFromDecimal(d decimal.Decimal) (Amount, error) {
	if d.IsZero() {
		return 0, nil
	}
	// The range is checked by the position of the leading digit, before the number is scaled, so that 1e999999999 costs nothing.
	leading := int64(d.NumDigits()) + int64(d.Exponent())
	if leading > 11 {
		return 0, fmt.Errorf("amount of about 1e%d: %w (9223372036.854775807)", leading-1, ErrOverflow)
	}
	if leading < -20 {
		return 0, fmt.Errorf("amount of about 1e%d: %w", leading-1, ErrInexact)
	}
	nanos := d.Shift(9)
	rounded := nanos.Round(0)
	if moved := nanos.Sub(rounded).Abs(); moved.Shift(12).GreaterThanOrEqual(nanos.Abs()) {
		return 0, fmt.Errorf("amount %s: %w", d, ErrInexact)
	}
	if !rounded.BigInt().IsInt64() {
		return 0, fmt.Errorf("amount %s: %w (9223372036.854775807)", d, ErrOverflow)
	}
	return Amount(rounded.IntPart()), nil
}

// Decimal returns the amount in units of the currency.
func (a Amount) Decimal() decimal.Decimal { return decimal.New(int64(a), -9) }

// String returns the shortest decimal: "5", "0.001", "-0.5".
func (a Amount) String() string {
	var room [24]byte // enough for the longest: -9223372036.854775808
	text, magnitude := room[:0], uint64(a)
	if a < 0 {
		text, magnitude = append(text, '-'), -magnitude
	}
	text = strconv.AppendUint(text, magnitude/uint64(Unit), 10)
	nanos := magnitude % uint64(Unit)
	if nanos == 0 {
		return string(text)
	}
	point := len(text)
	text = strconv.AppendUint(text, uint64(Unit)+nanos, 10) // ten digits; the point replaces the first of them
	text[point] = '.'
	return string(bytes.TrimRight(text, "0"))
}

// Add returns a+b, or [ErrOverflow].
func (a Amount) Add(b Amount) (Amount, error) {
	sum := a + b
	if (sum > a) != (b > 0) && b != 0 {
		return 0, fmt.Errorf("%s + %s: %w", a, b, ErrOverflow)
	}
	return sum, nil
}

// Sub returns a-b, or [ErrOverflow].
func (a Amount) Sub(b Amount) (Amount, error) {
	difference := a - b
	if (difference < a) != (b > 0) && b != 0 {
		return 0, fmt.Errorf("%s - %s: %w", a, b, ErrOverflow)
	}
	return difference, nil
}

// MulDiv returns a*numerator/denominator, rounded down. It returns [ErrOverflow] if a is negative, if denominator is zero, or if the
// result does not fit.
func (a Amount) MulDiv(numerator, denominator uint64) (Amount, error) {
	if a < 0 || denominator == 0 {
		return 0, fmt.Errorf("%s * %d / %d: %w", a, numerator, denominator, ErrOverflow)
	}
	high, low := bits.Mul64(uint64(a), numerator)
	if high >= denominator {
		return 0, fmt.Errorf("%s * %d / %d: %w", a, numerator, denominator, ErrOverflow)
	}
	quotient, _ := bits.Div64(high, low, denominator)
	if quotient > math.MaxInt64 {
		return 0, fmt.Errorf("%s * %d / %d: %w", a, numerator, denominator, ErrOverflow)
	}
	return Amount(quotient), nil
}

// Minor returns the amount in the smallest units of a currency, or of an asset, that has some decimals. It is rounded up.
func (a Amount) Minor(decimals int) *big.Int {
	return a.Decimal().Shift(int32(decimals)).Ceil().BigInt()
}

// FromMinor returns a number of the smallest units of a currency that has some decimals as an amount. exact is false if the ledger can't
// hold that.
func FromMinor(units *big.Int, decimals int) (amount Amount, exact bool) {
	nanos := decimal.NewFromBigInt(units, int32(9-decimals))
	n := nanos.BigInt()
	return Amount(n.Int64()), nanos.IsInteger() && n.IsInt64()
}

// MarshalJSON writes the amount as a string, so that no reader parses it as a float.
func (a Amount) MarshalJSON() ([]byte, error) { return []byte(`"` + a.String() + `"`), nil }

// UnmarshalJSON reads a JSON string or number, both as decimal text. A null does not change the amount.
func (a *Amount) UnmarshalJSON(text []byte) error {
	s := string(text)
	if s == "null" {
		return nil
	}
	if strings.HasPrefix(s, `"`) {
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("amount %s: %w", text, err)
		}
	}
	parsed, err := ParseAmount(s)
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
