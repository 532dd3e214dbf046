package ledger

import (
	"hash/maphash"
	"sync"
	"time"
)

// memory is shared by the holds and the writer. For each account with a hold, or with an operation in flight, it knows the amount that
// this process may spend and how much of that is held. If other processes share the ledger, that amount is the process's lease, and
// memory also knows the accounts that have one. Other accounts are not in it, so it does not grow with the number of accounts.
type memory struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	shared bool // with other processes
	mu     sync.Mutex
	places map[AccountID]*place
}

// place is one account in memory. The lock of its shard guards it, except for the fields that only the writer uses.
type place struct {
	shard     *shard
	id        AccountID
	available Amount // what this process may spend, as committed, minus what operations in flight take from it: see [Ledger.own]
	held      Amount
	pins      int  // the number of holds, and of operations in flight that change the account
	gone      bool // the session is over in which the place was made

	use  Demand        // of a lease
	used time.Duration // by the monotonic clock: when a lease was last used

	// Only the writer uses the next two.
	incoming Amount // what operations in flight bring in: later operations may spend it; holds may use it only after the commit
	pinnedBy *Tx    // the last operation that pinned the account
}

func newMemory(shared bool) *memory {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].places = make(map[AccountID]*place)
		m.shards[i].shared = shared
	}
	return m
}

func (m *memory) shard(id AccountID) *shard {
	return &m.shards[maphash.String(m.seed, string(id))%uint64(len(m.shards))]
}

// place returns the account's place. If there is none, it makes one for the amount that own returns. The shard must be locked. An operation
// pins each account under this lock before it changes it, so an account without a place is as it was committed. A process that shares the
// ledger has a place for each of its leases, so without one the amount is zero.
func (s *shard) place(id AccountID, own func() (Amount, error)) (p *place, err error) {
	if p, ok := s.places[id]; ok {
		return p, nil
	}
	p = &place{shard: s, id: id}
	if !s.shared {
		if p.available, err = own(); err != nil {
			return nil, err
		}
	}
	s.places[id] = p
	return p, nil
}

// tidy removes the place when nothing needs it. The shard must be locked. Places of leases are removed when they were idle for some time.
func (p *place) tidy() {
	if p.held == 0 && p.pins == 0 && !p.shard.shared {
		delete(p.shard.places, p.id)
	}
}

// reload reads again what this process may spend of each account that has a place. It must be called when no operation is in flight.
func (m *memory) reload(own func(AccountID) (Amount, error)) error {
	for i := range m.shards {
		if err := m.shards[i].reload(own); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) reload(own func(AccountID) (Amount, error)) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.places {
		if p.available, err = own(id); err != nil {
			return err
		}
		p.incoming = 0
	}
	return nil
}

// forget makes the memory empty, since the session is over. It must be called when no operation is in flight.
func (m *memory) forget() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, p := range s.places {
			p.gone = true
		}
		clear(s.places)
		s.mu.Unlock()
	}
}

// free returns what holds may take.
func (p *place) free() Amount { return p.available - p.held }

// unheld returns what operations may take; used by the writer only.
func (p *place) unheld() Amount { return p.available + p.incoming - p.held }

// Hold sets money of one account aside in memory; card payments call this an authorisation. Only a transfer that names the hold as its
// cover can take the money. Holds are lost when the process ends, and on a shared store also when the session is over. The methods may be
// called from any goroutine.
type Hold struct {
	ledger   *Ledger
	id       AccountID
	shard    *shard
	place    *place
	amount   Amount
	lost     Amount
	released bool
}

// lock locks the hold's shard, which the caller unlocks. If the session is over in which the hold was made, the hold has nothing from now on,
// but can be extended.
func (h *Hold) lock() {
	h.shard.mu.Lock()
	if h.place.gone && !h.released {
		h.lost += h.amount
		h.amount = 0
		h.place, _ = h.shard.place(h.id, nil) // a place that is gone is that of a lease
		h.place.pins++
	}
}

// GiveBack makes an amount available again, at most what is held. The hold goes on, and can be extended again.
func (h *Hold) GiveBack(amount Amount) {
	h.lock()
	defer h.shard.mu.Unlock()
	if !h.released {
		h.grow(-max(0, min(amount, h.amount)))
	}
}

// Hold sets an amount of an account aside. If less is available, it returns a [Refusal] with the outcome [InsufficientFunds] and the fields
// "required" and "available". A hold of zero is allowed, and can be extended. Nothing is written, unless other processes share the ledger
// and this one has leased too little of the account.
func (l *Ledger) Hold(id AccountID, amount Amount) (*Hold, error) {
	if !id.valid() || id.endless() || amount < 0 {
		return nil, &Refusal{Outcome: InvalidTransfer, Detail: "can't hold " + amount.String() + " of " + string(id)}
	}
	if err := l.mayHold(); err != nil {
		return nil, err
	}
	s := l.memory.shard(id)
	h := &Hold{ledger: l, id: id, shard: s}
	s.mu.Lock()
	p, err := s.place(id, func() (Amount, error) { return l.own(id) })
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	h.place = p
	p.pins++ // for the hold itself, so that a hold of zero keeps its place too
	free := p.free()
	if amount <= free {
		h.grow(amount)
		s.mu.Unlock()
		return h, nil
	}
	s.mu.Unlock()
	if err := h.reach(amount, free); err != nil {
		h.Release()
		return nil, err
	}
	return h, nil
}

// Account returns the account whose money is held.
func (h *Hold) Account() AccountID { return h.id }

// Amount returns how much is held now. Each transfer that the hold covers makes it smaller.
func (h *Hold) Amount() Amount {
	h.lock()
	defer h.shard.mu.Unlock()
	return h.amount
}

// Lost returns how much the hold has lost since the last call of Lost, because the session was over.
func (h *Hold) Lost() (lost Amount) {
	h.lock()
	defer h.shard.mu.Unlock()
	lost, h.lost = h.lost, 0
	return lost
}

// Extend sets a further amount aside. If less is available, it changes nothing and returns a [Refusal] with [InsufficientFunds].
func (h *Hold) Extend(by Amount) error {
	if err := h.ledger.mayHold(); err != nil {
		return err
	}
	h.lock()
	if by < 0 || h.released {
		h.shard.mu.Unlock()
		return &Refusal{Outcome: InvalidTransfer, Detail: "can't extend a released hold, or by less than zero"}
	}
	free := h.place.free()
	if by <= free {
		h.grow(by)
	}
	h.shard.mu.Unlock()
	if by <= free {
		return nil
	}
	return h.reach(by, free)
}

// reach extends the hold although free, what this process may spend, is too little.
func (h *Hold) reach(by, free Amount) error {
	if h.shard.shared {
		got, err := h.extendByLease(wanted{by: by, recall: true})
		if err != nil || got.amount == by {
			return err
		}
		free = got.free
	}
	return refuseFunds(h.id, by, free)
}

// ExtendUpTo sets a further amount aside, or as much of it as is available. It returns how much it set aside. What other processes have
// leased is not available.
func (h *Hold) ExtendUpTo(by Amount) Amount { return h.extendUpTo(wanted{by: by, part: true}) }

// Gather is like ExtendUpTo, but asks other processes for what they have leased, if too little is available without it.
func (h *Hold) Gather(by Amount) Amount {
	return h.extendUpTo(wanted{by: by, part: true, recall: true})
}

func (h *Hold) extendUpTo(w wanted) Amount {
	if w.by <= 0 || h.ledger.mayHold() != nil {
		return 0
	}
	if got := h.extendWithin(w.by); got > 0 || !h.shard.shared {
		return got
	}
	got, err := h.extendByLease(w)
	if err != nil {
		return 0
	}
	return got.amount
}

// extendWithin extends the hold by what this process may spend. If it shares the ledger, and that is less than by, it does nothing.
func (h *Hold) extendWithin(by Amount) Amount {
	h.lock()
	defer h.shard.mu.Unlock()
	if h.released {
		return 0
	}
	free := max(0, h.place.free())
	if free < by && h.shard.shared {
		return 0
	}
	by = min(by, free)
	h.grow(by)
	return by
}

// Release gives back what is still held. A second Release does nothing.
func (h *Hold) Release() {
	h.lock()
	defer h.shard.mu.Unlock()
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
	if h.shard.shared {
		now := h.ledger.elapsed()
		h.place.used = now
		if by > 0 {
			h.place.use.Note(int64(by), now)
		}
	}
}
