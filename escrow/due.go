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

	"github.com/tallygate/tallygate/escrow/ledger"
)

// schedule is when the next thing falls due, as this process knows it: what keeps the look at the clock before each operation
// to the reading of one number. The due table itself is in the ledger.
type schedule struct {
	running sync.Mutex
	next    atomic.Int64 // Unix nanoseconds; zero: not looked up yet
}

const never = math.MaxInt64

// soonest takes note of something that falls due; the zero time is never. It is called inside an operation, as it writes the
// due table, so that RunDue, which looks up the next inside an operation too, can't miss it.
func (s *schedule) soonest(at time.Time) {
	if at.IsZero() {
		return
	}
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

func (b *Book) runDue(ctx context.Context) (time.Time, error) {
	failed := map[string]error{}
	var next time.Time // which an operation that nobody waits for any longer may still set
	for more := true; more; {
		err := b.ledger.Do(ctx, func(batch *ledger.Batch) (err error) {
			more, err = b.tx(batch).runSome(failed)
			if err == nil && !more {
				err = b.tx(batch).lookUpNext(failed, &next)
			}
			return err
		})
		if err != nil {
			return time.Time{}, err
		}
	}
	return next, errors.Join(slices.Collect(maps.Values(failed))...)
}

// runSome does some of what is due, in the order of its times, but for what has failed. Things that are done may make others due,
// at once or in between. more is true where it may have left some.
func (t *Tx) runSome(failed map[string]error) (more bool, err error) {
	for range dueBatch {
		key, err := t.firstDue(failed)
		if err != nil || key == "" {
			return false, err
		}
		if err := t.batch.Try(func() error { return t.runOne(key) }); err != nil {
			failed[key] = fmt.Errorf("doing what is due, %s: %w", dueTable.lastPart([]byte(key))[8:], err)
		}
	}
	return true, nil
}

// firstDue returns the key of the first thing that is due and has not failed, empty where there is none.
func (t *Tx) firstDue(failed map[string]error) (first string, err error) {
	all := dueTable.under()
	all.To = dueTable.key(timeKey(t.Now().Add(1)))
	err = t.batch.Scan(all, func(key, _ []byte) (bool, error) {
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
		t.batch.Delete([]byte(key))
	}
	return err
}

// lookUpNext finds when the next thing falls due: at the latest a minute from now where something has failed.
func (t *Tx) lookUpNext(failed map[string]error, next *time.Time) error {
	*next = time.Time{}
	err := t.batch.Scan(dueTable.under(), func(key, _ []byte) (bool, error) {
		if failed[string(key)] == nil {
			*next = keyTime(dueTable.lastPart(key))
		}
		return next.IsZero(), nil
	})
	if err != nil {
		return err
	}
	if retry := t.Now().Add(dueRetry); len(failed) > 0 && (next.IsZero() || retry.Before(*next)) {
		*next = retry
	}
	if next.IsZero() {
		t.shared.due.next.Store(never)
	} else {
		t.shared.due.next.Store(next.UnixNano())
	}
	return nil
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
		case e.Status == Open && e.Kind == KindQuality:
			if err = t.divideBy(e, e.Verdict, "the time to decide is up"); e.Status == Disputed {
				what = EscrowDisputed
			}
		case e.Status == Open:
			err = t.finish(e, e.OnExpiry, "its time is up")
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
