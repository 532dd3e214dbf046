package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// arrival is a request under a meter, with the caller's key and what is meant for us taken off it.
type arrival struct {
	gateway *Gateway
	route   *Route
	id      string // "req_..."; of a result that is charged once, the result's own
	began   time.Time
	request *http.Request   // as it goes on to the provider
	client  context.Context // the client's: done when it has left
	outer   *admitted       // the call of the meter around this one; nil where there is none
	key     string          // the caller's; empty where none came
	payer   escrow.Actor    // once it is known
	terms   terms
	refused *ledger.Refusal // of the terms: told only to a caller that is known
	body    []byte          // as it came, where it was read: for a meter further in, for the digest and for a judge
	// deadline sets when the client must have sent its request; nil where that can't be set
	deadline func(time.Time) error
	cutOff   bool // the body was not read to its end, and is not to be
	// What the call has taken of the room for bodies, as long as they are small, and beyond that; nil where nothing is taken.
	smallRoom, room escrow.Claim
}

// callKey finds the call of the meter around a request in its context.
type callKey struct{}

// arrive takes off the request what must not reach the provider. A meter around this one hands its call over: it charges nothing.
func (g *Gateway) arrive(route *Route, r *http.Request) *arrival {
	a := &arrival{gateway: g, route: route, id: g.book.NewRequestID(), began: time.Now(), request: r, client: r.Context()}
	if a.outer, _ = r.Context().Value(callKey{}).(*admitted); a.outer != nil {
		a.outer.yield()
		if a.outer.body != nil {
			setBody(r, a.outer.body)
		}
		a.key, a.terms = a.outer.key, a.outer.terms // which stand on the request no longer
		a.client = a.outer.client                   // the request may have been cut off from it
	} else {
		a.key = takeKey(r)
		a.terms, a.refused = takeTerms(r.Header)
	}
	dropHTTPUpgrade(r.Header)
	dropOwnTrailers(r)
	return a
}

// ask finds out who asks for what, at which prices. What it refuses has changed nothing.
func (a *arrival) ask() (*asked, *ledger.Refusal) {
	if IsEarly(a.request) {
		return nil, RefuseEarly()
	}
	if refusal := a.identify(); refusal != nil {
		return nil, refusal
	}
	if a.refused != nil {
		return nil, a.refused
	}
	if !a.route.Shadow && a.outer == nil {
		a.ownIdempotencyKey()
	}
	asked, refusal := a.understand()
	if refusal != nil {
		return nil, refusal
	}
	if refusal := asked.digestRequest(); refusal != nil {
		return nil, refusal
	}
	return asked, nil
}
