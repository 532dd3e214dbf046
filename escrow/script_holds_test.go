package escrow_test

import (
	"context"

	"github.com/tallygate/tallygate/escrow"
)

// holdStep runs the steps about holds and reported work.
func (s *script) holdStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	id := s.escrows[arg(0)]
	switch verb {
	case "hold": // hold H WHO AMOUNT [from=A] [to=A] [for=24h]
		o := escrow.HoldOrder{Payer: named["from"], Payee: named["to"], Amount: amount(arg(2))}
		if named["for"] != "" {
			o.For = s.duration(named["for"])
		}
		e, err := do(s.shop, func(t *escrow.Tx) (escrow.Escrow, error) { return t.OpenHold(s.actor(arg(1)), o) })
		if err == nil {
			s.escrows[arg(0)] = e.ID
		}
		return true, err
	case "capture": // capture H WHO AMOUNT REFERENCE [final=yes] [again=yes]
		c, err := do(s.shop, func(t *escrow.Tx) (escrow.Captured, error) {
			return t.CaptureHold(s.actor(arg(1)), id, escrow.CaptureOrder{Amount: amount(arg(2)), Reference: arg(3), Final: named["final"] != ""})
		})
		return true, s.charged(c.Charge, c.Repeated, arg(3), named, err)
	case "void":
		return true, s.shop.run(func(t *escrow.Tx) error { _, err := t.VoidHold(s.actor(arg(1)), id); return err })
	case "heldby": // heldby H captured=A returned=A left=A
		e, err := s.Hold(context.Background(), operator, id)
		if err != nil {
			return true, err
		}
		s.compare(arg(0), named, map[string]string{
			"captured": e.Released.String(), "returned": e.Refunded.String(), "left": e.Remaining().String(), "status": string(e.Status), "commission": e.Commission.String(),
		})
	case "report": // report REFERENCE WHO PAYER AMOUNT [hold=H] [plan=P quota=N] [again=yes]: work that costs AMOUNT, or a cent beyond the quota
		o := escrow.ReportOrder{Payer: arg(2), Hold: s.escrows[named["hold"]], Reference: arg(0), Plan: named["plan"], Units: map[string]string{"job": arg(3) + named["quota"]}, Payee: named["payee"]}
		if named["hold"] != "" && o.Hold == "" {
			o.Hold = named["hold"]
		}
		r, err := do(s.shop, func(t *escrow.Tx) (escrow.Reported, error) {
			return t.Report(s.actor(arg(1)), o, s.price(arg(3), named))
		})
		return true, s.charged(r.Charge, r.Repeated, arg(0), named, err)
	case "left": // left PAYER PAYEE of=A: what is left of the allowance
		a, err := s.Allowance(arg(0), arg(1))
		if err != nil {
			return true, err
		}
		s.compare(arg(0), named, map[string]string{"of": a.Left.String()})
	case "contest": // contest CALL WHO: dispute a charge
		return true, s.shop.run(func(t *escrow.Tx) error {
			_, err := t.DisputeCharge(actor(arg(1)), s.requests[arg(0)], "never asked")
			return err
		})
	case "cancelsub":
		return true, s.shop.run(func(t *escrow.Tx) error { _, err := t.CancelSubscription(actor(arg(1)), s.subs[arg(0)]); return err })
	default:
		return false, nil
	}
	return true, nil
}

// price is the pricing of reported work: what the step says.
func (s *script) price(cost string, named map[string]string) escrow.Pricing {
	return func(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
		order := escrow.CallOrder{By: by(o.Payer), Payee: o.Payee, Route: "/jobs", Pattern: "per_unit", Credit: true}
		if o.Payee == "" {
			s.t.Fatal("the payee is not known to the pricing")
		}
		settlement := escrow.Settlement{Amount: amount(cost), Units: map[string]string{"job": "1"}, UnitPrices: map[string]string{"job": cost}}
		if o.Plan != "" {
			order.From, order.Plan = escrow.FromSubscription, o.Plan
			settlement = escrow.Settlement{Quota: micro(named["quota"]), Over: centPerUnit, Units: map[string]string{"job": named["quota"]}}
		}
		if named["tiers"] != "" {
			settlement.Price = afterTen(micro(named["tiers"]), "month")
		}
		return order, settlement, nil
	}
}

// charged keeps the id of a charge by its reference, and checks that it was made now, or before.
func (s *script) charged(c escrow.Charge, repeated bool, reference string, named map[string]string, err error) error {
	if err != nil {
		return err
	}
	if repeated != (named["again"] != "") {
		s.t.Fatalf("%s: repeated is %v", reference, repeated)
	}
	if repeated && s.requests[reference] != c.RequestID || c.Reference != reference {
		s.t.Fatalf("%s: the charge is %s with reference %q, it was %s", reference, c.RequestID, c.Reference, s.requests[reference])
	}
	s.requests[reference] = c.RequestID
	return nil
}
