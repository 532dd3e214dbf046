package mpp

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestRefunds: a payment by Stripe goes back on request, once, whatever becomes of answers; one that Stripe declines, or that another method
// has taken, does not.
func TestRefunds(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	refunds := cashier.NewRefunds([]cashier.Refunder{s.rail}, func() *escrow.Book { return s.book }, slog.New(slog.DiscardHandler))
	want(t, "a call", s.get("/", "Authorization", s.spt()).code(), "200") // 1 is paid, and 0.40 charged
	agents, _, err := s.book.Agents("", 10)
	must(t, err)
	payer := ""
	for _, a := range agents {
		if a.ID != "acme" {
			payer = a.ID
		}
	}
	deposits, _, err := s.book.Deposits(payer, escrow.Page{})
	must(t, err)
	want(t, "deposits", len(deposits), 1)
	ask := func(amount ledger.Amount) (escrow.Payout, error) {
		return escrow.Do(t.Context(), s.book, func(tx *escrow.Tx) (escrow.Payout, error) {
			return tx.RequestRefund(escrow.Actor{Agent: payer}, escrow.RefundOrder{Deposit: deposits[0].Deposit, Amount: amount, Can: refunds.Can})
		})
	}
	wallet := func() string {
		w, err := s.book.Wallet(context.Background(), payer)
		must(t, err)
		return fmt.Sprint(w.Balance, " ", w.Held)
	}
	status := func(p escrow.Payout) escrow.PayoutStatus {
		now, err := s.book.Payout(escrow.Actor{Operator: true}, p.ID)
		must(t, err)
		return now.Status
	}
	if _, err := ask(ledger.Unit); !escrow.IsRefusal(err, escrow.InsufficientFunds) {
		t.Errorf("money that is spent: %v", err)
	}
	steps := []struct {
		fault  string
		status escrow.PayoutStatus
		wallet string
	}{
		{isDown, escrow.PayoutSending, "0.6 0.1"}, {loses, escrow.PayoutSending, "0.6 0.1"}, {"", escrow.PayoutBooked, "0.5 0"},
	}
	first, err := ask(ledger.Unit / 10)
	must(t, err)
	for _, step := range steps {
		s.stripe.set(step.fault)
		must(t, refunds.Round(t.Context()))
		want(t, "with the fault "+step.fault, fmt.Sprint(status(first), " ", wallet()), fmt.Sprint(step.status, " ", step.wallet))
	}
	s.stripe.set(declines)
	second, err := ask(ledger.Unit / 10)
	must(t, err)
	must(t, refunds.Round(t.Context()))
	want(t, "declined", fmt.Sprint(status(second), " ", wallet()), "refused 0.5 0")

	s.stripe.set(processes)
	third, err := ask(0)
	must(t, err)
	must(t, refunds.Round(t.Context()))
	want(t, "pending", fmt.Sprint(status(third), " ", wallet()), "sending 0.5 0.5")
	s.stripe.set("")
	s.stripe.mu.Lock()
	s.stripe.refunds[1]["status"] = "succeeded"
	s.stripe.mu.Unlock()
	must(t, refunds.Round(t.Context()))
	want(t, "in the end", fmt.Sprint(status(third), " ", wallet(), " ", len(s.stripe.refunds)), "paid 0 0 2")
	want(t, "booked is what was paid, without what went back", s.deposits(), ledger.Unit-6*ledger.Unit/10)

	if unit, atOnce := s.rail.Refundable(escrow.RailPayment{Outside: "test_1"}); unit != 0 || atOnce {
		t.Errorf("a payment of the method test goes back: %s, %v", unit, atOnce)
	}
}
