package ledger

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Group is a transaction of a store's database. [GroupCommit] runs a group of operations in it and commits them together. Its reads see
// the records that were committed before it began. The returned slices stay valid until the transaction ends. A read may panic with
// ErrRunAgain to end the run of its operation, if Commit is going to return ErrRunAgain. A Group may also implement [Doubter].
type Group interface {
	Reader
	// Commit writes the changes and makes them durable. The changes come in the order of their keys; a nil value deletes a record. Keys
	// and values may be slices that the transaction's own reads returned. There may be no changes. Commit ends the transaction, also when
	// it fails or panics. If it returns an error that wraps ErrRunAgain, it has written nothing, and the operations are run again in a new
	// transaction.
	Commit(changes iter.Seq2[[]byte, []byte]) error
}

// GroupCommit is the writing half of a [Store]. Its one goroutine takes all waiting operations, runs each of them, and commits them
// together. A store that uses it implements View, and a [Group] for its database.
type GroupCommit struct {
	begin    func() (Group, error)
	maxGroup int
	enough   chan struct{} // has room for one: a message means that isEnough became true
	observer atomic.Pointer[func(operations int, took time.Duration)]
	changes  *overlay // of the group that runs

	mu      sync.Mutex
	aim     aim
	last    committed
	wake    *sync.Cond
	waiting []submission
	broken  error // why operations are refused, nil if they are accepted
	closing bool
	ended   chan struct{}
}

// committed is a group that has written something.
type committed struct {
	operations int
	took       time.Duration // to run and commit them
}

type submission struct {
	Op
	reopen func() error // if set, it is called instead of Run, in a group of its own
}

// NewGroupCommit starts the writer. It commits at most maxGroup operations together.
func NewGroupCommit(begin func() (Group, error), maxGroup int) *GroupCommit {
	g := &GroupCommit{begin: begin, maxGroup: maxGroup, aim: aim{most: maxGroup}, changes: newOverlay(), enough: make(chan struct{}, 1), ended: make(chan struct{})}
	g.wake = sync.NewCond(&g.mu)
	go g.run()
	return g
}

// Submit implements [Store.Submit].
func (g *GroupCommit) Submit(op Op) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		go op.Done(ErrClosed) // in a goroutine of its own, since the caller may hold a lock that Done takes
		return
	}
	g.waiting = append(g.waiting, submission{Op: op})
	g.arrive()
}

// Observe implements [Observed]. A later call replaces the observer.
func (g *GroupCommit) Observe(observer func(operations int, took time.Duration)) {
	g.observer.Store(&observer)
}

// Err returns the reason why operations are refused, or nil if they are accepted.
func (g *GroupCommit) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broken
}

// Reopen calls reopen on the goroutine that commits, when no operation is in flight. If reopen succeeds, operations are accepted again.
func (g *GroupCommit) Reopen(reopen func() error) error {
	done := make(chan error, 1)
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return ErrClosed
	}
	g.waiting = append(g.waiting, submission{Op: Op{Done: func(err error) { done <- err }}, reopen: reopen})
	g.arrive()
	g.mu.Unlock()
	return <-done
}

// Close runs and commits the queued operations, and ends the goroutine.
func (g *GroupCommit) Close() {
	g.mu.Lock()
	g.closing = true
	g.arrive()
	g.mu.Unlock()
	<-g.ended
}

func (g *GroupCommit) run() {
	defer close(g.ended)
	for g.await() {
		g.gather()
		ops, broken := g.next()
		switch {
		case ops[0].reopen != nil:
			ops[0].Done(g.reopen(ops[0].reopen))
		case broken != nil:
			answer(ops, broken)
		default:
			began := time.Now()
			if g.commit(ops) {
				g.note(committed{len(ops), time.Since(began)})
			}
		}
	}
}

// note tells of a group that has written something. One that has not costs nothing, and says nothing about the others.
func (g *GroupCommit) note(c committed) {
	g.mu.Lock()
	g.last = c
	g.mu.Unlock()
	if observer := g.observer.Load(); observer != nil {
		(*observer)(c.operations, c.took)
	}
}

// LastCommit returns how many operations the last group had that wrote something, and how long it took to run and commit them. In the meantime
// the next group may have begun.
func (g *GroupCommit) LastCommit() (operations int, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last.operations, g.last.took
}

// await waits for an operation. It returns false after Close, when there are none left.
func (g *GroupCommit) await() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) == 0 && !g.closing {
		g.wake.Wait()
	}
	return len(g.waiting) > 0
}

// mostWait bounds how long a group waits for more operations.
const mostWait = 5 * time.Millisecond

// gather waits for more operations, until there are as many as [aim] says, but no longer than the last commit took. A commit costs about the same
// whatever its size, so small groups cost more for each operation. Without gather there would be two groups of half the size that take turns: the
// callers that came during a commit, and those that the commit answered.
//
// Callers that only use the ledger are back as soon as they run. Those that do more are not. No operation waits longer than if it had come just
// after a commit began. A caller that is alone waits for others only once in a while.
func (g *GroupCommit) gather() {
	if g.arrivals() {
		g.learn((*aim).met)
		return
	}
	_, took := g.LastCommit()
	before := g.arrived()
	select {
	case <-g.enough:
	case <-time.After(min(took, mostWait)):
	}
	if g.arrivals() {
		g.learn((*aim).met)
		return
	}
	g.learn(func(a *aim, n int) { a.missed(n, n-before) })
}

// arrived returns how many operations wait.
func (g *GroupCommit) arrived() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// learn notes how a group came about.
func (g *GroupCommit) learn(note func(a *aim, operations int)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	note(&g.aim, min(len(g.waiting), g.maxGroup))
}

// arrivals lets others run as long as operations arrive. It reports whether gather need not wait for more.
func (g *GroupCommit) arrivals() (enough bool) {
	for before := -1; ; {
		g.mu.Lock()
		select {
		case <-g.enough: // the message is for another time
		default:
		}
		n := len(g.waiting)
		enough = g.isEnough()
		g.mu.Unlock()
		if n == before || n >= g.maxGroup {
			return enough
		}
		before = n
		runtime.Gosched()
	}
}

// isEnough reports whether gather need not wait for more operations; g.mu must be locked.
func (g *GroupCommit) isEnough() bool {
	return g.closing || len(g.waiting) >= g.aim.size
}

// arrive tells the writer that an operation has arrived, or that no more will; g.mu must be locked.
func (g *GroupCommit) arrive() {
	g.wake.Signal()
	if g.isEnough() {
		select {
		case g.enough <- struct{}{}:
		default:
		}
	}
}

// next takes a group of the operations that wait.
func (g *GroupCommit) next() ([]submission, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 1
	for n < min(len(g.waiting), g.maxGroup) && g.waiting[0].reopen == nil && g.waiting[n].reopen == nil {
		n++
	}
	ops := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // otherwise its array would grow forever
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

// commit runs the operations and commits what they write. It reports whether they wrote anything.
func (g *GroupCommit) commit(ops []submission) (wrote bool) {
	for {
		group, err := g.beginContained()
		if err != nil {
			answer(ops, g.fail(fmt.Errorf("beginning a transaction: %w", err)))
			return false
		}
		results, wrote, err := g.attempt(group, ops)
		if err == nil {
			for i, op := range ops {
				op.Done(results[i])
			}
			return wrote
		}
		undo(ops, results)
		if !errors.Is(err, ErrRunAgain) {
			g.fail(err)
			answer(ops, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
			return wrote
		}
	}
}

func (g *GroupCommit) beginContained() (group Group, err error) {
	defer containPanic(&err)
	return g.begin()
}

// fail refuses operations from now on. It returns the error that they get.
func (g *GroupCommit) fail(cause error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = fmt.Errorf("%w since a commit failed (%w); reopen it to go on", ErrUnavailable, cause)
	return g.broken
}

// attempt runs operations and commits them. It returns the result of each operation that ran, whether any of them wrote something, and an error if
// the group as a whole failed.
func (g *GroupCommit) attempt(group Group, ops []submission) (results []error, wrote bool, err error) {
	defer containPanic(&err)
	changes := g.changes
	changes.begin(group)
	results = make([]error, 0, len(ops))
	for _, op := range ops {
		results = append(results, changes.Try(func() error { return contained(op.Run, changes) }))
		changes.keep()
	}
	return results, changes.any(), group.Commit(changes.all())
}

// undo calls Undo of the operations that succeeded.
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

// errPanic is in the chain of an error that was made of a panic.
var errPanic = errors.New("panic")

func contained(op func(Writer) error, w Writer) (err error) {
	defer containPanic(&err)
	return op(w)
}

func containPanic(err *error) {
	switch r := recover(); r {
	case nil:
	case ErrRunAgain: // of a group's read
		*err = ErrRunAgain
	default:
		*err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
	}
}
