package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/probe"
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
	key     string // the caller's, as it came
	payer   escrow.Actor
	request *http.Request   // as it goes on to the provider
	client  context.Context // the client's: done when it has left
	asked   *meter.Call
	rates   *pricing.Rates
	terms   terms         // what the caller asks of its charge
	digest  [32]byte      // of the request, where it has an Idempotency-Key
	unpaid  bool          // nothing is held or charged: shadow mode, or the work of a milestone
	fixed   bool          // the price is known before the response
	price   ledger.Amount // if fixed
	limit   ledger.Amount // the most that the caller or the provider lets it cost; 0: no bound
	order   escrow.CallOrder
	auth    *escrow.Authorisation
	began   time.Time

	contentType string        // of the response
	score       *probe.Reader // of a score in the response
	copied      []byte        // the response's beginning, for a judge
	copiedCut   bool

	kept     *http.Response // of an earlier call under the same idempotency key, to be given again; its charge is charge
	original []byte         // the request body as it came in, where it was read; for a meter further in
	room     int64          // bytes taken of the room for bodies
	answer   []byte         // sealed, to be kept

	// mu guards what follows: a call is settled by its handler, or by the end of the process.
	mu        sync.Mutex
	counter   meter.Counter   // nil until a response that is charged begins
	quality   *escrow.Quality // what a complete answer was found worth
	settled   bool            // charged, or known to cost nothing
	aborted   bool            // given up by the end of the process: no further byte may go out
	yielded   bool            // a meter further in charges instead
	charge    escrow.Charge
	settleErr error
	status    int
	sent      bool          // bytes of the body have gone out
	covered   ledger.Amount // how much is authorised in all: held, or drawn already
	quota     int64         // how much of a subscription's unit is authorised, in millionths
	needed    ledger.Amount // how much of that the response may have cost by now
	drawn     int64         // batches drawn
	drawnAt   time.Time
	delivered *meter.Usage // what had gone out when the money ran out
	undrawn   bool         // a draw is on its way to the disk
}

type callKey struct{}

// admit takes a request through the steps before the provider: identify, inspect, bound, hold. What it refuses has changed
// nothing.
func (m *Meter) admit(r *http.Request) (*call, *ledger.Refusal) {
	c := &call{
		meter: m, books: m.app.books, book: m.app.book, logger: m.logger,
		id: m.app.book.NewRequestID(), began: time.Now(), request: r, client: r.Context(),
	}
	var refusal *ledger.Refusal
	outer, _ := r.Context().Value(callKey{}).(*call)
	if outer != nil {
		outer.yield()
		if outer.original != nil {
			setBody(r, outer.original)
		}
		c.key, c.terms = outer.key, outer.terms // which has taken them off the request already
		c.client = outer.client                 // which may have cut the request off from it
	} else {
		c.key = takeKey(r)
		c.terms, refusal = takeTerms(r.Header)
	}
	dropHTTPUpgrade(r.Header)
	dropOwnTrailers(r)
	if isEarly(r) {
		return c, refuseEarly()
	}
	if refusal := c.identify(r, outer); refusal != nil {
		return c, refusal
	}
	if refusal != nil {
		return c, refusal
	}
	if refusal := c.inspect(r); refusal != nil {
		return c, refusal
	}
	if refusal := c.digestRequest(r); refusal != nil {
		return c, refusal
	}
	c.limit = lowest(m.maxCharge, c.terms.maxCharge)
	if refusal := c.authorise(r); refusal != nil {
		return c, refusal
	}
	if c.reads() {
		// The transport asks for gzip itself then, and decodes what comes: usage can be read.
		r.Header.Del("Accept-Encoding")
		// Compressed messages of a WebSocket could not be read.
		r.Header.Del("Sec-Websocket-Extensions")
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
		if err := escrow.CheckAgentID("agent", agent); err != nil {
			return refuse(unauthorized, placeholder+": "+asRefusal(err).Detail)
		}
		c.payer = escrow.Actor{Agent: agent}
		return nil
	}
	if outer != nil && outer.payer.Agent != "" {
		c.payer = outer.payer
		return nil
	}
	if c.key == "" {
		return refuse(unauthorized, "no key: send your Tallygate key as 'Authorization: Bearer KEY', or where your client puts its provider key (x-api-key, x-goog-api-key, api-key), or as Tallygate-Key")
	}
	payer, err := c.book.Authenticate(c.key)
	if escrow.IsRefusal(err, escrow.Unauthorized) {
		if often := api.WrongKeys.Take(c.book.Claims(), clientHost(r)); often != nil {
			return asRefusal(often)
		}
	}
	if err != nil {
		return asRefusal(err)
	}
	c.payer = payer
	return nil
}

// digestRequest makes of a request with an Idempotency-Key what tells it from others.
func (c *call) digestRequest(r *http.Request) *ledger.Refusal {
	if c.terms.idempotencyKey == "" || c.free() {
		return nil
	}
	if c.original == nil && r.Body != nil && r.Body != http.NoBody {
		body, refusal := c.readBody(r)
		if refusal != nil {
			return refusal
		}
		c.original = body
		setBody(r, body)
	}
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.Host), []byte(r.URL.RequestURI()), c.original} {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		sum.Write(part)
	}
	sum.Sum(c.digest[:0])
	return nil
}

// inspect finds out what is asked and what it costs. It reads the body only where the price depends on it.
func (c *call) inspect(r *http.Request) *ledger.Refusal {
	c.asked = &meter.Call{Format: wire.Generic}
	if c.rates = c.meter.rates; c.rates != nil {
		price, fixed := c.rates.Fixed()
		c.price, c.fixed = ledger.Amount(price), fixed && c.meter.charges() && c.meter.Cost == nil
		if !c.rates.UsesTokens() && !c.rates.Uses(meter.ToolCall) {
			return nil
		}
	}
	if refusal := c.read(r); refusal != nil {
		return refusal
	}
	if c.meter.tariff != nil && !c.asked.Free {
		rates, ok := c.meter.tariff.For(c.asked.Model)
		if !ok {
			return refuse(noPrice, "the tariff has no price for model "+quote(c.asked.Model), "model", c.asked.Model)
		}
		c.rates = rates
	}
	return c.checkPriced(r)
}

// maxModel is how many bytes a model's name may have: it is kept with the charge.
const maxModel = 256

// read reads the request's body and what it asks for, and makes it measurable.
func (c *call) read(r *http.Request) *ledger.Refusal {
	if refusal := checkReading(r); refusal != nil {
		return refusal
	}
	var body []byte
	if r.Body != nil && r.Body != http.NoBody {
		var refusal *ledger.Refusal
		if body, refusal = c.readBody(r); refusal != nil {
			return refusal
		}
		c.original = body
	}
	asked, err := formats.Inspect(meter.Head{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header}, body)
	if err != nil {
		return refuse(invalidRequest, err.Error())
	}
	if asked.Malformed {
		return refuse(invalidRequest, "the body is not what "+asked.API+" takes: expected a JSON object", "field", "body")
	}
	if len(asked.Model) > maxModel {
		return refuse(invalidRequest, "the model's name has more than 256 bytes", "field", "model")
	}
	c.asked = asked
	if body != nil {
		setBody(r, asked.Body)
	}
	if asked.Once != "" {
		c.id = onceID(c.meter.Payee, c.payer.Agent, asked.Once)
		r.Header.Del("Range") // a part of it would pass for the whole
		r.Header.Del("If-Range")
	}
	return nil
}

// checkPriced refuses what has no price, so that nothing is free by accident.
func (c *call) checkPriced(r *http.Request) *ledger.Refusal {
	unpriced := refuse(noPrice, r.Method+" "+r.URL.Path+" is not a call whose units can be counted, so it has no price")
	switch {
	case c.free() && leavesHTTP(r):
		return unpriced
	case c.rates == nil || c.rates.Uses(meter.Calls) || c.asked.Free:
		return nil
	case c.asked.API == "":
		return unpriced
	}
	for _, tool := range c.asked.Tools {
		if !c.rates.PricesTool(tool) {
			return refuse(noPrice, "tool "+quote(tool)+" has no price", "tool", tool)
		}
	}
	return nil
}

// reads reports whether the response's body must be readable here.
func (c *call) reads() bool {
	q := c.meter.Quality
	return !c.fixed || q != nil && (q.From == scoreJSON || q.From == scoreHTTP)
}

// onceID is the request id of a result that is charged once, however often it is fetched.
func onceID(payee, payer, once string) string {
	sum := sha256.Sum256([]byte(payee + "\x00" + payer + "\x00" + once))
	return "req_once_" + hex.EncodeToString(sum[:16])
}

// authorise holds the most that the call can cost before more is asked for: its input and the first batch of its output.
func (c *call) authorise(r *http.Request) *ledger.Refusal {
	if c.free() {
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
		From: escrow.FromWallet, Tags: c.terms.tags,
	}
	if c.meter.fromEscrow() {
		order.From, order.Escrow = escrow.FromEscrow, c.terms.escrow
		order.Open, order.OpenFor = c.meter.open, c.meter.openFor()
	}
	if c.terms.idempotencyKey != "" {
		order.IdempotencyKey, order.Digest = c.terms.idempotencyKey, c.digest
	}
	if c.terms.milestone != "" {
		order.From, order.Escrow, order.Milestone = escrow.FromEscrow, c.terms.escrow, c.terms.milestone
		c.unpaid = true
	}
	if c.meter.shadow() {
		order.Shadow, c.unpaid = true, true
	}
	if s := c.meter.Subscription; s != nil && !c.unpaid {
		s.order(c, &order)
		c.quota = order.Quota
	}
	c.order = order
	auth, err := c.book.Authorise(r.Context(), order)
	if err != nil {
		refusal := asRefusal(err)
		if refusal.Outcome == escrow.IdempotencyConflict && c.keeps() {
			c.kept, c.charge = c.again(refusal.Fields["request_id"])
		}
		return refusal
	}
	c.auth = auth
	c.fixed = c.fixed && !c.unpaid
	if c.meter.Subscription == nil && !c.unpaid && !c.asked.Stream && c.rates.UsesTokens() {
		// An answer that comes whole goes out whole: it must not cost more than there is.
		c.fitOutput(auth.Held() + auth.Available())
	}
	if held := auth.Held(); c.meter.durable >= 0 && held > c.meter.durable {
		auth.Draw(held, false)
		if err := auth.Await(); err != nil {
			auth.Cancel()
			return asRefusal(err)
		}
	}
	return nil
}

// free reports whether the call costs nothing, whatever is answered.
func (c *call) free() bool {
	return c.asked.Free && (c.rates == nil || !c.rates.Uses(meter.Calls))
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
	if c.rates.UsesTokens() && c.asked.API != "" {
		first := c.batchTokens()
		if c.asked.InputOnly {
			first, output = 0, 0
		}
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
	if len(c.asked.Tools) > 0 {
		most, _ := c.rates.Most(toolUsage(c.asked.Tools))
		return ledger.Amount(most), ledger.Amount(most)
	}
	one := ledger.Amount(c.rates.MostFor(0, 0))
	for _, class := range c.rates.Charged() {
		if class != meter.Calls {
			one += ledger.Amount(c.rates.MostOf(pricing.Measure{N: 1, Unit: string(class)}))
		}
	}
	return max(one, c.batchPrice()), max(one, c.batchPrice())
}

// toolUsage is the usage of a request whose tool calls all succeed.
func toolUsage(tools []string) meter.Usage {
	usage := meter.Usage{Tools: make(map[string]int64), Units: meter.Units{meter.Calls: meter.Whole(1), meter.ToolCall: meter.Whole(int64(len(tools)))}}
	for _, tool := range tools {
		usage.Tools[tool]++
	}
	return usage
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
	if cost := ledger.Amount(c.rates.MostFor(c.asked.InputTokens, 1)); c.rates.UsesTokens() && cost > c.limit {
		return exceeded(cost)
	}
	c.fitOutput(c.limit)
	return nil
}

// everyModelTakes is a bound of output tokens that no model is too small for: providers refuse a bound that their model does
// not reach.
const everyModelTakes = 4096

// fitOutput cuts the answer that is asked for to what an amount pays. Where neither the request nor the tariff says how long
// it can get (max_output), it is left alone unless little is to be had.
func (c *call) fitOutput(amount ledger.Amount) {
	low, high := int64(1), int64(1)<<40 // low fits, high is beyond what any answer has
	for high-low > 1 {
		mid := low + (high-low)/2
		if ledger.Amount(c.rates.MostFor(c.asked.InputTokens, mid)) <= amount {
			low = mid
		} else {
			high = mid
		}
	}
	bound := c.asked.MaxOutput
	if bound == 0 {
		bound = c.rates.MaxOutput()
	}
	if bound > low || bound == 0 && low <= everyModelTakes {
		if c.asked.LimitOutput(low) && c.original != nil {
			setBody(c.request, c.asked.Body)
		}
	}
}

// pattern names the way of paying, for the books.
func (c *call) pattern() string {
	_, perCall := c.rates.Fixed()
	switch {
	case perCall:
		return "per_call"
	case c.rates.UsesTokens():
		return "per_token"
	default:
		return "per_unit"
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
		if c.charge.RequestID == "" && c.settleErr == nil && c.books.ledger.Err() != nil {
			c.books.unknown(c.abandoned()) // what it has drawn can't be given back now
		}
		c.auth.Cancel()
	}
	c.mu.Unlock()
	c.books.leave(c)
}

// lowest is the lower of two limits, where 0 is none.
func lowest(a, b ledger.Amount) ledger.Amount {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
