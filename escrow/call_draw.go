package escrow

import (
	"cmp"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

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

	stored  bool          // it is in the books
	stained ledger.Amount // the part of what this operation posted that is faucet money
	answer  []byte        // to be kept with the idempotency key
	freed   []part        // see freeDraws
}

// free is how much was pended before, and pays first.
func (d *drawn) free() (sum ledger.Amount) {
	for _, p := range d.freed {
		sum += p.amount
	}
	return sum
}

// takeFreed takes an amount that is due out of what was pended before. It returns what is still due.
func (d *drawn) takeFreed(due ledger.Amount) (parts []part, rest ledger.Amount) {
	for _, p := range d.freed {
		if p.amount = min(p.amount, due); p.amount > 0 {
			parts, due = append(parts, p), due-p.amount
		}
	}
	d.freed = nil
	return parts, due
}

// storedDraws returns what a call has drawn under an id, if that is in the books.
func (t *Tx) storedDraws(id string) (d drawn, err error) {
	d.stored, err = load(t.ledger, drawTable.key(id), &d)
	return d, err
}

// drawnBy returns what a call has drawn under an id.
func (t *Tx) drawnBy(a *Authorisation, id string) (drawn, error) {
	d, err := t.storedDraws(id)
	if err == nil && !d.stored {
		d = t.undrawn(a)
	}
	return d, err
}

// undrawn is a call that has drawn nothing.
func (t *Tx) undrawn(a *Authorisation) drawn {
	d := drawn{Charge: a.charge, PPM: a.ppm, Since: t.Now(), By: t.ledger.Session()}
	if a.onceKey != "" {
		d.OnceKey, d.Digest = a.onceKey, a.digest[:]
	}
	return d
}

// draw pays what is due for a running call, as far as its hold covers it.
func (t *Tx) draw(a *Authorisation, due ledger.Amount, exact bool) error {
	if a.session != t.ledger.Session() {
		return errRecovered
	}
	d, err := t.drawnBy(a, a.charge.RequestID)
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
