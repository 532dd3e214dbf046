package ledger

import (
	"fmt"
	"time"
)

// Balance returns an account as last committed, and how much of it is held now. The amounts that operations in flight take, and what other
// processes have leased, count as held. So Available minus held is the largest hold that could be made now.
func (l *Ledger) Balance(id AccountID) (account Account, held Amount, err error) {
	if l.shared {
		return l.sharedBalance(id, l.View)
	}
	s := l.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if account, err = l.committed(id); err != nil {
		return account, 0, err
	}
	if p, ok := s.places[id]; ok && !id.endless() {
		held = max(0, account.Available()-p.free())
	}
	return account, held, nil
}

// Free returns about how much of an account could be held now. If other processes share the ledger, what they did last may be missing.
func (l *Ledger) Free(id AccountID) (Amount, error) {
	balance := l.Balance
	if l.shared {
		balance = func(id AccountID) (Account, Amount, error) { return l.sharedBalance(id, l.Look) }
	}
	account, held, err := balance(id)
	return max(0, account.Available()-held), err
}

func (l *Ledger) sharedBalance(id AccountID, read func(func(Reader) error) error) (account Account, held Amount, err error) {
	err = read(func(r Reader) error {
		if account, err = ReadAccount(r, id); err != nil {
			return err
		}
		meta, err := readMeta(r)
		if err != nil {
			return err
		}
		all, err := readLeases(r, id, meta.Sessions)
		_, held = all.split(l.Session())
		return err
	})
	if err != nil {
		return account, 0, err
	}
	s := l.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.places[id]; ok {
		held += p.held
	}
	return account, min(held, max(0, account.Available())), nil
}

// Transfer returns the transfer with the number seq. If there is none, found is false.
func (l *Ledger) Transfer(seq uint64) (t Transfer, found bool, err error) {
	err = l.View(func(r Reader) error {
		t, found, err = ReadTransfer(r, seq)
		return err
	})
	return t, found, err
}

// Transfers returns up to limit transfers, oldest first, whose numbers are higher than after.
func (l *Ledger) Transfers(after uint64, limit int) (list []Transfer, err error) {
	err = l.View(func(r Reader) error {
		list, err = ReadTransfers(r, after, limit)
		return err
	})
	return list, err
}

// ReadTransfers returns up to limit transfers as r sees them, oldest first, whose numbers are higher than after.
func ReadTransfers(r Reader, after uint64, limit int) (list []Transfer, err error) {
	err = r.Scan(Range{From: transferKey(after + 1), To: []byte{transferPrefix + 1}}, func(key, value []byte) (bool, error) {
		if len(list) >= limit {
			return false, nil
		}
		t, err := decodeTransfer(key, value)
		list = append(list, t)
		return len(list) < limit, err
	})
	return list, err
}

// TransfersBefore returns how many transfers were made before a time. Their numbers are 1 to that, since transfers are in the order of their times.
func (l *Ledger) TransfersBefore(at time.Time) (n uint64, err error) {
	err = l.View(func(r Reader) error {
		state, err := readState(r)
		if err != nil {
			return err
		}
		after := state.Seq + 1 // the first transfer that was not made before the time is after n, and not after this
		for n = 0; n+1 < after; {
			middle := n + (after-n)/2
			t, found, err := ReadTransfer(r, middle)
			if err != nil {
				return err
			}
			if !found {
				return &CorruptError{Key: transferKey(middle), Detail: "it is missing"}
			}
			if t.Time.Before(at) {
				n = middle
			} else {
				after = middle
			}
		}
		return nil
	})
	return n, err
}

// Entries returns up to limit entries of an account, newest first. If before is not 0, only entries of transfers with lower numbers are
// returned.
func (l *Ledger) Entries(id AccountID, before uint64, limit int) (list []Entry, err error) {
	err = l.View(func(r Reader) error {
		list, err = entriesBefore(r, id, before, limit)
		return err
	})
	return list, err
}

func entriesBefore(r Reader, id AccountID, before uint64, limit int) (list []Entry, err error) {
	all := Prefix(listPrefix(entryPrefix, string(id)))
	all.Reverse = true
	if before > 0 {
		all.To = entryKey(id, before)
	}
	err = r.Scan(all, func(key, value []byte) (bool, error) {
		if len(list) >= limit {
			return false, nil
		}
		entry, err := decodeEntry(r, id, key, value)
		list = append(list, entry)
		return len(list) < limit, err
	})
	return list, err
}

func decodeEntry(r Reader, id AccountID, key, value []byte) (Entry, error) {
	var record entryRecord
	if err := decode(key, value, &record); err != nil {
		return Entry{}, err
	}
	seq, err := lastSeq(key)
	if err != nil {
		return Entry{}, err
	}
	t, found, err := ReadTransfer(r, seq)
	if err != nil {
		return Entry{}, err
	}
	if !found {
		return Entry{}, &CorruptError{Key: key, Detail: fmt.Sprintf("its transfer %d is missing", seq)}
	}
	e := Entry{
		Seq: seq, Kind: t.Kind, Amount: t.Amount, BalanceAfter: record.BalanceAfter, Counterparty: t.Debit,
		Reference: t.Reference, Memo: t.Memo, Time: t.Time,
	}
	if t.Debit == id {
		e.Amount, e.Counterparty = -t.Amount, t.Credit
	}
	return e, nil
}

// Pendings returns the pending transfers with a reference that are not resolved yet, oldest first.
func Pendings(r Reader, reference string) ([]Transfer, error) {
	var list []Transfer
	err := r.Scan(Prefix(listPrefix(pendingPrefix, reference)), func(key, _ []byte) (bool, error) {
		seq, err := lastSeq(key)
		if err != nil {
			return false, err
		}
		t, found, err := ReadTransfer(r, seq)
		if err == nil && !found {
			err = &CorruptError{Key: key, Detail: fmt.Sprintf("its transfer %d is missing", seq)}
		}
		list = append(list, t)
		return true, err
	})
	return list, err
}

func readState(r Reader) (state stateRecord, err error) {
	value, err := r.Get(stateKey)
	if err != nil || value == nil {
		return state, err
	}
	return state, decode(stateKey, value, &state)
}

// Head is the head of the hash chain after the last transfer of a day.
type Head struct {
	Day  string // the day in UTC, such as 2026-11-24
	Seq  uint64 // the number of the day's last transfer
	Hash [32]byte
}

type headRecord struct {
	Seq  uint64   `cbor:"1,keyasint"`
	Head [32]byte `cbor:"2,keyasint"`
}

func headKey(day string) []byte { return append([]byte{headPrefix}, day...) }

func decodeHead(key, value []byte) (Head, error) {
	var record headRecord
	err := decode(key, value, &record)
	return Head{Day: string(key[1:]), Seq: record.Seq, Hash: record.Head}, err
}

// Stand is the current state of the ledger.
type Stand struct {
	Transfers uint64    // the number of transfers, and the number of the last one
	Time      time.Time // the time of the last operation
	Head      Head      // the current head of the hash chain
}

// Stand returns the current state of the ledger, as last committed.
func (l *Ledger) Stand() (stand Stand, err error) {
	err = l.View(func(r Reader) error {
		state, err := readState(r)
		if err != nil {
			return err
		}
		stand = state.stand()
		return nil
	})
	return stand, err
}

func (s stateRecord) stand() Stand {
	return Stand{Transfers: s.Seq, Time: time.Unix(0, s.Time).UTC(), Head: Head{Day: s.Day, Seq: s.Seq, Hash: s.Head}}
}
