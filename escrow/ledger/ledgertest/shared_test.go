package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
)

func openIn(t testing.TB, m *Memory) *ledger.Ledger {
	t.Helper()
	l, err := ledger.New(m.Open(), ledger.Options{Currency: "USDC", Logger: quiet})
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

// TestTwoLedgers: a ledger sees what another process commits to the same store, even on accounts on which it has holds.
func TestTwoLedgers(t *testing.T) {
	m := new(Memory)
	a, b := openIn(t, m), openIn(t, m)
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
		must(t, payFrom(l, "alice", "bob", 1))
		mustBalance(t, l)
		must(t, l.Err())
	}
}

// TestWrongRecordOfOthers: also on a shared store a ledger finds account records that do not match the transfers, and a rewritten history.
func TestWrongRecordOfOthers(t *testing.T) {
	forge := func(m *Memory, change func(records map[string][]byte)) {
		m.mu.Lock()
		defer m.mu.Unlock()
		change(m.records.values)
	}
	for name, c := range map[string]func(records, before map[string][]byte){
		"an account": func(r, _ map[string][]byte) { r["awallet:alice"] = r["awallet:bob"] },
		"a transfer": func(r, _ map[string][]byte) {
			r["t\x00\x00\x00\x00\x00\x00\x00\x04"] = r["t\x00\x00\x00\x00\x00\x00\x00\x01"]
		},
		"the past": func(r, before map[string][]byte) {
			for key := range r {
				delete(r, key)
			}
			for key, value := range before {
				r[key] = value
			}
		},
	} {
		m := new(Memory)
		a, b := openIn(t, m), openIn(t, m)
		must(t, deposit(a, "bob", 1))
		before := m.committed()
		must(t, deposit(a, "alice", 10))
		must(t, deposit(a, "carol", 1))
		hold, err := a.Hold(ledger.Wallet("alice"), 6)
		must(t, err)
		if name != "the past" {
			must(t, deposit(b, "carol", 5))
		}
		forge(m, func(r map[string][]byte) { c(r, before.values) })
		if err := payFrom(a, "alice", "bob", 1, hold); !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("%s was forged: %v", name, err)
		}
	}
}

// TestSessions: a session is over when its ledger is closed. On a store that is not shared, it is over when another ledger is opened.
func TestSessions(t *testing.T) {
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
	m := new(Memory)
	a := openIn(t, m)
	b, err := ledger.New(m.Open(), ledger.Options{})
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
	alone := func() ledger.Store { return struct{ ledger.Store }{m.Open()} } // a store that does not implement ledger.Shared
	c, err := ledger.New(alone(), ledger.Options{})
	must(t, err)
	defer c.Close()
	if third := session(c); !over(c, first) || over(c, third) || third.Epoch != 3 {
		t.Errorf("on a store of its own: %v is not over, or %v is", first, third)
	}
}

// TestManyLedgers: several processes pay between the same accounts concurrently. None sees wrong books, and no money is lost.
func TestManyLedgers(t *testing.T) {
	m := new(Memory)
	first := openIn(t, m)
	agents := []string{"a", "b", "c", "d"}
	for _, agent := range agents {
		must(t, deposit(first, agent, 1000))
	}
	var all sync.WaitGroup
	for node := range 3 {
		l := openIn(t, m)
		all.Go(func() {
			for i := range 60 {
				from, to := agents[(node+i)%4], agents[(node+2*i+1)%4]
				if err := payFrom(l, from, to, 7); err != nil && ledger.OutcomeOf(err) != ledger.InsufficientFunds && from != to {
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
