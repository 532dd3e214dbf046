package escrow

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// SubscriptionStatus is the status of a subscription.
type SubscriptionStatus string

// The statuses of a subscription.
const (
	SubActive    SubscriptionStatus = "active"    // it renews at the period's end
	SubEnding    SubscriptionStatus = "ending"    // it ends with its period
	SubSuspended SubscriptionStatus = "suspended" // the wallet or a limit did not cover the next period, or its key was revoked; no money is locked
	SubEnded     SubscriptionStatus = "ended"
)

// Subscription locks a price each period, in an escrow that is released automatically at the end of the period. It renews until it is
// ended, or it is suspended because the wallet or a limit does not cover the next period, or because its key was revoked. It belongs to a
// plan of a metered route, or has no plan, as for a payroll.
//
// Its terms are those to which the payer agreed. If a plan changes in the configuration, that applies only to new subscriptions.
type Subscription struct {
	ID          string             `cbor:"1,keyasint"`
	Status      SubscriptionStatus `cbor:"2,keyasint"`
	Payer       string             `cbor:"3,keyasint"`
	Plan        Plan               `cbor:"4,keyasint"` // with its payee, price and period; without a name: the subscription has no plan
	Memo        string             `cbor:"5,keyasint,omitempty"`
	PeriodStart time.Time          `cbor:"6,keyasint"`
	PeriodEnd   time.Time          `cbor:"7,keyasint"`
	EscrowID    string             `cbor:"8,keyasint,omitempty"`  // of this period's price
	PoolID      string             `cbor:"9,keyasint,omitempty"`  // of this period's overage pool
	Used        int64              `cbor:"10,keyasint,omitempty"` // of the period's quota, in millionths of a unit
	Beyond      int64              `cbor:"16,keyasint,omitempty"` // the same, beyond the quota
	Periods     int64              `cbor:"11,keyasint"`           // how many began
	CreatedAt   time.Time          `cbor:"12,keyasint"`
	UpdatedAt   time.Time          `cbor:"13,keyasint"`
	Payee       string             `cbor:"14,keyasint"`
	Key         string             `cbor:"15,keyasint,omitempty"` // the payer's key that began the subscription, or resumed it last; renewals count against its limits, and end when it is revoked

	Anchor      time.Time `cbor:"17,keyasint,omitzero"`  // when the series of periods began; calendar months are counted from it
	SinceAnchor int       `cbor:"18,keyasint,omitempty"` // periods that have begun since then
	Served      string    `cbor:"19,keyasint,omitempty"` // the escrow of the last period in which calls were served
	EndedBy     string    `cbor:"20,keyasint,omitempty"` // who has ended it, while it is ending: an agent, or "operator"

	RenewalFunded bool `cbor:"-"` // at the time of reading; see [Subscription.FundedFor]
}

// FundedFor reports whether the next period could begin now: the wallet covers it, and the key that began the subscription is not revoked.
// It returns nil unless the caller is the payer or the operator, because nobody else may learn what is in a wallet.
func (s Subscription) FundedFor(by Actor) *bool {
	if !by.Operator && (by.Agent == "" || by.Agent != s.Payer) {
		return nil
	}
	return &s.RenewalFunded
}

// QuotaLeft returns what is left of the period's quota, in millionths of a unit.
func (s Subscription) QuotaLeft() int64 { return max(0, s.Plan.Included-s.Used) }

// SubscriptionOrder describes a new subscription: to a plan, or with its own terms.
type SubscriptionOrder struct {
	Payer  string // the operator names it
	Payee  string
	Plan   string
	Amount ledger.Amount // without a plan: of each period
	Period time.Duration
	Months int // instead of Period: calendar months
	Memo   string
}

const maxPeriod = 10 * 365 * 24 * time.Hour

// Subscribe begins a subscription and locks its first period.
// Refused: invalid_request, already_exists for a second one to a plan, insufficient_funds.
func (t *Tx) Subscribe(by Actor, o SubscriptionOrder) (Subscription, error) {
	payer, err := t.actsFor(by, "from_agent_id", o.Payer)
	if err != nil {
		return Subscription{}, err
	}
	field := "to_agent_id"
	if o.Plan != "" {
		field = "payee"
	}
	if err := t.checkPair(payer, field, o.Payee); err != nil {
		return Subscription{}, err
	}
	if err := checkText("memo", o.Memo); err != nil {
		return Subscription{}, err
	}
	plan, err := t.terms(o)
	if err != nil {
		return Subscription{}, err
	}
	s := Subscription{Status: SubActive, Payer: payer, Payee: o.Payee, Plan: plan, Memo: o.Memo}
	if plan.Name != "" {
		current, err := t.planSubscription(payer, o.Payee, plan.Name)
		if err != nil {
			return Subscription{}, err
		}
		if current != nil && current.Status == SubSuspended { // the payer agrees to the plan's present terms
			if err := t.endSubscription(current); err != nil {
				return Subscription{}, err
			}
		} else if current != nil {
			return Subscription{}, refuse(AlreadyExists, map[string]string{"subscription_id": current.ID}, "the subscription to %q exists already, until %s", plan.Name, current.PeriodEnd.Format(time.RFC3339))
		}
	}
	if plan.Name == "" {
		if err := t.roomForSubscription(payer); err != nil {
			return Subscription{}, err
		}
	}
	s.ID, s.CreatedAt = t.process.ids.next("sub_", t.Now()), t.Now()
	if err := t.beginPeriod(by, &s, t.Now()); err != nil {
		return Subscription{}, err
	}
	if err := t.audit(by, "subscription.create", s.ID, ""); err != nil {
		return Subscription{}, err
	}
	return t.withFunding(s), t.subscriptionEvent(SubscriptionStarted, s)
}

// roomForSubscription refuses a payer that already has the largest number of subscriptions without a plan.
func (t *Tx) roomForSubscription(payer string) error {
	count, err := t.countUpTo(subsWithoutPlan.under(payer), t.rules.MaxSubscriptions)
	if err == nil && count >= t.rules.MaxSubscriptions {
		err = refuse(InvalidStatus, map[string]string{"limit": strconv.Itoa(t.rules.MaxSubscriptions)}, "an agent has at most %d subscriptions without a plan here; end one", t.rules.MaxSubscriptions)
	}
	return err
}

// terms returns the terms of the named plan, or the order's own.
func (t *Tx) terms(o SubscriptionOrder) (Plan, error) {
	if o.Plan != "" {
		plan, found := t.rules.plan(o.Payee, o.Plan)
		if !found {
			return Plan{}, refuse(InvalidRequest, map[string]string{"field": "plan", "plan": o.Plan}, "plan %.80q: %q offers no such plan", o.Plan, o.Payee)
		}
		return plan, nil
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Plan{}, err
	}
	if o.Amount < t.rules.MinEscrow {
		return Plan{}, invalid("amount", "amount %s: a subscription is of at least %s %s a period here", o.Amount, t.rules.MinEscrow, t.Currency())
	}
	if o.Months < 0 || o.Months > maxMonths || o.Months > 0 && o.Period > 0 {
		return Plan{}, invalid("period", "period: from 1mo to %dmo, or a duration", maxMonths)
	}
	if o.Months == 0 && (o.Period < t.rules.MinPeriod || o.Period > maxPeriod) {
		return Plan{}, invalid("period_hours", "period_hours: a period is from %s to %d hours here", t.rules.MinPeriod, maxPeriod/time.Hour)
	}
	return Plan{Payee: o.Payee, Price: o.Amount, Period: o.Period, Months: o.Months}, nil
}

// beginPeriod begins a period at start: it locks the price and the overage pool. They count against the limits of by.
func (t *Tx) beginPeriod(by Actor, s *Subscription, start time.Time) error {
	need, err := s.Plan.needed()
	if err != nil {
		return invalid("amount", "%v", err)
	}
	if err := t.spend(by, spending{agent: s.Payer, payee: s.Payee, amount: need}); err != nil {
		return err
	}
	s.Key = by.Key
	s.setPeriod(start)
	s.Used, s.Beyond, s.Status = 0, 0, SubActive
	s.Periods++
	memo := s.Memo
	if s.Plan.Name != "" {
		memo = fmt.Sprintf("subscription %s, period %d", s.Plan.Name, s.Periods)
	}
	price := Escrow{Kind: KindPeriod, Status: StatusOpen, From: s.Payer, To: s.Payee, Amount: s.Plan.Price, Memo: memo, OnExpiry: ToPayee}
	if err := t.lockPeriod(s, &price, &s.EscrowID); err != nil {
		return err
	}
	if err := t.countFee(fee{Payer: s.Payer, Payee: s.Payee, Plan: s.Plan.Name, Key: s.Key, Amount: s.Plan.Price}, s.EscrowID); err != nil {
		return err
	}
	s.PoolID = ""
	if s.Plan.Pool > 0 {
		pool := Escrow{Kind: KindOverage, Status: StatusOpen, From: s.Payer, To: s.Payee, Amount: s.Plan.Pool, Memo: s.Plan.poolMemo(), OnExpiry: ToPayer}
		if err := t.lockPeriod(s, &pool, &s.PoolID); err != nil {
			return err
		}
	}
	if err := t.announceRenewal(s); err != nil {
		return err
	}
	return t.saveSubscription(s)
}

func (t *Tx) lockPeriod(s *Subscription, e *Escrow, id *string) error {
	e.Subscription, e.AutoRelease, e.AutoReleaseAt = s.ID, s.PeriodEnd.Sub(s.PeriodStart), s.PeriodEnd
	e.countedFor(s.Key)
	err := t.lock(e)
	*id = e.ID
	return err
}

// over reports whether a subscription's period is over, so that something is due.
func (s Subscription) over(now time.Time) bool {
	return (s.Status == SubActive || s.Status == SubEnding) && !s.PeriodEnd.After(now)
}

// renew does what is due to a subscription whose period is over: the subscription ends, begins its next period, or is suspended. After a downtime
// the missed periods are processed one by one.
func (t *Tx) renew(s *Subscription) error {
	for _, id := range []string{s.EscrowID, s.PoolID} { // the period's own money goes first
		if id == "" {
			continue
		}
		e, err := t.escrow(id)
		if err != nil {
			return err
		}
		if id == s.EscrowID && e != nil && e.Refunded == e.Amount { // the payee has given the whole price back
			s.Status = SubEnding
		}
	}
	if s.Status == SubEnding {
		return t.endSubscription(s)
	}
	if goesOn, err := stands(t.ledger, s.Payer, s.Key, t.Now()); err != nil {
		return err
	} else if !goesOn {
		return t.suspend(s)
	}
	next := *s
	err := t.ledger.Try(func() error { return t.beginPeriod(Actor{Agent: s.Payer, Key: s.Key}, &next, s.PeriodEnd) })
	switch ledger.OutcomeOf(err) {
	case ledger.OK:
		if err != nil {
			return err
		}
		*s = next
		return t.subscriptionEvent(SubscriptionRenewed, *s)
	case InsufficientFunds, LimitExceeded:
		return t.suspend(s)
	default:
		return err
	}
}

func (t *Tx) suspend(s *Subscription) error {
	s.Status, s.EscrowID, s.PoolID = SubSuspended, "", ""
	if err := t.saveSubscription(s); err != nil {
		return err
	}
	return t.subscriptionEvent(SubscriptionSuspended, *s)
}

// renewOnce renews a subscription by one period only, so that other due things get their turn between its missed periods.
func (t *Tx) renewOnce(id string) error {
	s, err := subscriptionByID(t.ledger, id)
	if err != nil || s == nil || !s.over(t.Now()) {
		return err
	}
	return t.renew(s)
}

func (t *Tx) endSubscription(s *Subscription) error {
	s.Status = SubEnded
	if err := t.saveSubscription(s); err != nil {
		return err
	}
	return t.subscriptionEvent(SubscriptionEnded, *s)
}

// saveSubscription writes a subscription, the lists that it is in, and when something happens to it by itself.
func (t *Tx) saveSubscription(s *Subscription) error {
	s.UpdatedAt = t.Now()
	for _, party := range []string{s.Payer, s.Payee} {
		t.ledger.Put(subsByAgent.key(party, s.ID), []byte{})
	}
	running, value := subsWithoutPlan.key(s.Payer, s.ID), []byte{}
	if s.Plan.Name != "" {
		running, value = subsByPlan.key(s.Payer, s.Payee, s.Plan.Name), []byte(s.ID)
	}
	if s.Status == SubEnded {
		t.ledger.Delete(running)
	} else {
		t.ledger.Put(running, value)
	}
	if s.Status == SubActive || s.Status == SubEnding {
		if err := t.fallsDue(s.Payer, s.PeriodEnd, dueSubscription+s.ID); err != nil {
			return err
		}
	}
	t.changed(s.Payer, s.Payee)
	return t.put(subscriptionTable.key(s.ID), s)
}

// periodsTogether is how many missed periods of a subscription one operation processes at most.
const periodsTogether = 32

// subscription loads a subscription in order to change it, after what is due to it was done. It returns nil if there is none. It is refused with
// rate_limited if so many periods were missed that [Book.RunDue] must process them first.
func (t *Tx) subscription(id string) (*Subscription, error) {
	s, err := subscriptionByID(t.ledger, id)
	if err != nil || s == nil {
		return nil, err
	}
	for range periodsTogether {
		if err != nil || !s.over(t.Now()) {
			return s, err
		}
		err = t.renew(s)
	}
	if err == nil && s.over(t.Now()) {
		err = refuse(RateLimited, map[string]string{"retry_after": "1", "subscription_id": id}, "the subscription is many periods behind and is being brought up to date; try again")
	}
	return s, err
}

func subscriptionByID(r ledger.Reader, id string) (*Subscription, error) {
	if len(id) > maxID {
		return nil, nil
	}
	var s Subscription
	if found, err := load(r, subscriptionTable.key(id), &s); err != nil || !found {
		return nil, err
	}
	return &s, nil
}

// planSubscription returns the subscription of a pair to a plan that has not ended, or nil.
func (t *Tx) planSubscription(payer, payee, plan string) (*Subscription, error) {
	id, err := t.ledger.Get(subsByPlan.key(payer, payee, plan))
	if err != nil || id == nil {
		return nil, err
	}
	s, err := t.subscription(string(id))
	if s != nil && s.Status == SubEnded {
		return nil, err
	}
	return s, err
}

// subscriptionOf returns a subscription to one of its parties or the operator. For anybody else it does not exist.
func (t *Tx) subscriptionOf(by Actor, id string) (*Subscription, error) {
	if err := by.mayMove(); err != nil {
		return nil, err
	}
	s, err := t.subscription(id)
	if err != nil {
		return nil, err
	}
	if s == nil || !s.visible(by) {
		return nil, noSubscription(id)
	}
	return s, nil
}

func (s Subscription) visible(by Actor) bool {
	return by.Operator || by.Agent != "" && (by.Agent == s.Payer || by.Agent == s.Payee)
}

func noSubscription(id string) error { return refuse(NotFound, nil, "no subscription %.80q", id) }

// EndSubscription ends a subscription at the end of its period, or at once if it is suspended. Either party may do this.
func (t *Tx) EndSubscription(by Actor, id string) (Subscription, error) {
	s, err := t.subscriptionOf(by, id)
	if err != nil {
		return Subscription{}, err
	}
	if err := t.audit(by, "subscription.end", id, ""); err != nil {
		return Subscription{}, err
	}
	switch s.Status {
	case SubSuspended:
		return *s, t.endSubscription(s)
	case SubActive:
		s.Status, s.EndedBy = SubEnding, by.Agent
		if by.Operator {
			s.EndedBy = "operator"
		}
		return *s, t.saveSubscription(s)
	default:
		return Subscription{}, refuse(InvalidStatus, nil, "the subscription is %s already", s.Status)
	}
}

// ResumeSubscription begins a new period of a suspended subscription now; only the payer and the operator may do this. A subscription that was to
// end with its period goes on; only who has ended it, and the operator, may do this.
func (t *Tx) ResumeSubscription(by Actor, id string) (Subscription, error) {
	s, err := t.subscriptionOf(by, id)
	if err != nil {
		return Subscription{}, err
	}
	if s.Status == SubEnding {
		if err := t.undoEnd(by, s); err != nil {
			return Subscription{}, err
		}
		return t.withFunding(*s), t.audit(by, "subscription.resume", id, "")
	}
	if !by.Operator && by.Agent != s.Payer {
		return Subscription{}, refuse(Forbidden, nil, "only the payer resumes")
	}
	if s.Status != SubSuspended {
		return Subscription{}, refuse(InvalidStatus, nil, "the subscription is %s, not suspended", s.Status)
	}
	if err := t.audit(by, "subscription.resume", id, ""); err != nil {
		return Subscription{}, err
	}
	if err := t.beginPeriod(by, s, t.Now()); err != nil {
		return Subscription{}, err
	}
	return t.withFunding(*s), t.subscriptionEvent(SubscriptionRenewed, *s)
}

// withFunding fills in RenewalFunded.
func (t *Tx) withFunding(s Subscription) Subscription {
	w, err := t.Wallet(s.Payer)
	s.RenewalFunded = err == nil && s.funded(t.ledger, w, t.Now())
	return s
}

func (b *Book) withFunding(ctx context.Context, s Subscription) (Subscription, error) {
	w, err := b.Wallet(ctx, s.Payer)
	if err != nil {
		return s, err
	}
	err = b.view(func(r ledger.Reader) error {
		s.RenewalFunded = s.funded(r, w, b.Now())
		return nil
	})
	return s, err
}

// withRecentFunding is like withFunding, but what other processes did last may be missing.
func (b *Book) withRecentFunding(s Subscription) (Subscription, error) {
	free, err := b.ledger.Free(account(s.Payer))
	if err != nil {
		return s, err
	}
	err = b.look(func(r ledger.Reader) error {
		s.RenewalFunded = s.funded(r, Wallet{Available: free}, b.Now())
		return nil
	})
	return s, err
}

// funded reports whether the wallet covers the next period, and the subscription's key is not revoked.
func (s Subscription) funded(r ledger.Reader, w Wallet, now time.Time) bool {
	need, err := s.Plan.needed()
	if err != nil || w.Available < need {
		return false
	}
	goesOn, err := stands(r, s.Payer, s.Key, now)
	return err == nil && goesOn
}

// Subscription returns a subscription to one of its parties or the operator, with what is due to it done first.
func (b *Book) Subscription(ctx context.Context, by Actor, id string) (Subscription, error) {
	s, err := b.storedSubscription(id)
	if err != nil {
		return Subscription{}, err
	}
	if s == nil || !s.visible(by) {
		return Subscription{}, noSubscription(id)
	}
	if s.over(b.Now()) {
		s, err = Do(ctx, b, func(t *Tx) (*Subscription, error) { return t.subscription(id) })
		if IsRefusal(err, RateLimited) {
			s, err = b.storedSubscription(id)
		}
		if err != nil {
			return Subscription{}, err
		}
	}
	return b.withFunding(ctx, *s)
}

func (b *Book) storedSubscription(id string) (s *Subscription, err error) {
	err = b.view(func(r ledger.Reader) error {
		s, err = subscriptionByID(r, id)
		return err
	})
	return s, err
}

// recentSubscription is like storedSubscription, but what other processes did last may be missing.
func (b *Book) recentSubscription(id string) (s *Subscription, err error) {
	err = b.look(func(r ledger.Reader) error {
		s, err = subscriptionByID(r, id)
		return err
	})
	return s, err
}

// Subscriptions lists an agent's subscriptions, as payer and as payee, newest first.
func (b *Book) Subscriptions(ctx context.Context, agent string, status SubscriptionStatus, p Page) (subs []Subscription, next string, err error) {
	switch status {
	case "", SubActive, SubEnding, SubSuspended, SubEnded:
	default:
		return nil, "", invalid("status", "status %.40q: active, ending, suspended or ended", string(status))
	}
	l := list[Subscription]{table: subsByAgent, parts: []string{agent}, item: func(r ledger.Reader, id string, _ []byte) (Subscription, bool, error) {
		s, err := subscriptionByID(r, id)
		if err != nil || s == nil {
			return Subscription{}, false, err
		}
		return *s, status == "" || s.Status == status, nil
	}}
	err = b.view(func(r ledger.Reader) error {
		subs, next, err = l.page(r, p)
		return err
	})
	for i := range subs {
		if err != nil {
			break
		}
		subs[i], err = b.withFunding(ctx, subs[i])
	}
	return subs, next, err
}
