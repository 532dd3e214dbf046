package escrow

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// AbandonedCall is a call whose charge or cancellation failed with a commit of the ledger. The charge may be in the books or not, but the answer
// never went out completely.
type AbandonedCall struct {
	Request        string
	Payer          string
	IdempotencyKey string // the caller's, or empty
	Sent           bool   // parts of the answer went out
}

// abandoned are the calls that a process has abandoned and not settled yet, by their request ids.
type abandoned struct {
	mu    sync.Mutex
	calls map[string]AbandonedCall
}

// Abandon remembers a call that [Book.PutRight] must settle when the ledger accepts operations again. If a call is abandoned twice, the first
// time counts. The call is remembered only in this process: if the process dies, [Book.RecoverPending] of the next process settles it.
func (b *Book) Abandon(c AbandonedCall) {
	a := &b.process.abandoned
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = make(map[string]AbandonedCall)
	}
	if _, noted := a.calls[c.Request]; !noted {
		a.calls[c.Request] = c
	}
}

func (a *abandoned) take() (calls []AbandonedCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		calls = append(calls, c)
	}
	a.calls = nil
	return calls
}

// PutRight settles the abandoned calls, and returns how many there were. If a charge is in the books after all, it is refunded, and its
// idempotency key is forgotten, so that the call may be made again. Draws of the call are posted, as after a crash, if parts of the answer
// went out, and given back otherwise. If the ledger fails again, the call is still remembered. Other errors are joined and returned.
func (b *Book) PutRight(ctx context.Context) (right int, err error) {
	failed := []error{b.process.claims.Clean(ctx)}
	for _, c := range b.process.abandoned.take() {
		_, err := Do(ctx, b, func(t *Tx) (struct{}, error) { return struct{}{}, t.abandon(c) })
		switch {
		case err == nil:
			right++
		case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, ledger.ErrUnavailable), ctx.Err() != nil:
			b.Abandon(c)
		default:
			failed = append(failed, fmt.Errorf("call %s, whose answer never went out: %w", c.Request, err))
		}
	}
	return right, errors.Join(failed...)
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
	if charge.Cut == cutCrash && c.Sent { // it was charged what had gone out
		return nil
	}
	if left := charge.Amount - charge.Refunded; left > 0 {
		_, err = t.payBack(charge, left, "the answer never went out: the commit of the charge had failed")
	}
	return err
}

func (t *Tx) abandonDraws(c AbandonedCall) error {
	d, err := t.storedDraws(c.Request)
	if err != nil || !d.stored {
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
