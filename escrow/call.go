package escrow

import (
	"context"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Funding says what pays for a metered call.
type Funding int

// A call is paid from the payer's wallet, from an escrow between payer and payee, or by the payer's subscription to a plan.
const (
	FromWallet Funding = iota
	FromEscrow
	FromSubscription
)

// CallOrder describes a metered call, before it goes to the provider.
type CallOrder struct {
	Request string // the id of the request, by [Book.NewRequestID]
	By      Actor  // who pays
	Payee   string
	Route   string // the route's name or pattern in the configuration, for lists and statistics
	Pattern string // how it is charged: "per_call", "per_token", ...
	API     string // the wire format, such as "openai.chat"
	Model   string
	Least   ledger.Amount // the first hold; without it the call is refused
	Most    ledger.Amount // up to this is held, if it is available; if it is below Least, Least counts
	Share   int           // above 1: a divisor; beyond Least, at most this part of what money and limits leave is held (8: an eighth), so that other calls find some
	From    Funding
	Credit  bool          // the payee's credit pays first, and the wallet, escrow or pool pays the rest
	Escrow  string        // FromEscrow: the escrow that the caller named, or empty
	Open    ledger.Amount // FromEscrow: if there is no suitable escrow, one of min(Open, available), but at least Least, is opened; 0: the call is refused with escrow_required
	OpenFor time.Duration // after this time, what is left in the opened escrow goes back to the payer; 0: never
	Tags    map[string]string

	IdempotencyKey string   // the caller's, or empty; a second call with the same key is refused with idempotency_conflict
	Digest         [32]byte // of the request: two requests with the same digest are the same

	// Milestone is the milestone, of the escrow in Escrow, whose work the call does. The call costs nothing, but its price may not be above what
	// the milestone pays, and only one call may do the work. When the call is settled, the milestone is delivered, unless the provider cut the
	// answer.
	Milestone string
	// Shadow means that nothing is refused for lack of money, and nothing is held or charged. The charge says what it would have been. The payer
	// may be unknown.
	Shadow bool

	Plan  string                          // FromSubscription: the payee's plan
	Quota int64                           // FromSubscription: millionths of a unit that the call takes at least
	Over  func(units int64) ledger.Amount // FromSubscription: the price of so many millionths of a unit beyond the quota
}

// Authorisation is money that is set aside for one call. Its methods must be called from the goroutine that serves the call, except for Err, Held,
// Escrow and Cancel, which may be called from any goroutine.
type Authorisation struct {
	book    *Book
	session ledger.Session // in which the call was authorised
	charge  Charge         // as far as it is known before the call is settled
	source  ledger.AccountID
	ppm     int64
	credit  creditHolds  // holds on credit, which pays first, whatever the source is
	hold    *ledger.Hold // on source
	runs    Claim        // the call's place among the running calls; nil in shadow mode
	limits  *limitClaim
	quota   *quotaClaim // FromSubscription

	milestone string
	worth     ledger.Amount // of the milestone
	shadow    bool
	onceKey   string
	digest    [32]byte

	mu      sync.Mutex
	total   ledger.Amount             // everything that was authorised so far, including draws
	drawing *ledger.Receipt[struct{}] // the draw in flight
	drew    bool
	posts   bool   // a draw was exact
	was     string // the id before Rename, if something is pended under it
	err     error
	over    ending
}

// Authorise sets money aside for a call. If the wallet pays, nothing is written to disk.
//
// Refusals: insufficient_funds (fields required, available, currency, payee), limit_exceeded, escrow_required, forbidden, rate_limited if too
// many calls of the agent run, idempotency_conflict (retry_after while the same call runs, request_id after it was made). For a named
// escrow: not_found (it does not exist or has another payer), forbidden (it has another payee, or is paid by milestones), invalid_status (it
// is no longer open). For a plan: subscription_required (plan, price, period).
func (b *Book) Authorise(ctx context.Context, o CallOrder) (*Authorisation, error) {
	if o.Shadow {
		return b.shadow(o)
	}
	if o.By.Operator {
		return nil, refuse(Forbidden, nil, "the operator's key can't pay; use an agent's key")
	}
	if err := o.By.mayPay(o.Payee); err != nil {
		return nil, err
	}
	if o.By.Agent == o.Payee {
		return nil, invalid("payee", "%q is the payee of this route, and an agent can't pay itself", o.Payee)
	}
	runs, err := b.claimCall(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &Authorisation{book: b, session: b.ledger.Session(), charge: o.charge(), ppm: b.rules.CommissionPPM, runs: runs, total: o.Least, onceKey: o.IdempotencyKey, digest: o.Digest}
	if err := a.fund(ctx, o); err != nil {
		runs.End()
		return nil, err
	}
	switch {
	case a.milestone != "":
	case o.Share > 1:
		// Otherwise calls that come at once would all take a part of the same money.
		turn, err := b.process.claims.Await(ctx, 1, Bound{Of: Thing{Kind: TakenShare, Owner: o.By.Agent}, Most: 1})
		if err != nil {
			a.Cancel()
			return nil, err
		}
		defer turn.End()
		a.ExtendUpTo(min(o.Most, o.Least+max(0, min(a.Available(), a.limits.room()))/ledger.Amount(o.Share)))
	default:
		a.ExtendUpTo(o.Most)
	}
	return a, nil
}

// fund sets aside the first amount, from what pays the call.
func (a *Authorisation) fund(ctx context.Context, o CallOrder) error {
	switch o.From {
	case FromEscrow:
		return a.fromEscrow(ctx, o)
	case FromSubscription:
		return a.fromSubscription(ctx, o)
	default:
		return a.fromWallet(ctx, o)
	}
}

func (o CallOrder) charge() Charge {
	return Charge{
		RequestID: o.Request, Payer: o.By.Agent, Payee: o.Payee, Key: o.By.Key, Route: o.Route, Pattern: o.Pattern, API: o.API, Model: o.Model,
		Tags: o.Tags,
	}
}

// Escrow returns the id of the escrow that pays, or "" if the wallet pays.
func (a *Authorisation) Escrow() string { return a.charge.EscrowID }

// Worth returns what the milestone pays whose work the call does, which is the highest price that the call may have. It returns 0 for a call
// without a milestone.
func (a *Authorisation) Worth() ledger.Amount { return a.worth }

// Held returns what is still held: authorised and not drawn.
func (a *Authorisation) Held() ledger.Amount { return a.credit.amount() + a.hold.Amount() }

// Available is the money that no call holds in the wallet or escrow that pays. It does not include credit.
func (a *Authorisation) Available() ledger.Amount {
	free, err := a.book.ledger.Free(a.source)
	if err != nil {
		return 0
	}
	return free
}

// Reachable is the most that the call could hold: Held, Available, and credit that no call holds yet.
func (a *Authorisation) Reachable() ledger.Amount {
	sum := plus(a.Held(), a.Available())
	for _, hold := range a.credit {
		if free, err := a.book.ledger.Free(hold.Account()); err == nil {
			sum = plus(sum, free)
		}
	}
	return sum
}

// Credit returns how much of Held is credit. uses reports whether the call can use credit at all.
func (a *Authorisation) Credit() (held ledger.Amount, uses bool) {
	return a.credit.amount(), len(a.credit) > 0
}

// Total returns everything that was authorised so far, including draws.
func (a *Authorisation) Total() ledger.Amount {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Extend increases what is authorised to total, including draws. If it is refused with insufficient_funds or limit_exceeded, nothing has
// changed.
func (a *Authorisation) Extend(total ledger.Amount) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.extend(total - a.total)
}

// extend increases what is authorised. If it refuses, nothing has changed. a.mu must be locked.
func (a *Authorisation) extend(by ledger.Amount) error {
	return a.book.take(a.charge.Payer, func() error { return a.extendNow(by) })
}

// extendNow is extend of what is taken in [Book.take].
func (a *Authorisation) extendNow(by ledger.Amount) error {
	if by <= 0 {
		return nil
	}
	if err := a.frozen(); err != nil {
		return err
	}
	if err := a.limits.extend(by); err != nil {
		return err
	}
	credit, of := a.credit.extendUpTo(by)
	if err := a.hold.Extend(by - credit); err != nil {
		a.credit.giveBack(of)
		a.limits.giveBack(by)
		return funds(err, a.book.Currency(), a.charge.Payee)
	}
	a.total += by
	return nil
}

// release gives back everything that is still set aside in memory.
func (a *Authorisation) release() {
	a.credit.release()
	a.hold.Release()
	a.limits.end()
	a.quota.end()
	if a.runs != nil {
		a.runs.End()
	}
}

// ExtendUpTo increases what is authorised to total, or as far as money is available. It returns what is authorised now, including draws.
func (a *Authorisation) ExtendUpTo(total ledger.Amount) ledger.Amount {
	return a.extendUpTo(total, (*ledger.Hold).ExtendUpTo)
}

// gather is like ExtendUpTo, but also asks other processes that share the ledger for money that they have set aside and do not need.
func (a *Authorisation) gather(total ledger.Amount) { a.extendUpTo(total, (*ledger.Hold).Gather) }

func (a *Authorisation) extendUpTo(total ledger.Amount, extend func(*ledger.Hold, ledger.Amount) ledger.Amount) ledger.Amount {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shadow {
		a.total = max(a.total, total)
	} else if total > a.total && a.frozen() == nil {
		a.book.takeUpTo(a.charge.Payer, func() (enough bool) {
			by := a.limits.extendUpTo(total - a.total)
			got, _ := a.credit.extendUpTo(by)
			got += extend(a.hold, by-got)
			a.limits.giveBack(by - got)
			a.total += got
			return a.total == total
		})
	}
	return a.total
}

// forgetLost forgets what the call had set aside, if other processes have ended the session in which it was authorised. The call can then take
// what is free.
func (a *Authorisation) forgetLost() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total -= a.hold.Lost()
	for _, hold := range a.credit {
		a.total -= hold.Lost()
	}
}

// frozen returns a refusal if the escrow that pays is frozen or over, so that nothing more may be taken from it.
func (a *Authorisation) frozen() error {
	if a.charge.EscrowID == "" {
		return nil
	}
	e, err := a.book.drawnEscrow(a.charge.EscrowID)
	if err == nil && !e.drawable() {
		err = e.wrongStatus("further draw")
	}
	return err
}

// Draw pays what is due from what is held, and never more than is held. due is the total since the beginning of the call. Draw is queued and
// does not wait for the disk; a failure is returned by Err. While a draw is in flight, further draws are combined into one after it, or left
// to Settle. If exact is true, the amount is posted at once. Otherwise it is an estimate: it becomes a pending credit of the payee, and
// Settle posts the exact amount.
func (a *Authorisation) Draw(due ledger.Amount, exact bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shadow || a.over != running || a.lookAtDraw() != nil || a.drawing != nil {
		return
	}
	a.drew, a.posts = true, a.posts || exact
	a.drawing = queue(a.book, func(t *Tx) (struct{}, error) { return struct{}{}, t.draw(a, due, exact) })
}

// Err returns the failure of an earlier Draw. After a failure the response must be aborted.
func (a *Authorisation) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lookAtDraw()
}

// Await waits until the draw in flight is durable. It returns the failure of a draw, like [Authorisation.Err].
func (a *Authorisation) Await() error {
	a.mu.Lock()
	drawing := a.drawing
	a.mu.Unlock()
	if drawing != nil {
		<-drawing.Done()
	}
	return a.Err()
}

// lookAtDraw notes the result of the draw in flight, if it has ended. a.mu must be locked.
func (a *Authorisation) lookAtDraw() error {
	if a.drawing == nil || a.err != nil {
		return a.err
	}
	select {
	case <-a.drawing.Done():
		_, a.err = a.drawing.Wait()
		a.drawing = nil
	default:
	}
	return a.err
}

// ending is how a call ended.
type ending int

const (
	running ending = iota
	settled
	cancelled
)

// end notes how the call ended. first is false if that was noted before.
func (a *Authorisation) end(how ending) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over != running {
		return false
	}
	a.over = how
	return true
}

func (a *Authorisation) ended() ending {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}
