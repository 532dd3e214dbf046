package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// texts returns the bodies of the messages since the last time.
func (s *sink) texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := s.bodies
	s.messages, s.bodies = nil, nil
	return texts
}

// keep adds the charges to the totals, which tells webhooks of them, and sends the messages.
func (g *gate) keep(s *api.Sender) {
	g.t.Helper()
	_, _, err := g.book.KeepTotals(context.Background())
	must(g.t, err)
	g.send(s)
}

func TestTheOperatorHearsOfAllAgents(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, _ := g.agent("alice", "25"), g.agent("shop", "0")
	all, own, sender := newSink(t), newSink(t), g.sender(true)
	id := g.post("/webhooks", operatorKey, `{"url":"`+all.URL+`"}`).want(201).str("webhook_id")
	g.post("/webhooks", operatorKey, `{"agent_id":"alice","url":"`+own.URL+`"}`).want(201)
	g.post("/webhooks", operatorKey, `{"url":"`+all.URL+`","balance_below":"1"}`).want(422, "field", "balance_below")
	g.get("/webhooks", operatorKey).want(200, "webhooks.0.webhook_id", id, "webhooks.1", "<none>")
	g.get("/webhooks", alice).want(200, "webhooks.1", "<none>")
	escrowID := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":6}`).str("escrow_id")
	g.send(sender)
	g.post("/escrow/"+escrowID+"/dispute", alice, `{"reason":"late"}`).want(200)
	g.send(sender)
	charge := g.call("alice", "shop", "1")
	g.post("/charges/"+charge+"/dispute", alice, `{"reason":"empty"}`).want(200)
	g.send(sender)
	for name, s := range map[string]*sink{"the operator": all, "alice": own} {
		if took := s.took(t); took != "escrow.created,escrow.disputed,charge.disputed" {
			t.Errorf("%s got %s", name, took)
		}
	}
	for _, key := range []string{alice, ""} {
		if a := g.do("DELETE", "/api/v1/webhooks/"+id, key, ""); a.status != 404 && a.status != 401 {
			t.Errorf("an agent deletes the operator's webhook: %d", a.status)
		}
		if a := g.get("/webhooks/"+id+"/deliveries", key); a.status != 404 && a.status != 401 {
			t.Errorf("an agent reads the operator's messages: %d", a.status)
		}
	}
	g.do("DELETE", "/api/v1/webhooks/"+id, operatorKey, "").want(204)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":6}`).want(201)
	g.send(sender)
	if took := all.took(t); took != "" {
		t.Errorf("a deleted webhook got %s", took)
	}
}

func TestTheLogOfAWebhook(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, bob := g.agent("alice", "25"), g.agent("bob", "0")
	s, sender := newSink(t), g.sender(true)
	id := g.post("/webhooks", alice, `{"url":"`+s.URL+`","events":["escrow.created"]}`).want(201).str("webhook_id")
	path := "/webhooks/" + id
	s.answer(500)
	message := g.post(path+"/test", alice, `{}`).want(200).str("message_id")
	g.send(sender)
	g.get(path+"/deliveries", alice).want(200, "deliveries.0.message_id", message, "deliveries.0.type", "webhook.test", "deliveries.0.delivered", "false",
		"deliveries.0.attempts", "1", "deliveries.0.status", "500", "deliveries.1", "<none>")
	g.post(path+"/resend", alice, `{"message_id":"`+message+`"}`).want(409)
	s.answer(204)
	g.wait(5 * time.Second)
	g.send(sender)
	g.get(path+"/deliveries", alice).want(200, "deliveries.0.delivered", "true", "deliveries.0.attempts", "2", "deliveries.0.status", "204")
	s.took(t)
	g.post(path+"/resend", alice, `{"message_id":"`+message+`"}`).want(200, "message_id", message)
	g.send(sender)
	if took := s.took(t); took != "webhook.test" {
		t.Errorf("sent again: %s", took)
	}
	g.post(path+"/resend", alice, `{"message_id":"msg_none"}`).want(404)
	g.post(path+"/resend", bob, `{"message_id":"`+message+`"}`).want(404)
	g.post(path+"/test", bob, `{}`).want(404)
	g.get(path+"/deliveries", bob).want(404)

	gone := newSink(t)
	gone.Close()
	path = "/webhooks/" + g.post("/webhooks", alice, `{"url":"`+gone.URL+`"}`).want(201).str("webhook_id")
	g.post(path+"/test", alice, `{}`).want(200)
	g.send(sender)
	g.get(path+"/deliveries", alice).want(200, "deliveries.0.delivered", "false", "deliveries.0.status", "0", "deliveries.0.error", "the connection was refused")
}

func TestTheLogOfAWebhookIsBounded(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice := g.agent("alice", "25")
	s, sender := newSink(t), g.sender(true)
	path := "/webhooks/" + g.post("/webhooks", alice, `{"url":"`+s.URL+`"}`).want(201).str("webhook_id")
	first := g.post(path+"/test", alice, `{}`).want(200).str("message_id")
	for range 100 {
		g.wait(time.Second)
		g.post(path+"/test", alice, `{}`).want(200)
	}
	g.send(sender)
	text := g.get(path+"/deliveries?limit=200", alice).want(200).text
	if n := strings.Count(text, "message_id"); n != 100 || strings.Contains(text, first) {
		t.Errorf("the log has %d messages, the oldest among them: %v", n, strings.Contains(text, first))
	}
}

func TestWebhooksOfCharges(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, shop := g.agent("alice", "25"), g.agent("shop", "0")
	each, some, hourly, quiet, sender := newSink(t), newSink(t), newSink(t), newSink(t), g.sender(true)
	g.post("/webhooks", shop, `{"url":"`+each.URL+`","events":["charge.created"]}`).want(201)
	g.post("/webhooks", operatorKey, `{"url":"`+some.URL+`","events":["charge.created"],"charge_sample":4}`).want(201, "charge_sample", "4")
	g.post("/webhooks", alice, `{"url":"`+hourly.URL+`","events":["charges.hourly"]}`).want(201)
	g.post("/webhooks", alice, `{"url":"`+quiet.URL+`"}`).want(201)
	for range 40 {
		g.call("alice", "shop", "0.1")
	}
	g.wait(time.Second)
	g.keep(sender)
	g.keep(sender)
	if n := len(each.texts()); n != 40 {
		t.Errorf("%d of 40 charges were told", n)
	}
	if n := len(some.texts()); n == 0 || n > 30 {
		t.Errorf("of 40 charges, %d were told where one in four was asked for", n)
	}
	if took := hourly.took(t) + quiet.took(t); took != "" {
		t.Errorf("nobody asked for %s", took)
	}
	g.wait(2 * time.Hour)
	_, err := g.book.RunDue(context.Background())
	must(t, err)
	g.send(sender)
	texts := hourly.texts()
	if len(texts) != 1 || !strings.Contains(texts[0], `"calls":40,"paid":"4","earned":"0"`) || !strings.Contains(texts[0], `"agent_id":"alice"`) {
		t.Errorf("the hour: %s", texts)
	}
}

func TestWebhooksOfSuspectChargesAndTags(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	_, shop := g.agent("alice", "25"), g.agent("shop", "0")
	s, sender := newSink(t), g.sender(true)
	g.post("/webhooks", shop, `{"url":"`+s.URL+`"}`).want(201)
	a, err := g.book.Authorise(context.Background(), escrow.CallOrder{
		Request: g.book.NewRequestID(), By: escrow.Actor{Agent: "alice"}, Payee: "shop", Least: ledger.Unit, Tags: map[string]string{"secret": "x", "shared.team": "y"},
	})
	must(t, err)
	_, err = a.Settle(context.Background(), escrow.Settlement{Amount: ledger.Unit, Suspect: true})
	must(t, err)
	g.wait(time.Second)
	g.keep(sender)
	texts := s.texts()
	if len(texts) != 1 || !strings.Contains(texts[0], `"type":"charge.suspect"`) || !strings.Contains(texts[0], `"tags":{"shared.team":"y"}`) {
		t.Errorf("the payee is told %s", texts)
	}
}

func TestWebhooksOfLimits(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, _ := g.agent("alice", "25"), g.agent("shop", "0")
	s, sender := newSink(t), g.sender(true)
	g.post("/webhooks", alice, `{"url":"`+s.URL+`","events":["limit.reached"]}`).want(201)
	g.do("PUT", "/api/v1/limits", alice, `{"limits":[{"amount":"1","window_hours":24}]}`).want(200)
	told := func() (percents string) {
		g.send(sender)
		for _, text := range s.texts() {
			_, after, _ := strings.Cut(text, `"percent":`)
			percent, _, _ := strings.Cut(after, ",")
			percents += percent + " "
		}
		return percents
	}
	for _, step := range []struct{ amount, want string }{{"0.4", ""}, {"0.1", "50 "}, {"0.1", ""}, {"0.35", "90 "}, {"0.05", "100 "}} {
		g.call("alice", "shop", step.amount)
		if got := told(); got != step.want {
			t.Errorf("after %s more: %q, want %q", step.amount, got, step.want)
		}
	}
	g.wait(25 * time.Hour)
	g.call("alice", "shop", "0.8")
	if got := told(); got != "80 " {
		t.Errorf("in the next window: %q", got)
	}
}

func TestWebhooksOfUnusualSpending(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	_, _ = g.agent("alice", "100"), g.agent("shop", "0")
	s, sender := newSink(t), g.sender(true)
	g.post("/webhooks", operatorKey, `{"url":"`+s.URL+`","events":["spend.unusual"]}`).want(201)
	spend := func(amount string) {
		g.call("alice", "shop", amount)
		g.wait(time.Second)
		g.keep(sender)
	}
	for day := range 7 {
		spend("1")
		if took := s.took(t); took != "" {
			t.Errorf("day %d: %s", day, took)
		}
		g.wait(24 * time.Hour)
	}
	for _, step := range []struct{ amount, want string }{{"2.9", ""}, {"1", `"paid":"3.9","usual":"1"`}, {"5", ""}} {
		spend(step.amount)
		if texts := s.texts(); fmt.Sprint(len(texts)) != map[bool]string{true: "0", false: "1"}[step.want == ""] || step.want != "" && !strings.Contains(texts[0], step.want) {
			t.Errorf("after %s: %s", step.amount, texts)
		}
	}
}

func TestTheOperatorIsAlertedAtOnce(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice := g.agent("alice", "25")
	s, own, sender := newSink(t), newSink(t), g.sender(true)
	g.post("/webhooks", operatorKey, `{"url":"`+s.URL+`"}`).want(201)
	g.post("/webhooks", alice, `{"url":"`+own.URL+`"}`).want(201)
	sender.Alert(context.Background(), g.book, escrow.Event{Type: escrow.LedgerReadOnly, At: g.book.Now(), Trouble: "the disk is full"})
	if texts := s.texts(); len(texts) != 1 || !strings.Contains(texts[0], `"type":"ledger.read_only"`) || !strings.Contains(texts[0], "the disk is full") {
		t.Errorf("the operator is told %s", texts)
	}
	if took := own.took(t); took != "" {
		t.Errorf("an agent is told %s", took)
	}
}
