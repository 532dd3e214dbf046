package escrow

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// quotaClaim is what one call has claimed of its subscription's quota, and what it needs beyond the quota.
type quotaClaim struct {
	Claim
	subscription Subscription
	over         func(units int64) ledger.Amount // the price of so many millionths of a unit beyond the quota
	beyond       int64
}

// claimQuota claims what a call needs of its subscription's quota, as far as some is left. If the plan counts nothing, it claims nothing.
func (b *Book) claimQuota(ctx context.Context, s Subscription, o CallOrder) (*quotaClaim, error) {
	q := &quotaClaim{subscription: s, over: o.Over}
	var of []Bound
	if q.counted() {
		of = []Bound{{Of: s.quota(), Left: func(r ledger.Reader) (int64, error) {
			now, err := subscriptionByID(r, s.ID)
			if err != nil || now == nil {
				return 0, err
			}
			return now.QuotaLeft(), nil
		}}}
	} else { // nothing is counted but that the call runs
		o.Quota, of = 1, []Bound{{Of: s.running(), Most: math.MaxInt64}}
	}
	take := b.process.claims.TakeUpTo
	if q.counted() && !s.Plan.Overage { // a part is of no use to it, but perhaps to another call
		take = b.process.claims.Take
	}
	var err error
	b.takeUpTo(o.By.Agent, func() (enough bool) {
		if q.Claim != nil {
			q.End()
		}
		if q.Claim, err = take(ctx, o.Quota, of...); err == nil {
			return q.Amount() >= o.Quota
		}
		q.Claim = nil
		_, isFull := errors.AsType[*NoRoom](err)
		return !isFull
	})
	if _, isFull := errors.AsType[*NoRoom](err); isFull { // perhaps since the period is over
		q.Claim, err = b.process.claims.TakeUpTo(ctx, 0, of...)
	}
	return q, err
}

// end gives all of it back.
func (q *quotaClaim) end() {
	if q != nil {
		q.End()
	}
}

// counted reports whether the plan counts units at all.
func (q *quotaClaim) counted() bool { return q.subscription.Plan.Included > 0 }

// exhausted returns the refusal of a call for which nothing is left of the quota, on a plan without overage.
func (q *quotaClaim) exhausted() error {
	s := q.subscription
	return refuse(LimitExceeded, map[string]string{
		"limit": "quota", "plan": s.Plan.Name, "payee": s.Payee, "included": Units(s.Plan.Included), "unit": s.Plan.Unit,
		"renews_at": s.PeriodEnd.Format(time.RFC3339),
	}, "the %s %ss that plan %q includes are used up; they renew at %s", Units(s.Plan.Included), s.Plan.Unit, s.Plan.Name, s.PeriodEnd.Format(time.RFC3339))
}

// fromSubscription takes the units of the call from the quota of the payer's subscription, and holds the price of those beyond it.
func (a *Authorisation) fromSubscription(ctx context.Context, o CallOrder) error {
	s, err := a.claimPeriod(ctx, o)
	if err != nil {
		return err
	}
	a.source = ledger.Wallet(o.By.Agent)
	var pool *Escrow
	if s.PoolID != "" {
		if pool, err = a.book.drawnEscrow(s.PoolID); err != nil {
			a.quota.end()
			return err
		}
		a.source, a.charge.EscrowID = ledger.Escrow(s.PoolID), s.PoolID
	}
	a.charge.Plan, a.charge.SubscriptionID = s.Plan.Name, s.ID
	o.Least, err = a.quotaFirst(o.Quota)
	if err == nil && o.Least > 0 && pool != nil && (pool.Status == StatusRefundRequested || pool.Status == StatusDisputed) {
		err = pool.wrongStatus("metered call")
	}
	if err == nil {
		err = a.holdFirst(ctx, o, pool)
	}
	if err != nil {
		a.quota.end()
		if r := ledger.OutcomeOf(err); r == InsufficientFunds && s.PoolID != "" {
			return a.poolExhausted(err)
		}
		return err
	}
	a.total = o.Least
	return nil
}

// claimPeriod claims what the call needs at first of the period of its subscription. It checks after the claim that the subscription still
// serves. So a cancellation either came before, and claimPeriod sees it; or it comes after, and sees the call.
func (a *Authorisation) claimPeriod(ctx context.Context, o CallOrder) (Subscription, error) {
	for {
		s, err := a.book.runningSubscription(ctx, o)
		if err == nil {
			s, err = a.book.withRecentFunding(s)
		}
		if err != nil {
			return Subscription{}, err
		}
		if a.quota, err = a.book.claimQuota(ctx, s, o); err != nil {
			return Subscription{}, err
		}
		goesOn, err := a.book.goesOn(ctx, s)
		if err == nil && goesOn {
			err = a.book.unpaid(s)
		}
		if err == nil && goesOn {
			return s, nil
		}
		a.quota.end()
		if err != nil {
			return Subscription{}, err
		}
	}
}

// goesOn reports whether the period of a subscription goes on. If the payer cancels a subscription at this moment, goesOn waits until that is
// durable.
func (b *Book) goesOn(ctx context.Context, s Subscription) (bool, error) {
	if b.process.claims.Taken(s.cancelling()) > 0 {
		if _, err := Do(ctx, b, func(*Tx) (struct{}, error) { return struct{}{}, nil }); err != nil { // it comes after the cancellation
			return false, err
		}
	}
	now, err := b.recentSubscription(s.ID)
	if err != nil || now == nil {
		return false, err
	}
	return (now.Status == SubActive || now.Status == SubEnding) && now.EscrowID == s.EscrowID, nil
}

// quotaFirst returns what the first units cost of which the quota has nothing left.
func (a *Authorisation) quotaFirst(wanted int64) (ledger.Amount, error) {
	q := a.quota
	if !q.counted() || q.Amount() >= wanted {
		return 0, nil
	}
	if !q.subscription.Plan.Overage {
		return 0, q.exhausted()
	}
	q.beyond = wanted - q.Amount()
	return q.over(q.beyond), nil
}

func (a *Authorisation) poolExhausted(err error) error {
	r := err.(*Refusal)
	r.Fields["escrow_id"], r.Fields["plan"] = a.charge.EscrowID, a.quota.subscription.Plan.Name
	r.Fields["renews_at"] = a.quota.subscription.PeriodEnd.Format(time.RFC3339)
	r.Detail = "the overage pool of the subscription is used up: " + r.Detail
	return r
}

// runningSubscription returns the payer's subscription to the plan of the order. A suspended subscription begins a new period, if the wallet covers
// it now, since the payer's agreement is valid until the subscription is ended.
func (b *Book) runningSubscription(ctx context.Context, o CallOrder) (Subscription, error) {
	s, err := b.storedPlanSubscription(o)
	if err != nil {
		return Subscription{}, err
	}
	if s == nil {
		return Subscription{}, b.rules.subscriptionRequired(o, b.Currency(), "")
	}
	if s.Status != SubSuspended && !s.over(b.Now()) {
		return *s, nil
	}
	s, err = Do(ctx, b, func(t *Tx) (*Subscription, error) {
		s, err := t.planSubscription(o.By.Agent, o.Payee, o.Plan)
		if err != nil || s == nil || s.Status != SubSuspended {
			return s, err
		}
		if err := t.beginPeriod(o.By, s, t.Now()); err != nil {
			return nil, err
		}
		return s, t.subscriptionEvent(SubscriptionRenewed, *s)
	})
	switch outcome := ledger.OutcomeOf(err); {
	case outcome == InsufficientFunds || outcome == LimitExceeded:
		return Subscription{}, b.rules.subscriptionRequired(o, b.Currency(), SubSuspended)
	case err != nil:
		return Subscription{}, err
	case s == nil:
		return Subscription{}, b.rules.subscriptionRequired(o, b.Currency(), "")
	default:
		return *s, nil
	}
}

func (b *Book) storedPlanSubscription(o CallOrder) (s *Subscription, err error) {
	err = b.look(func(r ledger.Reader) error {
		id, err := r.Get(subsByPlan.key(o.By.Agent, o.Payee, o.Plan))
		if err != nil || id == nil {
			return err
		}
		s, err = subscriptionByID(r, string(id))
		return err
	})
	return s, err
}

// Subscription returns the subscription that pays the call, as it was when the call was authorised. It returns false if none does.
func (a *Authorisation) Subscription() (Subscription, bool) {
	if a.quota == nil {
		return Subscription{}, false
	}
	return a.quota.subscription, true
}

// ExtendQuota increases what the call may use to units, in millionths, including those of the first authorisation. They are taken from the
// quota, and beyond it from the money that pays overage. If neither has enough, ExtendQuota changes nothing and returns false.
func (a *Authorisation) ExtendQuota(units int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.quota
	if q == nil {
		return false
	}
	more := units - q.Amount() - q.beyond
	if more <= 0 || !q.counted() {
		return true
	}
	extend := a.extendQuota
	if !q.subscription.Plan.Overage {
		extend = q.Extend
	}
	enough := false
	a.book.takeUpTo(a.charge.Payer, func() bool {
		enough = extend(more) == nil
		return enough
	})
	return enough
}

// extendQuota takes more of the quota, and the money for what is beyond it. If it fails, nothing has changed. a.mu must be locked.
func (a *Authorisation) extendQuota(more int64) error {
	q := a.quota
	taken, err := q.ExtendUpTo(more)
	if err != nil {
		return err
	}
	if beyond := more - taken; beyond > 0 {
		if err := a.extendNow(max(0, q.over(q.beyond+beyond)-a.total)); err != nil {
			q.GiveBack(taken)
			return err
		}
		q.beyond += beyond
	}
	return nil
}

// QuotaReach returns how much the call could use, in millionths, including what it has claimed already: at most units, and no more than is left of
// the quota and, beyond it, of the money that pays overage. Other calls may take some of it before this one does.
func (a *Authorisation) QuotaReach(units int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.quota
	if q == nil || !q.counted() {
		return units
	}
	has, taken := q.Amount()+q.beyond, int64(0)
	a.book.takeUpTo(a.charge.Payer, func() (enough bool) {
		var err error
		if taken, err = q.ExtendUpTo(max(0, units-has)); err == nil {
			q.GiveBack(taken)
		}
		return err != nil || taken >= units-has
	})
	least, most := min(units, has+taken), units
	if !q.subscription.Plan.Overage || least == most {
		return least
	}
	room := plus(a.total, min(a.Reachable()-a.Held(), a.limits.room()))
	for mid := most; least < most; mid = most - (most-least)/2 {
		if q.over(q.beyond+mid-has-taken) <= room {
			least = mid
		} else {
			most = mid - 1
		}
	}
	return least
}

// reachQuota sets aside what a call has used in the end, first from the quota, then from the money, as far as there is enough.
func (a *Authorisation) reachQuota(s Settlement) {
	q := a.quota
	if q == nil || !q.counted() {
		return
	}
	if s.Quota > q.Amount() {
		a.book.takeUpTo(a.charge.Payer, func() (enough bool) {
			_, err := q.ExtendUpTo(max(0, s.Quota-q.Amount())) // an error leaves it to the money, and shows there
			return err != nil || q.Amount() >= s.Quota
		})
	}
	if beyond := s.Quota - q.Amount(); beyond > 0 && q.subscription.Plan.Overage {
		a.ExtendUpTo(s.limited(s.over(q)(beyond)))
	}
}

// over returns the function for the price of units beyond the quota: that of the settlement, or else that of the order.
func (s Settlement) over(q *quotaClaim) func(int64) ledger.Amount {
	if s.Over != nil {
		return s.Over
	}
	return q.over
}

// useQuota takes what a call has used from the quota of its subscription, and returns what the rest costs.
func (t *Tx) useQuota(q *quotaClaim, c *Charge, s Settlement) (ledger.Amount, error) {
	sub, err := t.subscription(q.subscription.ID)
	if err != nil || sub == nil {
		return 0, err
	}
	used := int64(0)
	if q.counted() {
		used = min(max(s.Quota, 0), q.Amount(), sub.QuotaLeft())
	}
	sub.Used += used
	c.QuotaUsed, c.QuotaLeft = used, sub.QuotaLeft()
	var price ledger.Amount
	if beyond := s.Quota - used; beyond > 0 && q.counted() && q.subscription.Plan.Overage {
		if s.OverAfter != nil {
			price = max(0, s.OverAfter(sub.Beyond, beyond))
		} else {
			price = max(0, s.over(q)(beyond))
		}
		sub.Beyond = min(sub.Beyond+beyond, maxUse)
	}
	if err := t.servedPeriod(sub); err != nil {
		return 0, err
	}
	if err := t.put(subscriptionTable.key(sub.ID), sub); err != nil {
		return 0, err
	}
	return price, q.Settle(t)
}
