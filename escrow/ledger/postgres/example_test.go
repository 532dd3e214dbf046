package postgres_test

import (
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
)

func ExampleOpen() {
	store, err := postgres.Open("postgres://tallygate@db.internal/tallygate", postgres.Options{})
	if err != nil {
		fmt.Println(err) // such as: another gateway serves on this database
		return
	}
	books, err := ledger.New(store, ledger.Options{Currency: "USDC"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer books.Close()
}
