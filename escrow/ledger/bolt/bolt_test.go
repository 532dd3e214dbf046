package bolt_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

var errInjected = errors.New("injected")

// faults makes a chosen step fail once.
type faults struct{ next atomic.Pointer[bolt.Step] }

func (f *faults) fail(step bolt.Step) { f.next.Store(&step) }

func (f *faults) hook(step bolt.Step) error {
	if want := f.next.Load(); want != nil && *want == step && f.next.CompareAndSwap(want, nil) {
		return errInjected
	}
	return nil
}

// file returns a place in a new file.
func file(t testing.TB, o bolt.Options) ledgertest.Place {
	path := filepath.Join(t.TempDir(), "deep", "ledger.db")
	f := new(faults)
	o.Fault = f.hook
	return ledgertest.Place{
		Open: func() ledger.Store {
			s, err := bolt.Open(path, o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		FailNext: func(kept bool) {
			if kept {
				f.fail(bolt.StepSync)
				return
			}
			f.fail(bolt.StepCommit)
		},
	}
}

// TestStore runs the suite with layers of several sizes: records stay in the journal, some are folded, or each commit folds the one before.
// It also runs the suite with operations that run more than once.
func TestStore(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"journal": 0, "folding": folding, "folding at once": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledgertest.Run(t, func(t testing.TB) ledgertest.Place { return file(t, bolt.Options{LayerSize: size}) })
		})
	}
	t.Run("twice", func(t *testing.T) {
		ledgertest.Run(t, func(t testing.TB) ledgertest.Place {
			return file(t, bolt.Options{LayerSize: folding, NoSync: true}).Twice()
		})
	})
	t.Run("again", func(t *testing.T) {
		ledgertest.Run(t, func(t testing.TB) ledgertest.Place {
			return file(t, bolt.Options{LayerSize: folding, NoSync: true}).Again()
		})
	})
}

const folding = 4 << 10
