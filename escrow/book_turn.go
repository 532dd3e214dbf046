package escrow

import (
	"encoding/binary"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// turns is work that waits in the ledger for its time, and belongs to agents who take turns: whoever has much of it keeps nobody else
// waiting. The things of each agent are in the order of their times. Each agent that has some has one turn, at the time of the first of
// them, or now if that has passed. While more of an agent's are due, its next turn is behind those of the agents that wait already. Among
// turns at one time, the one that was given first comes first, so that no agent comes earlier by its name.
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

// key is the entry of a thing.
func (q turns) key(owner string, at time.Time, what string) []byte {
	return q.things.key(owner, timeKey(at)+what)
}

// by has an agent's turn come at a time, or before.
func (q turns) by(t *Tx, owner string, at time.Time) error {
	at = later(at, t.Now())
	has, err := t.ledger.Get(q.of.key(owner))
	if err != nil || has != nil && !keyTime(string(has)).After(at) {
		return err
	}
	return q.move(t, owner, has, at)
}

// next has an agent's turn come again at the time of its first thing, behind those who wait already; an agent that has nothing has none.
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

// move takes an agent's turn away, if it has one, and gives it the last one at another time, unless that is zero.
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

// each calls see with the agents in the order of their turns, until it returns false.
func (q turns) each(r ledger.Reader, see func(owner string, at time.Time) bool) error {
	return r.Scan(q.byTime.under(), func(key, _ []byte) (bool, error) {
		turn := q.byTime.lastPart(key)
		return see(turn[placeLength:], keyTime(turn)), nil
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
