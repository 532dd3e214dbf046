package stripe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	stripe "github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// subject is what is read of the object of an event. It has the same form in all versions of Stripe's API.
type subject struct {
	ID            string          `json:"id"`
	Object        string          `json:"object"`
	PaymentIntent json.RawMessage `json:"payment_intent"` // its id, or the whole
}

// intent returns the id of the payment that an event is about, or "".
func (s subject) intent() string {
	if s.Object == "payment_intent" {
		return s.ID
	}
	if id, is := stripe.ParseID(s.PaymentIntent); is {
		return id
	}
	var whole struct{ ID string }
	_ = json.Unmarshal(s.PaymentIntent, &whole) // an event without a payment is about something else
	return whole.ID
}

// Read implements [cashier.Service].
func (c *Cashier) Read(ctx context.Context, header http.Header, body []byte) (facts cashier.Facts, err error) {
	event, err := webhook.ConstructEventWithOptions(body, header.Get("Stripe-Signature"), c.WebhookSecret, webhook.ConstructEventOptions{IgnoreAPIVersionMismatch: true})
	if err != nil {
		return facts, &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: "the message is not signed by Stripe with this endpoint's secret, or is too old"}
	}
	var about subject
	if event.Data == nil || json.Unmarshal(event.Data.Raw, &about) != nil {
		return facts, &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: "the event has no object", Fields: map[string]string{"field": "data"}}
	}
	id := about.intent()
	if id == "" || !c.wants(about.Object) {
		return facts, nil
	}
	intent, err := c.client.V1PaymentIntents.Retrieve(ctx, id, nil)
	if err != nil {
		return facts, unknown(err)
	}
	if err := c.addIntent(&facts, intent); err != nil || len(facts.Payments) == 0 {
		return facts, err
	}
	if about.Object == "checkout.session" || about.Object == "payment_intent" {
		return facts, nil
	}
	if err := c.addTakenBack(ctx, &facts, id, facts.Payments[0].Ledger); err != nil {
		return facts, err
	}
	if about.Object == "dispute" {
		return facts, c.addDisputeOf(&facts, event, id)
	}
	return facts, nil
}

// wants reports whether events about a kind of object are booked.
func (*Cashier) wants(object string) bool {
	switch object {
	case "checkout.session", "payment_intent", "charge", "refund", "dispute":
		return true
	}
	return false
}

// unknown makes sure that an error is no decision: a message that can't be understood now is sent again.
func unknown(err error) error {
	err = answered(err)
	if declined, is := err.(*cashier.Declined); is {
		return fmt.Errorf("stripe does not tell of a payment: %s", declined.Why)
	}
	return err
}

// addIntent adds a payment to the facts, if it was made for a wallet and is decided.
func (c *Cashier) addIntent(facts *cashier.Facts, intent *stripe.PaymentIntent) error {
	meta := intent.Metadata
	if meta[metaLedger] == "" || meta[metaAgent] == "" {
		return nil
	}
	switch intent.Status {
	case stripe.PaymentIntentStatusSucceeded:
	case stripe.PaymentIntentStatusRequiresPaymentMethod, stripe.PaymentIntentStatusRequiresAction, stripe.PaymentIntentStatusCanceled:
		if meta[metaOrder] != "" {
			why := "the payment was not made"
			if intent.LastPaymentError != nil {
				why = reason(intent.LastPaymentError)
			}
			facts.Unpaid = append(facts.Unpaid, cashier.Unpaid{Ledger: meta[metaLedger], Agent: meta[metaAgent], Order: meta[metaOrder], Why: why})
		}
		return nil
	default:
		return nil
	}
	amount, err := c.booked(intent.AmountReceived, intent.Currency)
	if err != nil {
		return fmt.Errorf("payment %s: %w", intent.ID, err)
	}
	p := cashier.Payment{
		RailPayment: escrow.RailPayment{Rail: c.Name(), ID: intent.ID, Agent: meta[metaAgent], Amount: amount},
		Ledger:      meta[metaLedger], Order: meta[metaOrder],
	}
	if intent.LatestCharge != nil {
		p.Outside = intent.LatestCharge.ID
	}
	if intent.SetupFutureUsage == stripe.PaymentIntentSetupFutureUsageOffSession && intent.Customer != nil && intent.PaymentMethod != nil {
		p.Method = intent.Customer.ID + "/" + intent.PaymentMethod.ID
	}
	facts.Payments = append(facts.Payments, p)
	return nil
}

// booked returns an amount of Stripe as the ledger's.
func (c *Cashier) booked(minor int64, currency stripe.Currency) (ledger.Amount, error) {
	if !strings.EqualFold(string(currency), c.Currency) {
		return 0, fmt.Errorf("it is in %s, and the config says currency %s", currency, c.Currency)
	}
	return c.money.amount(minor)
}

// addTakenBack adds all that went back of a payment for a ledger.
func (c *Cashier) addTakenBack(ctx context.Context, facts *cashier.Facts, intent, ledgerID string) error {
	for refund, err := range c.client.V1Refunds.List(ctx, &stripe.RefundListParams{PaymentIntent: stripe.String(intent)}).All(ctx) {
		if err != nil {
			return unknown(err)
		}
		back, err := c.backOf(refund, intent, ledgerID)
		if err != nil {
			return err
		}
		facts.TakenBack = append(facts.TakenBack, back)
	}
	for dispute, err := range c.client.V1Disputes.List(ctx, &stripe.DisputeListParams{PaymentIntent: stripe.String(intent)}).All(ctx) {
		if err != nil {
			return unknown(err)
		}
		if err := c.addDispute(facts, dispute, intent, false, false); err != nil {
			return err
		}
	}
	return nil
}

// addDisputeOf adds the dispute of an event about it, for what the event alone says: that money was withdrawn, or came again.
func (c *Cashier) addDisputeOf(facts *cashier.Facts, event stripe.Event, intent string) error {
	var dispute stripe.Dispute
	if err := json.Unmarshal(event.Data.Raw, &dispute); err != nil {
		return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: "the event's dispute can't be read", Fields: map[string]string{"field": "data"}}
	}
	again := event.Type == stripe.EventTypeChargeDisputeFundsReinstated
	return c.addDispute(facts, &dispute, intent, again || event.Type == stripe.EventTypeChargeDisputeFundsWithdrawn, again)
}

// addDispute adds what a dispute has moved. The balance transactions say how much that was; those in another currency, in which the operator
// is paid, only say that all of it was moved. Without any, withdrawn and reinstated say it.
func (c *Cashier) addDispute(facts *cashier.Facts, dispute *stripe.Dispute, intent string, withdrawn, reinstated bool) error {
	var taken, returned int64
	for _, moved := range dispute.BalanceTransactions {
		amount := moved.Amount
		if moved.Currency != dispute.Currency && amount != 0 {
			amount = dispute.Amount * (amount / max(amount, -amount))
		}
		if amount < 0 {
			taken -= amount
		} else {
			returned += amount
		}
	}
	if taken == 0 && (withdrawn || returned > 0) {
		taken = max(dispute.Amount, returned)
	}
	if returned == 0 && reinstated {
		returned = taken
	}
	if taken == 0 {
		return nil // a question of the bank, for which nothing was withdrawn
	}
	back := escrow.TakenBack{Rail: c.Name(), ID: dispute.ID, Payment: intent, Why: "dispute"}
	var err error
	if back.Taken, err = c.booked(taken, dispute.Currency); err == nil {
		back.Returned, err = c.booked(min(returned, taken), dispute.Currency)
	}
	if err != nil {
		return fmt.Errorf("dispute %s: %w", dispute.ID, err)
	}
	facts.TakenBack = append(facts.TakenBack, back)
	return nil
}
