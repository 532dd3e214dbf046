package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// quoted is a request for a quote. The meter finds it in the request's context, and writes the quote into it.
type quoted struct {
	by      escrow.Actor
	client  context.Context // ends when the client that asks for the quote leaves
	quote   api.Quote
	found   bool
	sends   bool // it would go to an upstream
	refused *ledger.Refusal
}

func quoteIn(ctx context.Context) (*quoted, bool) {
	q, ok := ctx.Value(callKey{}).(*quoted)
	return q, ok
}

// IsQuoted reports whether a request is one for a quote, which no handler may serve.
func IsQuoted(r *http.Request) bool {
	_, is := quoteIn(r.Context())
	return is
}

// AskAside lets a proxy send a request for a quote. It is for proxies that only find out who calls, before the meter.
func AskAside(r *http.Request) {
	q, is := quoteIn(r.Context())
	if !is {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	context.AfterFunc(q.client, cancel)
	*r = *r.WithContext(ctx)
}

// Quote returns what a request would cost, as computed by the meter that would charge it. The request goes to next as a real request would,
// but no further than its meter. like is a request of the same client, which the quoted one is like in all that the order does not say; it
// may be nil.
func Quote(ctx context.Context, by escrow.Actor, order api.QuoteOrder, like *http.Request, next Handler) (api.Quote, error) {
	q := &quoted{by: by, client: ctx}
	// If there is no meter on the way, the cancelled context prevents the request from reaching an upstream.
	cancelled, cancel := context.WithCancel(context.WithValue(ctx, callKey{}, q))
	cancel()
	r, err := quotedRequest(cancelled, order, like)
	if err != nil {
		return api.Quote{}, err
	}
	answered := nowhere{header: make(http.Header)}
	err = answered.serve(r, next)
	name := r.Method + " " + order.Path
	switch status := answered.status; {
	case q.refused != nil:
		return api.Quote{}, q.refused
	case q.found:
		return q.quote, nil
	case !q.sends && status >= http.StatusBadRequest:
		return api.Quote{}, refuse(escrow.InvalidRequest, name+" can't be quoted: before a meter, this server answers it with "+strconv.Itoa(status)+
			"; name in `headers` what the call needs", "field", "path")
	case !q.sends && err != nil:
		return api.Quote{}, refuse(escrow.InvalidRequest, name+" can't be quoted: a handler before its meter fails without the call itself", "field", "path")
	default:
		return api.Quote{}, refuse(escrow.NotFound, name+" passes no meter: it costs nothing, or is not there")
	}
}

// quotedRequest makes the request that is quoted.
func quotedRequest(ctx context.Context, order api.QuoteOrder, like *http.Request) (*http.Request, error) {
	method := order.Method
	if method == "" {
		method = http.MethodPost
	}
	path, host := order.Path, ""
	whole, err := url.Parse(path)
	if err == nil && (whole.Scheme == "https" || whole.Scheme == "http") && whole.Host != "" {
		path, host = whole.RequestURI(), whole.Host
	}
	target, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") {
		return nil, refuse(escrow.InvalidRequest, "path "+strconv.Quote(order.Path)+": expected a path such as /v1/chat/completions, or a URL of this server", "field", "path")
	}
	r, err := http.NewRequestWithContext(ctx, method, "/", bytes.NewReader(order.Body))
	if err != nil {
		return nil, refuse(escrow.InvalidRequest, "method "+strconv.Quote(method)+": "+err.Error(), "field", "method")
	}
	r.RemoteAddr = "127.0.0.1:0"
	if like != nil {
		r.Host, r.RemoteAddr, r.TLS, r.Proto, r.ProtoMajor, r.ProtoMinor = like.Host, like.RemoteAddr, like.TLS, like.Proto, like.ProtoMajor, like.ProtoMinor
		r.Header = like.Header.Clone()
		for name := range r.Header {
			if slices.Contains(ofQuote, name) || strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "Mcp-") {
				delete(r.Header, name)
			}
		}
	}
	if len(order.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range order.Headers {
		r.Header.Set(name, value)
	}
	r.URL = target // parsed as a server parses it
	r.RequestURI = path
	if host != "" {
		r.Host = host
		switch {
		case whole.Scheme == "http":
			r.TLS = nil
		case r.TLS == nil:
			r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: whole.Hostname()}
		}
	}
	return r, nil
}

// ofQuote are headers of the request for a quote that the quoted request does not have.
var ofQuote = []string{"Accept", "Accept-Encoding", "Idempotency-Key", "Expect", "Connection", "Upgrade", "Te", "Trailer", "Last-Event-Id"}

// nowhere drops the answers of handlers if there is no meter on the way. Such an answer may be a file of any size.
type nowhere struct {
	header http.Header
	status int
}

// serve passes the request to the handlers. They may abort it.
func (n *nowhere) serve(r *http.Request, next Handler) (err error) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	return next.ServeHTTP(n, r)
}

func (n *nowhere) Header() http.Header       { return n.header }
func (n *nowhere) WriteHeader(status int)    { n.status = status }
func (n *nowhere) Write([]byte) (int, error) { return 0, http.ErrBodyNotAllowed }

// answer prices a request for a quote. It goes through the first stages of a call, and holds nothing.
func (q *quoted) answer(g *Gateway, route *Route, r *http.Request) {
	q.found = true
	a := &arrival{gateway: g, route: route, request: r, client: r.Context(), payer: q.by}
	defer a.giveRoom()
	a.key = takeKey(r, g.ownKeys(route))
	a.terms, _ = takeTerms(r.Header)
	if route.Identity != nil {
		if payer, err := route.Identity.Identify(r, a.key); err == nil {
			a.payer = payer
		}
	}
	asked, refusal := a.understand()
	if refusal != nil {
		q.refused = refusal
		return
	}
	q.quote = api.Quote{Route: route.Name, Payee: route.Payee, Currency: g.book.Currency(), Affordable: true}
	if asked.free() {
		q.quote.Most = new(ledger.Amount)
	} else {
		asked.quote(&q.quote)
	}
	if owed := asked.sumOwed(); owed > 0 {
		q.quote.Owed = owed
	} else if asked.free() {
		return
	}
	var err error
	order := escrow.CallOrder{By: a.payer, Payee: route.Payee, Least: q.quote.Estimate + q.quote.Owed}
	if asked.free() {
		asked.fundDebt(&order, 0)
	} else {
		route.payment().order(asked, &order)
	}
	if order.Credit {
		if q.quote.Credit, err = g.book.UsableCredit(a.payer.Agent, route.Payee); err != nil {
			q.refused = asRefusal(err)
			return
		}
	}
	q.quote.Affordable, err = g.book.Affordable(context.WithoutCancel(r.Context()), order)
	switch refusal := (*ledger.Refusal)(nil); {
	case errors.As(err, &refusal) && (refusal.Outcome == escrow.LimitExceeded || refusal.Outcome == escrow.Forbidden):
		q.quote.Limit = refusal.Detail
	case err != nil:
		q.refused = asRefusal(err)
	}
}

// chargedLater reports whether the request asks for what is charged when it is fetched: an answer that comes later, or a batch.
func (q *asked) chargedLater() bool {
	batch := q.call.AnyModel && !q.call.ByAsked && q.call.Once == "" && q.request.Method == http.MethodPost
	return (q.call.Later != "" || batch) && q.rates.UsesTokens()
}

// quote writes the call's bounds into a quote.
func (q *asked) quote(into *api.Quote) {
	b := q.bounds()
	into.Estimate, into.Model, into.Later = b.least, q.call.Model, q.chargedLater()
	if b.bounded {
		into.Most = &b.most
	}
	if q.rates.HasTiers() && q.payment().charges() {
		for _, t := range q.rates.TiersNow(q.usedBefore) {
			into.Tiers = append(into.Tiers, api.QuoteTier{Class: string(t.Class), Amount: t.Amount, Per: t.Per, Unit: t.Unit, Each: t.Each, Used: t.Used.String()})
		}
	}
	if cost := q.route.Cost; cost != nil {
		into.Cost, into.Most = cost.Words, nil // the provider may state any cost
		if q.route.MaxCharge > 0 {
			into.Most = &q.route.MaxCharge
		}
	}
}
