//go:build unix

package gateway_test

import (
	"os"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest/stores"
)

// TestMain runs the tests on books in memory, or on a private PostgreSQL server if the environment names it: see [stores.Chosen].
func TestMain(m *testing.M) {
	if stores.Chosen() {
		newDisk = func() disk {
			d := new(stores.Database)
			return disk{open: d.Open, failNext: d.FailNext}
		}
	}
	os.Exit(pgtest.Main(m))
}
