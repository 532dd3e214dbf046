package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
)

// Without on_expiry the memo's first word decides.
func TestOnExpiryByMemo(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "100")
	g.agent("bob", "0")
	for memo, want := range map[string]string{
		"":                         "release",
		"overage_pool:500_units":   "refund",
		"overage_pool":             "refund",
		"  overage_pool\tof march": "refund",
		"overage_pool\nof march":   "refund",
		"pool":                     "release",
		"overage_pools":            "release",
		"the overage_pool":         "release",
		"base:overage_pool":        "release",
	} {
		body, _ := json.Marshal(map[string]string{"to_agent_id": "bob", "amount": "1", "memo": memo})
		g.post("/escrow", alice, string(body)).want(201, "on_expiry", want)
	}
	g.post("/escrow", alice, `{"to_agent_id":"bob","amount":1,"memo":"overage_pool","on_expiry":"release"}`).want(201, "on_expiry", "release")
}

// Errors of decoding are in the words of the API, not of the program.
func TestBodiesThatAreWrong(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "100")
	for body, want := range map[string]string{
		`[1]`: "the body is not a JSON object: should be an object, not array",
		`{"to_agent_id":"bob","amount":1,"auto_release_hours":-1}`: "auto_release_hours: -1 hours: expected a number above zero and at most 876000",
		`{"to_agent_id":5,"amount":1}`:                             "to_agent_id: should be a string, not number",
	} {
		g.post("/escrow", alice, body).want(422, "detail", want)
	}
}

func TestQuoteTakesTextBodies(t *testing.T) {
	var got string
	g := newGate(t, rules(), api.Options{Quote: func(_ context.Context, _ escrow.Actor, q api.QuoteOrder) (api.Quote, error) {
		got = q.Method + " " + string(q.Body)
		return api.Quote{}, nil
	}})
	for body, want := range map[string]string{
		`{"path":"/x","body":{"a":1}}`:       `POST {"a":1}`,
		`{"path":"/x","body":"{\"a\":1}"}`:   `POST {"a":1}`,
		`{"path":"/x","body":null}`:          "GET ",
		`{"path":"/x"}`:                      "GET ",
		`{"path":"/x","method":"PUT"}`:       "PUT ",
		`{"path":"/x","body":"plain words"}`: "POST plain words",
	} {
		g.post("/quote", "", body).want(200)
		if !strings.EqualFold(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// Lists that are read whole are paged like the others.
func TestShortListsArePaged(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "0")
	g.agent("bob", "0")
	for range 4 {
		g.post("/agents/me/keys", alice, `{}`).want(201)
		g.post("/webhooks", alice, `{"url":"https://example.com/hook"}`).want(201)
	}
	for path, list := range map[string]struct {
		name, id string
		want     int
	}{"/agents/me/keys": {"keys", "key_id", 5}, "/webhooks": {"webhooks", "webhook_id", 4}} {
		seen, query := map[string]bool{}, "?limit=3"
		for range 2 {
			page := g.get(path+query, alice).want(200)
			for _, item := range page.body[list.name].([]any) {
				seen[item.(map[string]any)[list.id].(string)] = true
			}
			query = "?limit=3&cursor=" + page.str("next_cursor")
		}
		if len(seen) != list.want || !strings.HasSuffix(query, "=null") {
			t.Errorf("%s: two pages have %d of %d, then %s", path, len(seen), list.want, query)
		}
	}
}
