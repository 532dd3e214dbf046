package escrow

import (
	"errors"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A subscription serves while its period is paid. If the payer asks for the period's money back, or it is disputed, or most of it went back, the
// payer has no access until the next period, or until the payer withdraws the request.

// serves reports whether calls may use a subscription whose period's money is in e.
func (e *Escrow) serves() bool {
	switch {
	case e == nil: // in books from before periods had escrows
		return true
	case e.Status == StatusRefundRequested, e.Status == StatusDisputed:
		return false
	default:
		return e.Refunded < e.Amount && (e.Remaining() > 0 || e.Released >= e.Refunded)
	}
}

// unpaid returns the refusal of a call if what pays for the period of its subscription was refunded or disputed away.
func (b *Book) unpaid(s Subscription) error {
	e, err := b.storedEscrow(s.EscrowID)
	if err != nil {
		return err
	}
	return s.servedBy(e, b.Currency())
}

// servedBy refuses a call if e, which has the money of the period, does not serve any more.
func (s Subscription) servedBy(e *Escrow, currency string) error {
	if e.serves() {
		return nil
	}
	return refuse(SubscriptionRequired, map[string]string{
		"plan": s.Plan.Name, "payee": s.Payee, "currency": currency, "subscription_id": s.ID, "escrow_id": e.ID, "escrow_status": string(e.Status),
		"renews_at": s.PeriodEnd.Format(time.RFC3339),
	}, "the money for this period of the subscription was refunded, or is disputed or asked back (escrow %s); withdraw the request, or cancel the subscription and begin it again", e.ID)
}

// servedPeriod notes in the escrow of the period's price that calls were served. So a request for its refund that meets silence is disputed, not
// granted.
func (t *Tx) servedPeriod(s *Subscription) error {
	if s.Served == s.EscrowID {
		return nil
	}
	s.Served = s.EscrowID
	e, err := t.escrow(s.EscrowID)
	if err != nil || e == nil || e.Remaining() == 0 {
		return err
	}
	e.Served = true
	return t.saveEscrow(e)
}

// CancelSubscription ends a subscription now. The rest of its period goes back to the payer, by the time that is left of the period; or by what
// is left of the quota, if that is less. The payee has the part before, rounded down. What is left of the overage pool goes back as well.
//
// Either party may do this. But if calls were served in the period, and the plan has no quota, the payer can't: only the payee knows what
// they are worth. A period whose money is refunded, disputed or asked back already ends without moving it.
func (t *Tx) CancelSubscription(by Actor, id string) (Subscription, error) {
	s, err := t.subscriptionOf(by, id)
	if err != nil {
		return Subscription{}, err
	}
	if s.Status == SubEnded {
		return Subscription{}, refuse(InvalidStatus, nil, "the subscription is %s already", s.Status)
	}
	if err := t.audit(by, "subscription.cancel", id, ""); err != nil {
		return Subscription{}, err
	}
	if s.EscrowID != "" && s.Status != SubSuspended {
		if err := t.cancelPeriod(by, s); err != nil {
			return Subscription{}, err
		}
		s.PeriodEnd = t.Now()
	}
	return *s, t.endSubscription(s)
}

func (t *Tx) cancelPeriod(by Actor, s *Subscription) error {
	price, err := t.escrow(s.EscrowID)
	if err != nil {
		return err
	}
	if price == nil || price.Status != StatusOpen || price.Closing != "" || price.Remaining() == 0 {
		return by.mayPay(s.Payee)
	}
	_, err = t.process.claims.TakeIn(t, 1, Bound{Of: s.cancelling(), Most: 1}) // before it looks for calls; see [Authorisation.claimPeriod]
	if _, isFull := errors.AsType[*NoRoom](err); isFull {
		return refuse(InvalidStatus, map[string]string{"retry_after": "1"}, "the subscription is being cancelled")
	}
	if err != nil {
		return err
	}
	byPayer := by.Agent == s.Payer
	if byPayer {
		if err := t.mayCancel(s); err != nil {
			return err
		}
	}
	taken, err := t.process.claims.TakenIn(t, s.quota())
	if err != nil {
		return err
	}
	rest := min(s.unused(price.Amount, t.Now(), taken), price.Remaining())
	if byPayer || by.Operator {
		err = t.spend(by, price.letGo(price.Remaining()-rest))
	} else {
		err = t.spend(by, spending{agent: s.Payee, payee: s.Payer, amount: rest})
	}
	if err != nil {
		return err
	}
	if err := t.out(price, ToPayer, rest, "the rest of a cancelled period"); err != nil {
		return err
	}
	if err := t.finishCancelled(price, ToPayee); err != nil || s.PoolID == "" {
		return err
	}
	pool, err := t.escrow(s.PoolID)
	if err != nil || pool == nil || pool.Status != StatusOpen || pool.Closing != "" || pool.Remaining() == 0 {
		return err
	}
	return t.finishCancelled(pool, ToPayer)
}

func (t *Tx) finishCancelled(e *Escrow, way Way) error {
	if err := t.sendRest(e, way, "the subscription was cancelled"); err != nil {
		return err
	}
	if err := t.saveEscrow(e); err != nil {
		return err
	}
	what := EscrowReleased
	if way == ToPayer {
		what = EscrowRefunded
	}
	return t.escrowEvent(what, *e)
}

// mayCancel refuses a payer that would take back the money for what it was served.
func (t *Tx) mayCancel(s *Subscription) error {
	if s.Plan.Name == "" || s.Plan.Included > 0 {
		return nil
	}
	if running, err := t.process.claims.TakenIn(t, s.running()); err != nil {
		return err
	} else if running > 0 {
		return refuse(InvalidStatus, map[string]string{"retry_after": "1"}, "calls on this plan run; cancel when they have ended")
	}
	if s.Served == s.EscrowID {
		return refuse(Forbidden, map[string]string{"subscription_id": s.ID, "period_end": s.PeriodEnd.Format(time.RFC3339)},
			"calls were served in this period, of a plan without a quota: end the subscription with its period, or ask %q to cancel it now", s.Payee)
	}
	return nil
}

// unused is the part of a period's price that goes back when the subscription is cancelled now: by the time that is left, or by the quota. taken is
// what running calls have claimed of the quota.
func (s Subscription) unused(price ledger.Amount, now time.Time, taken int64) ledger.Amount {
	whole := int64(s.PeriodEnd.Sub(s.PeriodStart))
	gone := min(max(0, int64(now.Sub(s.PeriodStart))), whole)
	used := portionOf(price, gone, whole)
	if included := s.Plan.Included; included > 0 {
		used = max(used, portionOf(price, min(included, s.Used+taken), included))
	}
	return price - used
}

func (s Subscription) cancelling() Thing { return Thing{Kind: Cancelling, Owner: s.Payer, Name: s.ID} }

func (s Subscription) running() Thing { return Thing{Kind: RunningPlan, Owner: s.Payer, Name: s.ID} }

func (s Subscription) quota() Thing { return Thing{Kind: PlanQuota, Owner: s.Payer, Name: s.ID} }

// undoEnd lets a subscription that was to end with its period go on. Only who has ended it, and the operator, may do this.
func (t *Tx) undoEnd(by Actor, s *Subscription) error {
	who := by.Agent
	if by.Operator {
		who = s.EndedBy
	}
	if s.EndedBy != "" && who != s.EndedBy || who == "" && !by.Operator {
		return refuse(Forbidden, nil, "%q has ended the subscription; only it can let it go on", s.EndedBy)
	}
	if by.Agent == s.Payer { // its renewals are spending by this key
		if err := t.spend(by, spending{agent: s.Payer, payee: s.Payee}); err != nil {
			return err
		}
		s.Key = by.Key
	}
	s.Status, s.EndedBy = SubActive, ""
	return t.saveSubscription(s)
}
