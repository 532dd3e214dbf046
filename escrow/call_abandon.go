package escrow

import (
	"context"
)

// AbandonedCall is a call whose settlement failed with a commit of the ledger, so that its answer never went out whole.
type AbandonedCall struct {
	Request        string
	Payer          string
	IdempotencyKey string // the caller's, or empty
	Sent           bool   // parts of the answer went out
}

// Abandon puts the books right about such a call when the ledger takes money again. A charge that stands in the books after all is
// paid back, and its idempotency key forgotten: the call may be made again. What the call had drawn is posted, as after a crash, if
// parts of the answer went out, and given back if none did.
func (b *Book) Abandon(ctx context.Context, c AbandonedCall) error {
	_, err := Do(ctx, b, func(t *Tx) (struct{}, error) { return struct{}{}, t.abandon(c) })
	return err
}

func (t *Tx) abandon(c AbandonedCall) error {
	if err := t.forgetCall(c); err != nil {
		return err
	}
	charge, found, err := t.charge(c.Request)
	if err != nil {
		return err
	}
	if !found {
		return t.abandonDraws(c)
	}
	if left := charge.Amount - charge.Refunded; left > 0 {
		_, err = t.payBack(charge, left, "the answer never went out: the commit of the charge had failed")
	}
	return err
}

func (t *Tx) abandonDraws(c AbandonedCall) error {
	var d drawn
	found, err := load(t.ledger, drawTable.key(c.Request), &d)
	if err != nil || !found {
		return err
	}
	if !c.Sent {
		if err := t.payRest(&d, 0, nil); err != nil {
			return err
		}
	}
	d.OnceKey = ""
	if d.Posted == 0 && d.Pending == 0 {
		t.ledger.Delete(drawTable.key(c.Request))
	} else if err := t.recordDrawn(d); err != nil {
		return err
	}
	if d.Charge.EscrowID == "" {
		return nil
	}
	return t.recoverClosing(d.Charge.EscrowID)
}

// forgetCall removes the idempotency key of a call.
func (t *Tx) forgetCall(c AbandonedCall) error {
	if c.IdempotencyKey == "" {
		return nil
	}
	id := OnceID{Owner: "call:" + c.Payer, Key: c.IdempotencyKey}
	kept, found, err := once(t.ledger, id)
	if err != nil || !found || kept.Request != c.Request {
		return err
	}
	entry := id.forgotten(forgetAt(kept.At))
	what, err := t.ledger.Get(entry)
	if err != nil {
		return err
	}
	return t.forgetOne(string(entry), string(what))
}
