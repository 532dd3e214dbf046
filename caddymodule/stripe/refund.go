package stripe

import (
	"context"
	"fmt"

	stripe "github.com/stripe/stripe-go/v85"

	"github.com/tallygate/tallygate/caddymodule/refund"
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Refundable implements [cashier.Refunder].
func (c *Cashier) Refundable(escrow.RailPayment) (unit ledger.Amount, atOnce bool) {
	return c.money.unit * ledger.Amount(c.money.step), c.Refunds == refund.AtOnce
}

// Refund implements [cashier.Refunder].
func (c *Cashier) Refund(ctx context.Context, ledgerID string, p escrow.Payout, payment escrow.RailPayment) (back escrow.TakenBack, err error) {
	minor, err := c.money.minor(p.Amount)
	if err != nil {
		return back, &cashier.Declined{Why: err.Error()}
	}
	made, err := refund.Make(ctx, c.client, refund.Order{Ledger: ledgerID, Payout: p.ID, Intent: payment.ID, Minor: minor})
	if err != nil {
		return back, err
	}
	return c.backOf(made, payment.ID, ledgerID)
}

// backOf returns what a refund has moved.
func (c *Cashier) backOf(made *stripe.Refund, intent, ledgerID string) (back escrow.TakenBack, err error) {
	amount, err := c.booked(made.Amount, made.Currency)
	if err != nil {
		return back, fmt.Errorf("refund %s: %w", made.ID, err)
	}
	back = escrow.TakenBack{Rail: c.Name(), ID: made.ID, Payment: intent, Why: "refund", Taken: amount, Payout: refund.PayoutOf(made, ledgerID)}
	if refund.Failed(made) {
		back.Returned = amount
	}
	return back, nil
}
