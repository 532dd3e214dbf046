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
	Setting   string        `cbor:"7,keyasint,omitempty"` // the id of this setting of it; old records get one when they are next used
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
	a := Allowance{Payer: payer, Payee: payee, Amount: amount, Left: amount, UpdatedAt: t.Now(), Setting: t.newSetting(), Key: by.Key}
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

// useAllowance subtracts a debit from the allowance that From has given To, and returns what is left of it. The debit counts against the limits
// of [Allowance.spender].
func (t *Tx) useAllowance(o PaymentOrder) (Allowance, error) {
	if err := t.checkPair(o.From, "to_agent_id", o.To); err != nil {
		return Allowance{}, err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Allowance{}, err
	}
	a, err := t.standingAllowance(o.From, o.To)
	if err != nil {
		return Allowance{}, err
	}
	if a.Left < o.Amount {
		return Allowance{}, refuse(LimitExceeded, map[string]string{"limit": "allowance", "required": o.Amount.String(), "available": a.Left.String()},
			"%s is needed, but the allowance that %q has given to %q has only %s left", o.Amount, o.From, o.To, a.Left)
	}
	if a.Setting == "" {
		a.Setting = t.newSetting()
	}
	a.Left -= o.Amount
	a.UpdatedAt = t.Now()
	return a, t.put(allowanceTable.key(o.From, o.To), a)
}

// standingAllowance returns the allowance that a payer has given a payee. Refused with forbidden if there is none, or if the key is revoked that
// set it.
func (t *Tx) standingAllowance(payer, payee string) (Allowance, error) {
	a, found, err := allowance(t.ledger, payer, payee)
	if err == nil && found {
		found, err = stands(t.ledger, payer, a.Key, t.Now())
	}
	if err == nil && !found {
		err = refuse(Forbidden, map[string]string{"payer": payer, "payee": payee}, "agent %.80q has given %q no allowance", payer, payee)
	}
	return a, err
}

// spender is the payer, with the key for whose limits the debits count: the one that set the allowance.
func (a Allowance) spender() Actor { return Actor{Agent: a.Payer, Key: a.Key} }

func (t *Tx) newSetting() string { return t.process.ids.next("alw_", t.Now()) }

// restoreAllowance gives back what was used of an allowance, unless it was set anew meanwhile.
func (t *Tx) restoreAllowance(payer, payee, setting string, amount ledger.Amount) error {
	a, found, err := allowance(t.ledger, payer, payee)
	if err != nil || !found || a.Setting != setting {
		return err
	}
	a.Left += amount
	a.UpdatedAt = t.Now()
	return t.put(allowanceTable.key(payer, payee), a)
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
