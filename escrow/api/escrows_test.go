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
		`{"to_agent_id":"bob","amount":1,"auto_release_hours":-1}`: "auto_release_hours: -1 hours: above zero and at most 876000",
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
