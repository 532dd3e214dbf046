package escrow

import (
	"context"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Verdict is the consequence of the quality of a call.
type Verdict struct {
	Share   int64 `cbor:"1,keyasint,omitempty"` // parts per million of the price that are paid
	Dispute bool  `cbor:"2,keyasint,omitempty"` // the operator decides
}

// Tier is the verdict for scores of at least AtLeast.
type Tier struct {
	AtLeast string  `cbor:"1,keyasint,omitempty"` // decimal text; empty: whatever it is
	Verdict Verdict `cbor:"2,keyasint"`
}

// Judge returns the verdict of the first tier that a score reaches. If the score is not a number, or reaches no tier, ok is false.
func Judge(tiers []Tier, score string) (v Verdict, ok bool) {
	d, ok := readScore(score)
	if !ok {
		return Verdict{}, false
	}
	for _, t := range tiers {
		if t.AtLeast == "" {
			return t.Verdict, true
		}
		if least, ok := readScore(t.AtLeast); ok && d.GreaterThanOrEqual(least) {
			return t.Verdict, true
		}
	}
	return Verdict{}, false
}

// readScore reads a number of limited length, since comparing 1 with 1e999999999 would write out all its digits.
func readScore(text string) (decimal.Decimal, bool) {
	d, err := decimal.NewFromString(text)
	ok := err == nil && len(text) <= 40 && d.Exponent() >= -40 && d.Exponent() <= 40
	return d, ok
}

// Quality is the quality of a call's answer. It may be not known yet.
type Quality struct {
	Verdict  Verdict // if it is known
	Score    string
	Hold     bool      // it is not: the price stays locked in an escrow of its own
	Decision *Decision // Hold
}

// Decision is a charge whose quality is not decided yet. It is stored in the ledger with everything that is needed to decide it later.
type Decision struct {
	RequestID string    `cbor:"1,keyasint"` // this package fills in this field and the next three
	Payer     string    `cbor:"2,keyasint"`
	Payee     string    `cbor:"3,keyasint"`
	EscrowID  string    `cbor:"4,keyasint"`
	DecideBy  time.Time `cbor:"5,keyasint"` // when the clock decides; zero: never
	AtEnd     Verdict   `cbor:"6,keyasint"` // what the clock then decides
	Tiers     []Tier    `cbor:"7,keyasint,omitempty"`
	ByPayer   bool      `cbor:"8,keyasint,omitempty"` // the payer may give the score
	Judge     []byte    `cbor:"9,keyasint,omitempty"` // what the caller of this package needs to ask the judge; at most 64 KiB
}

const maxJudge = 64 << 10

// divide returns which part of a call's price is paid at once, and which part stays locked. It sets the full price in the charge.
func (q *Quality) divide(c *Charge, amount, posted ledger.Amount) (paid, locked ledger.Amount) {
	if q == nil {
		return amount, 0
	}
	c.Score = q.Score
	if q.Hold || q.Verdict.Dispute {
		c.Price = amount
		return posted, amount - posted
	}
	paid = max(posted, portion(amount, q.Verdict.Share))
	if paid != amount {
		c.Price = amount
	}
	return paid, 0
}

// lockHeld locks the price of a call whose quality is not decided in an escrow of its own. source is the escrow that pays the call, or nil if the
// wallet does. Money from source goes through the payer's wallet.
func (t *Tx) lockHeld(a *Authorisation, source *Escrow, c *Charge, amount ledger.Amount, q *Quality) error {
	if amount == 0 {
		return nil
	}
	if source != nil {
		if err := t.out(source, ToPayer, amount, "held for quality", a.hold); err != nil {
			return err
		}
		if err := t.saveEscrow(source); err != nil {
			return err
		}
	}
	held := Escrow{
		Kind: KindQuality, Status: StatusOpen, From: c.Payer, To: c.Payee, Amount: amount, Memo: "quality of " + c.RequestID, OnExpiry: ToPayer,
		Served: true, Request: c.RequestID,
	}
	held.countedFor(c.Key)
	c.Status = HeldCharge
	if q.Hold && q.Decision != nil {
		held.AutoReleaseAt, held.Verdict = q.Decision.DecideBy, q.Decision.AtEnd
		if q.Decision.AtEnd.Share == ppmWhole {
			held.OnExpiry = ToPayee
		}
	}
	if q.Verdict.Dispute && !q.Hold {
		held.dispute("meter", "its quality was judged: "+q.Score)
		c.Status = DisputedCharge
	}
	if err := t.lock(&held, a.hold); err != nil {
		return err
	}
	c.HeldIn, c.EscrowID = held.ID, held.ID
	if !q.Hold || q.Decision == nil {
		return nil
	}
	d := *q.Decision
	d.RequestID, d.Payer, d.Payee, d.EscrowID = c.RequestID, c.Payer, c.Payee, held.ID
	if len(d.Judge) > maxJudge {
		return invalid("judge", "what the judge needs has %d bytes; at most %d are kept", len(d.Judge), maxJudge)
	}
	return t.put(decisionTable.key(c.RequestID), d)
}

// divideBy divides an escrow's money by a verdict, without what calls hold.
func (t *Tx) divideBy(e *Escrow, v Verdict, note string) error {
	if v.Dispute {
		e.dispute("meter", note)
		return nil
	}
	free, err := t.unheld(e)
	if err != nil {
		return err
	}
	toPayee := min(free, portion(e.Amount, v.Share))
	if err := t.out(e, ToPayee, toPayee, note); err != nil {
		return err
	}
	return t.sendRest(e, ToPayer, note)
}

// follow updates the charge whose price an escrow locks, after the escrow has changed.
func (t *Tx) follow(e *Escrow) error {
	if e.Kind != KindQuality || e.Status == StatusOpen || e.Status == StatusRefundRequested {
		return nil
	}
	c, found, err := t.charge(e.Request)
	if err != nil || !found { // the charge is recorded later in this operation
		return err
	}
	t.ledger.Delete(decisionTable.key(e.Request))
	switch {
	case e.Status == StatusDisputed:
		c.Status = DisputedCharge
	case c.Status == HeldCharge || c.Status == DisputedCharge && !c.disputed():
		c.Status = Charged
		c.Decided = e.Released
		c.Amount += e.Released
		c.Commission += e.Commission
	default:
		return nil
	}
	return t.saveCharge(c)
}

// Decide ends the decision on a charge with the judge's verdict.
func (t *Tx) Decide(request string, v Verdict, score string) (Charge, error) {
	c, found, err := t.charge(request)
	if err != nil {
		return Charge{}, err
	}
	if !found {
		return Charge{}, noCharge(request)
	}
	return t.decide(c, v, score, "judged: "+score)
}

func (t *Tx) decide(c Charge, v Verdict, score, note string) (Charge, error) {
	e, err := t.escrow(c.HeldIn)
	if err != nil {
		return Charge{}, err
	}
	if c, _, err = t.charge(c.RequestID); err != nil { // the clock may have decided just now
		return Charge{}, err
	}
	if e == nil || c.Status != HeldCharge || e.Status != StatusOpen {
		return Charge{}, refuse(InvalidStatus, nil, "the charge is %s: its quality is decided already", c.Status)
	}
	c.Score = score
	if err := t.saveCharge(c); err != nil {
		return Charge{}, err
	}
	if err := t.divideBy(e, v, note); err != nil {
		return Charge{}, err
	}
	if err := t.saveEscrow(e); err != nil {
		return Charge{}, err
	}
	what := EscrowReleased
	if e.Status == StatusDisputed {
		what = EscrowDisputed
	} else if e.Status == StatusRefunded {
		what = EscrowRefunded
	}
	if err := t.escrowEvent(what, *e); err != nil {
		return Charge{}, err
	}
	c, _, err = t.charge(c.RequestID)
	return c, err
}

// Score gives a charge the score that decides it. The payer may do this if the route allows it, and the operator.
func (t *Tx) Score(by Actor, request, score string) (Charge, error) {
	if err := by.mayMove(); err != nil {
		return Charge{}, err
	}
	c, found, err := t.charge(request)
	if err != nil {
		return Charge{}, err
	}
	if !found || !c.visible(by) {
		return Charge{}, noCharge(request)
	}
	var d Decision
	if found, err = load(t.ledger, decisionTable.key(request), &d); err != nil {
		return Charge{}, err
	}
	switch {
	case !by.Operator && by.Agent != c.Payer:
		return Charge{}, refuse(Forbidden, nil, "the payee does not judge its own work")
	case !found:
		return Charge{}, refuse(InvalidStatus, nil, "the charge is %s: there is no quality to decide", c.Status)
	case !by.Operator && !d.ByPayer:
		return Charge{}, refuse(Forbidden, nil, "on this route a judge decides, not the payer")
	}
	v, ok := Judge(d.Tiers, score)
	if !ok {
		return Charge{}, invalid("score", "score %.40q: a number that one of the route's tiers is for", score)
	}
	if err := t.audit(by, "charge.score", request, score); err != nil {
		return Charge{}, err
	}
	if err := t.spendVerdict(by, c.HeldIn, v); err != nil {
		return Charge{}, err
	}
	return t.decide(c, v, score, "scored "+score)
}

// spendVerdict counts what a verdict gives to the payee against the payer's limits.
func (t *Tx) spendVerdict(by Actor, escrow string, v Verdict) error {
	e, err := t.escrow(escrow)
	if err != nil || e == nil {
		return err
	}
	given := portion(e.Amount, v.Share)
	if v.Dispute {
		given = 0
	}
	return t.spend(by, e.letGo(given))
}

// OpenDecisions lists charges that are not decided yet, oldest first, beginning after the one of the given request.
func (b *Book) OpenDecisions(ctx context.Context, after string, limit int) (decisions []Decision, err error) {
	err = b.view(func(r ledger.Reader) error {
		all := decisionTable.under()
		if after != "" {
			all.From = append(decisionTable.key(after), 0)
		}
		return r.Scan(all, func(key, value []byte) (bool, error) {
			var d Decision
			err := decode(key, value, &d)
			decisions = append(decisions, d)
			return len(decisions) < limit, err
		})
	})
	return decisions, err
}

// Waits returns 1 if the charge is not decided yet, otherwise 0.
func (d Decision) Waits(r ledger.Reader) (int64, error) {
	value, err := r.Get(decisionTable.key(d.RequestID))
	if err != nil || value == nil {
		return 0, err
	}
	return 1, nil
}

// delivered marks the milestone whose work a call did as delivered, unless the payee has done that already.
func (t *Tx) delivered(e *Escrow, name, cut string) error {
	if e == nil || name == "" || cut == "upstream" || e.Status.Closed() || e.Closing != "" {
		return nil
	}
	m := e.milestone(name)
	if m == nil || m.Status != MilestonePending {
		return nil
	}
	m.Status, m.DeliveredAt = MilestoneDelivered, t.Now()
	e.Served = true
	if err := t.saveEscrow(e); err != nil {
		return err
	}
	return t.escrowEvent(MilestoneWasDelivered, *e)
}
