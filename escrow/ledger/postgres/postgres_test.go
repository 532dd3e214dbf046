//go:build unix

package postgres_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// place returns a place in a new schema. Who opens it has the next one of the modes.
func place(t testing.TB, server *pgtest.Server, o postgres.Options, modes ...postgres.Mode) ledgertest.Place {
	dsn := server.New(t)
	f := new(faults)
	var opened atomic.Int64
	o.Fault, o.Logger = f.hook, quiet
	return ledgertest.Place{
		Open: func() ledger.Store {
			o := o
			if len(modes) > 0 {
				o.Mode = modes[int(opened.Add(1)-1)%len(modes)]
			}
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

var modes = []postgres.Mode{postgres.Rows, postgres.Log}

// TestStore runs the suite in both modes, also with a cache that forgets at once, with operations that run more than once, with folds that
// never come by themselves, and with one before each group.
func TestStore(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, mode := range modes {
		for name, fresh := range map[string]func(testing.TB) ledgertest.Place{
			"once": func(t testing.TB) ledgertest.Place { return place(t, server, postgres.Options{Mode: mode}) },
			"no cache": func(t testing.TB) ledgertest.Place {
				return place(t, server, postgres.Options{Mode: mode, CacheSize: 1})
			},
			"again": func(t testing.TB) ledgertest.Place { return place(t, server, postgres.Options{Mode: mode}).Again() },
			"no folds": func(t testing.TB) ledgertest.Place {
				return place(t, server, postgres.Options{Mode: mode, CacheSize: 1, FoldPause: time.Hour})
			},
			"no tail": func(t testing.TB) ledgertest.Place {
				return place(t, server, postgres.Options{Mode: mode, CacheSize: 1, FoldPause: time.Hour, TailSize: 1})
			},
		} {
			if mode == postgres.Rows && strings.HasPrefix(name, "no ") && name != "no cache" {
				continue // it has nothing to fold
			}
			t.Run(string(mode)+", "+name, func(t *testing.T) {
				t.Parallel()
				ledgertest.Run(t, fresh)
			})
		}
	}
}

// TestShared runs the tests of several ledgers on one store, also with ledgers that have different modes.
func TestShared(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for name, modes := range map[string][]postgres.Mode{
		"rows": {postgres.Rows}, "log": {postgres.Log}, "both": {postgres.Log, postgres.Rows}, "mostly rows": {postgres.Rows, postgres.Rows, postgres.Log},
	} {
		for _, cache := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, cache %d", name, cache), func(t *testing.T) {
				t.Parallel()
				ledgertest.RunShared(t, func(t testing.TB) ledgertest.Place {
					return place(t, server, postgres.Options{CacheSize: cache, FoldPause: time.Millisecond}, modes...)
				})
			})
		}
	}
}
