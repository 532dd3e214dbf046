package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// node is the book of one of several processes that share a store.
func node(t *testing.T, m *ledgertest.Memory) *shop {
	t.Helper()
	c := newClock()
	l, err := ledger.New(m.Open(), ledger.Options{Now: c.Now, Currency: "USDC"})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s := &shop{Book: escrow.New(l, defaultRules()), t: t, clock: c}
	must(t, s.RecoverPending(t.Context()))
	return s
}

// TestRecoveryLeavesTheLivingAlone: a process that starts while another one runs does not recover the draws and holds of the other's calls. After
// the other process has ended, it does.
func TestRecoveryLeavesTheLivingAlone(t *testing.T) {
	m := new(ledgertest.Memory)
	first := node(t, m)
	first.agents("100", "alice")
	first.agents("0", "shop")
	locked, err := do(first, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("20")})
	})
	must(t, err)
	call := func(request string, o escrow.CallOrder) *escrow.Authorisation {
		t.Helper()
		o.Request, o.By, o.Payee, o.Least = request, by("alice"), "shop", amount("5")
		a, err := first.Authorise(t.Context(), o)
		must(t, err)
		return a
	}
	streams, lost := call("req_1", escrow.CallOrder{}), call("req_2", escrow.CallOrder{})
	fromEscrow := call("req_3", escrow.CallOrder{From: escrow.FromEscrow, Escrow: locked.ID})
	for _, a := range []*escrow.Authorisation{streams, lost} {
		a.Draw(amount("2"), false)
		must(t, a.Await())
	}
	_, err = do(first, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Release(by("alice"), locked.ID, "") })
	must(t, err)

	second := node(t, m)
	second.agents("3", "bob")
	if w, err := second.Wallet(t.Context(), "shop"); err != nil || w.Pending != amount("4") {
		t.Fatalf("beside the calls that run, %s are pending, %v", w.Pending, err)
	}
	if e, err := second.Escrow(t.Context(), operator, locked.ID); err != nil || e.Closing != escrow.ToPayee || e.Remaining() != amount("5") {
		t.Fatalf("beside a call that holds 5 of it, the escrow has %s, %v", e.Remaining(), err)
	}
	charge, err := streams.Settle(context.Background(), escrow.Settlement{Amount: amount("4")})
	must(t, err)
	if charge.Amount != amount("4") || charge.Suspect {
		t.Errorf("a call that ran while another process began was charged %s, suspect %v", charge.Amount, charge.Suspect)
	}
	charge, err = fromEscrow.Settle(context.Background(), escrow.Settlement{Amount: amount("5")})
	must(t, err)
	if charge.Amount != amount("5") || charge.Suspect {
		t.Errorf("a call on an escrow that is over was charged %s, suspect %v", charge.Amount, charge.Suspect)
	}
	must(t, second.run(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("7")})
		return err
	}))
	must(t, first.run(func(tx *escrow.Tx) error {
		_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "bob", Amount: amount("70")})
		return err
	}))
	must(t, first.Ledger().Err())
	first.sound()

	must(t, first.Ledger().Close()) // with a call that had drawn 2
	must(t, second.RecoverPending(t.Context()))
	charge, err = second.Charge(context.Background(), operator, "req_2")
	must(t, err)
	if charge.Amount != amount("2") || charge.Cut != "crash" {
		t.Errorf("the call that died with its process was charged %s, cut by %s", charge.Amount, charge.Cut)
	}
	if w, err := second.Wallet(t.Context(), "shop"); err != nil || w.Pending != 0 || w.Balance != amount("26") {
		t.Errorf("the payee has %s, and %s pending, %v", w.Balance, w.Pending, err)
	}
	second.sound()
}

// TestLedgerBeforeSessions: a ledger of an old program without sessions can be opened, and its interrupted calls are recovered. The file has three
// calls that had drawn 2 each, one of them from an escrow of 20 that was released while the call held 5 of it.
func TestLedgerBeforeSessions(t *testing.T) {
	text, err := os.ReadFile("testdata/before_sessions.hex")
	must(t, err)
	m := new(ledgertest.Memory)
	store, done := m.Open(), make(chan error)
	store.Submit(ledger.Op{Run: func(w ledger.Writer) error {
		for line := range strings.Lines(string(text)) {
			var key, value []byte
			if _, err := fmt.Sscanf(line, "%x %x", &key, &value); err != nil && len(key) == 0 {
				return err
			}
			w.Put(key, value)
		}
		return nil
	}, Done: func(err error) { done <- err }})
	must(t, <-done)
	must(t, store.Close())
	s := node(t, m)
	for request, source := range map[string]string{"req_1": "estimated", "req_2": "stated", "req_3": "estimated"} {
		charge, err := s.Charge(context.Background(), operator, request)
		must(t, err)
		if charge.Amount != amount("2") || charge.Cut != "crash" || charge.Source != source {
			t.Errorf("%s was charged %s, cut by %s, %s", request, charge.Amount, charge.Cut, charge.Source)
		}
	}
	if w, err := s.Wallet(t.Context(), "shop"); err != nil || w.Balance != amount("24") || w.Pending != 0 {
		t.Errorf("the payee has %s, and %s pending, %v", w.Balance, w.Pending, err)
	}
	s.sound()
}

// TestPaidForAllProcesses: what one process knows to be paid for a time, the others know too. What is paid no more is forgotten.
func TestPaidForAllProcesses(t *testing.T) {
	s := newSharedShop(t, defaultRules(), 2)
	container := func(name string) escrow.Thing {
		return escrow.Thing{Kind: escrow.CodeContainer, Owner: "alice", Name: name}
	}
	pay := func(name string, until escrow.Paid) {
		_, err := escrow.Do(t.Context(), s.Book, func(tx *escrow.Tx) (struct{}, error) {
			return struct{}{}, s.Claims().PayIn(tx, container(name), until)
		})
		must(t, err)
	}
	until := escrow.Paid{Session: s.clock.Now().Add(time.Minute), Size: 2}
	s.turn(0)
	pay("shop c1", until)
	s.turn(1)
	if got := s.Claims().Paid(container("shop c1")); !got.Session.Equal(until.Session) || got.Size != 2 {
		t.Errorf("another process knows %v", got)
	}
	s.clock.advance(time.Hour)
	pay("shop c2", escrow.Paid{Session: s.clock.Now().Add(time.Minute)})
	s.turn(0)
	if got := s.Claims().Paid(container("shop c1")); got != (escrow.Paid{}) {
		t.Errorf("what is paid no more is still known: %v", got)
	}
}

// TestOutlivedProcess: the others take a process for dead that still runs. They charge its streams what these had drawn. When it finds out, it
// charges the calls that are not complete yet as far as the money is still there, and no call twice; what the others have charged is not
// completed.
func TestOutlivedProcess(t *testing.T) {
	var m ledgertest.Memory
	var passed time.Duration
	c := newClock()
	open := func() *shop {
		l, err := ledger.New(m.Open(), ledger.Options{Now: c.Now, Currency: "USDC", Untended: true, Lifetime: 10 * time.Second, Elapsed: func() time.Duration { return passed }, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		return &shop{Book: escrow.New(l, defaultRules()), t: t, clock: c}
	}
	first, second := open(), open()
	first.agents("100", "alice", "bob")
	first.agents("0", "shop")
	must(t, first.run(func(tx *escrow.Tx) error {
		_, err := tx.SetLimits(operator, "alice", []escrow.Limit{{Amount: amount("50"), Window: 24 * time.Hour}})
		return err
	}))
	begin := func(on *shop, agent, least, key string) *escrow.Authorisation {
		t.Helper()
		a, err := on.Authorise(t.Context(), escrow.CallOrder{Request: on.NewRequestID(), By: by(agent), Payee: "shop", Least: amount(least), IdempotencyKey: key})
		must(t, err)
		return a
	}
	whole, poor, stream, keyed := begin(first, "alice", "10", ""), begin(first, "bob", "80", ""), begin(first, "alice", "5", ""), begin(first, "alice", "1", "k")
	stream.Draw(amount("2"), true)
	must(t, stream.Await())

	for range 6 {
		passed += 3 * time.Second
		must(t, second.Ledger().Tend(t.Context()))
	}
	select {
	case <-second.Ledger().Ended():
	default:
		t.Fatal("the session of the first process goes on")
	}
	must(t, second.RecoverPending(t.Context()))
	taken := begin(second, "bob", "60", "")
	again := begin(second, "alice", "1", "k")
	_, err := again.Settle(t.Context(), escrow.Settlement{Amount: amount("1")})
	must(t, err)

	if _, err := first.Authorise(t.Context(), escrow.CallOrder{Request: first.NewRequestID(), By: by("alice"), Payee: "shop", Least: 1}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("a process that may be outlived lets a call in: %v", err)
	}
	stream.Draw(amount("3"), true)
	if err := stream.Await(); err == nil {
		t.Error("a stream goes on that was charged")
	}
	must(t, first.Ledger().Reopen())
	settle := func(a *escrow.Authorisation, price, want string, suspect bool) {
		t.Helper()
		charge, err := a.Settle(t.Context(), escrow.Settlement{Amount: amount(price)})
		if want == "" {
			if err == nil {
				t.Errorf("it was charged %s", charge.Amount)
			}
			return
		}
		if err != nil || charge.Amount != amount(want) || charge.Suspect != suspect {
			t.Errorf("charged %s, suspect %v, %v; want %s", charge.Amount, charge.Suspect, err, want)
		}
	}
	settle(whole, "9", "9", false)
	settle(poor, "80", "40", true) // the rest is held by the other process
	settle(stream, "5", "", false)
	settle(keyed, "1", "", false)
	settle(taken, "60", "60", false)
	if got := second.balance("alice"); got != amount("88") { // 9, 2 of the stream, and 1 of the call with the key
		t.Errorf("alice has %s", got)
	}
	limits, err := second.Limits("alice")
	must(t, err)
	if limits[0].Spent != amount("12") {
		t.Errorf("%s count against the limit", limits[0].Spent)
	}
	for _, s := range []*shop{first, second} {
		must(t, s.Ledger().Err())
		s.sound()
	}
}
