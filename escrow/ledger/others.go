package ledger

import (
	"fmt"
	"time"
)

// maxTakenIn is the largest number of transfers of other processes that takeIn reads one by one. If there are more, it reads every
// account in memory again instead.
const maxTakenIn = 4096

// takeIn reads the transfers that other processes committed to a shared store since the last operation of this process. They change what
// is available on the accounts in memory. takeIn runs on the store's goroutine, before an operation.
func (l *Ledger) takeIn(r Reader, state stateRecord) error {
	since := l.applied
	if state.Seq == since.Seq && state.Head == since.Head {
		if state.Time != since.Time {
			l.notBefore(state)
		}
		return nil
	}
	if state.Seq <= since.Seq {
		return l.wrong(r, fmt.Errorf("its last transfer is %d, but transfer %d was read before, with another history", state.Seq, since.Seq))
	}
	if state.Seq-since.Seq > maxTakenIn {
		if err := l.memory.reload(func(id AccountID) (Account, error) { return ReadAccount(r, id) }); err != nil {
			return err
		}
		l.notBefore(state)
		return nil
	}
	head := since.Head
	for seq := since.Seq + 1; seq <= state.Seq; seq++ { // not by a scan, since a store may know these records already
		key := transferKey(seq)
		value, err := r.Get(key)
		if err == nil && value == nil {
			err = &CorruptError{Key: key, Detail: "it is missing"}
		}
		if err != nil {
			return err
		}
		t, err := decodeTransfer(key, value)
		if err != nil {
			return err
		}
		head = link(head, key, value)
		if err := l.memory.refresh(r, t.Debit); err != nil {
			return err
		}
		if err := l.memory.refresh(r, t.Credit); err != nil {
			return err
		}
	}
	if head != state.Head {
		return l.wrong(r, fmt.Errorf("the transfers %d to %d, which other processes wrote, do not match the head of the hash chain", since.Seq+1, state.Seq))
	}
	l.notBefore(state)
	return nil
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

// refresh reads again what is available on an account, if the account is in memory.
func (m *memory) refresh(r Reader, id AccountID) error {
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.places[id]
	if !ok {
		return nil
	}
	account, err := ReadAccount(r, id)
	if err == nil {
		p.available = account.Available() - p.incoming
	}
	return err
}
