package escrow

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// schedule is when the next thing falls due, as this process knows it: what keeps the look at the clock before each operation
// to the reading of one number. The due table itself is in the ledger.
type schedule struct {
	running sync.Mutex
	next    atomic.Int64  // Unix nanoseconds; zero: not looked up yet
	wake    chan struct{} // has room for one: something falls due sooner than was known
}

func newSchedule() *schedule { return &schedule{wake: make(chan struct{}, 1)} }

const never = math.MaxInt64

// soonest takes note of something that falls due; the zero time is never. It is called inside an operation, as it writes the
// due table, so that RunDue, which looks up the next inside an operation too, can't miss it.
func (s *schedule) soonest(at time.Time) {
	if at.IsZero() {
		return
	}
	for {
		next := s.next.Load()
		if next <= at.UnixNano() {
			return
		}
		if s.next.CompareAndSwap(next, at.UnixNano()) {
			break
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// catchUp does what is due, if anything is. What fails is tried again by the worker, which reports it, and keeps nobody from
// doing something else.
func (b *Book) catchUp(ctx context.Context) {
	s := b.shared.due
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
	b.shared.due.running.Lock()
	defer b.shared.due.running.Unlock()
	return b.runDue(ctx)
}

const (
	dueBatch = 64 // things done in one operation
	dueRetry = time.Minute
)

func (b *Book) runDue(ctx context.Context) (next time.Time, err error) {
	var failures []error
	for after := ""; ; {
		last, failed, err := b.runSome(ctx, after, &next)
		failures = append(failures, failed...)
		if err != nil {
			return time.Time{}, errors.Join(append(failures, err)...)
		}
		if last == "" {
			return next, errors.Join(failures...)
		}
		after = last
	}
}

// runSome does some of what is due, behind the key after, and returns the last key that it came to; empty at the end, when it has
// looked up the next.
func (b *Book) runSome(ctx context.Context, after string, next *time.Time) (last string, failed []error, err error) {
	err = b.ledger.Do(ctx, func(batch *ledger.Batch) error {
		t := b.tx(batch)
		keys, err := t.due(after)
		if err != nil {
			return err
		}
		for _, key := range keys {
			last = key
			if err := batch.Try(func() error { return t.runOne(key) }); err != nil {
				failed = append(failed, fmt.Errorf("doing what is due, %s: %w", dueTable.lastPart([]byte(key))[8:], err))
			}
		}
		if last == "" {
			return t.lookUpNext(next)
		}
		return nil
	})
	return last, failed, err
}

// due returns the keys of some things that are due.
func (t *Tx) due(after string) (keys []string, err error) {
	all := dueTable.under()
	all.To = dueTable.key(timeKey(t.Now().Add(1)))
	if after != "" {
		all.From = append([]byte(after), 0)
	}
	err = t.batch.Scan(all, func(key, _ []byte) (bool, error) {
		keys = append(keys, string(key))
		return len(keys) < dueBatch, nil
	})
	return keys, err
}

// runOne does one thing that is due. Whatever it comes to, its entry in the table is gone afterwards.
func (t *Tx) runOne(key string) error {
	what := dueTable.lastPart([]byte(key))[8:]
	kind, id := what[:1], what[1:]
	var err error
	switch kind {
	case dueEscrow:
		_, err = t.escrow(id)
	case dueSubscription:
		_, err = t.subscription(id)
	case dueNotice:
		err = t.notice(id)
	default:
		err = fmt.Errorf("unknown kind %q", kind)
	}
	if err != nil {
		return err
	}
	t.batch.Delete([]byte(key))
	return nil
}

// lookUpNext finds when the next thing falls due: a minute from now where something failed and is still there.
func (t *Tx) lookUpNext(next *time.Time) error {
	*next = time.Time{}
	err := t.batch.Scan(dueTable.under(), func(key, _ []byte) (bool, error) {
		*next = keyTime(dueTable.lastPart(key))
		return false, nil
	})
	if err != nil {
		return err
	}
	s := t.shared.due
	if next.IsZero() {
		s.next.Store(never)
		return nil
	}
	if !next.After(t.Now()) {
		*next = t.Now().Add(dueRetry)
	}
	s.next.Store(next.UnixNano())
	return nil
}

// expire does to an escrow what is due: its own time, or the silence after a refund request.
func (t *Tx) expire(e *Escrow) error {
	for {
		at := e.dueAt()
		if at.IsZero() || at.After(t.Now()) {
			return nil
		}
		what := escrowReleased
		if e.OnExpiry == ToPayer {
			what = escrowRefunded
		}
		var err error
		switch {
		case e.Status == Open:
			err = t.finish(e, e.OnExpiry, "its time is up")
		case e.Served: // what was served is not refunded in silence
			what = escrowDisputed
			e.dispute("meter", "the refund request met silence, and a meter has served from this escrow")
		default:
			what = escrowRefunded
			err = t.giveBack(e, e.RefundAsked, "the refund request met silence")
		}
		if err != nil {
			return err
		}
		if err := t.saveEscrow(e); err != nil {
			return err
		}
		if err := t.event(what, *e); err != nil {
			return err
		}
	}
}
