package escrow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A background worker, which calls [Book.RunDue], does what is due by the clock. So no request waits for it. A request that reads or
// changes an escrow or a subscription brings only that one up to date first.
//
// Each thing that falls due belongs to the agent that pays for it, and agents take turns.

// The kinds of things that fall due, in the keys of the due table.
const (
	dueEscrow       = "e"
	dueSubscription = "s"
	dueNotice       = "n" // an event that announces something
	dueCredit       = "c"
	dueHour         = "h" // the sums of an hour's charges, for webhooks
	dueForget       = "f" // old idempotency keys; these belong to no agent
)

const (
	dueTogether = 16 // things done in one operation; calls that settle meanwhile wait for no more than these
	dueAtOnce   = 64 // such operations in one RunDue
	dueRetry    = time.Minute
)

// fallsDue enters something that falls due.
func (t *Tx) fallsDue(owner string, at time.Time, what string) error {
	t.ledger.Put(dueTurns.key(owner, at, what), []byte{})
	return dueTurns.by(t, owner, at)
}

// Behind returns how long something has been due that was not done yet, or zero.
func (b *Book) Behind() (late time.Duration, err error) {
	err = b.view(func(r ledger.Reader) error {
		return dueTurns.each(r, func(_ string, at time.Time) bool {
			late = max(b.Now().Sub(at), 0)
			return false
		})
	})
	return late, err
}

// RunDue does what is due: it releases escrows, grants refunds, renews subscriptions, ends expired credit and sends notices. If very much
// is due, it does only a part. It returns the time at which to call it again, or zero if nothing will fall due. Each thing is done exactly
// once, even if several processes call RunDue. Things that fail are reported in the error, and tried again a minute later.
func (b *Book) RunDue(ctx context.Context) (next time.Time, err error) {
	var failed []error
	for range dueAtOnce {
		run, err := Do(ctx, b, (*Tx).runSome)
		if err != nil {
			return time.Time{}, errors.Join(append(failed, err)...)
		}
		failed = append(failed, run.failed...)
		if next = run.next; !run.more {
			break
		}
	}
	return next, errors.Join(failed...)
}

// dueRun is the result of doing some of what is due.
type dueRun struct {
	failed []error
	more   bool      // some of it may be left
	next   time.Time // when the next thing falls due; zero: nothing will
}

func (t *Tx) runSome() (run dueRun, err error) {
	for range dueTogether {
		var owner string
		var at time.Time
		err := dueTurns.each(t.ledger, func(first string, turn time.Time) bool {
			owner, at = first, turn
			return false
		})
		if err != nil || at.IsZero() || at.After(t.Now()) {
			return dueRun{failed: run.failed, next: at}, err
		}
		failed, err := t.runFirst(owner)
		if err != nil {
			return dueRun{}, err
		}
		if failed != nil {
			run.failed = append(run.failed, failed)
		}
	}
	run.more, run.next = true, t.Now()
	return run, nil
}

// runFirst does the first thing of an agent that is due. If that can't be done, failed says why, and the thing is due again later.
func (t *Tx) runFirst(owner string) (failed, err error) {
	what, at, err := dueTurns.first(t.ledger, owner)
	if err != nil {
		return nil, err
	}
	if !at.IsZero() && !at.After(t.Now()) {
		var more bool
		failed = t.ledger.Try(func() (err error) { more, err = t.runOne(what); return err })
		if failed != nil {
			failed = fmt.Errorf("doing what is due of %q, %s: %w", owner, what, failed)
			t.ledger.Put(dueTurns.key(owner, t.Now().Add(dueRetry), what), []byte{})
		}
		if failed != nil || !more {
			t.ledger.Delete(dueTurns.key(owner, at, what))
		}
	}
	return failed, dueTurns.next(t, owner)
}

// runOne does one thing that is due. more is true if a part of it is left.
func (t *Tx) runOne(what string) (more bool, err error) {
	switch kind, id := what[:1], what[1:]; kind {
	case dueEscrow:
		_, err = t.escrow(id)
	case dueSubscription:
		err = t.renewOnce(id)
	case dueNotice:
		err = t.notice(id)
	case dueCredit:
		err = t.creditDue(id)
	case dueHour:
		err = t.tellHour(id)
	case dueForget:
		more, err = t.forget()
	default:
		err = fmt.Errorf("unknown kind %q", kind)
	}
	return more, err
}

// expire does what is due to an escrow: it expires, or a refund request was not answered in time.
func (t *Tx) expire(e *Escrow) error {
	for e.over(t.Now()) {
		what := EscrowReleased
		if e.OnExpiry == ToPayer {
			what = EscrowRefunded
		}
		var err error
		switch {
		case e.Status == StatusOpen && e.Kind == KindQuality:
			if err = t.divideBy(e, e.Verdict, "the time to decide is up"); e.Status == StatusDisputed {
				what = EscrowDisputed
			}
		case e.Status == StatusOpen:
			err = t.sendRest(e, e.OnExpiry, "its time is up")
		case e.Served: // a refund without an answer is not granted if calls were served
			what = EscrowDisputed
			e.dispute("meter", "the refund request met silence, and a meter has served from this escrow")
		default:
			what = EscrowRefunded
			err = t.giveBack(e, e.RefundAsked, "the refund request met silence")
		}
		if err != nil {
			return err
		}
		if err := t.saveEscrow(e); err != nil {
			return err
		}
		if err := t.escrowEvent(what, *e); err != nil {
			return err
		}
	}
	return nil
}

// over reports whether an escrow has expired, or the time to answer its refund request is over.
func (e *Escrow) over(now time.Time) bool {
	at := e.dueAt()
	return !at.IsZero() && !at.After(now)
}
