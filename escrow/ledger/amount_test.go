package ledger_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger"
)

func TestParseAmount(t *testing.T) {
	for _, c := range []struct {
		text string
		want ledger.Amount
		err  error
	}{
		{"0", 0, nil},
		{"-0", 0, nil},
		{"5", 5e9, nil},
		{"+5", 5e9, nil},
		{"5.", 5e9, nil},
		{".5", 5e8, nil},
		{"-0.5", -5e8, nil},
		{"0.001", 1e6, nil},
		{"0.000000001", 1, nil},
		{"0.00000000100000000000", 1, nil},
		{"1e-9", 1, nil},
		{"1E3", 1e12, nil},
		{"0e1000", 0, nil},
		{"2.6000000000000002e-05", 26000, nil},
		{"0.30000000000000004", 3e8, nil},
		{"0.1999999999999999999999999", 2e8, nil},
		{"9223372036.854775807", math.MaxInt64, nil},
		{"-9223372036.854775808", math.MinInt64, nil},
		{"9223372036.854775808", 0, ledger.ErrOverflow},
		{"-9223372036.854775809", 0, ledger.ErrOverflow},
		{"1e11", 0, ledger.ErrOverflow},
		{"1e1000", 0, ledger.ErrOverflow},
		{"1e999999999", 0, ledger.ErrAmountSyntax},
		{"0.0000000001", 0, ledger.ErrInexact},
		{"0.0000000015", 0, ledger.ErrInexact},
		{"1.0000000001", 0, ledger.ErrInexact},
		{"1.00000000001", 0, ledger.ErrInexact},
		{"0.999999999999", 0, ledger.ErrInexact},
		{"0.9999999999991", 1e9, nil},
		{"1.0000000000009", 1e9, nil},
		{"1e-1000", 0, ledger.ErrInexact},
		{"", 0, ledger.ErrAmountSyntax},
		{" 5", 0, ledger.ErrAmountSyntax},
		{"5 ", 0, ledger.ErrAmountSyntax},
		{"5,0", 0, ledger.ErrAmountSyntax},
		{"0x5", 0, ledger.ErrAmountSyntax},
		{"NaN", 0, ledger.ErrAmountSyntax},
		{"Inf", 0, ledger.ErrAmountSyntax},
		{"-inf", 0, ledger.ErrAmountSyntax},
		{"--5", 0, ledger.ErrAmountSyntax},
		{"1e", 0, ledger.ErrAmountSyntax},
		{"1e99999999999", 0, ledger.ErrAmountSyntax},
		{"1_000", 0, ledger.ErrAmountSyntax},
		{"\u0665", 0, ledger.ErrAmountSyntax},
		{strings.Repeat("0", 200), 0, ledger.ErrAmountSyntax},
	} {
		got, err := ledger.ParseAmount(c.text)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v; want %d, %v", c.text, got, err, c.want, c.err)
		}
	}
}

func TestAmountString(t *testing.T) {
	for a, want := range map[ledger.Amount]string{
		0: "0", 1: "0.000000001", -1: "-0.000000001", 5e9: "5", 1e6: "0.001", -5e8: "-0.5", 12_340_000_000: "12.34",
		math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808",
	} {
		if got := a.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(a), got, want)
		}
		if back, err := ledger.ParseAmount(want); back != a || err != nil {
			t.Errorf("%q: %d, %v; want %d", want, back, err, int64(a))
		}
		if got := a.Decimal().String(); got != want {
			t.Errorf("%d as a decimal: %q, want %q", int64(a), got, want)
		}
	}
}

func TestAmountJSON(t *testing.T) {
	for _, c := range []struct {
		text string
		want ledger.Amount
		ok   bool
	}{
		{`"0.1"`, 1e8, true},
		{`0.1`, 1e8, true},
		{`1e-9`, 1, true},
		{`2.6000000000000002e-05`, 26000, true},
		{`"\u0030.1"`, 1e8, true},
		{`null`, 7, true},
		{`""`, 7, false},
		{`"x"`, 7, false},
		{`true`, 7, false},
		{`{}`, 7, false},
		{`[1]`, 7, false},
		{`9007199254740993e-9`, 9007199254740993, true}, // a float would lose the last digit
	} {
		got := ledger.Amount(7)
		if err := json.Unmarshal([]byte(c.text), &got); got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	text, err := json.Marshal(map[string]ledger.Amount{"a": 1_500_000_000})
	if string(text) != `{"a":"1.5"}` || err != nil {
		t.Errorf("marshalled: %s, %v", text, err)
	}
}

// TestAmountArithmetic compares the results with those of math/big.
func TestAmountArithmetic(t *testing.T) {
	edge := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MinInt64}))
	same := func(t *rapid.T, what string, got ledger.Amount, err error, want *big.Int) {
		if want.IsInt64() != (err == nil) || err == nil && int64(got) != want.Int64() {
			t.Fatalf("%s: %d, %v; want %s", what, int64(got), err, want)
		}
		if err != nil && !errors.Is(err, ledger.ErrOverflow) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := edge.Draw(t, "a"), edge.Draw(t, "b")
		x, y := big.NewInt(a), big.NewInt(b)
		sum, err := ledger.Amount(a).Add(ledger.Amount(b))
		same(t, "add", sum, err, new(big.Int).Add(x, y))
		difference, err := ledger.Amount(a).Sub(ledger.Amount(b))
		same(t, "sub", difference, err, new(big.Int).Sub(x, y))
		numerator, denominator := rapid.Uint64().Draw(t, "numerator"), rapid.Uint64Min(1).Draw(t, "denominator")
		product := new(big.Int).Mul(new(big.Int).Abs(x), new(big.Int).SetUint64(numerator))
		if a == math.MinInt64 {
			return
		}
		quotient, err := ledger.Amount(max(a, -a)).MulDiv(numerator, denominator)
		same(t, "muldiv", quotient, err, product.Div(product, new(big.Int).SetUint64(denominator)))
	})
	if _, err := ledger.Amount(1).MulDiv(1, 0); !errors.Is(err, ledger.ErrOverflow) {
		t.Errorf("division by zero: %v", err)
	}
	if _, err := ledger.Amount(-1).MulDiv(1, 1); !errors.Is(err, ledger.ErrOverflow) {
		t.Errorf("a negative amount: %v", err)
	}
}

// FuzzParseAmount: a parsed amount differs from the text by less than 10^-12 of it, and its String is parsed to the same amount.
func FuzzParseAmount(f *testing.F) {
	for _, seed := range []string{"0", "-5", "0.001", "2.6000000000000002e-05", "1e400", "NaN", "9223372036.854775807", "1e-2147483648", ".", "e5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ledger.ParseAmount(text)
		if err != nil {
			if a != 0 {
				t.Fatalf("%q: an error, and %d", text, a)
			}
			return
		}
		if back, err := ledger.ParseAmount(a.String()); back != a || err != nil {
			t.Fatalf("%q is %s, which is read as %s, %v", text, a, back, err)
		}
		want, err := decimal.NewFromString(text)
		if err != nil {
			t.Fatalf("%q is no decimal, and was read as %s", text, a)
		}
		moved := a.Decimal().Sub(want).Abs()
		if !moved.IsZero() && moved.Shift(12).GreaterThanOrEqual(want.Abs()) {
			t.Fatalf("%q was read as %s", text, a)
		}
	})
}

// TestMinor: amounts in the smallest units of currencies and assets of few and of many decimals.
func TestMinor(t *testing.T) {
	for _, c := range []struct {
		amount   ledger.Amount
		decimals int
		units    string
		back     ledger.Amount // of the units
	}{
		{5 * ledger.Unit, 2, "500", 5 * ledger.Unit},
		{1, 2, "1", ledger.Unit / 100}, // rounded up
		{ledger.Unit/100 + 1, 2, "2", ledger.Unit / 50},
		{ledger.Unit, 0, "1", ledger.Unit},
		{1, 9, "1", 1},
		{7, 18, "7000000000", 7},
		{math.MaxInt64, 18, "9223372036854775807000000000", math.MaxInt64},
	} {
		units := c.amount.Minor(c.decimals)
		back, exact := ledger.FromMinor(units, c.decimals)
		if units.String() != c.units || back != c.back || !exact {
			t.Errorf("%s with %d decimals: %s, which is %s, exact %v", c.amount, c.decimals, units, back, exact)
		}
	}
	for text, decimals := range map[string]int{"1": 18, "9223372036854775808": 9, "92233720369": 0} {
		units, _ := new(big.Int).SetString(text, 10)
		if got, exact := ledger.FromMinor(units, decimals); exact {
			t.Errorf("%s of %d decimals is %s", text, decimals, got)
		}
	}
}
