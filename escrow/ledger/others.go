package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// takeIn reads the state of the ledger before an operation. If the ledger is shared, other processes may have committed since this process's
// last operation, and may have ended its session; then takeIn fails. takeIn runs on the store's goroutine.
func (l *Ledger) takeIn(r Reader, session Session) (state applied, sessions []Session, err error) {
	if state.stateRecord, err = l.known.readState(r); err != nil {
		return state, nil, err
	}
	state.last = l.applied.last
	if state.stateRecord != l.applied.stateRecord {
		if state, err = l.goOn(r, state); err != nil {
			return state, nil, err
		}
		l.notBefore(state)
	}
	if !l.shared {
		return state, nil, nil
	}
	if sessions, err = l.known.readSessions(r); err != nil {
		return state, nil, err
	}
	if !slices.Contains(sessions, session) {
		if doubt(r) {
			return state, nil, ErrRunAgain
		}
		return state, nil, fmt.Errorf("%w: %w", ErrUnavailable, errSessionOver)
	}
	return state, sessions, nil
}

// decoded are the two records that each operation reads first, as they were decoded last. Most operations find them unchanged.
type decoded struct {
	state         stateRecord
	stateValue    []byte
	sessions      []Session
	sessionsValue []byte
}

func (d *decoded) readState(r Reader) (stateRecord, error) {
	value, err := r.Get(stateKey)
	if err != nil {
		return stateRecord{}, err
	}
	if value != nil && bytes.Equal(value, d.stateValue) {
		return d.state, nil
	}
	state, err := readState(r)
	if err == nil {
		d.keepState(state, bytes.Clone(value))
	}
	return state, err
}

func (d *decoded) keepState(state stateRecord, value []byte) { d.state, d.stateValue = state, value }

// readSessions returns the sessions that are not over. They must not be changed.
func (d *decoded) readSessions(r Reader) ([]Session, error) {
	value, err := r.Get(metaKey)
	if err != nil {
		return nil, err
	}
	if value != nil && bytes.Equal(value, d.sessionsValue) {
		return d.sessions, nil
	}
	meta, err := readMeta(r)
	if err == nil {
		d.sessions, d.sessionsValue = meta.Sessions, bytes.Clone(value)
	}
	return meta.Sessions, err
}

// goOn checks that the history goes on from the state that this process knows. A database that lost commits in a failover may have another
// history. What this process has read of others, and has not answered yet, may be gone: a shared store may show it before it is durable.
func (l *Ledger) goOn(r Reader, now applied) (applied, error) {
	next, finding, err := l.follows(r, l.applied, now)
	if err == nil && finding != nil && l.shared && l.answered != l.applied {
		next, finding, err = l.follows(r, l.answered, now)
	}
	if err == nil && finding != nil {
		err = l.wrong(r, finding)
	}
	return next, err
}

// follows returns a finding if the history of a state does not go on from an earlier one.
func (l *Ledger) follows(r Reader, since, now applied) (next applied, finding, err error) {
	if now.Seq < since.Seq || now.Seq == since.Seq && now.Head != since.Head {
		return now, fmt.Errorf("its last transfer is %d, but transfer %d was read before, with another history", now.Seq, since.Seq), nil
	}
	now.last = since.last
	if !l.shared || now.Seq == since.Seq {
		return now, nil, nil
	}
	before, err := sumOfTransfer(r, since.Seq)
	if err != nil {
		return now, nil, err
	}
	if before != since.last {
		return now, fmt.Errorf("transfer %d is another one than was read before: the database has lost commits", since.Seq), nil
	}
	now.last, err = sumOfTransfer(r, now.Seq)
	return now, nil, err
}

func (l *Ledger) readApplied(r Reader) (now applied, err error) {
	if now.stateRecord, err = readState(r); err == nil && l.shared {
		now.last, err = sumOfTransfer(r, now.Seq)
	}
	return now, err
}

// sumOfTransfer returns the SHA-256 of the record of a transfer. For number 0 it returns zero.
func sumOfTransfer(r Reader, seq uint64) (sum [32]byte, err error) {
	if seq == 0 {
		return sum, nil
	}
	key := transferKey(seq)
	value, err := r.Get(key)
	if err == nil && value == nil {
		err = &CorruptError{Key: key, Detail: "it is missing"}
	}
	if err != nil {
		return sum, err
	}
	return sha256.Sum256(value), nil
}

// notBefore records the state of the ledger. Later operations never get an earlier time than the state's.
func (l *Ledger) notBefore(state applied) {
	l.applied = state
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := time.Unix(0, state.Time).UTC(); at.After(l.last) {
		l.last = at
	}
}
