// Package ledger moves money, and is the only code that does: accounts with four counters, immutable transfers, holds, and atomic
// operations on a [Store]. It imports nothing else of Tallygate.
//
// A [Ledger] is made over a store by [New]. What changes the books is a function on a [Tx], given to [Do] or [Queue]: it posts transfers
// and puts the records that belong to them, all of it or nothing. Such functions run one after another, many to a commit, and perhaps
// more than once; see [Tx] for what that asks of them. What only sets money aside for a moment is a [Hold], in memory.
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
	session  Session
	memory   *memory
	applied  stateRecord // where the ledger stands by the last operation that was run: the writer's own

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
func (l *Ledger) Close() error {
	err := l.endSession()
	if errors.Is(err, ErrClosed) {
		err = nil // it was closed before
	}
	return errors.Join(err, l.store.Close())
}

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

// tick is Now for an operation: later ones will not be before it.
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

// Receipt tells how an operation ended, once it has, and what it came to.
type Receipt[T any] struct {
	done   chan struct{}
	result T
	err    error
}

// Done is closed when the operation has ended.
func (r *Receipt[T]) Done() <-chan struct{} { return r.done }

// Wait returns how the operation ended: with its result, where it is durable, or with the error that kept it from being so.
func (r *Receipt[T]) Wait() (T, error) {
	<-r.done
	return r.result, r.err
}

// Do runs op as one atomic operation, and returns its result when it is durable, or why it was refused. See [Tx] for what op may do: it
// may run more than once. ctx only bounds the waiting: an operation that was begun still takes place, so that an error of ctx says
// nothing about it. Where ctx has ended before, nothing is begun.
func Do[T any](ctx context.Context, l *Ledger, op func(*Tx) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, fmt.Errorf("the operation was not begun: %w", context.Cause(ctx))
	}
	r := Queue(l, op)
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for the ledger: %w", context.Cause(ctx))
	}
}

// Queue is [Do] without the waiting. Operations that one goroutine queues take place in their order.
func Queue[T any](l *Ledger, op func(*Tx) (T, error)) *Receipt[T] {
	o := &operation[T]{Receipt: Receipt[T]{done: make(chan struct{})}, run: op}
	o.tx.ledger = l
	if err := l.failure(); err != nil {
		o.end(err)
	} else {
		l.store.Submit(Op{Run: o.runIn, Undo: o.undo, Done: o.end})
	}
	return &o.Receipt
}

// operation is an operation on its way through the store.
type operation[T any] struct {
	Receipt[T]
	run func(*Tx) (T, error)
	tx  Tx // of the last run
}

func (o *operation[T]) runIn(w Writer) error {
	return o.tx.ledger.run(&o.tx, w, func() (err error) {
		o.result, err = o.run(&o.tx)
		return err
	})
}

func (o *operation[T]) undo() { o.tx.ledger.undo(&o.tx) }

func (o *operation[T]) end(err error) {
	o.tx.ledger.end(&o.tx, err)
	if err != nil {
		var none T
		o.result, o.err = none, err
	}
	o.run, o.tx = nil, Tx{} // the receipt may be kept for long
	close(o.done)
}

// run runs one operation, on the store's goroutine, for the first time or again.
func (l *Ledger) run(tx *Tx, w Writer, op func() error) (err error) {
	if err := l.failure(); err != nil {
		return err
	}
	state, err := readState(w)
	if err != nil {
		return l.damaged(err)
	}
	if err := l.takeIn(w, state); err != nil {
		return l.damaged(err)
	}
	*tx = Tx{ledger: l, w: w, now: l.tick(), before: l.applied, state: state, pinned: tx.pinned[:0], changes: tx.changes[:0], committed: tx.committed[:0]}
	completed := false
	defer func() {
		if err != nil || !completed { // op panicked
			tx.unpin(false)
		}
	}()
	err = tx.Try(op)
	completed = true
	if err != nil {
		return l.damaged(err)
	}
	if tx.dirty {
		tx.state.Time = tx.now.UnixNano()
		w.Put(stateKey, encode(tx.state))
	}
	l.applied = tx.state
	return nil
}

// undo takes back what an operation that ran has changed in memory.
func (l *Ledger) undo(tx *Tx) {
	tx.rollback(0)
	tx.unpin(false)
	l.applied = tx.before
}

// end takes note of how an operation ended, before anybody is told.
func (l *Ledger) end(tx *Tx, err error) {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrUnavailable) {
		l.stop(err)
	}
	if err != nil {
		return // it changed nothing, or that was taken back
	}
	tx.unpin(true)
	for _, fn := range tx.committed {
		fn()
	}
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
	err := l.View(func(r Reader) (err error) {
		l.applied, err = readState(r)
		return err
	})
	if err == nil {
		err = l.memory.reload(l.committed)
	}
	if err != nil {
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
