package escrow

import (
	"context"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// spending is money that leaves an agent, or a claim of the agent that is given up.
type spending struct {
	agent  string // whose it is
	payee  string // who gets it
	amount ledger.Amount
	// locked is the escrow from which the agent pays. It is nil where the wallet pays, and where the agent is the payee of what it gives up.
	locked *Escrow
}

// spend is what every act passes by which money leaves an agent, or a claim of it is given up, with the key that acts: transfers and debits;
// escrows as they are locked, released, and left to their time; each period of a subscription; verdicts on quality; charges and escrows that a
// payee gives back. (A metered call passes in two steps: [Book.claimLimits] before it, [Tx.spent] after it.) It refuses a key that is bound to
// other payees, and what exceeds a limit, and counts the rest. What the operator does counts and is not refused: no agent's limit keeps the operator
// from paying back or deciding.
//
// What a key began counts as spent with it: debits under an allowance that it has set, and the renewals of a subscription.
func (t *Tx) spend(by Actor, s spending) error {
	if err := by.mayPay(s.payee); err != nil {
		return err
	}
	if by.Operator || s.amount == 0 {
		return t.spent(by.Key, s)
	}
	limits, err := limitsOf(t.ledger, s.agent, t.Now())
	if err != nil || len(limits) == 0 {
		return err
	}
	// Until the operation is durable the amount is claimed, as that of a call is: calls that begin meanwhile find it taken.
	claim, err := claimOf(context.Background(), t.process.claims, limits, by.Key, s, t.Now)
	if err != nil || claim == nil {
		return err
	}
	t.ledger.OnUndo(claim.end)
	claim.settle(t, s.amount)
	return t.spent(by.Key, s)
}

// spent counts what has left an agent already, or leaves it by an act of the operator's. Nothing is refused.
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
		was.Spent += s.amount
		if err := t.put(spentTable.key(s.agent, l.id()), was); err != nil {
			return err
		}
	}
	return nil
}

// countsFor reports whether a limit counts the spending by a key. What was counted when an escrow was locked does not count again, but against
// the limits of keys that have not locked it.
func (s spending) countsFor(l Limit, key string) bool {
	if l.Key != "" && l.Key != key || l.Payee != "" && l.Payee != s.payee {
		return false
	}
	if s.locked == nil || s.locked.Kind == KindMeter { // a meter locks without counting
		return true
	}
	return l.Key != "" && !slices.Contains(s.locked.CountedFor, key)
}

// countedFor notes that all that remains of an escrow has counted as spent with a key of the payer.
func (e *Escrow) countedFor(key string) {
	if key != "" && !slices.Contains(e.CountedFor, key) {
		e.CountedFor = append(slices.Clone(e.CountedFor), key)
	}
}

// letGo is what an act of the payer on its escrow lets go of to the payee.
func (e *Escrow) letGo(amount ledger.Amount) spending {
	return spending{agent: e.From, payee: e.To, amount: amount, locked: e}
}
