//go:build unix

package escrow_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

// TestMain runs the tests on files, or on a private PostgreSQL server if the environment says TALLYGATE_STORE=postgres, in the default mode, or
// TALLYGATE_STORE=postgres-rows.
func TestMain(m *testing.M) {
	rounds.Checks(25, 100)
	kind, mode, _ := strings.Cut(os.Getenv("TALLYGATE_STORE"), "-")
	if kind != "postgres" {
		os.Exit(m.Run())
	}
	server, err := pgtest.Open("fsync=off")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	schemas := map[string]string{}
	openStore = func(path string) (ledger.Store, error) {
		mu.Lock()
		defer mu.Unlock()
		if schemas[path] == "" {
			if schemas[path], err = server.Schema(); err != nil {
				return nil, err
			}
		}
		return postgres.Open(schemas[path], postgres.Options{Mode: postgres.Mode(mode), Lifetime: time.Hour})
	}
	code := m.Run()
	_ = server.Close()
	os.Exit(code)
}
