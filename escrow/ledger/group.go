package ledger

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"sync"
)

// Tx is one write transaction of a store's database, as [GroupCommit] uses it. Its reads see what was committed before it began, and
// what they return stays valid until the transaction ends.
type Tx interface {
	Reader
	// Commit writes the changes, in the order of their keys, a nil value for a deletion, makes them durable and ends the
	// transaction, also where it fails or panics. Their keys and values may be what the transaction's own reads returned.
	Commit(changes iter.Seq2[[]byte, []byte]) error
	// Rollback ends the transaction and leaves no trace of it.
	Rollback()
}

// GroupCommit is the writing half of a [Store]: one goroutine that takes all operations that wait, applies each, and commits them
// together. A store adds View and what a transaction of its database is.
type GroupCommit struct {
	begin    func() (Tx, error)
	maxGroup int

	mu      sync.Mutex
	wake    *sync.Cond
	waiting []submission
	broken  error // why no more operations are taken
	closing bool
	ended   chan struct{}
}

type submission struct {
	op     func(Writer) error
	done   func(error)
	reopen func() error // stands alone, in place of op
}

// NewGroupCommit starts the writer. It commits at most maxGroup operations together.
func NewGroupCommit(begin func() (Tx, error), maxGroup int) *GroupCommit {
	g := &GroupCommit{begin: begin, maxGroup: maxGroup, ended: make(chan struct{})}
	g.wake = sync.NewCond(&g.mu)
	go g.run()
	return g
}

// Submit is [Store.Submit].
func (g *GroupCommit) Submit(op func(Writer) error, done func(error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		go done(ErrClosed) // the caller may hold a lock that done takes
		return
	}
	g.waiting = append(g.waiting, submission{op: op, done: done})
	g.wake.Signal()
}

// Err returns why no more operations are taken, nil while they are.
func (g *GroupCommit) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broken
}

// Reopen runs reopen from the goroutine that commits, so that nothing is in flight, and takes operations again where it succeeds.
func (g *GroupCommit) Reopen(reopen func() error) error {
	done := make(chan error, 1)
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return ErrClosed
	}
	g.waiting = append(g.waiting, submission{reopen: reopen, done: func(err error) { done <- err }})
	g.wake.Signal()
	g.mu.Unlock()
	return <-done
}

// Close applies and commits what is queued, and ends the writer.
func (g *GroupCommit) Close() {
	g.mu.Lock()
	g.closing = true
	g.wake.Signal()
	g.mu.Unlock()
	<-g.ended
}

func (g *GroupCommit) run() {
	defer close(g.ended)
	for {
		g.gather()
		group, broken := g.next()
		switch {
		case group == nil:
			return
		case group[0].reopen != nil:
			group[0].done(g.reopen(group[0].reopen))
		case broken != nil:
			answer(group, broken)
		default:
			g.commit(group)
		}
	}
}

// gather lets the callers that were just answered go first, as long as more operations come of it: else those that came during a
// commit and those that it answered take turns, in two groups of half the size.
func (g *GroupCommit) gather() {
	for before := -1; ; {
		g.mu.Lock()
		n := len(g.waiting)
		g.mu.Unlock()
		if n == before || n >= g.maxGroup {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// next waits for operations and takes a group of them, none when the writer is to end.
func (g *GroupCommit) next() ([]submission, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) == 0 {
		if g.closing {
			return nil, nil
		}
		g.wake.Wait()
	}
	n := 1
	for n < min(len(g.waiting), g.maxGroup) && g.waiting[0].reopen == nil && g.waiting[n].reopen == nil {
		n++
	}
	group := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // or its array would grow for ever
	}
	return group, g.broken
}

func (g *GroupCommit) reopen(reopen func() error) (err error) {
	defer containPanic(&err)
	if err := reopen(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = nil
	return nil
}

func (g *GroupCommit) commit(group []submission) {
	tx, err := g.beginContained()
	if err != nil {
		answer(group, g.fail(fmt.Errorf("beginning a transaction: %w", err)))
		return
	}
	results, err := attempt(tx, group)
	if err != nil {
		g.fail(err)
		answer(group, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
		return
	}
	for i, s := range group {
		s.done(results[i])
	}
}

func (g *GroupCommit) beginContained() (tx Tx, err error) {
	defer containPanic(&err)
	return g.begin()
}

// fail takes no more operations from now on, and returns what they are told.
func (g *GroupCommit) fail(cause error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = fmt.Errorf("%w since a commit failed (%w); reopen it to go on", ErrUnavailable, cause)
	return g.broken
}

// attempt applies a group in one transaction and returns the outcome of each operation, or why the group as a whole failed.
func attempt(tx Tx, group []submission) (results []error, err error) {
	defer containPanic(&err)
	changes := newOverlay(tx)
	results = make([]error, len(group))
	for i, s := range group {
		results[i] = changes.Try(func() error { return contained(s.op, changes) })
		changes.keep()
	}
	if changes.empty() {
		tx.Rollback()
		return results, nil
	}
	if err := tx.Commit(changes.all()); err != nil {
		return nil, err
	}
	return results, nil
}

func answer(group []submission, err error) {
	for _, s := range group {
		s.done(err)
	}
}

// errPanic is in the chain of an error that was a panic.
var errPanic = errors.New("panic")

func contained(op func(Writer) error, w Writer) (err error) {
	defer containPanic(&err)
	return op(w)
}

func containPanic(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
	}
}
