package escrow

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Settlement describes the end of a call: what it used and what it costs.
type Settlement struct {
	Amount     ledger.Amount     // price of the final usage, whatever was drawn on the way
	Units      map[string]string // unit -> count, as decimal text
	UnitPrices map[string]string // unit -> price as applied, as text
	Cost       string            // the cost that the provider states, as decimal text, if that is charged instead of the units
	Markup     string            // on Cost, such as "20%"
	Model      string            // the model that answered, if it differs from the order's
	Source     string            // "stated" by the provider or "estimated" here
	Cut        string            // what ended the response early: "none", "client", "upstream", "funds"
	Suspect    bool              // the usage was absurd and has been clamped
	HTTPStatus int               // the upstream's answer
	Duration   time.Duration     // from the request to the end of the response

	Quality *Quality // the judge's verdict; nil: the price is paid in full

	// Answer is stored together with the call's idempotency key, for [Book.KeptAnswer]. It is not stored if the call has no key, or if too much
	// is stored already. It should be encrypted with something that only the caller has.
	Answer []byte

	// Made is what the provider keeps of the call: it belongs to the payer, see [Tx.Own].
	Made []Resource
	// Context are resources whose length as a part of the input is known now.
	Context []Context
	// OwedOn are the resources in which the provider keeps the answer, although it may not be paid in full. What is missing is noted on them as
	// a [Debt].
	OwedOn []Resource
	// Limit, if not 0, is the most that is charged now. What is beyond is owed, if OwedOn says on what.
	Limit ledger.Amount

	// Later are answers that come later: the call got only their names. Settle fills in who asked for them.
	Later []LaterAnswer

	// Results are the names of results that are charged with this call, and never again, see [Book.PaidResult].
	Results []string

	// Paid are things that are charged with this call, and until when each of them is paid then.
	Paid map[Thing]Paid

	// Price, if not nil, computes the price of the call from what was used before it in the period, and replaces Amount, Units and UnitPrices.
	// Amount is then the highest possible price. Price may be called more than once, and on another goroutine.
	Price func(used func(Counter) int64) Priced

	Quota int64                           // FromSubscription: millionths of a unit that were used; Amount is not read then
	Over  func(units int64) ledger.Amount // FromSubscription: the price of those beyond the quota; nil: the order's
	// OverAfter, if not nil, is the price of units beyond the quota, after before other such units in the period. Over is then the highest
	// possible price. Only for FromSubscription.
	OverAfter func(before, units int64) ledger.Amount
}

// endCall gives back what an ended call still holds, and ends its claims. If the escrow that paid the call is over, the money that the call held
// goes to the party that gets the rest of the escrow.
func (t *Tx) endCall(a *Authorisation, e *Escrow) error {
	for _, hold := range append(slices.Clone(a.credit), a.hold) {
		if err := t.ledger.Release(hold); err != nil {
			return err
		}
	}
	if a.runs != nil {
		if err := a.runs.Settle(t); err != nil {
			return err
		}
	}
	if e == nil || e.Closing == "" {
		return nil
	}
	return t.sendLeft(e)
}

// sendLeft pays out what a call has left in an escrow that is over.
func (t *Tx) sendLeft(e *Escrow) error {
	what := EscrowReleased
	if e.Closing == ToPayer {
		what = EscrowRefunded
	}
	if err := t.sendRest(e, e.Closing, "left by a call that has ended"); err != nil {
		return err
	}
	if err := t.saveEscrow(e); err != nil {
		return err
	}
	return t.escrowEvent(what, *e)
}

// Settle charges the call in one durable operation: it resolves the draws, posts the rest, and records the charge. If the amount is more than is
// available, it is cut and the charge is flagged suspect. A second Settle returns the first charge. If ctx ends, Settle stops waiting, but the
// settlement still takes place.
func (a *Authorisation) Settle(ctx context.Context, s Settlement) (Charge, error) {
	if s.Amount < 0 {
		s.Amount, s.Suspect = 0, true
	}
	if first := a.end(settled); first {
		a.forgetLost()
		a.reachQuota(s)
		a.gather(s.limited(s.Amount))
	} else if a.ended() == cancelled {
		return Charge{}, fmt.Errorf("call %s was cancelled, it can't be settled", a.charge.RequestID)
	}
	receipt := queue(a.book, func(t *Tx) (Charge, error) { return t.settle(a, s) })
	select {
	case <-receipt.Done():
		return a.finish(receipt)
	case <-ctx.Done():
		go func() { _, _ = a.finish(receipt) }()
		return Charge{}, fmt.Errorf("waiting for the settlement of %s: %w", a.charge.RequestID, context.Cause(ctx))
	}
}

// Rename gives the call another id, and frees it of its idempotency key, so that Settle charges a part of a result that can still be charged as a
// whole, by the id that the call had. What is set aside stays so. Rename returns false, and changes nothing, if something was posted for the call, if
// a draw is in flight or has failed, or if the call has ended.
func (a *Authorisation) Rename(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.posts || a.lookAtDraw() != nil || a.drawing != nil || a.over != running {
		return false
	}
	if a.drew {
		a.was = a.charge.RequestID
	}
	a.charge.RequestID, a.onceKey, a.digest = id, "", [32]byte{}
	return true
}

// freeDraws gives back what is pended under the id that the call had before [Authorisation.Rename]. payRest takes it first, in the same operation,
// so nobody else can.
func (t *Tx) freeDraws(a *Authorisation, d *drawn) error {
	if a.was == "" {
		return nil
	}
	pendings, err := t.ledger.Pendings(a.was)
	if err != nil {
		return err
	}
	for _, p := range pendings {
		if _, err := t.moveDrawn(p, 0, ""); err != nil {
			return err
		}
		freed := part{amount: p.Amount}
		if p.Debit.IsCredit() {
			freed.credit = accountName(p.Debit)
		}
		d.freed = append(d.freed, freed)
	}
	t.ledger.Delete(drawTable.key(a.was))
	return nil
}

// finish waits for the settlement, and gives back what is still set aside then.
func (a *Authorisation) finish(receipt *ledger.Receipt[Charge]) (Charge, error) {
	charge, err := receipt.Wait()
	a.release()
	if err != nil && a.was != "" { // whoever abandons the call does not know that it has something pended under another id
		a.book.Abandon(AbandonedCall{Request: a.was, Payer: a.charge.Payer})
	}
	return charge, err
}

func (t *Tx) settle(a *Authorisation, s Settlement) (Charge, error) {
	charge, found, err := t.charge(a.charge.RequestID)
	if found && charge.Cut == cutCrash {
		return Charge{}, fmt.Errorf("call %s: %w", a.charge.RequestID, errRecovered)
	}
	if found || err != nil {
		return charge, err
	}
	if err := t.stillFirst(a); err != nil {
		return Charge{}, err
	}
	d := t.undrawn(a)
	if a.drew { // there is nothing to look for otherwise: nobody else draws under the id of this call
		if d, err = t.drawnBy(a, a.charge.RequestID); err != nil {
			return Charge{}, err
		}
	}
	if err := t.freeDraws(a, &d); err != nil {
		return Charge{}, err
	}
	debt, err := t.dueFor(a, &d.Charge, &s)
	if err != nil {
		return Charge{}, err
	}
	amount := min(max(s.Amount, d.Posted), d.Posted+d.Pending+d.free()+a.Held())
	d.Charge.Suspect = s.Suspect || amount != s.Amount
	debt.Amount = max(0, debt.Amount-amount)
	if len(s.OwedOn) > 0 {
		d.Charge.Owed = debt.Amount
	}
	if err := t.payCall(a, &d, s, amount); err != nil {
		return Charge{}, err
	}
	d.answer = s.Answer
	d.Charge.used(s)
	if a.shadow {
		d.Charge.Status = Shadowed
	}
	if err := t.noteUsed(d.Charge, s, debt); err != nil {
		return Charge{}, err
	}
	charge, err = t.record(d, a.hold)
	if err != nil || a.milestone != "" {
		return charge, err
	}
	return charge, t.tellUnpriced(charge)
}

// dueFor finds what a settled call costs by the tiers and the quota of its payer. It sets the amount of s to what is charged now, and returns
// what the payer would owe if it paid nothing.
func (t *Tx) dueFor(a *Authorisation, c *Charge, s *Settlement) (debt Debt, err error) {
	if s.Price != nil {
		if err := t.priceTiers(c, s); err != nil {
			return Debt{}, err
		}
	}
	if a.quota != nil {
		if s.Amount, err = t.useQuota(a.quota, c, *s); err != nil {
			return Debt{}, err
		}
	}
	debt = a.owes(c, *s)
	s.Amount = s.limited(s.Amount)
	if a.shadow || a.milestone != "" {
		c.Price, s.Amount = s.Amount, 0
	}
	return debt, nil
}

// payCall brings what was posted for a call to an amount, locks the part that waits for the quality of the answer, and gives back everything
// that the call still holds.
func (t *Tx) payCall(a *Authorisation, d *drawn, s Settlement, amount ledger.Amount) error {
	e, err := t.source(*d)
	if err != nil {
		return err
	}
	amount, locked := s.Quality.divide(&d.Charge, amount, d.Posted)
	before, feeBefore := d.money(), d.Charge.Commission
	if err := t.payRest(d, amount-d.Posted, a); err != nil {
		return err
	}
	if err := t.countDraw(e, d.money()-before, d.Charge.Commission-feeBefore, d.stained); err != nil {
		return err
	}
	if err := t.lockHeld(a, e, &d.Charge, locked, s.Quality); err != nil {
		return err
	}
	if err := t.endCall(a, e); err != nil {
		return err
	}
	if err := t.delivered(e, a.milestone, s.Cut); err != nil {
		return err
	}
	if err := t.spent(d.Charge.Key, d.spends(amount+locked, e)); err != nil {
		return err
	}
	return a.limits.settle(t)
}

// used records in the charge what the settled call has used, and how its price came about.
func (c *Charge) used(s Settlement) {
	c.Units, c.UnitPrices, c.Source, c.Cut, c.HTTPStatus, c.Duration = s.Units, s.UnitPrices, s.Source, s.Cut, s.HTTPStatus, s.Duration
	c.Cost, c.Markup = s.Cost, s.Markup
	if s.Model != "" && s.Model != c.Model {
		c.AskedModel, c.Model = c.Model, s.Model
	}
}

// noteUsed notes what later requests may refer to: the call's later answers, its results, the things that it has paid for a time, and what it
// has made.
func (t *Tx) noteUsed(c Charge, s Settlement, debt Debt) error {
	for _, later := range s.Later {
		if err := t.keepLater(c, later); err != nil {
			return err
		}
	}
	t.keepPaid(c, s.Results)
	for thing, paid := range s.Paid {
		if err := t.process.claims.PayIn(t, thing, paid); err != nil {
			return err
		}
	}
	return t.noteResources(c, s, debt)
}

// stillFirst refuses a call if its session is over, and another call was made with its idempotency key since.
func (t *Tx) stillFirst(a *Authorisation) error {
	if a.onceKey == "" || a.session == t.ledger.Session() {
		return nil
	}
	_, found, err := once(t.ledger, OnceID{Owner: "call:" + a.charge.Payer, Key: a.onceKey})
	if err == nil && found {
		err = fmt.Errorf("call %s: %w", a.charge.RequestID, errRecovered)
	}
	return err
}

// limited returns an amount, or what the settlement may charge now.
func (s Settlement) limited(amount ledger.Amount) ledger.Amount {
	if s.Limit > 0 {
		return min(amount, s.Limit)
	}
	return amount
}

// owes returns what the payer of a settled call would owe if it had paid nothing. The price of a milestone's work is what the milestone pays.
func (a *Authorisation) owes(c *Charge, s Settlement) Debt {
	d := Debt{Request: c.RequestID, Payer: c.Payer, Amount: s.Amount}
	if a.milestone != "" {
		d.Amount -= a.worth
	}
	if a.quota != nil && a.quota.counted() && !a.quota.subscription.Plan.Overage {
		d.Quota = max(0, s.Quota-c.QuotaUsed)
	}
	return d
}

// noteResources notes what the call has made, and what is known now of what it has used.
func (t *Tx) noteResources(c Charge, s Settlement, owed Debt) error {
	if err := t.Own(c.Payer, s.Made...); err != nil {
		return err
	}
	for _, context := range s.Context {
		if err := t.noteTokens(context, s.Source == "estimated"); err != nil {
			return err
		}
	}
	if owed.Amount == 0 && owed.Quota == 0 {
		return nil
	}
	return t.owe(owed, s.OwedOn)
}

// payRest pays what is still due for a call. It takes the money from pending draws first, and gives back the part of them that is not due.
func (t *Tx) payRest(d *drawn, due ledger.Amount, a *Authorisation) error {
	if d.Pending > 0 {
		pendings, err := t.ledger.Pendings(d.Charge.RequestID)
		if err != nil {
			return err
		}
		paid := ledger.Amount(0)
		for _, p := range pendings {
			part := min(due, p.Amount)
			m, err := t.moveDrawn(p, part, d.Charge.Route)
			if err != nil {
				return err
			}
			due -= part
			if part > 0 {
				d.made(m.seq)
			}
			if p.Debit.IsCredit() {
				if err := t.usesCredit(d, accountName(p.Debit), part); err != nil {
					return err
				}
				continue
			}
			d.stained += m.stained
			d.Posted += part
			paid += part
		}
		d.Pending = 0
		if _, err := t.takeShare(d, paid); err != nil {
			return err
		}
	}
	parts, due := d.takeFreed(due)
	_, err := t.postParts(d, append(parts, a.parts(due)...))
	return err
}

// record writes the charge of a call that is over.
func (t *Tx) record(d drawn, hold *ledger.Hold) (Charge, error) {
	c := d.Charge
	c.Amount, c.CreatedAt = d.Posted, t.Now()
	if c.Status == "" {
		c.Status = Charged
	}
	acc, held, err := t.balance(d.account())
	if err != nil {
		return Charge{}, err
	}
	c.Balance = acc.Available() - held
	if hold != nil && hold.Account() == d.account() {
		c.Balance += hold.Amount()
	}
	if d.account() == ledger.Escrow(c.EscrowID) {
		c.Balance = acc.Balance()
	}
	if d.stored {
		t.ledger.Delete(drawTable.key(c.RequestID))
	}
	at := timeKey(c.CreatedAt) + c.RequestID
	for _, party := range []string{c.Payer, c.Payee} {
		if party == "" { // nobody known made the call
			continue
		}
		t.ledger.Put(chargeByAgent.key(party, at), []byte{})
	}
	if c.Suspect {
		t.ledger.Put(chargeByAgent.key(suspectCharges, at), []byte{})
	}
	if err := t.keepCall(d); err != nil {
		return Charge{}, err
	}
	if err := t.isBehind(c.Payee); err != nil {
		return Charge{}, err
	}
	t.changed(c.Payer, c.Payee)
	return c, t.put(chargeTable.key(c.RequestID), &c)
}

// Cancel gives back what is held. Posted draws are recorded as a charge, and pending draws are voided. If the ledger fails, this is done later, by
// [Book.PutRight]. Cancel does nothing after Settle or after another Cancel.
func (a *Authorisation) Cancel() {
	if !a.end(cancelled) {
		return
	}
	a.quota.end()
	if !a.drew && a.charge.EscrowID == "" {
		a.release()
		return
	}
	receipt := queue(a.book, func(t *Tx) (struct{}, error) { return struct{}{}, t.cancel(a) })
	go func() {
		_, err := receipt.Wait()
		a.release()
		if err != nil {
			a.book.Abandon(AbandonedCall{Request: a.charge.RequestID, Payer: a.charge.Payer, IdempotencyKey: a.onceKey})
		}
	}()
}

func (t *Tx) cancel(a *Authorisation) error {
	d, err := t.drawnBy(a, cmp.Or(a.was, a.charge.RequestID))
	if err != nil {
		return err
	}
	e, err := t.source(d)
	if err != nil {
		return err
	}
	if d.stored {
		if err := t.payRest(&d, 0, nil); err != nil {
			return err
		}
		if err := t.spent(d.Charge.Key, d.spends(d.Posted, e)); err != nil {
			return err
		}
		t.ledger.Delete(drawTable.key(d.Charge.RequestID))
	}
	if err := a.limits.settle(t); err != nil {
		return err
	}
	if d.Posted > 0 {
		d.OnceKey = "" // the call may be made again
		d.Charge.Source, d.Charge.Cut = "stated", "upstream"
		if _, err := t.record(d, a.hold); err != nil {
			return err
		}
	}
	return t.endCall(a, e)
}
