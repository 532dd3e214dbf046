// Package gateway serves metered calls, on plain net/http. It stands in front of a provider's handler. It identifies the caller, finds out
// what is asked and what that can cost, sets the money aside, passes the request on, counts the answer while it passes, and charges it before
// its last byte is sent.
//
// To begin, open a book (package escrow), make a [Gateway] with [New], and describe a [Route]: who is paid for its calls, at which prices,
// and how. [Gateway.Handler] then puts the route in front of a provider's http.Handler.
//
// Inside, [Gateway.Serve] takes one request through these types. Each of them is made from the one before:
//
//	arrival    the request, after keys and headers for Tallygate were removed
//	asked      who asks for what, at which prices; nothing has changed yet
//	admitted   the money that the call may need is set aside, by a Payment
//	counting   the answer has begun: units are counted, and drawn batch by batch
//	settled    the charge is durable, or the call is known to cost nothing
//
// A client must not take an answer for complete before it is charged. So a short answer is held back completely, and its headers can state
// the charge. Of a longer answer only the end is held back.
//
// The provider must get the request that was priced. So handlers that change requests must call [MaySend] before they send.
//
// The interfaces [Identity] (who calls), [Judge] (what an answer is worth) and [Rail] (how a caller without money can pay at once) can be
// implemented by other packages. The package knows nothing of Caddy; package caddymodule is its adapter.
package gateway

import (
	"cmp"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Handler is a provider's handler below a meter. If it returns an error, the server around it must answer that error.
type Handler interface {
	ServeHTTP(http.ResponseWriter, *http.Request) error
}

// Options are what the metered routes of a gateway share, besides the books.
type Options struct {
	// Prefix is the path below which the API is served. Refusals name paths with it. Default: none.
	Prefix string
	// ProblemTypes is what the type of a problem begins with; see [api.Shop]. Default: the gateway's own pages.
	ProblemTypes string
	// MaxBodies is how many bytes of request bodies may be in memory at the same time. One agent may take only a part, see [RoomOfAgent].
	// Default: [DefaultMaxBodies].
	MaxBodies int64
	// Client returns a name for the client of a request, made from its address, by which wrong keys are limited. Default: the request's
	// RemoteAddr.
	Client func(*http.Request) string
	// Path returns the path that a client has asked for. Default: the request's own path. A server that rewrites paths before a meter knows
	// the original one.
	Path func(*http.Request) string
	// Begin is called for each call before its handlers are. Default: nothing is called.
	Begin func(*http.Request, Caller)
	// Report is called for each call that has ended, when its charge is known. Default: nothing is called.
	Report func(*http.Request, Report)
	// MetricsByPayer counts the charged calls of each payer apart. Default: only by payee, route and model.
	MetricsByPayer bool
	// Rails are ways to pay at the metered route itself. A request is offered to them in this order.
	Rails []Rail
}

// Gateway is what the metered routes of one configuration share.
type Gateway struct {
	book    *escrow.Book
	options Options
	within  sync.Map // the words of running calls whose handlers include other answers, see headerWithin
	// stall is how long a write may wait before the client counts as the one who delays the answer.
	stall       time.Duration
	bodyGrace   time.Duration // how long a request body may be slow
	hangUpGrace time.Duration // how long an answer is read, for its usage, after its client has left
	// now is the clock by which the waiting of a client is measured.
	now func() time.Time

	collecting   singleflight.Group // payments that are being collected, by rail and id
	railPatience time.Duration      // how long a pending payment is left to the request that has brought it
}

// stallTime is the default of stall. It is longer than short failures of a network, and shorter than the timeouts of providers.
const stallTime = 5 * time.Second

// New returns a gateway on a book.
func New(book *escrow.Book, o Options) *Gateway {
	o.MaxBodies = cmp.Or(o.MaxBodies, DefaultMaxBodies)
	if o.Client == nil {
		o.Client = func(r *http.Request) string { return r.RemoteAddr }
	}
	if o.Path == nil {
		o.Path = func(r *http.Request) string { return r.URL.Path }
	}
	if o.Report == nil {
		o.Report = func(*http.Request, Report) {}
	}
	return &Gateway{book: book, options: o, stall: stallTime, bodyGrace: bodyGrace, hangUpGrace: hangUpGrace, now: time.Now, railPatience: 2 * railTimeout}
}

// Serve handles one request as a metered call. It answers refusals itself. If the handlers below end without an answer, it returns their
// error: as a [*Failure], or unchanged if an inner meter has handled the call.
func (g *Gateway) Serve(route *Route, w http.ResponseWriter, r *http.Request, next Handler) error {
	if q, ok := quoteIn(r.Context()); ok {
		q.answer(g, route, r)
		return next.ServeHTTP(w, r)
	}
	if g.isIncluded(r) {
		return next.ServeHTTP(w, r)
	}
	if isPreflight(r) && !route.Shadow {
		return g.passPreflight(w, r, next)
	}
	arrived := g.arrive(route, r)
	defer arrived.giveRoom()
	if route.Shadow {
		return arrived.overhear(w, next)
	}
	arrived.writer = w
	asked, refusal := arrived.ask()
	maps.Copy(w.Header(), arrived.receipt)
	if arrived.passes {
		return next.ServeHTTP(w, arrived.request)
	}
	var call *admitted
	if refusal == nil {
		call, refusal = asked.admit()
	}
	if refusal == nil {
		defer call.leave()
		return call.serve(w, next)
	}
	if asked != nil && refusal.Outcome == escrow.IdempotencyConflict {
		if answer, found := asked.keptAnswer(refusal.Fields["request_id"]); found {
			arrived.writeReceipt(w.Header(), answer.answer.StatusCode)
			return answer.write(w)
		}
	}
	arrived.refuse(w, r, refusal)
	return nil
}

// refuse answers a request that is refused.
func (a *arrival) refuse(w http.ResponseWriter, r *http.Request, refusal *ledger.Refusal) {
	metrics.refused.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	w.Header().Set(headerRequest, a.id)
	openRefusal(w.Header(), r)
	if a.cutOff {
		w.Header().Set("Connection", "close") // otherwise the server reads the rest of the body first, however slowly it comes
	}
	if !a.tellTool(w, refusal) {
		a.tell(w, refusal, a.challenge(w.Header(), refusal))
	}
}

// wouldRefuse notes in the metrics and in the log, in shadow mode, that a call would have been refused. It does nothing if refusal is nil.
func (a *arrival) wouldRefuse(refusal *ledger.Refusal) {
	if refusal == nil {
		return
	}
	metrics.shadow.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	a.route.logger().Info("shadow mode lets a call pass that would be refused", "request", a.id, "payee", a.route.Payee, "code", string(refusal.Outcome))
}

// Handler returns a metered route as an http.Handler in front of the provider's own handler.
func (g *Gateway) Handler(route *Route, provider http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.Serve(route, w, r, plain{provider}); err != nil {
			failure, ok := err.(*Failure)
			if !ok { // the failure of an inner meter
				failure = &Failure{Err: err}
			}
			WriteFailure(w, r, g.options.ProblemTypes, route.logger(), failure)
		}
	})
}

// plain is a handler that answers its own errors.
type plain struct{ http.Handler }

func (p plain) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	p.Handler.ServeHTTP(w, r)
	return nil
}

// Report is the result of a call, for logs and placeholders. Amounts and units are text, as in the response headers.
type Report struct {
	Request string // the id of the call
	Payer   string // empty in shadow mode if the caller is unknown
	Payee   string
	Route   string // the name of the metered route
	Model   string // the model that answered; empty if it is no language model
	Asked   string // the model that was asked for, if another one answered
	Charge  string
	Units   string
	Counts  map[string]string // what was used, by class; not to be changed
}
