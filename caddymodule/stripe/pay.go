package stripe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	stripe "github.com/stripe/stripe-go/v85"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
)

// What a payment at Stripe has in its metadata: for which wallet it is, of which ledger, and for which order of an automatic top-up.
const (
	metaLedger = "tallygate_ledger"
	metaAgent  = "tallygate_agent"
	metaOrder  = "tallygate_order"
)

// Page implements [cashier.Service]: it makes a page of Stripe Checkout.
func (c *Cashier) Page(ctx context.Context, o cashier.Order) (cashier.Page, error) {
	if o.Amount < c.min || o.Amount > c.max {
		return cashier.Page{}, badAmount("amount %s: from %s to %s can be paid at once", o.Amount, c.min, c.max)
	}
	minor, err := c.money.minor(o.Amount)
	if err != nil {
		return cashier.Page{}, badAmount("amount: %v", err)
	}
	about := map[string]string{metaLedger: o.Ledger, metaAgent: o.Agent}
	what := "Prepaid credit of " + o.Agent
	params := &stripe.CheckoutSessionCreateParams{
		Mode: stripe.String(string(stripe.CheckoutSessionModePayment)), SuccessURL: stripe.String(c.SuccessURL), CancelURL: stripe.String(c.CancelURL),
		ClientReferenceID: stripe.String(o.Agent), Metadata: about,
		LineItems: []*stripe.CheckoutSessionCreateLineItemParams{{
			Quantity: stripe.Int64(1),
			PriceData: &stripe.CheckoutSessionCreateLineItemPriceDataParams{
				Currency: stripe.String(c.Currency), UnitAmount: stripe.Int64(minor),
				ProductData: &stripe.CheckoutSessionCreateLineItemPriceDataProductDataParams{Name: stripe.String(what)},
			},
		}},
		PaymentIntentData: &stripe.CheckoutSessionCreatePaymentIntentDataParams{Metadata: about, Description: stripe.String(what)},
		// The amount must be what the wallet gets, so nobody pays in another currency.
		AdaptivePricing: &stripe.CheckoutSessionCreateAdaptivePricingParams{Enabled: stripe.Bool(false)},
	}
	if o.Save {
		params.CustomerCreation = stripe.String(string(stripe.CheckoutSessionCustomerCreationAlways))
		params.PaymentIntentData.SetupFutureUsage = stripe.String(string(stripe.PaymentIntentSetupFutureUsageOffSession))
	}
	if o.Key != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%v\x00%s", o.Ledger, o.Agent, minor, o.Save, o.Key))
		params.IdempotencyKey = stripe.String("tallygate-" + hex.EncodeToString(sum[:16]))
	}
	session, err := c.client.V1CheckoutSessions.Create(ctx, params)
	if err != nil {
		return cashier.Page{}, answered(err)
	}
	return cashier.Page{ID: session.ID, URL: session.URL, ExpiresAt: time.Unix(session.ExpiresAt, 0).UTC()}, nil
}

func badAmount(format string, args ...any) error {
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"field": "amount"}}
}

// Charge implements [cashier.Service]: it pays an order without a person, with the payment method that was saved. Stripe knows the order by
// its idempotency key.
func (c *Cashier) Charge(ctx context.Context, ledgerID string, a escrow.AutoTopUp) (facts cashier.Facts, err error) {
	customer, method, found := strings.Cut(a.Method, "/")
	minor, err := c.money.minor(a.Asked)
	if err == nil && (a.Asked < c.min || a.Asked > c.max) {
		err = fmt.Errorf("from %s to %s can be paid at once", c.min, c.max)
	}
	if err == nil && (!found || a.Rail != c.Name()) {
		err = errors.New("the payment method was saved by another service")
	}
	if err != nil {
		return facts, &cashier.Declined{Why: err.Error()}
	}
	params := &stripe.PaymentIntentCreateParams{
		Amount: stripe.Int64(minor), Currency: stripe.String(c.Currency), Customer: stripe.String(customer), PaymentMethod: stripe.String(method),
		Confirm: stripe.Bool(true), OffSession: stripe.Bool(true), Description: stripe.String("Prepaid credit of " + a.Agent + ", topped up automatically"),
		Metadata: map[string]string{metaLedger: ledgerID, metaAgent: a.Agent, metaOrder: a.Order},
		AutomaticPaymentMethods: &stripe.PaymentIntentCreateAutomaticPaymentMethodsParams{
			Enabled: stripe.Bool(true), AllowRedirects: stripe.String(string(stripe.PaymentIntentAutomaticPaymentMethodsAllowRedirectsNever)),
		},
	}
	params.IdempotencyKey = stripe.String("tallygate-" + a.Order)
	intent, err := c.client.V1PaymentIntents.Create(ctx, params)
	if err == nil && intent.Status == stripe.PaymentIntentStatusProcessing { // the answer to a repetition is the first one, so it may be old
		intent, err = c.client.V1PaymentIntents.Retrieve(ctx, intent.ID, nil)
	}
	if err != nil {
		return facts, answered(err)
	}
	return facts, c.addIntent(&facts, intent)
}

var accountForm = regexp.MustCompile(`^acct_[A-Za-z0-9]{1,60}$`)

// Send implements [cashier.Service]: it transfers a payout to a connected account. Before it makes a transfer, it looks for one that was made
// before, since Stripe forgets idempotency keys after a day.
func (c *Cashier) Send(ctx context.Context, p escrow.Payout) (string, error) {
	if !accountForm.MatchString(p.To) {
		return "", &cashier.Declined{Why: fmt.Sprintf("the payout should go to %.80q, which is no account of Stripe Connect, such as acct_1AbC", p.To)}
	}
	minor, err := c.money.minor(p.Amount)
	if err != nil {
		return "", &cashier.Declined{Why: err.Error()}
	}
	before := c.client.V1Transfers.List(ctx, &stripe.TransferListParams{TransferGroup: stripe.String(p.ID)})
	if err := before.Err(); err != nil {
		return "", unknown(err)
	}
	if made := before.Data(); len(made) > 0 {
		return made[0].ID, nil
	}
	params := &stripe.TransferCreateParams{
		Amount: stripe.Int64(minor), Currency: stripe.String(c.Currency), Destination: stripe.String(p.To), TransferGroup: stripe.String(p.ID),
		Metadata: map[string]string{metaAgent: p.Agent},
	}
	params.IdempotencyKey = stripe.String("tallygate-" + p.ID)
	transfer, err := c.client.V1Transfers.Create(ctx, params)
	if err != nil {
		return "", answered(err)
	}
	return transfer.ID, nil
}

// answered makes a [cashier.Declined] of an answer by which Stripe has refused a payment for good. Other errors are told without what Stripe
// has sent along, which may have secrets in it.
func answered(err error) error {
	var answer *stripe.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.HTTPStatusCode {
	case http.StatusBadRequest, http.StatusPaymentRequired, http.StatusNotFound:
		return &cashier.Declined{Why: reason(answer)}
	default:
		return fmt.Errorf("stripe answers with status %d (%s): %s", answer.HTTPStatusCode, answer.Type, answer.Msg)
	}
}

// reason returns what Stripe says about a payment that was not made.
func reason(answer *stripe.Error) string {
	return strings.TrimSpace(answer.Msg + " " + string(answer.DeclineCode))
}
