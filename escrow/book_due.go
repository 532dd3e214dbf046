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
// Things that fall due belong to the agent who pays for them, and agents take turns: whoever has many things due keeps nobody else's
// waiting. The due table has the things of each agent in the order of their times. The turns have for each agent the time of the first of
// them; while more of an agent's are due, its next turn is behind those who wait already.

// The kinds of things that fall due, in the keys of the due table.
const (
	dueEscrow       = "e"
	dueSubscription = "s"
	dueNotice       = "n" // an event that announces something
	dueForget       = "f" // idempotency keys that are old; nobody's
)

const (
	dueTogether = 16 // things done in one operation, so that calls which settle meanwhile wait for no more
	dueAtOnce   = 64 // such operations in one RunDue
	dueRetry    = time.Minute
)

// dueKey is the entry of something that falls due.
func dueKey(owner string, at time.Time, what string) []byte {
	return dueTable.key(owner, timeKey(at)+what)
}

// fallsDue enters something that falls due.
func (t *Tx) fallsDue(owner string, at time.Time, what string) error {
	t.ledger.Put(dueKey(owner, at, what), []byte{})
	return t.turnBy(owner, at)
}

// turnBy has an agent's turn come at a time, or before.
func (t *Tx) turnBy(owner string, at time.Time) error {
	now, err := t.ledger.Get(turnOf.key(owner))
	if err != nil || now != nil && string(now) <= timeKey(at) {
		return err
	}
	t.setTurn(owner, string(now), timeKey(at))
	return nil
}

// setTurn moves an agent's turn from one time to another; empty: there was none, or there is to be none.
func (t *Tx) setTurn(owner, from, to string) {
	if from != "" {
		t.ledger.Delete(turnTable.key(from + owner))
	}
	if to == "" {
		t.ledger.Delete(turnOf.key(owner))
		return
	}
	t.ledger.Put(turnTable.key(to+owner), []byte{})
	t.ledger.Put(turnOf.key(owner), []byte(to))
}

// RunDue does what is due: auto-releases, refund windows, renewals, notices; so much of it, if there is very much. It returns when to call it
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
		owner, at, err := t.firstTurn()
		if err != nil || at.IsZero() || at.After(t.Now()) {
			return dueRun{failed: run.failed, next: at}, err
		}
		failed, err := t.takeTurn(owner, timeKey(at))
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

// firstTurn is whose turn comes first, and when; the zero time where there is no turn.
func (t *Tx) firstTurn() (owner string, at time.Time, err error) {
	err = t.ledger.Scan(turnTable.under(), func(key, _ []byte) (bool, error) {
		turn := turnTable.lastPart(key)
		owner, at = turn[8:], keyTime(turn)
		return false, nil
	})
	return owner, at, err
}

// takeTurn does the first thing of an agent that is due. failed is why it could not be done: then it is due again later.
func (t *Tx) takeTurn(owner, turn string) (failed, err error) {
	what, at, err := t.firstDue(owner)
	if err != nil {
		return nil, err
	}
	if !at.IsZero() && !at.After(t.Now()) {
		var more bool
		failed = t.ledger.Try(func() (err error) { more, err = t.runOne(what); return err })
		if failed != nil {
			failed = fmt.Errorf("doing what is due of %q, %s: %w", owner, what, failed)
			t.ledger.Put(dueKey(owner, t.Now().Add(dueRetry), what), []byte{})
		}
		if failed != nil || !more {
			t.ledger.Delete(dueKey(owner, at, what))
		}
		if _, at, err = t.firstDue(owner); err != nil {
			return nil, err
		}
	}
	now, err := t.ledger.Get(turnOf.key(owner))
	if err != nil {
		return nil, err
	}
	t.ledger.Delete(turnTable.key(turn + owner))
	next := ""
	if !at.IsZero() {
		next = timeKey(later(at, t.Now()))
	}
	t.setTurn(owner, string(now), next)
	return failed, nil
}

// firstDue is the first thing of an agent that falls due, and when; the zero time where there is none.
func (t *Tx) firstDue(owner string) (what string, at time.Time, err error) {
	err = t.ledger.Scan(dueTable.under(owner), func(key, _ []byte) (bool, error) {
		last := dueTable.lastPart(key, owner)
		what, at = last[8:], keyTime(last)
		return false, nil
	})
	return what, at, err
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
