//go:build unix

package postgres_test

import (
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

var errInjected = errors.New("injected")

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// faults makes a chosen step fail once.
type faults struct{ next atomic.Pointer[postgres.Step] }

func (f *faults) hook(step postgres.Step) error {
	if want := f.next.Load(); want != nil && *want == step && f.next.CompareAndSwap(want, nil) {
		return errInjected
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place returns a place in a new schema.
func place(t testing.TB, server *pgtest.Server, o postgres.Options) ledgertest.Place {
	dsn := server.New(t)
	f := new(faults)
	o.Fault, o.Logger = f.hook, quiet
	return ledgertest.Place{
		Slow: true,
		Open: func() ledger.Store {
			s, err := postgres.OpenShared(dsn, o)
			must(t, err)
			t.Cleanup(func() { must(t, s.Close()) })
			return s
		},
		FailNext: func(kept bool) {
			step := postgres.StepCommit
			if kept {
				step = postgres.StepAnswer
			}
			f.next.Store(&step)
		},
	}
}

// TestStore runs the suite, also with a cache that forgets at once, and with operations that run more than once.
func TestStore(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for name, fresh := range map[string]func(testing.TB) ledgertest.Place{
		"once":     func(t testing.TB) ledgertest.Place { return place(t, server, postgres.Options{}) },
		"no cache": func(t testing.TB) ledgertest.Place { return place(t, server, postgres.Options{CacheSize: 1}) },
		"again":    func(t testing.TB) ledgertest.Place { return place(t, server, postgres.Options{}).Again() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledgertest.Run(t, fresh)
		})
	}
}
