//go:build unix

package postgres_test

import (
	"flag"
	"os"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// checks is how many random histories the suite tries here, if the command line does not say: each step of one asks the database.
const checks = "5"

func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if !set {
		if err := flag.Set("rapid.checks", checks); err != nil {
			panic(err)
		}
	}
	os.Exit(pgtest.Main(m))
}
