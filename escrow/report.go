package escrow

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A payee reports work that did not pass the gateway, such as a job that ran for an hour on its machines. It is charged as a call of a metered
// route would be, if the payer has consented to that: by a hold, by a subscription to the plan, or by an allowance.

// sourceReported is the source of a charge that its payee has reported.
const sourceReported = "reported"

// ReportOrder is work that a payee reports.
type ReportOrder struct {
	Payer       string
	Payee       string // the operator names it; agents report their own work
	Plan        string // a plan of the payee that pays for the work, or
	Route       string // the metered route with the prices of the work
	Model       string // for a route whose prices depend on it
	ServiceTier string // the same
	Units       map[string]string
	Hold        string // the hold that pays, or empty
	Reference   string // the payee's own id of the work
}

// Reported is the charge for reported work.
type Reported struct {
	Charge   Charge
	Repeated bool // it was charged before, under the same reference; nothing has moved now
}

// Pricing prices reported work: it returns the order and the settlement that a meter of the route, or of the plan, would have made for a call
// with these units.
type Pricing func(ReportOrder) (CallOrder, Settlement, error)

// Report charges a payer for work that its payee reports. The hold that the order names pays for it, or the payer's subscription to the plan, or
// otherwise the payer's wallet, within the allowance that the payer has given; credit pays first. A reference is used once by a payee, for ever:
// the same report again returns the first charge, with Repeated set. Refusals change nothing: forbidden without an allowance,
// subscription_required, insufficient_funds, limit_exceeded, exceeds_remaining, already_exists, and what price refuses.
func (t *Tx) Report(by Actor, o ReportOrder, price Pricing) (Reported, error) {
	payee, err := t.actsFor(by, "payee", o.Payee)
	if err != nil {
		return Reported{}, err
	}
	o.Payee = payee
	if _, err := t.agent("payer", o.Payer); err != nil {
		return Reported{}, err
	}
	if o.Payer == payee {
		return Reported{}, invalid("payer", "payer %q: an agent can't pay itself", o.Payer)
	}
	mark, first, err := t.reference(payee, o.Reference, o.content()...)
	if err != nil || first != nil {
		return Reported{Charge: orNone(first), Repeated: true}, err
	}
	order, s, err := price(o)
	if err != nil {
		return Reported{}, err
	}
	c := t.reported(Escrow{From: o.Payer, To: payee}, o.Reference)
	c.Route, c.Pattern, c.API, c.Model = order.Route, order.Pattern, order.API, order.Model
	if s.Price != nil {
		if err := t.priceTiers(&c, &s); err != nil {
			return Reported{}, err
		}
	}
	c.Units, c.UnitPrices, c.Duration = s.Units, s.UnitPrices, s.Duration
	if c, err = t.payReport(by, c, o, order, s); err != nil {
		return Reported{}, err
	}
	if err := t.keepReference(mark, c); err != nil {
		return Reported{}, err
	}
	if err := t.audit(by, "charge.report", c.RequestID, c.Amount.String()); err != nil {
		return Reported{}, err
	}
	return Reported{Charge: c}, t.tellUnpriced(c)
}

// content is everything that a report says besides its reference.
func (o ReportOrder) content() []string {
	parts := []string{"report", o.Payer, o.Plan, o.Route, o.Model, o.ServiceTier, o.Hold}
	for _, class := range slices.Sorted(maps.Keys(o.Units)) {
		parts = append(parts, class, o.Units[class])
	}
	return parts
}

// reported is a new charge between the parties of an escrow, for work that was reported.
func (t *Tx) reported(e Escrow, reference string) Charge {
	return Charge{
		RequestID: t.process.ids.next("req_", t.Now()), Payer: e.From, Payee: e.To, Reference: reference, Source: sourceReported, Cut: "none",
	}
}

// payReport pays a report with what the payer has consented to.
func (t *Tx) payReport(by Actor, c Charge, o ReportOrder, order CallOrder, s Settlement) (Charge, error) {
	switch {
	case order.From == FromSubscription && o.Hold != "":
		return Charge{}, invalid("hold_id", "the subscription to the plan pays for this work: leave hold_id out")
	case order.From == FromSubscription:
		return t.reportToPlan(c, order, s)
	case o.Hold != "":
		e, err := t.hold(by, o.Hold)
		if err != nil {
			return Charge{}, err
		}
		if e.From != o.Payer || e.To != o.Payee {
			return Charge{}, invalid("hold_id", "the hold is of %q for %q, the work is for %q by %q", e.From, e.To, o.Payer, o.Payee)
		}
		return t.reportToHold(c, e, order, s.Amount)
	default:
		return t.reportToWallet(by, c, order, s.Amount)
	}
}

// reportToHold pays a report from credit and a hold.
func (t *Tx) reportToHold(c Charge, e *Escrow, order CallOrder, due ledger.Amount) (Charge, error) {
	parts, money, err := t.partsOf(c, order.Credit, due)
	if err != nil {
		return Charge{}, err
	}
	if c, err = t.chargeHold(c, e, parts, money); err != nil {
		return Charge{}, err
	}
	return c, t.escrowEvent(EscrowReleased, *e)
}

// reportToWallet pays a report from credit and the payer's wallet. What is money uses the payer's allowance, which the operator does not need.
func (t *Tx) reportToWallet(by Actor, c Charge, order CallOrder, due ledger.Amount) (Charge, error) {
	parts, money, err := t.partsOf(c, order.Credit, due)
	if err != nil {
		return Charge{}, err
	}
	spender := by
	if !by.Operator {
		allowed, err := t.standingAllowance(c.Payer, c.Payee)
		if err == nil && money > 0 {
			allowed, err = t.useAllowance(PaymentOrder{From: c.Payer, To: c.Payee, Amount: money})
		}
		if err != nil {
			return Charge{}, err
		}
		spender = allowed.spender()
	}
	c.Key = spender.Key
	if err = t.spend(spender, spending{agent: c.Payer, payee: c.Payee, amount: due}); err == nil {
		c, err = t.payCharge(c, nil, parts)
	}
	return c, t.cantPay(err, c.Payer, due)
}

// partsOf divides an amount that is due into credit, if the payer may use it, and money.
func (t *Tx) partsOf(c Charge, credit bool, due ledger.Amount) (parts []part, money ledger.Amount, err error) {
	if credit {
		purse, err := purseOf(t.ledger, c.Payer, c.Payee)
		if err != nil {
			return nil, 0, err
		}
		for _, p := range purse {
			if !p.ExpiresAt.IsZero() && !p.ExpiresAt.After(t.Now()) {
				continue
			}
			id := ledger.Credit(p.ID)
			acc, held, err := t.balance(id)
			if err != nil {
				return nil, 0, err
			}
			if n := min(due, acc.Available()-held); n > 0 {
				parts = append(parts, part{credit: p.ID, amount: n})
				due -= n
			}
		}
	}
	return append(parts, allMoney(due)...), due, nil
}

// allMoney pays an amount with money.
func allMoney(amount ledger.Amount) []part {
	if amount == 0 {
		return nil
	}
	return []part{{amount: amount}}
}

// reportToPlan takes a report from the quota of the payer's subscription, and charges what is beyond it as the plan says.
func (t *Tx) reportToPlan(c Charge, order CallOrder, s Settlement) (Charge, error) {
	sub, err := t.reportedPlan(order)
	if err != nil {
		return Charge{}, err
	}
	q, err := t.claimReported(*sub, s.Quota)
	if err != nil {
		return Charge{}, err
	}
	if q.counted() && q.Amount() < s.Quota && !sub.Plan.Overage {
		return Charge{}, q.exhausted()
	}
	c.Plan, c.SubscriptionID, c.Key = sub.Plan.Name, sub.ID, sub.Key
	due, err := t.useQuota(q, &c, s)
	if err != nil {
		return Charge{}, err
	}
	parts, money, err := t.partsOf(c, order.Credit, due)
	if err != nil {
		return Charge{}, err
	}
	var pool *Escrow
	if sub.PoolID != "" && money > 0 {
		if pool, err = t.escrow(sub.PoolID); err != nil {
			return Charge{}, err
		}
		if !pool.drawable() {
			return Charge{}, pool.wrongStatus("charge")
		}
		c.EscrowID = pool.ID
	}
	err = t.spend(Actor{Agent: c.Payer, Key: c.Key}, spending{agent: c.Payer, payee: c.Payee, amount: due, locked: pool})
	if err == nil {
		c, err = t.payCharge(c, pool, parts)
	}
	return c, t.cantPay(err, order.By.Agent, due)
}

// reportedPlan returns the subscription that pays for a report. A suspended one does not begin a new period: only the payer's own calls do that.
func (t *Tx) reportedPlan(order CallOrder) (*Subscription, error) {
	sub, err := t.planSubscription(order.By.Agent, order.Payee, order.Plan)
	switch {
	case err != nil:
		return nil, err
	case sub == nil:
		return nil, t.rules.subscriptionRequired(order, t.Currency(), "")
	case sub.Status == SubSuspended:
		return nil, t.rules.subscriptionRequired(order, t.Currency(), SubSuspended)
	}
	e, err := t.escrow(sub.EscrowID)
	if err != nil {
		return nil, err
	}
	return sub, sub.servedBy(e, t.Currency())
}

// claimReported claims what a report uses of a quota, so that running calls don't use the same.
func (t *Tx) claimReported(sub Subscription, units int64) (*quotaClaim, error) {
	q := &quotaClaim{subscription: sub}
	var of []Bound
	if q.counted() {
		of = []Bound{{Of: sub.quota(), Left: func(r ledger.Reader) (int64, error) {
			stored, err := subscriptionByID(r, sub.ID)
			if err != nil || stored == nil || stored.EscrowID != sub.EscrowID { // this operation has begun the period
				return sub.QuotaLeft(), err
			}
			return stored.QuotaLeft(), nil
		}}}
	} else {
		units = 0
	}
	var err error
	q.Claim, err = t.process.claims.TakeUpToIn(t, units, of...)
	return q, err
}

// payCharge pays a charge in parts, from an escrow or, if it is nil, from credit and the payer's wallet. It records the charge.
func (t *Tx) payCharge(c Charge, e *Escrow, parts []part) (Charge, error) {
	d := drawn{Charge: c, PPM: t.rules.CommissionPPM}
	if e != nil {
		d.PPM = e.CommissionPPM
	}
	fee, err := t.postParts(&d, parts)
	if err != nil {
		return Charge{}, err
	}
	if err := t.countDraw(e, d.money(), fee, d.stained); err != nil {
		return Charge{}, err
	}
	return t.record(d, nil)
}

// referenced is what a payee's reference stands for.
type referenced struct {
	Request string    `cbor:"1,keyasint"`
	Digest  []byte    `cbor:"2,keyasint"` // of everything that was said besides the reference
	At      time.Time `cbor:"3,keyasint"`

	key []byte
}

// reference looks a payee's reference up. If it was used before with the same content, first is the charge that was made for it; with other
// content it is refused.
func (t *Tx) reference(payee, reference string, content ...string) (mark referenced, first *Charge, err error) {
	if reference == "" || len(reference) > maxReference {
		return mark, nil, invalid("reference", "reference: your own id of the work, of 1 to %d bytes", maxReference)
	}
	if err := checkText("reference", reference); err != nil {
		return mark, nil, err
	}
	sum := sha256.New()
	for _, part := range content {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		sum.Write([]byte(part))
	}
	mark = referenced{Digest: sum.Sum(nil), At: t.Now(), key: reportTable.key(payee, reference)}
	var was referenced
	found, err := load(t.ledger, mark.key, &was)
	if err != nil || !found {
		return mark, nil, err
	}
	c, _, err := t.charge(was.Request)
	if err != nil {
		return mark, nil, err
	}
	if !slices.Equal(was.Digest, mark.Digest) {
		return mark, nil, refuse(AlreadyExists, map[string]string{"reference": reference, "request_id": was.Request, "created_at": was.At.Format(time.RFC3339Nano)},
			"reference %.80q was used on %s for something else, charge %s; give this work a reference of its own", reference, was.At.Format(time.RFC3339), was.Request)
	}
	return mark, &c, nil
}

func (t *Tx) keepReference(mark referenced, c Charge) error {
	mark.Request = c.RequestID
	return t.put(mark.key, mark)
}

func orNone(c *Charge) Charge {
	if c == nil {
		return Charge{}
	}
	return *c
}
