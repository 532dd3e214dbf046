package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// admitted is a call that may be made: the money that it needs first is set aside.
type admitted struct {
	*asked
	pay    payment
	within string // the word for requests that belong to the call; empty if there can be none
	done   func() // lets the next call go on that waits for this one; nil until the call runs
	hangUp func() // ends the upstream's context; nil if it ends with the client's
	// readsOn says that an answer is read on when its client has left.
	readsOn bool
	shadow  *shadowing // in shadow mode
	talk    *talk      // what the client says over the connection that the call opens; nil where it says nothing that bears on the price

	// mu guards the fields below, because a call is settled by its handler or by the end of the process.
	mu      sync.Mutex
	answer  *counting       // nil until an answer that is charged begins
	end     *settled        // nil while the call runs
	aborted bool            // the process ends: nothing more may be sent
	yielded bool            // an inner meter charges instead
	seen    bool            // a handler has called MaySend
	barred  *ledger.Refusal // the refusal of a request that may not be sent; it replaces any answer; nil if there is none
}

// admit sets aside the money that the call needs first, and prepares the request for the provider.
func (q *asked) admit() (*admitted, *ledger.Refusal) {
	if refusal := q.payOwed(); refusal != nil {
		return nil, refusal
	}
	done, err := q.oneAtATime()
	if err != nil {
		return nil, asRefusal(err)
	}
	pay, refusal := q.authorise()
	if refusal != nil {
		done()
		return nil, refusal
	}
	a := &admitted{asked: q, pay: pay}
	a.readsOn = pay.moves() && q.rates.UsesTokens() && q.call.API != ""
	a.listen()
	a.prepare()
	a.begins(done)
	return a, nil
}

// begins notes that the call runs: the end of the process may have to settle it.
func (a *admitted) begins(done func()) {
	a.done = done
	a.gateway.book.Claims().Live(a)
	metrics.live.Inc()
}

// prepare makes the request what the provider gets: without what would make an answer that can't be read, with the context of the upstream
// call, and with who calls.
func (a *admitted) prepare() {
	if a.reads() {
		// Without this header the transport asks for gzip itself and decodes the answer, so the usage can be read.
		a.request.Header.Del("Accept-Encoding")
		// Compressed messages of a WebSocket can't be read.
		a.request.Header.Del("Sec-Websocket-Extensions")
		if a.pay.costs() && !a.pricesParts() { // what a part leaves out could be what the answer says of its price
			dropRange(a.request.Header)
		}
	}
	if a.byAnswer() { // a job that is waited for would be answered before it is known what it costs
		a.request.Header.Del("Prefer")
	}
	if s := a.stored(); s.Lists != "" || s.Tells != "" { // of which a part can't be read
		a.request.Header.Del("Range")
		a.request.Header.Del("If-Range")
	}
	a.request = a.request.WithContext(a.outlive(context.WithValue(a.request.Context(), callKey{}, a)))
	a.introduce(a.request)
	a.include()
}

// hangUpGrace is how long Tallygate goes on reading an answer, to get its usage, after its client has left.
const hangUpGrace = 10 * time.Second

// outlive returns the context of the upstream call. If the client leaves before the answer has begun, the context ends. If the client
// leaves later, and the price depends on the usage, which providers state at the end, the context ends only after hangUpGrace.
func (a *admitted) outlive(ctx context.Context) context.Context {
	if a.finishesUnheard() {
		return context.WithoutCancel(ctx)
	}
	if !a.readsOn {
		return ctx
	}
	upstream, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if !a.answers() {
			cancel()
			return
		}
		timer := time.AfterFunc(a.gateway.hangUpGrace, cancel)
		context.AfterFunc(upstream, func() { timer.Stop() })
	})
	a.hangUp = func() { stop(); cancel() }
	return upstream
}

// finishesUnheard reports whether an answer is awaited, and charged, although its client has left: as the route has it, or since the client could
// read it later all the same.
func (a *admitted) finishesUnheard() bool {
	return a.route.FinishUnheard || a.call.Stays && a.pay.costs()
}

// answers reports whether an answer that is charged has begun.
func (a *admitted) answers() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer != nil
}

// authorise holds the least that the call costs, and as much as possible of the most that it can cost.
func (q *asked) authorise() (payment, *ledger.Refusal) {
	if refusal := q.mayBeWithheld(); refusal != nil {
		return nil, refusal
	}
	if refusal := q.permit(); refusal != nil {
		return nil, refusal
	}
	if q.free() {
		return free{}, nil
	}
	if q.limit > 0 && q.payment().charges() {
		if refusal := q.fitLimit(); refusal != nil {
			return nil, refusal
		}
	}
	b := q.bounds()
	least, most := b.least, b.hold
	if q.limit > 0 {
		least, most = min(least, q.limit), min(most, q.limit)
	}
	if refusal := q.keepPromise(least); refusal != nil {
		return nil, refusal
	}
	order := q.order(least, most)
	order.Share = q.share()
	auth, err := q.gateway.book.Authorise(q.request.Context(), order)
	if err != nil {
		return nil, asRefusal(err)
	}
	if total := auth.Total(); q.limit > 0 && total > q.limit { // the part beyond a quota makes it too expensive
		auth.Cancel()
		return nil, q.exceeded(total)
	}
	pay := q.payment().begin(q, order, auth)
	return pay, q.makeDurable(auth)
}

// order is the order for the books, see [escrow.CallOrder].
func (q *asked) order(least, most ledger.Amount) escrow.CallOrder {
	order := escrow.CallOrder{
		Request: q.id, By: q.payer, Payee: q.route.Payee, Route: q.route.Name, Pattern: Pattern(q.rates),
		API: q.call.API, Model: q.call.Model, Least: least, Most: most, Tags: q.terms.tags,
	}
	order.IdempotencyKey, order.Digest = q.onceKey, q.digest
	q.payment().order(q, &order)
	return order
}

// makeDurable writes a hold to disk if it is above what the route keeps only in memory.
func (q *asked) makeDurable(auth *escrow.Authorisation) *ledger.Refusal {
	held, above := auth.Held(), q.route.DurableAbove
	if above == nil || held <= *above {
		return nil
	}
	auth.Draw(held, false)
	if err := auth.Await(); err != nil {
		if errors.Is(err, ledger.ErrOutcomeUnknown) || errors.Is(err, ledger.ErrUnavailable) {
			q.gateway.book.Abandon(q.abandoned(false)) // the hold may be on disk nevertheless, and can't be given back now
		}
		auth.Cancel()
		return asRefusal(err)
	}
	return nil
}

// reads reports whether the meter must be able to read the answer's body.
func (a *admitted) reads() bool {
	_, known := a.pay.known()
	return !known || a.looksInto() || a.paced.CountsTokens() || a.route.Quality != nil && a.route.Quality.Judge.ReadsBody()
}

// serve passes the request on to the provider's handlers, and the answer back to the client.
func (a *admitted) serve(w http.ResponseWriter, next Handler) error {
	answer := &response{ResponseWriter: w, call: a, own: fieldsOf(w.Header())}
	if owed := a.sumOwed(); owed > 0 {
		answer.own = append(answer.own, headerField{headerOwed, []string{owed.String()}})
	}
	defer answer.close()
	cause, err := answer.run(next)
	a.report()
	if cause != nil {
		panic(cause)
	}
	if err == nil || a.hasYielded() {
		return err
	}
	if answer.passes() { // the handlers failed after the header was sent; the error must not be logged, because it may contain the caller's key
		a.route.logger().Error("the provider's handlers failed in the middle of an answer", "request", a.id, "error", err)
		return nil
	}
	failure, ok := err.(*Failure)
	if !ok {
		failure = &Failure{Err: err}
	}
	failure.Request = a.id
	return failure
}

// report calls Options.Report with the charge.
func (a *admitted) report() {
	a.mu.Lock()
	end := a.end
	ok := end != nil && end.err == nil && !a.yielded
	a.mu.Unlock()
	if ok {
		a.gateway.options.Report(a.request, Report{
			Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Route: end.charge.Route, Model: end.charge.Model, Asked: end.charge.AskedModel,
			Charge: end.amount, Units: end.units, Counts: end.charge.Units,
		})
	}
}

// cancel ends a call that costs nothing.
func (a *admitted) cancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelLocked()
}

func (a *admitted) cancelLocked() {
	if a.end == nil {
		a.end = costless()
		a.pay.cancel()
	}
}

// yield leaves the call to an inner meter: this meter gives back what it holds, and charges nothing.
func (a *admitted) yield() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.yielded = true
	if a.end == nil {
		a.end = costless()
	}
	a.pay.cancel()
}

// isOver reports whether the call has ended.
func (a *admitted) isOver() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end != nil
}

func (a *admitted) hasYielded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.yielded
}

// leave ends the call, which is settled or costs nothing.
func (a *admitted) leave() {
	a.mu.Lock()
	known := a.end != nil && (a.end.charge.RequestID != "" || a.end.err != nil)
	if a.pay.costs() && !known && a.gateway.book.Ledger().Err() != nil {
		a.gateway.book.Abandon(a.abandoned(a.answer != nil && a.answer.sent)) // what it has drawn can't be given back now
	}
	a.pay.cancel()
	a.mu.Unlock()
	if a.hangUp != nil {
		a.hangUp()
	}
	a.gateway.book.Claims().Gone(a)
	a.done()
	a.endInclude()
	metrics.live.Dec()
}

// clientGone reports whether the client has left. With FinishUnheard the request's own context does not end with the client.
func (a *admitted) clientGone() bool { return a.client.Err() != nil }

// settle charges the answer once, durably. Later calls get the first result. If a complete answer can't be charged in full, it is not
// charged: the error is a [*withheldError], and the call can still end in another way.
func (a *admitted) settle(e ending) (*settled, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.aborted {
		return nil, errAborted
	}
	if a.end == nil {
		end, refusal := a.answer.charge(e)
		if refusal != nil {
			return nil, &withheldError{refusal}
		}
		a.end = end
		a.talk.news()
	}
	return a.end, a.end.err
}

// EndNow charges what was sent, and prevents that more is sent. It is called when the process ends before the handler.
func (a *admitted) EndNow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.aborted {
		return
	}
	a.aborted = true
	if a.answer == nil {
		a.cancelLocked()
	} else if a.end == nil {
		a.end, _ = a.answer.charge(ending{cut: cutUpstream})
	}
}

// abandoned describes the call for [escrow.Book.PutRight], which settles it after a failed commit. sent says that bytes of the answer went
// out.
func (q *asked) abandoned(sent bool) escrow.AbandonedCall {
	return escrow.AbandonedCall{Request: q.id, Payer: q.payer.Agent, IdempotencyKey: q.onceKey, Sent: sent}
}

// begin starts to count an answer that is charged. The end of an event stream must be found in any case, whatever the price is.
func (a *admitted) begin(status int, h http.Header, sse bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = newCounting(a, status, h, sse)
	a.pay.start(time.Now(), a.answer.statesCost())
}
