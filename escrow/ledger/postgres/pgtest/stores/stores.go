//go:build unix

// Package stores lets tests that take the store as a parameter run on a private PostgreSQL server.
package stores

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// Chosen reports whether the environment says that tests which take the store as a parameter run on PostgreSQL: TALLYGATE_STORE=postgres, in
// the default mode, or TALLYGATE_STORE=postgres-rows.
func Chosen() bool { return os.Getenv("TALLYGATE_STORE") != "" }

// chosenMode returns the mode that the environment names. It fails for a word that names no store, since the tests would say nothing of the
// store that was meant.
func chosenMode() (postgres.Mode, error) {
	word := os.Getenv("TALLYGATE_STORE")
	kind, mode, _ := strings.Cut(word, "-")
	if kind != "postgres" {
		return "", fmt.Errorf("TALLYGATE_STORE is %q: expected postgres, postgres-log or postgres-rows", word)
	}
	return postgres.Mode(mode), nil
}

// Database keeps the records of a ledger in a schema of the server that the tests of this process share, in the mode that the environment
// names. It keeps them after a store is closed, as ledgertest.Memory does. The zero value is empty and ready to use. TestMain of its package
// calls [pgtest.Main].
type Database struct {
	faults Faults
	mu     sync.Mutex
	dsn    string
}

// Open opens a store on the records. Several may be open at the same time. Their sessions last longer than a test runs, so that a busy machine
// ends none; a test of what ends sessions sets [ledger.Options].Lifetime.
func (d *Database) Open() (ledger.Store, error) {
	mode, err := chosenMode()
	if err != nil {
		return nil, err
	}
	dsn, err := d.schema()
	if err != nil {
		return nil, err
	}
	return postgres.Open(dsn, postgres.Options{Mode: mode, Lifetime: time.Hour, Fault: d.faults.Hook})
}

// FailNext makes the next commit fail with err. The commit takes place all the same if kept is true. Without err the next one does not fail.
func (d *Database) FailNext(err error, kept bool) { d.faults.FailNext(err, kept) }

// schema returns the DSN of the schema, which the first call makes.
func (d *Database) schema() (string, error) {
	server, err := pgtest.OpenShared()
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dsn == "" {
		d.dsn, err = server.Schema()
	}
	return d.dsn, err
}

// Faults makes a commit of a store fail once. Its Hook is the [postgres.Options].Fault of the store.
type Faults struct{ next atomic.Pointer[fault] }

type fault struct {
	step postgres.Step
	err  error
}

// FailNext makes the next commit fail with err. The commit takes place all the same if kept is true. Without err the next one does not fail.
func (f *Faults) FailNext(err error, kept bool) {
	switch {
	case err == nil:
		f.next.Store(nil)
	case kept:
		f.next.Store(&fault{postgres.StepAnswer, err})
	default:
		f.next.Store(&fault{postgres.StepCommit, err})
	}
}

// Hook fails if the step is the one that is to fail.
func (f *Faults) Hook(step postgres.Step) error {
	if next := f.next.Load(); next != nil && next.step == step && f.next.CompareAndSwap(next, nil) {
		return next.err
	}
	return nil
}
