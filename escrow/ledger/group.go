package ledger

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"sync"
)

// Tx is what one group of operations becomes in a store's database, as [GroupCommit] uses it. Its reads see all that was given to
// Commit before it began, durable or not.
type Tx interface {
	Reader
	// Commit takes the changes, in the order of their keys, a nil value for a deletion, and ends the reading, also where it fails or
	// panics. What it returns makes them durable: it is called at most once, from another goroutine, after that of the transaction
	// before, and not at all where that one failed. Values stay as they are for good, keys until Commit returns.
	Commit(changes iter.Seq2[[]byte, []byte]) (durable func() error, err error)
	// Rollback ends the reading and leaves no trace.
	Rollback()
}

// GroupCommit is the writing half of a [Store]: one goroutine takes all operations that wait and applies each, while another makes
// the group before durable and then answers it. A store adds View and what a transaction of its database is.
type GroupCommit struct {
	begin    func() (Tx, error)
	maxGroup int

	mu      sync.Mutex
	wake    *sync.Cond
	waiting []submission
	broken  error // why no more operations are taken
	closing bool

	applying sync.Mutex // while a group is applied: what it stands on must not be undone
	applied  chan applied
	ended    chan struct{}
}

type submission struct {
	op     func(Writer) error
	done   func(error)
	reopen func() error // stands alone, in place of op
}

// applied is a group on its way to be durable.
type applied struct {
	group   []submission
	results []error
	durable func() error // nil where nothing was written
	err     error        // why the group as a whole failed
}

// NewGroupCommit starts the writer. It commits at most maxGroup operations together.
func NewGroupCommit(begin func() (Tx, error), maxGroup int) *GroupCommit {
	g := &GroupCommit{begin: begin, maxGroup: maxGroup, applied: make(chan applied), ended: make(chan struct{})}
	g.wake = sync.NewCond(&g.mu)
	go g.apply()
	go g.commit()
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

// Reopen runs reopen while nothing is in flight, and takes operations again where it succeeds.
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

// apply is the goroutine that operations run on.
func (g *GroupCommit) apply() {
	defer close(g.applied)
	for {
		reopens, ok := g.wait()
		switch {
		case !ok:
			return
		case reopens:
			answered := make(chan struct{})
			s := g.take(1)[0]
			g.applied <- applied{group: []submission{{reopen: s.reopen, done: func(err error) { s.done(err); close(answered) }}}}
			<-answered
		default:
			if a := g.applyGroup(); a.group != nil {
				g.applied <- a
			}
		}
	}
}

// wait waits for a submission, and tells whether the first one is to reopen; it is not ok when the writer is to end.
func (g *GroupCommit) wait() (reopens, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) == 0 {
		if g.closing {
			return false, false
		}
		g.wake.Wait()
	}
	return g.waiting[0].reopen != nil, true
}

// take takes up to most submissions, none of them behind one that is to reopen.
func (g *GroupCommit) take(most int) []submission {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 1
	for n < min(len(g.waiting), most) && g.waiting[n].reopen == nil {
		n++
	}
	group := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // or its array would grow for ever
	}
	return group
}

// gather lets the callers that were just answered go first, as long as more operations come of it.
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

// applyGroup applies the operations that wait, or turns them away.
func (g *GroupCommit) applyGroup() applied {
	g.applying.Lock()
	defer g.applying.Unlock()
	if broken := g.Err(); broken != nil {
		answer(g.take(g.maxGroup), broken)
		return applied{}
	}
	tx, err := g.beginContained()
	if err != nil {
		answer(g.take(g.maxGroup), g.fail(fmt.Errorf("beginning a transaction: %w", err)))
		return applied{}
	}
	g.gather()
	a := applied{group: g.take(g.maxGroup)}
	a.results, a.durable, a.err = attempt(tx, a.group)
	return a
}

func (g *GroupCommit) beginContained() (tx Tx, err error) {
	defer containPanic(&err)
	return g.begin()
}

// attempt applies a group in one transaction and returns the outcome of each operation, or why the group as a whole failed.
func attempt(tx Tx, group []submission) (results []error, durable func() error, err error) {
	defer containPanic(&err)
	changes := newOverlay(tx)
	results = make([]error, len(group))
	for i, s := range group {
		results[i] = changes.Try(func() error { return contained(s.op, changes) })
		changes.keep()
	}
	if changes.empty() {
		tx.Rollback()
		return results, nil, nil
	}
	durable, err = tx.Commit(changes.all())
	return results, durable, err
}

// commit is the goroutine that makes groups durable, and answers them in their order.
func (g *GroupCommit) commit() {
	defer close(g.ended)
	for a := range g.applied {
		switch {
		case a.group[0].reopen != nil:
			a.group[0].done(g.reopen(a.group[0].reopen))
		case g.Err() != nil:
			answer(a.group, g.Err()) // it stood on one that failed
		default:
			g.finish(a)
		}
	}
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

func (g *GroupCommit) finish(a applied) {
	err := a.err
	if err == nil && a.durable != nil {
		err = flush(a.durable)
	}
	if err != nil {
		g.fail(err)
		g.applying.Lock() // the group that is being applied may stand on this one
		defer g.applying.Unlock()
		answer(a.group, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
		return
	}
	for i, s := range a.group {
		s.done(a.results[i])
	}
}

func flush(durable func() error) (err error) {
	defer containPanic(&err)
	return durable()
}

// fail takes no more operations from now on, and returns what they are told.
func (g *GroupCommit) fail(cause error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = fmt.Errorf("%w since a commit failed (%w); reopen it to go on", ErrUnavailable, cause)
	return g.broken
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
