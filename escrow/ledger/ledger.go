// Package ledger is a double-entry ledger, and the only code of Tallygate that moves money. It has accounts with four counters, transfers
// that never change, holds, and atomic operations on a [Store]. It imports no other package of Tallygate.
//
// To begin, open a store (such as escrow/ledger/bolt, or ledgertest.NewStore for tests), and pass it to [New]. To change the books, pass
// a function to [Do]. The function gets a [Tx]; with it it posts transfers and puts the records that belong to them. Either all of this is
// committed, or nothing. Operations run one after another, and many of them share one commit. An operation may run more than once: see
// [Tx] for what it must not do. [Queue] is like [Do], but does not wait. To set money aside for a short time, without writing, use
// [Ledger.Hold].
package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Options are the settings of a ledger.
type Options struct {
	// Now is the clock. The default is time.Now.
	Now func() time.Time
	// Currency is the label of all amounts. A new ledger stores it. Later it must be the same, or empty, which accepts the stored one;
	// otherwise New returns ErrCurrency.
	Currency string
	// Logger gets the messages for the operator. The default is slog.Default.
	Logger *slog.Logger
	// Lifetime is for a [Shared] store: if a process shows no sign of life for so long, the others end its session. It must be the same for
	// all processes. The default is 10s. If it is negative, the ledger does not call [Ledger.Tend] by itself, and sessions never end by
	// themselves.
	Lifetime time.Duration
	// Elapsed is the monotonic clock by which signs of life are judged. The default is the time since the ledger was opened.
	Elapsed func() time.Duration
	// Untended means that the caller calls [Ledger.Tend], and that nothing waits for other processes. It is for tests.
	Untended bool
}

// Ledger keeps the books in one store. Its methods may be called from any goroutine.
type Ledger struct {
	store    Store
	now      func() time.Time
	logger   *slog.Logger
	currency string
	shared   bool // with other processes
	session  Session
	memory   *memory
	elapsed  func() time.Duration
	tending  tending
	patience time.Duration // how long this process waits for leases that it has recalled
	applied  applied       // what the last operation that ran has left; used by the writer only
	answered applied       // if the ledger is shared: what the last operation has left that is durable; used by the writer only
	known    decoded       // used by the writer only

	reopening sync.Mutex

	mu       sync.Mutex
	last     time.Time // of the last operation that ran
	stopped  error     // why operations are refused until Reopen: a commit failed
	readOnly error     // why operations are refused for good: the books were found wrong
}

// applied is the state after an operation. To find out whether the history goes on from there, a process that shares its ledger also knows the
// last transfer.
type applied struct {
	stateRecord
	last [32]byte // SHA-256 of the record of the last transfer, or zero
}

// New opens the ledger in a store. In an empty store it begins a new ledger.
func New(s Store, o Options) (*Ledger, error) {
	_, shared := s.(Shared)
	l := &Ledger{store: s, shared: shared, now: o.Now, logger: o.Logger, memory: newMemory(shared), elapsed: o.Elapsed}
	if l.now == nil {
		l.now = time.Now
		if c, ok := s.(Clock); ok {
			l.now = c.Now
		}
	}
	if l.elapsed == nil {
		begin := time.Now()
		l.elapsed = func() time.Duration { return time.Since(begin) }
	}
	if l.logger == nil {
		l.logger = slog.Default()
	}
	if lasting, ok := s.(Lasting); ok && o.Lifetime == 0 {
		o.Lifetime = lasting.Lifetime()
	}
	l.tending = newTending(o.Lifetime)
	if err := l.open(o.Currency, current); err != nil {
		return nil, err
	}
	if !o.Untended {
		l.patience = recallWait
	}
	if begun := l.Session() != (Session{}); shared && begun && o.Lifetime >= 0 && !o.Untended {
		l.tending.running.Go(l.tendUntilClosed)
	}
	return l, nil
}

// Currency returns the label of the ledger's amounts.
func (l *Ledger) Currency() string { return l.currency }

// Close commits the queued operations and closes the store.
func (l *Ledger) Close() error {
	l.tending.end()
	err := l.endSession()
	if errors.Is(err, ErrClosed) {
		err = nil // the ledger was closed before
	}
	return errors.Join(err, l.store.Close())
}

// Now returns the ledger's time in UTC. It is the clock's time, but never earlier than the time of an operation that already ran.
func (l *Ledger) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().UTC()
	if now.Before(l.last) {
		return l.last
	}
	return now
}

// tick returns Now for an operation. Later operations never get an earlier time.
func (l *Ledger) tick() time.Time {
	now := l.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	return now
}

// failure returns the reason why operations are refused, or nil.
func (l *Ledger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readOnly != nil {
		return l.readOnly
	}
	return l.stopped
}

// Err returns nil if the ledger accepts operations. After a failed commit it returns an error that wraps [ErrUnavailable]. If the books
// were found wrong, it returns an error that wraps [ErrReadOnly].
func (l *Ledger) Err() error { return l.failure() }

// broke makes the ledger read-only, because an invariant does not hold.
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

// damaged makes the ledger read-only if err is about a damaged record, since nothing that depends on that record can be trusted.
func (l *Ledger) damaged(err error) error {
	if errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrReadOnly) {
		return l.broke(err)
	}
	return err
}

// wrong makes the ledger read-only, because a run found that an invariant does not hold. If the run's reads are in doubt, it ends the run.
func (l *Ledger) wrong(r Reader, finding error) error {
	if doubt(r) {
		panic(ErrRunAgain)
	}
	return l.broke(finding)
}

// judge is like damaged, for the error of a run. If the run's reads are in doubt, the ledger does not become read-only.
func (l *Ledger) judge(r Reader, err error) error {
	if errors.Is(err, ErrCorrupt) && doubt(r) {
		return ErrRunAgain
	}
	return l.damaged(err)
}

// Receipt gives the result of a queued operation, once the operation has ended.
type Receipt[T any] struct {
	done   chan struct{}
	result T
	err    error
	lacks  []lack // if err is for lack of something: what other processes have leases of
}

// Done is closed when the operation has ended.
func (r *Receipt[T]) Done() <-chan struct{} { return r.done }

// Wait waits until the operation has ended. It returns the result if the operation is durable, otherwise the error.
func (r *Receipt[T]) Wait() (T, error) {
	<-r.done
	return r.result, r.err
}

// Do runs op as one atomic operation. It returns op's result once the operation is durable, or the error. op may run more than once: see
// [Tx] for what it must not do. If ctx has already ended, op does not run. If ctx ends later, Do stops waiting, but the operation still
// takes place: an error of ctx does not tell whether it succeeded.
func Do[T any](ctx context.Context, l *Ledger, op func(*Tx) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, fmt.Errorf("the operation was not begun: %w", context.Cause(ctx))
	}
	var r *Receipt[T]
	try := func() (ended bool) {
		r = Queue(l, op)
		select {
		case <-r.done:
			return len(r.lacks) == 0
		case <-ctx.Done():
			return true
		}
	}
	if !try() && l.recall(ctx, r.lacks) {
		if !l.awaitLeases(ctx, namesOf(r.lacks), try) && ctx.Err() == nil {
			try()
		}
	}
	select {
	case <-r.done:
		return r.result, r.err
	default:
		return none, fmt.Errorf("waiting for the ledger: %w", context.Cause(ctx))
	}
}

func namesOf(lacks []lack) (names []string) {
	for _, lack := range lacks {
		if !slices.Contains(names, lack.name) {
			names = append(names, lack.name)
		}
	}
	return names
}

// recall asks the other processes for what they have leased of that of which there is too little for an operation.
func (l *Ledger) recall(ctx context.Context, lacks []lack) bool {
	receipt := Queue(l, func(tx *Tx) (struct{}, error) {
		for _, lack := range lacks {
			if err := lack.recall(tx); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	select {
	case <-receipt.done:
		return receipt.err == nil
	case <-ctx.Done():
		return false
	}
}

// Queue is like [Do], but does not wait. Operations that one goroutine queues run in the order in which it queued them.
func Queue[T any](l *Ledger, op func(*Tx) (T, error)) *Receipt[T] {
	o := &operation[T]{Receipt: Receipt[T]{done: make(chan struct{})}, run: op}
	o.tx.ledger = l
	if o.refused = l.failure(); o.refused != nil {
		o.end(o.refused)
	} else {
		l.store.Submit(Op{Run: o.runIn, Undo: o.undo, Done: o.end})
	}
	return &o.Receipt
}

// operation is an operation on its way through the store.
type operation[T any] struct {
	Receipt[T]
	run     func(*Tx) (T, error)
	tx      Tx    // the Tx of the last run
	refused error // by the ledger itself, in the last run or before
}

func (o *operation[T]) runIn(w Writer) error {
	if o.refused = o.tx.ledger.failure(); o.refused != nil {
		return o.refused
	}
	return o.tx.ledger.run(&o.tx, w, func() (err error) {
		o.result, err = o.run(&o.tx)
		return err
	})
}

func (o *operation[T]) undo() { o.tx.ledger.undo(&o.tx) }

func (o *operation[T]) end(err error) {
	// That the ledger took no operations is no reason to stop it: it may have been reopened meanwhile.
	if o.refused == nil || !errors.Is(err, o.refused) {
		o.tx.ledger.end(&o.tx, err)
	}
	if err != nil {
		var none T
		o.result, o.err, o.lacks = none, err, o.tx.lacks
	}
	o.run, o.tx = nil, Tx{} // the caller may keep the receipt for long
	close(o.done)
}

// run runs one operation, for the first time or again. It is called on the store's goroutine.
func (l *Ledger) run(tx *Tx, w Writer, op func() error) (err error) {
	session := l.Session()
	state, sessions, err := l.takeIn(w, session)
	if err != nil {
		return l.judge(w, err)
	}
	*tx = Tx{ledger: l, w: w, now: l.tick(), before: l.applied, state: state.stateRecord, last: state.last, session: session, sessions: sessions, pinned: tx.pinned[:0], changes: tx.changes[:0], committed: tx.committed[:0]}
	completed := false
	defer func() {
		if err != nil || !completed { // op panicked
			tx.unpin(false)
		}
	}()
	err = tx.Try(op)
	completed = true
	if err != nil {
		return l.judge(w, err)
	}
	if tx.dirty {
		tx.state.Time = tx.now.UnixNano()
		value := encode(&tx.state)
		w.Put(stateKey, value)
		l.known.keepState(tx.state, value)
	}
	l.applied = applied{tx.state, tx.last}
	return nil
}

// undo takes back the changes in memory of an operation that ran.
func (l *Ledger) undo(tx *Tx) {
	tx.rollback(0)
	tx.unpin(false)
	l.applied = tx.before
}

// end records how an operation ended, before its caller is told.
func (l *Ledger) end(tx *Tx, err error) {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrUnavailable) {
		l.stop(err)
	}
	if err != nil {
		return // the operation changed nothing, or its changes were taken back
	}
	if l.shared {
		l.answered = applied{tx.state, tx.last}
	}
	tx.unpin(true)
	for _, fn := range tx.committed {
		fn()
	}
}

// stop refuses operations after a failed commit.
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

// Reopen makes the ledger accept operations again after a failed commit. The store goes on from the state that is durable now. Holds keep
// the amounts that they had when the commit failed. To find out what became of an operation that ended with [ErrOutcomeUnknown], look
// for a record that it puts. If the store can't be reopened, Reopen returns the reason and changes nothing.
//
// If other processes have ended this one's session meanwhile, Reopen begins a new one. Then all holds are lost; see [Hold.Lost].
func (l *Ledger) Reopen() error {
	l.reopening.Lock()
	defer l.reopening.Unlock()
	l.mu.Lock()
	stopped := l.stopped
	l.mu.Unlock()
	if stopped == nil {
		return nil // no commit failed, or another caller has reopened the ledger
	}
	if store, ok := l.store.(Reopener); ok {
		if err := store.Reopen(); err != nil {
			return fmt.Errorf("reopening the ledger: %w", err)
		}
	} else if !errors.Is(stopped, errSessionOver) {
		return fmt.Errorf("%w: this store can't be reopened; restart", ErrUnavailable)
	}
	// Operations are refused until l.stopped is cleared, so no account changes while it is read again.
	err := l.View(func(r Reader) (err error) {
		l.applied, err = l.readApplied(r)
		l.answered = l.applied
		return err
	})
	if err == nil {
		err = l.resumeSession()
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

// View calls fn with a reader of the records as last committed.
func (l *Ledger) View(fn func(Reader) error) error { return l.damaged(l.store.View(fn)) }

// Look is like [Ledger.View], for fn that reads few records. It may be quicker, but each record is read as of the last commit at that moment,
// so two records need not be of the same commit.
func (l *Ledger) Look(fn func(Reader) error) error {
	switch store := l.store.(type) {
	case Looker:
		return l.damaged(fn(looking{store, l.store}))
	case Recent:
		return l.damaged(store.Recent(fn))
	default:
		return l.View(fn)
	}
}

// Peek calls read with the value of a record as last committed. It does not if there is no such record. The value must not be changed or kept.
func (l *Ledger) Peek(key []byte, read func(value []byte) error) error {
	value, err := l.peek(key)
	if err == nil && value != nil {
		err = read(value)
	}
	return l.damaged(err)
}

func (l *Ledger) peek(key []byte) ([]byte, error) {
	if store, ok := l.store.(Looker); ok {
		return store.Look(key)
	}
	var value []byte
	err := l.Look(func(r Reader) error {
		found, err := r.Get(key)
		value = bytes.Clone(found)
		return err
	})
	return value, err
}

// looking reads records one by one.
type looking struct {
	Looker
	store Store
}

// Get implements [Reader].
func (r looking) Get(key []byte) ([]byte, error) { return r.Look(key) }

// Scan implements [Reader].
func (r looking) Scan(in Range, fn func(key, value []byte) (bool, error)) error {
	return r.store.View(func(r Reader) error { return r.Scan(in, fn) })
}

// Elapsed returns the time by the monotonic clock by which sessions and leases are judged.
func (l *Ledger) Elapsed() time.Duration { return l.elapsed() }

// IsShared reports whether other processes may have the ledger open.
func (l *Ledger) IsShared() bool { return l.shared }

func (l *Ledger) committed(id AccountID) (account Account, err error) {
	err = l.Look(func(r Reader) error {
		account, err = ReadAccount(r, id)
		return err
	})
	return account, err
}

// own returns what this process may spend of an account, as last committed: all that is available, or its lease if the ledger is shared.
func (l *Ledger) own(id AccountID) (Amount, error) {
	if !l.shared {
		account, err := l.committed(id)
		return account.Available(), err
	}
	var own Amount
	err := l.View(func(r Reader) error {
		all, err := readLeases(r, id, []Session{l.Session()})
		own, _ = all.split(l.Session())
		return err
	})
	return own, err
}
