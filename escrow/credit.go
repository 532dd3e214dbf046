package escrow

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Credit lets an agent make calls to one payee without money, up to an amount. It is a discount by the payee: the payee serves the calls,
// and no money moves for them. A call uses credit before the money in the wallet, and of several credits the one that expires first.
//
// Credit is not money. It is on an account of its own, and the ledger allows transfers from there only to a [ledger.Issuer] account. So
// credit can't be withdrawn, transferred or locked, and pays only this payee.
type Credit struct {
	ID        string        `cbor:"1,keyasint"`
	Payee     string        `cbor:"2,keyasint"`           // the agent that issued it, and serves the calls
	Agent     string        `cbor:"3,keyasint"`           // the agent that may use it
	Amount    ledger.Amount `cbor:"4,keyasint"`           // as issued
	Ended     ledger.Amount `cbor:"5,keyasint,omitempty"` // part of Amount that was unused when it expired or was revoked
	Status    CreditStatus  `cbor:"6,keyasint"`
	ExpiresAt time.Time     `cbor:"7,keyasint,omitzero"`  // zero: never
	CouponID  string        `cbor:"8,keyasint,omitempty"` // the coupon that was redeemed for it
	Memo      string        `cbor:"9,keyasint,omitempty"`
	CreatedAt time.Time     `cbor:"10,keyasint"`

	Left ledger.Amount `cbor:"-"` // part of Amount that is unused, including what running calls hold, at the time of reading
}

// CreditStatus is the status of a credit.
type CreditStatus string

// The statuses of a credit. A credit that is used up stays active, since a refund may give a part of it back.
const (
	CreditActive  CreditStatus = "active"
	CreditExpired CreditStatus = "expired"
	CreditRevoked CreditStatus = "revoked"
)

// CreditStatuses are all statuses of a credit.
var CreditStatuses = []CreditStatus{CreditActive, CreditExpired, CreditRevoked}

// Account is the account on which the credit is.
func (c Credit) Account() ledger.AccountID { return ledger.Credit(c.ID) }

// Used is how much of the credit was used, minus what refunds gave back.
func (c Credit) Used() ledger.Amount { return c.Amount - c.Ended - c.Left }

// usable reports whether new calls may use the credit, and refunds may give it back.
func (c Credit) usable(now time.Time) bool {
	return c.Status == CreditActive && (c.ExpiresAt.IsZero() || c.ExpiresAt.After(now))
}

// CreditOrder asks for a credit.
type CreditOrder struct {
	Payee     string // an agent issues only in its own name; the operator names the payee
	Agent     string
	Amount    ledger.Amount
	ExpiresAt time.Time // zero: never
	Memo      string
}

// maxCredits is how many unused credits an agent may have at one payee. It is small because each call reads all of them.
const maxCredits = 20

// IssueCredit gives an agent credit at a payee. The payee may do this, and the operator in the payee's name. A key that may pay only some
// payees, or has a limit of its own, is refused.
func (t *Tx) IssueCredit(by Actor, o CreditOrder) (Credit, error) {
	payee, err := t.issues(by, o.Payee)
	if err != nil {
		return Credit{}, err
	}
	if err := t.checkPair(payee, "agent_id", o.Agent); err != nil {
		return Credit{}, err
	}
	if !o.ExpiresAt.IsZero() && !o.ExpiresAt.After(t.Now()) {
		return Credit{}, invalid("expires_at", "expires_at %s is in the past", o.ExpiresAt.Format(time.RFC3339))
	}
	c := Credit{Payee: payee, Agent: o.Agent, Amount: o.Amount, ExpiresAt: o.ExpiresAt, Memo: o.Memo}
	if err := t.issue(&c); err != nil {
		return Credit{}, err
	}
	return c, t.audit(by, "credit.issue", c.ID, fmt.Sprintf("%s at %s to %s", c.Amount, payee, c.Agent))
}

// issues returns the payee whose credit the caller may issue or end, or refuses.
func (t *Tx) issues(by Actor, payee string) (string, error) {
	payee, err := t.actsFor(by, "payee", payee)
	if err != nil {
		return "", err
	}
	return payee, t.unbound(by, "can't issue credit")
}

// issue makes a credit.
func (t *Tx) issue(c *Credit) error {
	if err := checkAmount("amount", c.Amount); err != nil {
		return err
	}
	if err := checkText("memo", c.Memo); err != nil {
		return err
	}
	purse, err := purseOf(t.ledger, c.Agent, c.Payee)
	if err != nil {
		return err
	}
	if len(purse) >= maxCredits {
		return refuse(LimitExceeded, map[string]string{"limit": "credits", "payee": c.Payee}, "%q has %d unused credits at %q: no more until one is used up, expires or is revoked", c.Agent, len(purse), c.Payee)
	}
	c.ID, c.Status, c.Left, c.CreatedAt = t.process.ids.next("crd_", t.Now()), CreditActive, c.Amount, t.Now()
	_, err = t.ledger.Post(ledger.Transfer{Debit: ledger.Issuer(c.Payee), Credit: c.Account(), Amount: c.Amount, Kind: kindCredit, Reference: c.ID, Memo: c.Memo})
	if err != nil {
		return err
	}
	t.changed(c.Agent, c.Payee)
	if err := t.put(creditTable.key(c.ID), c); err != nil {
		return err
	}
	for _, party := range []string{c.Agent, c.Payee} {
		t.ledger.Put(creditByAgent.key(party, c.ID), []byte{})
	}
	if err := t.putPurse(c.Agent, c.Payee, append(purse, pursed{c.ID, c.ExpiresAt})); err != nil {
		return err
	}
	if !c.ExpiresAt.IsZero() {
		if err := t.fallsDue(c.Payee, c.ExpiresAt, dueCredit+c.ID); err != nil {
			return err
		}
	}
	return t.creditEvent(CreditIssued, *c)
}

// RevokeCredit takes back the unused part of a credit. Its payee may do this, and the operator. Running calls may still use what they hold.
func (t *Tx) RevokeCredit(by Actor, id string) (Credit, error) {
	c, err := t.issuedCredit(by, id)
	if err != nil {
		return Credit{}, err
	}
	if c.Status != CreditActive {
		return Credit{}, refuse(InvalidStatus, nil, "the credit is %s already", c.Status)
	}
	if err := t.audit(by, "credit.revoke", c.ID, ""); err != nil {
		return Credit{}, err
	}
	if err := t.endCredit(&c, CreditRevoked); err != nil {
		return Credit{}, err
	}
	return c, t.creditEvent(CreditWasRevoked, c)
}

// issuedCredit returns a credit if the caller may revoke it, and refuses otherwise.
func (t *Tx) issuedCredit(by Actor, id string) (Credit, error) {
	if err := by.mayMove(); err != nil {
		return Credit{}, err
	}
	c, found, err := t.credit(id)
	if err != nil {
		return Credit{}, err
	}
	switch {
	case !found || !c.visible(by):
		return Credit{}, noCredit(id)
	case !by.Operator && by.Agent != c.Payee:
		return Credit{}, refuse(Forbidden, nil, "only the payee that issued a credit may revoke it")
	}
	if !by.Operator {
		if err := t.unbound(by, "can't revoke credit"); err != nil {
			return Credit{}, err
		}
	}
	return c, nil
}

// endCredit takes back the part of a credit that is neither used nor held by running calls. What they hold is checked again until they have
// ended.
func (t *Tx) endCredit(c *Credit, status CreditStatus) error {
	acc, held, err := t.balance(c.Account())
	if err != nil {
		return err
	}
	free := acc.Available() - held
	if free > 0 {
		_, err := t.ledger.Post(ledger.Transfer{Debit: c.Account(), Credit: ledger.Issuer(c.Payee), Amount: free, Kind: kindCreditEnd, Reference: c.ID, Memo: string(status)})
		if err != nil {
			return err
		}
		c.Ended += free
	}
	c.Left = acc.Balance() - max(free, 0)
	if c.Left > 0 {
		if err := t.fallsDue(c.Payee, t.Now().Add(dueRetry), dueCredit+c.ID); err != nil {
			return err
		}
	}
	c.Status = status
	if err := t.unpurse(*c); err != nil {
		return err
	}
	t.changed(c.Agent, c.Payee)
	return t.put(creditTable.key(c.ID), *c)
}

// creditDue ends a credit that has expired. If the credit has ended already, creditDue takes back what calls no longer hold.
func (t *Tx) creditDue(id string) error {
	c, found, err := t.credit(id)
	if err != nil || !found {
		return err
	}
	switch {
	case c.Status != CreditActive:
		return t.endCredit(&c, c.Status)
	case c.usable(t.Now()):
		return nil
	}
	if err := t.endCredit(&c, CreditExpired); err != nil {
		return err
	}
	return t.creditEvent(CreditHasExpired, c)
}

// creditEvent sends an event to both parties of a credit.
func (t *Tx) creditEvent(what EventType, c Credit) error {
	event := Event{Type: what, At: t.Now(), Credit: &c}
	return t.tellAll(event, c.Agent, c.Payee)
}

func (c Credit) visible(by Actor) bool {
	return by.Operator || by.Agent != "" && (by.Agent == c.Agent || by.Agent == c.Payee)
}

func noCredit(id string) error { return refuse(NotFound, nil, "no credit %.80q", id) }

// credit returns a credit, including what the operation has changed.
func (t *Tx) credit(id string) (Credit, bool, error) {
	return creditByID(t.ledger, t.ledger.Account, id)
}

// creditIn returns a credit from a view.
func creditIn(r ledger.Reader, id string) (Credit, bool, error) {
	return creditByID(r, func(id ledger.AccountID) (ledger.Account, error) { return ledger.ReadAccount(r, id) }, id)
}

func creditByID(r ledger.Reader, account func(ledger.AccountID) (ledger.Account, error), id string) (c Credit, found bool, err error) {
	if len(id) > maxID {
		return c, false, nil
	}
	if found, err = load(r, creditTable.key(id), &c); err != nil || !found {
		return c, found, err
	}
	acc, err := account(c.Account())
	c.Left = acc.Balance()
	return c, true, err
}

// Credit returns a credit to one of its parties or the operator.
func (b *Book) Credit(by Actor, id string) (c Credit, err error) {
	err = b.view(func(r ledger.Reader) error {
		var found bool
		if c, found, err = creditIn(r, id); err == nil && (!found || !c.visible(by)) {
			err = noCredit(id)
		}
		return err
	})
	if err != nil {
		return Credit{}, err
	}
	return c, nil
}

// CreditFilter selects credits. A zero field selects all.
type CreditFilter struct {
	Agent  string // the agent that received or issued them; empty: those of all agents, for the operator only
	Payee  string
	Status CreditStatus
}

// Credits lists credits, newest first.
func (b *Book) Credits(f CreditFilter, p Page) (credits []Credit, next string, err error) {
	l := list[Credit]{table: creditByAgent, parts: []string{f.Agent}}
	if f.Agent == "" {
		l = list[Credit]{table: creditTable}
	}
	l.item = func(r ledger.Reader, id string, _ []byte) (Credit, bool, error) {
		c, found, err := creditIn(r, id)
		return c, found && (f.Payee == "" || f.Payee == c.Payee) && (f.Status == "" || f.Status == c.Status), err
	}
	err = b.view(func(r ledger.Reader) error {
		credits, next, err = l.page(r, p)
		return err
	})
	return credits, next, err
}

// pursed is a credit in a purse.
type pursed struct {
	ID        string    `cbor:"1,keyasint"`
	ExpiresAt time.Time `cbor:"2,keyasint,omitzero"`
}

// purseOf returns a purse: the credits that an agent may use at one payee, in the order in which they are used. Without such credits there
// is no purse.
func purseOf(r ledger.Reader, agent, payee string) (purse []pursed, err error) {
	_, err = load(r, purseTable.key(agent, payee), &purse)
	return purse, err
}

func (t *Tx) putPurse(agent, payee string, purse []pursed) error {
	if len(purse) == 0 {
		t.ledger.Delete(purseTable.key(agent, payee))
		return nil
	}
	slices.SortFunc(purse, func(a, b pursed) int {
		if a.ExpiresAt.IsZero() != b.ExpiresAt.IsZero() {
			if a.ExpiresAt.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.ID, b.ID))
	})
	return t.put(purseTable.key(agent, payee), purse)
}

// unpurse removes a credit that is used up, or has ended, from its purse.
func (t *Tx) unpurse(c Credit) error {
	purse, err := purseOf(t.ledger, c.Agent, c.Payee)
	if err != nil {
		return err
	}
	return t.putPurse(c.Agent, c.Payee, slices.DeleteFunc(purse, func(p pursed) bool { return p.ID == c.ID }))
}

// enpurse puts a credit that was used up back into its purse.
func (t *Tx) enpurse(c Credit) error {
	purse, err := purseOf(t.ledger, c.Agent, c.Payee)
	if err != nil || slices.ContainsFunc(purse, func(p pursed) bool { return p.ID == c.ID }) {
		return err
	}
	return t.putPurse(c.Agent, c.Payee, append(purse, pursed{c.ID, c.ExpiresAt}))
}

// CreditBalance is how much credit an agent may use at one payee.
type CreditBalance struct {
	Payee     string
	Available ledger.Amount // without what running calls hold
}

// CreditOf returns how much credit an agent may use at each payee, for the first 100 payees. See [Book.Credits] for all.
func (b *Book) CreditOf(agent string) (balances []CreditBalance, err error) {
	purses := map[string][]pursed{}
	var payees []string
	err = b.view(func(r ledger.Reader) error {
		return r.Scan(purseTable.under(agent), func(key, value []byte) (bool, error) {
			var purse []pursed
			payee := purseTable.lastPart(key, agent)
			payees = append(payees, payee)
			err := decode(key, value, &purse)
			purses[payee] = purse
			return len(payees) < maxPayees, err
		})
	})
	for _, payee := range payees {
		available, failed := b.inPurse(purses[payee])
		if failed != nil {
			return nil, failed
		}
		if available > 0 {
			balances = append(balances, CreditBalance{payee, available})
		}
	}
	return balances, err
}

// UsableCredit is how much credit an agent may use at a payee, without what running calls hold.
func (b *Book) UsableCredit(agent, payee string) (available ledger.Amount, err error) {
	var purse []pursed
	err = b.view(func(r ledger.Reader) error {
		purse, err = purseOf(r, agent, payee)
		return err
	})
	if err != nil || len(purse) == 0 {
		return 0, err
	}
	return b.inPurse(purse)
}

// plus is the sum of two amounts, neither below zero. If the sum is too large for an amount, plus returns the largest amount.
func plus(a, b ledger.Amount) ledger.Amount {
	sum, err := a.Add(b)
	if err != nil {
		return math.MaxInt64
	}
	return sum
}

func (b *Book) inPurse(purse []pursed) (available ledger.Amount, err error) {
	for _, p := range purse {
		if !p.ExpiresAt.IsZero() && !p.ExpiresAt.After(b.Now()) {
			continue
		}
		acc, held, err := b.ledger.Balance(ledger.Credit(p.ID))
		if err != nil {
			return 0, err
		}
		available = plus(available, max(0, acc.Available()-held))
	}
	return available, nil
}
