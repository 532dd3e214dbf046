package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A hold is money of a payer that is set aside for one payee and for a time: for work whose price is known only at its end, outside of metered
// routes. The payee captures it in parts, each of which is a charge, and gives the rest back. What is left when its time is up goes back to
// the payer. Until then the payer can't take it back.

// HoldOrder describes a new hold.
type HoldOrder struct {
	Payer  string // an agent that names another payer is the payee, and needs the payer's allowance; the operator names both
	Payee  string
	Amount ledger.Amount
	For    time.Duration // 0: [DefaultHold]
	Memo   string
}

// DefaultHold is how long a hold lasts if its order does not say.
const DefaultHold = 7 * 24 * time.Hour

const maxHold = 90 * 24 * time.Hour

// OpenHold sets money of a payer aside for a payee. The payer may do this, and the payee as far as the payer's allowance goes; what goes back to
// the payer is then free for other uses of the same allowance. The whole amount counts against the payer's limits.
func (t *Tx) OpenHold(by Actor, o HoldOrder) (Escrow, error) {
	if err := by.mayMove(); err != nil {
		return Escrow{}, err
	}
	byPayee := !by.Operator && o.Payer != "" && o.Payer != by.Agent
	switch {
	case byPayee && o.Payee != "" && o.Payee != by.Agent:
		return Escrow{}, refuse(Forbidden, nil, "the key is of %q, which is neither the payer %.80q nor the payee %.80q", by.Agent, o.Payer, o.Payee)
	case byPayee:
		o.Payee = by.Agent
	case !by.Operator:
		o.Payer = by.Agent
	}
	if err := t.checkHold(&o); err != nil {
		return Escrow{}, err
	}
	e := Escrow{Kind: KindHold, Status: StatusOpen, From: o.Payer, To: o.Payee, Amount: o.Amount, Memo: o.Memo, AutoRelease: o.For, OnExpiry: ToPayer}
	spender := by
	if byPayee {
		allowed, err := t.useAllowance(PaymentOrder{From: o.Payer, To: o.Payee, Amount: o.Amount})
		if err != nil {
			return Escrow{}, err
		}
		spender, e.Allowed = allowed.spender(), allowed.Setting
	}
	e.countedFor(spender.Key)
	err := t.spend(spender, spending{agent: o.Payer, payee: o.Payee, amount: o.Amount})
	if err == nil {
		err = t.lock(&e)
	}
	if byPayee {
		err = t.cantPay(err, o.Payer, o.Amount)
	}
	if err != nil {
		return Escrow{}, err
	}
	return e, t.audit(by, "hold.open", e.ID, "")
}

// checkHold checks an order, and fills in how long the hold lasts.
func (t *Tx) checkHold(o *HoldOrder) error {
	if _, err := t.agent("from_agent_id", o.Payer); err != nil {
		return err
	}
	if err := t.checkPair(o.Payer, "to_agent_id", o.Payee); err != nil {
		return err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return err
	}
	if o.Amount < t.rules.MinEscrow {
		return invalid("amount", "amount %s: a hold is of at least %s %s here", o.Amount, t.rules.MinEscrow, t.Currency())
	}
	if o.For == 0 {
		o.For = DefaultHold
	}
	if o.For < 0 || o.For > maxHold {
		return invalid("expires_in_hours", "expires_in_hours: above zero and at most %d", maxHold/time.Hour)
	}
	return checkText("memo", o.Memo)
}

// CapturePattern is the pattern of charges that are captures of holds. They have no units: the payee says the amount.
const CapturePattern = "capture"

// CaptureOrder describes a capture of a part of a hold.
type CaptureOrder struct {
	Amount    ledger.Amount
	Reference string // the payee's own id of the work
	Final     bool   // what is left goes back to the payer
}

// Captured is a hold after a capture, and the charge that the capture is.
type Captured struct {
	Hold     Escrow
	Charge   Charge
	Repeated bool // it was captured before, under the same reference; nothing has moved now
}

// CaptureHold charges a part of a hold. The payee and the operator may do this. A reference is used once by a payee, for ever: the same capture
// again returns the first one, with Repeated set, and moves nothing. Refused: already_exists if the reference was used otherwise,
// exceeds_remaining, invalid_status if the hold is over.
func (t *Tx) CaptureHold(by Actor, id string, o CaptureOrder) (Captured, error) {
	e, err := t.hold(by, id)
	if err != nil {
		return Captured{}, err
	}
	if !by.Operator && by.Agent != e.To {
		return Captured{}, refuse(Forbidden, map[string]string{"hold_id": e.ID}, "only the payee captures a hold")
	}
	final := ""
	if o.Final {
		final = "final"
	}
	mark, first, err := t.reference(e.To, o.Reference, "capture", e.ID, o.Amount.String(), final)
	if err != nil || first != nil {
		return Captured{Hold: *e, Charge: orNone(first), Repeated: true}, err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Captured{}, err
	}
	c := t.reported(*e, o.Reference)
	c.Pattern = CapturePattern
	c, err = t.chargeHold(c, e, allMoney(o.Amount), o.Amount)
	if err == nil {
		err = t.keepReference(mark, c)
	}
	if err == nil && o.Final {
		err = t.sendRest(e, ToPayer, "the rest of the hold")
	}
	if err != nil {
		return Captured{}, err
	}
	after, err := t.saveAct(by, e, "hold.capture", EscrowReleased)
	return Captured{Hold: after, Charge: c}, err
}

// chargeHold pays a charge in parts, of which the money comes from a hold.
func (t *Tx) chargeHold(c Charge, e *Escrow, parts []part, money ledger.Amount) (Charge, error) {
	if !e.drawable() {
		return Charge{}, e.holdOver()
	}
	if money > e.Remaining() {
		return Charge{}, refuse(ExceedsRemaining, map[string]string{"field": "amount", "hold_id": e.ID, "remaining": e.Remaining().String()},
			"%s is more than the %s that are left of the hold", money, e.Remaining())
	}
	c.EscrowID, c.Key = e.ID, e.openedBy()
	return t.payCharge(c, e, parts)
}

// VoidHold gives what is left of a hold back to its payer. The payee and the operator may do this; the payer gets it when the time of the hold
// is up.
func (t *Tx) VoidHold(by Actor, id string) (Escrow, error) {
	e, err := t.hold(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if !e.drawable() {
		return Escrow{}, e.holdOver()
	}
	if !by.Operator && by.Agent != e.To {
		until := e.AutoReleaseAt.Format(time.RFC3339)
		return Escrow{}, refuse(Forbidden, map[string]string{"hold_id": e.ID, "expires_at": until},
			"only the payee %q voids the hold; what it has not captured by %s comes back by itself", e.To, until)
	}
	if err := t.sendRest(e, ToPayer, "the hold was voided"); err != nil {
		return Escrow{}, err
	}
	return t.saveAct(by, e, "hold.void", EscrowRefunded)
}

// Hold returns a hold to one of its parties or the operator, with what is due to it done first.
func (b *Book) Hold(ctx context.Context, by Actor, id string) (Escrow, error) {
	e, err := b.currentEscrow(ctx, id)
	if err == nil {
		err = e.asHold(by, id)
	}
	if err != nil {
		return Escrow{}, err
	}
	return *e, nil
}

// hold returns a hold that the caller is about to change, if it is one of its parties or the operator.
func (t *Tx) hold(by Actor, id string) (*Escrow, error) {
	if err := by.mayMove(); err != nil {
		return nil, err
	}
	e, err := t.escrow(id)
	if err == nil {
		err = e.asHold(by, id)
	}
	return e, err
}

// asHold refuses what is not a hold, or one of others. e may be nil.
func (e *Escrow) asHold(by Actor, id string) error {
	switch {
	case e == nil || !e.visible(by):
		return refuse(NotFound, nil, "no hold %.80q", id)
	case e.Kind != KindHold:
		return refuse(NotFound, map[string]string{"escrow_id": e.ID}, "%s is an escrow, not a hold: see /api/v1/escrow/%s", e.ID, e.ID)
	default:
		return nil
	}
}

// isHold refuses what is done with escrows and not with holds.
func (e *Escrow) isHold() error {
	return refuse(NotFound, map[string]string{"hold_id": e.ID}, "%s is a hold, not an escrow: see /api/v1/holds/%s", e.ID, e.ID)
}

func (e *Escrow) holdOver() error {
	return refuse(InvalidStatus, map[string]string{"hold_id": e.ID}, "the hold is over: %s was captured, and %s went back to %q", e.Released, e.Refunded, e.From)
}

// openedBy is the payer's key that counted the whole amount when the money was locked; empty if none did.
func (e *Escrow) openedBy() string {
	if len(e.CountedFor) == 0 {
		return ""
	}
	return e.CountedFor[0]
}
