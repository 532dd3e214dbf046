package ledger_test

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// keeper is a store that keeps back the operations that it is given while keeping is set.
type keeper struct {
	ledger.Store
	keeping bool
	kept    []ledger.Op
}

// Submit implements [ledger.Store].
func (k *keeper) Submit(op ledger.Op) {
	if k.keeping {
		k.kept = append(k.kept, op)
		return
	}
	k.Store.Submit(op)
}

// Reopen implements [ledger.Reopener].
func (k *keeper) Reopen() error { return k.Store.(ledger.Reopener).Reopen() }

// TestARefusalDoesNotStopAReopenedLedger: an operation that runs while a ledger takes none, and whose caller is told only after the ledger was
// reopened, does not stop it again.
func TestARefusalDoesNotStopAReopenedLedger(t *testing.T) {
	t.Parallel()
	memory := new(ledgertest.Memory)
	store := &keeper{Store: memory.Open()}
	l, err := ledger.New(store, ledger.Options{Currency: "USDC", Lifetime: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	deposit := func() *ledger.Receipt[ledger.Transfer] {
		return ledger.Queue(l, func(tx *ledger.Tx) (ledger.Transfer, error) {
			return tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet("ada"), Amount: 1, Kind: "deposit"})
		})
	}
	store.keeping = true
	late := deposit()
	store.keeping = false
	memory.FailNext(errors.New("disk on fire"), false)
	if _, err := deposit().Wait(); !errors.Is(err, ledger.ErrOutcomeUnknown) {
		t.Errorf("a failed commit: %v", err)
	}
	refusal := store.kept[0].Run(nil)
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	store.kept[0].Done(refusal)
	if _, err := late.Wait(); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("an operation while the ledger took none: %v", err)
	}
	if err := l.Err(); err != nil {
		t.Errorf("the reopened ledger has stopped again: %v", err)
	}
	if _, err := deposit().Wait(); err != nil {
		t.Errorf("an operation of the reopened ledger: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
