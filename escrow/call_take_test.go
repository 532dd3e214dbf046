package escrow_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest/stores"
	"github.com/tallygate/tallygate/internal/rounds"
)

// beside runs a few goroutines that do one thing again and again, until another thing was done some times.
func beside(again func(), do func()) {
	var over atomic.Bool
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for !over.Load() {
				again()
			}
		})
	}
	defer all.Wait()
	defer over.Store(true)
	for range rounds.Of(3000, 10_000) {
		do()
	}
}

// TestWhatCantBeServedRefusesNoOther: a call finds enough of one thing and too little of another, and is refused, or gets no more. Meanwhile no call is
// refused for which there is enough of everything.
func TestWhatCantBeServedRefusesNoOther(t *testing.T) {
	if stores.Chosen() {
		t.Skip("on a shared ledger a call tries to take once: a second try under a lock would wait for the database")
	}
	units := func(n int64) int64 { return n * escrow.Micro }
	plan := &escrow.Plan{Payee: "shop", Name: "week", Price: amount("1"), Period: 168 * time.Hour, Included: units(5), Unit: "call"}
	for name, test := range map[string]struct {
		limit   string
		credits []string
		plan    *escrow.Plan
		greedy  func(*shop) func() // never gets what it wants
		modest  escrow.CallOrder   // always fits
	}{
		"a limit, and money": {
			limit: "10", modest: escrow.CallOrder{Least: amount("4")},
			greedy: refusedAlways(escrow.CallOrder{Least: amount("8")}),
		},
		"credit, and money": {
			credits: []string{"5"}, modest: escrow.CallOrder{Least: amount("5.5"), Credit: true},
			greedy: refusedAlways(escrow.CallOrder{Least: amount("11"), Credit: true}),
		},
		"a limit, and money to go on": {
			limit: "10", modest: escrow.CallOrder{Least: amount("2")},
			greedy: extended(escrow.CallOrder{Least: amount("1")}, func(a *escrow.Authorisation) bool { return a.Extend(amount("9")) == nil }),
		},
		"a quota": {
			plan: plan, modest: escrow.CallOrder{Quota: units(4)},
			greedy: refusedAlways(escrow.CallOrder{Quota: units(8)}),
		},
		"a quota to go on": {
			plan: plan, modest: escrow.CallOrder{Quota: units(4)},
			greedy: extended(escrow.CallOrder{Quota: units(1)}, func(a *escrow.Authorisation) bool { return a.ExtendQuota(units(8)) }),
		},
		"a look at a quota": {
			plan: plan, modest: escrow.CallOrder{Quota: units(4)},
			greedy: extended(escrow.CallOrder{Quota: units(1)}, func(a *escrow.Authorisation) bool { return a.QuotaReach(units(8)) >= units(8) }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := defaultRules()
			if test.plan != nil {
				rules.Plans = []escrow.Plan{*test.plan}
			}
			s := newShop(t, rules)
			s.agents("5", "alice")
			s.agents("100", "shop")
			for _, sum := range test.credits {
				s.issue("shop", "alice", sum, time.Time{})
			}
			if test.limit != "" {
				s.setLimits(operator, "alice", escrow.Limit{Amount: amount(test.limit), Window: time.Hour})
			}
			if test.plan != nil {
				must(t, s.run(func(tx *escrow.Tx) error {
					_, err := tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Plan: "week"})
					return err
				}))
			}
			refused := 0
			beside(test.greedy(s), func() {
				a, err := s.authorise(test.modest)
				if err != nil {
					if refused++; refused == 1 {
						t.Error(err)
					}
					return
				}
				a.Cancel()
			})
			if refused > 0 {
				t.Errorf("%d calls were refused for which there was enough", refused)
			}
			if w, err := s.Wallet(t.Context(), "alice"); err != nil || w.Held > amount("1") {
				t.Errorf("%s are held at the end, %v", w.Held, err)
			}
		})
	}
}

// authorise lets in a call of alice to the shop.
func (s *shop) authorise(o escrow.CallOrder) (*escrow.Authorisation, error) {
	o.Request, o.By, o.Payee = s.NewRequestID(), by("alice"), "shop"
	if o.Quota > 0 {
		o.From, o.Plan, o.Over = escrow.FromSubscription, "week", centPerUnit
	}
	return s.Authorise(context.Background(), o)
}

// refusedAlways makes a call again and again that is always refused.
func refusedAlways(o escrow.CallOrder) func(*shop) func() {
	return func(s *shop) func() {
		return func() {
			if a, err := s.authorise(o); err == nil {
				s.t.Errorf("a call was let in that there is too little for")
				a.Cancel()
			}
		}
	}
}

// extended lets a call in, and has it ask again and again for more than there is.
func extended(o escrow.CallOrder, more func(*escrow.Authorisation) bool) func(*shop) func() {
	return func(s *shop) func() {
		a, err := s.authorise(o)
		must(s.t, err)
		return func() {
			if more(a) {
				s.t.Errorf("a call got more than there is")
			}
		}
	}
}

// TestAnEscrowBeingOpenedTakesNoRoomOfALimit: while the escrow of a call is opened, as large as the payer's limit, its other calls go on.
func TestAnEscrowBeingOpenedTakesNoRoomOfALimit(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1000", "alice")
	s.agents("0", "shop")
	s.setLimits(operator, "alice", escrow.Limit{Amount: amount("10"), Window: time.Hour})
	var opened atomic.Int64
	var all sync.WaitGroup
	for n := range 20 {
		s.agents("0", fmt.Sprint("payee", n))
	}
	all.Go(func() {
		for n := range 20 {
			a, err := s.Authorise(t.Context(), escrow.CallOrder{
				Request: s.NewRequestID(), By: by("alice"), Payee: fmt.Sprint("payee", n), Least: amount("1"), From: escrow.FromEscrow, Open: amount("10"),
			})
			opened.Add(1)
			if err != nil {
				t.Error(err)
				continue
			}
			if e, err := s.Escrow(t.Context(), operator, a.Escrow()); err != nil || e.Amount < amount("8") {
				t.Errorf("the escrow has %s, %v", e.Amount, err)
			}
			a.Cancel()
		}
	})
	for opened.Load() < 20 {
		a, err := s.authorise(escrow.CallOrder{Least: amount("1")})
		if err != nil {
			t.Error(err)
			break
		}
		a.Cancel()
	}
	all.Wait()
}

// TestARefusedCallCountsAgainstNoRate: many calls come at the same time, and one rate lets one of them pass. The others do not count against another rate.
func TestARefusedCallCountsAgainstNoRate(t *testing.T) {
	s := newShop(t, defaultRules())
	const many = 40
	rate := func(name string, n int64) escrow.CallRate {
		return escrow.CallRate{Name: name, Owner: "route", N: n, Per: 10_000 * time.Hour}
	}
	for n := range 100 {
		agent := by(fmt.Sprint("agent", n))
		wide, narrow := rate("wide", many), rate("narrow", 1)
		var passed atomic.Int64
		var all sync.WaitGroup
		for range many {
			all.Go(func() {
				if _, err := s.Pace(agent, []escrow.CallRate{wide, narrow}); err == nil {
					passed.Add(1)
				}
			})
		}
		all.Wait()
		if passed.Load() != 1 {
			t.Fatalf("%d calls passed", passed.Load())
		}
		for left := many - 1; left > 0; left-- {
			if _, err := s.Pace(agent, []escrow.CallRate{wide}); err != nil {
				t.Fatalf("%d calls are missing: %v", left, err)
			}
		}
	}
}
