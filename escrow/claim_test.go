package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

func newClaims(t testing.TB) (*escrow.Book, escrow.Claims) {
	t.Helper()
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	b := escrow.New(l, escrow.Rules{})
	return b, b.Claims()
}

// bodies returns the bounds of an agent's request bodies: a number of bytes for everybody, and half of them for the agent.
func bodies(agent string, most int64) []escrow.Bound {
	return []escrow.Bound{
		{Of: escrow.Thing{Kind: escrow.RequestBody}, Most: most},
		{Of: escrow.Thing{Kind: escrow.RequestBody, Owner: agent}, Most: most / 2},
	}
}

// noRoom checks that err names the bound without enough room, and its room.
func noRoom(t *testing.T, err error, bound int, room int64) *escrow.NoRoom {
	t.Helper()
	full, isFull := errors.AsType[*escrow.NoRoom](err)
	if !isFull || full.Bound != bound || full.Room != room {
		t.Fatalf("got %v, want that bound %d has room for %d", err, bound, room)
	}
	return full
}

func TestClaims(t *testing.T) {
	ctx := t.Context()
	b, claims := newClaims(t)
	alice, err := claims.Take(ctx, 40, bodies("alice", 100)...)
	must(t, err)
	noRoom(t, alice.Extend(11), 1, 10)
	must(t, alice.Extend(10))
	bob, err := claims.TakeUpTo(ctx, 60, bodies("bob", 100)...)
	must(t, err)
	if bob.Amount() != 50 {
		t.Errorf("of 60 bytes, with room for 50, %d were claimed", bob.Amount())
	}
	_, err = claims.Take(ctx, 1, bodies("carol", 100)...)
	noRoom(t, err, 0, 0)
	bob.GiveBack(20)
	carol, err := claims.Take(ctx, 0, bodies("carol", 100)...)
	must(t, err)
	if got, err := carol.ExtendUpTo(30); got != 20 || err != nil {
		t.Errorf("with room for 20, %d were claimed, %v", got, err)
	}
	alice.GiveBack(1000)
	alice.End()
	if err := alice.Extend(1); err == nil || alice.Amount() != 0 {
		t.Errorf("a claim that has ended was extended: %v", err)
	}
	if got := claims.Taken(escrow.Thing{Kind: escrow.RequestBody}); got != 50 {
		t.Errorf("%d bytes are claimed", got)
	}

	// A settled claim is given back when the operation is durable, and not before.
	failure := errors.New("on purpose")
	for _, want := range []error{failure, nil} {
		_, err := escrow.Do(ctx, b, func(tx *escrow.Tx) (struct{}, error) {
			must(t, bob.Settle(tx))
			if bob.Amount() != 30 {
				t.Error("it was given back before the commit")
			}
			return struct{}{}, want
		})
		if !errors.Is(err, want) || (bob.Amount() == 0) != (want == nil) {
			t.Errorf("settled by an operation that ended with %v: %d are claimed", err, bob.Amount())
		}
	}
	if _, err := claims.Take(ctx, 1, bodies("alice", 10)[1], bodies("bob", 10)[1]); err == nil {
		t.Error("one claim was made of two owners' things")
	}
}

// TestClaimedOnce: if only one claim at a time can have a thing, the next one gets the note of the claim that has it, or waits.
func TestClaimedOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, claims := newClaims(t)
	of := escrow.Bound{Of: escrow.Thing{Kind: escrow.Work, Name: "judge req_1"}, Most: 1, Note: []byte("first")}
	first, err := claims.Take(ctx, 1, of)
	must(t, err)
	of.Note = []byte("second")
	_, err = claims.Take(ctx, 1, of)
	if full := noRoom(t, err, 0, 0); string(full.Note) != "first" {
		t.Errorf("the note is %q", full.Note)
	}
	waited := make(chan escrow.Claim)
	for range 2 {
		go func() {
			c, err := claims.Await(context.Background(), 1, of)
			if err != nil {
				t.Error(err)
			}
			waited <- c
		}()
	}
	first.End()
	second := <-waited
	_, err = claims.Take(ctx, 1, of)
	if full := noRoom(t, err, 0, 0); string(full.Note) != "second" {
		t.Errorf("the note is %q", full.Note)
	}
	select {
	case <-waited:
		t.Fatal("two have what there is one of")
	default:
	}
	second.End()
	(<-waited).End()
	third, err := claims.Take(ctx, 1, of)
	must(t, err)
	defer third.End()
	cancel()
	if _, err := claims.Await(ctx, 1, of); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
}

// TestClaimsByTheBooks: how much there is of a thing can be read from the books.
func TestClaimsByTheBooks(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("10", "alice")
	failure := errors.New("on purpose")
	of := escrow.Bound{Of: escrow.Thing{Kind: escrow.SpendLimit, Owner: "alice", Name: "test"}, Left: func(r ledger.Reader) (int64, error) {
		account, err := ledger.ReadAccount(r, ledger.Wallet("alice"))
		return int64(account.Balance() / ledger.Unit), err
	}}
	c, err := s.Claims().Take(t.Context(), 4, of)
	must(t, err)
	noRoom(t, c.Extend(7), 0, 6)
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("1")})
		return err
	}))
	must(t, c.Extend(7))
	of.Left = func(ledger.Reader) (int64, error) { return 0, failure }
	if _, err := s.Claims().Take(t.Context(), 0, of); !errors.Is(err, failure) {
		t.Errorf("what the books can't say: %v", err)
	}
}

// TestClaimsUnderLoad: concurrent claims never take more than there is, and at the end everything has been given back.
func TestClaimsUnderLoad(t *testing.T) {
	_, claims := newClaims(t)
	var all sync.WaitGroup
	var taken, most atomic.Int64
	for worker := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 500 {
				agent := fmt.Sprint(random.IntN(3))
				c, err := claims.TakeUpTo(context.Background(), random.Int64N(40), bodies(agent, 100)...)
				must(t, err)
				n := c.Amount()
				most.Store(max(most.Load(), taken.Add(n)))
				if by := random.Int64N(40); c.Extend(by) == nil {
					n += by
					most.Store(max(most.Load(), taken.Add(by)))
				}
				if got := claims.Taken(escrow.Thing{Kind: escrow.RequestBody, Owner: agent}); got > 50 || got < c.Amount() {
					t.Errorf("%d bytes of agent %s are claimed", got, agent)
				}
				taken.Add(-n)
				c.End()
				w, err := claims.Await(context.Background(), 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.OpenedEscrow, Owner: agent}, Most: 1})
				must(t, err)
				w.End()
			}
		})
	}
	all.Wait()
	if most.Load() > 100 {
		t.Errorf("%d bytes were claimed at once", most.Load())
	}
	for _, agent := range []string{"", "0", "1", "2"} {
		if got := claims.Taken(escrow.Thing{Kind: escrow.RequestBody, Owner: agent}); got != 0 {
			t.Errorf("%d bytes are still claimed of %q", got, agent)
		}
	}
}

// TestPass: at first Burst events pass, then one after each Every. Events of other owners and of other kinds do not count.
func TestPass(t *testing.T) {
	_, claims := newClaims(t)
	at := escrow.Rate{Every: time.Hour, Burst: 3}
	of := escrow.Thing{Kind: escrow.WrongKey, Owner: "198.51.100.1"}
	for range 3 {
		if wait := claims.Pass(of, at); wait != 0 {
			t.Errorf("within the burst it is to wait %s", wait)
		}
	}
	for range 3 { // which are not counted
		if wait := claims.Pass(of, at); wait <= 59*time.Minute || wait > time.Hour {
			t.Errorf("beyond the burst it is to wait %s", wait)
		}
	}
	for _, other := range []escrow.Thing{{Kind: escrow.WrongKey, Owner: "198.51.100.2"}, {Kind: escrow.FaucetClaim, Owner: of.Owner}} {
		if wait := claims.Pass(other, at); wait != 0 {
			t.Errorf("%v is to wait %s", other, wait)
		}
	}
	for i := range 10_000 { // more than are remembered
		claims.Pass(escrow.Thing{Kind: escrow.WrongKey, Owner: fmt.Sprint(i)}, at)
	}
	if wait := claims.Pass(of, at); wait != 0 {
		t.Errorf("who was forgotten is to wait %s", wait)
	}
}

// TestLive: everything registered is ended once, concurrently. What has ended by itself is not ended again.
func TestLive(t *testing.T) {
	_, claims := newClaims(t)
	var mu sync.Mutex
	var ends []string
	meet := make(chan struct{})
	live := func(name string) *ended {
		l := &ended{func() {
			if name == "a" {
				<-meet
			} else {
				close(meet) // they are ended together, or this would wait for ever
			}
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, name)
		}}
		claims.Live(l)
		return l
	}
	live("a")
	c := live("c")
	live("b")
	claims.Gone(c)
	claims.Gone(c)
	claims.EndLive()
	if slices.Sort(ends); fmt.Sprint(ends) != "[a b]" {
		t.Errorf("%v were ended", ends)
	}
}

// ended is something that lives until its function is called.
type ended struct{ end func() }

func (e *ended) EndNow() { e.end() }
