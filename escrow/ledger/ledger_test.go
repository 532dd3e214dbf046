package ledger_test

import (
	"context"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

func TestSmoke(t *testing.T) {
	s, err := bolt.Open(t.TempDir()+"/a/l.db", bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	alice, bob := ledger.Wallet("alice"), ledger.Wallet("bob")
	err = l.Do(ctx, func(b *ledger.Batch) error {
		_, err := b.Post(ledger.Transfer{Debit: ledger.World, Credit: alice, Amount: 10 * ledger.Unit, Kind: "deposit"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.Hold(alice, 6*ledger.Unit)
	if err != nil {
		t.Fatal(err)
	}
	err = l.Do(ctx, func(b *ledger.Batch) error {
		_, err := b.Post(ledger.Transfer{Debit: alice, Credit: bob, Amount: 5 * ledger.Unit, Kind: "charge"})
		return err
	})
	if ledger.OutcomeOf(err) != ledger.InsufficientFunds {
		t.Fatal(err)
	}
	err = l.Do(ctx, func(b *ledger.Batch) error {
		_, err := b.Post(ledger.Transfer{Debit: alice, Credit: bob, Amount: 5 * ledger.Unit, Kind: "charge"}, h)
		return err
	})
	if err != nil || h.Amount() != ledger.Unit {
		t.Fatal(err, h.Amount())
	}
	h.Release()
	for range 2 {
		_, replayed, err := l.Once(ctx, "x", nil, func(b *ledger.Batch) ([]byte, error) {
			_, err := b.Post(ledger.Transfer{Debit: bob, Credit: alice, Amount: 6 * ledger.Unit, Kind: "charge"})
			return nil, err
		})
		t.Log(replayed, err)
	}
	e, err := l.Entries(alice, 0, 10)
	t.Log(e, err)
	r, err := l.Check(ctx, nil)
	t.Log(r, err)
}
