package api

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type webhookIn struct {
	AgentID      string             `json:"agent_id,omitempty" jsonschema:"whose webhook; only the operator gives it. Without it, the webhook is the operator's own, and gets the events of all agents"`
	URL          string             `json:"url"`
	Events       []escrow.EventType `json:"events,omitempty" jsonschema:"the events to send; missing: all but charge.created and charges.hourly"`
	BalanceBelow *ledger.Amount     `json:"balance_below,omitempty" jsonschema:"send balance.low when the wallet falls below this amount"`
	ChargeSample int64              `json:"charge_sample,omitempty" jsonschema:"send charge.created only for one of so many charges"`
}

type webhookOut struct {
	WebhookID    string             `json:"webhook_id"`
	URL          string             `json:"url"`
	Secret       string             `json:"secret,omitempty" jsonschema:"the secret that signs messages by the Standard Webhooks convention, shown once"`
	Events       []escrow.EventType `json:"events" jsonschema:"the events that are sent; empty: all"`
	BalanceBelow *ledger.Amount     `json:"balance_below"`
	ChargeSample int64              `json:"charge_sample,omitempty"`
	Lost         int64              `json:"lost" jsonschema:"messages that were not kept, since 10,000 waited for this webhook already"`
	LostAt       *time.Time         `json:"lost_at" jsonschema:"when the last of them was lost"`
	CreatedAt    time.Time          `json:"created_at"`
}

func (w webhookOut) withoutSecret() any { w.Secret = ""; return w }

func webhookAnswer(h escrow.Webhook) webhookOut {
	out := webhookOut{WebhookID: h.ID, URL: h.URL, Events: append([]escrow.EventType{}, h.Events...), Lost: h.Lost, ChargeSample: h.OneIn, CreatedAt: h.CreatedAt}
	if h.Lost > 0 {
		out.LostAt = &h.LostAt
	}
	if h.Below > 0 {
		out.BalanceBelow = &h.Below
	}
	return out
}

type webhooksOut struct {
	Webhooks   []webhookOut `json:"webhooks"`
	NextCursor *string      `json:"next_cursor"`
}

func webhookRoutes() []route {
	return []route{
		post("/webhooks", "createWebhook", "Register a URL to which events are sent", createWebhook).creates(),
		get("/webhooks", "listWebhooks", "The agent's webhooks", listWebhooks),
		del("/webhooks/{id}", "deleteWebhook", "Delete a webhook", func(r *request, t *escrow.Tx, in *ofAgentByID) error {
			return t.DeleteWebhook(r.by, in.AgentID, in.ID)
		}),
		get("/webhooks/{id}/deliveries", "listDeliveries", "The last messages to a webhook, and how it answered", listDeliveries),
		post("/webhooks/{id}/test", "testWebhook", "Send a message of type webhook.test", func(r *request, t *escrow.Tx, in *testIn) (messageOut, error) {
			id, err := t.TestWebhook(r.by, in.AgentID, in.ID)
			return messageOut{MessageID: id}, err
		}),
		post("/webhooks/{id}/resend", "resendMessage", "Send a message again", func(r *request, t *escrow.Tx, in *resendIn) (messageOut, error) {
			return messageOut{MessageID: in.MessageID}, t.Resend(r.by, in.AgentID, in.ID, in.MessageID)
		}),
	}
}

type testIn struct {
	ID      string `path:"id"`
	AgentID string `json:"agent_id,omitempty" jsonschema:"whose webhook; only the operator gives it"`
}

type resendIn struct {
	ID        string `path:"id"`
	AgentID   string `json:"agent_id,omitempty" jsonschema:"whose webhook; only the operator gives it"`
	MessageID string `json:"message_id" jsonschema:"a message in the webhook's deliveries"`
}

type messageOut struct {
	MessageID string `json:"message_id" jsonschema:"the webhook-id header of the message"`
}

type deliveryOut struct {
	MessageID string           `json:"message_id" jsonschema:"the webhook-id header of the message"`
	Type      escrow.EventType `json:"type"`
	Timestamp time.Time        `json:"timestamp" jsonschema:"of the event"`
	Delivered bool             `json:"delivered" jsonschema:"false: it is tried again"`
	Attempts  int              `json:"attempts"`
	LastAt    time.Time        `json:"last_attempt_at"`
	Status    int              `json:"status" jsonschema:"of the last answer; 0: there was none"`
	Error     string           `json:"error,omitempty" jsonschema:"why there was no answer"`
}

type deliveriesOut struct {
	Deliveries []deliveryOut `json:"deliveries"`
	NextCursor *string       `json:"next_cursor"`
}

type deliveriesIn struct {
	ID      string `path:"id"`
	AgentID string `query:"agent_id"`
	paging
}

func listDeliveries(r *request, in *deliveriesIn) (deliveriesOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return deliveriesOut{}, err
	}
	sent, at, err := r.book.SentTo(agent, in.ID, in.page())
	return deliveriesOut{Deliveries: each(sent, func(s escrow.Sent) deliveryOut {
		return deliveryOut{
			MessageID: s.ID, Type: s.Event.Type, Timestamp: s.Event.At, Delivered: s.Delivered, Attempts: s.Attempts, LastAt: s.At,
			Status: s.Last.Status, Error: s.Last.Error,
		}
	}), NextCursor: next(r, at)}, err
}

func listWebhooks(r *request, in *listOfAgent) (webhooksOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return webhooksOut{}, err
	}
	hooks, err := r.book.Webhooks(agent)
	if err != nil {
		return webhooksOut{}, err
	}
	page, at, err := pageOf(hooks, in.paging, func(h escrow.Webhook) string { return h.ID })
	return webhooksOut{Webhooks: each(page, webhookAnswer), NextCursor: next(r, at)}, err
}

func createWebhook(r *request, t *escrow.Tx, in *webhookIn) (webhookOut, error) {
	below, err := optional("balance_below", in.BalanceBelow)
	if err != nil {
		return webhookOut{}, err
	}
	client, _ := netip.ParseAddr(r.client())
	local := client.Unmap().IsLoopback()
	if u, err := url.Parse(in.URL); err == nil && !r.server.o.PrivateWebhooks {
		host, err := netip.ParseAddr(u.Hostname())
		loopback := err == nil && host.Unmap().IsLoopback() || u.Hostname() == "localhost"
		if loopback && !local || !loopback && err == nil && !public(host) {
			return webhookOut{}, invalid("url", "url %.80q: webhooks can't be at private addresses", in.URL)
		}
	}
	h, err := t.CreateWebhook(r.by, escrow.WebhookOrder{Agent: in.AgentID, URL: in.URL, Events: in.Events, Below: below, OneIn: in.ChargeSample, Local: local})
	out := webhookAnswer(h)
	out.Secret = h.Secret
	return out, err
}

// eventOut is the body of a message to a webhook.
type eventOut struct {
	Type      escrow.EventType `json:"type"`
	Timestamp time.Time        `json:"timestamp"`
	Data      any              `json:"data"`
}

type balanceOut struct {
	AgentID  string        `json:"agent_id"`
	Balance  ledger.Amount `json:"balance"`
	Below    ledger.Amount `json:"below"`
	Currency string        `json:"currency"`
}

type withheldOut struct {
	RequestID string         `json:"request_id"`
	Payer     string         `json:"payer"`
	Payee     string         `json:"payee"`
	Route     string         `json:"route"`
	Reason    escrow.Outcome `json:"reason"`
}

type unpricedOut struct {
	RequestID string            `json:"request_id"`
	Payer     string            `json:"payer"`
	Payee     string            `json:"payee"`
	Route     string            `json:"route"`
	Model     string            `json:"model"`
	Units     map[string]string `json:"units"`
}

type hourOut struct {
	AgentID  *string       `json:"agent_id"` // null: the sums of all agents
	From     time.Time     `json:"from"`
	To       time.Time     `json:"to"`
	Calls    int64         `json:"calls"`
	Paid     ledger.Amount `json:"paid"`
	Earned   ledger.Amount `json:"earned"`
	Refunded ledger.Amount `json:"refunded"`
	Credit   ledger.Amount `json:"credit"`
	Currency string        `json:"currency"`
}

type limitSpentOut struct {
	AgentID     string        `json:"agent_id"`
	KeyID       *string       `json:"key_id"`
	Payee       *string       `json:"payee"`
	Amount      ledger.Amount `json:"amount"`
	WindowHours hours         `json:"window_hours"`
	Spent       ledger.Amount `json:"spent"`
	Percent     int64         `json:"percent"`
	Until       time.Time     `json:"until"`
	Currency    string        `json:"currency"`
}

type spendOut struct {
	AgentID  string        `json:"agent_id"`
	Since    time.Time     `json:"since"`
	Paid     ledger.Amount `json:"paid"`
	Usual    ledger.Amount `json:"usual"`
	Currency string        `json:"currency"`
}

type troubleOut struct {
	Detail string `json:"detail"`
}

// eventAnswer returns the message about an event to an agent, or to the operator.
func eventAnswer(currency, agent string, e escrow.Event) eventOut {
	by := escrow.Actor{Agent: agent, Operator: agent == escrow.TheOperator}
	out := eventOut{Type: e.Type, Timestamp: e.At}
	switch {
	case e.Escrow != nil && e.Escrow.Kind == escrow.KindHold:
		out.Data = holdAnswer(currency)(*e.Escrow)
	case e.Escrow != nil:
		out.Data = escrowAnswer(currency)(*e.Escrow)
	case e.Subscription != nil:
		out.Data = subscriptionAnswer(currency, escrow.Actor{})(*e.Subscription) // both parties get the same message, so it has only what both may see
	case e.Withheld != nil:
		w := e.Withheld
		out.Data = withheldOut{RequestID: w.Request, Payer: w.Payer, Payee: w.Payee, Route: w.Route, Reason: w.Reason}
	case e.Unpriced != nil:
		u := e.Unpriced
		out.Data = unpricedOut{RequestID: u.Request, Payer: u.Payer, Payee: u.Payee, Route: u.Route, Model: u.Model, Units: u.Units}
	case e.Credit != nil:
		out.Data = creditAnswer(currency)(*e.Credit)
	case e.Charge != nil:
		out.Data = chargeAnswer(currency, by)(*e.Charge)
	case e.Hour != nil:
		h := e.Hour
		out.Data = hourOut{
			AgentID: optionalText(h.Agent), From: h.From, To: h.From.Add(time.Hour), Calls: h.Calls, Paid: h.Paid, Earned: h.Earned, Refunded: h.Back,
			Credit: h.Credit, Currency: currency,
		}
	case e.Limit != nil:
		l := e.Limit
		out.Data = limitSpentOut{
			AgentID: l.Agent, KeyID: optionalText(l.Limit.Key), Payee: optionalText(l.Limit.Payee), Amount: l.Limit.Amount,
			WindowHours: hours(l.Limit.Window), Spent: l.Spent, Percent: l.Percent, Until: l.Until, Currency: currency,
		}
	case e.Spend != nil:
		out.Data = spendOut{AgentID: e.Spend.Agent, Since: e.Spend.From, Paid: e.Spend.Paid, Usual: e.Spend.Usual, Currency: currency}
	case e.Trouble != "":
		out.Data = troubleOut{Detail: e.Trouble}
	case e.Type == escrow.WebhookTest:
		out.Data = struct{}{}
	case e.Balance != nil:
		out.Data = balanceOut{AgentID: e.Balance.Agent, Balance: e.Balance.Balance, Below: e.Balance.Below, Currency: currency}
	}
	return out
}
