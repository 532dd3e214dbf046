// Package gateway is the life of one metered call, on plain net/http. It stands before a provider's handler: it recognises the
// caller, finds out what is asked and what that can cost, takes the money aside, lets the request through, counts the answer as it
// goes by, and charges it before its last byte goes out.
//
// A [Gateway] joins the books (package escrow) with what all metered routes share; a [Route] says whom its calls pay, at which
// prices, and how. [Gateway.Serve] carries one request along this path, on which each type is made by the one before it, and has
// all that it needs:
//
//	arrival    the request, with keys and what is meant for us taken off it
//	asked      who asks for what, at which prices; nothing has changed yet
//	admitted   the money that the call may need is set aside, by a way of paying ([Payment])
//	counting   the answer has begun: units are counted, and drawn batch by batch
//	settled    the charge is durable, or the call is known to cost nothing
//
// What a client must not take for complete before it is charged stays back: a short answer as a whole, so that its charge stands
// in its headers; of a longer one the end ([response]).
//
// What a provider is sent must be what was priced: handlers that change requests on their way ask [MaySend] before they send.
//
// Who calls ([Identity]), what an answer is worth ([Judge]) and how a caller without credit can pay at once ([Rail]) are interfaces,
// so that other packages can add to them. The package knows no Caddy; package caddymodule is its adapter.
package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Handler is a provider's handler below a meter. Its error is one that the server around it answers.
type Handler interface {
	ServeHTTP(http.ResponseWriter, *http.Request) error
}

// Options are what the metered routes of a gateway share, beside the books.
type Options struct {
	// Prefix is the path below which the API is served: refusals name its paths. Default: none.
	Prefix string
	// MaxBodies bounds, in bytes, the request bodies that are in memory at once. One agent's may take half. Default: [DefaultMaxBodies].
	MaxBodies int64
	// Client names the client of a request by its address, to bound how often it tries wrong keys. Default: the request's RemoteAddr.
	Client func(*http.Request) string
	// Report is told of each call that is over, when its charge is known. Default: nobody is told.
	Report func(*http.Request, Report)
	// Rails are ways to pay at the metered route itself, in the order in which a request is offered to them.
	Rails []Rail
}

// Gateway is what the metered routes of one configuration share.
type Gateway struct {
	book    *escrow.Book
	options Options
	// stall is how long a write waits for its client before it is the client who keeps the answer from going on.
	stall     time.Duration
	bodyGrace time.Duration // how long a request body may come as slowly as it likes
}

// stallTime is how long a write to a client may wait until it is the client who keeps the answer from going on: a network's hiccups are
// shorter, the timeouts of providers longer.
const stallTime = 5 * time.Second

// New returns a gateway on a book.
func New(book *escrow.Book, o Options) *Gateway {
	o.MaxBodies = cmp.Or(o.MaxBodies, DefaultMaxBodies)
	if o.Client == nil {
		o.Client = func(r *http.Request) string { return r.RemoteAddr }
	}
	if o.Report == nil {
		o.Report = func(*http.Request, Report) {}
	}
	return &Gateway{book: book, options: o, stall: stallTime, bodyGrace: bodyGrace}
}

// Serve carries one request along the path of a metered call. It answers refusals itself. What the handlers below end with before
// they have answered, it returns: as a [*Failure], or as it is where a meter further in has seen to the call.
func (g *Gateway) Serve(route *Route, w http.ResponseWriter, r *http.Request, next Handler) error {
	if q, ok := quoteIn(r.Context()); ok {
		q.answer(g, route, r)
		return next.ServeHTTP(w, r)
	}
	if isPreflight(r) {
		return g.passPreflight(w, r, next)
	}
	arrived := g.arrive(route, r)
	if server, _ := r.Context().Value(http.ServerContextKey).(*http.Server); server == nil || server.ReadTimeout == 0 { // else the operator has said it
		arrived.deadline = http.NewResponseController(w).SetReadDeadline
	}
	defer arrived.giveRoom()
	asked, refusal := arrived.ask()
	var call *admitted
	if refusal == nil {
		call, refusal = asked.admit()
	}
	switch {
	case refusal == nil:
		defer call.leave()
		return call.serve(w, next)
	case route.Shadow:
		return arrived.letPass(refusal).serve(w, next)
	}
	if asked != nil && refusal.Outcome == escrow.IdempotencyConflict {
		if answer, found := asked.keptAnswer(refusal.Fields["request_id"]); found {
			return answer.write(w)
		}
	}
	arrived.refuse(w, r, refusal)
	return nil
}

// refuse answers a request that is not served.
func (a *arrival) refuse(w http.ResponseWriter, r *http.Request, refusal *ledger.Refusal) {
	metrics.refused.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	w.Header().Set(headerRequest, a.id)
	openRefusal(w.Header(), r)
	if a.cutOff {
		w.Header().Set("Connection", "close") // else the server reads the rest of the body first, as slowly as it comes
	}
	api.WriteProblem(w, a.challenge(w.Header(), refusal), a.gateway.options.Prefix, shapeFor(r))
}

// letPass lets a refused call through in shadow mode: it costs nothing.
func (a *arrival) letPass(refusal *ledger.Refusal) *admitted {
	a.wouldRefuse(refusal)
	call := &admitted{asked: &asked{arrival: a}, pay: free{}}
	call.request = a.request.WithContext(context.WithValue(a.request.Context(), callKey{}, call)) // a meter further in finds the key there
	return call
}

// wouldRefuse says in the metrics and the log, in shadow mode, that a call would be refused; nil: it would not be.
func (a *arrival) wouldRefuse(refusal *ledger.Refusal) {
	if refusal == nil {
		return
	}
	metrics.shadow.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	a.route.logger().Info("shadow mode lets a call pass that would be refused", "request", a.id, "payee", a.route.Payee, "code", string(refusal.Outcome))
}

// Handler is a metered route as a plain http.Handler before the provider's own.
func (g *Gateway) Handler(route *Route, provider http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.Serve(route, w, r, plain{provider}); err != nil {
			failure, ok := err.(*Failure)
			if !ok { // of a meter further in
				failure = &Failure{Err: err}
			}
			WriteFailure(w, r, route.logger(), failure)
		}
	})
}

// plain is a handler that answers its own errors.
type plain struct{ http.Handler }

func (p plain) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	p.Handler.ServeHTTP(w, r)
	return nil
}

// Report is what became of a call, for logs and placeholders. Amounts and units are text, as the response headers have them.
type Report struct {
	Request string // the call's id
	Payer   string // empty in shadow mode where nobody known has called
	Payee   string
	Charge  string
	Units   string
}

func (r *Route) logger() *slog.Logger { return cmp.Or(r.Logger, slog.Default()) }
