package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Delivery is an event on its way to a webhook. It is in the ledger from the operation that caused it until the webhook has taken
// it, so each is delivered at least once.
type Delivery struct {
	ID       string    `cbor:"1,keyasint"` // the same at each attempt
	Agent    string    `cbor:"2,keyasint"`
	Webhook  string    `cbor:"3,keyasint"`
	Event    Event     `cbor:"4,keyasint"`
	Attempts int       `cbor:"5,keyasint,omitempty"` // that failed
	Next     time.Time `cbor:"6,keyasint"`           // when it is tried again
}

// backoff is how long to wait after so many failed attempts; the last holds for all further ones. A sink that is down loses nothing.
var backoff = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour,
}

// wakeOutbox tells whoever delivers that there is something new.
func (p *process) wakeOutbox() {
	select {
	case p.outbox <- struct{}{}:
	default:
	}
}

// DeliveriesOf is how many deliveries of one agent may be attempted at once. Webhooks that take long to answer keep no other agent's
// waiting.
const DeliveriesOf = 4

// Deliveries returns what is to be delivered now, of each agent the first few, and when to look again (zero: none waits). Those of agents
// whom skip is true for are left out.
func (b *Book) Deliveries(ctx context.Context, limit int, skip func(agent string) bool) (due []Delivery, next time.Time, err error) {
	now := b.Now()
	err = b.view(func(r ledger.Reader) error {
		var agents []string
		err := outboxTurns.each(r, func(agent string, at time.Time) bool {
			if at.After(now) {
				next = at
				return false
			}
			if !skip(agent) {
				agents = append(agents, agent)
			}
			return len(agents) < limit
		})
		for _, agent := range agents {
			if err == nil {
				due, err = b.deliveriesOf(r, agent, now, due)
			}
		}
		return err
	})
	return due, next, err
}

func (b *Book) deliveriesOf(r ledger.Reader, agent string, now time.Time, due []Delivery) ([]Delivery, error) {
	n := 0
	err := r.Scan(outboxTable.under(agent), func(key, value []byte) (bool, error) {
		var d Delivery
		if err := decode(key, value, &d); err != nil || d.Next.After(now) {
			return false, err
		}
		due = append(due, d)
		n++
		return n < DeliveriesOf, nil
	})
	return due, err
}

// Webhook is the webhook of a delivery; false where it is gone.
func (b *Book) Webhook(d Delivery) (h Webhook, found bool, err error) {
	err = b.view(func(r ledger.Reader) error {
		found, err = load(r, webhookTable.key(d.Agent, d.Webhook), &h)
		return err
	})
	return h, found, err
}

// OutboxChanged receives when there is something new to deliver.
func (b *Book) OutboxChanged() <-chan struct{} { return b.process.outbox }

func (d Delivery) key() []byte { return outboxTurns.key(d.Agent, d.Next, d.ID) }

func (t *Tx) putDelivery(d Delivery) error {
	if err := t.put(d.key(), d); err != nil {
		return err
	}
	return outboxTurns.by(t, d.Agent, d.Next)
}

// Delivered takes a delivery out of the outbox.
func (t *Tx) Delivered(d Delivery) error {
	t.ledger.Delete(d.key())
	return outboxTurns.next(t, d.Agent)
}

// DeliveryFailed puts a delivery off, for longer each time.
func (t *Tx) DeliveryFailed(d Delivery) error {
	if value, err := t.ledger.Get(d.key()); err != nil || value == nil { // another worker has seen to it
		return err
	}
	t.ledger.Delete(d.key())
	d.Next = t.Now().Add(backoff[min(d.Attempts, len(backoff)-1)])
	d.Attempts++
	if err := t.putDelivery(d); err != nil {
		return err
	}
	return outboxTurns.next(t, d.Agent)
}

// WebhookGone removes the webhook of a delivery that it has answered with "gone", and with it all that waits for it.
func (t *Tx) WebhookGone(d Delivery) error {
	t.ledger.Delete(webhookTable.key(d.Agent, d.Webhook))
	return t.Delivered(d)
}
