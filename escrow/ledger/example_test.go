package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// A ledger in a file: money is deposited, held in memory for a call, and then pays for the call and the commission.
func Example() {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := bolt.Open(filepath.Join(dir, "ledger.db"), bolt.Options{})
	if err != nil {
		panic(err)
	}
	l, err := ledger.New(store, ledger.Options{Currency: "USDC"})
	if err != nil {
		panic(err)
	}
	defer l.Close()

	ctx, alice, acme := context.Background(), ledger.Wallet("alice"), ledger.Wallet("acme")
	_, err = ledger.Do(ctx, l, func(tx *ledger.Tx) (ledger.Transfer, error) {
		return tx.Post(ledger.Transfer{Debit: ledger.World, Credit: alice, Amount: 10 * ledger.Unit, Kind: "deposit"})
	})
	fmt.Println("deposit:", err)

	_, err = l.Hold(alice, 11*ledger.Unit)
	fmt.Println("hold 11:", err)
	hold, err := l.Hold(alice, 3*ledger.Unit)
	fmt.Println("hold 3:", err)
	charge, err := ledger.Do(ctx, l, func(tx *ledger.Tx) (ledger.Transfer, error) {
		charge, err := tx.Post(ledger.Transfer{Debit: alice, Credit: acme, Amount: 2 * ledger.Unit, Kind: "charge", Reference: "req_1"}, hold)
		if err != nil {
			return charge, err
		}
		_, err = tx.Post(ledger.Transfer{Debit: acme, Credit: ledger.Commission, Amount: ledger.Unit / 50, Kind: "commission", Reference: "req_1"})
		return charge, err
	})
	fmt.Println("charge:", charge.Amount, err)
	hold.Release()

	for _, id := range []ledger.AccountID{alice, acme, ledger.Commission} {
		account, held, err := l.Balance(id)
		fmt.Println(id, account.Balance(), "held", held, err)
	}
	// Output:
	// deposit: <nil>
	// hold 11: insufficient_funds: wallet:alice has 10 available, 11 is required
	// hold 3: <nil>
	// charge: 2 <nil>
	// wallet:alice 8 held 0 <nil>
	// wallet:acme 1.98 held 0 <nil>
	// commission 0.02 held 0 <nil>
}

// An operation that puts a record under its own id takes place only once. A repeated operation finds the record and does nothing. After an
// unknown outcome, the record tells whether the operation took place.
func ExampleTx_Put() {
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"})
	if err != nil {
		panic(err)
	}
	defer l.Close()
	deposit := func(tx *ledger.Tx) (bool, error) {
		key := []byte("ddeposit:bank_42")
		if booked, err := tx.Get(key); err != nil || booked != nil {
			return false, err
		}
		tx.Put(key, []byte("booked"))
		_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet("alice"), Amount: 10 * ledger.Unit, Kind: "deposit"})
		return true, err
	}
	for range 2 {
		booked, err := ledger.Do(context.Background(), l, deposit)
		fmt.Println("booked:", booked, err)
	}
	account, _, err := l.Balance(ledger.Wallet("alice"))
	fmt.Println(account.Balance(), err)
	// Output:
	// booked: true <nil>
	// booked: false <nil>
	// 10 <nil>
}
