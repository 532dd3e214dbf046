package ledger

import (
	"fmt"
	"slices"
	"time"
)

// takeIn reads the state of the ledger before an operation. If the ledger is shared, other processes may have committed since this process's
// last operation, and may have ended its session; then takeIn fails. takeIn runs on the store's goroutine.
func (l *Ledger) takeIn(r Reader, session Session) (state stateRecord, sessions []Session, err error) {
	if state, err = readState(r); err != nil {
		return state, nil, err
	}
	since := l.applied
	if state.Seq < since.Seq || state.Seq == since.Seq && state.Head != since.Head {
		return state, nil, l.wrong(r, fmt.Errorf("its last transfer is %d, but transfer %d was read before, with another history", state.Seq, since.Seq))
	}
	if state != since {
		l.notBefore(state)
	}
	if !l.shared {
		return state, nil, nil
	}
	meta, err := readMeta(r)
	if err != nil {
		return state, nil, err
	}
	if !slices.Contains(meta.Sessions, session) {
		if doubt(r) {
			return state, nil, ErrRunAgain
		}
		return state, nil, fmt.Errorf("%w: %w", ErrUnavailable, errSessionOver)
	}
	return state, meta.Sessions, nil
}

// notBefore records the state of the ledger. Later operations never get an earlier time than the state's.
func (l *Ledger) notBefore(state stateRecord) {
	l.applied = state
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := time.Unix(0, state.Time).UTC(); at.After(l.last) {
		l.last = at
	}
}
