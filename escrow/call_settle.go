package escrow

import (
	"cmp"
	"context"
	"errors"
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

// drawn is what a call has paid before it is settled. It is in the books while the call runs, so that the call can be settled if the process
// dies.
type drawn struct {
	Charge  Charge         `cbor:"1,keyasint"` // as far as it is known; Commission is the commission of the posted draws
	PPM     int64          `cbor:"2,keyasint,omitempty"`
	Posted  ledger.Amount  `cbor:"3,keyasint,omitempty"`
	Pending ledger.Amount  `cbor:"4,keyasint,omitempty"`
	Since   time.Time      `cbor:"5,keyasint"`
	OnceKey string         `cbor:"6,keyasint,omitempty"` // the caller's idempotency key
	Digest  []byte         `cbor:"7,keyasint,omitempty"`
	By      ledger.Session `cbor:"8,keyasint,omitzero"` // of the process that runs the call

	stained ledger.Amount // the part of what this operation posted that is faucet money
	answer  []byte        // to be kept with the idempotency key
}

func (t *Tx) drawnBy(a *Authorisation) (d drawn, found bool, err error) {
	found, err = load(t.ledger, drawTable.key(a.charge.RequestID), &d)
	if !found {
		d = drawn{Charge: a.charge, PPM: a.ppm, Since: t.Now(), By: t.ledger.Session()}
		if a.onceKey != "" {
			d.OnceKey, d.Digest = a.onceKey, a.digest[:]
		}
	}
	return d, found, err
}

// cutCrash is the Cut of a charge that recovery has made.
const cutCrash = "crash"

// errRecovered is the error of a call that other processes take for dead, so that they have charged it what it had drawn until then. Its answer
// must not be completed.
var errRecovered = errors.New("other processes have taken this one for dead, and have charged the call what it had drawn")

// draw pays what is due for a running call, as far as its hold covers it.
func (t *Tx) draw(a *Authorisation, due ledger.Amount, exact bool) error {
	if a.session != t.ledger.Session() {
		return errRecovered
	}
	d, _, err := t.drawnBy(a)
	if err != nil {
		return err
	}
	by := min(due-d.Posted-d.Pending, a.Held())
	if by <= 0 {
		return nil
	}
	e, err := t.source(d)
	if err != nil {
		return err
	}
	if exact {
		before := d.money()
		fee, err := t.post(&d, by, a)
		if err != nil {
			return err
		}
		if err := t.countDraw(e, d.money()-before, fee, d.stained); err != nil {
			return err
		}
	} else if err := t.pend(&d, by, a); err != nil {
		return err
	}
	return t.put(drawTable.key(d.Charge.RequestID), d)
}

// pend sets aside an amount that is due for a running call, from what the call holds.
func (t *Tx) pend(d *drawn, amount ledger.Amount, a *Authorisation) error {
	for _, p := range a.parts(amount) {
		pended, err := t.ledger.Pend(d.transfer(p), p.hold)
		if err != nil {
			return err
		}
		d.Pending += p.amount
		d.made(pended.Seq)
	}
	return nil
}

// post pays an amount that is due for a call, from what the call holds: credit first, then money. It returns the operator's commission,
// which is taken from the money.
func (t *Tx) post(d *drawn, amount ledger.Amount, a *Authorisation) (fee ledger.Amount, err error) {
	return t.postParts(d, a.parts(amount))
}

// postParts pays the parts of an amount.
func (t *Tx) postParts(d *drawn, parts []part) (fee ledger.Amount, err error) {
	for _, p := range parts {
		tr := d.transfer(p)
		tr.Memo = cmp.Or(d.Charge.Route, d.Charge.Reference)
		if p.credit != "" {
			used, err := t.ledger.Post(tr, p.hold)
			if err != nil {
				return 0, err
			}
			d.made(used.Seq)
			if err := t.usesCredit(d, p.credit, p.amount); err != nil {
				return 0, err
			}
			continue
		}
		m, err := t.move(tr, p.hold)
		if err != nil {
			return 0, err
		}
		d.made(m.seq)
		d.stained += m.stained
		d.Posted += p.amount
		if fee, err = t.takeShare(d, p.amount); err != nil {
			return 0, err
		}
	}
	return fee, nil
}

// transfer returns the transfer that pays a part of a call's price.
func (d *drawn) transfer(p part) ledger.Transfer {
	if p.credit != "" {
		return ledger.Transfer{Debit: ledger.Credit(p.credit), Credit: ledger.Issuer(d.Charge.Payee), Amount: p.amount, Kind: kindCreditUse, Reference: d.Charge.RequestID}
	}
	return ledger.Transfer{Debit: d.account(), Credit: ledger.Wallet(d.Charge.Payee), Amount: p.amount, Kind: kindCharge, Reference: d.Charge.RequestID}
}

// takeShare takes the operator's share of an amount that was posted.
func (t *Tx) takeShare(d *drawn, posted ledger.Amount) (fee ledger.Amount, err error) {
	fee, err = t.take(d.Charge.Payee, posted, d.PPM, d.Charge.RequestID)
	d.Charge.Commission += fee
	return fee, err
}

// money is the part of what was posted that credit did not pay.
func (d *drawn) money() ledger.Amount { return d.Posted - d.Charge.Credit }

// made records that the transfer with the number seq was made for the call.
func (d *drawn) made(seq uint64) {
	if d.Charge.FirstTransfer == 0 {
		d.Charge.FirstTransfer = seq
	}
	d.Charge.LastTransfer = seq
}

func (d drawn) account() ledger.AccountID {
	if d.Charge.EscrowID != "" && d.Charge.HeldIn == "" {
		return ledger.Escrow(d.Charge.EscrowID)
	}
	return ledger.Wallet(d.Charge.Payer)
}

// spends is an amount that the call has spent, from an escrow, or from the wallet if from is nil.
func (d drawn) spends(amount ledger.Amount, from *Escrow) spending {
	return spending{agent: d.Charge.Payer, payee: d.Charge.Payee, amount: amount, locked: from}
}

// source returns the escrow that pays a call, after what is due to the escrow was done. It returns nil if the wallet pays.
func (t *Tx) source(d drawn) (*Escrow, error) {
	id := d.Charge.EscrowID
	if id == "" {
		return nil, nil
	}
	e, err := t.escrow(id)
	if err == nil && e == nil {
		err = fmt.Errorf("escrow %s has gone while call %s was drawing from it", id, d.Charge.RequestID)
	}
	return e, err
}

// countDraw counts in the escrow, if one pays, the money that a call drew from it.
func (t *Tx) countDraw(e *Escrow, amount, fee, stained ledger.Amount) error {
	if e == nil {
		return nil
	}
	e.Released += amount
	e.Commission += fee
	e.StainedReleased += stained
	e.RefundAsked = min(e.RefundAsked, e.Remaining())
	e.Served = e.Served || amount > 0
	return t.saveEscrow(e)
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

// finish waits for the settlement, and gives back what is still set aside then.
func (a *Authorisation) finish(receipt *ledger.Receipt[Charge]) (Charge, error) {
	charge, err := receipt.Wait()
	a.release()
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
	d, _, err := t.drawnBy(a)
	if err != nil {
		return Charge{}, err
	}
	debt, err := t.dueFor(a, &d.Charge, &s)
	if err != nil {
		return Charge{}, err
	}
	amount := min(max(s.Amount, d.Posted), d.Posted+d.Pending+a.Held())
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
	_, err := t.post(d, due, a)
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
	t.ledger.Delete(drawTable.key(c.RequestID))
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
	return c, t.put(chargeTable.key(c.RequestID), c)
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
	d, found, err := t.drawnBy(a)
	if err != nil {
		return err
	}
	e, err := t.source(d)
	if err != nil {
		return err
	}
	if found {
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

// RecoverPending must be called after a ledger was opened, before it is used. It posts the draws of calls whose process died, and records them as
// charges. It also closes escrows that were over except for what those calls held. Calls of processes that are still running are left alone.
//
// If processes share the ledger, RecoverPending must be called again when the session of one has ended, see [ledger.Ledger.Ended].
func (b *Book) RecoverPending(ctx context.Context) error {
	if err := b.recoverIn(ctx, drawTable, (*Tx).recoverCall); err != nil {
		return err
	}
	return b.FinishClosing(ctx)
}

// FinishClosing pays out what is left in escrows that are over, except for what running calls hold. The call that ends last does that by itself. So
// FinishClosing is needed only if other processes share the ledger, and have given back what they had set aside. It must be called now and then.
func (b *Book) FinishClosing(ctx context.Context) error {
	return b.recoverIn(ctx, closingTable, (*Tx).recoverClosing)
}

func (b *Book) recoverIn(ctx context.Context, in table, recover func(*Tx, string) error) error {
	for after := ""; ; {
		ids, err := b.idsIn(in, after)
		if err != nil || len(ids) == 0 {
			return err
		}
		for some := range slices.Chunk(ids, dueTogether) {
			_, err := Do(ctx, b, func(t *Tx) (struct{}, error) {
				for _, id := range some {
					if err := recover(t, id); err != nil {
						return struct{}{}, fmt.Errorf("recovering %s: %w", id, err)
					}
				}
				return struct{}{}, nil
			})
			if err != nil {
				return err
			}
		}
		after = ids[len(ids)-1]
	}
}

// idsIn returns some ids of a table, beginning after the given id.
func (b *Book) idsIn(in table, after string) (ids []string, err error) {
	err = b.view(func(r ledger.Reader) error {
		all := in.under()
		if after != "" {
			all.From = append(in.key(after), 0)
		}
		return r.Scan(all, func(key, _ []byte) (bool, error) {
			ids = append(ids, in.lastPart(key))
			return len(ids) < 256, nil
		})
	})
	return ids, err
}

// recoverCall records what a call had drawn before its process died.
func (t *Tx) recoverCall(request string) error {
	var d drawn
	if found, err := load(t.ledger, drawTable.key(request), &d); err != nil || !found {
		return err
	}
	if over, err := t.ledger.Over(d.By); err != nil || !over {
		return err
	}
	return t.recordDrawn(d)
}

// recordDrawn posts what a call has drawn, and records it as its charge.
func (t *Tx) recordDrawn(d drawn) error {
	d.Charge.Source, d.Charge.Cut = "stated", cutCrash
	if d.Pending > 0 {
		d.Charge.Source = "estimated"
	}
	e, err := t.source(d)
	if err != nil {
		return err
	}
	before, feeBefore := d.money(), d.Charge.Commission
	if err := t.payRest(&d, d.Pending, nil); err != nil {
		return err
	}
	if err := t.countDraw(e, d.money()-before, d.Charge.Commission-feeBefore, d.stained); err != nil {
		return err
	}
	if err := t.spent(d.Charge.Key, d.spends(d.Posted, e)); err != nil {
		return err
	}
	_, err = t.record(d, nil)
	return err
}

// recoverClosing pays out what is left in an escrow that is over, without what running calls hold.
func (t *Tx) recoverClosing(id string) error {
	e, err := t.escrow(id)
	if err != nil || e == nil || e.Closing == "" {
		return err
	}
	if free, err := t.unheld(e); err != nil || free == 0 {
		return err
	}
	return t.sendLeft(e)
}
