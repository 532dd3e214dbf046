package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// turns is work that waits in the ledger for its time, and belongs to agents who take turns: whoever has much of it keeps nobody else
// waiting. The things of each agent are in the order of their times. Each agent that has some has one turn, at the time of the first of
// them; while more of an agent's are due, its next turn is behind those of agents that wait already.
type turns struct {
	things table // agent, time and what
	byTime table // time and agent
	of     table // agent: the time of its turn
}

var (
	dueTurns    = turns{things: dueTable, byTime: dueByTime, of: dueTurnOf}
	outboxTurns = turns{things: outboxTable, byTime: outboxByTime, of: outboxTurnOf}
)

// key is the entry of a thing.
func (q turns) key(owner string, at time.Time, what string) []byte {
	return q.things.key(owner, timeKey(at)+what)
}

// by has an agent's turn come at a time, or before.
func (q turns) by(t *Tx, owner string, at time.Time) error {
	now, err := t.ledger.Get(q.of.key(owner))
	if err != nil || now != nil && string(now) <= timeKey(at) {
		return err
	}
	q.move(t, owner, string(now), timeKey(at))
	return nil
}

// next has an agent's turn come again at the time of its first thing, behind those who wait already; an agent that has nothing has none.
func (q turns) next(t *Tx, owner string) error {
	_, at, err := q.first(t.ledger, owner)
	if err != nil {
		return err
	}
	now, err := t.ledger.Get(q.of.key(owner))
	if err != nil {
		return err
	}
	to := ""
	if !at.IsZero() {
		if at.Before(t.Now()) {
			at = t.Now()
		}
		to = timeKey(at)
	}
	q.move(t, owner, string(now), to)
	return nil
}

// move moves an agent's turn from one time to another; empty: there was none, or there is to be none.
func (q turns) move(t *Tx, owner, from, to string) {
	if from != "" {
		t.ledger.Delete(q.byTime.key(from + owner))
	}
	if to == "" {
		t.ledger.Delete(q.of.key(owner))
		return
	}
	t.ledger.Put(q.byTime.key(to+owner), []byte{})
	t.ledger.Put(q.of.key(owner), []byte(to))
}

// each calls see with the agents in the order of their turns, until it returns false.
func (q turns) each(r ledger.Reader, see func(owner string, at time.Time) bool) error {
	return r.Scan(q.byTime.under(), func(key, _ []byte) (bool, error) {
		turn := q.byTime.lastPart(key)
		return see(turn[8:], keyTime(turn)), nil
	})
}

// first is the first thing of an agent, and its time; the zero time where there is none.
func (q turns) first(r ledger.Reader, owner string) (what string, at time.Time, err error) {
	err = r.Scan(q.things.under(owner), func(key, _ []byte) (bool, error) {
		last := q.things.lastPart(key, owner)
		what, at = last[8:], keyTime(last)
		return false, nil
	})
	return what, at, err
}
