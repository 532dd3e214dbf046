package ledger

import (
	"errors"
	"fmt"
	"time"
)

// Batch is one atomic operation on the books: money, and the records that packages above keep beside it, move together or not at
// all. It is valid while the function that it was given to runs, for that goroutine alone.
type Batch struct {
	ledger  *Ledger
	w       Writer
	now     time.Time
	state   stateRecord
	dirty   bool // something was written
	touches map[AccountID]*touch
	undo    []func()
	err     error // of a method that returns none
}

// touch is what this batch did to one account's place in memory.
type touch struct {
	place  *place
	credit Amount // what the batch added to the account's available: others see it when the batch has succeeded
}

// Now is the time of the whole batch: UTC, and never before that of an earlier one.
func (b *Batch) Now() time.Time { return b.now }

// Seq is the number of the last transfer, this batch's own included.
func (b *Batch) Seq() uint64 { return b.state.Seq }

// Get returns a domain record, nil where there is none.
func (b *Batch) Get(key []byte) ([]byte, error) {
	if err := domainKey(key); err != nil {
		return nil, err
	}
	return b.w.Get(key)
}

// Scan calls fn for the domain records of a range until fn says that it wants no more, or fails.
func (b *Batch) Scan(r Range, fn func(key, value []byte) (more bool, err error)) error {
	if err := domainKey(r.From); err != nil {
		return err
	}
	if r.To == nil {
		r.To = []byte{DomainPrefix + 1}
	}
	return b.w.Scan(r, fn)
}

// Put sets a domain record. Its key begins with [DomainPrefix]; with any other the whole batch fails. key and value must not be changed
// from then on.
func (b *Batch) Put(key, value []byte) {
	if err := domainKey(key); err != nil {
		b.err = errors.Join(b.err, err)
		return
	}
	b.put(key, value)
}

// Delete removes a domain record, if there is one. key must not be changed from then on.
func (b *Batch) Delete(key []byte) {
	if err := domainKey(key); err != nil {
		b.err = errors.Join(b.err, err)
		return
	}
	b.dirty = true
	b.w.Delete(key)
}

func (b *Batch) put(key, value []byte) {
	b.dirty = true
	b.w.Put(key, value)
}

// maxKey bounds domain keys, in bytes.
const maxKey = 4 * maxName

func domainKey(key []byte) error {
	if len(key) == 0 || key[0] != DomainPrefix || len(key) > maxKey {
		return fmt.Errorf("domain record %.80q: its key must begin with %q and be at most %d bytes long", key, DomainPrefix, maxKey)
	}
	return nil
}

// Try runs fn; where it fails, all that it did in this batch is undone and its error returned: the batch itself may go on.
func (b *Batch) Try(fn func() error) error {
	state, dirty, mark, failed := b.state, b.dirty, len(b.undo), b.err
	completed := false
	restore := func() {
		b.rollback(mark)
		b.state, b.dirty, b.err = state, dirty, failed
	}
	defer func() {
		if !completed { // fn panicked
			restore()
		}
	}()
	err := b.w.Try(func() error {
		if err := fn(); err != nil {
			return err
		}
		return b.err
	})
	completed = true
	if err != nil {
		restore()
	}
	return err
}

func (b *Batch) rollback(mark int) {
	for i := len(b.undo) - 1; i >= mark; i-- {
		b.undo[i]()
	}
	b.undo = b.undo[:mark]
}

// Account returns an account's counters as this batch sees them.
func (b *Batch) Account(id AccountID) (Account, error) { return ReadAccount(b.w, id) }

// Held returns how much of an account is set aside by holds at this moment.
func (b *Batch) Held(id AccountID) Amount {
	s := b.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.places[id]; ok {
		return p.held
	}
	return 0
}

// Post moves money at once and returns the transfer as written. The debit account must have available what is not held by
// others. What cover holds on the debit account pays first, and shrinks by it: released holds and those on other accounts are
// passed over.
func (b *Batch) Post(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Posted, 0
	return b.move(t, cover)
}

// Pend sets money aside durably: it counts against what the debit account has available, and shows as pending credit of the other
// account, which can't spend it. [Batch.Resolve] ends it. Covers are as with [Batch.Post].
func (b *Batch) Pend(t Transfer, cover ...*Hold) (Transfer, error) {
	t.Phase, t.Pending = Pending, 0
	return b.move(t, cover)
}

// Resolve ends a pending transfer, once: it posts an amount between zero and all of it, and makes the rest available again. kind and memo are
// those of the transfers that do so; an empty kind is the pending transfer's own. It needs no funds.
func (b *Batch) Resolve(pending uint64, post Amount, kind, memo string) error {
	t, found, err := readTransfer(b.w, pending)
	if err != nil {
		return err
	}
	if !found || t.Phase != Pending {
		return &Refusal{Outcome: PendingNotFound, Detail: fmt.Sprintf("transfer %d is not a pending one", pending)}
	}
	open := pendingKey(t.Reference, pending)
	marker, err := b.w.Get(open)
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
	return b.Try(func() error {
		b.w.Delete(open)
		for _, part := range []struct {
			phase  Phase
			amount Amount
		}{{PostPending, post}, {VoidPending, rest}} {
			if part.amount == 0 {
				continue
			}
			t.Phase, t.Amount = part.phase, part.amount
			if _, err := b.move(t, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pendings returns the pending transfers of a reference that are not resolved, oldest first.
func (b *Batch) Pendings(reference string) ([]Transfer, error) { return Pendings(b.w, reference) }

// publish lets holds rely on what the batch earned.
func (b *Batch) publish() {
	for _, t := range b.touches {
		if t.credit == 0 {
			continue
		}
		t.place.shard.mu.Lock()
		t.place.available += t.credit
		t.place.shard.mu.Unlock()
	}
}

// unpin lets go of the accounts when the batch is committed or dropped.
func (b *Batch) unpin() {
	for _, t := range b.touches {
		t.place.shard.mu.Lock()
		t.place.pins--
		t.place.tidy()
		t.place.shard.mu.Unlock()
	}
}
