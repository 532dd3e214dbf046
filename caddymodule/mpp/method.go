package mpp

import (
	"context"
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Method is a way in which money moves within the scheme. All methods have the intents charge and session; see [Rail.Challenge].
type Method interface {
	// Name is the method's identifier, in lower-case letters.
	Name() string
	// Details returns methodDetails, which a challenge's request has for clients of this method; nil if there are none.
	Details() map[string]any
	// Read checks the payload of a credential without asking anybody. proof is what is needed to take the payment, also later. payer is a
	// text that only the payer can have written. known says that it is the same in all its payments; otherwise it shows only that a payload is
	// that of the same payment.
	Read(payload json.RawMessage) (proof json.RawMessage, payer string, known bool, err error)
	// Verify finds out whether a payment could be taken now. A refusal says why not.
	Verify(ctx context.Context, o Order) error
	// Settle takes a payment, and returns the name that the method has for it. It must not take the payment twice, however often it is asked
	// for the same [Order.ID]. Its errors are those of [gateway.Rail].
	Settle(ctx context.Context, o Order) (reference string, err error)

	provision(replacer *caddy.Replacer) error
	unmarshal(d *caddyfile.Dispenser) error
}

// Order is a payment that a method is to take.
type Order struct {
	Method   string          `json:"method"`
	Intent   string          `json:"intent"`
	ID       string          `json:"id"` // of the challenge
	Realm    string          `json:"realm"`
	Amount   string          `json:"amount"` // in the currency's smallest units
	Currency string          `json:"currency"`
	Proof    json.RawMessage `json:"proof"`
	Session  string          `json:"session,omitempty"` // the id of the session that the payment is for
}

// methods makes the methods, by name. To add one, implement [Method] in a file of its own, and add it here.
var methods = map[string]func() Method{
	stripeName: func() Method { return new(Stripe) },
	testName:   func() Method { return new(play) },
}
