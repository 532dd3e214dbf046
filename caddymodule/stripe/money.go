package stripe

import (
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Stripe counts in a currency's smallest unit. https://docs.stripe.com/currencies#minor-units
var (
	noDecimals = map[string]bool{
		"bif": true, "clp": true, "djf": true, "gnf": true, "jpy": true, "kmf": true, "krw": true, "mga": true, "pyg": true, "rwf": true,
		"vnd": true, "vuv": true, "xaf": true, "xof": true, "xpf": true,
	}
	threeDecimals = map[string]bool{"bhd": true, "jod": true, "kwd": true, "omr": true, "tnd": true}
	// wholeOnly have two decimals at Stripe, which must be zero.
	wholeOnly = map[string]bool{"isk": true, "ugx": true}
)

// money converts between amounts of the ledger and Stripe's. One unit of the currency is one unit of the ledger.
type money struct {
	currency string
	unit     ledger.Amount // the ledger's amount of one smallest unit of Stripe
	step     int64         // Stripe takes only multiples of this
}

func moneyOf(currency string) money {
	m := money{currency, ledger.Unit / 100, 1}
	switch {
	case noDecimals[currency]:
		m.unit = ledger.Unit
	case threeDecimals[currency]:
		m.unit, m.step = ledger.Unit/1000, 10
	case wholeOnly[currency]:
		m.step = 100
	}
	return m
}

// minor returns an amount in Stripe's smallest units. It fails if that is not exact.
func (m money) minor(amount ledger.Amount) (int64, error) {
	if whole := m.unit * ledger.Amount(m.step); amount <= 0 || amount%whole != 0 {
		return 0, fmt.Errorf("%s can't be paid in %s: it must be a multiple of %s", amount, m.currency, whole)
	}
	return int64(amount / m.unit), nil
}

// amount returns Stripe's smallest units as an amount of the ledger.
func (m money) amount(minor int64) (ledger.Amount, error) {
	const most = int64(1) << 62
	if minor < 0 || minor > most/int64(m.unit) {
		return 0, fmt.Errorf("%d of the smallest unit of %s can't be booked", minor, m.currency)
	}
	return ledger.Amount(minor) * m.unit, nil
}
