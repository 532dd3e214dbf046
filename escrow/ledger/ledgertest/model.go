package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// model keeps the books in the simplest way: as a list of what happened. Every question is answered by adding the list up again.
type model struct {
	moves    []move
	pendings map[string]*pending // by the name that the test gave them
	notes    map[string]bool
	holds    []*hold
	now      time.Duration
}

type move struct {
	from, to ledger.AccountID
	amount   ledger.Amount
}

type pending struct {
	move
	seq      uint64
	resolved bool
}

type hold struct {
	account ledger.AccountID
	amount  ledger.Amount
	real    *ledger.Hold
}

func (m *model) balance(id ledger.AccountID) ledger.Amount {
	sum := ledger.Amount(0)
	for _, v := range m.moves {
		if v.to == id {
			sum += v.amount
		}
		if v.from == id {
			sum -= v.amount
		}
	}
	return sum
}

func (m *model) available(id ledger.AccountID) ledger.Amount {
	sum := m.balance(id)
	for _, p := range m.pendings {
		if p.from == id && !p.resolved {
			sum -= p.amount
		}
	}
	return sum
}

func (m *model) held(id ledger.AccountID) ledger.Amount {
	sum := ledger.Amount(0)
	for _, h := range m.holds {
		if h.account == id {
			sum += h.amount
		}
	}
	return sum
}

// pay returns the outcome of a move that takes money from cover first, and the amount that is then left in cover.
func (m *model) pay(v move, cover *hold) (ledger.Outcome, ledger.Amount) {
	if v.amount <= 0 || v.from == v.to || !meet(v.from, v.to) {
		return ledger.InvalidTransfer, 0
	}
	own := ledger.Amount(0)
	if cover != nil && cover.account == v.from {
		own = cover.amount
	}
	if !endless(v.from) && v.amount > m.available(v.from)-m.held(v.from)+own {
		return ledger.InsufficientFunds, 0
	}
	return ledger.OK, min(own, v.amount)
}

// machine runs a ledger and the model side by side.
type machine struct {
	place  Place
	store  ledger.Store
	ledger *ledger.Ledger
	model
	names    int // the number of pending transfers that were named
	failures int
}

var names = []ledger.AccountID{ledger.World, ledger.Commission, ledger.Wallet("a"), ledger.Wallet("b"), ledger.Escrow("e"), ledger.Issuer("b"), ledger.Credit("c"), ledger.Credit("d")}

func endless(id ledger.AccountID) bool { return id == ledger.World || id == ledger.Issuer("b") }

// meet reports whether transfers may go between two accounts. Credit must not become money or another credit.
func meet(a, b ledger.AccountID) bool {
	kind := map[ledger.AccountID]int{ledger.Issuer("b"): 1, ledger.Credit("c"): 2, ledger.Credit("d"): 2} // money is 0
	return kind[a]+kind[b] == 0 || kind[a]*kind[b] == 2
}

func anAccount(t *rapid.T) ledger.AccountID { return rapid.SampledFrom(names).Draw(t, "account") }

func anAmount(t *rapid.T) ledger.Amount {
	return ledger.Amount(rapid.IntRange(0, 12).Draw(t, "amount")) - 1
}

func (m *machine) open(t tester) {
	var err error
	begin := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	m.store = m.place.Open()
	m.ledger, err = ledger.New(m.store, ledger.Options{Currency: "USDC", Lifetime: -1, Now: func() time.Time { return begin.Add(m.now) }, Logger: quiet})
	must(t, err)
}

func (m *machine) do(op func(*ledger.Tx) error) error { return do(m.ledger, op) }

func expect(t *rapid.T, what string, err error, want ledger.Outcome) {
	if err != nil && ledger.OutcomeOf(err) == ledger.OK {
		t.Fatalf("%s: %v", what, err)
	}
	if got := ledger.OutcomeOf(err); got != want {
		t.Fatalf("%s: got %q (%v), the model says %q", what, got, err, want)
	}
}

// Post posts a transfer, covered or not.
func (m *machine) Post(t *rapid.T) {
	v := move{anAccount(t), anAccount(t), anAmount(t)}
	cover := m.maybeHold(t)
	want, used := m.pay(v, cover)
	err := m.do(func(tx *ledger.Tx) error {
		_, err := tx.Post(v.transfer(), cover.covers()...)
		return err
	})
	expect(t, fmt.Sprintf("post %v", v), err, want)
	if want == ledger.OK {
		m.moves = append(m.moves, v)
		cover.use(used)
	}
}

func (v move) transfer() ledger.Transfer {
	return ledger.Transfer{Debit: v.from, Credit: v.to, Amount: v.amount, Kind: "pay", Reference: "r"}
}

func (h *hold) covers() []*ledger.Hold {
	if h == nil {
		return nil
	}
	return []*ledger.Hold{h.real}
}

func (h *hold) use(amount ledger.Amount) {
	if h != nil {
		h.amount -= amount
	}
}

func (m *machine) maybeHold(t *rapid.T) *hold {
	if len(m.holds) == 0 || rapid.Bool().Draw(t, "uncovered") {
		return nil
	}
	return rapid.SampledFrom(m.holds).Draw(t, "cover")
}

// Several posts several transfers, all or none, with a part that may fail on its own.
func (m *machine) Several(t *rapid.T) {
	saved := append([]move(nil), m.moves...)
	want := ledger.OK
	var moves []move
	for range rapid.IntRange(2, 4).Draw(t, "moves") {
		v := move{anAccount(t), anAccount(t), anAmount(t)}
		moves = append(moves, v)
		if want == ledger.OK {
			if want, _ = m.pay(v, nil); want == ledger.OK {
				m.moves = append(m.moves, v)
			}
		}
	}
	tolerated := rapid.Bool().Draw(t, "tolerated")
	if want != ledger.OK {
		m.moves = saved
	}
	err := m.do(func(tx *ledger.Tx) error {
		err := tx.Try(func() error {
			for _, v := range moves {
				if _, err := tx.Post(v.transfer()); err != nil {
					return err
				}
			}
			return nil
		})
		if tolerated && ledger.OutcomeOf(err) != ledger.OK {
			return nil
		}
		return err
	})
	if tolerated {
		want = ledger.OK
	}
	expect(t, fmt.Sprintf("post all of %v", moves), err, want)
}

// Once posts a transfer and puts a note, unless the note is there already.
func (m *machine) Once(t *rapid.T) {
	v := move{anAccount(t), anAccount(t), anAmount(t)}
	name := rapid.SampledFrom([]string{"k1", "k2", "k3", "k4", "k5", "k6"}).Draw(t, "note")
	want := isNoted
	if !m.notes[name] {
		if want, _ = m.pay(v, nil); want == ledger.OK {
			m.moves = append(m.moves, v)
			m.notes[name] = true
		}
	}
	err := m.do(func(tx *ledger.Tx) error {
		if err := note(tx, name); err != nil {
			return err
		}
		_, err := tx.Post(v.transfer())
		return err
	})
	expect(t, fmt.Sprintf("note %s, post %v", name, v), err, want)
}

// Pend sets money aside durably.
func (m *machine) Pend(t *rapid.T) {
	v := move{anAccount(t), anAccount(t), anAmount(t)}
	cover := m.maybeHold(t)
	want, used := m.pay(v, cover)
	written, err := ledger.Do(context.Background(), m.ledger, func(tx *ledger.Tx) (ledger.Transfer, error) {
		return tx.Pend(v.transfer(), cover.covers()...)
	})
	p := &pending{move: v, seq: written.Seq}
	expect(t, fmt.Sprintf("pend %v", v), err, want)
	if want == ledger.OK {
		m.names++
		m.pendings[fmt.Sprint(m.names)] = p
		cover.use(used)
	}
}

// Resolve ends a pending transfer, or tries to.
func (m *machine) Resolve(t *rapid.T) {
	if m.names == 0 {
		t.Skip("nothing was pending yet")
	}
	p := m.pendings[fmt.Sprint(rapid.IntRange(1, m.names).Draw(t, "pending"))]
	post := anAmount(t)
	want := ledger.OK
	switch {
	case p.resolved:
		want = ledger.PendingResolved
	case post < 0 || post > p.amount:
		want = ledger.ExceedsPending
	}
	err := m.do(func(tx *ledger.Tx) error { _, err := tx.Resolve(p.seq, post, "", ""); return err })
	expect(t, fmt.Sprintf("resolve %v, post %d", p, post), err, want)
	if want == ledger.OK {
		p.resolved = true
		m.moves = append(m.moves, move{p.from, p.to, post})
	}
}

// Give releases a hold in an operation that may fail.
func (m *machine) Give(t *rapid.T) {
	if len(m.holds) == 0 {
		t.Skip("nothing is held")
	}
	i := rapid.IntRange(0, len(m.holds)-1).Draw(t, "hold")
	h, v := m.holds[i], move{anAccount(t), anAccount(t), anAmount(t)}
	given := *h
	h.amount = 0
	want, _ := m.pay(v, nil)
	err := m.do(func(tx *ledger.Tx) error {
		if err := tx.Release(h.real); err != nil {
			return err
		}
		_, err := tx.Post(v.transfer())
		return err
	})
	expect(t, fmt.Sprintf("give back %d of %s, post %v", given.amount, h.account, v), err, want)
	if want != ledger.OK {
		h.amount = given.amount
		return
	}
	m.moves = append(m.moves, v)
	m.holds = append(m.holds[:i:i], m.holds[i+1:]...)
}

// Hold sets money aside.
func (m *machine) Hold(t *rapid.T) {
	h := &hold{account: anAccount(t), amount: anAmount(t)}
	want := ledger.OK
	switch {
	case endless(h.account) || h.amount < 0:
		want = ledger.InvalidTransfer
	case h.amount > m.available(h.account)-m.held(h.account):
		want = ledger.InsufficientFunds
	}
	var err error
	h.real, err = m.ledger.Hold(h.account, h.amount)
	expect(t, fmt.Sprintf("hold %s %d", h.account, h.amount), err, want)
	if want == ledger.OK {
		m.holds = append(m.holds, h)
	}
}

// Extend extends a hold as far as there is money.
func (m *machine) Extend(t *rapid.T) {
	if len(m.holds) == 0 {
		t.Skip("nothing is held")
	}
	h := rapid.SampledFrom(m.holds).Draw(t, "hold")
	by := anAmount(t)
	want := max(0, min(by, m.available(h.account)-m.held(h.account)))
	if got := h.real.ExtendUpTo(by); got != want {
		t.Fatalf("extended by %d of %d, the model says %d", got, by, want)
	}
	h.amount += want
}

// Release releases a hold.
func (m *machine) Release(t *rapid.T) {
	if len(m.holds) == 0 {
		t.Skip("nothing is held")
	}
	i := rapid.IntRange(0, len(m.holds)-1).Draw(t, "hold")
	m.holds[i].real.Release()
	m.holds = append(m.holds[:i:i], m.holds[i+1:]...)
}

// Clock moves the clock forwards or backwards.
func (m *machine) Clock(t *rapid.T) {
	m.now += time.Duration(rapid.IntRange(-30, 40).Draw(t, "hours")) * time.Hour
}

// FailCommit makes a commit fail and reopens the ledger.
func (m *machine) FailCommit(t *rapid.T) {
	if m.place.FailNext == nil {
		t.Skip("this store can't be made to fail")
	}
	kept := rapid.Bool().Draw(t, "kept")
	v := move{ledger.World, anAccount(t), 7}
	if v.to == ledger.Issuer("b") || v.to == ledger.Credit("c") || v.to == ledger.Credit("d") {
		v.from = ledger.Issuer("b")
	}
	if endless(v.to) {
		t.Skip("no such transfer")
	}
	m.place.FailNext(kept)
	m.failures++
	name := fmt.Sprint("failed", m.failures)
	err := m.do(func(tx *ledger.Tx) error {
		if err := note(tx, name); err != nil {
			return err
		}
		_, err := tx.Post(v.transfer())
		return err
	})
	if !errors.Is(err, ledger.ErrOutcomeUnknown) {
		t.Fatalf("a failed commit: %v", err)
	}
	if _, err := m.ledger.Hold(v.to, 0); !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("a hold after a failed commit: %v", err)
	}
	must(t, m.ledger.Reopen())
	there, err := noted(m.ledger, name)
	must(t, err)
	if there != kept {
		t.Fatalf("of a failed commit the record is there: %t, want %t", there, kept)
	}
	if kept {
		m.moves = append(m.moves, v)
	}
}

// Reopen closes the ledger and opens it again. All holds are lost.
func (m *machine) Reopen(t *rapid.T) {
	must(t, m.ledger.Close())
	m.open(t)
	m.holds = nil
}

// Check compares the ledger with the model. rapid calls it after every step.
func (m *machine) Check(t *rapid.T) {
	sum := new(big.Int)
	for _, id := range names {
		account, held, err := m.ledger.Balance(id)
		must(t, err)
		sum.Add(sum, big.NewInt(int64(account.Balance())))
		if account.Balance() != m.balance(id) || account.Available() != m.available(id) || !endless(id) && held != m.held(id) {
			t.Fatalf("%s: %v, held %d; the model says balance %d, available %d, held %d", id, account, held, m.balance(id), m.available(id), m.held(id))
		}
		if !endless(id) && (account.Balance() < 0 || account.Available()-held < 0) {
			t.Fatalf("%s is below zero: %v, held %d", id, account, held)
		}
		if err := m.checkEntries(id, account); err != nil {
			t.Fatal(err)
		}
	}
	if sum.Sign() != 0 {
		t.Fatalf("the sum of all balances is %s", sum)
	}
	for _, h := range m.holds {
		if h.real.Amount() != h.amount {
			t.Fatalf("a hold on %s has %d, the model says %d", h.account, h.real.Amount(), h.amount)
		}
	}
}

// checkEntries checks that an account's entries add up to its balance.
func (m *machine) checkEntries(id ledger.AccountID, account ledger.Account) error {
	entries, err := m.ledger.Entries(id, 0, 1<<30)
	if err != nil {
		return err
	}
	sum := account.Balance()
	for _, e := range entries {
		if e.BalanceAfter != sum {
			return fmt.Errorf("%s: after transfer %d the entry states %d, want %d", id, e.Seq, e.BalanceAfter, sum)
		}
		sum -= e.Amount
	}
	if sum != 0 {
		return fmt.Errorf("%s: its entries make %d, its balance is %d", id, account.Balance()-sum, account.Balance())
	}
	return nil
}

// testModel runs random histories.
func testModel(t *testing.T, fresh func(testing.TB) Place) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{place: fresh(t)}
		m.pendings, m.notes = map[string]*pending{}, map[string]bool{}
		m.open(rt)
		defer func() { _ = m.ledger.Close() }()
		steps := rapid.StateMachineActions(m)
		rt.Repeat(steps)
		report, err := m.ledger.Check(context.Background(), nil)
		if err != nil || len(report.Wrong) > 0 {
			rt.Fatalf("the books are wrong: %v, %v", report.Wrong, err)
		}
	})
}
