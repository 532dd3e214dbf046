package escrow

import (
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Micro is a millionth of a unit, in which quotas are counted.
const Micro = 1_000_000

// Plan is a subscription that a configuration offers. Agents subscribe to it by its name, on the terms that it has at that time.
type Plan struct {
	Payee        string        `cbor:"1,keyasint"`
	Name         string        `cbor:"2,keyasint"`
	Price        ledger.Amount `cbor:"3,keyasint"` // of a period
	Period       time.Duration `cbor:"4,keyasint"`
	Included     int64         `cbor:"5,keyasint,omitempty"`  // millionths of a unit in each period; 0: nothing is counted
	Unit         string        `cbor:"6,keyasint,omitempty"`  // "call"
	Overage      bool          `cbor:"7,keyasint,omitempty"`  // what is beyond Included is charged; else it is refused
	OveragePrice string        `cbor:"8,keyasint,omitempty"`  // in words: "0.01 per call"
	Months       int           `cbor:"10,keyasint,omitempty"` // above 0: a period is so many calendar months, and Period is 0
	Pool         ledger.Amount `cbor:"9,keyasint,omitempty"`  // locked each period for the overage; 0: the wallet pays it
}

// plan finds a plan that the configuration offers.
func (r Rules) plan(payee, name string) (Plan, bool) {
	for _, p := range r.Plans {
		if p.Payee == payee && p.Name == name {
			return p, true
		}
	}
	return Plan{}, false
}

// Units returns millionths of a unit as decimal text.
func Units(micro int64) string { return decimal.New(micro, -6).String() }

// Period returns a duration in the syntax of a configuration: 168h, 1h30m.
func Period(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// needed returns what a period takes from the wallet.
func (p Plan) needed() (ledger.Amount, error) { return p.Price.Add(p.Pool) }

// poolMemo returns the memo of an overage pool, such as "overage_pool:500_call". Its first word ends in _pool, as in pools that agents make
// themselves, so what is left goes back to the payer.
func (p Plan) poolMemo() string {
	return "overage_pool:" + p.Name + " " + strings.TrimSpace(p.OveragePrice)
}

// subscriptionRequired returns the refusal of a call without a subscription. It says how to get one.
func (r Rules) subscriptionRequired(o CallOrder, currency string, status SubscriptionStatus) error {
	fields := map[string]string{"plan": o.Plan, "payee": o.Payee, "currency": currency}
	detail := "this route is paid by a subscription"
	if p, found := r.plan(o.Payee, o.Plan); found {
		fields["price"], fields["period"] = p.Price.String(), p.Term().String()
		if p.Pool > 0 {
			fields["pool"] = p.Pool.String()
		}
	}
	if status != "" {
		fields["subscription_status"] = string(status)
		detail = "the subscription is suspended; it goes on with the next call for which the wallet and the limits cover a period"
	}
	return refuse(SubscriptionRequired, fields, "%s", detail)
}
