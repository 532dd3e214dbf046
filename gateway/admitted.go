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

// admitted is a call that may be made: the money that it may need is set aside.
type admitted struct {
	*asked
	pay    payment
	left   func() // takes the call off those that live
	hangUp func() // ends what outlives the client; nil where nothing does
	// readsOn says that an answer is read on when its client has left.
	readsOn bool
	talk    *talk // what the client says over the connection that the call opens; nil where it says nothing that bears on the price

	// mu guards what follows: a call is settled by its handler, or by the end of the process.
	mu      sync.Mutex
	answer  *counting       // nil until an answer that is charged begins
	end     *settled        // nil while the call runs
	aborted bool            // given up by the end of the process: no further byte may go out
	yielded bool            // a meter further in charges instead
	seen    bool            // a handler has asked MaySend
	barred  *ledger.Refusal // of a request that may not be sent: all that is answered; nil where there is none
}

// admit sets the money aside that the call needs at first, and makes the request ready to go on.
func (q *asked) admit() (*admitted, *ledger.Refusal) {
	pay, refusal := q.authorise()
	if refusal != nil {
		return nil, refusal
	}
	a := &admitted{asked: q, pay: pay}
	a.readsOn = pay.moves() && q.rates.UsesTokens() && q.call.API != ""
	a.listen()
	if a.reads() {
		// The transport asks for gzip itself then, and decodes what comes: usage can be read.
		a.request.Header.Del("Accept-Encoding")
		// Compressed messages of a WebSocket could not be read.
		a.request.Header.Del("Sec-Websocket-Extensions")
	}
	a.request = a.request.WithContext(a.outlive(context.WithValue(a.request.Context(), callKey{}, a)))
	a.left = a.gateway.book.Claims().Live(a.abandon) // it may have to be settled when the process exits before its handler has ended
	metrics.live.Inc()
	return a, nil
}

// hangUpGrace is how long an answer is read on for its usage when its client has left in the middle of it.
const hangUpGrace = 10 * time.Second

// outlive is the context of the upstream call. A client that leaves before the answer has begun ends it. One that leaves later does not
// at once where the price depends on the usage, which providers state in the end: it is read on for hangUpGrace.
func (a *admitted) outlive(ctx context.Context) context.Context {
	if a.route.FinishUnheard {
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

// answers reports whether an answer that is charged has begun.
func (a *admitted) answers() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer != nil
}

// authorise holds the least that the call costs, and as much of the most that it can cost as there is.
func (q *asked) authorise() (payment, *ledger.Refusal) {
	if refusal := q.mayBeWithheld(); refusal != nil {
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
	order := q.order(least, most)
	order.Share = q.share()
	auth, err := q.gateway.book.Authorise(q.request.Context(), order)
	if err != nil {
		return nil, asRefusal(err)
	}
	if total := auth.Total(); q.limit > 0 && total > q.limit { // what is beyond a quota
		auth.Cancel()
		return nil, q.exceeded(total)
	}
	pay := q.payment().begin(q, order, auth)
	return pay, q.makeDurable(auth)
}

// order is what the call asks of the books.
func (q *asked) order(least, most ledger.Amount) escrow.CallOrder {
	order := escrow.CallOrder{
		Request: q.id, By: q.payer, Payee: q.route.Payee, Route: q.route.Name, Pattern: Pattern(q.rates),
		API: q.call.API, Model: q.call.Model, Least: least, Most: most, Tags: q.terms.tags,
	}
	if q.terms.idempotencyKey != "" {
		order.IdempotencyKey, order.Digest = q.terms.idempotencyKey, q.digest
	}
	q.payment().order(q, &order)
	return order
}

// makeDurable writes a hold to the disk that is above what the route keeps in memory alone.
func (q *asked) makeDurable(auth *escrow.Authorisation) *ledger.Refusal {
	held, above := auth.Held(), q.route.DurableAbove
	if above == nil || held <= *above {
		return nil
	}
	auth.Draw(held, false)
	if err := auth.Await(); err != nil {
		if errors.Is(err, ledger.ErrOutcomeUnknown) || errors.Is(err, ledger.ErrUnavailable) {
			q.gateway.book.Abandon(q.abandoned(false)) // the hold may be on the disk all the same, and can't be given back now
		}
		auth.Cancel()
		return asRefusal(err)
	}
	return nil
}

// reads reports whether the answer's body must be readable here.
func (a *admitted) reads() bool {
	_, known := a.pay.known()
	return !known || a.route.Quality != nil && a.route.Quality.Judge.ReadsBody()
}

// serve lets the request through to the provider's handlers and sees the answer to its end.
func (a *admitted) serve(w http.ResponseWriter, next Handler) error {
	answer := &response{ResponseWriter: w, call: a, own: w.Header().Clone()}
	defer answer.close()
	cause, err := answer.run(next)
	a.report()
	if cause != nil {
		panic(cause)
	}
	if err == nil || a.hasYielded() {
		return err
	}
	if answer.passes() { // it failed after its header: the error would be logged with the caller's key
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

// report tells whoever wants to know of the charge.
func (a *admitted) report() {
	a.mu.Lock()
	end := a.end
	ok := end != nil && end.err == nil && !a.yielded
	a.mu.Unlock()
	if ok {
		a.gateway.options.Report(a.request, Report{
			Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Charge: end.charge.Amount.String(), Units: unitsOf(end.charge),
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
		a.end = &settled{}
		a.pay.cancel()
	}
}

// yield hands the call to a meter further in: what this one holds goes back, and it charges nothing.
func (a *admitted) yield() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.yielded = true
	if a.end == nil {
		a.end = &settled{}
	}
	a.pay.cancel()
}

func (a *admitted) hasYielded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.yielded
}

// leave ends the call: it is settled by now, or costs nothing.
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
	a.left()
	metrics.live.Dec()
}

// clientGone reports whether the client has left. With FinishUnheard the request's own context outlives it.
func (a *admitted) clientGone() bool { return a.client.Err() != nil }

// settle charges the answer once, durably. Whoever comes second gets the first one's result. A complete answer that can't be charged in
// full is not charged: the error is a [*withheldError], and the call can still end in another way.
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
	}
	return a.end, a.end.err
}

// abandon charges what was sent and lets no further byte out: the process ends before the handler does.
func (a *admitted) abandon() {
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

// abandoned is the call as the books must know it when they are put right after a failed commit. sent says that bytes of the answer
// have gone out.
func (q *asked) abandoned(sent bool) escrow.AbandonedCall {
	return escrow.AbandonedCall{Request: q.id, Payer: q.payer.Agent, IdempotencyKey: q.terms.idempotencyKey, Sent: sent}
}

// begin starts the counting of an answer that is charged. Of an event stream the end must be found, whatever its price is.
func (a *admitted) begin(status int, h http.Header, sse bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = newCounting(a, status, h, sse)
	a.pay.start(time.Now(), a.answer.statesCost())
}
