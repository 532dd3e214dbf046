package escrow

import (
	"context"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

func (a *Authorisation) fromWallet(ctx context.Context, o CallOrder) error {
	a.source = ledger.Wallet(o.By.Agent)
	return a.holdFirst(ctx, o, nil)
}

// spends is the first amount as spending: from an escrow, or from the wallet if from is nil.
func (o CallOrder) spends(from *Escrow) spending {
	return spending{agent: o.By.Agent, payee: o.Payee, amount: o.Least, locked: from}
}

// holdFirst holds the first amount, within the payer's limits.
func (a *Authorisation) holdFirst(ctx context.Context, o CallOrder, from *Escrow) error {
	return a.book.take(o.By.Agent, func() error { return a.tryFirst(ctx, o, from) })
}

func (a *Authorisation) tryFirst(ctx context.Context, o CallOrder, from *Escrow) (err error) {
	if a.limits, err = a.book.claimLimits(ctx, o.By.Key, o.spends(from)); err != nil {
		return err
	}
	if a.credit, err = a.book.holdCredit(o); err == nil {
		a.hold, err = a.book.ledger.Hold(a.source, o.Least-a.credit.amount())
	}
	if err != nil {
		a.credit.release()
		a.limits.end()
		return funds(err, a.book.Currency(), o.Payee)
	}
	return nil
}

// fromEscrow holds the first amount in an escrow: the named one, or else the oldest open one that covers the amount, or else a new one. If
// there is none, a call that credit covers needs no new one.
func (a *Authorisation) fromEscrow(ctx context.Context, o CallOrder) error {
	if o.Escrow != "" {
		return a.fromNamed(ctx, o)
	}
	if o.Milestone != "" {
		return invalid("milestone", "a milestone is one of an escrow: name it in Tallygate-Escrow")
	}
	if found, err := a.fromOldest(ctx, o); found || err != nil {
		return err
	}
	if covered, err := a.fromCredit(ctx, o); covered || err != nil {
		return err
	}
	if o.Open == 0 {
		return refuse(EscrowRequired, map[string]string{
			"payee": o.Payee, "required": o.Least.String(), "currency": a.book.Currency(),
		}, "this route is paid from an escrow to %q that covers %s %s", o.Payee, o.Least, a.book.Currency())
	}
	// Only one call of a pair opens an escrow at a time. Calls that wait for it use the escrow that it opened.
	opens, err := a.book.process.claims.Await(ctx, 1, Bound{Of: Thing{Kind: OpenedEscrow, Owner: o.By.Agent, Name: o.Payee}, Most: 1})
	if err != nil {
		return err
	}
	defer opens.End()
	for {
		if found, err := a.fromOldest(ctx, o); found || err != nil {
			return err
		}
		if err := a.open(ctx, o); err != nil {
			return err
		}
	}
}

// fromCredit pays the call by credit alone, if that covers all that the call is expected to cost. If the call costs more in the end, the wallet
// pays the rest.
func (a *Authorisation) fromCredit(ctx context.Context, o CallOrder) (covered bool, err error) {
	usable, err := a.book.creditFor(o)
	if err != nil || usable == 0 || usable < max(o.Least, o.Most) {
		return false, err
	}
	if err := a.fromWallet(ctx, o); err != nil {
		return false, err
	}
	if a.hold.Amount() == 0 {
		return true, nil
	}
	a.credit.release() // other calls have taken credit meanwhile
	a.hold.Release()
	a.limits.end()
	return false, nil
}

func (a *Authorisation) fromNamed(ctx context.Context, o CallOrder) error {
	e, err := a.book.currentEscrow(ctx, o.Escrow)
	if err != nil {
		return err
	}
	switch {
	case e == nil || e.From != o.By.Agent:
		return noEscrow(o.Escrow)
	case e.To != o.Payee:
		return refuse(Forbidden, map[string]string{"escrow_id": e.ID, "payee": o.Payee}, "the escrow is to %q, this route is paid to %q", e.To, o.Payee)
	case o.Milestone != "":
		return a.forMilestone(ctx, e, o)
	case !e.Kind.drawn():
		return refuse(Forbidden, map[string]string{"escrow_id": e.ID}, "it is a hold, or an escrow for milestones, a subscription, or a charge that is not decided: no meter draws from it")
	case !e.drawable():
		return e.wrongStatus("metered call")
	}
	return a.use(ctx, e, o)
}

// use holds the first amount in an escrow. It checks after the hold that the escrow is still open. So a change of the status either came
// before, and use sees it; or it comes after, and the money is held already.
func (a *Authorisation) use(ctx context.Context, e *Escrow, o CallOrder) error {
	a.source = e.Account()
	if err := a.holdFirst(ctx, o, e); err != nil {
		return err
	}
	now, err := a.book.drawnEscrow(e.ID)
	if err == nil && !now.drawable() {
		err = now.wrongStatus("metered call")
	}
	if err != nil {
		a.credit.release()
		a.hold.Release()
		a.limits.end()
		return err
	}
	a.charge.EscrowID, a.ppm = e.ID, e.CommissionPPM
	return nil
}

// fromOldest tries the open escrows of the pair, the oldest first. If a limit of the key refuses one, a later one may still do: the limits
// do not count again what the key has locked itself.
func (a *Authorisation) fromOldest(ctx context.Context, o CallOrder) (found bool, err error) {
	known, changes := a.book.process.oldest.of(o.By.Agent, o.Payee)
	if known != "" {
		if found, err := a.again(ctx, known, o); found || err != nil {
			return found, err
		}
	}
	candidates, err := a.book.openEscrows(o.By.Agent, o.Payee)
	if err != nil {
		return false, err
	}
	var limited error
	for i, e := range candidates {
		if e.over(a.book.Now()) { // it has expired, and will be released or refunded
			continue
		}
		err := a.use(ctx, e, o)
		if err == nil {
			if i == 0 {
				a.book.process.oldest.note(o.By.Agent, o.Payee, e.ID, changes)
			}
			return true, nil
		}
		switch ledger.OutcomeOf(err) {
		case InsufficientFunds, InvalidStatus:
		case LimitExceeded:
			limited = err
		default:
			return false, err
		}
	}
	return false, limited
}

// oldest knows the oldest open escrow between two agents. To try it first takes no search. It is forgotten when this process opens or ends an
// escrow between the two. Of those of other processes that share the ledger it does not know, but these are younger.
type oldest struct {
	mu      sync.Mutex
	escrows map[[2]string]string
	changes int // how often something was forgotten
}

const maxOldest = 10_000 // pairs; if there are more, all are forgotten

// of returns the oldest escrow, if it is known, and the changes so far.
func (l *oldest) of(payer, payee string) (escrow string, changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.escrows[[2]string{payer, payee}], l.changes
}

// note notes the oldest escrow, unless there were more changes since it was searched for.
func (l *oldest) note(payer, payee, escrow string, changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if changes != l.changes {
		return
	}
	if l.escrows == nil || len(l.escrows) >= maxOldest {
		l.escrows = make(map[[2]string]string)
	}
	l.escrows[[2]string{payer, payee}] = escrow
}

func (l *oldest) forget(payer, payee string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.escrows, [2]string{payer, payee})
	l.changes++
}

// again tries the oldest escrow of the pair again.
func (a *Authorisation) again(ctx context.Context, id string, o CallOrder) (bool, error) {
	e, err := a.book.drawnEscrow(id)
	if err != nil || e == nil || !e.Kind.drawn() || !e.drawable() || e.over(a.book.Now()) {
		return false, err
	}
	err = a.use(ctx, e, o)
	if err == nil {
		return true, nil
	}
	switch ledger.OutcomeOf(err) {
	case InsufficientFunds, InvalidStatus, LimitExceeded:
		return false, nil
	default:
		return false, err
	}
}

// open makes an escrow for the pair. Its amount is the requested one, or less if the wallet has less or the key's limits leave less, but at
// least the first hold. The limits count the money only when calls use it, but a key must not lock more than it may spend.
func (a *Authorisation) open(ctx context.Context, o CallOrder) error {
	within, err := a.book.withinLimitsNow(ctx, o)
	if err != nil {
		return err
	}
	credit, err := a.book.creditFor(o)
	if err != nil {
		return err
	}
	_, err = Do(ctx, a.book, func(t *Tx) (Escrow, error) {
		wallet, err := t.Wallet(o.By.Agent)
		if err != nil {
			return Escrow{}, err
		}
		e := newEscrow(EscrowOrder{
			From: o.By.Agent, To: o.Payee, Amount: max(o.Least-credit, min(within, wallet.Available), 1),
			Memo: "opened by the meter of " + o.Payee, AutoRelease: o.OpenFor, OnExpiry: ToPayer,
		})
		e.Kind = KindMeter
		return e, t.lock(&e)
	})
	return err
}

// withinLimitsNow returns how much the escrow that a call opens may have by the limits of the payer: at most o.Open, but at least the first hold.
// It leaves nothing claimed, since other calls may need the room while the escrow is written.
func (b *Book) withinLimitsNow(ctx context.Context, o CallOrder) (ledger.Amount, error) {
	var limits *limitClaim
	err := b.take(o.By.Agent, func() (err error) {
		limits, err = b.claimLimits(ctx, o.By.Key, o.spends(nil))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer limits.end()
	return o.Least + max(0, min(o.Open-o.Least, limits.room())), nil
}

// forMilestone lets a call do the work of a milestone. The call holds nothing, its price may not be above what the milestone pays, and no
// other call may do the same work.
func (a *Authorisation) forMilestone(ctx context.Context, e *Escrow, o CallOrder) error {
	m := e.milestone(o.Milestone)
	switch {
	case m == nil:
		return noMilestone(o.Milestone)
	case e.Status != StatusOpen || e.Closing != "":
		return e.wrongStatus("delivery")
	case !e.AutoReleaseAt.IsZero() && e.OnExpiry == ToPayer: // the payer would have the work, and wait
		return refuse(Forbidden, map[string]string{"escrow_id": e.ID}, "the escrow goes back to its payer when its time is up, so that no call does its work: make one without auto_release_hours, or with on_expiry release")
	case m.Status != MilestonePending:
		return refuse(InvalidStatus, nil, "milestone %q is %s already: one call does its work", m.Name, m.Status)
	case o.Least > m.Amount:
		return refuse(LimitExceeded, map[string]string{"required": o.Least.String(), "limit": m.Amount.String(), "currency": a.book.Currency()},
			"the call can cost %s, more than its milestone pays: %s", o.Least, m.Amount)
	}
	a.source, a.charge.EscrowID, a.milestone, a.worth = e.Account(), e.ID, m.Name, m.Amount
	o.Credit = false
	o.Least = 0 // the acceptance of the milestone pays, and counts against limits
	a.total = 0
	return a.holdFirst(ctx, o, e)
}

// shadow authorises a call in shadow mode, which is only counted.
func (b *Book) shadow(o CallOrder) (*Authorisation, error) {
	owner := o.By.Agent
	if owner == "" {
		owner = o.Payee
	}
	a := &Authorisation{book: b, charge: o.charge(), source: ledger.Wallet(owner), shadow: true, total: max(o.Least, o.Most)}
	var err error
	a.hold, err = b.ledger.Hold(a.source, 0)
	return a, err
}
