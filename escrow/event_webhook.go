package escrow

import (
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Webhook is a URL to which an agent's events are sent. Messages are signed by the Standard Webhooks convention.
type Webhook struct {
	ID        string        `cbor:"1,keyasint"`
	Agent     string        `cbor:"2,keyasint"` // or [TheOperator]
	URL       string        `cbor:"3,keyasint"`
	Secret    string        `cbor:"4,keyasint"`           // "whsec_" and base64; it signs, so it is kept as it is
	Events    []EventType   `cbor:"5,keyasint,omitempty"` // none: all
	Below     ledger.Amount `cbor:"6,keyasint,omitempty"` // tells when the balance falls below it
	CreatedAt time.Time     `cbor:"7,keyasint"`
	Local     bool          `cbor:"8,keyasint,omitempty"`  // registered from this machine, so it may be at one of this machine's own addresses
	Lost      int64         `cbor:"9,keyasint,omitempty"`  // the number of messages that were not stored, since too many were waiting already
	LostAt    time.Time     `cbor:"10,keyasint,omitempty"` // the time of the last of these messages
	OneIn     int64         `cbor:"11,keyasint,omitempty"` // of so many charges, one is told by charge.created; 0: all
}

// Wants reports whether the webhook is to get events of a type.
func (h Webhook) Wants(what EventType) bool {
	switch what {
	case WebhookTest:
		return true
	case BalanceLow:
		if h.Below == 0 {
			return false
		}
	case LedgerReadOnly:
		if h.Agent != TheOperator {
			return false
		}
	case ChargeCreated, ChargesHourly:
		return slices.Contains(h.Events, what)
	}
	return len(h.Events) == 0 || slices.Contains(h.Events, what)
}

// WebhookOrder describes a new webhook.
type WebhookOrder struct {
	Agent  string // the operator names it; if it names none, the webhook is its own, and gets the events of all agents
	URL    string
	Events []EventType
	Below  ledger.Amount // not for the operator's own
	OneIn  int64
	Local  bool // the caller is on this machine, so it can reach its addresses anyway
}

const (
	maxWebhooks = 20 // of one agent
	maxURL      = 2000
)

// CreateWebhook adds a webhook, and returns it with its secret, which is shown only once.
func (t *Tx) CreateWebhook(by Actor, o WebhookOrder) (Webhook, error) {
	agent, err := t.hears(by, o.Agent)
	if err != nil {
		return Webhook{}, err
	}
	if len(by.Payees) > 0 {
		return Webhook{}, refuse(Forbidden, nil, "this key may pay only some payees, so it can't make webhooks")
	}
	u, err := url.Parse(o.URL)
	if err != nil || len(o.URL) > maxURL || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return Webhook{}, invalid("url", "url %.80q: https://host/path, at most %d bytes, no user in it", o.URL, maxURL)
	}
	for _, what := range o.Events {
		if !slices.Contains(EventTypes, what) {
			return Webhook{}, invalid("events", "events: there is no %.40q; they are %v", what, EventTypes)
		}
	}
	if o.Below != 0 && agent == TheOperator {
		return Webhook{}, invalid("balance_below", "balance_below is of one wallet: name its agent_id")
	}
	if o.OneIn < 0 {
		return Webhook{}, invalid("charge_sample", "charge_sample %d: it must be above zero", o.OneIn)
	}
	if o.Below < 0 {
		return Webhook{}, invalid("balance_below", "balance_below %s: it must be above zero", o.Below)
	}
	if hooks, err := webhooks(t.ledger, agent); err != nil {
		return Webhook{}, err
	} else if len(hooks) >= maxWebhooks {
		return Webhook{}, refuse(InvalidStatus, nil, "an agent has at most %d webhooks; delete one", maxWebhooks)
	}
	h := Webhook{
		ID: t.process.ids.next("whk_", t.Now()), Agent: agent, URL: o.URL, Secret: newSecret(), Events: o.Events, Below: o.Below, CreatedAt: t.Now(), Local: o.Local,
		OneIn: o.OneIn,
	}
	if err := t.audit(by, "webhook.create", agent, h.ID); err != nil {
		return Webhook{}, err
	}
	t.process.silent.remove(agent)
	return h, t.put(webhookTable.key(agent, h.ID), h)
}

// hears returns whose webhooks the caller means: its own agent's, those of the agent that the operator names, or the operator's own.
func (t *Tx) hears(by Actor, agent string) (string, error) {
	if by.Operator && agent == TheOperator {
		return TheOperator, by.mayMove()
	}
	return t.actsFor(by, "agent_id", agent)
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(secret)
}

// DeleteWebhook removes a webhook, together with the messages that were not delivered yet.
func (t *Tx) DeleteWebhook(by Actor, agent, id string) error {
	h, err := t.webhook(by, agent, id)
	if err != nil {
		return err
	}
	if err := t.audit(by, "webhook.delete", h.Agent, id); err != nil {
		return err
	}
	return t.deleteWebhook(h)
}

// deleteWebhook removes a webhook and the log of its messages. Messages that wait for it are dropped when their turn comes.
func (t *Tx) deleteWebhook(h Webhook) error {
	t.ledger.Delete(webhookTable.key(h.Agent, h.ID))
	return t.deleteAfter(sentTable.under(h.Agent, h.ID), 0)
}

// webhook returns a webhook to a caller who may change it.
func (t *Tx) webhook(by Actor, agent, id string) (h Webhook, err error) {
	if agent, err = t.hears(by, agent); err != nil {
		return h, err
	}
	if len(by.Payees) > 0 {
		return h, refuse(Forbidden, nil, "this key may pay only some payees, so it can't change webhooks")
	}
	if len(id) > maxID {
		return h, noWebhook(id)
	}
	found, err := load(t.ledger, webhookTable.key(agent, id), &h)
	if err == nil && !found {
		err = noWebhook(id)
	}
	return h, err
}

func noWebhook(id string) error { return refuse(NotFound, nil, "no webhook %.80q", id) }

// Webhooks lists an agent's webhooks, the oldest first.
func (b *Book) Webhooks(agent string) (hooks []Webhook, err error) {
	err = b.view(func(r ledger.Reader) error {
		hooks, err = webhooks(r, agent)
		return err
	})
	return hooks, err
}

func webhooks(r ledger.Reader, agent string) (hooks []Webhook, err error) {
	err = r.Scan(webhookTable.under(agent), func(key, value []byte) (bool, error) {
		var h Webhook
		err := decode(key, value, &h)
		hooks = append(hooks, h)
		return true, err
	})
	return hooks, err
}
