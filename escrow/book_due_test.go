package escrow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// period sets rules with very short periods, so that much falls due.
func period(r escrow.Rules) escrow.Rules {
	r.MinEscrow, r.MinPeriod, r.MaxSubscriptions = 1, time.Second, 5000
	return r
}

func (s *shop) subscribe(payer, payee, amount_ string, each time.Duration) escrow.Subscription {
	s.t.Helper()
	sub, err := do(s, func(t *escrow.Tx) (escrow.Subscription, error) {
		return t.Subscribe(by(payer), escrow.SubscriptionOrder{Payee: payee, Amount: amount(amount_), Period: each})
	})
	must(s.t, err)
	return sub
}

// TestNobodyWaitsForWhatIsDue: when hundreds of subscriptions of one agent are due, no request has to do that work. Calls and payments go
// on, and none of them renews a subscription.
func TestNobodyWaitsForWhatIsDue(t *testing.T) {
	s := newShop(t, period(defaultRules()))
	s.agents("10", "mallory", "alice")
	s.agents("0", "shop")
	for range 200 {
		s.subscribe("mallory", "shop", "0.000000001", time.Second)
	}
	s.clock.advance(time.Hour) // 720,000 periods
	done := func() int64 {
		subs, _, err := s.Subscriptions(context.Background(), "mallory", "", escrow.Page{Limit: 1})
		must(t, err)
		return subs[0].Periods
	}
	before := done()
	for range 10 {
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("0.1")})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.1")})
		must(t, err)
		must(t, s.run(func(tx *escrow.Tx) error {
			_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "shop", Amount: 1})
			return err
		}))
		_, err = s.Wallet(context.Background(), "mallory")
		must(t, err)
	}
	if after := done(); after != before {
		t.Errorf("requests of others began %d periods of a subscription", after-before)
	}
	next, err := s.RunDue(context.Background())
	must(t, err)
	if next.After(s.Now()) {
		t.Errorf("all was done in one round: it is not bounded")
	}
	s.sound()
}

// TestDueInTurns: an agent with thousands of due things does not delay another agent, whose time comes later and whose name comes later in
// the alphabet.
func TestDueInTurns(t *testing.T) {
	for _, other := range []string{"aaron", "zoe"} {
		s := newShop(t, period(defaultRules()))
		s.agents("1000", "mallory", other)
		s.agents("0", "shop")
		for range 1200 {
			s.subscribe("mallory", "shop", "0.000000001", time.Second)
		}
		s.clock.advance(time.Second)
		for range 3 {
			s.subscribe(other, "shop", "1", time.Hour)
		}
		s.clock.advance(time.Hour)
		_, err := s.RunDue(context.Background())
		must(t, err)
		late, _, err := s.Subscriptions(context.Background(), other, "", escrow.Page{})
		must(t, err)
		for _, sub := range late {
			if sub.Periods != 2 {
				t.Errorf("after one round, a subscription of %s is in period %d, want 2", other, sub.Periods)
			}
		}
		s.sound()
	}
}

// TestMissedPeriods: after a downtime a subscription catches up period by period, a limited number of them in one operation. A request
// about the subscription before that is told to come back later.
func TestMissedPeriods(t *testing.T) {
	s := newShop(t, period(defaultRules()))
	s.agents("1000", "alice")
	s.agents("0", "shop")
	sub := s.subscribe("alice", "shop", "1", time.Minute)
	s.clock.advance(90 * time.Minute)
	err := s.run(func(tx *escrow.Tx) error { _, err := tx.EndSubscription(by("alice"), sub.ID); return err })
	if !escrow.IsRefusal(err, escrow.RateLimited) {
		t.Errorf("ended with %v, while it is 90 periods behind", err)
	}
	s.catchUp()
	now, err := s.Subscription(context.Background(), by("alice"), sub.ID)
	must(t, err)
	w, err := s.Wallet(context.Background(), "shop")
	must(t, err)
	if now.Periods != 91 || w.Available != amount("90") {
		t.Errorf("period %d, %s paid; want period 91, and 90 paid", now.Periods, w.Available)
	}
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.EndSubscription(by("alice"), sub.ID); return err }))
	s.sound()
}

// TestWhatIsReadIsUpToDate: a request that reads or uses an escrow or a subscription finds it as its time has made it, even if the worker
// has not come yet.
func TestWhatIsReadIsUpToDate(t *testing.T) {
	s := newShop(t, period(defaultRules()))
	s.agents("1000", "alice")
	s.agents("0", "shop")
	sub := s.subscribe("alice", "shop", "1", time.Hour)
	e, err := do(s, func(t *escrow.Tx) (escrow.Escrow, error) {
		return t.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("5"), AutoRelease: time.Hour, OnExpiry: escrow.ToPayer})
	})
	must(t, err)
	s.clock.advance(time.Hour)
	order := escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: 1, From: escrow.FromEscrow}
	if _, err := s.Authorise(t.Context(), order); !escrow.IsRefusal(err, escrow.EscrowRequired) {
		t.Errorf("a call draws from an escrow whose time is up: %v", err)
	}
	order.Escrow = e.ID
	if _, err := s.Authorise(t.Context(), order); !escrow.IsRefusal(err, escrow.InvalidStatus) {
		t.Errorf("a call draws from a named escrow whose time is up: %v", err)
	}
	read, err := s.Escrow(context.Background(), by("alice"), e.ID)
	must(t, err)
	now, err := s.Subscription(context.Background(), by("alice"), sub.ID)
	must(t, err)
	if read.Status != escrow.StatusRefunded || now.Periods != 2 {
		t.Errorf("the escrow is %s, the subscription in period %d; want refunded, 2", read.Status, now.Periods)
	}
	s.sound()
}

// TestSubscriptionsAreBounded: what one agent can make the server do without end is limited.
func TestSubscriptionsAreBounded(t *testing.T) {
	r := defaultRules()
	r.MaxSubscriptions = 2
	s := newShop(t, r)
	s.agents("100", "alice", "bob")
	s.agents("0", "shop")
	subscribe := func(payer, money string, each time.Duration) error {
		return s.run(func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(by(payer), escrow.SubscriptionOrder{Payee: "shop", Amount: amount(money), Period: each})
			return err
		})
	}
	for name, err := range map[string]error{
		"less than the least escrow": subscribe("alice", "0.999999999", time.Hour),
		"shorter than an hour":       subscribe("alice", "1", time.Hour-time.Nanosecond),
	} {
		if !escrow.IsRefusal(err, escrow.InvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first := s.subscribe("alice", "shop", "1", time.Hour)
	must(t, subscribe("alice", "1", time.Hour))
	if err := subscribe("alice", "1", time.Hour); !escrow.IsRefusal(err, escrow.InvalidStatus) {
		t.Errorf("a third one: %v", err)
	}
	must(t, subscribe("bob", "1", time.Hour))
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.EndSubscription(by("alice"), first.ID); return err }))
	s.clock.advance(time.Hour)
	s.catchUp()
	if err := subscribe("alice", "1", time.Hour); err != nil {
		t.Error(fmt.Errorf("after one has ended: %w", err))
	}
	s.sound()
}
