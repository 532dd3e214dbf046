package ledger

import (
	"errors"
	"fmt"
	"time"
)

// Tx is one atomic operation on the books. Its transfers and its domain records are committed together, or not at all. A Tx is valid
// only while the function runs that [Do] or [Queue] calls with it, and only on that goroutine.
//
// That function may run more than once: a store may throw away a run and repeat it later. So the function must return its results, and
// must not change anything outside of the Tx: it sends nothing on channels, and sets no variables of the functions around it. Pass what
// is to happen once the operation is durable to [Tx.OnCommit].
type Tx struct {
	ledger    *Ledger
	w         Writer
	now       time.Time
	before    applied // the state before the operation
	state     stateRecord
	last      [32]byte // see applied
	dirty     bool     // something was written
	pinned    []*place
	changes   []change // changes in memory, in their order
	committed []func() // called when the operation is durable
	err       error    // an error of a method that has no error result

	session  Session   // of this process
	sessions []Session // those that are not over, if other processes share the ledger
	lacks    []lack    // what the operation had too little of, while other processes had leases of it
}

// Now returns the time of the operation in UTC. It is the same during the whole operation, and never earlier than that of an operation
// before.
func (tx *Tx) Now() time.Time { return tx.now }

// Reader returns a reader of all records, as this operation sees them.
func (tx *Tx) Reader() Reader { return tx.w }

// Get returns the value of a domain record, or nil if there is none. Its key must begin with [DomainPrefix].
func (tx *Tx) Get(key []byte) ([]byte, error) {
	if err := domainKey(key); err != nil {
		return nil, err
	}
	return tx.w.Get(key)
}

// Scan calls fn for the domain records of a range, until fn returns false or an error. It returns fn's error.
func (tx *Tx) Scan(r Range, fn func(key, value []byte) (more bool, err error)) error {
	if err := domainKey(r.From); err != nil {
		return err
	}
	if r.To == nil {
		r.To = []byte{DomainPrefix + 1}
	}
	return tx.w.Scan(r, fn)
}

// Put sets a domain record. Its key must begin with [DomainPrefix], otherwise the whole operation fails. The caller must not change key and
// value afterwards.
func (tx *Tx) Put(key, value []byte) {
	if err := domainKey(key); err != nil {
		tx.err = errors.Join(tx.err, err)
		return
	}
	tx.put(key, value)
}

// Delete removes a domain record, if there is one. The caller must not change key afterwards.
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

// Try calls fn. If fn fails, Try undoes everything that fn did in this operation, and returns fn's error. The operation may go on.
func (tx *Tx) Try(fn func() error) error {
	state, last, dirty, changes, committed, failed := tx.state, tx.last, tx.dirty, len(tx.changes), len(tx.committed), tx.err
	completed := false
	restore := func() {
		tx.rollback(changes)
		tx.state, tx.last, tx.dirty, tx.committed, tx.err = state, last, dirty, tx.committed[:committed], failed
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

// OnCommit makes the ledger call fn once the operation is durable, before [Do] returns. If the operation is refused or fails, fn is not
// called. fn must not wait for the ledger.
func (tx *Tx) OnCommit(fn func()) { tx.committed = append(tx.committed, fn) }

// OnUndo makes the ledger call fn if what the operation has done so far is undone: because the operation is refused or fails, or before it
// runs again. An operation that keeps something in memory until its end removes it by OnUndo and [Tx.OnCommit]. fn must not wait for the
// ledger.
func (tx *Tx) OnUndo(fn func()) { tx.changes = append(tx.changes, change{undo: fn}) }

// Currency returns the label of the ledger's amounts.
func (tx *Tx) Currency() string { return tx.ledger.currency }

// Account returns an account's counters as this operation sees them.
func (tx *Tx) Account(id AccountID) (Account, error) { return ReadAccount(tx.w, id) }

// Held returns how much of an account holds set aside now. What other processes have leased of it counts as held.
func (tx *Tx) Held(id AccountID) (Amount, error) {
	var others Amount
	if tx.ledger.shared {
		all, err := tx.leasesOf(id)
		if err != nil {
			return 0, err
		}
		_, others = all.split(tx.session)
	}
	s := tx.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.places[id]; ok {
		return others + p.held, nil
	}
	return others, nil
}

// Release gives back what a hold still holds, as a part of this operation. Later operations may spend the money at once; new holds may
// take it when this operation is durable. Once it is, the hold is released as by [Hold.Release].
func (tx *Tx) Release(h *Hold) error {
	tx.OnCommit(h.Release)
	amount := h.Amount()
	if amount == 0 && !tx.ledger.shared {
		return nil
	}
	account, err := tx.Account(h.id)
	if err != nil {
		return err
	}
	all, own, others, err := tx.parts(h.id, account)
	if err != nil {
		return err
	}
	s := h.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, h.id, own)
	if err != nil {
		return err
	}
	switch {
	case h.released || h.place != p:
	case tx.ledger.shared:
		tx.make(change{place: p, hold: h, held: -h.amount})
	default:
		tx.make(change{place: p, hold: h, available: -h.amount, incoming: h.amount, held: -h.amount})
	}
	if tx.ledger.shared {
		tx.fitLease(p, all, own, account.Available()-own-others)
	}
	return nil
}

// Post moves money and returns the transfer as written. The money is taken from the holds in cover first, which become smaller, and then
// from what is available and not held. Holds in cover that are released, or on another account than the debit account, are ignored.
// If the debit account has too little, Post returns a [Refusal] with [InsufficientFunds].
func (tx *Tx) Post(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Posted, 0
	return tx.move(t, cover)
}

// Pend sets money aside durably. The debit account can no longer spend it; the credit account shows it as a pending credit, and can't spend
// it yet. [Tx.Resolve] posts it or gives it back. cover works as in [Tx.Post].
func (tx *Tx) Pend(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Pending, 0
	return tx.move(t, cover)
}

// Resolve ends a pending transfer. It posts an amount between zero and the whole, and makes the rest available to the debit account again.
// kind and memo are those of the new transfers; an empty kind means the kind of the pending transfer. A transfer can be resolved only once.
// Resolve returns the transfer that posts the amount, or none if the amount is zero.
func (tx *Tx) Resolve(pending uint64, post Amount, kind, memo string) (posted Transfer, err error) {
	t, found, err := ReadTransfer(tx.w, pending)
	if err != nil {
		return Transfer{}, err
	}
	if !found || t.Phase != Pending {
		return Transfer{}, &Refusal{Outcome: PendingNotFound, Detail: fmt.Sprintf("transfer %d is not a pending transfer", pending)}
	}
	open := pendingKey(t.Reference, pending)
	marker, err := tx.w.Get(open)
	if err != nil {
		return Transfer{}, err
	}
	if marker == nil {
		return Transfer{}, &Refusal{Outcome: PendingResolved, Detail: fmt.Sprintf("pending transfer %d was resolved before", pending)}
	}
	if post < 0 || post > t.Amount {
		return Transfer{}, &Refusal{Outcome: ExceedsPending, Detail: fmt.Sprintf("%s of pending transfer %d can't be posted, its amount is %s", post, pending, t.Amount)}
	}
	rest := t.Amount - post
	t.Pending, t.Memo = pending, memo
	if kind != "" {
		t.Kind = kind
	}
	err = tx.Try(func() (err error) {
		tx.w.Delete(open)
		if post > 0 {
			t.Phase, t.Amount = PostPending, post
			if posted, err = tx.move(t, nil); err != nil {
				return err
			}
		}
		if rest > 0 {
			t.Phase, t.Amount = VoidPending, rest
			_, err = tx.move(t, nil)
		}
		return err
	})
	return posted, err
}

// Pendings returns the pending transfers with a reference that are not resolved yet, oldest first.
func (tx *Tx) Pendings(reference string) ([]Transfer, error) { return Pendings(tx.w, reference) }
