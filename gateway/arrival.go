package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// arrival is a request under a meter, after the caller's key and the headers that are for Tallygate were removed.
type arrival struct {
	gateway *Gateway
	route   *Route
	id      string // "req_..."; for a result that is charged once, an id made from the result's name
	began   time.Time
	request *http.Request   // as it goes on to the provider
	client  context.Context // the client's context, which ends when the client has left
	outer   *admitted       // the call of the meter around this one; nil if there is none
	key     string          // the caller's key; empty if there was none
	hint    string          // what is wrong with the form of Authorization, if there was no key
	payer   escrow.Actor    // set when it is known
	receipt http.Header     // of the payment that came with the request; nil if there was none
	// goodReceipt is what only an answer that is a success may have of the receipt.
	goodReceipt http.Header
	paidAs      string   // the agent that stands for who has paid with this request, without a key; empty if nobody has
	promise     *promise // a payment that is settled when the price is known; nil if there is none
	passes      bool     // nobody has to pay for it, and it is not known who asks
	terms       terms
	refused     *ledger.Refusal // the refusal of the terms; only a caller that was identified gets it
	body        []byte          // the body as it arrived, if it was read; for inner meters, the digest and judges
	// writer is where the answer goes, by which a client can be made to send its request in time; nil if it must not be.
	writer http.ResponseWriter
	cutOff bool // the body was not read to its end, and must not be
	// What the call has taken of the room for bodies: of the room for small bodies, and of that for large ones. nil if nothing.
	smallRoom, room escrow.Claim
}

// callKey is the key of a request's context with the call of the meter around it, an *admitted, by which an inner meter finds it; or with the
// quote that the request is for, a *quoted.
type callKey struct{}

// arrive removes from the request what must not reach the provider. If there is a meter around this one, this meter takes over the call,
// and the other one charges nothing.
func (g *Gateway) arrive(route *Route, r *http.Request) *arrival {
	a := &arrival{gateway: g, route: route, id: g.book.NewRequestID(), began: time.Now(), request: r, client: r.Context()}
	if a.outer, _ = r.Context().Value(callKey{}).(*admitted); a.outer != nil {
		a.outer.yield()
		if a.outer.body != nil && !a.outer.route.Shadow {
			setBody(r, a.outer.body)
		}
		a.key, a.hint, a.terms = a.outer.key, a.outer.hint, a.outer.terms // these are no longer in the request
		a.promise = a.outer.promise
		a.client = a.outer.client // the request's own context may be separate from the client's
	} else {
		hint := api.BearerHint(r.Header.Get("Authorization"))
		if a.key = takeKey(r, g.ownKeys(route)); a.key == "" {
			a.hint = hint
		}
		a.terms, a.refused = takeTerms(r.Header)
		dropHops(r.Header)
	}
	dropOwnTrailers(r, route.leavesKeys())
	if !route.Shadow {
		dropHTTPUpgrade(r.Header)
	}
	return a
}

// ask finds out who asks for what, at which prices. If it refuses, nothing has changed.
func (a *arrival) ask() (*asked, *ledger.Refusal) {
	if IsEarly(a.request) {
		return nil, RefuseEarly()
	}
	if refusal := a.identify(); refusal != nil || a.passes {
		return nil, refusal
	}
	if a.refused != nil {
		return nil, a.refused
	}
	if a.outer == nil || a.outer.route.Shadow {
		a.ownIdempotencyKey()
	}
	return a.understandAll()
}
