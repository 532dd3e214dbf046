package gateway

import (
	"maps"
	"slices"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Some units are in the request itself: the characters that are to be spoken, the images and the seconds of video that are asked for, and
// the bytes of the body. They are known before the call, and count as used when the provider has answered.

// weigh counts the bytes of the request's body, if they are charged. It reads a body that has no stated length.
func (q *asked) weigh() *ledger.Refusal {
	r := q.request
	if q.rates == nil || !q.rates.Prices(meter.InputByte) {
		return nil
	}
	if leavesHTTP(r) && !q.rates.Uses(meter.Calls) {
		return refuse(api.NoPrice, "what goes into a connection that leaves HTTP can't be counted, so it has no price")
	}
	if !hasBody(r) {
		return nil
	}
	if q.body == nil && r.ContentLength < 0 {
		if refusal := q.readBody(); refusal != nil {
			return refusal
		}
		setBody(r, q.body)
	}
	length := r.ContentLength
	if q.body != nil {
		length = int64(len(q.body)) // as it arrived
	}
	asked := maps.Clone(q.call.Asked)
	if asked == nil {
		asked = meter.Units{}
	}
	asked[meter.InputByte] = meter.Whole(length)
	q.call.Asked = asked
	return nil
}

// checkAsked refuses a call if its request must state units that it does not state.
func (q *asked) checkAsked() *ledger.Refusal {
	if q.rates == nil || q.call.Free {
		return nil
	}
	class := q.call.Unsaid
	switch {
	case class != "" && q.rates.Prices(class):
		return refuse(api.NoPrice, "the price is per "+string(class)+", and the request does not say how many: say it in the body", "unit", string(class))
	case q.rates.Uses(meter.Calls), slices.ContainsFunc(q.call.Tells, q.rates.Uses):
		return nil
	case q.call.Mute && !q.usesAnyAsked() && (q.rates.Uses(meter.Output) || q.rates.Uses(meter.AudioOutput)):
		return refuse(api.NoPrice, "an answer of sound alone does not state its tokens, so it has no price: ask for stream_format sse; the provider can price it per input_character", "field", "stream_format")
	case q.call.API != "" && !q.call.Timed && !leavesHTTP(q.request) && slices.Equal(q.rates.Charged(), []meter.Class{meter.Second}):
		return refuse(api.NoPrice, q.request.Method+" "+q.request.URL.Path+" is not a call whose seconds can be counted, so it has no price; the provider can price it per elapsed_second")
	case q.call.ByAsked && !q.usesAnyAsked(), q.rates.PricesAsked() && q.rates.OnlyAsked() && !q.usesAnyAsked():
		return refuse(api.NoPrice, q.request.Method+" "+q.request.URL.Path+" asks for nothing that has a price")
	}
	return nil
}

// usesAnyAsked reports whether anything that a request asks for has a price.
func (q *asked) usesAnyAsked() bool {
	for class := range q.call.Asked {
		if q.rates.Prices(class) {
			return true
		}
	}
	return false
}

// addAsked adds the units that the request asks for. Of the images that are asked for, and those that the answer has, the larger number counts.
func (q *asked) addAsked(units meter.Units) {
	for class, quantity := range q.call.Asked {
		switch {
		case !q.rates.Prices(class):
			delete(units, class)
		case class == meter.AskedImage:
			units[class] = max(units[class], quantity)
		default:
			units.Add(class, quantity)
		}
	}
}

// beyondCall is the most that the units in the request can cost, without the price of the call. It is rounded up once more, so it may be a
// nano too high.
func (q *asked) beyondCall() ledger.Amount {
	units := meter.Units{}
	q.addAsked(units)
	nano, _ := q.dear.Most(meter.Usage{Units: units})
	return ledger.Amount(nano)
}

// askedPrice is the most that the units in the request can cost, including the price of the call.
func (q *asked) askedPrice() ledger.Amount {
	units := meter.Units{meter.Calls: meter.Whole(1)}
	q.addAsked(units)
	nano, _ := q.dear.Most(meter.Usage{Units: units})
	return ledger.Amount(nano)
}
