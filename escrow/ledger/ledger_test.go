package ledger_test

import (
	"context"
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// A metered call: money is held in memory on the way in, and paid with its commission on the way out, together with a record by which
// it is paid once.
func Example() {
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	ctx := context.Background()
	alice, acme := ledger.Wallet("alice"), ledger.Wallet("acme")

	err = l.Do(ctx, func(b *ledger.Batch) error {
		_, err := b.Post(ledger.Transfer{Debit: ledger.World, Credit: alice, Amount: 10 * ledger.Unit, Kind: "deposit"})
		return err
	})
	fmt.Println("deposit:", err)

	_, err = l.Hold(alice, 11*ledger.Unit)
	fmt.Println("hold 11:", err)
	hold, err := l.Hold(alice, 3*ledger.Unit)
	fmt.Println("hold 3:", err)
	defer hold.Release()

	charge := func(b *ledger.Batch) error {
		if made, err := b.Get([]byte("dcharge:req_1")); err != nil || made != nil {
			return err
		}
		b.Put([]byte("dcharge:req_1"), []byte("2"))
		for _, t := range []ledger.Transfer{
			{Debit: alice, Credit: acme, Amount: 198 * ledger.Unit / 100, Kind: "charge", Reference: "req_1"},
			{Debit: alice, Credit: ledger.Commission, Amount: 2 * ledger.Unit / 100, Kind: "commission", Reference: "req_1"},
		} {
			if _, err := b.Post(t, hold); err != nil {
				return err
			}
		}
		return nil
	}
	for range 2 {
		fmt.Println("settle:", l.Do(ctx, charge))
	}

	account, held, err := l.Balance(alice)
	fmt.Println("alice:", account.Balance(), "held", held, err)
	entries, err := l.Entries(alice, 0, 2)
	for _, e := range entries {
		fmt.Println(e.Kind, e.Amount, e.BalanceAfter, e.Counterparty)
	}
	report, err := l.Check(ctx, nil)
	fmt.Println("check:", report.Transfers, "transfers,", len(report.Wrong), "wrong,", err)
	// Output:
	// deposit: <nil>
	// hold 11: insufficient_funds: wallet:alice has 10 available, 11 is required
	// hold 3: <nil>
	// settle: <nil>
	// settle: <nil>
	// alice: 8 held 1 <nil>
	// commission -0.02 8 commission
	// charge -1.98 8.02 wallet:acme
	// check: 3 transfers, 0 wrong, <nil>
}
