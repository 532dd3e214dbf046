package escrow

import (
	"encoding/binary"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// turns is a queue in the ledger of things that must be done at certain times. Each thing belongs to an agent, and agents take turns, so
// that an agent with many things does not keep others waiting. The things of each agent are in the order of their times. Each agent that
// has things has one turn: at the time of its first thing, or now if that time has passed. If more things of the agent are due after a
// turn, its next turn comes after those of all agents that wait already. Turns at the same time come in the order in which they were given,
// not in the order of the agents' names.
type turns struct {
	things table // agent, time and what
	byTime table // time, place among the turns at that time, and agent
	of     table // agent: the time and place of its turn
}

var (
	dueTurns    = turns{things: dueTable, byTime: dueByTime, of: dueTurnOf}
	outboxTurns = turns{things: outboxTable, byTime: outboxByTime, of: outboxTurnOf}
)

// placeLength is the length of the time and the place of a turn in its key.
const placeLength = 8 + 8

// key is the key under which a thing is stored.
func (q turns) key(owner string, at time.Time, what string) []byte {
	return q.things.key(owner, timeKey(at)+what)
}

// by moves an agent's turn to the given time, unless it comes earlier.
func (q turns) by(t *Tx, owner string, at time.Time) error {
	at = later(at, t.Now())
	has, err := t.ledger.Get(q.of.key(owner))
	if err != nil || has != nil && !keyTime(string(has)).After(at) {
		return err
	}
	return q.move(t, owner, has, at)
}

// next gives an agent its next turn, at the time of its first thing, after the agents that wait already. An agent without things gets no
// turn.
func (q turns) next(t *Tx, owner string) error {
	_, at, err := q.first(t.ledger, owner)
	if err != nil {
		return err
	}
	has, err := t.ledger.Get(q.of.key(owner))
	if err != nil {
		return err
	}
	if !at.IsZero() {
		at = later(at, t.Now())
	}
	return q.move(t, owner, has, at)
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// move deletes an agent's turn, if it has one. Unless to is zero, it gives the agent a new turn at that time, after all others at the same
// time.
func (q turns) move(t *Tx, owner string, has []byte, to time.Time) error {
	if has != nil {
		t.ledger.Delete(q.byTime.key(string(has) + owner))
	}
	if to.IsZero() {
		t.ledger.Delete(q.of.key(owner))
		return nil
	}
	place := uint64(0)
	sameTime := ledger.Prefix(q.byTime.key(timeKey(to)))
	sameTime.Reverse = true
	err := t.ledger.Scan(sameTime, func(key, _ []byte) (bool, error) {
		place = binary.BigEndian.Uint64([]byte(q.byTime.lastPart(key)[8:])) + 1
		return false, nil
	})
	if err != nil {
		return err
	}
	turn := binary.BigEndian.AppendUint64([]byte(timeKey(to)), place)
	t.ledger.Put(q.byTime.key(string(turn)+owner), []byte{})
	t.ledger.Put(q.of.key(owner), turn)
	return nil
}

// each calls see for the agents in the order of their turns, until see returns false.
func (q turns) each(r ledger.Reader, see func(owner string, at time.Time) bool) error {
	return r.Scan(q.byTime.under(), func(key, _ []byte) (bool, error) {
		turn := q.byTime.lastPart(key)
		return see(turn[placeLength:], keyTime(turn)), nil
	})
}

// first returns the first thing of an agent and its time, or the zero time if there is none.
func (q turns) first(r ledger.Reader, owner string) (what string, at time.Time, err error) {
	err = r.Scan(q.things.under(owner), func(key, _ []byte) (bool, error) {
		last := q.things.lastPart(key, owner)
		what, at = last[8:], keyTime(last)
		return false, nil
	})
	return what, at, err
}
