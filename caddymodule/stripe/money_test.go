package stripe

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestMoney: an amount is exact in Stripe's smallest units, or refused. What is not listed has two decimals.
func TestMoney(t *testing.T) {
	for _, c := range []struct {
		currency, amount string
		minor            int64 // -1: refused
	}{
		{"usd", "12.34", 1234}, {"usd", "0.01", 1}, {"usd", "0.005", -1}, {"eur", "7", 700}, {"usd", "0", -1},
		{"jpy", "500", 500}, {"jpy", "0.5", -1}, {"krw", "1000000", 1000000},
		{"kwd", "1.23", 1230}, {"kwd", "1.234", -1}, {"kwd", "1.2345", -1},
		{"ugx", "5", 500}, {"ugx", "5.5", -1}, {"isk", "12", 1200},
	} {
		amount, err := ledger.ParseAmount(c.amount)
		if err != nil {
			t.Fatal(err)
		}
		m := moneyOf(c.currency)
		minor, err := m.minor(amount)
		if err != nil {
			minor = -1
		}
		if minor != c.minor {
			t.Errorf("%s %s are %d of Stripe's (%v), want %d", c.amount, c.currency, minor, err, c.minor)
		}
		if err != nil {
			continue
		}
		if back, err := m.amount(minor); err != nil || back != amount {
			t.Errorf("%s %s come back as %s, %v", c.amount, c.currency, back, err)
		}
	}
	for _, minor := range []int64{-1, math.MaxInt64, math.MinInt64} {
		if amount, err := moneyOf("usd").amount(minor); err == nil {
			t.Errorf("%d cents are booked as %s", minor, amount)
		}
	}
}

// TestMoneyComesBack: whatever Stripe's amount is, it is the same after it was booked.
func TestMoneyComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := moneyOf(rapid.SampledFrom([]string{"usd", "jpy", "kwd", "isk"}).Draw(t, "currency"))
		minor := rapid.Int64Range(1, 99_999_999).Draw(t, "minor") * m.step
		amount, err := m.amount(minor)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := m.minor(amount); err != nil || back != minor {
			t.Fatalf("%d of %s is %s, and then %d, %v", minor, m.currency, amount, back, err)
		}
	})
}
