package escrow_test

import (
	"context"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// planned makes a shop with plans of "shop", and alice with 100.
func planned(t *testing.T) *shop {
	r := period(defaultRules())
	r.Plans = []escrow.Plan{
		{Payee: "shop", Name: "flat", Price: amount("10"), Period: 10 * time.Hour},
		{Payee: "shop", Name: "quota", Price: amount("10"), Period: 10 * time.Hour, Included: 100 * escrow.Micro, Unit: "call"},
		{Payee: "shop", Name: "pooled", Price: amount("10"), Period: 10 * time.Hour, Included: 100 * escrow.Micro, Unit: "call", Overage: true, Pool: amount("5")},
		{Payee: "shop", Name: "monthly", Price: amount("10"), Months: 1},
	}
	s := newShop(t, r)
	s.agents("100", "alice")
	s.agents("0", "shop")
	return s
}

func (s *shop) toPlan(plan string) escrow.Subscription {
	sub, err := do(s, func(t *escrow.Tx) (escrow.Subscription, error) {
		return t.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Plan: plan})
	})
	must(s.t, err)
	return sub
}

// served makes a call that the plan pays.
func (s *shop) served(plan string, calls int64) error {
	a, err := s.Authorise(context.Background(), escrow.CallOrder{
		Request: s.NewRequestID(), By: by("alice"), Payee: "shop", From: escrow.FromSubscription, Plan: plan, Quota: calls * escrow.Micro,
	})
	if err != nil {
		return err
	}
	_, err = a.Settle(context.Background(), escrow.Settlement{Quota: calls * escrow.Micro})
	return err
}

func (s *shop) cancel(who escrow.Actor, id string) error {
	return s.run(func(t *escrow.Tx) error { _, err := t.CancelSubscription(who, id); return err })
}

func TestCancelNow(t *testing.T) {
	for _, c := range []struct {
		name, plan   string
		calls        int64
		wait         time.Duration
		who          escrow.Actor
		alice, shop_ string
		want         escrow.Outcome
	}{
		{"half of the time", "flat", 0, 5 * time.Hour, by("alice"), "95", "5", ""},
		{"at once", "flat", 0, 0, by("alice"), "100", "0", ""},
		{"the payee's part is rounded down", "flat", 0, 1, by("alice"), "100", "0", ""},
		{"by the payee", "flat", 1, 5 * time.Hour, by("shop"), "95", "5", ""},
		{"by the operator", "flat", 1, 5 * time.Hour, operator, "95", "5", ""},
		{"a flat plan that has served", "flat", 1, time.Hour, by("alice"), "90", "0", escrow.Forbidden},
		{"a quota that is used up", "quota", 100, time.Hour, by("alice"), "90", "10", ""},
		{"more quota than time", "quota", 80, 5 * time.Hour, by("alice"), "92", "8", ""},
		{"more time than quota", "quota", 10, 5 * time.Hour, by("alice"), "95", "5", ""},
		{"with a pool", "pooled", 50, time.Hour, by("alice"), "95", "5", ""},
		{"by a stranger", "flat", 0, time.Hour, by("eve"), "90", "0", escrow.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := planned(t)
			sub := s.toPlan(c.plan)
			if c.calls > 0 {
				must(t, s.served(c.plan, c.calls))
			}
			s.clock.advance(c.wait)
			err := s.cancel(c.who, sub.ID)
			if got := outcomeOf(err); got != c.want {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if s.balance("alice") != amount(c.alice) || s.balance("shop") != amount(c.shop_) {
				t.Errorf("alice has %s and the shop %s, want %s and %s", s.balance("alice"), s.balance("shop"), c.alice, c.shop_)
			}
			if c.want == "" {
				refused(t, s.served(c.plan, 1), escrow.SubscriptionRequired)
				refused(t, s.cancel(c.who, sub.ID), escrow.InvalidStatus)
				s.toPlan(c.plan) // and it can begin again
			}
			s.sound()
		})
	}
}

func outcomeOf(err error) escrow.Outcome {
	if r, is := err.(*escrow.Refusal); is {
		return r.Outcome
	}
	return ""
}

// TestNobodyIsServedForARefund: a payer that asks each period's money back has no access, and what was served is disputed.
func TestNobodyIsServedForARefund(t *testing.T) {
	s := planned(t)
	sub := s.toPlan("flat")
	must(t, s.served("flat", 1))
	must(t, s.run(func(t *escrow.Tx) error { _, err := t.Refund(by("alice"), sub.EscrowID, 0, ""); return err }))
	r := refused(t, s.served("flat", 1), escrow.SubscriptionRequired)
	if r.Fields["escrow_id"] != sub.EscrowID || r.Fields["escrow_status"] != "refund_requested" {
		t.Errorf("the refusal says %v", r.Fields)
	}
	must(t, s.run(func(t *escrow.Tx) error { _, err := t.WithdrawRefund(by("alice"), sub.EscrowID); return err }))
	must(t, s.served("flat", 1))
	must(t, s.run(func(t *escrow.Tx) error { _, err := t.Refund(by("alice"), sub.EscrowID, 0, ""); return err }))
	s.clock.advance(escrow.DefaultRefundWindow + time.Hour)
	s.catchUp()
	if e, err := s.Escrow(context.Background(), operator, sub.EscrowID); err != nil || e.Status != escrow.StatusDisputed {
		t.Errorf("what was served: %s %v, want disputed", e.Status, err)
	}
	now, err := s.Subscription(context.Background(), operator, sub.ID)
	must(t, err)
	must(t, s.run(func(t *escrow.Tx) error { _, err := t.Refund(by("shop"), now.EscrowID, 0, ""); return err }))
	refused(t, s.served("flat", 1), escrow.SubscriptionRequired)
	s.clock.advance(11 * time.Hour) // a period that was given back whole is the last
	s.catchUp()
	if now, err = s.Subscription(context.Background(), operator, sub.ID); err != nil || now.Status != escrow.SubEnded {
		t.Errorf("the subscription is %s (%v)", now.Status, err)
	}
	s.sound()
}

func TestUndoACancellation(t *testing.T) {
	s := planned(t)
	sub := s.toPlan("flat")
	end := func(who string) {
		must(t, s.run(func(t *escrow.Tx) error { _, err := t.EndSubscription(by(who), sub.ID); return err }))
	}
	resume := func(who escrow.Actor) error {
		return s.run(func(t *escrow.Tx) error { _, err := t.ResumeSubscription(who, sub.ID); return err })
	}
	refused(t, resume(by("alice")), escrow.InvalidStatus)
	end("shop")
	refused(t, resume(by("alice")), escrow.Forbidden) // the payee's word stands
	must(t, resume(by("shop")))
	end("alice")
	refused(t, resume(by("shop")), escrow.Forbidden)
	must(t, resume(by("alice")))
	end("alice")
	must(t, resume(operator))
	s.clock.advance(10 * time.Hour)
	s.catchUp()
	if now, err := s.Subscription(context.Background(), operator, sub.ID); err != nil || now.Status != escrow.SubActive || now.Periods != 2 {
		t.Errorf("after the period: %s, %d periods (%v)", now.Status, now.Periods, err)
	}
	s.sound()
}

func TestCalendarMonths(t *testing.T) {
	s := planned(t)
	s.clock.advance(time.Date(2027, 1, 31, 9, 30, 0, 0, time.UTC).Sub(s.clock.Now()))
	sub := s.toPlan("monthly")
	for _, want := range []string{"2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"} {
		now, err := s.Subscription(context.Background(), operator, sub.ID)
		must(t, err)
		if got := now.PeriodEnd.Format("2006-01-02 15:04"); got != want+" 09:30" {
			t.Errorf("the period ends on %s, want %s 09:30", got, want)
		}
		s.clock.advance(now.PeriodEnd.Sub(s.clock.Now()))
		s.catchUp()
	}
	for text, want := range map[string]string{"1mo": "1mo", "monthly": "1mo", "12mo": "12mo", "weekly": "168h", "36h": "36h", "0mo": "", "121mo": "", "x": "", "-1h": ""} {
		term, err := escrow.ParseTerm(text, time.ParseDuration)
		if (err != nil) != (want == "") || err == nil && term.String() != want {
			t.Errorf("%s: %s %v, want %q", text, term, err, want)
		}
	}
}
