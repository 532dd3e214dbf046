package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
	"github.com/tallygate/tallygate/pricing"
)

// asked is a request, understood: what is asked, and the prices of that.
type asked struct {
	*arrival
	call   *meter.Call
	tariff *pricing.Tariff // the route's, as it is for this caller at this hour; nil where it has none
	rates  *pricing.Rates  // nil where the call is free and the tariff has none for it
	dear   *pricing.Rates  // those by which the call is bounded: the dearest of all models that it names
	judged target          // where the request went when call was found; zero where the body was not to be read
	first  meter.Call      // the call as it was found, without its body and format
	limit  ledger.Amount   // the most that the caller or the provider lets it cost; 0: no bound
	digest [32]byte        // of the request, where it has an Idempotency-Key
}

// understand finds out what is asked and what it costs. It reads the body only where the price depends on it.
func (a *arrival) understand() (*asked, *ledger.Refusal) {
	q := &asked{arrival: a, call: &meter.Call{Format: wire.Generic}, rates: a.route.Rates, dear: a.route.Rates, limit: lowest(a.route.MaxCharge, a.terms.maxCharge)}
	if !a.route.readsBody() && !q.mayBeTimed() {
		return q, q.weigh()
	}
	q.tariff = a.route.Tariff.Under(a.payer.Agent, a.gateway.book.Now())
	if refusal := q.read(); refusal != nil {
		return nil, refusal
	}
	if refusal := q.findLater(); refusal != nil {
		return nil, refusal
	}
	if q.tariff != nil && !q.call.Free {
		if refusal := q.findRates(); refusal != nil {
			return nil, refusal
		}
	}
	if refusal := q.weigh(); refusal != nil {
		return nil, refusal
	}
	for _, check := range []func() *ledger.Refusal{q.checkPriced, q.checkAsked, q.checkLater} {
		if refusal := check(); refusal != nil {
			return nil, refusal
		}
	}
	return q, nil
}

// readClasses are classes that are counted only in answers of APIs that are known.
var readClasses = []meter.Class{meter.Second, meter.WebSearch, meter.MapsSearch, meter.FileSearch, meter.CodeSession, meter.Citation, meter.Page, meter.SearchUnit}

// mayBeTimed reports whether a route that has one price for all calls has it by what only answers of known APIs state, and the path is one of
// those. A second of any other path is one of the clock.
func (q *asked) mayBeTimed() bool {
	if !slices.ContainsFunc(readClasses, q.rates.Uses) || checkReading(q.request) != nil {
		return false
	}
	call, err := q.inspect(q.request, nil)
	return err != nil || call.API != ""
}

// findRates finds the prices of the model that is asked for, and of those that may answer in its place.
func (q *asked) findRates() *ledger.Refusal {
	dearest := int64(-1)
	for i, model := range append([]string{q.call.Model}, q.call.Models...) {
		rates, ok := q.tariff.For(model)
		if model == "" && q.call.Talks { // the client names it, or the answer does: till then it may be any
			rates, ok = q.tariff.Dearest()
		}
		if !ok && model == "" && q.call.AnyModel { // they are priced by the models that the answer names
			rates, ok = q.tariff.Dearest()
		}
		if !ok {
			return refuse(api.NoPrice, "the tariff has no price for model "+strconv.Quote(model), "model", model)
		}
		if i == 0 {
			q.rates = rates
		}
		if tier := q.call.ServiceTier; q.route.Cost == nil && !rates.PricesTier(tier) {
			return refuse(api.NoPrice, "the tariff has no price for the service tier "+strconv.Quote(tier)+" of model "+strconv.Quote(model)+
				": ask for the standard tier; the provider can add `service "+tier+" { ... }` to the model", "model", model, "service_tier", tier)
		}
		if most := rates.MostFor(sample, sample); most > dearest {
			q.dear, dearest = rates, most
		}
	}
	return nil
}

// sample is how many tokens of input and of output models are compared by.
const sample = 1000

// maxModel is how many bytes a model's name may have: it is kept with the charge.
const maxModel = 256

// read reads the request's body and what it asks for, and makes it measurable.
func (q *asked) read() *ledger.Refusal {
	r := q.request
	if refusal := checkReading(r); refusal != nil {
		return refusal
	}
	if hasBody(r) {
		if refusal := q.readBody(); refusal != nil {
			return refusal
		}
	}
	call, err := q.inspect(r, q.body)
	if err != nil {
		return unreadableRequest(err)
	}
	if call.Malformed {
		return refuse(escrow.InvalidRequest, "the body is not what "+call.API+" takes: expected a JSON object", "field", "body")
	}
	if len(call.Model) > maxModel {
		return refuse(escrow.InvalidRequest, "the model's name has more than 256 bytes", "field", "model")
	}
	q.call, q.judged, q.first = call, targetOf(r), *call
	q.first.Body, q.first.Format = nil, nil
	if q.body != nil {
		setBody(r, call.Body)
	}
	if call.Once != "" {
		q.id = onceID(q.route.Payee, q.payer.Agent, call.Once)
		r.Header.Del("Range") // a part of it would pass for the whole
		r.Header.Del("If-Range")
	}
	return nil
}

// unreadableRequest refuses what package formats can't meter.
func unreadableRequest(err error) *ledger.Refusal {
	if ambiguous := (*meter.AmbiguousError)(nil); errors.As(err, &ambiguous) {
		return refuse(api.AmbiguousRequest, ambiguous.Error(), "field", ambiguous.Field)
	}
	if later := (*meter.LaterError)(nil); errors.As(err, &later) {
		return refuse(escrow.InvalidRequest, later.Error(), "field", later.Field)
	}
	return refuse(escrow.InvalidRequest, err.Error())
}

// inspect tells what a request asks for, as its method, path and query now are.
func (q *asked) inspect(r *http.Request, body []byte) (*meter.Call, error) {
	call, err := formats.Inspect(meter.Head{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header}, body)
	if err == nil && call.API == "" && q.route.Tariff.ToolsOnly() && len(body) == 0 && (r.Method == http.MethodGet || r.Method == http.MethodDelete) {
		call.Free = true // an MCP client listens to its server, or ends its session, wherever that is
	}
	return call, err
}

// checkPriced refuses what has no price, so that nothing is free by accident.
func (q *asked) checkPriced() *ledger.Refusal {
	r := q.request
	unpriced := refuse(api.NoPrice, r.Method+" "+r.URL.Path+" is not a call whose units can be counted, so it has no price")
	switch {
	case q.free() && leavesHTTP(r):
		return unpriced
	case q.rates == nil || q.rates.Uses(meter.Calls) || q.call.Free:
		return nil
	case q.call.API == "":
		return unpriced
	}
	for _, tool := range q.call.Tools {
		if !q.rates.PricesTool(tool) {
			return refuse(api.NoPrice, "tool "+strconv.Quote(tool)+" has no price", "tool", tool)
		}
	}
	return nil
}

// free reports whether the call costs nothing, whatever is answered.
func (q *asked) free() bool {
	return q.call.Free && (q.rates == nil || !q.rates.Uses(meter.Calls))
}

// onceID is the request id of a result that is charged once, however often it is fetched.
func onceID(payee, payer, once string) string {
	sum := sha256.Sum256([]byte(payee + "\x00" + payer + "\x00" + once))
	return "req_once_" + hex.EncodeToString(sum[:16])
}

// digestRequest computes, of a request with an Idempotency-Key, what tells it from others under the same key.
func (q *asked) digestRequest() *ledger.Refusal {
	r := q.request
	if q.terms.idempotencyKey == "" || q.free() {
		return nil
	}
	if q.body == nil && hasBody(r) {
		if refusal := q.readBody(); refusal != nil {
			return refusal
		}
		setBody(r, q.body)
	}
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.Host), []byte(r.URL.RequestURI()), q.body} {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		sum.Write(part)
	}
	sum.Sum(q.digest[:0])
	return nil
}
