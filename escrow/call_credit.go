package escrow

import (
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// CreditPart is what a call has used of one credit.
type CreditPart struct {
	ID     string        `cbor:"1,keyasint"`
	Amount ledger.Amount `cbor:"2,keyasint"`
	Back   ledger.Amount `cbor:"3,keyasint,omitempty"` // out of Amount, what refunds have given back
}

// creditHolds are what a call holds of credit, in the order in which it is used. They are nil for most calls.
type creditHolds []*ledger.Hold

// holdCredit takes credit aside for a call, up to the first amount that it needs. For an agent that has none at the payee, that is one look-up.
func (b *Book) holdCredit(o CallOrder) (holds creditHolds, err error) {
	if !o.Credit {
		return nil, nil
	}
	var purse []pursed
	err = b.view(func(r ledger.Reader) error {
		purse, err = purseOf(r, o.By.Agent, o.Payee)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range purse {
		if !p.ExpiresAt.IsZero() && !p.ExpiresAt.After(b.Now()) {
			continue // it is about to be taken back
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

// amount is what is held of all credit together.
func (c creditHolds) amount() (sum ledger.Amount) {
	for _, hold := range c {
		sum += hold.Amount()
	}
	return sum
}

// extendUpTo holds so much more, or as much of it as there is, and returns how much that was.
func (c creditHolds) extendUpTo(by ledger.Amount) (got ledger.Amount) {
	for _, hold := range c {
		got += hold.ExtendUpTo(by - got)
	}
	return got
}

// giveBack gives so much back, of what is used last first.
func (c creditHolds) giveBack(amount ledger.Amount) {
	for _, hold := range slices.Backward(c) {
		part := min(amount, hold.Amount())
		hold.GiveBack(part)
		amount -= part
	}
}

func (c creditHolds) release() {
	for _, hold := range c {
		hold.Release()
	}
}

// part is what a call pays out of one of its holds.
type part struct {
	hold   *ledger.Hold
	amount ledger.Amount
	credit string // the credit that it is of; empty: it is money
}

// parts divides what is due of a call among its holds: credit first, then money. A call whose process is gone has no holds any more.
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

// usesCredit notes that the call has used so much of a credit, which is taken out of its purse when it is used up.
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

// refunded divides a further refund of a charge: credit comes back as credit, in proportion.
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

// returnCredit gives back credit that a charge has used, of what was used last first. What was of a credit that has ended meanwhile is
// gone with it.
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
