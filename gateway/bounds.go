package gateway

import (
	"net/http"
	"slices"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// This file computes what a call can cost, before it is made.

// fixed returns the price of the call if it is certain before the answer, whatever the answer is.
func (q *asked) fixed() (price ledger.Amount, ok bool) {
	if q.route.Rates == nil || q.route.Quality != nil || q.route.Cost != nil || !q.route.payment().charges() {
		return 0, false
	}
	nano, ok := q.route.Rates.Fixed()
	return ledger.Amount(nano), ok
}

// bounds are what a call can cost.
type bounds struct {
	least   ledger.Amount // without this much the call does not start
	hold    ledger.Amount // held before the call starts, if available; for an answer that comes whole, all that it can cost
	most    ledger.Amount // if bounded: the most that the call can cost, whatever the answer is
	bounded bool
}

// bounds returns what the call can cost, as far as that is known.
func (q *asked) bounds() bounds {
	if nano, ok := q.rates.Fixed(); ok {
		price := ledger.Amount(nano)
		return bounds{price, price, price, q.route.Cost == nil}
	}
	if q.rates.OnlyCalls() {
		price := ledger.Amount(q.dear.MostFor(0, 0))
		return bounds{price, price, price, q.route.Cost == nil}
	}
	if q.rates.OnlyAsked() {
		price := q.askedPrice()
		return bounds{price, price, price, q.route.Cost == nil}
	}
	if q.rates.UsesTokens() && q.call.API != "" {
		return q.tokenBounds().plus(q.beyondCall())
	}
	if len(q.call.Tools) > 0 {
		nano, _ := q.dear.Most(toolUsage(q.call.Tools))
		price := ledger.Amount(nano)
		return bounds{price, price, price, q.route.Cost == nil}
	}
	one := ledger.Amount(q.dear.MostFor(0, 0))
	for _, class := range q.rates.Charged() {
		if _, asked := q.call.Asked[class]; class != meter.Calls && !asked {
			one += ledger.Amount(q.dear.MostOf(pricing.Measure{N: 1, Unit: string(class)}))
		}
	}
	if q.call.Length > 0 && q.rates.Uses(meter.Second) {
		nano, _ := q.dear.Most(meter.Usage{Units: meter.Units{meter.Calls: meter.Whole(1), meter.Second: q.call.Length}})
		one = max(one, ledger.Amount(nano))
	}
	least := max(one, q.batchPrice()) + q.beyondCall()
	return bounds{least: least, hold: least}
}

// plus returns the bounds of a call that costs an amount more.
func (b bounds) plus(amount ledger.Amount) bounds {
	b.least, b.hold, b.most = b.least+amount, b.hold+amount, b.most+amount
	return b
}

// tokenBounds returns the bounds of a call that is paid by tokens: least is its input and the first batch of its output. If the answer
// comes whole, least covers the lowest limit that the provider accepts too, and all of the output is held.
func (q *asked) tokenBounds() bounds {
	input, output := q.call.InputTokens, q.maxOutput()
	first := q.batchTokens()
	if !q.inParts() { // nothing cuts the answer but the limit that the request gets, see prepay
		first = max(first, q.call.LeastOutput())
	}
	if q.call.InputOnly || q.call.Talks && q.call.Model == "" { // or before the client has named a model: see talk
		first, output = 0, 0
	} else if output > 0 {
		first = min(first, output)
	}
	b := bounds{least: ledger.Amount(q.dear.MostFor(input, first))}
	b.most = max(b.least, ledger.Amount(q.dear.MostFor(input, output)))
	if b.hold = b.most; q.inParts() {
		b.hold = b.least
	}
	b.bounded = q.route.Cost == nil && !q.call.InputOpen && (q.call.InputOnly || q.call.MaxOutput > 0)
	return b
}

// inParts reports whether the answer is paid as it comes, and may be cut: a stream of which nobody can read the rest later.
func (q *asked) inParts() bool { return q.call.Stream && !q.call.Stays }

// DefaultMaxOutput is how many output tokens an answer that comes whole may have, if neither the request nor the tariff or its catalog
// states a limit. It is small because providers refuse a limit that is higher than their model's own.
const DefaultMaxOutput = 4096

// maxOutput is how many output tokens the answer may have: the limit in the request, otherwise that of the tariff or its catalog,
// otherwise, if the answer comes whole, [DefaultMaxOutput] for each choice. It is 0 for a stream without any limit.
func (q *asked) maxOutput() int64 {
	switch most := q.dear.MaxOutput(); {
	case q.call.MaxOutput > 0:
		return q.call.MaxOutput
	case most > 0:
		return most
	case q.inParts():
		return 0
	default:
		return DefaultMaxOutput * max(1, q.call.Choices)
	}
}

// shareOfUnbounded is the divisor that share returns for a request without a limit of its output.
const shareOfUnbounded = 8

// share returns the divisor of the available money that the call may hold beyond its least, see [escrow.CallOrder]. The whole price of an
// answer that comes whole is held. A request that does not limit its output is held for the longest output, which it will hardly use. So
// one of several calls at the same time could take all the money, and the others would be refused. A request that states a limit may hold
// everything, since it probably needs it.
func (q *asked) share() int {
	if q.call.API == "" || !q.rates.UsesTokens() || q.call.InputOnly || q.inParts() || q.call.MaxOutput > 0 {
		return 1
	}
	return shareOfUnbounded
}

// toolUsage is the usage of a request all of whose tool calls succeed.
func toolUsage(tools []string) meter.Usage {
	usage := meter.Usage{Tools: make(map[string]int64), Units: meter.Units{meter.Calls: meter.Whole(1), meter.ToolCall: meter.Whole(int64(len(tools)))}}
	for _, tool := range tools {
		usage.Tools[tool]++
	}
	return usage
}

// batchTokens is how many output tokens the first hold covers.
func (q *asked) batchTokens() int64 {
	if batch := q.route.batch(); q.dear.MostOf(batch) > 0 {
		return batch.N
	}
	return defaultBatch.N
}

// batchPrice is the most that one batch can cost.
func (q *asked) batchPrice() ledger.Amount { return ledger.Amount(q.dear.MostOf(q.route.batch())) }

// fitLimit makes sure that the call stays within its limit: because it can't cost more, or by limiting the output that is asked for, or
// because the stream can be cut exactly. If a caller's limit can't be kept in any of these ways, the call is refused. Otherwise the answer
// might have to be withheld at the end, and the provider would have worked for nothing.
func (q *asked) fitLimit() *ledger.Refusal {
	b := q.bounds()
	if b.bounded && b.most <= q.limit {
		return nil
	}
	if !q.rates.UsesTokens() || q.call.API == "" {
		switch {
		case b.least > q.limit:
			return q.exceeded(b.least)
		case b.bounded:
			return q.exceeded(b.most)
		case q.terms.maxCharge == 0 || q.cutsExactly():
			return nil
		}
		return q.unbounded()
	}
	if cost := ledger.Amount(q.dear.MostFor(q.call.InputTokens, 1)) + q.beyondCall(); cost > q.limit {
		return q.exceeded(cost)
	}
	if !q.call.InputOpen && q.route.Cost == nil && q.fitOutput(q.limit) || q.terms.maxCharge == 0 {
		return nil
	}
	return q.unbounded()
}

// cutsExactly reports whether everything that is charged is counted exactly while it passes, so that an answer can be cut at any amount.
func (q *asked) cutsExactly() bool {
	if q.route.Cost != nil {
		return false
	}
	for _, class := range q.rates.Charged() {
		if class != meter.Calls && class != meter.Event && class != meter.Byte {
			return false
		}
	}
	return true
}

// pricesParts reports whether a part of the answer is charged as what it is: by its bytes and events, by the call, or by what the request says.
// All else the answer says itself, in one place of its body.
func (q *asked) pricesParts() bool {
	if q.route.Cost != nil || q.route.Quality != nil {
		return false
	}
	counted := func(class meter.Class) bool {
		return everyAnswerHas(class) || class == meter.Elapsed || class == meter.Second && q.call.API == "" && !q.call.Timed || pricing.IsAsked(class)
	}
	if plan, ok := q.route.Payment.(*Subscription); ok && plan.Included != nil && !slices.ContainsFunc(partClasses, func(class meter.Class) bool { return counted(class) && plan.counts(class) }) {
		return false
	}
	return !slices.ContainsFunc(q.rates.Charged(), func(class meter.Class) bool { return !counted(class) })
}

// partClasses are those that may be counted in a part of an answer.
var partClasses = []meter.Class{meter.Calls, meter.Event, meter.Byte, meter.Elapsed, meter.Second,
	meter.InputCharacter, meter.AskedImage, meter.AskedSecond, meter.InputByte}

// tellsInBody reports whether the answer says in its body what it costs: until it has been read, nobody knows.
func (q *asked) tellsInBody() bool {
	if q.route.Shadow {
		return false
	}
	plan, _ := q.route.Payment.(*Subscription)
	for _, count := range q.route.Counts {
		if count.Probe.InBody() && (q.rates.Uses(count.Class) || plan.counts(count.Class)) {
			return true
		}
	}
	return q.route.Cost != nil && slices.ContainsFunc(q.route.Cost.Probes, (*probe.Probe).InBody)
}

// checkHead refuses a call whose answer has no body, where nothing but the body says what it costs: the provider would work for nothing.
func (q *asked) checkHead() *ledger.Refusal {
	if q.request.Method != http.MethodHead || !q.tellsInBody() || !q.paidBy(q.route.ownUnits()...) {
		return nil
	}
	return refuse(api.NoPrice, "HEAD has no price here: only the body of an answer says what it costs; use GET")
}

// exceeded refuses a call that can cost more than its limit.
func (q *asked) exceeded(cost ledger.Amount) *ledger.Refusal {
	return refuse(escrow.LimitExceeded, "the call can cost "+cost.String()+", more than its limit of "+q.limit.String(),
		"required", cost.String(), "most", cost.String(), "limit", q.limit.String(), "currency", q.gateway.book.Currency())
}

// unbounded refuses a call whose limit can't be kept.
func (q *asked) unbounded() *ledger.Refusal {
	return refuse(escrow.LimitExceeded, "what this call costs is known only from its answer, so that a limit can't be kept: leave Tallygate-Max-Charge out, or ask for a stream, or a bounded output; the provider can bound the route by max_charge",
		"unbounded", "true", "limit", q.limit.String(), "currency", q.gateway.book.Currency())
}

// fitOutput limits the output that is asked for to what an amount pays, and to what the request allows anyway. It writes the limit into the
// request, so that the provider keeps to it. It returns false if the request has no field for a limit. The request for a stream without any
// limit is changed only if there is little money.
func (q *asked) fitOutput(amount ledger.Amount) bool {
	if q.call.InputOnly {
		return true
	}
	amount -= q.beyondCall()
	bound := q.maxOutput()
	high := int64(longestOutput)
	if bound > 0 {
		high = min(high, bound)
	}
	most := mostOutput(high, func(n int64) bool { return ledger.Amount(q.dear.MostFor(q.call.InputTokens, n)) <= amount })
	if bound == 0 && most > DefaultMaxOutput {
		return true
	}
	return q.limitOutput(most)
}

// longestOutput is more output tokens than any answer has.
const longestOutput = 1<<40 - 1

// mostOutput returns the highest number of output tokens that fits, up to high. 1 token fits. Mostly all of high fits, since most callers have
// more money than one call can cost.
func mostOutput(high int64, fits func(n int64) bool) int64 {
	if fits(high) {
		return high
	}
	low := int64(1)
	for high-low > 1 {
		if mid := low + (high-low)/2; fits(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// limitOutput writes a limit of the output into the request. It returns false if the request has no field for a limit.
func (q *asked) limitOutput(n int64) bool {
	if !q.call.LimitOutput(n) {
		return false
	}
	if q.body != nil {
		setBody(q.request, q.call.Body)
	}
	return true
}

// lowest returns the lower of two limits. 0 means no limit.
func lowest(a, b ledger.Amount) ledger.Amount {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
