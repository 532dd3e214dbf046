package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Refund gives money back to the payer: amount, or all that remains if amount is zero. By the payee and the operator it takes place at once. By
// the payer it is a request, which freezes the money that no running call holds. The request ends when the payee agrees (by Refund) or refuses
// (by Dispute), when the payer releases the escrow or withdraws the request, when the operator resolves it, or when the refund window is over,
// which grants the refund.
func (t *Tx) Refund(by Actor, id string, amount ledger.Amount, reason string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if err := checkText("reason", reason); err != nil {
		return Escrow{}, err
	}
	if e.Closing != "" || e.Status != StatusOpen && e.Status != StatusRefundRequested {
		return Escrow{}, e.wrongStatus("refund")
	}
	free, err := t.unheld(e)
	if err != nil {
		return Escrow{}, err
	}
	if amount < 0 {
		return Escrow{}, checkAmount("amount", amount)
	}
	if amount > free {
		return Escrow{}, e.tooMuch("amount", amount)
	}
	if !by.Operator && by.Agent == e.From {
		return t.requestRefund(by, e, amount, reason)
	}
	if err := t.spend(by, spending{agent: e.To, payee: e.From, amount: e.toGiveBack(amount, free)}); err != nil {
		return Escrow{}, err
	}
	if err := t.giveBack(e, amount, reason); err != nil {
		return Escrow{}, err
	}
	return t.saveAct(by, e, "escrow.refund", EscrowRefunded)
}

// toGiveBack is what giveBack will refund in the end, including what running calls still hold.
func (e *Escrow) toGiveBack(amount, free ledger.Amount) ledger.Amount {
	switch {
	case amount > 0:
		return amount
	case e.Status == StatusRefundRequested && e.RefundAsked > 0:
		return min(e.RefundAsked, free)
	default:
		return e.Remaining()
	}
}

// giveBack refunds an amount and subtracts it from an open request. Zero means the requested amount, or all that remains.
func (t *Tx) giveBack(e *Escrow, amount ledger.Amount, reason string) error {
	free, err := t.unheld(e)
	if err != nil {
		return err
	}
	requested := e.Status == StatusRefundRequested
	if amount = e.toGiveBack(amount, free); amount == 0 || amount == e.Remaining() {
		return t.sendRest(e, ToPayer, reason)
	}
	if err := t.out(e, ToPayer, amount, reason); err != nil {
		return err
	}
	if requested && (e.RefundAsked == 0 || amount < e.RefundAsked) { // the rest of what was asked for is still unanswered
		e.RefundAsked = max(0, e.RefundAsked-amount)
		return nil
	}
	e.reopen()
	return nil
}

// reopen ends a refund request; the rest of the escrow goes on as before.
func (e *Escrow) reopen() {
	e.Status, e.RefundAsked, e.RefundReason, e.RefundAt = StatusOpen, 0, "", time.Time{}
}

func (t *Tx) requestRefund(by Actor, e *Escrow, amount ledger.Amount, reason string) (Escrow, error) {
	if e.Status != StatusOpen {
		return Escrow{}, e.wrongStatus("second request")
	}
	e.Status, e.RefundAsked, e.RefundReason = StatusRefundRequested, amount, reason
	e.RefundAt = t.Now().Add(t.rules.RefundWindow)
	return t.saveAct(by, e, "escrow.refund", EscrowRefundRequested)
}

// WithdrawRefund takes the payer's request back. If the escrow goes to the payee when it expires, everything that remains counts as spent,
// since the payer gives up its claim.
func (t *Tx) WithdrawRefund(by Actor, id string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if !by.Operator && by.Agent != e.From {
		return Escrow{}, refuse(Forbidden, nil, "only the payer may withdraw its request")
	}
	if e.Status != StatusRefundRequested {
		return Escrow{}, e.wrongStatus("request to withdraw")
	}
	left := e.leftToTime()
	if err := t.spend(by, e.letGo(left)); err != nil {
		return Escrow{}, err
	}
	if left > 0 {
		e.countedFor(by.Key)
	}
	e.reopen()
	if err := t.expire(e); err != nil { // its own time may have passed while it was frozen
		return Escrow{}, err
	}
	return t.saveAct(by, e, "escrow.refund_withdrawn", EscrowRefundWithdrawn)
}

// leftToTime is what goes to the payee when the escrow expires, if nobody acts before.
func (e *Escrow) leftToTime() ledger.Amount {
	if e.AutoReleaseAt.IsZero() || e.OnExpiry != ToPayee {
		return 0
	}
	return e.Remaining()
}

// Dispute freezes the escrow until the operator resolves it. Either party and the operator may do this.
func (t *Tx) Dispute(by Actor, id, reason string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if err := checkText("reason", reason); err != nil {
		return Escrow{}, err
	}
	if by.Agent == e.From { // a dispute ends a refund request that would have been granted without an answer, so the key must be allowed to pay the payee
		if err := by.mayPay(e.To); err != nil {
			return Escrow{}, err
		}
	}
	if e.Closing != "" || e.Status != StatusOpen && e.Status != StatusRefundRequested {
		return Escrow{}, e.wrongStatus("dispute")
	}
	who := by.Agent
	if by.Operator {
		who = "operator"
	}
	e.dispute(who, reason)
	return t.saveAct(by, e, "escrow.dispute", EscrowDisputed)
}

func (e *Escrow) dispute(by, reason string) {
	e.Status, e.DisputedBy, e.DisputeReason, e.RefundAt = StatusDisputed, by, reason, time.Time{}
}

// Resolution says how the operator divides the money that running calls do not hold.
type Resolution struct {
	ToPayee, ToPayer ledger.Amount
	Note             string
}

// Resolve divides a disputed escrow, or one with a refund request. Only the operator may do this. The parts must add up to what remains and is not
// held. Money that calls hold goes to the payer when the calls end, or to the payee if the payee got everything.
func (t *Tx) Resolve(by Actor, id string, r Resolution) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if err := by.isOperator("resolving a dispute"); err != nil {
		return Escrow{}, err
	}
	if err := checkText("note", r.Note); err != nil {
		return Escrow{}, err
	}
	if e.Status != StatusDisputed && e.Status != StatusRefundRequested {
		return Escrow{}, e.wrongStatus("dispute to resolve")
	}
	if r.ToPayee < 0 || r.ToPayer < 0 {
		return Escrow{}, invalid("to_payee", "to_payee %s and to_payer %s: not below zero", r.ToPayee, r.ToPayer)
	}
	free, err := t.unheld(e)
	if err != nil {
		return Escrow{}, err
	}
	sum, err := r.ToPayee.Add(r.ToPayer)
	if err != nil || sum > free {
		return Escrow{}, e.tooMuch("to_payee", sum)
	}
	if sum < free {
		return Escrow{}, invalid("to_payee", "to_payee and to_payer add up to %s; all of the %s that remain are divided%s", sum, e.Remaining(), heldNote(e.Held))
	}
	if err := t.countDispute(e, r); err != nil {
		return Escrow{}, err
	}
	if err := t.spend(by, e.letGo(r.ToPayee)); err != nil {
		return Escrow{}, err
	}
	if err := t.divide(e, r); err != nil {
		return Escrow{}, err
	}
	return t.saveAct(by, e, "escrow.resolve", EscrowResolved)
}

func (t *Tx) divide(e *Escrow, r Resolution) error {
	if err := t.out(e, ToPayee, r.ToPayee, r.Note); err != nil {
		return err
	}
	if err := t.out(e, ToPayer, r.ToPayer, r.Note); err != nil {
		return err
	}
	e.reopen()
	e.Resolution = r.Note
	if e.Remaining() > 0 {
		e.Closing = ToPayer
		if r.ToPayer == 0 {
			e.Closing = ToPayee
		}
		return t.ledger.Recall(e.Account())
	}
	return nil
}
