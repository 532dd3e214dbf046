package api_test

import (
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow/api"
)

// A caller whose key is not accepted is told how to send it, where to get one, and what the operator has to set.
func TestRefusedKeysAreToldWhatToDo(t *testing.T) {
	open := newGate(t, rules(), api.Options{Prefix: "/gate"})
	alice := open.agent("alice", "0")
	closed := rules()
	closed.OpenRegistration, closed.OperatorKeyHash = false, [32]byte{}
	shut := newGate(t, closed, api.Options{})
	for _, test := range []struct {
		name          string
		gate          *gate
		method, path  string
		authorization string
		status        int
		says          []string
	}{
		{"no key", open, "GET", "/wallet", "", 401, []string{"'Authorization: Bearer KEY'", "POST /gate/api/v1/agents makes an agent"}},
		{"no key, registration closed", shut, "GET", "/wallet", "", 401, []string{"from the operator"}},
		{"no Bearer", open, "GET", "/wallet", alice, 401, []string{"no word Bearer before the key"}},
		{"another scheme", open, "GET", "/wallet", "Basic YTpi", 401, []string{"another scheme than Bearer"}},
		{"no key after Bearer", open, "GET", "/wallet", "Bearer ", 401, []string{"no key after the word Bearer"}},
		{"the wrong operator's key", open, "POST", "/wallet/deposit", "Bearer guessed", 401, []string{"nor is it the operator's", "operator_key in the global option tallygate"}},
		{"no operator's key configured", shut, "POST", "/wallet/deposit", "Bearer guessed", 401, []string{"no operator's key is configured", "set operator_key"}},
		{"an agent's key for the operator's route", open, "POST", "/wallet/deposit", "Bearer " + alice, 403, []string{"this is an agent's key", "operator_key in the global option tallygate"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.gate.by(t).do(test.method, "/api/v1"+test.path, "", "{}", "Authorization", test.authorization)
			detail := a.want(test.status).str("detail")
			for _, part := range test.says {
				if !strings.Contains(detail, part) {
					t.Errorf("no %q in %q", part, detail)
				}
			}
		})
	}
}

// A caller without money is told only of ways to fund its wallet that there are.
func TestWaysToPayAreThoseThatThereAre(t *testing.T) {
	r := rules()
	g := newGate(t, r, api.Options{})
	g.agent("bob", "0")
	const transfer = `{"to_agent_id":"bob","amount":"2000"}`
	all := g.post("/wallet/transfer", g.agent("alice", "0"), transfer).want(402, "pay.0.method", "faucet", "pay.0.amount", "10")
	all.want(402, "pay.1.request", "POST /api/v1/wallet/deposit", "pay.2.method", "transfer")

	r.Faucet, r.OperatorKeyHash = 0, [32]byte{}
	g = newGate(t, r, api.Options{})
	g.agent("bob", "0")
	g.post("/wallet/transfer", g.agent("alice", "0"), transfer).want(402, "pay.0.method", "deposit", "pay.0.request", "null", "pay.1.method", "transfer", "pay.2", "<none>")
}
