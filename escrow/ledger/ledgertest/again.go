package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// errThrownAway is returned by a run that does not count, so that the store throws it away.
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

// Again returns a store that runs all waiting operations three times: first as a group, then each alone and in the reverse order, then
// as a group again. Only the last runs count. So each operation has run before, in other states of the books, and after others.
func Again(s ledger.Store) ledger.Store {
	a := &again{store: s}
	return through(s, a.submit)
}

// throwAway makes a run and takes back everything that it did.
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
	first   int // the number of the first waiting operation
}

// regroup runs several operations as one operation of the store below.
type regroup struct {
	again   *again
	own     int // the number of the operation for which it was submitted
	taken   bool
	ops     []ledger.Op
	results []error // of the last run of each operation
}

func (a *again) submit(op ledger.Op) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := &regroup{again: a, own: a.first + len(a.waiting)}
	a.waiting = append(a.waiting, op)
	a.store.Submit(ledger.Op{Run: g.run, Undo: g.undo, Done: g.done})
}

// take takes the waiting operations, at most most of them.
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

// runAll runs all operations. One that fails does not affect the others.
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
	if !g.taken { // it did not run: its own operation, and those before it that no other group has taken, get the same answer
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

// through returns a store that passes its operations to submit instead of to the store s.
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

// Submit implements [ledger.Store].
func (t throughStore) Submit(op ledger.Op) { t.submit(op) }

// Reopen implements [ledger.Reopener].
func (t throughStore) Reopen() error { return t.Store.(ledger.Reopener).Reopen() }

type sharedThrough struct{ throughStore }

// Shared implements [ledger.Shared].
func (sharedThrough) Shared() {}

// Lifetime implements [ledger.Lasting].
func (s sharedThrough) Lifetime() time.Duration {
	if lasting, ok := s.Store.(ledger.Lasting); ok {
		return lasting.Lifetime()
	}
	return 0
}
