package escrow

import (
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Allowance says how much a payee may take from a payer's wallet by debits.
type Allowance struct {
	Payer     string        `cbor:"1,keyasint"`
	Payee     string        `cbor:"2,keyasint"`
	Amount    ledger.Amount `cbor:"3,keyasint"` // as set
	Left      ledger.Amount `cbor:"4,keyasint"`
	UpdatedAt time.Time     `cbor:"5,keyasint"`
	Key       string        `cbor:"6,keyasint,omitempty"` // the payer's key that set it; debits count against its limits, and end when it is revoked
}

// SetAllowance allows a payee to take up to amount from now on. It replaces an earlier allowance.
func (t *Tx) SetAllowance(by Actor, payer, payee string, amount ledger.Amount) (Allowance, error) {
	payer, err := t.actsFor(by, "agent_id", payer)
	if err != nil {
		return Allowance{}, err
	}
	if err := t.checkPair(payer, "payee", payee); err != nil {
		return Allowance{}, err
	}
	if err := by.mayPay(payee); err != nil { // limits count the debits, not the allowance
		return Allowance{}, err
	}
	if err := checkAmount("amount", amount); err != nil {
		return Allowance{}, err
	}
	if err := t.roomForAllowance(payer, payee); err != nil {
		return Allowance{}, err
	}
	if err := t.audit(by, "allowance.set", payer, payee+" "+amount.String()); err != nil {
		return Allowance{}, err
	}
	a := Allowance{Payer: payer, Payee: payee, Amount: amount, Left: amount, UpdatedAt: t.Now(), Key: by.Key}
	return a, t.put(allowanceTable.key(payer, payee), a)
}

const maxAllowances = 1000 // of one payer

func (t *Tx) roomForAllowance(payer, payee string) error {
	if _, found, err := allowance(t.ledger, payer, payee); err != nil || found {
		return err
	}
	n, err := t.countUpTo(allowanceTable.under(payer), maxAllowances)
	if err != nil || n < maxAllowances {
		return err
	}
	return refuse(InvalidStatus, map[string]string{"limit": strconv.Itoa(maxAllowances)}, "an agent gives at most %d allowances; delete one", maxAllowances)
}

// DeleteAllowance deletes an allowance.
func (t *Tx) DeleteAllowance(by Actor, payer, payee string) error {
	payer, err := t.actsFor(by, "agent_id", payer)
	if err != nil {
		return err
	}
	if _, found, err := allowance(t.ledger, payer, payee); err != nil {
		return err
	} else if !found {
		return noAllowance(payee)
	}
	if err := t.audit(by, "allowance.delete", payer, payee); err != nil {
		return err
	}
	t.ledger.Delete(allowanceTable.key(payer, payee))
	return nil
}

// useAllowance subtracts a debit from the allowance that From has given To. It returns the actor for whose limits the debit counts: From, with the
// key that set the allowance.
func (t *Tx) useAllowance(o PaymentOrder) (Actor, error) {
	if err := t.checkPair(o.From, "to_agent_id", o.To); err != nil {
		return Actor{}, err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Actor{}, err
	}
	a, found, err := allowance(t.ledger, o.From, o.To)
	if err != nil {
		return Actor{}, err
	}
	if found {
		if found, err = stands(t.ledger, o.From, a.Key, t.Now()); err != nil {
			return Actor{}, err
		}
	}
	if !found {
		return Actor{}, refuse(Forbidden, map[string]string{"payer": o.From, "payee": o.To},
			"agent %.80q has given %q no allowance", o.From, o.To)
	}
	if a.Left < o.Amount {
		return Actor{}, refuse(LimitExceeded, map[string]string{"limit": "allowance", "required": o.Amount.String(), "available": a.Left.String()},
			"%s is needed, but the allowance that %q has given to %q has only %s left", o.Amount, o.From, o.To, a.Left)
	}
	a.Left -= o.Amount
	a.UpdatedAt = t.Now()
	return Actor{Agent: o.From, Key: a.Key}, t.put(allowanceTable.key(o.From, o.To), a)
}

// Allowance returns the allowance that a payer has given a payee. Refused with not_found if there is none.
func (b *Book) Allowance(payer, payee string) (a Allowance, err error) {
	err = b.view(func(r ledger.Reader) error {
		var found bool
		if a, found, err = allowance(r, payer, payee); err == nil && !found {
			err = noAllowance(payee)
		}
		return err
	})
	return a, err
}

// Allowances lists the allowances that a payer has given, in the order of the payees.
func (b *Book) Allowances(payer string, p Page) (allowances []Allowance, next string, err error) {
	granted := list[Allowance]{table: allowanceTable, parts: []string{payer}, item: func(_ ledger.Reader, payee string, value []byte) (a Allowance, wanted bool, err error) {
		return a, true, decode(allowanceTable.key(payer, payee), value, &a)
	}}
	err = b.view(func(r ledger.Reader) error {
		allowances, next, err = granted.page(r, p)
		return err
	})
	return allowances, next, err
}

func allowance(r ledger.Reader, payer, payee string) (a Allowance, found bool, err error) {
	if len(payer) > maxID || len(payee) > maxID {
		return a, false, nil
	}
	found, err = load(r, allowanceTable.key(payer, payee), &a)
	return a, found, err
}

func noAllowance(payee string) error {
	return refuse(NotFound, map[string]string{"payee": payee}, "no allowance is set for %.80q", payee)
}
