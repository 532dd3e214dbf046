package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// purse is what pays alice's calls.
type purse struct {
	plans   []escrow.Plan
	headers []string // of each call
	fill    func(*escrow.Tx) error
}

// purse makes the route use one way of paying, and returns a purse for it with an amount.
func (g sold) purse(t *testing.T, route *gateway.Route, pays, has string) *purse {
	p := &purse{fill: func(tx *escrow.Tx) error {
		if amount(has) >= amount("1") {
			return nil
		}
		_, err := tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "acme", Amount: amount("1") - amount(has)})
		return err
	}}
	switch pays {
	case "quality":
		route.Quality = &gateway.Quality{Judge: lengthJudge{}, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}}}
	case "escrow":
		route.Payment = gateway.Escrow{}
		p.fill = func(tx *escrow.Tx) error {
			_, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount(has)})
			return err
		}
	case "milestone":
		p.fill = func(tx *escrow.Tx) error {
			e, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{
				To: "acme", Amount: amount(has), Milestones: []escrow.Milestone{{Name: "m", Amount: amount(has)}},
			})
			p.headers = []string{"Tallygate-Escrow", e.ID, "Tallygate-Milestone", "m"}
			return err
		}
	case "quota":
		unit := quotaUnits[g.name]
		if unit == "" {
			t.Skip("a subscription includes units, and what the provider states as a cost has none")
		}
		units := int64(amount(has)) * g.units() / int64(amount(g.price)) // as many as the money would buy
		if units == 0 {
			t.Skip("less than a unit")
		}
		included := pricing.Measure{N: units, Unit: unit}
		plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: unit, Included: units * escrow.Micro}
		p.plans = append(p.plans, plan)
		route.Payment = &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0 per call")}
		p.fill = func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
			return err
		}
	}
	return p
}

// quotaUnits are the units of what is sold that a plan includes.
var quotaUnits = map[string]string{
	"call": "call", "byte": "byte", "event": "event", "count": "rows", "token": "output_token", "image": "images", "second": "second", "tool": "tool_call",
	"asked image": "asked_image", "character": "input_character", "asked second": "asked_second", "input byte": "input_byte",
}

// paid is what was charged for alice's last call, valued at the price of what it took from its purse, and how.
func (g sold) paid(s *shop, pays string) (charged ledger.Amount, how string) {
	charges := s.charges()
	if len(charges) == 0 {
		return 0, "nothing"
	}
	c := charges[0]
	switch pays {
	case "milestone":
		charged = c.Price
	case "quota":
		charged = amount(g.price) * ledger.Amount(c.QuotaUsed) / ledger.Amount(g.units()*escrow.Micro)
	default:
		charged = c.Amount
	}
	return charged, fmt.Sprint(c.Units, c.Cut, c.QuotaUsed)
}
