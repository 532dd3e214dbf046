package ledger

import (
	"hash/maphash"
	"sync"
)

// memory is shared by the holds and the writer. For each account with a hold, or with an operation in flight, it knows the amount that
// is available and how much of that is held. Other accounts are not in it, so it does not grow with the number of accounts.
type memory struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu     sync.Mutex
	places map[AccountID]*place
}

// place is one account in memory. The lock of its shard guards it, except for the fields that only the writer uses.
type place struct {
	shard     *shard
	id        AccountID
	available Amount // balance minus pending debits, as committed, minus what operations in flight take from it
	held      Amount
	pins      int // the number of holds, and of operations in flight that change the account

	// Only the writer uses the next two.
	incoming Amount // what operations in flight bring in: later operations may spend it; holds may use it only after the commit
	pinnedBy *Tx    // the last operation that pinned the account
}

func newMemory() *memory {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].places = make(map[AccountID]*place)
	}
	return m
}

func (m *memory) shard(id AccountID) *shard {
	return &m.shards[maphash.String(m.seed, string(id))%uint64(len(m.shards))]
}

// place returns the account's place. If there is none, it makes one from the account that load returns. The shard must be locked. An
// operation pins each account under this lock before it changes it, so an account without a place is as it was committed.
func (s *shard) place(id AccountID, load func() (Account, error)) (*place, error) {
	if p, ok := s.places[id]; ok {
		return p, nil
	}
	account, err := load()
	if err != nil {
		return nil, err
	}
	p := &place{shard: s, id: id, available: account.Available()}
	s.places[id] = p
	return p, nil
}

// tidy removes the place when nothing needs it. The shard must be locked.
func (p *place) tidy() {
	if p.held == 0 && p.pins == 0 {
		delete(p.shard.places, p.id)
	}
}

// reload reads again what is available on each account that has a place. It must be called when no operation is in flight.
func (m *memory) reload(load func(AccountID) (Account, error)) error {
	for i := range m.shards {
		if err := m.shards[i].reload(load); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) reload(load func(AccountID) (Account, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.places {
		account, err := load(id)
		if err != nil {
			return err
		}
		p.available, p.incoming = account.Available(), 0
	}
	return nil
}

// free returns what is available and not held.
func (p *place) free() Amount { return p.available - p.held }

// Hold sets money of one account aside in memory; card payments call this an authorisation. Only a transfer that names the hold as its
// cover can take the money. Holds are lost when the process ends. The methods may be called from any goroutine.
type Hold struct {
	ledger   *Ledger
	place    *place
	amount   Amount
	released bool
}

// GiveBack makes an amount available again, at most what is held. The hold goes on, and can be extended again.
func (h *Hold) GiveBack(amount Amount) {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	if !h.released {
		h.grow(-max(0, min(amount, h.amount)))
	}
}

// Hold sets an amount of an account aside, without writing anything. If less is available, it returns a [Refusal] with the outcome
// [InsufficientFunds] and the fields "required" and "available". A hold of zero is allowed, and can be extended.
func (l *Ledger) Hold(id AccountID, amount Amount) (*Hold, error) {
	if !id.valid() || id.endless() || amount < 0 {
		return nil, &Refusal{Outcome: InvalidTransfer, Detail: "can't hold " + amount.String() + " of " + string(id)}
	}
	if err := l.failure(); err != nil {
		return nil, err
	}
	s := l.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.place(id, func() (Account, error) { return l.recent(id) })
	if err != nil {
		return nil, err
	}
	if amount > p.free() {
		p.tidy()
		return nil, refuseFunds(id, amount, p.free())
	}
	p.held += amount
	p.pins++ // for the hold itself, so that a hold of zero keeps its place too
	return &Hold{ledger: l, place: p, amount: amount}, nil
}

// Account returns the account whose money is held.
func (h *Hold) Account() AccountID { return h.place.id }

// Amount returns how much is held now. Each transfer that the hold covers makes it smaller.
func (h *Hold) Amount() Amount {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	return h.amount
}

// Extend sets a further amount aside. If less is available, it changes nothing and returns a [Refusal] with [InsufficientFunds].
func (h *Hold) Extend(by Amount) error {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	if err := h.ledger.failure(); err != nil {
		return err
	}
	if by < 0 || h.released {
		return &Refusal{Outcome: InvalidTransfer, Detail: "can't extend a released hold, or by less than zero"}
	}
	if by > h.place.free() {
		return refuseFunds(h.place.id, by, h.place.free())
	}
	h.grow(by)
	return nil
}

// ExtendUpTo sets a further amount aside, or as much of it as is available. It returns how much it set aside.
func (h *Hold) ExtendUpTo(by Amount) Amount {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	if h.released || h.ledger.failure() != nil {
		return 0
	}
	by = max(0, min(by, h.place.free()))
	h.grow(by)
	return by
}

// Release gives back what is still held. A second Release does nothing.
func (h *Hold) Release() {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	if h.released {
		return
	}
	h.grow(-h.amount)
	h.released = true
	h.place.pins--
	h.place.tidy()
}

// grow changes the hold's amount; the shard must be locked.
func (h *Hold) grow(by Amount) {
	h.amount += by
	h.place.held += by
}
