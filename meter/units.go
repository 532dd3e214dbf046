package meter

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Quantity is an amount of units in millionths of a unit, so that 1.25 seconds and 34 tokens are both exact integers.
type Quantity int64

// MaxQuantity is the largest quantity that a response may state. A larger one is absurd, and is reduced to it.
const MaxQuantity Quantity = 1e18

const unit = 1_000_000

// Whole returns n whole units, limited to the range from 0 to [MaxQuantity].
func Whole(n int64) Quantity {
	switch {
	case n < 0:
		return 0
	case n > int64(MaxQuantity)/unit:
		return MaxQuantity
	}
	return Quantity(n * unit)
}

// Ceil returns q in whole units, rounded up.
func (q Quantity) Ceil() int64 {
	if q > math.MaxInt64-unit {
		return math.MaxInt64 / unit
	}
	return (int64(q) + unit - 1) / unit
}

// String writes q as the shortest decimal: "34", "1.25".
func (q Quantity) String() string {
	whole, frac := int64(q)/unit, int64(q)%unit
	if frac == 0 {
		return strconv.FormatInt(whole, 10)
	}
	digits := strconv.FormatInt(unit+frac, 10)[1:]
	return strconv.FormatInt(whole, 10) + "." + strings.TrimRight(digits, "0")
}

// Units are quantities by class. A missing class is the same as one of zero.
type Units map[Class]Quantity

// Add adds q units of class c. The sum is at most [MaxQuantity].
func (u Units) Add(c Class, q Quantity) {
	if q > 0 {
		u[c] = min(u[c]+min(q, MaxQuantity), MaxQuantity)
	}
}

// String writes the units that were used, in the order of their names: "input=12,output=34".
func (u Units) String() string {
	names := make([]string, 0, len(u))
	for c, q := range u {
		if q != 0 {
			names = append(names, string(c))
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name + "=" + u[Class(name)].String())
	}
	return b.String()
}

// ParseQuantity reads the text that [Quantity.String] writes.
func ParseQuantity(s string) (Quantity, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if len(frac) > 6 {
		return 0, fmt.Errorf("quantity %q: more than six digits after the point", s)
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("quantity %q: expected a decimal such as 34 or 1.25", s)
	}
	return Quantity(n), nil
}

// DecimalQuantity reads a number from JSON or from a header: "34", "1.25", "1e3". Digits beyond the millionth are rounded up. If s is not a
// quantity, ok is false: q is then 0 for a negative number and for other text, and [MaxQuantity] for a number that is too large.
func DecimalQuantity(s string) (q Quantity, ok bool) {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(s), "e")
	shift := 0
	if scientific {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift > 1000 || shift < -1000 {
			return 0, false
		}
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	end := len(whole) + shift + 6 // digits[:end] are the millionths
	if missing := end - len(digits); missing > 0 {
		digits += strings.Repeat("0", missing)
	}
	end = max(end, 0)
	millionths := strings.TrimLeft(digits[:min(end, len(digits))], "0")
	if len(millionths) > 19 || len(millionths) == 19 && millionths > "1"+strings.Repeat("0", 18) {
		return MaxQuantity, false
	}
	n, _ := strconv.ParseInt("0"+millionths, 10, 64)
	if strings.Trim(digits[end:], "0") != "" {
		n++
	}
	return min(Quantity(n), MaxQuantity), Quantity(n) <= MaxQuantity
}
