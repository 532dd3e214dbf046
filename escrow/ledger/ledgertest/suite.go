package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Place is where the ledger of a test is stored.
type Place struct {
	// Open opens a store with everything that earlier stores of the place have committed. Only one store is open at a time, unless the
	// stores implement [ledger.Shared].
	Open func() ledger.Store
	// FailNext makes the next commit fail. The commit takes place all the same if kept is true. FailNext is nil if the store can't do this.
	FailNext func(kept bool)
	// Strays is true if the store also runs operations in states of the books that never exist, as [Again] does. Such runs can make a hold
	// fail that would otherwise succeed, so calls are not linearizable.
	Strays bool
	// Slow is true if it takes long to make a place or to open its store. Few rounds (package rounds) then run a part of the cases, another one
	// each time.
	Slow bool
}

// Twice returns the place with its stores wrapped by [Twice].
func (p Place) Twice() Place {
	open := p.Open
	p.Open = func() ledger.Store { return Twice(open()) }
	return p
}

// Again returns the place with its stores wrapped by [Again].
func (p Place) Again() Place {
	open := p.Open
	p.Open, p.Strays = func() ledger.Store { return Again(open()) }, true
	return p
}

// Memories returns a new empty place in memory. It can be passed to [Run].
func Memories(testing.TB) Place { return placeIn(new(Memory)) }

func placeIn(m *Memory) Place {
	return Place{Open: m.Open, FailNext: func(kept bool) { m.FailNext(errInjected, kept) }}
}

// Run runs all tests that a store must pass. fresh returns an empty place for one test.
func Run(t *testing.T, fresh func(testing.TB) Place) {
	t.Run("records", func(t *testing.T) { testRecords(t, fresh(t)) })
	t.Run("scans", func(t *testing.T) { testScans(t, fresh(t)) })
	t.Run("isolation", func(t *testing.T) { testIsolation(t, fresh(t)) })
	t.Run("order", func(t *testing.T) { testOrder(t, fresh(t)) })
	t.Run("closing", func(t *testing.T) { testClosing(t, fresh(t)) })
	t.Run("failed commit", func(t *testing.T) { testFailedCommit(t, fresh(t)) })
	t.Run("identity", func(t *testing.T) { testIdentity(t, fresh(t)) })
	t.Run("cases", func(t *testing.T) { testCases(t, fresh) })
	t.Run("domain", func(t *testing.T) { testDomain(t, fresh(t)) })
	t.Run("paging", func(t *testing.T) { testPaging(t, fresh(t)) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, fresh(t)) })
	t.Run("linear", func(t *testing.T) { testLinear(t, fresh(t)) })
	t.Run("model", func(t *testing.T) { testModel(t, fresh) })
}

// submit runs one operation on a store and waits for it.
func submit(s ledger.Store, op func(ledger.Writer) error) error {
	done := make(chan error, 1)
	s.Submit(ledger.Op{Run: op, Done: func(err error) { done <- err }})
	return <-done
}

// do runs an operation that has no result.
func do(l *ledger.Ledger, op func(*ledger.Tx) error) error {
	_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

func put(pairs ...string) func(ledger.Writer) error {
	return func(w ledger.Writer) error {
		for i := 0; i < len(pairs); i += 2 {
			w.Put([]byte(pairs[i]), []byte(pairs[i+1]))
		}
		return nil
	}
}

// dump returns the records of a range as "k=v k=v".
func dump(r ledger.Reader, in ledger.Range) (string, error) {
	var list []string
	err := r.Scan(in, func(key, value []byte) (bool, error) {
		list = append(list, string(key)+"="+string(value))
		return true, nil
	})
	return strings.Join(list, " "), err
}

func mustDump(t testing.TB, s ledger.Store, in ledger.Range, want string) {
	t.Helper()
	err := s.View(func(r ledger.Reader) error {
		got, err := dump(r, in)
		if got != want {
			t.Errorf("records of %q to %q, reverse %t: got %q, want %q", in.From, in.To, in.Reverse, got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Fatal(...any)
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testRecords(t *testing.T, p Place) {
	s := p.Open()
	must(t, submit(s, put("a", "1", "c", "3", "b", "", "d\x00", "4")))
	mustDump(t, s, ledger.Range{}, "a=1 b= c=3 d\x00=4")
	must(t, submit(s, func(w ledger.Writer) error {
		w.Delete([]byte("c"))
		w.Delete([]byte("nothing"))
		w.Put([]byte("a"), []byte("2"))
		return nil
	}))
	large := strings.Repeat("large ", 20_000)
	must(t, submit(s, put("large", large)))
	must(t, s.Close())
	s = p.Open()
	defer s.Close()
	mustDump(t, s, ledger.Range{}, "a=2 b= d\x00=4 large="+large)
	must(t, s.View(func(r ledger.Reader) error {
		for key, want := range map[string][]byte{"a": []byte("2"), "b": {}, "c": nil, "": nil, "zz": nil} {
			got, err := r.Get([]byte(key))
			if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("get %q: %q, %v, want %q", key, got, err, want)
			}
		}
		return nil
	}))
}

func testScans(t *testing.T, p Place) {
	s := p.Open()
	defer s.Close()
	must(t, submit(s, put("a", "1", "b", "2", "b\x00", "3", "ba", "4", "c", "5", "\xff", "6", "\xff\xff", "7")))
	for _, c := range []struct{ from, to, want string }{
		{"", "", "a=1 b=2 b\x00=3 ba=4 c=5 \xff=6 \xff\xff=7"},
		{"b", "", "b=2 b\x00=3 ba=4 c=5 \xff=6 \xff\xff=7"},
		{"b", "c", "b=2 b\x00=3 ba=4"},
		{"b\x00", "bb", "b\x00=3 ba=4"},
		{"bb", "bc", ""},
		{"c", "b", ""},
		{"\xff\xff\xff", "", ""},
		{"0", "a", ""},
	} {
		in := ledger.Range{From: []byte(c.from), To: []byte(c.to)}
		if c.to == "" {
			in.To = nil
		}
		mustDump(t, s, in, c.want)
		reversed := strings.Fields(c.want)
		slices.Reverse(reversed)
		in.Reverse = true
		mustDump(t, s, in, strings.Join(reversed, " "))
	}
	mustDump(t, s, ledger.Prefix([]byte("b")), "b=2 b\x00=3 ba=4")
	mustDump(t, s, ledger.Prefix([]byte("\xff")), "\xff=6 \xff\xff=7")
	must(t, s.View(func(r ledger.Reader) error {
		seen := 0
		err := r.Scan(ledger.Range{}, func(key, value []byte) (bool, error) { seen++; return seen < 3, nil })
		if err != nil || seen != 3 {
			t.Errorf("a scan that was to stop at 3 saw %d, %v", seen, err)
		}
		if err := r.Scan(ledger.Range{}, func(key, value []byte) (bool, error) { return true, errInjected }); !errors.Is(err, errInjected) {
			t.Errorf("the error of a scan's function is %v", err)
		}
		return nil
	}))
}

// testIsolation checks what an operation sees, and what it leaves behind.
func testIsolation(t *testing.T, p Place) {
	s := p.Open()
	defer s.Close()
	must(t, submit(s, put("a", "1", "b", "2", "c", "3")))
	err := submit(s, func(w ledger.Writer) error {
		w.Put([]byte("a"), []byte("x"))
		w.Put([]byte("aa"), []byte("x"))
		w.Delete([]byte("b"))
		if got, err := dump(w, ledger.Range{}); got != "a=x aa=x c=3" || err != nil {
			t.Errorf("an operation sees %q, %v", got, err)
		}
		if got, err := dump(w, ledger.Range{Reverse: true}); got != "c=3 aa=x a=x" || err != nil {
			t.Errorf("an operation sees in reverse %q, %v", got, err)
		}
		return errInjected
	})
	if !errors.Is(err, errInjected) {
		t.Errorf("an operation's error is %v", err)
	}
	if err := submit(s, func(w ledger.Writer) error { w.Put([]byte("a"), []byte("x")); panic("on purpose") }); err == nil {
		t.Error("an operation that panics has no error")
	}
	mustDump(t, s, ledger.Range{}, "a=1 b=2 c=3")
	must(t, submit(s, func(w ledger.Writer) error {
		w.Put([]byte("a"), []byte("4"))
		failed := w.Try(func() error {
			w.Put([]byte("a"), []byte("x"))
			w.Put([]byte("d"), []byte("x"))
			w.Delete([]byte("c"))
			must(t, w.Try(func() error { w.Put([]byte("e"), []byte("x")); return nil }))
			return errInjected
		})
		must(t, w.Try(func() error { w.Put([]byte("f"), []byte("6")); return nil }))
		if !errors.Is(failed, errInjected) {
			t.Errorf("a part's error is %v", failed)
		}
		return nil
	}))
	mustDump(t, s, ledger.Range{}, "a=4 b=2 c=3 f=6")
}

// testOrder: operations take effect in their order, see the operations before them, and are durable when Done is called.
func testOrder(t *testing.T, p Place) {
	s := p.Open()
	defer s.Close()
	const operations = 3000
	var answered []int
	var all sync.WaitGroup
	all.Add(operations)
	for i := range operations {
		s.Submit(ledger.Op{Run: func(w ledger.Writer) error {
			before, err := w.Get([]byte("count"))
			if err != nil {
				return err
			}
			if i%7 == 3 {
				return errInjected
			}
			w.Put([]byte("count"), append(bytes.Clone(before), 'x'))
			return nil
		}, Done: func(err error) {
			if (i%7 == 3) != errors.Is(err, errInjected) || i%7 != 3 && err != nil {
				t.Errorf("operation %d: %v", i, err)
			}
			answered = append(answered, i)
			all.Done()
		}})
	}
	all.Wait()
	if len(answered) != operations || !slices.IsSorted(answered) {
		t.Errorf("%d of %d operations answered, in order: %t", len(answered), operations, slices.IsSorted(answered))
	}
	must(t, s.View(func(r ledger.Reader) error {
		got, err := r.Get([]byte("count"))
		want := 0
		for i := range operations {
			if i%7 != 3 {
				want++
			}
		}
		if len(got) != want {
			t.Errorf("%d operations took effect, want %d", len(got), want)
		}
		return err
	}))
}

func testClosing(t *testing.T, p Place) {
	s := p.Open()
	errs := make(chan error, 100)
	for i := range 100 {
		s.Submit(ledger.Op{Run: put(fmt.Sprintf("%03d", i), "x"), Done: func(err error) { errs <- err }})
	}
	must(t, s.Close())
	for range 100 {
		must(t, <-errs)
	}
	if err := submit(s, put("late", "x")); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("an operation after Close: %v", err)
	}
	must(t, s.Close())
	s = p.Open()
	defer s.Close()
	must(t, s.View(func(r ledger.Reader) error {
		n := 0
		err := r.Scan(ledger.Range{}, func([]byte, []byte) (bool, error) { n++; return true, nil })
		if n != 100 {
			t.Errorf("%d records after closing, want 100", n)
		}
		return err
	}))
}

func testFailedCommit(t *testing.T, p Place) {
	if p.FailNext == nil {
		t.Skip("this store can't be made to fail")
	}
	s := p.Open()
	defer func() { _ = s.Close() }()
	must(t, submit(s, put("a", "1")))
	for _, kept := range []bool{false, true} {
		p.FailNext(kept)
		if err := submit(s, put("a", "2")); !errors.Is(err, ledger.ErrOutcomeUnknown) || errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("a commit that failed: %v", err)
		}
		ran := false
		err := submit(s, func(ledger.Writer) error { ran = true; return nil })
		if !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrOutcomeUnknown) || ran {
			t.Errorf("an operation after a failed commit: %v, it ran: %t", err, ran)
		}
		must(t, s.(ledger.Reopener).Reopen())
		want := "a=1"
		if kept {
			want = "a=2"
		}
		mustDump(t, s, ledger.Range{}, want)
		must(t, submit(s, put("a", "1")))
	}
	must(t, s.Close())
	s = p.Open()
	mustDump(t, s, ledger.Range{}, "a=1")
}

// testIdentity: a ledger keeps its currency, and a damaged ledger is not mistaken for an empty one.
func testIdentity(t *testing.T, p Place) {
	s := p.Open()
	if _, err := ledger.New(s, ledger.Options{}); !errors.Is(err, ledger.ErrCurrency) {
		t.Errorf("a new ledger without a currency: %v", err)
	}
	l, err := ledger.New(s, ledger.Options{Currency: "USDC", Lifetime: -1})
	must(t, err)
	must(t, deposit(l, "alice", 5))
	must(t, l.Close())
	s = p.Open()
	defer func() { _ = s.Close() }()
	if _, err := ledger.New(s, ledger.Options{Currency: "EUR"}); !errors.Is(err, ledger.ErrCurrency) || !strings.Contains(err.Error(), "USDC") {
		t.Errorf("another currency: %v", err)
	}
	l, err = ledger.New(s, ledger.Options{})
	must(t, err)
	if l.Currency() != "USDC" {
		t.Errorf("the currency is %q", l.Currency())
	}
	must(t, submit(s, func(w ledger.Writer) error { w.Delete([]byte("mmeta")); return nil }))
	if _, err := ledger.New(s, ledger.Options{Currency: "USDC", Lifetime: -1}); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("records without a description: %v", err)
	}
}

func deposit(l *ledger.Ledger, agent string, amount ledger.Amount) error {
	return do(l, func(tx *ledger.Tx) error {
		_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet(agent), Amount: amount, Kind: "deposit"})
		return err
	})
}

// testDomain: domain records are committed together with the money, and can't be mixed up with other records. With an index in the order
// of time, the records that are due are found without reading the others.
func testDomain(t *testing.T, p Place) {
	l, err := ledger.New(p.Open(), ledger.Options{Currency: "USDC", Lifetime: -1})
	must(t, err)
	defer l.Close()
	must(t, do(l, func(tx *ledger.Tx) error {
		for _, due := range []string{"05", "01", "03", "09", "07"} {
			tx.Put([]byte("ddue"+due), []byte("escrow"+due))
		}
		tx.Put([]byte("dother"), nil)
		return nil
	}))
	sweep := func(tx *ledger.Tx) (due []string, err error) {
		err = tx.Scan(ledger.Range{From: []byte("ddue"), To: []byte("ddue06")}, func(key, value []byte) (bool, error) {
			due = append(due, string(value))
			tx.Delete(key)
			return true, nil
		})
		return due, err
	}
	for _, fails := range []bool{true, false} {
		err := do(l, func(tx *ledger.Tx) error {
			due, err := sweep(tx)
			if !slices.Equal(due, []string{"escrow01", "escrow03", "escrow05"}) || err != nil {
				t.Errorf("due: %q, %v", due, err)
			}
			if again, err := sweep(tx); len(again) > 0 || err != nil {
				t.Errorf("due again: %q, %v", again, err)
			}
			if fails {
				_, err = tx.Post(ledger.Transfer{Debit: ledger.Wallet("nobody"), Credit: ledger.Wallet("alice"), Amount: 1})
			}
			return err
		})
		if fails != (ledger.OutcomeOf(err) == ledger.InsufficientFunds) {
			t.Errorf("an operation that fails, %t: %v", fails, err)
		}
	}
	must(t, do(l, func(tx *ledger.Tx) error {
		var all []string
		err := tx.Scan(ledger.Range{From: []byte("d")}, func(key, value []byte) (bool, error) {
			all = append(all, string(key))
			return true, nil
		})
		if !slices.Equal(all, []string{"ddue07", "ddue09", "dother"}) {
			t.Errorf("records left: %q", all)
		}
		return err
	}))
	mustStayInDomain(t, l)
	mustBalance(t, l)
}

// mustStayInDomain checks that an operation neither reads nor writes records of the ledger itself.
func mustStayInDomain(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	for what, op := range map[string]func(*ledger.Tx) error{
		"put":    func(tx *ledger.Tx) error { tx.Put([]byte("awallet:alice"), nil); return nil },
		"delete": func(tx *ledger.Tx) error { tx.Delete([]byte("t")); return nil },
		"get":    func(tx *ledger.Tx) error { _, err := tx.Get([]byte("mmeta")); return err },
		"scan":   func(tx *ledger.Tx) error { return tx.Scan(ledger.Range{}, nil) },
		"empty":  func(tx *ledger.Tx) error { tx.Put(nil, nil); return nil },
	} {
		if err := do(l, op); err == nil || ledger.OutcomeOf(err) != ledger.OK {
			t.Errorf("%s outside of the domain: %v", what, err)
		}
	}
}

// testPaging: pages neither skip nor repeat entries while entries are added.
func testPaging(t *testing.T, p Place) {
	l, err := ledger.New(p.Open(), ledger.Options{Currency: "USDC", Lifetime: -1})
	must(t, err)
	defer l.Close()
	alice := ledger.Wallet("alice")
	for i := range 40 {
		must(t, deposit(l, "alice", ledger.Amount(i+1)))
		must(t, deposit(l, "alic", 1))
	}
	var got []ledger.Amount
	for before := uint64(0); ; {
		page, err := l.Entries(alice, before, 7)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			got = append(got, e.Amount)
		}
		before = page[len(page)-1].Seq
		must(t, deposit(l, "alice", 1000))
	}
	for i, a := range got {
		if a != ledger.Amount(40-i) {
			t.Fatalf("entry %d of the pages is %d: %v", i, a, got)
		}
	}
	if len(got) != 40 {
		t.Fatalf("%d entries in the pages, want 40", len(got))
	}
	all, err := l.Transfers(0, 1000)
	must(t, err)
	for _, at := range []time.Time{{}, all[0].Time, all[len(all)/2].Time, all[len(all)-1].Time, all[len(all)-1].Time.Add(1)} {
		n, err := l.TransfersBefore(at)
		must(t, err)
		if first := slices.IndexFunc(all, func(t ledger.Transfer) bool { return !t.Time.Before(at) }); first >= 0 && int(n) != first || first < 0 && int(n) != len(all) {
			t.Fatalf("%d transfers before %s, but the first that is not has the place %d of %d", n, at, first, len(all))
		}
	}
	for after, i := uint64(0), 0; i < len(all); {
		page, err := l.Transfers(after, 9)
		must(t, err)
		if !slices.Equal(page, all[i:i+len(page)]) || len(page) == 0 {
			t.Fatalf("transfers after %d are not those of the whole list", after)
		}
		i += len(page)
		after = page[len(page)-1].Seq
	}
}

// testConcurrent does everything concurrently; run it with -race.
func testConcurrent(t *testing.T, p Place) {
	l, err := ledger.New(p.Open(), ledger.Options{Currency: "USDC", Lifetime: -1})
	must(t, err)
	defer l.Close()
	agents := []string{"a", "b", "c", "d"}
	for _, a := range agents {
		must(t, deposit(l, a, 1000))
	}
	stop := make(chan struct{})
	var readers, payers sync.WaitGroup
	for range 2 {
		readers.Go(func() { watch(t, l, agents, stop) })
	}
	var settled atomic.Int64
	for worker := range 8 {
		payers.Go(func() { settled.Add(pay(t, l, agents, worker)) })
	}
	payers.Wait()
	close(stop)
	readers.Wait()
	mustBalance(t, l)
	sum := ledger.Amount(0)
	for _, a := range agents {
		account, held, err := l.Balance(ledger.Wallet(a))
		must(t, err)
		if held != 0 || account.DebitsPending != 0 {
			t.Errorf("%s: %s still held, %s pending", a, held, account.DebitsPending)
		}
		sum += account.Balance()
	}
	if sum != 4000 {
		t.Errorf("the wallets have %d together, want 4000", sum)
	}
	if settled.Load() == 0 {
		t.Error("no payment was settled")
	}
}

// watch reads and checks until it is told to stop.
func watch(t *testing.T, l *ledger.Ledger, agents []string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		runtime.Gosched() // else the payers wait for the processor
		for _, a := range agents {
			account, held, err := l.Balance(ledger.Wallet(a))
			if err != nil || account.Available() < 0 || held < 0 {
				t.Errorf("%s: %v, held %s, %v", a, account, held, err)
			}
			if _, err := l.Entries(ledger.Wallet(a), 0, 5); err != nil {
				t.Error(err)
			}
		}
		if report, err := l.Check(context.Background(), nil); err != nil || len(report.Wrong) > 0 {
			t.Errorf("check: %v, %v", report.Wrong, err)
			return
		}
	}
}

// pay holds, draws and settles, as metered calls do, and returns how many it settled. What is held must always be paid.
func pay(t *testing.T, l *ledger.Ledger, agents []string, worker int) (settled int64) {
	random := rand.New(rand.NewPCG(uint64(worker), 1))
	for i := range 60 {
		payer, payee := ledger.Wallet(agents[random.IntN(4)]), ledger.Wallet(agents[random.IntN(4)])
		if payer == payee {
			continue
		}
		hold, err := l.Hold(payer, ledger.Amount(1+random.IntN(400)))
		if ledger.OutcomeOf(err) == ledger.InsufficientFunds {
			continue
		}
		if err != nil {
			t.Error(err)
			return settled
		}
		hold.ExtendUpTo(ledger.Amount(random.IntN(50)))
		reference := fmt.Sprintf("req_%d_%d", worker, i)
		first, rest := hold.Amount()/2, hold.Amount()-hold.Amount()/2
		var draw *ledger.Receipt[ledger.Transfer]
		if first > 0 {
			draw = ledger.Queue(l, func(tx *ledger.Tx) (ledger.Transfer, error) {
				return tx.Pend(ledger.Transfer{Debit: payer, Credit: payee, Amount: first, Kind: "draw", Reference: reference}, hold)
			})
		}
		err = do(l, func(tx *ledger.Tx) error {
			draws, err := tx.Pendings(reference)
			if err != nil {
				return err
			}
			for _, d := range draws {
				if _, err := tx.Resolve(d.Seq, d.Amount-d.Amount/3, "charge", ""); err != nil {
					return err
				}
			}
			_, err = tx.Post(ledger.Transfer{Debit: payer, Credit: payee, Amount: rest, Kind: "charge", Reference: reference}, hold)
			return err
		})
		if draw != nil {
			if _, err := draw.Wait(); err != nil {
				t.Errorf("draw %s: %v", reference, err)
			}
		}
		if err != nil {
			t.Errorf("settle %s: %v", reference, err)
		}
		hold.Release()
		settled++
	}
	return settled
}
