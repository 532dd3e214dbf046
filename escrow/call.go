package escrow

import (
	"context"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Funding says where a metered call takes its money.
type Funding int

// A call is paid from the payer's wallet, from an escrow between payer and payee, or by the payer's subscription to a plan.
const (
	FromWallet Funding = iota
	FromEscrow
	FromSubscription
)

// CallOrder is what a metered call asks for before it goes upstream.
type CallOrder struct {
	Request string // the id of the request, by [Book.NewRequestID]
	By      Actor  // who pays
	Payee   string
	Route   string // the route's name or pattern in the configuration, for lists and statistics
	Pattern string // how it is charged: "per_call", "per_token", ...
	API     string // the wire format, "openai.chat" for one
	Model   string
	Least   ledger.Amount // the first hold: nothing starts without it
	Most    ledger.Amount // up to this is held where it is available; below Least: Least
	Share   int           // above 1: beyond Least no more is held than this part of what is available then (8: an eighth), to leave some to other calls
	From    Funding
	Escrow  string        // FromEscrow: the one that the caller named, or empty
	Open    ledger.Amount // FromEscrow: without a fitting escrow, one of min(Open, available), at least Least, is opened; 0: refused with escrow_required
	OpenFor time.Duration // after this the opened escrow's rest goes back to the payer; 0: it stays
	Tags    map[string]string

	IdempotencyKey string   // the caller's; empty: none. The same again is refused with idempotency_conflict
	Digest         [32]byte // of the request: what makes it the same

	// Milestone: the call does the work of this milestone of the escrow that is named. It costs nothing, but must be worth no more than the
	// milestone pays, and be the only one; when it is settled, the milestone is delivered (but for an answer that the upstream cut).
	Milestone string
	// Shadow: nothing is refused for want of money, held or charged; the charge says what it would have been. The payer may be
	// unknown.
	Shadow bool

	Plan  string                          // FromSubscription: the payee's plan
	Quota int64                           // FromSubscription: millionths of a unit that the call takes at least
	Over  func(units int64) ledger.Amount // FromSubscription: the price of so many millionths of a unit beyond the quota
}

// Authorisation is money taken aside for one call. Its methods are called from the goroutine that serves the call, but for
// Err, Held, Escrow and Cancel, which any may call.
type Authorisation struct {
	book   *Book
	charge Charge // what is known of it before it is settled
	source ledger.AccountID
	ppm    int64
	hold   *ledger.Hold
	runs   Claim // that the call runs; nil where it is only counted
	limits *limitClaim
	quota  *quotaClaim // FromSubscription

	milestone string
	worth     ledger.Amount // of the milestone
	shadow    bool
	onceKey   string
	digest    [32]byte

	mu      sync.Mutex
	total   ledger.Amount             // all that was ever authorised, draws included
	drawing *ledger.Receipt[struct{}] // the draw in flight
	drew    bool
	err     error
	over    ending
}

// Authorise takes money aside for a call. From the wallet it writes nothing to disk.
//
// Refusals: insufficient_funds (fields required, available, currency, payee), limit_exceeded, escrow_required, forbidden, rate_limited
// where too many calls of the agent run, idempotency_conflict (retry_after while the same call runs, request_id when it was made); for a
// named escrow not_found (absent or another payer's), forbidden (not to this payee, or paid by milestones), invalid_status
// (no longer open); for a plan subscription_required (plan, price, period).
func (b *Book) Authorise(ctx context.Context, o CallOrder) (*Authorisation, error) {
	if o.Shadow {
		return b.shadow(o)
	}
	if o.By.Operator {
		return nil, refuse(Forbidden, nil, "the operator's key pays for nothing; use an agent's key")
	}
	if err := o.By.mayPay(o.Payee); err != nil {
		return nil, err
	}
	if o.By.Agent == o.Payee {
		return nil, invalid("payee", "%q is the payee of this route: nobody pays itself", o.Payee)
	}
	runs, err := b.claimCall(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &Authorisation{book: b, charge: o.charge(), ppm: b.rules.CommissionPPM, runs: runs, total: o.Least, onceKey: o.IdempotencyKey, digest: o.Digest}
	if err := a.fund(ctx, o); err != nil {
		runs.End()
		return nil, err
	}
	if a.milestone == "" {
		most := o.Most
		if o.Share > 1 {
			most = min(most, o.Least+max(0, a.Available())/ledger.Amount(o.Share))
		}
		a.ExtendUpTo(most)
	}
	return a, nil
}

// fund takes the first amount aside.
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

// Escrow is the id of the escrow that pays, empty for a wallet.
func (a *Authorisation) Escrow() string { return a.charge.EscrowID }

// Worth is what the milestone pays whose work the call does: it may come to that and no more. 0 where it does none.
func (a *Authorisation) Worth() ledger.Amount { return a.worth }

// Held is what is still aside: authorised and not drawn.
func (a *Authorisation) Held() ledger.Amount { return a.hold.Amount() }

// Available is what the payer has beyond all holds: in its wallet, or in the escrow that pays.
func (a *Authorisation) Available() ledger.Amount {
	account, held, err := a.book.ledger.Balance(a.source)
	if err != nil {
		return 0
	}
	return account.Available() - held
}

// Total is all that was authorised so far, what was drawn included.
func (a *Authorisation) Total() ledger.Amount {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Extend grows what has been authorised to total, draws included. Refused with insufficient_funds or limit_exceeded, nothing has
// changed.
func (a *Authorisation) Extend(total ledger.Amount) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.extend(total - a.total)
}

// extend grows what has been authorised, or refuses and changes nothing; a.mu is locked.
func (a *Authorisation) extend(by ledger.Amount) error {
	if by <= 0 {
		return nil
	}
	if err := a.frozen(); err != nil {
		return err
	}
	if err := a.limits.extend(by); err != nil {
		return err
	}
	if err := a.hold.Extend(by); err != nil {
		a.limits.giveBack(by)
		return funds(err, a.book.Currency(), a.charge.Payee)
	}
	a.total += by
	return nil
}

// release lets go of all that is set aside in memory, as far as that was not done when the call was settled.
func (a *Authorisation) release() {
	a.hold.Release()
	a.limits.end()
	a.quota.end()
	if a.runs != nil {
		a.runs.End()
	}
}

// ExtendUpTo grows what has been authorised to total or to what is available, and returns what it came to, draws included.
func (a *Authorisation) ExtendUpTo(total ledger.Amount) ledger.Amount {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shadow {
		a.total = max(a.total, total)
	} else if by := total - a.total; by > 0 && a.frozen() == nil {
		by = a.limits.extendUpTo(by)
		got := a.hold.ExtendUpTo(by)
		a.limits.giveBack(by - got)
		a.total += got
	}
	return a.total
}

// frozen refuses to take more from an escrow whose rest is frozen, or goes elsewhere.
func (a *Authorisation) frozen() error {
	if a.charge.EscrowID == "" {
		return nil
	}
	e, err := a.book.storedEscrow(a.charge.EscrowID)
	if err == nil && !e.drawable() {
		err = e.wrongStatus("further draw")
	}
	return err
}

// Draw pays what is due so far, cumulative, from what is held, and never more than that. It is queued and does not wait for the
// disk; a failure shows in Err. While one draw is in flight the next ones are left to the one after it, or to Settle. Units
// counted exactly are posted at once; an estimate is drawn as the payee's pending credit and becomes exact at Settle.
func (a *Authorisation) Draw(due ledger.Amount, exact bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shadow || a.over != running || a.lookAtDraw() != nil || a.drawing != nil {
		return
	}
	a.drew = true
	a.drawing = queue(a.book, func(t *Tx) (struct{}, error) { return struct{}{}, t.draw(a, due, exact) })
}

// Err is the failure of an earlier Draw, after which the response must be aborted.
func (a *Authorisation) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lookAtDraw()
}

// Await waits until the draw in flight is durable, and returns the failure of a draw like [Authorisation.Err].
func (a *Authorisation) Await() error {
	a.mu.Lock()
	drawing := a.drawing
	a.mu.Unlock()
	if drawing != nil {
		<-drawing.Done()
	}
	return a.Err()
}

// lookAtDraw takes note of how the draw in flight ended, if it has; a.mu is locked.
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

// end says how the call ended; first is false where that was said before.
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
