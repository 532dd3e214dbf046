//go:build unix

package postgres_test

import (
	"os"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

func TestMain(m *testing.M) {
	rounds.Checks(2, 5) // few: each step of a random history asks the database
	os.Exit(pgtest.Main(m))
}
