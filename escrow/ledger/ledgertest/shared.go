package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// RunShared runs the tests that a store must pass which implements [ledger.Shared]: several ledgers are open on it. fresh returns an empty
// place for one test.
func RunShared(t *testing.T, fresh func(testing.TB) Place) {
	t.Run("two ledgers", func(t *testing.T) { testTwoLedgers(t, fresh(t)) })
	t.Run("many ledgers", func(t *testing.T) { testManyLedgers(t, fresh(t)) })
	t.Run("sessions", func(t *testing.T) { testSessions(t, fresh(t)) })
	t.Run("purse", func(t *testing.T) { testSharedPurse(t, fresh(t)) })
	t.Run("nodes", func(t *testing.T) { testNodes(t, fresh) })
}

func openIn(t testing.TB, p Place) *ledger.Ledger {
	t.Helper()
	l, err := ledger.New(p.Open(), ledger.Options{Currency: "USDC", Logger: quiet})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func payFrom(l *ledger.Ledger, from, to string, amount ledger.Amount, cover ...*ledger.Hold) error {
	return do(l, func(tx *ledger.Tx) error {
		_, err := tx.Post(ledger.Transfer{Debit: ledger.Wallet(from), Credit: ledger.Wallet(to), Amount: amount, Kind: "pay"}, cover...)
		return err
	})
}

// testTwoLedgers: a ledger sees what another process commits to the same store, even on accounts on which it has holds.
func testTwoLedgers(t *testing.T, p Place) {
	a, b := openIn(t, p), openIn(t, p)
	must(t, deposit(a, "alice", 10))
	hold, err := a.Hold(ledger.Wallet("alice"), 6)
	must(t, err)
	must(t, deposit(b, "alice", 5))
	must(t, payFrom(b, "alice", "bob", 2))
	must(t, payFrom(a, "alice", "carol", 4, hold))
	if account, held, err := a.Balance(ledger.Wallet("alice")); account.Balance() != 9 || held != 2 || err != nil {
		t.Errorf("alice has %s, %s held, %v", account.Balance(), held, err)
	}
	if _, err := a.Hold(ledger.Wallet("alice"), 8); ledger.OutcomeOf(err) != ledger.InsufficientFunds {
		t.Errorf("a hold of more than is free: %v", err)
	}
	rest, err := a.Hold(ledger.Wallet("alice"), 7)
	must(t, err)
	rest.Release()
	hold.Release()
	for _, l := range []*ledger.Ledger{a, b} {
		err := payFrom(l, "alice", "bob", 1)
		for deadline := time.Now().Add(time.Minute); ledger.OutcomeOf(err) == ledger.InsufficientFunds && time.Now().Before(deadline); {
			err = payFrom(l, "alice", "bob", 1) // on a busy machine the other ledger may be late to give back what it does not need
		}
		must(t, err)
		mustBalance(t, l)
		must(t, l.Err())
	}
}

// testSessions: a session is over when its ledger is closed. On a store that is not shared, it is over when another ledger is opened.
func testSessions(t *testing.T, p Place) {
	session := func(l *ledger.Ledger) ledger.Session {
		s, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (ledger.Session, error) { return tx.Session(), nil })
		must(t, err)
		return s
	}
	over := func(l *ledger.Ledger, s ledger.Session) bool {
		is, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (bool, error) { return tx.Over(s) })
		must(t, err)
		return is
	}
	a := openIn(t, p)
	b, err := ledger.New(p.Open(), ledger.Options{})
	must(t, err)
	first, second := session(a), session(b)
	if over(a, first) || over(a, second) || over(b, first) {
		t.Error("a session is over whose ledger is open")
	}
	if !over(a, ledger.Session{}) || !over(a, ledger.Session{Epoch: first.Epoch, Process: "another"}) {
		t.Error("a session that never was is not over")
	}
	must(t, b.Close())
	if over(a, first) || !over(a, second) {
		t.Error("after the second ledger was closed, its session is not over, or the first one's is")
	}
	alone := func() ledger.Store { return struct{ ledger.Store }{p.Open()} } // a store that does not implement ledger.Shared
	c, err := ledger.New(alone(), ledger.Options{})
	must(t, err)
	defer c.Close()
	if third := session(c); !over(c, first) || over(c, third) || third.Epoch != 3 {
		t.Errorf("on a store of its own: %v is not over, or %v is", first, third)
	}
}

// testManyLedgers: several processes hold and pay between the same accounts concurrently. None sees wrong books, and no money is lost.
func testManyLedgers(t *testing.T, p Place) {
	first := openIn(t, p)
	agents := []string{"a", "b", "c", "d"}
	for _, agent := range agents {
		must(t, deposit(first, agent, 1000))
	}
	var all sync.WaitGroup
	for node := range 3 {
		l := openIn(t, p)
		all.Go(func() {
			for i := range 60 {
				from, to := agents[(node+i)%4], agents[(node+2*i+1)%4]
				if err := holdAndPay(l, from, to, 7); err != nil && ledger.OutcomeOf(err) != ledger.InsufficientFunds && from != to {
					t.Error(fmt.Errorf("node %d: %w", node, err))
				}
			}
		})
	}
	all.Wait()
	mustBalance(t, first)
	sum := ledger.Amount(0)
	for _, agent := range agents {
		account, _, err := first.Balance(ledger.Wallet(agent))
		must(t, err)
		sum += account.Balance()
	}
	if sum != 4000 {
		t.Errorf("the wallets have %d together, want 4000", sum)
	}
}

func holdAndPay(l *ledger.Ledger, from, to string, amount ledger.Amount) error {
	hold, err := l.Hold(ledger.Wallet(from), amount)
	if err != nil {
		return err
	}
	defer hold.Release()
	err = payFrom(l, from, to, amount, hold)
	if errors.Is(err, ledger.ErrReadOnly) {
		return fmt.Errorf("the books of a ledger on a shared store: %w", err)
	}
	return err
}
