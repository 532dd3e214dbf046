package escrow

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Credit is what an agent may use of a payee's calls without money. It is the payee's own discount: the calls that use it are served, and no
// money moves for them. It is used before the money of the wallet, the credit that expires first before the others.
//
// Credit is no money. It lies on an account of its own, from which the ledger lets transfers go to an [ledger.Issuer] alone, so that it can't be
// withdrawn, transferred, locked, or paid out, and pays this payee alone.
type Credit struct {
	ID        string        `cbor:"1,keyasint"`
	Payee     string        `cbor:"2,keyasint"`           // who has issued it, and serves for it
	Agent     string        `cbor:"3,keyasint"`           // who may use it
	Amount    ledger.Amount `cbor:"4,keyasint"`           // as issued
	Ended     ledger.Amount `cbor:"5,keyasint,omitempty"` // out of Amount, what was left unused when it expired or was revoked
	Status    CreditStatus  `cbor:"6,keyasint"`
	ExpiresAt time.Time     `cbor:"7,keyasint,omitzero"`  // zero: never
	CouponID  string        `cbor:"8,keyasint,omitempty"` // the coupon that it was redeemed for
	Memo      string        `cbor:"9,keyasint,omitempty"`
	CreatedAt time.Time     `cbor:"10,keyasint"`

	Left ledger.Amount `cbor:"-"` // out of Amount, what is unused, running calls' part included; as of when it was read
}

// CreditStatus is what became of a credit.
type CreditStatus string

// The statuses of a credit. One that is used up stays active: a refund gives credit back.
const (
	CreditActive  CreditStatus = "active"
	CreditExpired CreditStatus = "expired"
	CreditRevoked CreditStatus = "revoked"
)

// CreditStatuses are all statuses of a credit.
var CreditStatuses = []CreditStatus{CreditActive, CreditExpired, CreditRevoked}

// Account is the account that the credit lies on.
func (c Credit) Account() ledger.AccountID { return ledger.Credit(c.ID) }

// Used is how much of the credit was used, less what refunds have given back.
func (c Credit) Used() ledger.Amount { return c.Amount - c.Ended - c.Left }

// usable reports whether calls may begin to use the credit, and refunds give it back.
func (c Credit) usable(now time.Time) bool {
	return c.Status == CreditActive && (c.ExpiresAt.IsZero() || c.ExpiresAt.After(now))
}

// CreditOrder asks for a credit.
type CreditOrder struct {
	Payee     string // only the operator names another than itself
	Agent     string
	Amount    ledger.Amount
	ExpiresAt time.Time // zero: never
	Memo      string
}

// maxCredits bounds the credits that an agent has unused at one payee: a call looks at each.
const maxCredits = 20

// IssueCredit gives an agent credit at a payee: the payee does, or the operator for it. A key that is bound to payees, or has a limit of its
// own, issues none.
func (t *Tx) IssueCredit(by Actor, o CreditOrder) (Credit, error) {
	payee, err := t.issues(by, o.Payee)
	if err != nil {
		return Credit{}, err
	}
	if err := t.checkPair(payee, "agent_id", o.Agent); err != nil {
		return Credit{}, err
	}
	if !o.ExpiresAt.IsZero() && !o.ExpiresAt.After(t.Now()) {
		return Credit{}, invalid("expires_at", "expires_at %s is over", o.ExpiresAt.Format(time.RFC3339))
	}
	c := Credit{Payee: payee, Agent: o.Agent, Amount: o.Amount, ExpiresAt: o.ExpiresAt, Memo: o.Memo}
	if err := t.issue(&c); err != nil {
		return Credit{}, err
	}
	return c, t.audit(by, "credit.issue", c.ID, fmt.Sprintf("%s at %s to %s", c.Amount, payee, c.Agent))
}

// issues returns whose credit by issues, or ends.
func (t *Tx) issues(by Actor, payee string) (string, error) {
	payee, err := t.actsFor(by, "payee", payee)
	if err != nil {
		return "", err
	}
	return payee, t.unbound(by, "issues no credit")
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

// RevokeCredit takes back what is unused of a credit: its payee does, or the operator. What running calls hold of it they may still use.
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

// issuedCredit returns a credit to who may change it.
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
		return Credit{}, refuse(Forbidden, nil, "only the payee that has issued a credit revokes it")
	}
	if !by.Operator {
		if err := t.unbound(by, "revokes no credit"); err != nil {
			return Credit{}, err
		}
	}
	return c, nil
}

// endCredit takes back what is unused of a credit, but for what running calls hold. That is looked at again until they have ended.
func (t *Tx) endCredit(c *Credit, status CreditStatus) error {
	acc, err := t.ledger.Account(c.Account())
	if err != nil {
		return err
	}
	free := acc.Available() - t.ledger.Held(c.Account())
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
	return t.put(creditTable.key(c.ID), *c)
}

// creditDue ends a credit whose time is up, and takes back what calls have left of one that has ended.
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

// creditEvent tells both parties of a credit.
func (t *Tx) creditEvent(what EventType, c Credit) error {
	event := Event{Type: what, At: t.Now(), Credit: &c}
	if err := t.tell(c.Agent, event); err != nil {
		return err
	}
	return t.tell(c.Payee, event)
}

func (c Credit) visible(by Actor) bool {
	return by.Operator || by.Agent != "" && (by.Agent == c.Agent || by.Agent == c.Payee)
}

func noCredit(id string) error { return refuse(NotFound, nil, "no credit %.80q", id) }

// credit returns a credit as the operation has made it.
func (t *Tx) credit(id string) (Credit, bool, error) {
	return creditByID(t.ledger, t.ledger.Account, id)
}

// creditIn returns a credit as a view sees it.
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

// CreditFilter says which credits are wanted; zero fields want all.
type CreditFilter struct {
	Agent  string // whose credits, issued or to be used; empty: all agents', which is the operator's to see
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

// pursed is a credit that an agent may use, in its purse.
type pursed struct {
	ID        string    `cbor:"1,keyasint"`
	ExpiresAt time.Time `cbor:"2,keyasint,omitzero"`
}

// A purse is the credits that an agent may use at one payee, in the order in which they are used. An agent without any has no purse.
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

// unpurse takes a credit out of its purse: it is used up, or has ended.
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

// CreditBalance is what an agent may use at one payee.
type CreditBalance struct {
	Payee     string
	Available ledger.Amount // beyond what running calls hold
}

// CreditOf returns what an agent may use at each payee, of the first hundred; see [Book.Credits] for all.
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

// UsableCredit is what an agent may use at a payee, beyond what running calls hold.
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

// plus is the sum of two amounts that are not below zero, or the most that there is.
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
