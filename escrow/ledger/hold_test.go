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

// TestMemoryIsFlat: accounts without holds and operations in flight take no memory, however their operations ended.
func TestMemoryIsFlat(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	for i := range 100 {
		agent := Wallet(fmt.Sprint(i))
		if err := do(l, func(tx *Tx) error {
			_, err := tx.Post(Transfer{Debit: World, Credit: agent, Amount: 10})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h, err := l.Hold(agent, 5)
		if err != nil {
			t.Fatal(err)
		}
		if accounts, amount := l.Held(); accounts != 1 || amount != 5 {
			t.Fatalf("%s is held of %d accounts", amount, accounts)
		}
		if _, err := l.Hold(agent, 6); OutcomeOf(err) != InsufficientFunds {
			t.Fatal(err)
		}
		if _, err := l.Hold(Wallet("nobody"), 6); OutcomeOf(err) != InsufficientFunds {
			t.Fatal(err)
		}
		failure := errors.New("on purpose")
		if err := do(l, func(tx *Tx) error {
			if _, err := tx.Post(Transfer{Debit: agent, Credit: Commission, Amount: 5}, h); err != nil {
				return err
			}
			return failure
		}); !errors.Is(err, failure) {
			t.Fatal(err)
		}
		if err := do(l, func(tx *Tx) error { panic("on purpose") }); !errors.Is(err, errPanic) {
			t.Fatal(err)
		}
		h.Release()
	}
	if n := l.memory.places(); n != 0 {
		t.Errorf("%d accounts are in memory", n)
	}
	if accounts, amount := l.Held(); accounts != 0 || amount != 0 {
		t.Errorf("%s is still held of %d accounts", amount, accounts)
	}
}

// TestBalanceInFlight: while an operation spends held money, that money does not show as available.
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
	err = do(l, func(tx *Tx) error {
		_, err := tx.Post(Transfer{Debit: alice, Credit: Commission, Amount: 3}, h)
		if got := free(); got != before-5 {
			t.Errorf("while 3 of the 5 are being paid, %s are free of %s", got, before)
		}
		if got, err := tx.Held(alice); got != 2 || err != nil {
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

// TestEndedContext: an operation does not begin with an ended context. One that has begun takes place even if its context ends.
func TestEndedContext(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	begun, wait := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		_, err := Do(ctx, l, func(tx *Tx) (Transfer, error) {
			close(begun)
			<-wait
			return tx.Post(Transfer{Debit: World, Credit: Wallet("carol"), Amount: 1})
		})
		done <- err
	}()
	<-begun
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
	close(wait)
	if _, err := Do(ctx, l, func(*Tx) (struct{}, error) { t.Error("it was begun"); return struct{}{}, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("beginning with an ended context: %v", err)
	}
	if err := do(l, func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if account, _, err := l.Balance(Wallet("carol")); account.Balance() != 1 || err != nil {
		t.Errorf("what was begun: %v, %v", account, err)
	}
}

// TestHoldsRelyOnWhatIsCommitted: later operations may spend at once what an operation brings in or gives back. A hold can't have it before
// the operation is durable, so that no hold lacks money when the operation is thrown away.
func TestHoldsRelyOnWhatIsCommitted(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	carol, failure := Wallet("carol"), errors.New("on purpose")
	deposit := Transfer{Debit: World, Credit: carol, Amount: 10}
	mayHold := func(amount Amount) bool {
		h, err := l.Hold(carol, amount)
		if err == nil {
			h.Release()
		}
		return err == nil
	}
	for _, want := range []error{failure, nil} {
		err := do(l, func(tx *Tx) error {
			if _, err := tx.Post(deposit); err != nil {
				return err
			}
			if mayHold(1) {
				t.Error("a hold was made on a deposit that is not committed")
			}
			return want
		})
		if !errors.Is(err, want) || mayHold(10) != (want == nil) {
			t.Errorf("a deposit that ended with %v, and can be held: %t", err, mayHold(10))
		}
	}
	hold, err := l.Hold(carol, 6)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{failure, nil} {
		err := do(l, func(tx *Tx) error {
			if err := tx.Release(hold); err != nil {
				return err
			}
			if mayHold(5) || !mayHold(4) {
				t.Error("a hold was made on what is being given back")
			}
			if _, err := tx.Post(Transfer{Debit: carol, Credit: World, Amount: 3}); err != nil {
				return err
			}
			if held, _ := tx.Held(carol); held != 0 || !mayHold(4) || mayHold(5) {
				t.Error("what is given back was not spent first")
			}
			return want
		})
		if !errors.Is(err, want) || hold.Amount() != map[bool]Amount{true: 0, false: 6}[want == nil] {
			t.Errorf("what was given back by an operation that ended with %v: %s are held", err, hold.Amount())
		}
	}
	if !mayHold(7) || mayHold(8) {
		t.Error("after it, other than 7 are free")
	}
}

// TestReleasedMeanwhile: a hold that is released while an operation uses it stays released, however the operation ends.
func TestReleasedMeanwhile(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	alice, failure := Wallet("alice"), errors.New("on purpose")
	before, _, err := l.Balance(alice)
	if err != nil {
		t.Fatal(err)
	}
	for _, within := range []func(*Tx, *Hold) error{
		func(tx *Tx, h *Hold) error { return tx.Release(h) },
		func(tx *Tx, h *Hold) error {
			_, err := tx.Post(Transfer{Debit: alice, Credit: World, Amount: 2}, h)
			return err
		},
	} {
		h, err := l.Hold(alice, 5)
		if err != nil {
			t.Fatal(err)
		}
		err = do(l, func(tx *Tx) error {
			if err := within(tx, h); err != nil {
				return err
			}
			h.Release()
			return failure
		})
		if account, held, _ := l.Balance(alice); !errors.Is(err, failure) || account != before || held != 0 || h.Amount() != 0 {
			t.Errorf("after %v: %s, %s held", err, account, held)
		}
	}
	if n := l.memory.places(); n != 0 {
		t.Errorf("%d accounts are in memory", n)
	}
}

// TestOnCommit: the functions are called once and in their order, however often the operation ran, and never for parts that were undone.
func TestOnCommit(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	var happened []string
	for _, fails := range []bool{true, false} {
		err := do(l, func(tx *Tx) error {
			tx.OnCommit(func() { happened = append(happened, "a") })
			_ = tx.Try(func() error {
				tx.OnCommit(func() { happened = append(happened, "undone") })
				return errNo
			})
			tx.OnCommit(func() { happened = append(happened, "b") })
			if len(happened) > 0 {
				t.Error("it happened before the commit")
			}
			if fails {
				return errNo
			}
			return nil
		})
		if fails != errors.Is(err, errNo) {
			t.Error(err)
		}
	}
	if fmt.Sprint(happened) != "[a b]" {
		t.Errorf("%v happened", happened)
	}
}

// TestOnUndo: what undoes an operation's doings in memory happens where they are undone, the last first, and not where they stand.
func TestOnUndo(t *testing.T) {
	s, l := sample(t)
	defer s.Close()
	for fails, want := range map[bool]string{false: "[part]", true: "[part b a]"} {
		var happened []string
		note := func(what string) func() { return func() { happened = append(happened, what) } }
		err := do(l, func(tx *Tx) error {
			tx.OnUndo(note("a"))
			_ = tx.Try(func() error { tx.OnUndo(note("part")); return errNo })
			tx.OnUndo(note("b"))
			if fails {
				return errNo
			}
			return nil
		})
		if fails != errors.Is(err, errNo) || fmt.Sprint(happened) != want {
			t.Errorf("%v happened (%v), want %s", happened, err, want)
		}
	}
}
