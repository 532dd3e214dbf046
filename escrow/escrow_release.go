package escrow

import (
	"github.com/tallygate/tallygate/escrow/ledger"
)

// out moves an amount from an escrow to the payee or to the payer, and counts it in the escrow.
func (t *Tx) out(e *Escrow, way Way, amount ledger.Amount, memo string, cover ...*ledger.Hold) error {
	if amount == 0 {
		return nil
	}
	tr := ledger.Transfer{Debit: e.Account(), Credit: ledger.Wallet(e.From), Amount: amount, Kind: kindRefund, Reference: e.ID, Memo: memo}
	if way == ToPayee {
		tr.Credit, tr.Kind = ledger.Wallet(e.To), kindRelease
	}
	m, err := t.move(tr, cover...)
	if err != nil {
		return err
	}
	if way == ToPayer {
		e.Refunded += amount
		e.StainedRefunded += m.stained
		if e.Allowed != "" {
			return t.restoreAllowance(e.From, e.To, e.Allowed, amount)
		}
		if e.Kind == KindPeriod {
			return t.feeBack(e, amount)
		}
		return nil
	}
	e.Released += amount
	e.StainedReleased += m.stained
	fee, err := t.take(e.To, amount, e.CommissionPPM, e.ID)
	e.Commission += fee
	return err
}

// sendRest pays everything that is not held to one party. Money that running calls hold goes to the same party when the calls end.
func (t *Tx) sendRest(e *Escrow, way Way, memo string) error {
	free, err := t.unheld(e)
	if err != nil {
		return err
	}
	if err := t.out(e, way, free, memo); err != nil {
		return err
	}
	e.Status, e.RefundAsked, e.RefundReason = StatusOpen, 0, ""
	if e.Remaining() > 0 {
		e.Closing = way
		if err := t.ledger.Recall(e.Account()); err != nil {
			return err
		}
	}
	if way == ToPayee {
		for i := range e.Milestones {
			e.Milestones[i].accept(t.Now())
		}
	}
	return nil
}

// mayRelease refuses all callers but the payer and the operator, and escrows that can't be released.
func (e *Escrow) mayRelease(by Actor) error {
	if !by.Operator && by.Agent != e.From {
		return refuse(Forbidden, nil, "only the payer releases")
	}
	if e.Closing != "" || e.Status != StatusOpen && e.Status != StatusRefundRequested {
		return e.wrongStatus("release")
	}
	return nil
}

// Release pays all that remains to the payee. Money that running calls hold follows when they end.
func (t *Tx) Release(by Actor, id, memo string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if err := e.mayRelease(by); err != nil {
		return Escrow{}, err
	}
	if err := checkText("memo", memo); err != nil {
		return Escrow{}, err
	}
	if err := t.spend(by, e.letGo(e.Remaining())); err != nil {
		return Escrow{}, err
	}
	if err := t.sendRest(e, ToPayee, memo); err != nil {
		return Escrow{}, err
	}
	return t.saveAct(by, e, "escrow.release", EscrowReleased)
}

// ReleasePartial pays an amount to the payee. The rest stays locked.
func (t *Tx) ReleasePartial(by Actor, id string, amount ledger.Amount, memo string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if e.Status == StatusReleased && e.Kind != KindMilestones && (by.Operator || by.Agent == e.From) {
		return Escrow{}, e.tooMuch("amount", amount) // an emptied pool has nothing left: that is what its payer must know
	}
	if err := e.mayRelease(by); err != nil {
		return Escrow{}, err
	}
	if e.Kind == KindMilestones {
		return Escrow{}, invalid("amount", "this escrow is paid by milestones: name one, or release all")
	}
	if err := checkAmount("amount", amount); err != nil {
		return Escrow{}, err
	}
	return t.releasePart(by, e, amount, memo)
}

func (t *Tx) releasePart(by Actor, e *Escrow, amount ledger.Amount, memo string) (Escrow, error) {
	if err := checkText("memo", memo); err != nil {
		return Escrow{}, err
	}
	free, err := t.unheld(e)
	if err != nil {
		return Escrow{}, err
	}
	if amount > free {
		return Escrow{}, e.tooMuch("amount", amount)
	}
	if err := t.spend(by, e.letGo(amount)); err != nil {
		return Escrow{}, err
	}
	if err := t.out(e, ToPayee, amount, memo); err != nil {
		return Escrow{}, err
	}
	e.RefundAsked = min(e.RefundAsked, e.Remaining())
	return t.saveAct(by, e, "escrow.release_partial", EscrowReleased)
}

// saveAct saves an escrow after an act on it, writes the audit log and sends the event.
func (t *Tx) saveAct(by Actor, e *Escrow, act string, what EventType) (Escrow, error) {
	if err := t.audit(by, act, e.ID, ""); err != nil {
		return Escrow{}, err
	}
	if err := t.saveEscrow(e); err != nil {
		return Escrow{}, err
	}
	return *e, t.escrowEvent(what, *e)
}
