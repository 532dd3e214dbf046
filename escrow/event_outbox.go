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

// Deliveries returns some of what is to be delivered now, with the webhooks, and when the next one is to be (zero: none waits).
// Those whose webhook is gone come with a zero Webhook, to be dropped by [Tx.Delivered].
func (b *Book) Deliveries(ctx context.Context, limit int) (due []Delivery, hooks []Webhook, next time.Time, err error) {
	now := b.Now()
	err = b.view(func(r ledger.Reader) error {
		return r.Scan(outboxTable.under(), func(key, value []byte) (bool, error) {
			var d Delivery
			if err := decode(key, value, &d); err != nil {
				return false, err
			}
			if d.Next.After(now) || len(due) == limit {
				next = d.Next
				return false, nil
			}
			var h Webhook
			if _, err := load(r, webhookTable.key(d.Agent, d.Webhook), &h); err != nil {
				return false, err
			}
			due, hooks = append(due, d), append(hooks, h)
			return true, nil
		})
	})
	return due, hooks, next, err
}

// OutboxChanged receives when there is something new to deliver.
func (b *Book) OutboxChanged() <-chan struct{} { return b.process.outbox }

// Delivered takes a delivery out of the outbox.
func (t *Tx) Delivered(d Delivery) error {
	t.ledger.Delete(outboxTable.key(timeKey(d.Next) + d.ID))
	return nil
}

// DeliveryFailed puts a delivery off, for longer each time.
func (t *Tx) DeliveryFailed(d Delivery) error {
	key := outboxTable.key(timeKey(d.Next) + d.ID)
	if value, err := t.ledger.Get(key); err != nil || value == nil { // another worker has seen to it
		return err
	}
	t.ledger.Delete(key)
	d.Next = t.Now().Add(backoff[min(d.Attempts, len(backoff)-1)])
	d.Attempts++
	return t.put(outboxTable.key(timeKey(d.Next)+d.ID), d)
}

// WebhookGone removes the webhook of a delivery that it has answered with "gone", and with it all that waits for it.
func (t *Tx) WebhookGone(d Delivery) error {
	t.ledger.Delete(webhookTable.key(d.Agent, d.Webhook))
	return t.Delivered(d)
}
