package escrow

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What happens by the clock alone is done by a worker, [Book.RunDue], and not by whoever comes next: no request waits for it. What a
// request looks at itself, an escrow or a subscription, it brings up to date first.
//
// Things that fall due belong to the agent who pays for them, and agents take turns at them.

// The kinds of things that fall due, in the keys of the due table.
const (
	dueEscrow       = "e"
	dueSubscription = "s"
	dueNotice       = "n" // an event that announces something
	dueCredit       = "c"
	dueForget       = "f" // idempotency keys that are old; nobody's
)

const (
	dueTogether = 16 // things done in one operation, so that calls which settle meanwhile wait for no more
	dueAtOnce   = 64 // such operations in one RunDue
	dueRetry    = time.Minute
)

// fallsDue enters something that falls due.
func (t *Tx) fallsDue(owner string, at time.Time, what string) error {
	t.ledger.Put(dueTurns.key(owner, at, what), []byte{})
	return dueTurns.by(t, owner, at)
}

// RunDue does what is due: auto-releases, refund windows, renewals, credit that expires, notices; so much of it, if there is very much. It returns when to call it
// again (zero: nothing is going to be due). Each thing is done exactly once, whoever else runs this. What fails is tried again a minute later,
// and reported in the error.
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

// dueRun is what came of doing some of what is due.
type dueRun struct {
	failed []error
	more   bool      // some of it may be left
	next   time.Time // when the next thing falls due; zero: nothing does
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

// runFirst does the first thing of an agent that is due. failed is why it could not be done: then it is due again later.
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

// runOne does one thing that is due. more is true where some of it is left.
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
	case dueForget:
		more, err = t.forget()
	default:
		err = fmt.Errorf("unknown kind %q", kind)
	}
	return more, err
}

// expire does to an escrow what is due: its own time, or the silence after a refund request.
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
		case e.Served: // what was served is not refunded in silence
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

// over reports whether the time of an escrow is up, or that of a refund request, so that something is due.
func (e *Escrow) over(now time.Time) bool {
	at := e.dueAt()
	return !at.IsZero() && !at.After(now)
}
