package escrow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// schedule is when the next thing falls due, as this process knows it: what keeps the look at the clock before each operation
// to the reading of one number. The due table itself is in the ledger.
type schedule struct {
	running sync.Mutex
	next    atomic.Int64 // Unix nanoseconds; zero: not looked up yet
}

const never = math.MaxInt64

// soonest has the schedule take note of something that falls due, when the operation that wrote it into the due table is durable; the
// zero time is never. What is looked up by lookUpNext is taken note of in the same order, so that neither misses the other.
func (t *Tx) soonest(at time.Time) {
	if !at.IsZero() {
		due := t.process.due
		t.ledger.OnCommit(func() { due.soonest(at) })
	}
}

func (s *schedule) soonest(at time.Time) {
	for {
		next := s.next.Load()
		if next <= at.UnixNano() || s.next.CompareAndSwap(next, at.UnixNano()) {
			return
		}
	}
}

// catchUp does what is due, if anything is. What fails is tried again by the worker, which reports it, and keeps nobody from
// doing something else.
func (b *Book) catchUp(ctx context.Context) {
	s := b.process.due
	if s.next.Load() > b.Now().UnixNano() {
		return
	}
	s.running.Lock()
	defer s.running.Unlock()
	if s.next.Load() <= b.Now().UnixNano() {
		_, _ = b.runDue(ctx)
	}
}

// RunDue does all that is due: auto-releases, refund windows, renewals. It returns when the next thing is due (zero: nothing is).
// Each is done exactly once, whoever else runs this. What fails is left for a minute later, and reported.
func (b *Book) RunDue(ctx context.Context) (next time.Time, err error) {
	b.process.due.running.Lock()
	defer b.process.due.running.Unlock()
	return b.runDue(ctx)
}

const (
	dueTogether = 64 // things done in one operation
	dueRetry    = time.Minute
)

func (b *Book) runDue(ctx context.Context) (time.Time, error) {
	failed := map[string]error{}
	for {
		run, err := do(ctx, b, func(t *Tx) (dueRun, error) { return t.runSome(failed) })
		if err != nil {
			return time.Time{}, err
		}
		maps.Copy(failed, run.failed)
		if !run.more {
			return run.next, errors.Join(slices.Collect(maps.Values(failed))...)
		}
	}
}

// dueRun is what came of doing some of what is due.
type dueRun struct {
	failed map[string]error // by the key in the due table
	more   bool             // some of it may be left
	next   time.Time        // where nothing is left: when the next thing falls due; zero: nothing does
}

// runSome does some of what is due, in the order of its times, but for what has failed. Things that are done may make others due,
// at once or in between.
func (t *Tx) runSome(failedBefore map[string]error) (dueRun, error) {
	failed := maps.Clone(failedBefore)
	for range dueTogether {
		key, err := t.firstDue(failed)
		if err != nil {
			return dueRun{}, err
		}
		if key == "" {
			next, err := t.lookUpNext(failed)
			return dueRun{failed: failed, next: next}, err
		}
		if err := t.ledger.Try(func() error { return t.runOne(key) }); err != nil {
			failed[key] = fmt.Errorf("doing what is due, %s: %w", dueTable.lastPart([]byte(key))[8:], err)
		}
	}
	return dueRun{failed: failed, more: true}, nil
}

// firstDue returns the key of the first thing that is due and has not failed, empty where there is none.
func (t *Tx) firstDue(failed map[string]error) (first string, err error) {
	all := dueTable.under()
	all.To = dueTable.key(timeKey(t.Now().Add(1)))
	err = t.ledger.Scan(all, func(key, _ []byte) (bool, error) {
		if failed[string(key)] != nil {
			return true, nil
		}
		first = string(key)
		return false, nil
	})
	return first, err
}

// runOne does one thing that is due. When it is done, its entry in the table is gone.
func (t *Tx) runOne(key string) error {
	what := dueTable.lastPart([]byte(key))[8:]
	kind, id := what[:1], what[1:]
	var more bool
	var err error
	switch kind {
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
	if err == nil && !more {
		t.ledger.Delete([]byte(key))
	}
	return err
}

// lookUpNext finds when the next thing falls due: at the latest a minute from now where something has failed.
func (t *Tx) lookUpNext(failed map[string]error) (next time.Time, err error) {
	err = t.ledger.Scan(dueTable.under(), func(key, _ []byte) (bool, error) {
		if failed[string(key)] == nil {
			next = keyTime(dueTable.lastPart(key))
		}
		return next.IsZero(), nil
	})
	if err != nil {
		return time.Time{}, err
	}
	if retry := t.Now().Add(dueRetry); len(failed) > 0 && (next.IsZero() || retry.Before(next)) {
		next = retry
	}
	at := int64(never)
	if !next.IsZero() {
		at = next.UnixNano()
	}
	due := t.process.due
	t.ledger.OnCommit(func() { due.next.Store(at) })
	return next, nil
}

// expire does to an escrow what is due: its own time, or the silence after a refund request.
func (t *Tx) expire(e *Escrow) error {
	for {
		at := e.dueAt()
		if at.IsZero() || at.After(t.Now()) {
			return nil
		}
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
}
