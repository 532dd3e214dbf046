package ledgertest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
)

func TestSharedMemory(t *testing.T) { RunShared(t, Memories) }

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
		a, b := openIn(t, placeIn(m)), openIn(t, placeIn(m))
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
		err = payFrom(a, "alice", "bob", 1, hold)
		if name == "a transfer" { // nobody reads it again, but a check
			_, err := a.Check(t.Context(), nil)
			must(t, err)
		}
		if err = errors.Join(err, a.Err()); !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("%s was forged: %v", name, err)
		}
	}
}

// counted is a shared store that counts operations.
type counted struct {
	ledger.Store
	submitted atomic.Int64
}

func (c *counted) Submit(op ledger.Op) {
	c.submitted.Add(1)
	c.Store.Submit(op)
}

func (*counted) Shared() {}

// TestWhoLacksMoneyCostsLittle: many holds for which there is too little wait for another process's lease together: they take few operations each,
// however long they wait.
func TestWhoLacksMoneyCostsLittle(t *testing.T) {
	p := Memories(t)
	a := openIn(t, p)
	must(t, deposit(a, "alice", 10))
	hold, err := a.Hold(ledger.Wallet("alice"), 9)
	must(t, err)
	defer hold.Release()
	c := &counted{Store: p.Open()}
	b, err := ledger.New(c, ledger.Options{Currency: "USDC", Logger: quiet})
	must(t, err)
	defer func() { must(t, b.Close()) }()
	const asks = 200
	before := c.submitted.Load()
	var all sync.WaitGroup
	for i := range asks {
		all.Go(func() {
			if i%2 == 0 {
				if _, err := b.Hold(ledger.Wallet("alice"), 5); ledger.OutcomeOf(err) != ledger.InsufficientFunds {
					t.Errorf("a hold of more than there is: %v", err)
				}
			} else if err := payFrom(b, "alice", "bob", 5); ledger.OutcomeOf(err) != ledger.InsufficientFunds {
				t.Errorf("a payment of more than there is: %v", err)
			}
		})
	}
	all.Wait()
	if took := c.submitted.Load() - before; took > 5*asks {
		t.Errorf("%d asks for money that there is not took %d operations", asks, took)
	}
}
