package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
	"github.com/tallygate/tallygate/pricing"
)

// asked is a request that was understood: what is asked, and at which prices.
type asked struct {
	*arrival
	call   *meter.Call
	tariff *pricing.Tariff // the route's tariff for this caller at this hour; nil if the route has none
	at     time.Time       // whose prices the call has: when it arrived, or when what it fetches was asked for
	rates  *pricing.Rates  // nil if the call is free and the tariff has no prices for it
	dear   *pricing.Rates  // the most expensive prices of all models that the request names; they bound the call
	judged target          // where the request went when call was found; zero if the price does not depend on the request
	first  *meter.Call     // the call as it was found first, without its body and format; nil if judged is zero
	owed   []escrow.Debt   // what is to be paid before the call, since it names what was not paid in full
	limit  ledger.Amount   // the most that the caller and the provider let the call cost; 0: no limit
	// The call's name in the books and a digest of the request, if it has an Idempotency-Key.
	onceKey string
	digest  [32]byte
	paced   escrow.Paced // the rates against which the call counts
}

// understandAll finds out what the caller asks for, and names a call that may be made again.
func (a *arrival) understandAll() (*asked, *ledger.Refusal) {
	asked, refusal := a.understand()
	if refusal != nil {
		return nil, refusal
	}
	if refusal := asked.checkHead(); refusal != nil {
		return nil, refusal
	}
	if refusal := asked.digestRequest(); refusal != nil {
		return nil, refusal
	}
	return asked, nil
}

// understand finds out what is asked and what it costs. It reads the body only if the price depends on it.
func (a *arrival) understand() (*asked, *ledger.Refusal) {
	q := &asked{arrival: a, call: &meter.Call{Format: wire.Generic}, rates: a.route.Rates, dear: a.route.Rates, limit: lowest(a.route.MaxCharge, a.terms.maxCharge)}
	if !a.route.readsBody() && !q.mayBeTimed() && !q.needsModel() {
		return q, q.weigh()
	}
	q.pricedAt(a.gateway.book.Now())
	for _, step := range []func() *ledger.Refusal{q.read, q.checkOwned, q.findLater} {
		if refusal := step(); refusal != nil {
			return nil, refusal
		}
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

// pricedAt gives the call the prices of a time.
func (q *asked) pricedAt(at time.Time) {
	q.at, q.tariff = at, q.route.Tariff.Under(q.payer.Agent, at)
}

// asksOf gives a call for results, or for that from which they come, the prices of the time at which that was asked for, if it is known.
func (q *asked) asksOf(asked time.Time) {
	if asked.IsZero() || q.call.Once == "" && !q.call.Itemized && q.call.Stored.Tells == "" {
		return
	}
	q.pricedAt(asked)
}

// readClasses are classes that are counted only in answers of known APIs.
var readClasses = []meter.Class{meter.Second, meter.WebSearch, meter.MapsSearch, meter.FileSearch, meter.CodeSession, meter.ContainerMinute, meter.Citation, meter.Page, meter.SearchUnit}

// mayBeTimed reports whether a route without a tariff charges something that only answers of known APIs state, and the request's path may
// belong to such an API. On other paths a second is a second of the time that passed.
func (q *asked) mayBeTimed() bool {
	if !slices.ContainsFunc(readClasses, q.rates.Uses) || checkReading(q.request) != nil {
		return false
	}
	call, err := q.inspect(q.request, nil)
	return err != nil || call.API != ""
}

// findRates finds the prices of the requested model, and of the models that may answer in its place.
func (q *asked) findRates() *ledger.Refusal {
	dearest := int64(-1)
	for i, model := range append([]string{q.call.Model}, q.call.Models...) {
		rates, ok := q.tariff.For(model)
		if model == "" && len(q.call.Tools) > 0 {
			rates, ok = q.tariff.ForTools()
		}
		if model == "" && q.call.Talks { // the client names it, or the answer does: till then it may be any
			rates, ok = q.tariff.Dearest()
		}
		if !ok && model == "" && q.call.AnyModel { // the models that the answer names set the prices
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

// sample is a number of tokens of input and of output, at which the prices of models are compared.
const sample = 1000

// maxModel is how many bytes a model's name may have. It is limited because it is stored with the charge.
const maxModel = 256

// read reads the request's body, finds out what is asked, and prepares the request so that the answer can be counted.
func (q *asked) read() *ledger.Refusal {
	r := q.request
	if refusal := checkReading(r); refusal != nil {
		return refusal
	}
	if hasBody(r) && q.body == nil {
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
	q.call = call
	q.judge(call)
	if q.body != nil {
		setBody(r, call.Body)
	}
	if call.Itemized && !q.route.Shadow {
		call.Paid = q.paidResult
	}
	if call.Once != "" {
		q.id = onceID(q.route.Payee, q.payer.Agent, call.Once)
		dropRange(r.Header) // a part of the answer would be taken for the whole
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

// inspect returns what a request asks for, with its present method, path and query.
func (q *asked) inspect(r *http.Request, body []byte) (*meter.Call, error) {
	call, err := formats.Inspect(meter.Head{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header}, body)
	if err == nil && call.API == "" && q.route.Tariff.ToolsOnly() && len(body) == 0 && (r.Method == http.MethodGet || r.Method == http.MethodDelete) {
		call.Free = true // on any path, this is an MCP client that listens to its server or ends its session
	}
	return call, err
}

// checkPriced refuses a call without a price, so that nothing is free by accident.
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

// free reports whether the call costs nothing, whatever the answer is.
func (q *asked) free() bool {
	return q.call.Free && (q.rates == nil || !q.rates.Uses(meter.Calls))
}

// onceID is the request id of a result that is charged once, however often it is fetched.
func onceID(payee, payer, once string) string {
	sum := sha256.Sum256([]byte(payee + "\x00" + payer + "\x00" + once))
	return "req_once_" + hex.EncodeToString(sum[:16])
}

// digestRequest names a request with an Idempotency-Key, and computes its digest. The key belongs to the payer, the payee, the route and the
// path: elsewhere the same key is another one. Another request there with the same key has another digest.
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
	q.onceKey = q.scoped(q.terms.idempotencyKey)
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.Host), []byte(r.URL.RequestURI()), q.body} {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		sum.Write(part)
	}
	sum.Sum(q.digest[:0])
	return nil
}
