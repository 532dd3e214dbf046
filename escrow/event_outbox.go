package escrow

import (
	"context"
	"errors"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Delivery is an event on its way to a webhook. The operation that caused the event writes it to the ledger, and it stays there until the
// webhook has accepted it. So each event is delivered at least once.
type Delivery struct {
	ID       string    `cbor:"1,keyasint"` // the same at each attempt
	Agent    string    `cbor:"2,keyasint"`
	Webhook  string    `cbor:"3,keyasint"`
	Event    Event     `cbor:"4,keyasint"`
	Attempts int       `cbor:"5,keyasint,omitempty"` // failed attempts
	Next     time.Time `cbor:"6,keyasint"`           // when it is tried again
}

// Attempt is the result of sending a message to a webhook.
type Attempt struct {
	Status int    `cbor:"1,keyasint,omitempty"` // of HTTP; 0: there was no answer
	Error  string `cbor:"2,keyasint,omitempty"` // why there was none
}

// backoff is how long to wait after each failed attempt. The last value applies to all further attempts. A webhook that is down loses
// nothing until [maxWaiting] messages wait for it.
var backoff = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour,
}

// wakeOutbox tells the worker that there is something new to deliver.
func (p *process) wakeOutbox() {
	select {
	case p.outbox <- struct{}{}:
	default:
	}
}

// DeliveriesOf is how many deliveries of one agent may be attempted at once, so that slow webhooks of one agent do not delay those of other
// agents.
const DeliveriesOf = 4

// Deliveries returns the deliveries that are due: a few of each agent, for the agents whose turn comes first. It leaves out deliveries for
// which running returns true; an agent that has no others is skipped. next is the time to look again: zero if nothing waits, and now if
// everything that waits was left out.
func (b *Book) Deliveries(ctx context.Context, agents int, running func(Delivery) bool) (due []Delivery, next time.Time, err error) {
	now := b.Now()
	err = b.view(func(r ledger.Reader) error {
		var failed error
		err := outboxTurns.each(r, func(agent string, at time.Time) bool {
			if at.After(now) {
				if next.IsZero() {
					next = at
				}
				return false
			}
			next = now
			before := len(due)
			if due, failed = b.deliveriesOf(r, agent, now, running, due); len(due) > before {
				agents--
			}
			return agents > 0 && failed == nil
		})
		return errors.Join(err, failed)
	})
	return due, next, err
}

func (b *Book) deliveriesOf(r ledger.Reader, agent string, now time.Time, running func(Delivery) bool, due []Delivery) ([]Delivery, error) {
	n := 0
	err := r.Scan(outboxTable.under(agent), func(key, value []byte) (bool, error) {
		var d Delivery
		if err := decode(key, value, &d); err != nil || d.Next.After(now) {
			return false, err
		}
		if !running(d) {
			due = append(due, d)
		}
		n++
		return n < DeliveriesOf, nil
	})
	return due, err
}

// Waits returns 1 if a delivery still waits for its next attempt, and 0 if it was sent meanwhile, or put off.
func (d Delivery) Waits(r ledger.Reader) (int64, error) {
	value, err := r.Get(d.key())
	if err != nil || value == nil {
		return 0, err
	}
	return 1, nil
}

// Webhook returns the webhook of a delivery, or false if it was deleted.
func (b *Book) Webhook(d Delivery) (h Webhook, found bool, err error) {
	err = b.view(func(r ledger.Reader) error {
		found, err = load(r, webhookTable.key(d.Agent, d.Webhook), &h)
		return err
	})
	return h, found, err
}

// OutboxChanged returns a channel that receives a value when there is something new to deliver.
func (b *Book) OutboxChanged() <-chan struct{} { return b.process.outbox }

func (d Delivery) key() []byte { return outboxTurns.key(d.Agent, d.Next, d.ID) }

func (t *Tx) putDelivery(d Delivery) error {
	if err := t.put(d.key(), d); err != nil {
		return err
	}
	return outboxTurns.by(t, d.Agent, d.Next)
}

// maxWaiting is how many messages may wait for one webhook. Of those about the same two parties no more may wait than there is room left for others,
// so that nobody who makes many events keeps a webhook from hearing of others.
const maxWaiting = 10_000

// enqueue puts a message for a webhook into the outbox.
func (t *Tx) enqueue(h Webhook, event Event) error {
	return t.send(h, t.process.ids.next("msg_", t.Now()), event)
}

// send puts a message with an id into the outbox. If too many wait already, the message is lost, and the webhook's Lost counts it.
func (t *Tx) send(h Webhook, id string, event Event) error {
	waiting, err := t.countWaiting(h.Agent, h.ID, event, 1)
	if err != nil {
		return err
	}
	if waiting > maxWaiting {
		if _, err := t.countWaiting(h.Agent, h.ID, event, -1); err != nil {
			return err
		}
		h.Lost, h.LostAt = h.Lost+1, t.Now()
		return t.put(webhookTable.key(h.Agent, h.ID), h)
	}
	t.ledger.OnCommit(t.process.wakeOutbox)
	return t.putDelivery(Delivery{ID: id, Agent: h.Agent, Webhook: h.ID, Event: event, Next: t.Now()})
}

// countWaiting counts the messages that wait for a webhook. An event of two parties counts once more for those that wait about the same two.
func (t *Tx) countWaiting(agent, webhook string, event Event, by int64) (waiting int64, err error) {
	if waiting, err = t.addWaiting(outboxCount.key(agent, webhook), by); err != nil {
		return 0, err
	}
	payer, payee := event.parties()
	if payer == "" && payee == "" {
		return waiting, nil
	}
	about, err := t.addWaiting(outboxCount.key(agent, webhook, payer, payee), by)
	return waiting + max(0, about-1), err
}

func (t *Tx) addWaiting(key []byte, by int64) (waiting int64, err error) {
	if _, err := load(t.ledger, key, &waiting); err != nil {
		return 0, err
	}
	if waiting += by; waiting <= 0 {
		t.ledger.Delete(key)
		return 0, nil
	}
	return waiting, t.put(key, waiting)
}

// taken removes a delivery from the outbox. It returns false if another worker has done that already.
func (t *Tx) taken(d Delivery) (found bool, err error) {
	if value, err := t.ledger.Get(d.key()); err != nil || value == nil {
		return false, err
	}
	t.ledger.Delete(d.key())
	return true, nil
}

// Delivered removes a delivery that the webhook has accepted from the outbox.
func (t *Tx) Delivered(d Delivery, a Attempt) error {
	if found, err := t.taken(d); err != nil || !found {
		return err
	}
	if err := t.logSent(d, a, true); err != nil {
		return err
	}
	return t.dropped(d)
}

// DeliveryFailed postpones a delivery, longer after each failure.
func (t *Tx) DeliveryFailed(d Delivery, a Attempt) error {
	if found, err := t.taken(d); err != nil || !found {
		return err
	}
	if err := t.logSent(d, a, false); err != nil {
		return err
	}
	d.Next = t.Now().Add(backoff[min(d.Attempts, len(backoff)-1)])
	d.Attempts++
	if err := t.putDelivery(d); err != nil {
		return err
	}
	return outboxTurns.next(t, d.Agent)
}

// WebhookGone removes a webhook that has answered a delivery with 410 Gone, and all messages that wait for it.
func (t *Tx) WebhookGone(d Delivery, _ Attempt) error {
	if err := t.deleteWebhook(Webhook{Agent: d.Agent, ID: d.Webhook}); err != nil {
		return err
	}
	return t.DeliveryDropped(d, Attempt{})
}

// DeliveryDropped removes a delivery whose webhook was deleted from the outbox.
func (t *Tx) DeliveryDropped(d Delivery, _ Attempt) error {
	if found, err := t.taken(d); err != nil || !found {
		return err
	}
	return t.dropped(d)
}

// dropped counts that a delivery has left the outbox.
func (t *Tx) dropped(d Delivery) error {
	if _, err := t.countWaiting(d.Agent, d.Webhook, d.Event, -1); err != nil {
		return err
	}
	return outboxTurns.next(t, d.Agent)
}
