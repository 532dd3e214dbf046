package escrow

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Sent is a message to a webhook that was sent at least once, with the result of the last attempt.
type Sent struct {
	ID        string    `cbor:"1,keyasint"`
	Event     Event     `cbor:"2,keyasint"`
	Attempts  int       `cbor:"3,keyasint"`
	At        time.Time `cbor:"4,keyasint"` // of the last attempt
	Last      Attempt   `cbor:"5,keyasint"`
	Delivered bool      `cbor:"6,keyasint,omitempty"`
}

// maxSent is how many messages the log of a webhook has. Older ones are forgotten.
const maxSent = 100

// logSent writes an attempt at a delivery into the log of its webhook.
func (t *Tx) logSent(d Delivery, a Attempt, delivered bool) error {
	err := t.put(sentTable.key(d.Agent, d.Webhook, d.ID), Sent{ID: d.ID, Event: d.Event, Attempts: d.Attempts + 1, At: t.Now(), Last: a, Delivered: delivered})
	if err != nil {
		return err
	}
	all := sentTable.under(d.Agent, d.Webhook)
	all.Reverse = true
	return t.deleteAfter(all, maxSent)
}

// deleteAfter deletes the records of a range but for the first few.
func (t *Tx) deleteAfter(all ledger.Range, keep int) error {
	var old [][]byte
	seen := 0
	err := t.ledger.Scan(all, func(key, _ []byte) (bool, error) {
		if seen++; seen > keep {
			old = append(old, slices.Clone(key))
		}
		return true, nil
	})
	for _, key := range old {
		t.ledger.Delete(key)
	}
	return err
}

// SentTo returns the last messages to a webhook, the newest first.
func (b *Book) SentTo(agent, webhook string, p Page) (sent []Sent, next string, err error) {
	l := list[Sent]{table: sentTable, parts: []string{agent, webhook}, item: func(_ ledger.Reader, id string, value []byte) (s Sent, wanted bool, err error) {
		err = decode(sentTable.key(agent, webhook, id), value, &s)
		return s, true, err
	}}
	err = b.view(func(r ledger.Reader) error {
		var h Webhook
		if len(webhook) > maxID {
			return noWebhook(webhook)
		}
		if found, err := load(r, webhookTable.key(agent, webhook), &h); err != nil {
			return err
		} else if !found {
			return noWebhook(webhook)
		}
		sent, next, err = l.page(r, p)
		return err
	})
	return sent, next, err
}

// TestWebhook sends a message of the type [WebhookTest]. It returns the message's id.
func (t *Tx) TestWebhook(by Actor, agent, id string) (message string, err error) {
	h, err := t.webhook(by, agent, id)
	if err != nil {
		return "", err
	}
	if err := t.audit(by, "webhook.test", h.Agent, id); err != nil {
		return "", err
	}
	message = t.process.ids.next("msg_", t.Now())
	return message, t.send(h, message, Event{Type: WebhookTest, At: t.Now()})
}

// Resend sends a message again that is in the webhook's log, with its old id. If it still waits for its next attempt, nothing is sent twice: it
// is refused.
func (t *Tx) Resend(by Actor, agent, id, message string) error {
	h, err := t.webhook(by, agent, id)
	if err != nil {
		return err
	}
	var s Sent
	if len(message) > maxID {
		return noMessage(message)
	}
	if found, err := load(t.ledger, sentTable.key(h.Agent, id, message), &s); err != nil {
		return err
	} else if !found {
		return noMessage(message)
	}
	if !s.Delivered {
		return refuse(InvalidStatus, nil, "the message waits for its next attempt already")
	}
	if err := t.audit(by, "webhook.resend", h.Agent, message); err != nil {
		return err
	}
	s.Delivered = false
	if err := t.put(sentTable.key(h.Agent, id, message), s); err != nil {
		return err
	}
	return t.send(h, message, s.Event)
}

func noMessage(id string) error {
	return refuse(NotFound, nil, "no message %.80q among the last %d to this webhook", id, maxSent)
}
