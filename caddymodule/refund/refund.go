// Package refund makes refunds at Stripe, each once. The modules that take payments at Stripe use it.
package refund

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	stripe "github.com/stripe/stripe-go/v85"

	"github.com/tallygate/tallygate/escrow/cashier"
)

// What a refund at Stripe has in its metadata: the payout by which an agent has asked for it, and of which ledger. A refund without them was
// not asked for here.
const (
	metaLedger = "tallygate_ledger"
	metaPayout = "tallygate_payout"
)

// The values of the config that say who makes refunds.
const (
	AtOnce     = "at_once"     // whoever has paid gets unspent money back when it asks
	ByOperator = "by_operator" // the operator decides
)

// Check returns the value of the config, or the default for none: the operator decides, because Stripe keeps its fee. An agent that could pay in and
// have it back without end would cost the operator the fee each time.
func Check(text string) (string, error) {
	switch text {
	case "":
		return ByOperator, nil
	case AtOnce, ByOperator:
		return text, nil
	}
	return "", fmt.Errorf("refunds %q: expected %s or %s", text, AtOnce, ByOperator)
}

// Order is a refund of a part of a payment.
type Order struct {
	Ledger string // its id
	Payout string // the payout that asks for the refund
	Intent string // Stripe's id of the payment
	Minor  int64  // in the currency's smallest unit
}

// Make makes a refund, or returns the one that was made for this payout before. Stripe knows the payout by an idempotency key, which it forgets
// after a day; so the refunds of the payment are looked at first. The error is a [cashier.Declined] if Stripe has made none.
func Make(ctx context.Context, client *stripe.Client, o Order) (*stripe.Refund, error) {
	for made, err := range client.V1Refunds.List(ctx, &stripe.RefundListParams{PaymentIntent: stripe.String(o.Intent)}).All(ctx) {
		if err != nil {
			return nil, fmt.Errorf("looking for a refund: %w", told(err))
		}
		if PayoutOf(made, o.Ledger) == o.Payout {
			return made, nil
		}
	}
	params := &stripe.RefundCreateParams{
		PaymentIntent: stripe.String(o.Intent), Amount: stripe.Int64(o.Minor), Reason: stripe.String(string(stripe.RefundReasonRequestedByCustomer)),
		Metadata: map[string]string{metaLedger: o.Ledger, metaPayout: o.Payout},
	}
	params.SetIdempotencyKey("tallygate-" + o.Payout)
	made, err := client.V1Refunds.Create(ctx, params)
	if err != nil {
		return nil, answered(err)
	}
	return made, nil
}

// PayoutOf returns the payout for which a refund was made; empty if it was made for none of this ledger's.
func PayoutOf(made *stripe.Refund, ledgerID string) string {
	if made.Metadata[metaLedger] != ledgerID {
		return ""
	}
	return made.Metadata[metaPayout]
}

// Failed reports whether a refund's money has come back to the operator, or never went.
func Failed(made *stripe.Refund) bool {
	return made.Status == stripe.RefundStatusFailed || made.Status == stripe.RefundStatusCanceled
}

// answered makes a [cashier.Declined] of an answer that says that nothing was refunded. An idempotency key that is in use, or was used with other
// parameters, says nothing about that.
func answered(err error) error {
	var answer *stripe.Error
	if errors.As(err, &answer) && answer.Type != stripe.ErrorTypeIdempotency &&
		slices.Contains([]int{http.StatusBadRequest, http.StatusPaymentRequired, http.StatusNotFound}, answer.HTTPStatusCode) {
		return &cashier.Declined{Why: strings.TrimSpace(answer.Msg)}
	}
	return told(err)
}

// told returns an error of Stripe without what Stripe has sent along, which may have secrets in it.
func told(err error) error {
	var answer *stripe.Error
	if !errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("stripe answers with status %d (%s): %.200s", answer.HTTPStatusCode, answer.Type, answer.Msg)
}
