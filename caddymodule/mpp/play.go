package mpp

import (
	"context"
	"encoding/json"
	"regexp"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

const testName = "test"

// play is the method test, with which clients can be tried: each payment succeeds, and nobody pays. The payload is {"token": T}. T is a text
// that the client makes up and keeps to itself: all payments with the same T are of the same payer.
type play struct {
	// Method is the name by which the config selects the method.
	Method string `json:"method,omitempty"`
}

// tokenForm is what a token may be. A short one could be guessed.
var tokenForm = regexp.MustCompile(`^[!-~]{16,200}$`)

// Name implements [Method].
func (*play) Name() string { return testName }

// Details implements [Method].
func (*play) Details() map[string]any { return nil }

// Read implements [Method].
func (*play) Read(payload json.RawMessage) (proof json.RawMessage, payer string, known bool, err error) {
	var p struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(payload, &p); err != nil || !tokenForm.MatchString(p.Token) {
		return nil, "", false, refuse(malformed, "the payload of the method test is {\"token\": T}, and T has 16 to 200 printable characters")
	}
	return json.RawMessage("{}"), p.Token, true, nil
}

// Verify implements [Method].
func (*play) Verify(context.Context, Order) error { return nil }

// Settle implements [Method].
func (*play) Settle(_ context.Context, o Order) (string, error) { return "test_" + o.ID, nil }

func (*play) provision(*caddy.Replacer) error { return nil }

func (*play) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextBlock(d.Nesting()) {
		return d.Err("the method test has no block")
	}
	return nil
}
