package escrow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// cutCrash is the Cut of a charge that recovery has made.
const cutCrash = "crash"

// errRecovered is the error of a call that other processes take for dead, so that they have charged it what it had drawn until then. Its answer
// must not be completed.
var errRecovered = errors.New("other processes have taken this one for dead, and have charged the call what it had drawn")

// RecoverPending must be called after a ledger was opened, before it is used. It posts the draws of calls whose process died, and records them as
// charges. It also closes escrows that were over except for what those calls held. Calls of processes that are still running are left alone.
//
// If processes share the ledger, RecoverPending must be called again when the session of one has ended, see [ledger.Ledger.Ended].
func (b *Book) RecoverPending(ctx context.Context) error {
	if err := b.recoverIn(ctx, drawTable, (*Tx).recoverCall); err != nil {
		return err
	}
	return b.FinishClosing(ctx)
}

// FinishClosing pays out what is left in escrows that are over, except for what running calls hold. The call that ends last does that by itself. So
// FinishClosing is needed only if other processes share the ledger, and have given back what they had set aside. It must be called now and then.
func (b *Book) FinishClosing(ctx context.Context) error {
	return b.recoverIn(ctx, closingTable, (*Tx).recoverClosing)
}

func (b *Book) recoverIn(ctx context.Context, in table, recover func(*Tx, string) error) error {
	for after := ""; ; {
		ids, err := b.idsIn(in, after)
		if err != nil || len(ids) == 0 {
			return err
		}
		for some := range slices.Chunk(ids, dueTogether) {
			_, err := Do(ctx, b, func(t *Tx) (struct{}, error) {
				for _, id := range some {
					if err := recover(t, id); err != nil {
						return struct{}{}, fmt.Errorf("recovering %s: %w", id, err)
					}
				}
				return struct{}{}, nil
			})
			if err != nil {
				return err
			}
		}
		after = ids[len(ids)-1]
	}
}

// idsIn returns some ids of a table, beginning after the given id.
func (b *Book) idsIn(in table, after string) (ids []string, err error) {
	err = b.view(func(r ledger.Reader) error {
		all := in.under()
		if after != "" {
			all.From = append(in.key(after), 0)
		}
		return r.Scan(all, func(key, _ []byte) (bool, error) {
			ids = append(ids, in.lastPart(key))
			return len(ids) < 256, nil
		})
	})
	return ids, err
}

// recoverCall records what a call had drawn before its process died.
func (t *Tx) recoverCall(request string) error {
	d, err := t.storedDraws(request)
	if err != nil || !d.stored {
		return err
	}
	if over, err := t.ledger.Over(d.By); err != nil || !over {
		return err
	}
	return t.recordDrawn(d)
}

// recordDrawn posts what a call has drawn, and records it as its charge.
func (t *Tx) recordDrawn(d drawn) error {
	d.Charge.Source, d.Charge.Cut = "stated", cutCrash
	if d.Pending > 0 {
		d.Charge.Source = "estimated"
	}
	e, err := t.source(d)
	if err != nil {
		return err
	}
	before, feeBefore := d.money(), d.Charge.Commission
	if err := t.payRest(&d, d.Pending, nil); err != nil {
		return err
	}
	if err := t.countDraw(e, d.money()-before, d.Charge.Commission-feeBefore, d.stained); err != nil {
		return err
	}
	if err := t.spent(d.Charge.Key, d.spends(d.Posted, e)); err != nil {
		return err
	}
	_, err = t.record(d, nil)
	return err
}

// recoverClosing pays out what is left in an escrow that is over, without what running calls hold.
func (t *Tx) recoverClosing(id string) error {
	e, err := t.escrow(id)
	if err != nil || e == nil || e.Closing == "" {
		return err
	}
	if free, err := t.unheld(e); err != nil || free == 0 {
		return err
	}
	return t.sendLeft(e)
}
