package ledger

import (
	"hash/maphash"
	"sync"
)

// memory is what stands between holds and the writer: for each account that has a hold or a change in flight, what is available
// as last applied, and how much of that is held. An account with neither has no place here, so memory does not grow with the
// number of accounts.
type memory struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu     sync.Mutex
	places map[AccountID]*place
}

// place is one account in memory; its shard's lock guards it, but for what is the writer's own.
type place struct {
	shard     *shard
	id        AccountID
	available Amount // balance less pending debits, as committed, less what operations in flight take of it
	held      Amount
	pins      int // holds, and operations in flight that change the account

	// The next two are the writer's own.
	incoming Amount // what operations in flight bring in: other operations may spend it, holds rely on it when it is committed
	pinnedBy *Tx    // the last operation that pinned it
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

// place returns the account's place, made from what load says where there is none; the shard must be locked. Since whoever
// changes an account pins it under this lock first, an account without a place is as it was committed.
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

// tidy forgets the place when nothing needs it; the shard must be locked.
func (p *place) tidy() {
	if p.held == 0 && p.pins == 0 {
		delete(p.shard.places, p.id)
	}
}

// reload reads again what is available on each account that has a place. No operation is in flight.
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

// free is what the account has available beyond all holds.
func (p *place) free() Amount { return p.available - p.held }

// Hold is money of one account set aside in memory: an authorisation. No transfer can take it but one that it covers. It is
// gone with the process. Its methods may be called from any goroutine.
type Hold struct {
	ledger   *Ledger
	place    *place
	amount   Amount
	released bool
}

// GiveBack gives a part of what is held back, or all of it, and goes on.
func (h *Hold) GiveBack(amount Amount) {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	if !h.released {
		h.grow(-max(0, min(amount, h.amount)))
	}
}

// Hold sets an amount aside, or refuses with [InsufficientFunds] and the fields required and available. Nothing is written. A hold
// of zero is fine and can be extended.
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
	p, err := s.place(id, func() (Account, error) { return l.committed(id) })
	if err != nil {
		return nil, err
	}
	if amount > p.free() {
		p.tidy()
		return nil, refuseFunds(id, amount, p.free())
	}
	p.held += amount
	p.pins++ // the hold itself: a hold of zero keeps its place
	return &Hold{ledger: l, place: p, amount: amount}, nil
}

// Account returns the account that the hold is on.
func (h *Hold) Account() AccountID { return h.place.id }

// Amount returns what is held now: transfers that the hold covers shrink it.
func (h *Hold) Amount() Amount {
	h.place.shard.mu.Lock()
	defer h.place.shard.mu.Unlock()
	return h.amount
}

// Extend sets a further amount aside, or refuses with [InsufficientFunds] and changes nothing.
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

// ExtendUpTo sets a further amount aside, or as much of it as is available, and returns how much that was.
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

// Release gives back what is still held. Releasing again does nothing.
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
