package escrow

import (
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Money that came in by a rail may go back outside later: the operator refunds a card payment, or its cardholder disputes it. It is taken
// from the wallet. What the wallet lacks is the agent's debt, which is in an account of its own (see [ledger.Debt]), so that the account
// world is always what really came in and went out. An agent with a new debt is suspended. Its next deposits pay the debt first.

// TakenBack is the part of a rail's payment that went back outside by one refund or dispute. The amounts are totals: they only grow, so it
// does not matter how often, and in which order, a rail tells of them.
type TakenBack struct {
	Rail     string        `cbor:"1,keyasint"`
	ID       string        `cbor:"2,keyasint"`           // of the refund or dispute
	Payment  string        `cbor:"3,keyasint"`           // the id of the payment
	Agent    string        `cbor:"4,keyasint"`           // who had paid; set by [Tx.TakeBack]
	Why      string        `cbor:"5,keyasint,omitempty"` // "refund" or "dispute"
	Taken    ledger.Amount `cbor:"6,keyasint"`           // what went out, in all
	Returned ledger.Amount `cbor:"7,keyasint"`           // what of it came in again: the refund failed, or the dispute was won
	At       time.Time     `cbor:"8,keyasint"`
	Debt     ledger.Amount `cbor:"9,keyasint"` // what the agent owed after it

	Payout string `cbor:"-"` // the refund that was asked for here, if it was one, see [Tx.RequestRefund]
}

// Net is what is gone.
func (b TakenBack) Net() ledger.Amount { return b.Taken - b.Returned }

func takenKey(rail, id string) []byte { return cardTable.key("taken", rail, id) }

// TakeBack books that a part of a payment went back outside, or came in again. Only what is new is moved. Refused: not_found if the payment
// is not booked, invalid_request.
func (t *Tx) TakeBack(b TakenBack) (booked TakenBack, err error) {
	if b.ID == "" || len(b.ID) > maxReference || b.Taken < 0 || b.Returned < 0 || b.Returned > b.Taken {
		return b, invalid("id", "what is taken back has an id of 1 to %d bytes, and no more comes again than was taken", maxReference)
	}
	var payment RailPayment
	found, err := load(t.ledger, railTable.key(b.Rail, b.Payment), &payment)
	if err == nil && (!found || payment.Pending) {
		err = refuse(NotFound, map[string]string{"rail": b.Rail, "payment_id": b.Payment}, "payment %.80q is not booked", b.Payment)
	}
	if err != nil {
		return b, err
	}
	if _, err = load(t.ledger, takenKey(b.Rail, b.ID), &booked); err != nil {
		return b, err
	}
	b.Agent, b.At = payment.Agent, t.Now()
	b.Taken, b.Returned = max(b.Taken, booked.Taken), max(b.Returned, booked.Returned)
	if b.Taken == booked.Taken && b.Returned == booked.Returned {
		return booked, nil
	}
	asked := false
	if booked.Taken == 0 {
		if asked, err = t.endRefund(b); err != nil {
			return b, err
		}
	}
	if !asked {
		err = t.moveBack(b, b.Net()-booked.Net())
	}
	if err == nil {
		b.Debt, err = t.debt(b.Agent)
	}
	if err != nil {
		return b, err
	}
	if err := t.put(takenKey(b.Rail, b.ID), b); err != nil || asked {
		return b, err // of what was asked for, the payout tells
	}
	return b, t.tellAll(Event{Type: PaymentTakenBack, At: t.Now(), TakenBack: &b}, b.Agent)
}

// moveBack moves what is gone of a payment now and was not before, or, below zero, what came in again.
func (t *Tx) moveBack(b TakenBack, more ledger.Amount) error {
	if more == 0 {
		return nil
	}
	if err := t.addGone(b.Rail, b.Payment, more); err != nil {
		return err
	}
	if more < 0 {
		return t.bringBack(b, -more)
	}
	return t.takeOut(b, more)
}

// takeOut takes an amount from the wallet, and makes a debt of what it lacks.
func (t *Tx) takeOut(b TakenBack, amount ledger.Amount) error {
	w, err := t.Wallet(b.Agent)
	if err != nil {
		return err
	}
	out := ledger.Transfer{Credit: ledger.World, Kind: kindTaken, Reference: b.ID, Memo: b.memo()}
	for _, part := range []struct {
		from   ledger.AccountID
		amount ledger.Amount
	}{{ledger.Wallet(b.Agent), min(amount, max(w.Available, 0))}, {ledger.Debt(b.Agent), amount - min(amount, max(w.Available, 0))}} {
		if out.Debit, out.Amount = part.from, part.amount; out.Amount == 0 {
			continue
		}
		if _, err := t.move(out); err != nil {
			return err
		}
	}
	if out.Amount == 0 {
		return nil
	}
	return t.suspendDebtor(b.Agent)
}

// bringBack books what came in again.
func (t *Tx) bringBack(b TakenBack, amount ledger.Amount) error {
	_, err := t.move(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet(b.Agent), Amount: amount, Kind: kindReturned, Reference: b.ID, Memo: b.memo()})
	if err != nil {
		return err
	}
	return t.collect(b.Agent)
}

func (b TakenBack) memo() string { return b.Rail + " " + b.ID }

// debt returns what an agent owes.
func (t *Tx) debt(agent string) (ledger.Amount, error) {
	acc, err := t.ledger.Account(ledger.Debt(agent))
	return -acc.Balance(), err
}

// Debt returns what an agent owes, since money that it has spent was taken back outside.
func (b *Book) Debt(agent string) (ledger.Amount, error) {
	acc, _, err := b.ledger.Balance(ledger.Debt(agent))
	return -acc.Balance(), err
}

// collect pays what an agent owes from what is available in its wallet.
func (t *Tx) collect(agent string) error {
	owed, err := t.debt(agent)
	if err != nil || owed <= 0 {
		return err
	}
	w, err := t.Wallet(agent)
	if err != nil || w.Available <= 0 {
		return err
	}
	_, err = t.move(ledger.Transfer{Debit: ledger.Wallet(agent), Credit: ledger.Debt(agent), Amount: min(owed, w.Available), Kind: kindDebt})
	return err
}

// suspendDebtor suspends an agent because of its debt. The operator ends that.
func (t *Tx) suspendDebtor(id string) error {
	agent, found, err := agentByID(t.ledger, id)
	if err != nil || !found || agent.status() != "" {
		return err
	}
	owed, err := t.debt(id)
	if err != nil {
		return err
	}
	agent.SuspendedAt, agent.Reason = t.Now(), fmt.Sprintf("a payment was taken back after its money was spent: %s %s is owed; deposits pay it", owed, t.Currency())
	return t.put(agentTable.key(id), agent)
}
