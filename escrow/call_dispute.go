package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// The payer of a charge may dispute it, for as long as a refund window. A dispute moves no money. The operator resolves it: what goes to the
// payer is refunded from the payee's wallet. Meanwhile the payee may refund the charge, or a part of it.

// ChargeDispute is a payer's dispute of a charge.
type ChargeDispute struct {
	At         time.Time    `cbor:"1,keyasint"`
	Reason     string       `cbor:"2,keyasint,omitempty"`
	Before     ChargeStatus `cbor:"3,keyasint"`           // the status of the charge without the dispute
	ResolvedAt time.Time    `cbor:"4,keyasint,omitzero"`  // zero while it is open; also set if the payer takes it back
	Note       string       `cbor:"5,keyasint,omitempty"` // the operator's
}

// disputed reports whether the payer has a dispute of the charge that is not resolved.
func (c Charge) disputed() bool { return c.Dispute != nil && c.Dispute.ResolvedAt.IsZero() }

// DisputeCharge disputes a charge. Only its payer may do this, once, within the refund window. A price that is still held is disputed by
// disputing its escrow. Refused: invalid_status, forbidden, not_found.
func (t *Tx) DisputeCharge(by Actor, id, reason string) (Charge, error) {
	c, err := t.chargeOf(by, id)
	if err != nil {
		return Charge{}, err
	}
	if !by.Operator && by.Agent != c.Payer {
		return Charge{}, refuse(Forbidden, nil, "only the payer disputes a charge")
	}
	if err := checkText("reason", reason); err != nil {
		return Charge{}, err
	}
	until := c.CreatedAt.Add(t.rules.RefundWindow)
	switch {
	case c.Dispute != nil:
		return Charge{}, refuse(InvalidStatus, map[string]string{"disputed_at": c.Dispute.At.Format(time.RFC3339)}, "the charge was disputed on %s; a charge is disputed once", c.Dispute.At.Format(time.RFC3339))
	case c.Status == HeldCharge || c.Status == DisputedCharge:
		return Charge{}, refuse(InvalidStatus, map[string]string{"escrow_id": c.HeldIn}, "the price is held in escrow %s: dispute that", c.HeldIn)
	case c.Status != Charged && c.Status != PartlyRefunded || c.Amount == 0:
		return Charge{}, refuse(InvalidStatus, nil, "the charge is %s, of %s: there is nothing to dispute", c.Status, c.Amount)
	case !t.Now().Before(until):
		return Charge{}, refuse(InvalidStatus, map[string]string{"until": until.Format(time.RFC3339)}, "the charge could be disputed until %s", until.Format(time.RFC3339))
	}
	c.Dispute, c.Status = &ChargeDispute{At: t.Now(), Reason: reason, Before: c.Status}, DisputedCharge
	return c, t.saveDispute(by, c, "charge.dispute", ChargeDisputed)
}

// WithdrawDispute takes a dispute back. Only the payer, and the operator for it, may do this.
func (t *Tx) WithdrawDispute(by Actor, id string) (Charge, error) {
	c, err := t.chargeOf(by, id)
	if err != nil {
		return Charge{}, err
	}
	if !by.Operator && by.Agent != c.Payer {
		return Charge{}, refuse(Forbidden, nil, "only the payer takes its dispute back")
	}
	if !c.disputed() {
		return Charge{}, noDispute(c)
	}
	c = c.resolved(t.Now(), "withdrawn")
	return c, t.saveDispute(by, c, "charge.dispute_withdrawn", ChargeResolved)
}

// ResolveCharge decides a disputed charge: toPayer of it is refunded from the payee's wallet, perhaps nothing. Only the operator may do this.
// Refused with insufficient_funds if the payee has too little; then it can be resolved later, or with less.
func (t *Tx) ResolveCharge(by Actor, id string, toPayer ledger.Amount, note string) (Charge, error) {
	c, err := t.chargeOf(by, id)
	if err != nil {
		return Charge{}, err
	}
	if err := by.isOperator("resolving a dispute"); err != nil {
		return Charge{}, err
	}
	if err := checkText("note", note); err != nil {
		return Charge{}, err
	}
	if !c.disputed() {
		return Charge{}, noDispute(c)
	}
	if left := c.Amount - c.Refunded; toPayer < 0 || toPayer > left {
		return Charge{}, refuse(ExceedsRemaining, map[string]string{"field": "to_payer", "remaining": left.String()}, "to_payer %s: from 0 to the %s of the charge that are left", toPayer, left)
	}
	c = c.resolved(t.Now(), note)
	if toPayer > 0 {
		_, money, err := c.refunded(toPayer)
		if err != nil {
			return Charge{}, err
		}
		if err := t.spend(by, spending{agent: c.Payee, payee: c.Payer, amount: money}); err != nil {
			return Charge{}, err
		}
		if c, err = t.payBack(c, toPayer, note); err != nil {
			return Charge{}, err
		}
	}
	return c, t.saveDispute(by, c, "charge.resolve", ChargeResolved)
}

// resolved is the charge with its dispute resolved.
func (c Charge) resolved(at time.Time, note string) Charge {
	d := *c.Dispute
	d.ResolvedAt, d.Note = at, note
	c.Dispute, c.Status = &d, d.Before
	if c.Refunded > 0 {
		c.Status = PartlyRefunded
	}
	return c
}

// stillDisputed is the charge after a refund: a dispute goes on unless all was refunded.
func (c Charge) stillDisputed(now time.Time) Charge {
	switch {
	case !c.disputed():
	case c.Status == WhollyRefunded:
		c = c.resolved(now, "refunded")
		c.Status = WhollyRefunded
	default:
		c.Status = DisputedCharge
	}
	return c
}

func noDispute(c Charge) error {
	return refuse(InvalidStatus, nil, "the charge is %s: its payer has no open dispute", c.Status)
}

// chargeOf returns a charge that the caller is about to change, if it is one of its parties or the operator.
func (t *Tx) chargeOf(by Actor, id string) (Charge, error) {
	if err := by.mayMove(); err != nil {
		return Charge{}, err
	}
	c, found, err := t.charge(id)
	if err == nil && (!found || !c.visible(by)) {
		err = noCharge(id)
	}
	return c, err
}

// saveDispute writes a charge whose dispute has changed, and tells both parties and the operator.
func (t *Tx) saveDispute(by Actor, c Charge, act string, what EventType) error {
	if err := t.audit(by, act, c.RequestID, c.Refunded.String()); err != nil {
		return err
	}
	if err := t.saveCharge(c); err != nil {
		return err
	}
	return t.tellAll(Event{Type: what, At: t.Now(), Charge: &c}, c.Payer, c.Payee)
}
