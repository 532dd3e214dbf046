package ledger

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
)

// Group is the transaction of a store's database in which [GroupCommit] runs and commits a group of operations. Its reads see what was
// committed before it began, and what they return stays valid until it ends.
type Group interface {
	Reader
	// Commit writes the changes, in the order of their keys, a nil value for a deletion, makes them durable and ends the
	// transaction, also where it fails or panics. Their keys and values may be what the transaction's own reads returned. With an error that
	// wraps ErrRunAgain it has written nothing, and the group's operations are run again in a new transaction.
	Commit(changes iter.Seq2[[]byte, []byte]) error
	// Rollback ends the transaction and leaves no trace of it.
	Rollback()
}

// GroupCommit is the writing half of a [Store]: one goroutine that takes all operations that wait, applies each, and commits them
// together. A store adds View and what a [Group] of its database is.
type GroupCommit struct {
	begin    func() (Group, error)
	maxGroup int

	mu      sync.Mutex
	wake    *sync.Cond
	waiting []submission
	broken  error // why no more operations are taken
	closing bool
	ended   chan struct{}
}

type submission struct {
	Op
	reopen func() error // stands alone, in place of Run
}

// NewGroupCommit starts the writer. It commits at most maxGroup operations together.
func NewGroupCommit(begin func() (Group, error), maxGroup int) *GroupCommit {
	g := &GroupCommit{begin: begin, maxGroup: maxGroup, ended: make(chan struct{})}
	g.wake = sync.NewCond(&g.mu)
	go g.run()
	return g
}

// Submit is [Store.Submit].
func (g *GroupCommit) Submit(op Op) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		go op.Done(ErrClosed) // the caller may hold a lock that Done takes
		return
	}
	g.waiting = append(g.waiting, submission{Op: op})
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
	g.waiting = append(g.waiting, submission{Op: Op{Done: func(err error) { done <- err }}, reopen: reopen})
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
		ops, broken := g.next()
		switch {
		case ops == nil:
			return
		case ops[0].reopen != nil:
			ops[0].Done(g.reopen(ops[0].reopen))
		case broken != nil:
			answer(ops, broken)
		default:
			g.commit(ops)
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
	ops := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // or its array would grow for ever
	}
	return ops, g.broken
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

func (g *GroupCommit) commit(ops []submission) {
	for {
		group, err := g.beginContained()
		if err != nil {
			answer(ops, g.fail(fmt.Errorf("beginning a transaction: %w", err)))
			return
		}
		results, err := attempt(group, ops)
		if err == nil {
			for i, op := range ops {
				op.Done(results[i])
			}
			return
		}
		undo(ops, results)
		if !errors.Is(err, ErrRunAgain) {
			g.fail(err)
			answer(ops, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
			return
		}
	}
}

func (g *GroupCommit) beginContained() (group Group, err error) {
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

// attempt runs operations and commits them. It returns the result of each that was run, and why the group as a whole failed.
func attempt(group Group, ops []submission) (results []error, err error) {
	defer containPanic(&err)
	changes := newOverlay(group)
	results = make([]error, 0, len(ops))
	for _, op := range ops {
		results = append(results, changes.Try(func() error { return contained(op.Run, changes) }))
		changes.keep()
	}
	if changes.empty() {
		group.Rollback()
		return results, nil
	}
	return results, group.Commit(changes.all())
}

// undo takes back what the operations that succeeded have changed outside of their group.
func undo(ops []submission, results []error) {
	for i, err := range slices.Backward(results) {
		if err == nil && ops[i].Undo != nil {
			ops[i].Undo()
		}
	}
}

func answer(ops []submission, err error) {
	for _, op := range ops {
		op.Done(err)
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
