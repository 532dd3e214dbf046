package gateway

import (
	"context"
	"crypto/subtle"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// UpToRail is a rail that also takes payments of which only the most is agreed before the call. How much is paid is said when the answer is
// complete, and its price is known.
//
// Such a payment is verified before the call. It is settled while the complete answer waits, and only then the answer goes out: so nothing is
// served that was not paid. An answer that can't wait, such as a stream, is settled at the most before its first byte, and what it leaves stays
// as credit, as with other payments.
type UpToRail interface {
	Rail
	// UpTo returns a payment of a part of what p authorises: of amount, or, if the network outside knows no such amount, of the next one above.
	// It refuses an amount that p does not authorise.
	UpTo(p Payable, amount ledger.Amount) (Payable, error)
}

// promise is a payment that was verified, and that is settled when the price of the call is known.
type promise struct {
	rail    UpToRail
	payable Payable
	payment escrow.RailPayment // if all of it is settled
	claim   escrow.Claim       // of the payer: it has one such call at a time
	settled bool
}

// open reports whether there is a promise that was not settled yet.
func (p *promise) open() bool { return p != nil && !p.settled }

// end lets the payer make another promise.
func (p *promise) end() {
	if p != nil {
		p.claim.End()
	}
}

// promises takes a payment of which only the most is agreed, if it is not in the books yet: it is verified, and the call is made on it. made is
// false if the payment is in the books, because a call on it was settled, or because it is not known whether it was.
func (a *arrival) promises(rail UpToRail, p Payable, payment escrow.RailPayment) (made bool, err error) {
	g := a.gateway
	if _, found, err := g.book.RailPayment(payment.Rail, payment.ID); err != nil || found {
		return false, err
	}
	if err := g.book.CheckPaymentName(payment); err != nil {
		return false, err
	}
	// Many promises of one payer could all be good as long as none of them is settled, and the provider would work for nothing.
	claim, err := g.book.Claims().Take(a.client, 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.PromisedPayment, Owner: payment.Agent}, Most: 1})
	if err != nil {
		return false, refuse(escrow.RateLimited, "another call of this payer runs on a payment that is made afterwards: wait for it, or pay beforehand", "retry_after", "1")
	}
	a.promise = &promise{rail: rail, payable: p, payment: payment, claim: claim}
	if err := g.verify(a.client, rail, p); err != nil {
		return false, a.notPaid(payment, err)
	}
	agent := func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, tx.WelcomePayer(payment) }
	if _, err := escrow.Do(a.client, g.book, agent); err != nil {
		return false, err
	}
	if a.payer, err = g.book.Standing(escrow.Actor{Agent: payment.Agent}); err != nil {
		return false, err
	}
	a.paidAs = payment.Agent
	a.nameBy(payment)
	return true, nil
}

// settlePromise settles a promised payment at an amount, and books it.
func (a *arrival) settlePromise(amount ledger.Amount) error {
	promised := a.promise
	p, err := promised.rail.UpTo(promised.payable, amount)
	if err != nil {
		return err
	}
	payment := promised.payment
	payment.Amount, payment.Proof = p.Amount, p.Proof
	ctx := context.WithoutCancel(a.client)
	done, err, _ := a.gateway.collecting.Do(payment.Rail+"\x00"+payment.ID, func() (any, error) {
		return a.gateway.begin(ctx, promised.rail, p, payment)
	})
	if err != nil {
		return a.notPaid(payment, err)
	}
	booked := done.(collected)
	if booked.Agent != payment.Agent || subtle.ConstantTimeCompare(booked.Request, payment.Request) != 1 {
		return refusePayment("the payment was made for another request", "used")
	}
	promised.settled = true
	p.At, p.Amount = booked.At, booked.Amount
	a.thank(promised.rail, p, booked.Outside)
	return a.giveKey(booked)
}

// settlePromiseWhole settles a promised payment at the most that it authorises.
func (a *arrival) settlePromiseWhole() *ledger.Refusal {
	if err := a.settlePromise(a.promise.payable.Amount); err != nil {
		return asRefusal(err)
	}
	return nil
}

// waits reports whether the promise of a call can wait until its price is known: its answer comes whole, and what pays it is the wallet.
func (q *asked) waits() bool {
	if !q.promise.open() || q.route.Shadow || q.terms.milestone != "" || q.route.Quality != nil || q.route.FinishUnpaid || q.route.FinishUnheard {
		return false
	}
	_, wallet := q.route.payment().(Wallet)
	return wallet && !q.call.Stream && q.call.Once == "" && !q.call.Stays && !q.byAnswer() && !leavesHTTP(q.request) && !isGRPC(q.request.Header)
}

// keepPromise settles the promise of a call that can't wait for its price, and refuses a call that may need more than was promised.
func (q *asked) keepPromise(least ledger.Amount) *ledger.Refusal {
	if !q.promise.open() {
		return nil
	}
	if !q.waits() {
		return q.settlePromiseWhole()
	}
	if most := q.promise.payable.Amount; least > most {
		return refuse(escrow.InsufficientFunds, "the call may cost "+least.String()+", and the payment authorises "+most.String(),
			"required", least.String(), "available", most.String(), "currency", q.gateway.book.Currency(), "payee", q.route.Payee)
	}
	return nil
}

// afterwards pays a call by its promise, when its price is known. Until then nothing is held.
type afterwards struct{}

func (afterwards) charges() bool { return true }

func (afterwards) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Least, o.Most = escrow.FromWallet, 0, 0
}

func (afterwards) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	if price, ok := q.fixed(); ok {
		paid := &oncePaid{held{asked: q, auth: auth}, price}
		return &promised{payment: paid, held: &paid.held}
	}
	if q.rates.UsesTokens() && q.call.API != "" {
		q.fitOutput(lowest(q.promise.payable.Amount, q.limit))
	}
	paid := &prepaid{held: held{asked: q, auth: auth}}
	return &promised{payment: paid, held: &paid.held}
}

// promised is the payment of a call by its promise. When the promise is settled, it is the payment from the wallet that it wraps.
type promised struct {
	payment
	held *held
}

func (p *promised) open() bool { return p.held.promise.open() }

func (p *promised) covers(n int) bool { return !p.open() && p.payment.covers(n) }

func (p *promised) reach(bound meter.Units, exact uses) bool {
	return !p.open() && p.payment.reach(bound, exact)
}

func (p *promised) ahead(tokens int64) bool { return !p.open() && p.payment.ahead(tokens) }

func (p *promised) draw(at meter.Units) error {
	if p.open() {
		return nil
	}
	return p.payment.draw(at)
}

func (p *promised) clamp(s *escrow.Settlement) {
	if !p.open() {
		p.payment.clamp(s)
		return
	}
	s.Amount = min(s.Amount, lowest(p.held.promise.payable.Amount, p.held.limit))
}

// secure settles the promise at the price of the answer.
func (p *promised) secure(s *escrow.Settlement) *ledger.Refusal {
	if !p.open() || s.Amount == 0 {
		return p.payment.secure(s)
	}
	if limit := p.held.terms.maxCharge; limit > 0 && s.Amount > limit {
		return p.held.exceeded(s.Amount)
	}
	if err := p.held.settlePromise(s.Amount); err != nil {
		return asRefusal(err)
	}
	if err := p.held.auth.Extend(s.Amount); err != nil {
		return asRefusal(err)
	}
	p.held.covered = p.held.auth.Total()
	return p.payment.secure(s)
}

// secureStream settles the promise of an answer that goes out before its price is known.
func (a *admitted) secureStream(h http.Header, status int) *ledger.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, is := a.pay.(*promised)
	if !is || !p.open() || a.end != nil {
		return nil
	}
	if refusal := a.settlePromiseWhole(); refusal != nil {
		return refusal
	}
	a.writeReceipt(h, status)
	if price, ok := p.known(); ok {
		if err := p.held.auth.Extend(price); err != nil {
			return asRefusal(err)
		}
	}
	p.held.covered = p.held.auth.Total()
	return nil
}
