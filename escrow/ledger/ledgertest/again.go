package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// errThrownAway ends a run that does not count.
var errThrownAway = errors.New("thrown away")

// Twice returns a store that runs each operation twice and throws the first run away, as [ledger.Store] allows.
func Twice(s ledger.Store) ledger.Store {
	return through(s, func(op ledger.Op) {
		run := op.Run
		op.Run = func(w ledger.Writer) error {
			throwAway(w, op.Undo, run)
			return run(w)
		}
		s.Submit(op)
	})
}

// Again returns a store that runs the operations that wait as one group, throws that away, runs each of them alone and in the reverse
// order, throws that away too, and then runs the group again: each operation has run before, in another state of the books, and after
// others.
func Again(s ledger.Store) ledger.Store {
	a := &again{store: s}
	return through(s, a.submit)
}

// throwAway makes a run that leaves nothing behind, whatever comes of it.
func throwAway(w ledger.Writer, undo func(), run func(ledger.Writer) error) {
	err := w.Try(func() error {
		if err := contained(w, run); err != nil {
			return err
		}
		return errThrownAway
	})
	if err == errThrownAway && undo != nil {
		undo()
	}
}

func contained(w ledger.Writer, run func(ledger.Writer) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return run(w)
}

type again struct {
	store   ledger.Store
	mu      sync.Mutex
	waiting []ledger.Op
	first   int // number of the first that waits
}

// regroup is several operations as one of the store below.
type regroup struct {
	again   *again
	own     int // number of the operation that it was submitted for
	taken   bool
	ops     []ledger.Op
	results []error // of the last run of each
}

func (a *again) submit(op ledger.Op) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := &regroup{again: a, own: a.first + len(a.waiting)}
	a.waiting = append(a.waiting, op)
	a.store.Submit(ledger.Op{Run: g.run, Undo: g.undo, Done: g.done})
}

// take takes the operations that wait, at most so many.
func (a *again) take(most int) []ledger.Op {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.waiting), max(most, 0))
	ops := a.waiting[:n:n]
	a.waiting, a.first = a.waiting[n:], a.first+n
	return ops
}

func (g *regroup) run(w ledger.Writer) error {
	if !g.taken {
		g.taken, g.ops = true, g.again.take(1<<10)
	}
	throwAway(w, g.undo, g.runAll)
	for _, op := range slices.Backward(g.ops) {
		throwAway(w, op.Undo, op.Run)
	}
	return g.runAll(w)
}

// runAll runs all operations, of which each fails by itself.
func (g *regroup) runAll(w ledger.Writer) error {
	g.results = g.results[:0]
	for _, op := range g.ops {
		g.results = append(g.results, w.Try(func() error { return contained(w, op.Run) }))
	}
	return nil
}

func (g *regroup) undo() {
	for i, err := range slices.Backward(g.results) {
		if err == nil && g.ops[i].Undo != nil {
			g.ops[i].Undo()
		}
	}
}

func (g *regroup) done(err error) {
	if !g.taken { // it was not run: its own operation, and all before it, get the same answer, unless another group has taken them
		g.ops = g.again.take(g.own + 1 - g.again.start())
		g.results = make([]error, len(g.ops))
	}
	for i, op := range g.ops {
		if err != nil {
			op.Done(err)
		} else {
			op.Done(g.results[i])
		}
	}
}

func (a *again) start() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first
}

// through returns a store whose operations go another way to the one below.
func through(s ledger.Store, submit func(ledger.Op)) ledger.Store {
	t := throughStore{s, submit}
	if _, isShared := s.(ledger.Shared); isShared {
		return sharedThrough{t}
	}
	return t
}

type throughStore struct {
	ledger.Store
	submit func(ledger.Op)
}

// Submit is [ledger.Store]'s.
func (t throughStore) Submit(op ledger.Op) { t.submit(op) }

// Reopen is [ledger.Reopener]'s.
func (t throughStore) Reopen() error { return t.Store.(ledger.Reopener).Reopen() }

type sharedThrough struct{ throughStore }

// Shared is [ledger.Shared]'s.
func (sharedThrough) Shared() {}
