//go:build unix

package postgres_test

import (
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest/stores"
	"github.com/tallygate/tallygate/internal/rounds"
)

var errInjected = errors.New("injected")

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place returns a place in a new schema. Who opens it has the next one of the modes.
func place(t testing.TB, server *pgtest.Server, o postgres.Options, modes ...postgres.Mode) ledgertest.Place {
	dsn := server.New(t)
	f := new(stores.Faults)
	var opened atomic.Int64
	o.Fault, o.Logger = f.Hook, quiet
	return ledgertest.Place{
		Slow: true,
		Open: func() ledger.Store {
			o := o
			if len(modes) > 0 {
				o.Mode = modes[int(opened.Add(1)-1)%len(modes)]
			}
			s, err := postgres.Open(dsn, o)
			must(t, err)
			t.Cleanup(func() { must(t, s.Close()) })
			return s
		},
		FailNext: func(kept bool) { f.FailNext(errInjected, kept) },
	}
}

var modes = []postgres.Mode{postgres.Rows, postgres.Log}

// TestStore runs the suite in both modes: also with a cache that forgets at once, with operations that run more than once, with folds that
// never come by themselves, and with one before each group.
func TestStore(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	run := func(name string, o postgres.Options, form func(ledgertest.Place) ledgertest.Place) {
		t.Run(string(o.Mode)+", "+name, func(t *testing.T) {
			t.Parallel()
			ledgertest.Run(t, func(t testing.TB) ledgertest.Place { return form(place(t, server, o)) })
		})
	}
	once := func(p ledgertest.Place) ledgertest.Place { return p }
	run("once", postgres.Options{Mode: postgres.Rows}, once)
	run("again", postgres.Options{Mode: postgres.Log}, ledgertest.Place.Again)
	if !rounds.Full() {
		return
	}
	run("no cache", postgres.Options{Mode: postgres.Rows, CacheSize: 1}, once)
	run("once", postgres.Options{Mode: postgres.Log}, once)
	run("no cache, no folds", postgres.Options{Mode: postgres.Log, CacheSize: 1, FoldPause: time.Hour}, once)
	run("no tail", postgres.Options{Mode: postgres.Log, FoldPause: time.Hour, TailSize: 1}, once)
}

// TestShared runs the tests of several ledgers on one store, also with ledgers that have different modes.
func TestShared(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, c := range []struct {
		name  string
		modes []postgres.Mode
		cache int
	}{
		{"both", []postgres.Mode{postgres.Log, postgres.Rows}, 0},
		{"log", []postgres.Mode{postgres.Log}, 0},
		{"rows, no cache", []postgres.Mode{postgres.Rows}, 1},
		{"mostly rows, no cache", []postgres.Mode{postgres.Rows, postgres.Rows, postgres.Log}, 1},
	}[:rounds.Of(1, 3)] {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ledgertest.RunShared(t, func(t testing.TB) ledgertest.Place {
				return place(t, server, postgres.Options{CacheSize: c.cache, FoldPause: time.Millisecond}, c.modes...)
			})
		})
	}
}
