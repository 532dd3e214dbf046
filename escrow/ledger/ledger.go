// Package ledger moves money, and is the only code that does: accounts with four counters, immutable transfers, holds, and
// atomic batches on a [Store]. It imports nothing else of Tallygate.
//
// A [Ledger] is made over a store by [New]. What changes the books is a function on a [Batch], given to [Ledger.Do] or
// [Ledger.Queue]: it posts transfers and puts the records that belong to them, all of it or nothing. Such functions run one after
// another, many to a commit, and must not call the ledger's own methods that wait. What only sets money aside for a moment is a
// [Hold], in memory.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Options are what a ledger is made with.
type Options struct {
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Currency labels the amounts. It is kept in the ledger at its creation; another one is refused with ErrCurrency. Empty
	// accepts what an existing ledger has.
	Currency string
	// Logger takes what an operator must know; default slog.Default.
	Logger *slog.Logger
}

// Ledger is the books on one store. Its methods may be called from any goroutine.
type Ledger struct {
	store    Store
	now      func() time.Time
	logger   *slog.Logger
	currency string
	memory   *memory

	reopening sync.Mutex

	mu       sync.Mutex
	last     time.Time // of the last operation applied
	stopped  error     // why no money is taken: a failed commit
	readOnly error     // why no money is ever taken again: the books were found wrong
}

// New opens the books on a store, or begins them where the store is empty.
func New(s Store, o Options) (*Ledger, error) {
	l := &Ledger{store: s, now: o.Now, logger: o.Logger, memory: newMemory()}
	if l.now == nil {
		l.now = time.Now
	}
	if l.logger == nil {
		l.logger = slog.Default()
	}
	if err := l.open(o.Currency, current); err != nil {
		return nil, err
	}
	return l, nil
}

// Currency returns the label of the ledger's amounts.
func (l *Ledger) Currency() string { return l.currency }

// Close commits what is queued and closes the store.
func (l *Ledger) Close() error { return l.store.Close() }

// Now is the ledger's time, UTC: the clock's, but never before that of an operation already applied.
func (l *Ledger) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().UTC()
	if now.Before(l.last) {
		return l.last
	}
	return now
}

// tick is Now for a batch: later ones will not be before it.
func (l *Ledger) tick() time.Time {
	now := l.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	return now
}

// failure returns why no money is taken, nil while it is.
func (l *Ledger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readOnly != nil {
		return l.readOnly
	}
	return l.stopped
}

// Err returns why the ledger takes no operations, nil while it does: an error that wraps [ErrUnavailable] after a failed commit, or
// [ErrReadOnly] since the books were found wrong.
func (l *Ledger) Err() error { return l.failure() }

// broke turns the ledger read-only since an invariant does not hold.
func (l *Ledger) broke(finding error) error {
	err := fmt.Errorf("%w since its books are wrong: %w; run 'ledger verify'", ErrReadOnly, finding)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readOnly == nil {
		l.readOnly = err
		l.logger.Error("the ledger is read-only: its books are wrong", "error", finding)
	}
	return err
}

// damaged turns the ledger read-only where err is of a record that is not what was written: what stands on it can't be trusted.
func (l *Ledger) damaged(err error) error {
	if errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrReadOnly) {
		return l.broke(err)
	}
	return err
}

// Receipt answers when an operation is durable.
type Receipt struct {
	done chan struct{}
	err  error
}

// Done is closed when the operation has ended.
func (r *Receipt) Done() <-chan struct{} { return r.done }

// Wait returns how the operation ended: nil means that it is durable.
func (r *Receipt) Wait() error {
	<-r.done
	return r.err
}

// Do runs op as one atomic operation and returns when it is durable, or refused. ctx only bounds the waiting: an operation that
// was begun still takes place, so that an error of ctx says nothing about it. Where ctx has ended before, nothing is begun.
func (l *Ledger) Do(ctx context.Context, op func(*Batch) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("the operation was not begun: %w", context.Cause(ctx))
	}
	r := l.Queue(op)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the ledger: %w", context.Cause(ctx))
	}
}

// Queue is [Ledger.Do] without the waiting. Operations that one goroutine queues take place in their order.
func (l *Ledger) Queue(op func(*Batch) error) *Receipt {
	r := &Receipt{done: make(chan struct{})}
	if err := l.failure(); err != nil {
		r.err = err
		close(r.done)
		return r
	}
	var b *Batch
	l.store.Submit(
		func(w Writer) (err error) {
			b = &Batch{ledger: l, w: w, touches: make(map[AccountID]*touch)}
			return l.run(b, op)
		},
		func(err error) {
			if err != nil && (errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrUnavailable)) {
				l.stop(err)
			}
			if b != nil {
				if err != nil {
					b.rollback(0) // the group failed after the batch had succeeded
				}
				b.unpin()
			}
			r.err = err
			close(r.done)
		})
	return r
}

// run applies one operation, on the store's goroutine.
func (l *Ledger) run(b *Batch, op func(*Batch) error) error {
	if err := l.failure(); err != nil {
		return err
	}
	state, err := readState(b.w)
	if err != nil {
		return l.damaged(err)
	}
	b.state = state
	b.now = l.tick()
	if err := b.Try(func() error { return op(b) }); err != nil {
		return l.damaged(err)
	}
	if b.dirty {
		b.state.Time = b.now.UnixNano()
		b.w.Put(stateKey, encode(b.state))
	}
	b.publish()
	return nil
}

// stop takes no more money after a failed commit.
func (l *Ledger) stop(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped != nil {
		return
	}
	l.stopped = cause
	if !errors.Is(cause, ErrUnavailable) {
		l.stopped = fmt.Errorf("%w since a commit failed: %v", ErrUnavailable, cause)
	}
	l.logger.Error("the ledger takes no operations: a commit failed", "error", cause)
}

// Reopen takes money again after a failed commit: the store goes on from what is durable now. Holds keep what they held when the
// commit failed. What became of an operation whose outcome is unknown, the records say that it was to put. Where the store can't be
// reopened the error says why, and everything stays as it is.
func (l *Ledger) Reopen() error {
	l.reopening.Lock()
	defer l.reopening.Unlock()
	l.mu.Lock()
	stopped := l.stopped
	l.mu.Unlock()
	if stopped == nil {
		return nil // or it was another caller who reopened it
	}
	store, ok := l.store.(Reopener)
	if !ok {
		return fmt.Errorf("%w: this store can't be reopened; restart", ErrUnavailable)
	}
	if err := store.Reopen(); err != nil {
		return fmt.Errorf("reopening the ledger: %w", err)
	}
	// Until l.stopped is cleared operations are turned away, so that no account changes while it is read again.
	if err := l.memory.reload(l.committed); err != nil {
		return fmt.Errorf("reopening the ledger: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = nil
	l.logger.Info("the ledger is open again")
	return nil
}

// View calls fn with the records as last committed.
func (l *Ledger) View(fn func(Reader) error) error { return l.damaged(l.store.View(fn)) }

func (l *Ledger) committed(id AccountID) (account Account, err error) {
	err = l.View(func(r Reader) error {
		account, err = ReadAccount(r, id)
		return err
	})
	return account, err
}
