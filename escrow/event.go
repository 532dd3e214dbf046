package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// EventType is the type of an event, which is sent to webhooks.
type EventType string

// The events.
const (
	EscrowCreated         EventType = "escrow.created"
	EscrowReleased        EventType = "escrow.released" // wholly or in part, by someone or by the clock
	EscrowRefunded        EventType = "escrow.refunded"
	EscrowRefundRequested EventType = "escrow.refund_requested"
	EscrowRefundWithdrawn EventType = "escrow.refund_withdrawn"
	EscrowDisputed        EventType = "escrow.disputed"
	EscrowResolved        EventType = "escrow.resolved"
	EscrowExpiring        EventType = "escrow.expiring" // its time is nearly up
	MilestoneWasDelivered EventType = "milestone.delivered"
	HoldOpened            EventType = "hold.opened"
	HoldCaptured          EventType = "hold.captured"    // a part of it, or all
	HoldReturned          EventType = "hold.returned"    // what was left of it, to the payer
	HoldExpiring          EventType = "hold.expiring"    // its time is nearly up
	ChargeWithheld        EventType = "charge.withheld"  // an answer did not go out, since its whole price could not be charged
	ChargeUnpriced        EventType = "charge.unpriced"  // a call has used something that has no price, and was charged nothing
	ChargeDisputed        EventType = "charge.disputed"  // by its payer
	ChargeResolved        EventType = "charge.resolved"  // the operator has decided a dispute, or it ended otherwise
	ChargeCreated         EventType = "charge.created"   // a call was charged; only for webhooks that name this event
	ChargeSuspect         EventType = "charge.suspect"   // a call was charged less than it should cost, since its usage was absurd or the money ran out
	ChargesHourly         EventType = "charges.hourly"   // the sums of an hour; only for webhooks that name this event
	BalanceLow            EventType = "balance.low"      // a wallet fell below what its webhook has set
	LimitReached          EventType = "limit.reached"    // 50, 80, 90 or 100 percent of a limit are spent
	SpendUnusual          EventType = "spend.unusual"    // an agent spends much more than it used to
	LedgerReadOnly        EventType = "ledger.read_only" // the ledger accepts no money; only the operator is told
	WebhookTest           EventType = "webhook.test"     // sent on request, to try the webhook

	PaymentTakenBack EventType = "payment.taken_back" // a refund or a dispute took a deposit back, or that came again
	TopUpFailed      EventType = "top_up.failed"      // an automatic top-up was not paid, and is off
	PayoutRequested  EventType = "payout.requested"
	PayoutPaid       EventType = "payout.paid"
	PayoutRefused    EventType = "payout.refused"

	CreditIssued     EventType = "credit.issued"
	CreditWasRevoked EventType = "credit.revoked"
	CreditHasExpired EventType = "credit.expired"

	SubscriptionStarted   EventType = "subscription.started"
	SubscriptionRenewing  EventType = "subscription.renewing"         // its period is nearly over
	SubscriptionUnfunded  EventType = "subscription.renewal_unfunded" // the same, and the next period can't begin as things stand; only the payer gets this, and the payee gets subscription.renewing
	SubscriptionRenewed   EventType = "subscription.renewed"
	SubscriptionSuspended EventType = "subscription.suspended" // the next period could not be paid
	SubscriptionEnded     EventType = "subscription.ended"
)

// EventTypes are all events, as webhooks may ask for them.
var EventTypes = []EventType{
	EscrowCreated, EscrowReleased, EscrowRefunded, EscrowRefundRequested, EscrowRefundWithdrawn, EscrowDisputed, EscrowResolved,
	EscrowExpiring, MilestoneWasDelivered, HoldOpened, HoldCaptured, HoldReturned, HoldExpiring, ChargeWithheld, ChargeUnpriced, ChargeDisputed, ChargeResolved, ChargeCreated, ChargeSuspect, ChargesHourly, BalanceLow,
	LimitReached, SpendUnusual, LedgerReadOnly, WebhookTest,
	PaymentTakenBack, TopUpFailed, PayoutRequested, PayoutPaid, PayoutRefused,
	CreditIssued, CreditWasRevoked, CreditHasExpired, SubscriptionStarted, SubscriptionRenewing, SubscriptionUnfunded,
	SubscriptionRenewed, SubscriptionSuspended, SubscriptionEnded,
}

// Event is something that happened to an agent's escrow, subscription, call or wallet. One of the pointers is set; it shows the thing as it was
// after the event.
type Event struct {
	Type         EventType      `cbor:"1,keyasint"`
	At           time.Time      `cbor:"2,keyasint"`
	Escrow       *Escrow        `cbor:"3,keyasint,omitempty"`
	Subscription *Subscription  `cbor:"4,keyasint,omitempty"`
	Balance      *BalanceFell   `cbor:"5,keyasint,omitempty"`
	Withheld     *WithheldCall  `cbor:"6,keyasint,omitempty"`
	Unpriced     *UnpricedCall  `cbor:"7,keyasint,omitempty"`
	Credit       *Credit        `cbor:"8,keyasint,omitempty"`
	Charge       *Charge        `cbor:"9,keyasint,omitempty"`
	Hour         *HourOfCharges `cbor:"10,keyasint,omitempty"`
	Limit        *LimitSpent    `cbor:"11,keyasint,omitempty"`
	Spend        *UnusualSpend  `cbor:"12,keyasint,omitempty"`
	Trouble      string         `cbor:"13,keyasint,omitempty"` // why the ledger accepts no money
	TakenBack    *TakenBack     `cbor:"20,keyasint,omitempty"`
	TopUp        *AutoTopUp     `cbor:"21,keyasint,omitempty"`
	Payout       *Payout        `cbor:"22,keyasint,omitempty"`
}

// parties are the two agents between which something has happened, or none.
func (e Event) parties() (payer, payee string) {
	switch {
	case e.Escrow != nil:
		return e.Escrow.From, e.Escrow.To
	case e.Subscription != nil:
		return e.Subscription.Payer, e.Subscription.Payee
	case e.Withheld != nil:
		return e.Withheld.Payer, e.Withheld.Payee
	case e.Unpriced != nil:
		return e.Unpriced.Payer, e.Unpriced.Payee
	case e.Credit != nil:
		return e.Credit.Agent, e.Credit.Payee
	case e.Charge != nil:
		return e.Charge.Payer, e.Charge.Payee
	}
	return "", ""
}

// UnpricedCall is a call that used something that has no price, and was charged nothing.
type UnpricedCall struct {
	Request string            `cbor:"1,keyasint"`
	Payer   string            `cbor:"2,keyasint"`
	Payee   string            `cbor:"3,keyasint"`
	Route   string            `cbor:"4,keyasint,omitempty"`
	Model   string            `cbor:"5,keyasint,omitempty"`
	Units   map[string]string `cbor:"6,keyasint,omitempty"` // that have no price
}

// tellUnpriced tells the payee of a charge of zero for something that has no price. Most likely a price is missing. A price of 0 counts as a price.
func (t *Tx) tellUnpriced(c Charge) error {
	if c.Status != Charged || c.Amount > 0 || c.Price > 0 || c.Cost != "" || c.Plan != "" {
		return nil
	}
	unpriced := map[string]string{}
	for class, quantity := range c.Units {
		if _, priced := c.UnitPrices[class]; !priced && quantity != "0" {
			unpriced[class] = quantity
		}
	}
	if len(unpriced) == 0 {
		return nil
	}
	call := &UnpricedCall{Request: c.RequestID, Payer: c.Payer, Payee: c.Payee, Route: c.Route, Model: c.Model, Units: unpriced}
	return t.tellAll(Event{Type: ChargeUnpriced, At: t.Now(), Unpriced: call}, c.Payee)
}

// WithheldCall is a call whose complete answer did not go out, since its whole price could not be charged.
type WithheldCall struct {
	Request string  `cbor:"1,keyasint"`
	Payer   string  `cbor:"2,keyasint"`
	Payee   string  `cbor:"3,keyasint"`
	Route   string  `cbor:"4,keyasint,omitempty"`
	Reason  Outcome `cbor:"5,keyasint"` // insufficient_funds, limit_exceeded
}

// Withheld tells both parties of a call whose answer was withheld, and writes it into the operator's log.
func (t *Tx) Withheld(c WithheldCall) error {
	event := Event{Type: ChargeWithheld, At: t.Now(), Withheld: &c}
	if err := t.put(sentTable.key(TheOperator, withheldLog, c.Request), event); err != nil {
		return err
	}
	all := sentTable.under(TheOperator, withheldLog)
	all.Reverse = true
	if err := t.deleteAfter(all, maxWithheld); err != nil {
		return err
	}
	t.changed(c.Payer, c.Payee)
	return t.tellAll(event, c.Payer, c.Payee)
}

// withheldLog is in the place of a webhook's id for the log of calls whose answers were withheld. No webhook has this id.
const withheldLog = "withheld"

// maxWithheld is how many calls that log has. Older ones are forgotten.
const maxWithheld = 500

// WithheldCalls returns the last calls whose answers were withheld, as events, newest first.
func (b *Book) WithheldCalls(p Page) (calls []Event, next string, err error) {
	l := list[Event]{table: sentTable, parts: []string{TheOperator, withheldLog}, item: func(_ ledger.Reader, id string, value []byte) (e Event, wanted bool, err error) {
		err = decode(sentTable.key(TheOperator, withheldLog, id), value, &e)
		return e, true, err
	}}
	err = b.view(func(r ledger.Reader) error {
		calls, next, err = l.page(r, p)
		return err
	})
	return calls, next, err
}

// BalanceFell says that a wallet has less than the amount that its agent has set in a webhook.
type BalanceFell struct {
	Agent   string        `cbor:"1,keyasint"`
	Balance ledger.Amount `cbor:"2,keyasint"`
	Below   ledger.Amount `cbor:"3,keyasint"`
}

// holdEvents are the events of holds, by those of other escrows.
var holdEvents = map[EventType]EventType{EscrowCreated: HoldOpened, EscrowReleased: HoldCaptured, EscrowRefunded: HoldReturned, EscrowExpiring: HoldExpiring}

// escrowEvent tells both parties of an escrow.
func (t *Tx) escrowEvent(what EventType, e Escrow) error {
	if e.Kind == KindHold {
		what = holdEvents[what]
	}
	return t.tellAll(Event{Type: what, At: t.Now(), Escrow: &e}, e.From, e.To)
}

// subscriptionEvent tells both parties of a subscription.
func (t *Tx) subscriptionEvent(what EventType, s Subscription) error {
	return t.tellAll(Event{Type: what, At: t.Now(), Subscription: &s}, s.Payer, s.Payee)
}

// TheOperator stands for the operator among the owners of webhooks. A webhook of the operator gets the events of all agents.
const TheOperator = ""

// tellAll tells agents of an event, and the operator.
func (t *Tx) tellAll(event Event, agents ...string) error {
	for _, agent := range append(agents, TheOperator) {
		if err := t.tell(agent, event); err != nil {
			return err
		}
	}
	return nil
}

// tell puts an event into the outbox, for each webhook of the agent that wants it.
func (t *Tx) tell(agent string, event Event) error {
	hooks, err := t.webhooks(agent)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if !h.Wants(event.Type) {
			continue
		}
		if err := t.enqueue(h, event); err != nil {
			return err
		}
	}
	return nil
}

// watch tells an agent if its balance has fallen below the amount that one of its webhooks has set. before is the balance before the transfer.
func (t *Tx) watch(id ledger.AccountID, before ledger.Amount) error {
	agent := accountName(id)
	if id != ledger.Wallet(agent) {
		return nil
	}
	hooks, err := t.webhooks(agent)
	if err != nil || len(hooks) == 0 {
		return err
	}
	acc, err := t.ledger.Account(id)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if h.Below <= before && acc.Balance() < h.Below {
			fell := &BalanceFell{Agent: agent, Balance: acc.Balance(), Below: h.Below}
			return t.tell(agent, Event{Type: BalanceLow, At: t.Now(), Balance: fell})
		}
	}
	return nil
}
