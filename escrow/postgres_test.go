//go:build unix

package escrow_test

import (
	"os"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest/stores"
	"github.com/tallygate/tallygate/internal/rounds"
)

// TestMain runs the tests on files, or on a private PostgreSQL server if the environment names it: see [stores.Chosen].
func TestMain(m *testing.M) {
	rounds.Checks(25, 100)
	if stores.Chosen() {
		var databases sync.Map // by the path that a file would have
		openStore = func(path string) (ledger.Store, error) {
			d, _ := databases.LoadOrStore(path, new(stores.Database))
			return d.(*stores.Database).Open()
		}
	}
	os.Exit(pgtest.Main(m))
}
