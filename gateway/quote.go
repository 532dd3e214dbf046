package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// quoteKey is the key of a request's context that marks a request for a quote. The meter writes the quote into the quoted there.
type quoteKey struct{}

type quoted struct {
	by      escrow.Actor
	quote   api.Quote
	found   bool
	refused *ledger.Refusal
}

func quoteIn(ctx context.Context) (*quoted, bool) {
	q, ok := ctx.Value(quoteKey{}).(*quoted)
	return q, ok
}

// Quote returns what a request would cost, as computed by the meter that would charge it. The request goes to next as a real request would,
// but no further than its meter. like is a request of the same client, or nil.
func Quote(ctx context.Context, by escrow.Actor, order api.QuoteOrder, like *http.Request, next Handler) (api.Quote, error) {
	method := order.Method
	if method == "" {
		method = http.MethodPost
	}
	target, err := url.ParseRequestURI(order.Path)
	if err != nil || !strings.HasPrefix(order.Path, "/") {
		return api.Quote{}, refuse(escrow.InvalidRequest, "path "+strconv.Quote(order.Path)+": expected a path such as /v1/chat/completions", "field", "path")
	}
	q := &quoted{by: by}
	// If there is no meter on the way, the cancelled context prevents the request from reaching an upstream.
	cancelled, cancel := context.WithCancel(context.WithValue(ctx, quoteKey{}, q))
	cancel()
	r, err := http.NewRequestWithContext(cancelled, method, "/", bytes.NewReader(order.Body))
	if err != nil {
		return api.Quote{}, refuse(escrow.InvalidRequest, "method "+strconv.Quote(method)+": "+err.Error(), "field", "method")
	}
	if len(order.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	r.URL = target // parsed as a server parses it
	r.RequestURI, r.RemoteAddr = order.Path, "127.0.0.1:0"
	if like != nil {
		r.Host, r.RemoteAddr, r.TLS = like.Host, like.RemoteAddr, like.TLS
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

// nowhere drops the answers of handlers if there is no meter on the way. Such an answer may be a file of any size.
type nowhere http.Header

func (n nowhere) Header() http.Header       { return http.Header(n) }
func (n nowhere) WriteHeader(int)           {}
func (n nowhere) Write([]byte) (int, error) { return 0, http.ErrBodyNotAllowed }

// answer prices a request for a quote. It goes through the first stages of a call, and holds nothing.
func (q *quoted) answer(g *Gateway, route *Route, r *http.Request) {
	q.found = true
	a := &arrival{gateway: g, route: route, request: r, client: r.Context(), payer: q.by}
	defer a.giveRoom()
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
	order := escrow.CallOrder{By: q.by, Payee: route.Payee, Least: q.quote.Estimate + q.quote.Owed}
	if asked.free() {
		asked.fundDebt(&order, 0)
	} else {
		route.payment().order(asked, &order)
	}
	if order.Credit {
		if q.quote.Credit, err = g.book.UsableCredit(q.by.Agent, route.Payee); err != nil {
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
