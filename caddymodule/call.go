package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
	"github.com/tallygate/tallygate/pricing"
)

// call is one request under a meter, from its admission to its charge.
type call struct {
	meter   *Meter
	books   *books
	book    *escrow.Book
	logger  *zap.Logger
	id      string // "req_..."
	payer   escrow.Actor
	request *http.Request   // as it goes on to the provider
	client  context.Context // the client's: done when it has left
	asked   *meter.Call
	rates   *pricing.Rates
	fixed   bool          // the price is known before the response
	price   ledger.Amount // if fixed
	limit   ledger.Amount // the most that the caller or the provider lets it cost; 0: no bound
	auth    *escrow.Authorisation
	began   time.Time

	original []byte // the request body as it came in, where it was read; for a meter further in

	// mu guards what follows: a call is settled by its handler, or by the end of the process.
	mu        sync.Mutex
	counter   meter.Counter // nil until a response that is charged begins
	settled   bool          // charged, or known to cost nothing
	aborted   bool          // given up by the end of the process: no further byte may go out
	yielded   bool          // a meter further in charges instead
	charge    escrow.Charge
	settleErr error
	status    int
	sent      bool          // bytes of the body have gone out
	covered   ledger.Amount // how much is authorised in all: held, or drawn already
	needed    ledger.Amount // how much of that the response may have cost by now
	drawn     int64         // batches drawn
	drawnAt   time.Time
	undrawn   bool // a draw is on its way to the disk
}

type callKey struct{}

// admit takes a request through the steps before the provider: identify, inspect, bound, hold. What it refuses has changed
// nothing.
func (m *Meter) admit(r *http.Request) (*call, *ledger.Refusal) {
	c := &call{
		meter: m, books: m.app.books, book: m.app.book, logger: m.logger,
		id: m.app.book.NewRequestID(), began: time.Now(), request: r, client: r.Context(),
	}
	outer, _ := r.Context().Value(callKey{}).(*call)
	if outer != nil {
		outer.yield()
		if outer.original != nil {
			setBody(r, outer.original)
		}
	}
	if refusal := c.identify(r, outer); refusal != nil {
		return c, refusal
	}
	terms, refusal := takeTerms(r.Header)
	if refusal != nil {
		return c, refusal
	}
	if refusal := c.inspect(r); refusal != nil {
		return c, refusal
	}
	c.limit = lowest(m.maxCharge, terms.maxCharge)
	if refusal := c.authorise(r, terms); refusal != nil {
		return c, refusal
	}
	if !c.fixed {
		// The transport asks for gzip itself then, and decodes what comes: usage can be read.
		r.Header.Del("Accept-Encoding")
	}
	ctx := context.WithValue(r.Context(), callKey{}, c)
	if m.OnCancel == cancelFinish {
		ctx = context.WithoutCancel(ctx)
	}
	c.request = r.WithContext(ctx)
	c.books.enter(c)
	return c, nil
}

// identify finds who pays.
func (c *call) identify(r *http.Request, outer *call) *ledger.Refusal {
	if placeholder := c.meter.Agent; placeholder != "" {
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		agent := repl.ReplaceAll(placeholder, "")
		if agent == "" {
			return refuse(unauthorized, "no agent: "+placeholder+" is empty")
		}
		takeKey(r)
		c.payer = escrow.Actor{Agent: agent}
		return nil
	}
	if outer != nil && outer.payer.Agent != "" {
		// The outer meter has taken the key off the request already.
		c.payer = outer.payer
		return nil
	}
	key := takeKey(r)
	if key == "" {
		return refuse(unauthorized, "no key: send your Tallygate key as 'Authorization: Bearer KEY', or where your client puts its provider key (x-api-key, x-goog-api-key, api-key), or as Tallygate-Key")
	}
	payer, err := c.book.Authenticate(key)
	if err != nil {
		return asRefusal(err)
	}
	c.payer = payer
	return nil
}

// inspect finds out what is asked and what it costs. It reads the body only where the price depends on it.
func (c *call) inspect(r *http.Request) *ledger.Refusal {
	c.asked = &meter.Call{Format: wire.Generic}
	if c.rates = c.meter.rates; c.rates != nil {
		price, fixed := c.rates.Fixed()
		c.price, c.fixed = ledger.Amount(price), fixed
		if c.fixed || !c.rates.UsesTokens() {
			return c.checkUpgrade(r)
		}
	}
	var body []byte
	if r.Body != nil && r.Body != http.NoBody {
		var refusal *ledger.Refusal
		if body, refusal = readBody(r, c.meter.MaxBody); refusal != nil {
			return refusal
		}
		c.original = body
	}
	asked, err := formats.Inspect(meter.Head{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header}, body)
	if err != nil {
		return refuse(invalidRequest, err.Error())
	}
	c.asked = asked
	if body != nil {
		setBody(r, asked.Body)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		c.asked.Free = true
	}
	if c.asked.Free {
		return nil
	}
	if c.asked.API == "" {
		return refuse(noPrice, r.Method+" "+r.URL.Path+" is not a call whose tokens can be counted, so it has no price")
	}
	if c.meter.tariff != nil {
		rates, ok := c.meter.tariff.For(asked.Model)
		if !ok {
			return refuse(noPrice, "the tariff has no price for model "+quote(asked.Model), "model", asked.Model)
		}
		c.rates = rates
	}
	return c.checkUpgrade(r)
}

// checkUpgrade refuses a call that would leave HTTP where its price depends on what is sent: over an upgraded connection
// the bytes pass by unseen.
func (c *call) checkUpgrade(r *http.Request) *ledger.Refusal {
	if r.Header.Get("Upgrade") == "" || c.fixed || c.rates == nil {
		return nil
	}
	return refuse(noPrice, "an upgraded connection (Upgrade: "+r.Header.Get("Upgrade")+") can't be counted here, so it has no price")
}

// authorise holds the most that the call can cost before more is asked for: its input and the first batch of its output.
func (c *call) authorise(r *http.Request, terms terms) *ledger.Refusal {
	if c.asked.Free {
		return nil
	}
	least, most := c.bounds()
	if c.limit > 0 {
		if refusal := c.fitLimit(); refusal != nil {
			return refusal
		}
		least, most = min(least, c.limit), min(most, c.limit)
	}
	order := escrow.CallOrder{
		Request: c.id, By: c.payer, Payee: c.meter.Payee, Route: c.meter.route, Pattern: c.pattern(),
		API: c.asked.API, Model: c.asked.Model, Least: least, Most: most,
		From: escrow.FromWallet, Tags: terms.tags,
	}
	if c.meter.fromEscrow() {
		order.From, order.Escrow = escrow.FromEscrow, terms.escrow
		order.Open, order.OpenFor = c.meter.open, c.meter.openFor()
	}
	auth, err := c.book.Authorise(r.Context(), order)
	if err != nil {
		return asRefusal(err)
	}
	c.auth = auth
	return nil
}

// bounds tells the least that must be held before the call starts, and the most that is worth holding.
func (c *call) bounds() (least, most ledger.Amount) {
	if c.fixed {
		return c.price, c.price
	}
	input, output := c.asked.InputTokens, c.asked.MaxOutput
	if output == 0 {
		output = c.rates.MaxOutput()
	}
	if c.rates.UsesTokens() {
		first := c.batchTokens()
		if output > 0 {
			first = min(first, output)
		}
		least = ledger.Amount(c.rates.MostFor(input, first))
		most = least
		if !c.asked.Stream && output > 0 {
			most = max(most, ledger.Amount(c.rates.MostFor(input, output)))
		}
		return least, most
	}
	one := ledger.Amount(c.rates.MostFor(0, 0))
	for _, class := range c.rates.Charged() {
		if class != meter.Calls {
			one += ledger.Amount(c.rates.MostOf(pricing.Measure{N: 1, Unit: string(class)}))
		}
	}
	return max(one, c.batchPrice()), max(one, c.batchPrice())
}

// batchTokens is how many output tokens the first hold covers.
func (c *call) batchTokens() int64 {
	if c.rates.MostOf(c.meter.batch) > 0 {
		return c.meter.batch.N
	}
	return defaultBatch.N
}

// batchPrice is the most that one batch can cost.
func (c *call) batchPrice() ledger.Amount { return ledger.Amount(c.rates.MostOf(c.meter.batch)) }

// fitLimit cuts the answer that is asked for to what the caller's limit pays. The input alone must fit in.
func (c *call) fitLimit() *ledger.Refusal {
	exceeded := func(cost ledger.Amount) *ledger.Refusal {
		return refuse(limitExceeded, "the call can cost "+cost.String()+", more than its limit of "+c.limit.String(),
			"required", cost.String(), "limit", c.limit.String(), "currency", c.meter.app.Currency)
	}
	if c.fixed {
		if c.price > c.limit {
			return exceeded(c.price)
		}
		return nil
	}
	input := c.asked.InputTokens
	if cost := ledger.Amount(c.rates.MostFor(input, 1)); c.rates.UsesTokens() && cost > c.limit {
		return exceeded(cost)
	}
	low, high := int64(1), int64(1)<<40 // low fits, high is beyond what any answer has
	for high-low > 1 {
		mid := low + (high-low)/2
		if ledger.Amount(c.rates.MostFor(input, mid)) <= c.limit {
			low = mid
		} else {
			high = mid
		}
	}
	if c.asked.MaxOutput == 0 || c.asked.MaxOutput > low {
		if low < 1<<39 && c.asked.LimitOutput(low) && c.original != nil {
			setBody(c.request, c.asked.Body)
		}
	}
	return nil
}

// pattern names the way of paying, for the books.
func (c *call) pattern() string {
	switch {
	case c.fixed:
		return "per_call"
	case c.rates.UsesTokens():
		return "per_token"
	default:
		return "streaming"
	}
}

// yield hands the call to a meter further in: what this one holds goes back, and it charges nothing.
func (c *call) yield() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.yielded, c.settled = true, true
	if c.auth != nil {
		c.auth.Cancel()
	}
}

// leave ends the call: it is settled by now, or costs nothing.
func (c *call) leave() {
	c.mu.Lock()
	if c.auth != nil {
		c.auth.Cancel()
	}
	c.mu.Unlock()
	c.books.leave(c)
}

// readBody reads the request body, up to limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, *ledger.Refusal) {
	tooLarge := func() *ledger.Refusal {
		return refuse(tooLarge, "the request body has more bytes than are read to price it", "limit", formatInt(limit))
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	var beyond *http.MaxBytesError
	switch {
	case errors.As(err, &beyond):
		return nil, tooLarge()
	case err != nil:
		return nil, refuse(invalidRequest, "reading the request body: "+err.Error())
	}
	_ = r.Body.Close()
	return body, nil
}

// setBody makes body the request's, in a form that can be sent again.
func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	if r.Header.Get("Content-Length") != "" {
		r.Header.Set("Content-Length", formatInt(int64(len(body))))
	}
}

// keyHeaders are where clients put a provider's key, in the order in which they are looked at.
var keyHeaders = []string{"Tallygate-Key", "Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key"}

// takeKey finds the caller's key and takes it off the request, so that it never reaches the provider. Where it stands in
// Tallygate-Key, what else looks like a key is the provider's and passes, unless it is a Tallygate key too.
func takeKey(r *http.Request) string {
	var key string
	for _, name := range keyHeaders {
		value := r.Header.Get(name)
		if name == "Authorization" {
			scheme, token, _ := strings.Cut(value, " ")
			if !strings.EqualFold(scheme, "Bearer") {
				continue
			}
			value = strings.TrimSpace(token)
		}
		if value == "" {
			continue
		}
		if key == "" || escrow.IsKey(value) {
			r.Header.Del(name)
		}
		if key == "" || !escrow.IsKey(key) && escrow.IsKey(value) && name != "Tallygate-Key" {
			key = value
		}
	}
	if inQuery := takeQueryKey(r, key == ""); key == "" {
		key = inQuery
	}
	return key
}

// takeQueryKey takes ?key= off the URL, all of it if it is the caller's only key, else only where it is a Tallygate key. The
// other parameters stay as they are written.
func takeQueryKey(r *http.Request, only bool) string {
	if !strings.Contains(r.URL.RawQuery, "key=") {
		return ""
	}
	var key string
	var kept []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		value, is := strings.CutPrefix(pair, "key=")
		if is && (only || escrow.IsKey(value)) {
			if key == "" {
				key = value
			}
			continue
		}
		kept = append(kept, pair)
	}
	if key != "" {
		r.URL.RawQuery = strings.Join(kept, "&")
		r.RequestURI = r.URL.RequestURI()
	}
	return key
}

// terms are what a caller asks of its charge, in request headers.
type terms struct {
	escrow    string            // Tallygate-Escrow
	maxCharge ledger.Amount     // Tallygate-Max-Charge
	tags      map[string]string // Tallygate-Tag: team=x, run=7
}

const (
	maxTags      = 16
	maxTagLength = 128
)

// takeTerms reads the Tallygate-* request headers and takes them off: they are for us, not for the provider.
func takeTerms(h http.Header) (terms, *ledger.Refusal) {
	t := terms{escrow: h.Get("Tallygate-Escrow")}
	if s := h.Get("Tallygate-Max-Charge"); s != "" {
		amount, err := positive("Tallygate-Max-Charge", s)
		if err != nil {
			return t, refuse(invalidRequest, err.Error(), "field", "Tallygate-Max-Charge")
		}
		t.maxCharge = amount
	}
	for _, line := range h.Values("Tallygate-Tag") {
		for pair := range strings.SplitSeq(line, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if !ok || name == "" || len(pair) > maxTagLength || len(t.tags) == maxTags {
				return t, refuse(invalidRequest, "Tallygate-Tag "+quote(pair)+": expected NAME=VALUE, at most 16 of at most 128 bytes", "field", "Tallygate-Tag")
			}
			if t.tags == nil {
				t.tags = make(map[string]string)
			}
			t.tags[name] = value
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Tallygate-") {
			delete(h, name)
		}
	}
	return t, nil
}

// lowest is the lower of two limits, where 0 is none.
func lowest(a, b ledger.Amount) ledger.Amount {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
