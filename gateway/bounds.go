package gateway

import (
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// What a call can cost, before it is made.

// fixed is the price of the call where it is certain before the answer, whatever that is.
func (q *asked) fixed() (price ledger.Amount, ok bool) {
	if q.route.Rates == nil || q.route.Quality != nil || q.route.Cost != nil || !q.route.payment().charges() {
		return 0, false
	}
	nano, ok := q.route.Rates.Fixed()
	return ledger.Amount(nano), ok
}

// bounds tells the least that must be held before the call starts, and the most that is worth holding.
func (q *asked) bounds() (least, most ledger.Amount) {
	if price, ok := q.fixed(); ok {
		return price, price
	}
	if q.rates.UsesTokens() && q.call.API != "" {
		return q.tokenBounds()
	}
	if len(q.call.Tools) > 0 {
		most, _ := q.rates.Most(toolUsage(q.call.Tools))
		return ledger.Amount(most), ledger.Amount(most)
	}
	one := ledger.Amount(q.rates.MostFor(0, 0))
	for _, class := range q.rates.Charged() {
		if class != meter.Calls {
			one += ledger.Amount(q.rates.MostOf(pricing.Measure{N: 1, Unit: string(class)}))
		}
	}
	least = max(one, q.batchPrice())
	return least, least
}

// tokenBounds are those of a call that is paid by tokens: its input and the first batch of its output, and all of its output.
func (q *asked) tokenBounds() (least, most ledger.Amount) {
	input, output := q.call.InputTokens, q.maxOutput()
	first := q.batchTokens()
	if q.call.InputOnly {
		first, output = 0, 0
	}
	if output > 0 {
		first = min(first, output)
	}
	least = ledger.Amount(q.rates.MostFor(input, first))
	most = least
	if !q.call.Stream && output > 0 {
		most = max(most, ledger.Amount(q.rates.MostFor(input, output)))
	}
	return least, most
}

// maxOutput is how many output tokens the answer has at most: as the request says, else the tariff; 0 where neither does.
func (q *asked) maxOutput() int64 {
	if q.call.MaxOutput > 0 {
		return q.call.MaxOutput
	}
	return q.rates.MaxOutput()
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
func (q *asked) batchTokens() int64 {
	if batch := q.route.batch(); q.rates.MostOf(batch) > 0 {
		return batch.N
	}
	return defaultBatch.N
}

// batchPrice is the most that one batch can cost.
func (q *asked) batchPrice() ledger.Amount { return ledger.Amount(q.rates.MostOf(q.route.batch())) }

// fitLimit cuts the answer that is asked for to what the call's limit pays. The input alone must fit in.
func (q *asked) fitLimit() *ledger.Refusal {
	exceeded := func(cost ledger.Amount) *ledger.Refusal {
		return refuse(escrow.LimitExceeded, "the call can cost "+cost.String()+", more than its limit of "+q.limit.String(),
			"required", cost.String(), "limit", q.limit.String(), "currency", q.gateway.book.Currency())
	}
	if price, ok := q.fixed(); ok {
		if price > q.limit {
			return exceeded(price)
		}
		return nil
	}
	if cost := ledger.Amount(q.rates.MostFor(q.call.InputTokens, 1)); q.rates.UsesTokens() && cost > q.limit {
		return exceeded(cost)
	}
	q.fitOutput(q.limit)
	return nil
}

// everyModelTakes is a bound of output tokens that no model is too small for: providers refuse a bound that their model does
// not reach.
const everyModelTakes = 4096

// fitOutput cuts the answer that is asked for to what an amount pays. Where neither the request nor the tariff says how long
// it can get (max_output), it is left alone unless little is to be had.
func (q *asked) fitOutput(amount ledger.Amount) {
	low, high := int64(1), int64(1)<<40 // low fits, high is beyond what any answer has
	for high-low > 1 {
		mid := low + (high-low)/2
		if ledger.Amount(q.rates.MostFor(q.call.InputTokens, mid)) <= amount {
			low = mid
		} else {
			high = mid
		}
	}
	bound := q.maxOutput()
	if bound > low || bound == 0 && low <= everyModelTakes {
		if q.call.LimitOutput(low) && q.body != nil {
			setBody(q.request, q.call.Body)
		}
	}
}

// lowest is the lower of two limits, where 0 is none.
func lowest(a, b ledger.Amount) ledger.Amount {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
