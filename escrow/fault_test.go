package escrow_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// TestCommitFails: if the commit of a settlement fails, its outcome is unknown until the ledger is reopened. Then either both the charge and the
// payment are there, or neither.
func TestCommitFails(t *testing.T) {
	for _, kept := range []bool{true, false} {
		memory := &ledgertest.Memory{}
		l, err := ledger.New(memory.Open(), ledger.Options{Currency: "USDC", Logger: slog.New(slog.DiscardHandler), Lifetime: -1})
		must(t, err)
		s := &shop{Book: escrow.New(l, defaultRules()), t: t, clock: newClock()}
		s.agents("10", "alice")
		s.agents("0", "shop")
		id := s.NewRequestID()
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: id, By: by("alice"), Payee: "shop", Least: amount("2"), IdempotencyKey: "k"})
		must(t, err)
		memory.FailNext(errors.New("disk on fire"), kept)
		if _, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("2")}); !errors.Is(err, ledger.ErrOutcomeUnknown) {
			t.Fatalf("kept %v: settled with %v", kept, err)
		}
		if _, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: 1}); !errors.Is(err, ledger.ErrUnavailable) {
			t.Fatalf("kept %v: a call is let in: %v", kept, err)
		}
		must(t, l.Reopen())
		w, err := s.Wallet(context.Background(), "alice")
		must(t, err)
		_, err = s.Charge(context.Background(), operator, id)
		_, retried := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: 1, IdempotencyKey: "k"})
		if kept {
			if err != nil || w.Available != amount("8") || !escrow.IsRefusal(retried, escrow.IdempotencyConflict) {
				t.Errorf("it was kept: charge %v, available %s, tried again %v", err, w.Available, retried)
			}
			must(t, s.run(func(tx *escrow.Tx) error {
				_, err := tx.RefundCharge(operator, id, 0, "its response never went out")
				return err
			}))
		} else if !escrow.IsRefusal(err, escrow.NotFound) || w.Available != amount("10") || w.Held != 0 || retried != nil {
			t.Errorf("it was not kept: charge %v, available %s, held %s, tried again %v", err, w.Available, w.Held, retried)
		}
		s.sound()
		must(t, l.Close())
	}
}

// TestACancelledCallIsPutRight: the commit that cancels a call fails. When the ledger is reopened, the draws of the call and its hold on the escrow are
// given back, without a restart.
func TestACancelledCallIsPutRight(t *testing.T) {
	for _, kept := range []bool{true, false} {
		memory := &ledgertest.Memory{}
		l, err := ledger.New(memory.Open(), ledger.Options{Currency: "USDC", Logger: slog.New(slog.DiscardHandler), Lifetime: -1})
		must(t, err)
		s := &shop{Book: escrow.New(l, defaultRules()), t: t, clock: newClock()}
		s.agents("10", "alice")
		s.agents("0", "shop")
		id := s.NewRequestID()
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: id, By: by("alice"), Payee: "shop", Least: amount("2"), IdempotencyKey: "k"})
		must(t, err)
		a.Draw(amount("2"), false)
		must(t, a.Await())
		memory.FailNext(errors.New("disk on fire"), kept)
		a.Cancel()
		for s.Ledger().Err() == nil {
			runtime.Gosched()
		}
		must(t, l.Reopen())
		for right := 0; right == 0; runtime.Gosched() { // the note is made when the cancelled call's operation has failed
			right, err = s.PutRight(context.Background())
			must(t, err)
		}
		w, err := s.Wallet(context.Background(), "alice")
		must(t, err)
		if w.Available != amount("10") || w.Held != 0 {
			t.Errorf("kept %v: %s available, %s held, want 10 and 0", kept, w.Available, w.Held)
		}
		again, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: 1, IdempotencyKey: "k"})
		must(t, err)
		again.Cancel()
		s.sound()
		must(t, l.Close())
	}
}

// TestARenamedCallIsPutRight: the commit that charges a part of a result fails. When the ledger is reopened, what was set aside on disk for the whole is
// given back, without a restart.
func TestARenamedCallIsPutRight(t *testing.T) {
	for _, kept := range []bool{true, false} {
		memory := &ledgertest.Memory{}
		l, err := ledger.New(memory.Open(), ledger.Options{Currency: "USDC", Logger: slog.New(slog.DiscardHandler), Lifetime: -1})
		must(t, err)
		s := &shop{Book: escrow.New(l, defaultRules()), t: t, clock: newClock()}
		s.agents("10", "alice")
		s.agents("0", "shop")
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("2")})
		must(t, err)
		a.Draw(amount("2"), false)
		must(t, a.Await())
		if !a.Rename(s.NewRequestID()) {
			t.Fatal("it has another id")
		}
		memory.FailNext(errors.New("disk on fire"), kept)
		if _, err := a.Settle(t.Context(), escrow.Settlement{Amount: amount("0.5")}); err == nil {
			t.Error("the commit fails, and the part is charged")
		}
		must(t, l.Reopen())
		_, err = s.PutRight(context.Background())
		must(t, err)
		w, err := s.Wallet(context.Background(), "alice")
		must(t, err)
		if want := map[bool]string{true: "9.5", false: "10"}[kept]; w.Available != amount(want) || w.Held != 0 {
			t.Errorf("kept %v: %s available, %s held, want %s and 0", kept, w.Available, w.Held, want)
		}
		s.sound()
		must(t, l.Close())
	}
}
