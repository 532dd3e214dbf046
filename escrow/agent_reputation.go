package escrow

import (
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Reputation states facts about the closed escrows of an agent, separately as payee and as payer. Faucet money does not count. Money that two
// agents pay each other in a circle does not count either: from what A has paid to B, what B has paid to A is subtracted.
type Reputation struct {
	Agent   string
	Since   time.Time
	AsPayee Side
	AsPayer Side
}

// Side is an agent's escrows as their payee, or as their payer.
type Side struct {
	Completed      int64         `cbor:"1,keyasint,omitempty"` // escrows of which something was released
	Value          ledger.Amount `cbor:"2,keyasint,omitempty"` // released, net of what came back
	Counterparties int64         `cbor:"3,keyasint,omitempty"` // distinct
	DisputesWon    int64         `cbor:"4,keyasint,omitempty"` // it got more than half of what was divided
	DisputesLost   int64         `cbor:"5,keyasint,omitempty"`
	Closed         ledger.Amount `cbor:"6,keyasint,omitempty"` // released and refunded
	Refunded       ledger.Amount `cbor:"7,keyasint,omitempty"`
	Times          []int64       `cbor:"8,keyasint,omitempty"` // seconds from lock to close, of the last completed ones
}

const keptTimes = 51

// RefundRate is the refunded part of what was closed, from 0 to 1, at most four decimals.
func (s Side) RefundRate() decimal.Decimal {
	if s.Closed == 0 {
		return decimal.Zero
	}
	return s.Refunded.Decimal().DivRound(s.Closed.Decimal(), 4)
}

// MedianTime returns the median time from lock to close of the last completed escrows. If there are none, ok is false.
func (s Side) MedianTime() (median time.Duration, ok bool) {
	if len(s.Times) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(s.Times))
	return time.Duration(sorted[len(sorted)/2]) * time.Second, true
}

// facts are the two sides as stored.
type facts struct {
	AsPayee Side `cbor:"1,keyasint"`
	AsPayer Side `cbor:"2,keyasint"`
}

// Reputation returns an agent's.
func (b *Book) Reputation(id string) (rep Reputation, err error) {
	err = b.view(func(r ledger.Reader) error {
		agent, found, err := agentByID(r, id)
		if err != nil {
			return err
		}
		if !found {
			return refuse(NotFound, nil, "no agent %.80q", id)
		}
		var f facts
		_, err = load(r, factsTable.key(id), &f)
		rep = Reputation{Agent: id, Since: agent.CreatedAt, AsPayee: f.AsPayee, AsPayer: f.AsPayer}
		return err
	})
	return rep, err
}

// count adds a closed escrow to the facts of its parties, once.
func (t *Tx) count(e *Escrow) error {
	if e.Counted {
		return nil
	}
	e.Counted = true
	released, refunded := e.Released-e.StainedReleased, e.Refunded-e.StainedRefunded
	if e.Kind == KindHold {
		refunded = 0 // what is not captured was not earned, and was not given back either
	}
	if released+refunded == 0 {
		return nil
	}
	payer, payee, err := t.facts(e)
	if err != nil {
		return err
	}
	gained, circled, fresh, err := t.countPair(e.From, e.To, released)
	if err != nil {
		return err
	}
	for _, side := range []*Side{&payer.AsPayer, &payee.AsPayee} {
		side.Closed += released + refunded
		side.Refunded += refunded
		side.Value += gained
		if fresh {
			side.Counterparties++
		}
		if gained > 0 {
			side.Completed++
			side.Times = append(side.Times, int64(t.Now().Sub(e.CreatedAt)/time.Second))
			side.Times = side.Times[max(0, len(side.Times)-keptTimes):]
		}
	}
	payer.AsPayee.Value -= circled
	payee.AsPayer.Value -= circled
	return t.putFacts(e, payer, payee)
}

// countPair adds a release to the sum that went from one agent to another. circled is the part that only returns money which went the other
// way before, gained is the rest. fresh is true for the first gain.
func (t *Tx) countPair(payer, payee string, released ledger.Amount) (gained, circled ledger.Amount, fresh bool, err error) {
	var there, back ledger.Amount
	if _, err := load(t.ledger, pairTable.key(payer, payee), &there); err != nil {
		return 0, 0, false, err
	}
	if _, err := load(t.ledger, pairTable.key(payee, payer), &back); err != nil {
		return 0, 0, false, err
	}
	circled = min(released, max(0, back-there))
	gained = released - circled
	return gained, circled, there == 0 && gained > 0, t.put(pairTable.key(payer, payee), there+released)
}

// countDispute notes which party has won a dispute: the one that gets more of what is divided.
func (t *Tx) countDispute(e *Escrow, r Resolution) error {
	stained, err := t.stained(e.Account())
	if err != nil || e.Status != StatusDisputed || stained >= e.Remaining() || r.ToPayee == r.ToPayer {
		return err
	}
	payer, payee, err := t.facts(e)
	if err != nil {
		return err
	}
	if r.ToPayee > r.ToPayer {
		payee.AsPayee.DisputesWon++
		payer.AsPayer.DisputesLost++
	} else {
		payee.AsPayee.DisputesLost++
		payer.AsPayer.DisputesWon++
	}
	return t.putFacts(e, payer, payee)
}

func (t *Tx) facts(e *Escrow) (payer, payee facts, err error) {
	if _, err := load(t.ledger, factsTable.key(e.From), &payer); err != nil {
		return payer, payee, err
	}
	_, err = load(t.ledger, factsTable.key(e.To), &payee)
	return payer, payee, err
}

func (t *Tx) putFacts(e *Escrow, payer, payee facts) error {
	if err := t.put(factsTable.key(e.From), payer); err != nil {
		return err
	}
	return t.put(factsTable.key(e.To), payee)
}
