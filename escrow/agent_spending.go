package escrow

import (
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// spending is money that an agent spends, or a claim to money that it gives up.
type spending struct {
	agent  string // who spends
	payee  string // who gets it
	amount ledger.Amount
	// locked is the escrow from which the agent pays. It is nil if the wallet pays, and if the agent gives up a claim as a payee.
	locked *Escrow
}

// spend checks everything that an agent spends or gives up, against the key that acts, and counts it. It refuses a key that may pay only
// other payees, an agent that is suspended or closed, and an amount that exceeds a limit. All these acts call spend: transfers and debits; locking an escrow, releasing it, and
// withdrawing a request for its refund; each period of a subscription; verdicts on quality; and refunds by a payee. A metered call has two
// steps instead: [Book.claimLimits] before the call, and [Tx.spent] after it. What the operator does is counted but not refused, so that no
// agent can use a limit to keep the operator from refunding or deciding.
//
// Some acts count for the key that began them: debits for the key that set the allowance, renewals for the key that began the subscription.
func (t *Tx) spend(by Actor, s spending) error {
	if err := by.mayPay(s.payee); err != nil {
		return err
	}
	if by.Operator || s.amount == 0 {
		return t.spent(by.Key, s)
	}
	if err := t.checkStanding(s.agent); err != nil {
		return err
	}
	limits, err := limitsOf(t.ledger, s.agent, t.Now())
	if err != nil || len(limits) == 0 {
		return err
	}
	// The amount is claimed until the operation is durable, so that calls that begin meanwhile can't use the same room of a limit.
	take := func(of ...Bound) (Claim, error) { return t.process.claims.TakeIn(t, int64(s.amount), of...) }
	if claim, err := claimOf(take, limits, by.Key, s, t.Now); err != nil || claim == nil {
		return err
	}
	return t.spent(by.Key, s)
}

// spent counts what an agent has already spent, or what the operator spends for it. It refuses nothing.
func (t *Tx) spent(key string, s spending) error {
	if s.amount == 0 {
		return nil
	}
	limits, err := limitsOf(t.ledger, s.agent, t.Now())
	if err != nil {
		return err
	}
	for _, l := range limits {
		if !s.countsFor(l, key) {
			continue
		}
		was, err := spentIn(t.ledger, s.agent, l, t.Now())
		if err != nil {
			return err
		}
		before := was.Spent
		was.Spent += s.amount
		if err := t.put(spentTable.key(s.agent, l.id()), was); err != nil {
			return err
		}
		if err := t.tellLimit(s.agent, l, before, was); err != nil {
			return err
		}
	}
	return nil
}

// countsFor reports whether a limit counts the spending by a key. What an escrow pays was counted when the escrow was locked. It counts
// again only against a limit of the acting key, and only if that key is not in [Escrow.CountedFor].
func (s spending) countsFor(l Limit, key string) bool {
	if l.Key != "" && l.Key != key || l.Payee != "" && l.Payee != s.payee {
		return false
	}
	if s.locked == nil || s.locked.Kind == KindMeter { // when a meter locks money, that is not counted
		return true
	}
	return l.Key != "" && !slices.Contains(s.locked.CountedFor, key)
}

// countedFor notes that everything that remains in an escrow was counted as spent with a key of the payer.
func (e *Escrow) countedFor(key string) {
	if key != "" && !slices.Contains(e.CountedFor, key) {
		e.CountedFor = append(slices.Clone(e.CountedFor), key)
	}
}

// letGo is the spending of an act by which the payer lets an amount of its escrow go to the payee.
func (e *Escrow) letGo(amount ledger.Amount) spending {
	return spending{agent: e.From, payee: e.To, amount: amount, locked: e}
}
