package mpp

import (
	"context"
	"fmt"
	"math/big"
	"strings"

	"github.com/stripe/stripe-go/v85"

	"github.com/tallygate/tallygate/caddymodule/refund"
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// byStripe returns the method that has taken a payment, if that was Stripe: the name of the payment there says so.
func (r *Rail) byStripe(payment escrow.RailPayment) *Stripe {
	method, _ := r.method(stripeName).(*Stripe)
	if !strings.HasPrefix(payment.Outside, "pi_") {
		return nil
	}
	return method
}

// Refundable implements [cashier.Refunder]. Only payments that Stripe has taken can go back.
func (r *Rail) Refundable(payment escrow.RailPayment) (unit ledger.Amount, atOnce bool) {
	method := r.byStripe(payment)
	if method == nil {
		return 0, false
	}
	unit, _ = ledger.FromMinor(big.NewInt(1), r.decimal)
	return unit, method.Refunds == refund.AtOnce
}

// Refund implements [cashier.Refunder]. Nobody tells this rail what becomes of a refund later. So one that has not ended is asked for again.
func (r *Rail) Refund(ctx context.Context, ledgerID string, p escrow.Payout, payment escrow.RailPayment) (back escrow.TakenBack, err error) {
	method := r.byStripe(payment)
	units := p.Amount.Minor(r.decimal)
	if method == nil || !units.IsInt64() {
		return back, &cashier.Declined{Why: "no method of this rail can give the payment back"}
	}
	made, err := refund.Make(ctx, method.client, refund.Order{Ledger: ledgerID, Payout: p.ID, Intent: payment.Outside, Minor: units.Int64()})
	if err != nil {
		return back, err
	}
	amount, exact := ledger.FromMinor(big.NewInt(made.Amount), r.decimal)
	if !exact || !strings.EqualFold(string(made.Currency), r.Currency) {
		return back, fmt.Errorf("refund %s is of %d %.3s, which can't be booked", made.ID, made.Amount, made.Currency)
	}
	back = escrow.TakenBack{Rail: r.Name(), ID: made.ID, Payment: payment.ID, Why: "refund", Taken: amount, Payout: refund.PayoutOf(made, ledgerID)}
	switch {
	case refund.Failed(made):
		back.Returned = amount
	case made.Status != stripe.RefundStatusSucceeded:
		return back, fmt.Errorf("refund %s is %.40s", made.ID, made.Status)
	}
	return back, nil
}

var _ cashier.Refunder = (*Rail)(nil)
