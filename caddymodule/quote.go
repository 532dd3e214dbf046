package caddymodule

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// quoteKey marks a request that only asks for its price: the meter on its way answers in the quoted that stands there.
type quoteKey struct{}

type quoted struct {
	by      escrow.Actor
	quote   api.Quote
	found   bool
	refused *ledger.Refusal
}

// quote tells what a request would cost, by the very meter that would charge it: the request goes the way it would really go,
// but no further than its meter.
func (h *Handler) quote(ctx context.Context, by escrow.Actor, order api.QuoteOrder) (api.Quote, error) {
	next, ok := ctx.Value(nextKey{}).(caddyhttp.Handler)
	if !ok {
		return api.Quote{}, refuse(invalidRequest, "quotes are given by the server that serves the routes")
	}
	method := order.Method
	if method == "" {
		method = http.MethodPost
	}
	target, err := url.ParseRequestURI(order.Path)
	if err != nil || !strings.HasPrefix(order.Path, "/") {
		return api.Quote{}, refuse(invalidRequest, "path "+quote(order.Path)+": expected a path such as /v1/chat/completions", "field", "path")
	}
	q := &quoted{by: by}
	// Where no meter is on the way, the cancelled context keeps the request from going on to an upstream.
	cancelled, cancel := context.WithCancel(context.WithValue(ctx, quoteKey{}, q))
	cancel()
	r, err := http.NewRequestWithContext(cancelled, method, "/", bytes.NewReader(order.Body))
	if err != nil {
		return api.Quote{}, refuse(invalidRequest, "method "+quote(method)+": "+err.Error(), "field", "method")
	}
	if len(order.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	r.URL = target // which is read as a server reads it
	r.RequestURI, r.RemoteAddr = order.Path, "127.0.0.1:0"
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		r.Host, r.RemoteAddr, r.TLS = original.Host, original.RemoteAddr, original.TLS
	}
	_ = next.ServeHTTP(nowhere{}, r)
	switch {
	case q.refused != nil:
		return api.Quote{}, q.refused
	case !q.found:
		return api.Quote{}, refuse(escrow.NotFound, method+" "+order.Path+" passes no meter: it costs nothing, or is not there")
	}
	return q.quote, nil
}

// nowhere takes what handlers answer where no meter was on the way, which might be a file of any size.
type nowhere http.Header

func (n nowhere) Header() http.Header       { return http.Header(n) }
func (n nowhere) WriteHeader(int)           {}
func (n nowhere) Write([]byte) (int, error) { return 0, http.ErrBodyNotAllowed }

// answerQuote prices a request that only asks for its price.
func (m *Meter) answerQuote(r *http.Request, q *quoted) {
	q.found = true
	c := &call{meter: m, book: m.app.book, request: r, client: r.Context(), payer: q.by}
	defer c.giveRoom()
	if q.refused = c.inspect(r); q.refused != nil {
		return
	}
	q.quote = api.Quote{Route: m.route, Payee: m.Payee, Currency: m.app.Currency, Affordable: true}
	if c.free() {
		q.quote.Most = new(ledger.Amount)
		return
	}
	least, most := c.bounds()
	q.quote.Estimate = least
	_, fixed := c.rates.Fixed()
	if fixed || (c.asked.MaxOutput > 0 || c.asked.InputOnly) && !c.asked.InputOpen {
		q.quote.Most = &most
	}
	if m.Cost != nil {
		q.quote.Cost, q.quote.Most = m.Cost.String(), nil // the provider may state any
		if m.maxCharge > 0 {
			q.quote.Most = &m.maxCharge
		}
	}
	order := escrow.CallOrder{By: q.by, Payee: m.Payee, Least: least, From: escrow.FromWallet}
	if m.fromEscrow() {
		order.From, order.Open = escrow.FromEscrow, m.open
	}
	if m.Subscription != nil {
		m.Subscription.order(c, &order)
	}
	var err error
	q.quote.Affordable, err = c.book.Affordable(context.WithoutCancel(r.Context()), order)
	if err != nil {
		q.refused = asRefusal(err)
	}
}
