package escrow_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/internal/rounds"
)

// processes returns the books of several processes on one ledger: in memory, or in the database that the environment names.
func processes(t *testing.T, n int, r escrow.Rules) []*shop {
	t.Helper()
	memory, path := new(ledgertest.Memory), filepath.Join(t.TempDir(), "ledger.db")
	c := newClock()
	var all []*shop
	for range n {
		var store ledger.Store = memory.Open()
		if os.Getenv("TALLYGATE_STORE") != "" {
			var err error
			store, err = openStore(path)
			must(t, err)
		}
		l, err := ledger.New(store, ledger.Options{Now: c.Now, Currency: "USDC"})
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		all = append(all, &shop{Book: escrow.New(l, r), t: t, clock: c})
	}
	return all
}

// TestLimitOfSeveralProcesses: three processes let calls in under limits of one agent, from what they have leased, while transfers spend too. No
// limit is exceeded. In the end each limit can be spent to the last unit by each process, whatever the others have leased.
func TestLimitOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	const limit, toShop = "60", "35"
	all := processes(t, 3, defaultRules())
	all[0].agents("10000", "alice", "shop", "mallory")
	all[0].setLimits(operator, "alice", escrow.Limit{Amount: amount(limit), Window: 24 * time.Hour}, escrow.Limit{Payee: "shop", Amount: amount(toShop), Window: 48 * time.Hour})
	var spent [2]atomic.Int64 // in all, and to the shop
	count := func(payee string, n ledger.Amount) {
		spent[0].Add(int64(n))
		if payee == "shop" {
			spent[1].Add(int64(n))
		}
	}
	var workers sync.WaitGroup
	for worker := range 12 {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), rand.Uint64()))
			for range rounds.Of(15, 60) {
				s, payee := all[worker%3], []string{"shop", "mallory"}[random.IntN(2)]
				if random.IntN(8) == 0 {
					some := ledger.Amount(1+random.IntN(30)) * ledger.Unit / 100
					if err := s.run(func(tx *escrow.Tx) error {
						_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: payee, Amount: some})
						return err
					}); err == nil {
						count(payee, some)
					} else if !escrow.IsRefusal(err, escrow.LimitExceeded) {
						t.Error(err)
					}
					continue
				}
				charge, err := s.randomCall(t.Context(), payee, random)
				if err != nil && !escrow.IsRefusal(err, escrow.LimitExceeded) {
					t.Error(err)
				}
				count(payee, charge.Amount)
			}
		})
	}
	workers.Wait()
	for i, most := range []ledger.Amount{amount(limit), amount(toShop)} {
		if got := ledger.Amount(spent[i].Load()); got > most {
			t.Errorf("%s were spent under a limit of %s", got, most)
		}
	}
	for i, payee := range []string{"shop", "mallory"} {
		left := []ledger.Amount{min(amount(toShop)-ledger.Amount(spent[1].Load()), amount(limit)-ledger.Amount(spent[0].Load())), amount(limit) - ledger.Amount(spent[0].Load())}[i]
		for left > 0 {
			some := min(left, amount("1"), max(1, left/2))
			if left == 1 || some == left {
				some = left
			}
			n := rand.IntN(3)
			var charge escrow.Charge
			err := untilGivenBack(func() (err error) {
				charge, err = all[n].spend(escrow.CallOrder{By: by("alice"), Payee: payee}, some, nil)
				return err
			})
			if err != nil || charge.Amount != some {
				t.Fatalf("process %d was refused %s, with %s left of the limits: %v", n, some, left, err)
			}
			left -= some
			count(payee, some)
		}
		for n := range all {
			if _, err := all[n].spend(escrow.CallOrder{By: by("alice"), Payee: payee}, 1, nil); !escrow.IsRefusal(err, escrow.LimitExceeded) {
				t.Errorf("process %d spent more than the limit: %v", n, err)
			}
		}
	}
	all[0].sound()
}

// untilGivenBack spends something that other processes have leased and don't use. They give it back within a moment, but on a busy machine that
// may be later than the spender waits.
func untilGivenBack(spend func() error) error {
	err := spend()
	for deadline := time.Now().Add(time.Minute); escrow.IsRefusal(err, escrow.LimitExceeded) && time.Now().Before(deadline); {
		err = spend()
	}
	return err
}

// randomCall makes a call that ends in some way, and returns its charge.
func (s *shop) randomCall(ctx context.Context, payee string, random *rand.Rand) (escrow.Charge, error) {
	cents := func(most int) ledger.Amount { return ledger.Amount(1+random.IntN(most)) * ledger.Unit / 100 }
	a, err := s.Authorise(ctx, escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: payee, Least: cents(5), Most: cents(40)})
	if err != nil {
		return escrow.Charge{}, err
	}
	switch random.IntN(4) {
	case 0:
		a.Cancel()
		return escrow.Charge{}, nil
	case 1:
		if err := a.Extend(a.Total() + cents(10)); err != nil {
			a.Cancel()
			return escrow.Charge{}, err
		}
	}
	return a.Settle(ctx, escrow.Settlement{Amount: min(cents(30), a.Total())})
}

// TestQuotaOfSeveralProcesses: three processes serve calls from one quota, which is used to the last unit, and no further. A subscription that was
// used at one process can be cancelled at another one, and what was not used goes back.
func TestQuotaOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	rules := defaultRules()
	rules.Plans = []escrow.Plan{
		{Payee: "shop", Name: "week", Price: amount("10"), Period: 168 * time.Hour, Included: 100 * escrow.Micro, Unit: "call"},
		{Payee: "shop", Name: "flat", Price: amount("10"), Period: 168 * time.Hour},
	}
	all := processes(t, 3, rules)
	all[0].agents("10000", "alice", "shop")
	subscribe := func(plan string) escrow.Subscription {
		sub, err := do(all[0], func(tx *escrow.Tx) (escrow.Subscription, error) {
			return tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Plan: plan})
		})
		must(t, err)
		return sub
	}
	use := func(s *shop, plan string, used int64) error {
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", From: escrow.FromSubscription, Plan: plan, Quota: escrow.Micro, Over: centPerUnit})
		if err != nil {
			return err
		}
		if used == 0 {
			a.Cancel()
			return nil
		}
		_, err = a.Settle(t.Context(), escrow.Settlement{Quota: used})
		return err
	}
	sub := subscribe("week")
	var served atomic.Int64
	var workers sync.WaitGroup
	for worker := range 6 {
		workers.Go(func() {
			for n := range 20 {
				used := escrow.Micro * int64(min(n%5, 1)) // each fifth call is cancelled
				switch err := use(all[worker%3], "week", used); {
				case err == nil:
					served.Add(used)
				case !escrow.IsRefusal(err, escrow.LimitExceeded):
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	for n := 0; served.Load() < 100*escrow.Micro; n++ {
		if err := untilGivenBack(func() error { return use(all[n%3], "week", escrow.Micro) }); err != nil {
			t.Fatalf("process %d was refused a unit, with %d of 100 used: %v", n%3, served.Load()/escrow.Micro, err)
		}
		served.Add(escrow.Micro)
	}
	for n := range all {
		if err := use(all[n], "week", escrow.Micro); !escrow.IsRefusal(err, escrow.LimitExceeded) {
			t.Errorf("process %d served a unit beyond the quota: %v", n, err)
		}
	}
	if now, err := all[1].Subscription(t.Context(), operator, sub.ID); err != nil || now.Used != 100*escrow.Micro {
		t.Errorf("of the quota, %d were used, %v", now.Used, err)
	}
	cancel := func(s *shop, id string) error {
		return s.run(func(tx *escrow.Tx) error { _, err := tx.CancelSubscription(by("alice"), id); return err })
	}
	must(t, cancel(all[2], sub.ID))
	sub = subscribe("week")
	before := all[0].balance("alice")
	must(t, use(all[0], "week", escrow.Micro))
	must(t, use(all[0], "week", escrow.Micro)) // now it has leased ahead
	must(t, cancel(all[1], sub.ID))
	if back := all[0].balance("alice") - before; back != amount("9.8") {
		t.Errorf("2 of 100 units were used, and %s of 10 went back", back)
	}
	if err := use(all[0], "week", escrow.Micro); !escrow.IsRefusal(err, escrow.SubscriptionRequired) {
		t.Errorf("a call on a subscription that was cancelled at another process: %v", err)
	}
	flat := subscribe("flat")
	must(t, use(all[0], "flat", 0))
	must(t, use(all[0], "flat", 0))
	err := cancel(all[1], flat.ID)
	for deadline := time.Now().Add(time.Minute); escrow.IsRefusal(err, escrow.InvalidStatus) && time.Now().Before(deadline); { // until the first process has given back what the calls had
		err = cancel(all[1], flat.ID)
	}
	must(t, err)
	all[0].sound()
}

// TestLeaseEndsWithItsSession: what a process has leased of a limit is free again when its session is over.
func TestLeaseEndsWithItsSession(t *testing.T) {
	t.Parallel()
	all := processes(t, 2, defaultRules())
	all[0].agents("10000", "alice", "shop")
	all[0].setLimits(by("alice"), "alice", escrow.Limit{Amount: amount("10"), Window: 24 * time.Hour})
	for range 3 {
		_, err := all[0].spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("1"), nil)
		must(t, err)
	}
	_, err := all[0].Authorise(t.Context(), escrow.CallOrder{Request: "req_1", By: by("alice"), Payee: "shop", Least: amount("2")})
	must(t, err)
	must(t, all[0].Ledger().Close()) // with a call that runs
	_, err = all[1].spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("7"), nil)
	must(t, err)
	if _, err := all[1].spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, 1, nil); !escrow.IsRefusal(err, escrow.LimitExceeded) {
		t.Errorf("more was spent than the limit: %v", err)
	}
}

// TestLoweredLimit: a limit that was lowered holds at once for a process that had leased more of it.
func TestLoweredLimit(t *testing.T) {
	t.Parallel()
	all := processes(t, 1, defaultRules())
	s := all[0]
	s.agents("10000", "alice", "shop")
	s.setLimits(by("alice"), "alice", escrow.Limit{Amount: amount("100"), Window: 24 * time.Hour})
	for range 3 {
		_, err := s.spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("5"), nil)
		must(t, err)
	}
	s.setLimits(by("alice"), "alice", escrow.Limit{Amount: amount("16"), Window: 24 * time.Hour})
	if _, err := s.spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("5"), nil); !escrow.IsRefusal(err, escrow.LimitExceeded) {
		t.Errorf("5 were spent, with 1 left: %v", err)
	}
	_, err := s.spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("1"), nil)
	must(t, err)
	failure := errors.New("on purpose")
	if err := s.run(func(tx *escrow.Tx) error {
		_, _ = tx.Transfer(by("alice"), escrow.PaymentOrder{To: "shop", Amount: 1})
		return failure
	}); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	s.sound()
}
