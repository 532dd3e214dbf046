package gateway

import (
	"fmt"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// Subscription pays calls by the caller's subscription to a plan: a flat rate for a period, with or without a quota.
type Subscription struct {
	Plan     escrow.Plan
	Included *pricing.Measure // what a period includes; nil: any number of calls
	Rates    *pricing.Rates   // the prices of what is beyond the quota; empty if that is not for sale
}

func (s *Subscription) charges() bool { return s.Included == nil }

// used returns how much of the quota's unit is in units, in millionths, or 0 if the plan has no quota.
func (s *Subscription) used(units meter.Units) int64 {
	if s.Included == nil {
		return 0
	}
	return int64(s.Included.In(units))
}

// counts reports whether the quota is one of units of a class.
func (s *Subscription) counts(class meter.Class) bool {
	return s != nil && s.used(meter.Units{class: meter.Whole(1 << 40)}) > 0
}

// over returns the price of units beyond the quota, which are in millionths.
func (s *Subscription) over(units int64) ledger.Amount {
	nano, _ := s.Rates.Due(meter.Usage{Units: s.Included.Priced(meter.Quantity(units))}) // an error means more than the largest amount, which Due then returns
	return ledger.Amount(nano)
}

// overAfter returns the price of units beyond the quota, after before other such units in the period.
func (s *Subscription) overAfter(before, units int64) ledger.Amount {
	used := s.Included.Priced(meter.Quantity(before))
	priced, _ := s.Rates.Price(meter.Usage{Units: s.Included.Priced(meter.Quantity(units))}, func(c pricing.Counter) meter.Quantity {
		return used[c.Class]
	})
	return ledger.Amount(priced.Nano)
}

// order takes from the quota what the call can use at first. If the unit is counted before the answer, that is everything; otherwise it is
// the input and the first batch of the answer.
func (s *Subscription) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Plan, o.Pattern = escrow.FromSubscription, s.Plan.Name, "subscription"
	o.Least, o.Most = 0, 0
	if s.Included == nil {
		return
	}
	o.Over, o.Credit = s.over, s.Plan.Overage && usesCredit(q)
	first := meter.Units{meter.Calls: meter.Whole(1)}
	if q.rates.UsesTokens() {
		output := q.batchTokens()
		if q.call.MaxOutput > 0 {
			output = min(output, q.call.MaxOutput)
		}
		first.Add(meter.Input, meter.Whole(q.call.InputTokens))
		first.Add(meter.Output, meter.Whole(output))
	}
	q.addAsked(first)
	o.Quota = s.used(first)
	if o.Quota == 0 { // only the answer has this unit, so a call may begin if anything is left
		o.Quota = escrow.Micro
	}
}

func (s *Subscription) begin(q *asked, o escrow.CallOrder, auth *escrow.Authorisation) payment {
	flat := flatRate{held{asked: q, auth: auth}, s}
	if s.Included == nil {
		return &flat
	}
	s.fitOutput(q, auth)
	return &quota{flat, o.Quota}
}

// fitOutput limits the output that is asked for to what is left of the quota, and of the money for what is beyond it. Otherwise the answer
// might have to be withheld at the end. If more is left than an answer has as a rule, the request stays as it is.
func (s *Subscription) fitOutput(q *asked, auth *escrow.Authorisation) {
	if q.call.API == "" || q.call.InputOnly || !s.counts(meter.Output) {
		return
	}
	need := func(output int64) int64 {
		units := meter.Units{meter.Calls: meter.Whole(1), meter.Input: meter.Whole(q.call.InputTokens), meter.Output: meter.Whole(output)}
		q.addAsked(units)
		return s.used(units)
	}
	most := q.call.MaxOutput
	if most == 0 {
		most = DefaultMaxOutput * max(1, q.call.Choices)
	}
	if room := auth.QuotaReach(need(most)); room < need(most) {
		q.limitOutput(mostOutput(most, func(n int64) bool { return need(n) <= room }))
	}
}

// flatRate is the payment of a call that its subscription covers, however much it uses.
type flatRate struct {
	held
	plan *Subscription
}

// known returns 0, since the period is paid. If the answer is judged, nothing is known.
func (p *flatRate) known() (ledger.Amount, bool) { return p.fixed() }
func (p *flatRate) covers(int) bool              { _, ok := p.fixed(); return ok }
func (p *flatRate) reach(meter.Units, uses) bool { return true }

// mention states the plan and when it renews. If the renewal can't be paid, it warns before.
func (p *flatRate) mention(h http.Header, _ int64) { p.describe(h, "") }

func (p *flatRate) describe(h http.Header, left string) {
	sub, ok := p.auth.Subscription()
	if !ok {
		return
	}
	terms := fmt.Sprintf("%s; renews=%s%s", p.plan.Plan.Name, sub.PeriodEnd.UTC().Format(time.RFC3339), left)
	if !sub.RenewalFunded {
		terms += "; renewal=unfunded"
	}
	h.Set(headerSubscription, terms)
}

// quota is the payment of a call by the quota of its subscription, and beyond that by the plan's overage.
type quota struct {
	flatRate
	aside int64 // how much of the quota and the overage was authorised, in millionths of the unit
}

func (p *quota) known() (ledger.Amount, bool) { return 0, false }
func (p *quota) covers(int) bool              { return false }

func (p *quota) reach(bound meter.Units, _ uses) bool {
	need := p.plan.used(bound)
	if need <= p.aside {
		return true
	}
	for _, target := range []int64{need + p.batch(), need} {
		if p.auth.ExtendQuota(target) {
			p.aside = target
			return !p.beyondLimit()
		}
	}
	return false
}

// beyondLimit reports whether what the call has used beyond the quota costs more than its limit.
func (p *quota) beyondLimit() bool { return p.limit > 0 && p.auth.Total() > p.limit }

func (p *quota) secure(s *escrow.Settlement) *ledger.Refusal {
	if s.Quota > p.aside && !p.auth.ExtendQuota(s.Quota) {
		return p.usedUp()
	}
	p.aside = max(p.aside, s.Quota)
	if p.beyondLimit() {
		return p.exceeded(p.auth.Total())
	}
	return nil
}

func (p *quota) clamp(s *escrow.Settlement) { s.Quota = min(s.Quota, p.aside) }

// usedUp refuses what neither the quota nor the overage covers.
func (p *quota) usedUp() *ledger.Refusal {
	code, message := p.exhausted()
	return refuse(code, message, "limit", "quota", "plan", p.plan.Plan.Name, "payee", p.route.Payee)
}

func (p *quota) exhausted() (ledger.Outcome, string) {
	if p.plan.Plan.Overage || p.away() {
		return p.held.exhausted()
	}
	return escrow.LimitExceeded, "what the plan " + p.plan.Plan.Name + " includes is used up"
}

// batch is how much more a running call takes at a time, in millionths.
func (p *quota) batch() int64 {
	if batch := p.route.batch(); p.plan.Included.Unit == batch.Unit {
		return batch.N * escrow.Micro
	}
	return escrow.Micro
}

func (p *quota) complete(s *escrow.Settlement, used meter.Units) {
	s.Quota, s.Over, s.OverAfter = p.plan.used(used), p.plan.over, p.plan.overAfter
	if s.Cut != cutNone && p.limit > 0 && s.OwedOn == nil {
		s.Quota = min(s.Quota, p.aside) // what is beyond was not sent
	}
}

// mention also states what is left of the quota.
func (p *quota) mention(h http.Header, left int64) {
	p.describe(h, "; left="+meter.Quantity(left).String())
}
