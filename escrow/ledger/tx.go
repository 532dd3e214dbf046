package ledger

import (
	"errors"
	"fmt"
	"time"
)

// Tx is one atomic operation on the books: money, and the records that packages above keep beside it, move together or not at all. It
// is valid while the function that it was given to runs, for that goroutine alone.
//
// That function may run more than once: a store may throw a run away and do it again, after others. So it returns what it comes to, and
// leaves everything else as it is: it sends nothing, and changes no variable of the functions around it. What is to happen outside of the
// books once the operation is durable it gives to [Tx.OnCommit].
type Tx struct {
	ledger    *Ledger
	w         Writer
	now       time.Time
	before    stateRecord // where the ledger stood
	state     stateRecord
	dirty     bool // something was written
	pinned    []*place
	changes   []change // in memory, in their order
	committed []func() // to be called when the operation is durable
	err       error    // of a method that returns none
}

// Now is the time of the whole operation: UTC, and never before that of an earlier one.
func (tx *Tx) Now() time.Time { return tx.now }

// Get returns a domain record, nil where there is none.
func (tx *Tx) Get(key []byte) ([]byte, error) {
	if err := domainKey(key); err != nil {
		return nil, err
	}
	return tx.w.Get(key)
}

// Scan calls fn for the domain records of a range until fn says that it wants no more, or fails.
func (tx *Tx) Scan(r Range, fn func(key, value []byte) (more bool, err error)) error {
	if err := domainKey(r.From); err != nil {
		return err
	}
	if r.To == nil {
		r.To = []byte{DomainPrefix + 1}
	}
	return tx.w.Scan(r, fn)
}

// Put sets a domain record. Its key begins with [DomainPrefix]; with any other the whole operation fails. key and value must not be changed
// from then on.
func (tx *Tx) Put(key, value []byte) {
	if err := domainKey(key); err != nil {
		tx.err = errors.Join(tx.err, err)
		return
	}
	tx.put(key, value)
}

// Delete removes a domain record, if there is one. key must not be changed from then on.
func (tx *Tx) Delete(key []byte) {
	if err := domainKey(key); err != nil {
		tx.err = errors.Join(tx.err, err)
		return
	}
	tx.dirty = true
	tx.w.Delete(key)
}

func (tx *Tx) put(key, value []byte) {
	tx.dirty = true
	tx.w.Put(key, value)
}

// maxKey bounds domain keys, in bytes.
const maxKey = 4 * maxName

func domainKey(key []byte) error {
	if len(key) == 0 || key[0] != DomainPrefix || len(key) > maxKey {
		return fmt.Errorf("domain record %.80q: its key must begin with %q and be at most %d bytes long", key, DomainPrefix, maxKey)
	}
	return nil
}

// Try runs fn; where it fails, all that it did in this operation is undone and its error returned: the operation itself may go on.
func (tx *Tx) Try(fn func() error) error {
	state, dirty, changes, committed, failed := tx.state, tx.dirty, len(tx.changes), len(tx.committed), tx.err
	completed := false
	restore := func() {
		tx.rollback(changes)
		tx.state, tx.dirty, tx.committed, tx.err = state, dirty, tx.committed[:committed], failed
	}
	defer func() {
		if !completed { // fn panicked
			restore()
		}
	}()
	err := tx.w.Try(func() error {
		if err := fn(); err != nil {
			return err
		}
		return tx.err
	})
	completed = true
	if err != nil {
		restore()
	}
	return err
}

// OnCommit has fn called when the operation is durable, before anybody is told so; never, where it is refused or fails. fn must not
// wait for the ledger.
func (tx *Tx) OnCommit(fn func()) { tx.committed = append(tx.committed, fn) }

// OnUndo has fn called if what the operation has done so far is undone: where it is refused or fails, and before it runs again. With
// [Tx.OnCommit] it ends what the operation keeps in memory until its end. fn must not wait for the ledger.
func (tx *Tx) OnUndo(fn func()) { tx.changes = append(tx.changes, change{undo: fn}) }

// Currency is the label of the ledger's amounts.
func (tx *Tx) Currency() string { return tx.ledger.currency }

// Account returns an account's counters as this operation sees them.
func (tx *Tx) Account(id AccountID) (Account, error) { return ReadAccount(tx.w, id) }

// Held returns how much of an account is set aside by holds at this moment.
func (tx *Tx) Held(id AccountID) Amount {
	s := tx.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.places[id]; ok {
		return p.held
	}
	return 0
}

// Release gives back what a hold still holds, as a part of this operation: the operations after this one find it free at once, new holds
// when this one is durable. Then the hold is released as by [Hold.Release].
func (tx *Tx) Release(h *Hold) error {
	tx.OnCommit(h.Release)
	if h.Amount() == 0 {
		return nil
	}
	account, err := tx.Account(h.place.id)
	if err != nil {
		return err
	}
	s := h.place.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, h.place.id, account)
	if err != nil {
		return err
	}
	if !h.released {
		tx.make(change{place: p, hold: h, available: -h.amount, incoming: h.amount, held: -h.amount})
	}
	return nil
}

// Post moves money at once and returns the transfer as written. The debit account must have available what is not held by
// others. What cover holds on the debit account pays first, and shrinks by it: released holds and those on other accounts are
// passed over.
func (tx *Tx) Post(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Posted, 0
	return tx.move(t, cover)
}

// Pend sets money aside durably: it counts against what the debit account has available, and shows as pending credit of the other
// account, which can't spend it. [Tx.Resolve] ends it. Covers are as with [Tx.Post].
func (tx *Tx) Pend(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Pending, 0
	return tx.move(t, cover)
}

// Resolve ends a pending transfer, once: it posts an amount between zero and all of it, and makes the rest available again. kind and memo are
// those of the transfers that do so; an empty kind is the pending transfer's own. It needs no funds.
func (tx *Tx) Resolve(pending uint64, post Amount, kind, memo string) error {
	t, found, err := readTransfer(tx.w, pending)
	if err != nil {
		return err
	}
	if !found || t.Phase != Pending {
		return &Refusal{Outcome: PendingNotFound, Detail: fmt.Sprintf("transfer %d is not a pending one", pending)}
	}
	open := pendingKey(t.Reference, pending)
	marker, err := tx.w.Get(open)
	if err != nil {
		return err
	}
	if marker == nil {
		return &Refusal{Outcome: PendingResolved, Detail: fmt.Sprintf("pending transfer %d was resolved before", pending)}
	}
	if post < 0 || post > t.Amount {
		return &Refusal{Outcome: ExceedsPending, Detail: fmt.Sprintf("%s of pending transfer %d can't be posted, it is of %s", post, pending, t.Amount)}
	}
	rest := t.Amount - post
	t.Pending, t.Memo = pending, memo
	if kind != "" {
		t.Kind = kind
	}
	return tx.Try(func() error {
		tx.w.Delete(open)
		for _, part := range []struct {
			phase  Phase
			amount Amount
		}{{PostPending, post}, {VoidPending, rest}} {
			if part.amount == 0 {
				continue
			}
			t.Phase, t.Amount = part.phase, part.amount
			if _, err := tx.move(t, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pendings returns the pending transfers of a reference that are not resolved, oldest first.
func (tx *Tx) Pendings(reference string) ([]Transfer, error) { return Pendings(tx.w, reference) }
