package api

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type webhookIn struct {
	AgentID      string             `json:"agent_id,omitempty" jsonschema:"whose webhook; only the operator gives it"`
	URL          string             `json:"url"`
	Events       []escrow.EventType `json:"events,omitempty" jsonschema:"the events to send; missing: all"`
	BalanceBelow *ledger.Amount     `json:"balance_below,omitempty" jsonschema:"send balance.low when the wallet falls below this amount"`
}

type webhookOut struct {
	WebhookID    string             `json:"webhook_id"`
	URL          string             `json:"url"`
	Secret       string             `json:"secret,omitempty" jsonschema:"the secret that signs messages by the Standard Webhooks convention, shown once"`
	Events       []escrow.EventType `json:"events" jsonschema:"the events that are sent; empty: all"`
	BalanceBelow *ledger.Amount     `json:"balance_below"`
	Lost         int64              `json:"lost" jsonschema:"messages that were not kept, since 10,000 waited for this webhook already"`
	LostAt       *time.Time         `json:"lost_at" jsonschema:"when the last of them was lost"`
	CreatedAt    time.Time          `json:"created_at"`
}

func (w webhookOut) withoutSecret() any { w.Secret = ""; return w }

func webhookAnswer(h escrow.Webhook) webhookOut {
	out := webhookOut{WebhookID: h.ID, URL: h.URL, Events: append([]escrow.EventType{}, h.Events...), Lost: h.Lost, CreatedAt: h.CreatedAt}
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
	}
}

func listWebhooks(r *request, in *listOfAgent) (webhooksOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
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
	h, err := t.CreateWebhook(r.by, escrow.WebhookOrder{Agent: in.AgentID, URL: in.URL, Events: in.Events, Below: below, Local: local})
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

func eventAnswer(currency string, e escrow.Event) eventOut {
	out := eventOut{Type: e.Type, Timestamp: e.At}
	switch {
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
	case e.Balance != nil:
		out.Data = balanceOut{AgentID: e.Balance.Agent, Balance: e.Balance.Balance, Below: e.Balance.Below, Currency: currency}
	}
	return out
}
