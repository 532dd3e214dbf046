package escrow

import (
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// CreditPart is how much of one credit a call has used.
type CreditPart struct {
	ID     string        `cbor:"1,keyasint"`
	Amount ledger.Amount `cbor:"2,keyasint"`
	Back   ledger.Amount `cbor:"3,keyasint,omitempty"` // part of Amount that refunds gave back
}

// creditHolds are the holds of a call on credits, in the order in which the credits are used. Most calls have none.
type creditHolds []*ledger.Hold

// holdCredit holds credit for a call, up to the first amount that the call needs. If the agent has no credit at the payee, this takes one
// look-up.
func (b *Book) holdCredit(o CallOrder) (holds creditHolds, err error) {
	if !o.Credit {
		return nil, nil
	}
	purse, err := b.purse(o.By.Agent, o.Payee)
	if err != nil {
		return nil, err
	}
	for _, p := range purse {
		if !p.ExpiresAt.IsZero() && !p.ExpiresAt.After(b.Now()) {
			continue // it has expired, and will be taken back
		}
		hold, err := b.ledger.Hold(ledger.Credit(p.ID), 0)
		if err != nil {
			holds.release()
			return nil, err
		}
		holds = append(holds, hold)
	}
	holds.extendUpTo(o.Least)
	return holds, nil
}

// purse looks up the credits that an agent may use at a payee.
func (b *Book) purse(agent, payee string) (purse []pursed, err error) {
	key := purseTable.key(agent, payee)
	err = b.peek(key, func(value []byte) error {
		var found []pursed
		err := decode(key, value, &found)
		purse = found
		return err
	})
	return purse, err
}

// amount is the sum of all holds.
func (c creditHolds) amount() (sum ledger.Amount) {
	for _, hold := range c {
		sum += hold.Amount()
	}
	return sum
}

// extendUpTo holds a further amount, or as much of it as there is. It returns how much it has held: in all, and of each credit.
func (c creditHolds) extendUpTo(by ledger.Amount) (got ledger.Amount, of []ledger.Amount) {
	of = make([]ledger.Amount, len(c))
	for i, hold := range c {
		of[i] = hold.ExtendUpTo(by - got)
		got += of[i]
	}
	return got, of
}

// giveBack gives amounts back that extendUpTo has held of each credit. More of an earlier credit may have become free since the call held a later
// one, so the amounts can't be found from their sum.
func (c creditHolds) giveBack(of []ledger.Amount) {
	for i, hold := range c {
		hold.GiveBack(of[i])
	}
}

func (c creditHolds) release() {
	for _, hold := range c {
		hold.Release()
	}
}

// part is the part of a payment that comes from one hold.
type part struct {
	hold   *ledger.Hold
	amount ledger.Amount
	credit string // the id of the credit; empty: the part is money
}

// parts divides an amount that is due among the holds of a call: credit first, then money. If the call's process has ended, there are no
// holds, and everything is money.
func (a *Authorisation) parts(due ledger.Amount) (parts []part) {
	var money *ledger.Hold
	if a != nil {
		money = a.hold
		for _, hold := range a.credit {
			if n := min(due, hold.Amount()); n > 0 {
				parts = append(parts, part{hold, n, accountName(hold.Account())})
				due -= n
			}
		}
	}
	if due > 0 {
		parts = append(parts, part{hold: money, amount: due})
	}
	return parts
}

// usesCredit notes that the call has used an amount of a credit. If the credit is used up, usesCredit removes it from its purse.
func (t *Tx) usesCredit(d *drawn, id string, amount ledger.Amount) error {
	if amount == 0 {
		return nil
	}
	d.Posted += amount
	d.Charge.Credit += amount
	at := slices.IndexFunc(d.Charge.Credits, func(p CreditPart) bool { return p.ID == id })
	if at < 0 {
		d.Charge.Credits = append(slices.Clone(d.Charge.Credits), CreditPart{ID: id})
		at = len(d.Charge.Credits) - 1
	}
	d.Charge.Credits[at].Amount += amount
	acc, err := t.ledger.Account(ledger.Credit(id))
	if err != nil || acc.Balance() > 0 {
		return err
	}
	c, found, err := t.credit(id)
	if err != nil || !found {
		return err
	}
	return t.unpurse(c)
}

// refunded divides a further refund of a charge into credit and money, in the proportion in which they paid.
func (c Charge) refunded(amount ledger.Amount) (credit, money ledger.Amount, err error) {
	if c.Credit == 0 {
		return 0, amount, nil
	}
	back, err := c.Credit.MulDiv(uint64(c.Refunded+amount), uint64(c.Amount))
	if err != nil {
		return 0, 0, err
	}
	credit = back - c.CreditBack
	return credit, amount - credit, nil
}

// returnCredit gives back credit that a charge has used. It begins with the credit that was used last. The part of a credit that has ended
// meanwhile is lost.
func (t *Tx) returnCredit(c *Charge, amount ledger.Amount) error {
	c.CreditBack += amount
	c.Credits = slices.Clone(c.Credits)
	for i := len(c.Credits) - 1; i >= 0 && amount > 0; i-- {
		used := &c.Credits[i]
		n := min(amount, used.Amount-used.Back)
		if n == 0 {
			continue
		}
		used.Back += n
		amount -= n
		credit, found, err := t.credit(used.ID)
		if err != nil {
			return err
		}
		if !found || !credit.usable(t.Now()) {
			continue
		}
		_, err = t.ledger.Post(ledger.Transfer{Debit: ledger.Issuer(c.Payee), Credit: credit.Account(), Amount: n, Kind: kindCreditRefund, Reference: c.RequestID})
		if err != nil {
			return err
		}
		if err := t.enpurse(credit); err != nil {
			return err
		}
	}
	return nil
}
