package escrow_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// TestCancelBesideACall: a call that begins while its subscription is being cancelled is either refused, or the cancellation sees it. It is never
// served by a period whose money has gone back.
func TestCancelBesideACall(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]escrow.Plan{
		"flat":  {Payee: "shop", Name: "week", Price: amount("10"), Period: 168 * time.Hour},
		"quota": {Payee: "shop", Name: "week", Price: amount("10"), Period: 168 * time.Hour, Included: 10 * escrow.Micro, Unit: "call"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := defaultRules()
			rules.Plans = []escrow.Plan{plan}
			s := newShop(t, rules)
			s.agents("10000", "alice", "shop")
			for range 100 {
				s.cancelBesideACall(t)
			}
			s.sound()
		})
	}
}

func (s *shop) cancelBesideACall(t *testing.T) {
	sub, err := do(s, func(tx *escrow.Tx) (escrow.Subscription, error) {
		return tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Plan: "week"})
	})
	must(t, err)
	type begun struct {
		call *escrow.Authorisation
		err  error
	}
	calls := make(chan begun, 1)
	order := escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", From: escrow.FromSubscription, Plan: "week", Quota: 10 * escrow.Micro, Over: centPerUnit}
	_, cancelled := escrow.Do(context.Background(), s.Book, func(tx *escrow.Tx) (escrow.Subscription, error) {
		after, err := tx.CancelSubscription(by("alice"), sub.ID)
		go func() {
			call, err := s.Authorise(context.Background(), order)
			calls <- begun{call, err}
		}()
		for s.Claims().Taken(escrow.Thing{Kind: escrow.RunningCalls, Owner: "alice"}) == 0 {
			runtime.Gosched()
		}
		for range 1000 { // the call goes as far as it can without the cancellation
			runtime.Gosched()
		}
		return after, err
	})
	call := <-calls
	if cancelled == nil && call.err == nil {
		t.Fatal("the period was cancelled, and its money has gone back, but a call is served by it")
	}
	if cancelled != nil && call.err != nil {
		t.Fatalf("the cancellation was refused (%v), and the call too (%v)", cancelled, call.err)
	}
	if call.err == nil {
		call.call.Cancel()
	}
	if cancelled != nil {
		t.Fatal(cancelled)
	}
}
