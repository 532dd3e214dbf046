package api_test

import (
	"encoding/base64"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestThePayeeSeesSharedTagsAlone: wherever the API shows a charge to its payee, it shows the tags that the payer shares, and no others.
func TestThePayeeSeesSharedTagsAlone(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, shop := g.agent("alice", "50"), g.agent("shop", "5")
	sink, sender := newSink(t), g.sender(true)
	g.post("/webhooks", shop, `{"url":"`+sink.URL+`/hook"}`).want(201)
	tags := map[string]string{"team": "secret-team", "secret-name": "x", "shared.order": "order-7"}
	call := func(spent ledger.Amount, q *escrow.Quality) string {
		t.Helper()
		id := g.book.NewRequestID()
		a, err := g.book.Authorise(t.Context(), escrow.CallOrder{Request: id, By: escrow.Actor{Agent: "alice"}, Payee: "shop", Least: spent, Tags: tags})
		must(t, err)
		_, err = a.Settle(t.Context(), escrow.Settlement{Amount: spent, Units: map[string]string{"call": "1"}, Quality: q})
		must(t, err)
		return id
	}
	paid := call(ledger.Unit, nil)
	call(0, nil) // unpriced: the payee's webhook is told
	held := call(ledger.Unit, &escrow.Quality{Hold: true, Decision: &escrow.Decision{ByPayer: true, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}}}})
	server := httptest.NewServer(g.http)
	defer server.Close()

	g.get("/charges/"+paid, alice).want(200, "tags.team", "secret-team", "tags.secret-name", "x")
	if text := g.get("/usage?group_by=tag:team", alice).want(200).text; !strings.Contains(text, "secret-team") {
		t.Errorf("the payer's own report: %s", text)
	}
	one := g.get("/charges/"+paid, shop).want(200, "tags.team", "null")
	receipt, err := base64.RawURLEncoding.DecodeString(strings.Split(one.str("receipt"), ".")[1])
	must(t, err)
	told := map[string]string{
		"a charge": one.text, "its receipt": string(receipt),
		"the list":       g.get("/charges", shop).want(200).text,
		"a held charge":  g.get("/charges/"+held, shop).want(200).text,
		"a refund":       g.post("/charges/"+paid+"/refund", shop, `{"amount":"0.1"}`).want(200).text,
		"usage by tag":   g.get("/usage?group_by=tag:team", shop).want(200).text,
		"usage by name":  g.get("/usage?group_by=tag:secret-name", shop).want(200).text,
		"the statement":  g.get("/wallet/entries", shop).want(200).text,
		"the escrows":    g.get("/escrow", shop).want(200).text,
		"MCP, statement": use(t, session(t, server.URL, shop), false, "wallet_statement", nil).text,
		"MCP, escrows":   use(t, session(t, server.URL, shop), false, "escrow_list", nil).text,
	}
	g.send(sender)
	sink.mu.Lock()
	told["webhooks"] = strings.Join(sink.bodies, "\n")
	sink.mu.Unlock()
	for where, text := range told {
		if strings.Contains(text, "secret-") && where != "usage by name" || strings.Contains(text, "secret-team") {
			t.Errorf("%s tells the payee of a tag: %s", where, text)
		}
	}
	if !strings.Contains(told["webhooks"], "charge.unpriced") {
		t.Errorf("the webhooks were told %s", told["webhooks"])
	}
	for _, where := range []string{"a charge", "its receipt", "the list", "a held charge", "a refund"} {
		if !strings.Contains(told[where], "order-7") {
			t.Errorf("%s does not tell of the tag that is shared: %s", where, told[where])
		}
	}
}

// TestARenewalsFundingIsThePayers: only the payer is told whether its wallet covers the next period. No answer and no message tells the
// payee.
func TestARenewalsFundingIsThePayers(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice, shop := g.agent("alice", "10"), g.agent("shop", "0")
	sinks, sender := map[string]*sink{alice: newSink(t), shop: newSink(t)}, g.sender(true)
	for key, s := range sinks {
		g.post("/webhooks", key, `{"url":"`+s.URL+`/hook","events":["subscription.started","subscription.renewing","subscription.renewal_unfunded"]}`).want(201)
	}
	id := g.post("/subscriptions", alice, `{"to_agent_id":"shop","amount":10,"period_hours":4}`).want(201, "renewal_funded", "false").str("subscription_id")
	g.get("/subscriptions/"+id, operatorKey).want(200, "renewal_funded", "false")
	for _, path := range []string{"/subscriptions/" + id, "/subscriptions"} {
		if text := g.get(path, shop).want(200).text; strings.Contains(text, "funded") {
			t.Errorf("%s tells the payee: %s", path, text)
		}
	}
	g.wait(3 * time.Hour)
	g.send(sender)
	sinks[shop].mu.Lock()
	for _, body := range sinks[shop].bodies {
		if strings.Contains(body, "funded") {
			t.Errorf("a message tells the payee: %s", body)
		}
	}
	sinks[shop].mu.Unlock()
	for key, want := range map[string]string{shop: "subscription.renewing", alice: "subscription.renewal_unfunded"} {
		got := strings.Split(sinks[key].took(t), ",") // in any order
		if len(got) != 2 || !slices.Contains(got, want) || !slices.Contains(got, "subscription.started") {
			t.Errorf("told %s, want %s", got, want)
		}
	}
}
