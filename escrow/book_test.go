package escrow_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var operator = escrow.Actor{Operator: true}

const operatorKey = "the operator's own words"

// tester has the methods of testing.TB that rapid.T has too.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// shop is a book on a real file.
type shop struct {
	*escrow.Book
	t     tester
	clock *clock
	path  string
	way   way

	memory *ledgertest.Memory // if several processes share the ledger
	nodes  []*escrow.Book     // of these processes
}

// way is how a shop's store runs operations.
type way func(ledger.Store) ledger.Store

// ways are all ways: a store that runs each operation once, and stores that run them again.
var ways = map[string]way{"once": func(s ledger.Store) ledger.Store { return s }, "twice": ledgertest.Twice, "again": ledgertest.Again}

// openStore opens the store of a shop.
var openStore = func(path string) (ledger.Store, error) { return bolt.Open(path, bolt.Options{NoSync: true}) }

func defaultRules() escrow.Rules {
	return escrow.Rules{
		OpenRegistration: true, Faucet: amount("10"), MinEscrow: amount("1"), OperatorKeyHash: escrow.HashKey(operatorKey),
	}
}

func newShop(t testing.TB, r escrow.Rules) *shop {
	return newShopBy(t, r, ways["once"])
}

func newShopBy(t testing.TB, r escrow.Rules, by way) *shop {
	s := &shop{t: t, clock: newClock(), path: filepath.Join(t.TempDir(), "ledger.db"), way: by}
	s.open(r)
	t.Cleanup(func() { s.Ledger().Close() })
	return s
}

// newSharedShop returns a shop of several processes that share one ledger. Its steps may be taken by each of them.
func newSharedShop(t testing.TB, r escrow.Rules, processes int) *shop {
	s := &shop{t: t, clock: newClock(), memory: new(ledgertest.Memory), nodes: make([]*escrow.Book, processes)}
	s.open(r)
	t.Cleanup(s.close)
	return s
}

func (s *shop) close() {
	for _, b := range s.nodes {
		_ = b.Ledger().Close()
	}
}

// turn lets another process of a shared shop take the next step.
func (s *shop) turn(i int) {
	if len(s.nodes) > 0 {
		s.Book = s.nodes[i%len(s.nodes)]
	}
	if len(s.nodes) < 2 {
		return
	}
	s.clock.advance(time.Millisecond) // ids that several processes make in one millisecond have no order
	for range 2 {                     // what was begun has ended, what was recalled was given back, and what came of that was done
		for _, b := range s.nodes {
			must(s.t, b.Ledger().Tend(context.Background()))
			must(s.t, b.FinishClosing(context.Background()))
		}
	}
}

// rule gives a shop other rules, as a new configuration does in each process.
func (s *shop) rule(r escrow.Rules) {
	for i, b := range s.nodes {
		s.nodes[i] = b.With(r)
	}
	s.Book = s.With(r)
}

func (s *shop) open(r escrow.Rules) {
	s.t.Helper()
	for i := range s.nodes {
		l, err := ledger.New(s.memory.Open(), ledger.Options{Now: s.clock.Now, Currency: "USDC"})
		must(s.t, err)
		s.nodes[i] = escrow.New(l, r)
	}
	if len(s.nodes) > 0 {
		s.turn(0)
		return
	}
	store, err := openStore(s.path)
	must(s.t, err)
	l, err := ledger.New(s.way(store), ledger.Options{Now: s.clock.Now, Currency: "USDC"})
	must(s.t, err)
	s.Book = escrow.New(l, r)
}

// reopen closes the file and opens it again, as a new process does.
func (s *shop) reopen() {
	s.t.Helper()
	rules := s.Rules()
	if len(s.nodes) > 0 {
		s.close()
	} else {
		must(s.t, s.Ledger().Close())
	}
	s.open(rules)
	must(s.t, s.RecoverPending(context.Background()))
}

// catchUp does everything that is due, as a server's worker does after a moment. Things that fail are due again a minute later.
func (s *shop) catchUp() {
	s.t.Helper()
	for range 10_000 {
		next, _ := s.RunDue(context.Background())
		if next.IsZero() || next.After(s.Now()) {
			return
		}
	}
	s.t.Fatal("what is due does not come to an end")
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func amount(s string) ledger.Amount {
	a, err := ledger.ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

func by(agent string) escrow.Actor { return escrow.Actor{Agent: agent} }

// run runs op in one operation.
func (s *shop) run(op func(*escrow.Tx) error) error {
	_, err := do(s, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, op(t) })
	return err
}

// do runs op in one operation and returns its result.
func do[T any](s *shop, op func(*escrow.Tx) (T, error)) (T, error) {
	return escrow.Do(context.Background(), s.Book, op)
}

// agents makes agents with money in their wallets.
func (s *shop) agents(money string, names ...string) {
	s.t.Helper()
	for _, name := range names {
		must(s.t, s.run(func(t *escrow.Tx) error {
			if _, _, _, err := t.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: name}); err != nil {
				return err
			}
			if money == "0" {
				return nil
			}
			_, err := t.Deposit(operator, escrow.PaymentOrder{To: name, Amount: amount(money)})
			return err
		}))
	}
}

// refused checks that err is a refusal with that outcome.
func refused(t tester, err error, want escrow.Outcome) *escrow.Refusal {
	t.Helper()
	r, ok := err.(*escrow.Refusal)
	if !ok || r.Outcome != want {
		t.Fatalf("got %v, want a refusal with %s", err, want)
	}
	return r
}

// sound checks the books.
func (s *shop) sound() {
	s.t.Helper()
	report, err := s.Check(context.Background(), nil)
	must(s.t, err)
	for _, f := range report.Wrong {
		s.t.Errorf("books: %s", f)
	}
	for _, f := range report.Ledger.Wrong {
		s.t.Errorf("ledger: %s", f)
	}
}
