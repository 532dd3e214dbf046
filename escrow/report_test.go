package escrow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// TestReportsUseCreditFirst: credit pays reported work before money, whatever the money comes from, and uses no allowance. A capture is all money.
func TestReportsUseCreditFirst(t *testing.T) {
	t.Parallel()
	rules := defaultRules()
	rules.Plans = []escrow.Plan{{Payee: "shop", Name: "week", Price: amount("10"), Period: 168 * time.Hour, Included: escrow.Micro, Unit: "call", Overage: true, Pool: amount("5")}}
	s := newShop(t, rules)
	s.agents("100", "alice")
	s.agents("0", "shop")
	must(t, s.run(func(tx *escrow.Tx) error {
		if _, err := tx.SetAllowance(by("alice"), "", "shop", amount("20")); err != nil {
			return err
		}
		_, err := tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Plan: "week"})
		return err
	}))
	hold, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.OpenHold(by("alice"), escrow.HoldOrder{Payee: "shop", Amount: amount("10")})
	})
	must(t, err)
	report := func(o escrow.ReportOrder, cost string) (escrow.Charge, error) {
		o.Payer = "alice"
		r, err := do(s, func(tx *escrow.Tx) (escrow.Reported, error) {
			return tx.Report(by("shop"), o, func(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
				order := escrow.CallOrder{By: by(o.Payer), Payee: o.Payee, Credit: true}
				if o.Plan == "" {
					return order, escrow.Settlement{Amount: amount(cost)}, nil
				}
				order.From, order.Plan = escrow.FromSubscription, o.Plan
				return order, escrow.Settlement{Quota: micro(cost), Over: centPerUnit}, nil
			})
		})
		return r.Charge, err
	}
	for i, test := range []struct {
		order          escrow.ReportOrder
		cost           string
		issue          string
		amount, credit string
	}{
		{escrow.ReportOrder{Hold: hold.ID}, "5", "3", "5", "3"},
		{escrow.ReportOrder{Hold: hold.ID}, "11", "3", "11", "3"}, // all that is left of the hold, and credit
		{escrow.ReportOrder{}, "4", "3", "4", "3"},
		{escrow.ReportOrder{}, "2", "3", "2", "2"},
		{escrow.ReportOrder{Plan: "week"}, "101", "", "1", "1"}, // one was included, and the credit of before pays the rest
		{escrow.ReportOrder{Plan: "week"}, "300", "2", "3", "2"},
	} {
		if test.issue != "" {
			s.issue("shop", "alice", test.issue, time.Time{})
		}
		test.order.Reference = fmt.Sprint(i)
		c, err := report(test.order, test.cost)
		must(t, err)
		if c.Amount != amount(test.amount) || c.Credit != amount(test.credit) {
			t.Errorf("report %d: charged %s, of it credit %s; want %s and %s", i, c.Amount, c.Credit, test.amount, test.credit)
		}
	}
	h, err := s.Hold(context.Background(), operator, hold.ID)
	must(t, err)
	if h.Released != amount("10") || h.Remaining() != 0 {
		t.Errorf("of the hold %s was captured", h.Released)
	}
	a, err := s.Allowance("alice", "shop")
	must(t, err)
	if a.Left != amount("19") {
		t.Errorf("of the allowance %s is left: credit does not use it", a.Left)
	}
	if _, err := report(escrow.ReportOrder{Hold: hold.ID, Reference: "after"}, "1"); !escrow.IsRefusal(err, escrow.InvalidStatus) {
		t.Errorf("a hold that is over: %v", err)
	}
	s.sound()
}
