package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func (m *memory) places() (n int) {
	for i := range m.shards {
		m.shards[i].mu.Lock()
		n += len(m.shards[i].places)
		m.shards[i].mu.Unlock()
	}
	return n
}

// TestMemoryIsFlat: accounts that nothing is held on and nothing happens to take no memory, however it ended.
func TestMemoryIsFlat(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	ctx := context.Background()
	for i := range 100 {
		agent := Wallet(fmt.Sprint(i))
		if err := l.Do(ctx, func(b *Batch) error {
			_, err := b.Post(Transfer{Debit: World, Credit: agent, Amount: 10})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h, err := l.Hold(agent, 5)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Hold(agent, 6); OutcomeOf(err) != InsufficientFunds {
			t.Fatal(err)
		}
		if _, err := l.Hold(Wallet("nobody"), 6); OutcomeOf(err) != InsufficientFunds {
			t.Fatal(err)
		}
		failure := errors.New("on purpose")
		if err := l.Do(ctx, func(b *Batch) error {
			if _, err := b.Post(Transfer{Debit: agent, Credit: Commission, Amount: 5}, h); err != nil {
				return err
			}
			return failure
		}); !errors.Is(err, failure) {
			t.Fatal(err)
		}
		if err := l.Do(ctx, func(b *Batch) error { panic("on purpose") }); !errors.Is(err, errPanic) {
			t.Fatal(err)
		}
		h.Release()
	}
	if n := l.memory.places(); n != 0 {
		t.Errorf("%d accounts are in memory", n)
	}
}

// TestBalanceInFlight: while an operation is under way, what a holder gave to it does not show as available again.
func TestBalanceInFlight(t *testing.T) {
	s, l := sample(t) // alice has 21 - 3*(1 posted) = 18, and 3*2 pending
	defer s.Close()
	alice := Wallet("alice")
	free := func() Amount {
		account, held, err := l.Balance(alice)
		if err != nil {
			t.Fatal(err)
		}
		return account.Available() - held
	}
	before := free()
	h, err := l.Hold(alice, 5)
	if err != nil {
		t.Fatal(err)
	}
	if got := free(); got != before-5 {
		t.Errorf("with a hold of 5 of %s, %s are free", before, got)
	}
	err = l.Do(context.Background(), func(b *Batch) error {
		_, err := b.Post(Transfer{Debit: alice, Credit: Commission, Amount: 3}, h)
		if got := free(); got != before-5 {
			t.Errorf("while 3 of the 5 are being paid, %s are free of %s", got, before)
		}
		if got := b.Held(alice); got != 2 {
			t.Errorf("while 3 of the 5 are being paid, %s are held", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := free(); got != before-5 {
		t.Errorf("when 3 of the 5 are paid, %s are free of %s", got, before)
	}
	h.Release()
	if got := free(); got != before-3 {
		t.Errorf("when all is done, %s are free of %s", got, before)
	}
}

// TestEndedContext: what was not begun does not take place, what was begun does.
func TestEndedContext(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	begun, wait := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- l.Do(ctx, func(b *Batch) error {
			close(begun)
			<-wait
			_, err := b.Post(Transfer{Debit: World, Credit: Wallet("carol"), Amount: 1})
			return err
		})
	}()
	<-begun
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
	close(wait)
	if err := l.Do(ctx, func(*Batch) error { t.Error("it was begun"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("beginning with an ended context: %v", err)
	}
	if err := l.Queue(func(b *Batch) error { return nil }).Wait(); err != nil {
		t.Fatal(err)
	}
	if account, _, err := l.Balance(Wallet("carol")); account.Balance() != 1 || err != nil {
		t.Errorf("what was begun: %v, %v", account, err)
	}
}
