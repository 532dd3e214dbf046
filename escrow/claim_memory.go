package escrow

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// memory implements Claims for a process that does not share its ledger. The things of one owner are under one lock, so that a claim of several
// things is atomic. Things that nobody has claimed take no memory.
type memory struct {
	ledger *ledger.Ledger
	seed   maphash.Seed
	shards [64]shard
	passes passes
	paid   paid
	live   live
}

// shard is the things of some owners.
type shard struct {
	mu    sync.Mutex
	taken map[Thing]taken
}

type taken struct {
	amount int64
	note   []byte
	freed  chan struct{} // closed when some of it is given back; nil: nobody waits for that
}

// newClaims returns the claims of a process on a ledger.
func newClaims(l *ledger.Ledger) Claims {
	m := newMemory(l)
	if l.IsShared() {
		return newSharedClaims(m)
	}
	return m
}

func newMemory(l *ledger.Ledger) *memory {
	m := &memory{ledger: l, seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].taken = make(map[Thing]taken)
	}
	return m
}

func (m *memory) shard(owner string) *shard {
	return &m.shards[maphash.String(m.seed, owner)%uint64(len(m.shards))]
}

// claim is a Claim in memory.
type claim struct {
	memory *memory
	of     []Bound
	own    *shard // of the things that have an owner, or of all
	common *shard // of everybody's things, where that is another one; else nil
	amount int64
	ended  bool
}

func (m *memory) claim(of []Bound) (*claim, error) {
	c := &claim{memory: m, of: of}
	owner := ""
	for _, b := range of {
		switch {
		case b.Of.Owner == "":
			c.common = m.shard("")
		case owner == "" || owner == b.Of.Owner:
			owner = b.Of.Owner
		default:
			return nil, fmt.Errorf("a claim of what is %q's and of what is %q's: they are two claims", owner, b.Of.Owner)
		}
	}
	if c.own = m.shard(owner); c.own == c.common {
		c.common = nil
	}
	return c, nil
}

func (c *claim) lock() {
	if c.common != nil {
		c.common.mu.Lock() // always the first
	}
	c.own.mu.Lock()
}

func (c *claim) unlock() {
	c.own.mu.Unlock()
	if c.common != nil {
		c.common.mu.Unlock()
	}
}

// things are those among which a thing of the claim is; they are locked.
func (c *claim) things(of Thing) map[Thing]taken {
	if of.Owner == "" && c.common != nil {
		return c.common.taken
	}
	return c.own.taken
}

// Take is [Claims]'.
func (m *memory) Take(_ context.Context, n int64, of ...Bound) (Claim, error) {
	c, err := m.claim(of)
	if err == nil {
		err = c.Extend(n)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// TakeUpTo is [Claims]'.
func (m *memory) TakeUpTo(_ context.Context, n int64, of ...Bound) (Claim, error) {
	c, err := m.claim(of)
	if err == nil {
		_, err = c.ExtendUpTo(n)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Await is [Claims]'.
func (m *memory) Await(ctx context.Context, n int64, of ...Bound) (Claim, error) {
	c, err := m.claim(of)
	if err != nil {
		return nil, err
	}
	for {
		freed, err := c.extendOrWait(n)
		if err != nil {
			return nil, err
		}
		if freed == nil {
			return c, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// extendOrWait extends the claim, or returns a channel that is closed when there may be room for that.
func (c *claim) extendOrWait(by int64) (freed <-chan struct{}, err error) {
	c.lock()
	defer c.unlock()
	err = c.extend(by)
	full, isFull := errors.AsType[*NoRoom](err)
	if !isFull {
		return nil, err
	}
	of := c.of[full.Bound].Of
	things := c.things(of)
	t := things[of]
	if t.freed == nil {
		t.freed = make(chan struct{})
		things[of] = t
	}
	return t.freed, nil
}

// TakeIn is [Claims]'.
func (m *memory) TakeIn(t *Tx, n int64, of ...Bound) (Claim, error) {
	return m.within(t, func(c *claim) error { return c.Extend(n) }, of)
}

// TakeUpToIn is [Claims]'.
func (m *memory) TakeUpToIn(t *Tx, n int64, of ...Bound) (Claim, error) {
	return m.within(t, func(c *claim) error {
		_, err := c.ExtendUpTo(n)
		return err
	}, of)
}

func (m *memory) within(t *Tx, extend func(*claim) error, of []Bound) (Claim, error) {
	c, err := m.claim(of)
	if err == nil {
		err = extend(c)
	}
	if err != nil {
		return nil, err
	}
	t.ledger.OnUndo(c.End)
	return c, c.Settle(t)
}

// Clean is [Claims]'.
func (m *memory) Clean(context.Context) error { return nil }

// TakenIn is [Claims]'.
func (m *memory) TakenIn(_ *Tx, of Thing) (int64, error) { return m.Taken(of), nil }

// Taken is [Claims]'.
func (m *memory) Taken(of Thing) int64 {
	s := m.shard(of.Owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[of].amount
}

// Amount is [Claim]'s.
func (c *claim) Amount() int64 {
	c.lock()
	defer c.unlock()
	return c.amount
}

// Extend is [Claim]'s.
func (c *claim) Extend(by int64) error {
	c.lock()
	defer c.unlock()
	return c.extend(by)
}

// extend is Extend on things that are locked.
func (c *claim) extend(by int64) error {
	tightest, room, err := c.tightest()
	if err != nil {
		return err
	}
	if by > max(0, room) { // a claim of zero always fits
		of := c.of[tightest].Of
		return &NoRoom{Bound: tightest, Room: room, Note: c.things(of)[of].note}
	}
	c.grow(by)
	return nil
}

// ExtendUpTo is [Claim]'s.
func (c *claim) ExtendUpTo(by int64) (int64, error) {
	c.lock()
	defer c.unlock()
	_, room, err := c.tightest()
	if err != nil {
		return 0, err
	}
	by = max(0, min(by, room))
	c.grow(by)
	return by, nil
}

// Room is [Claim]'s.
func (c *claim) Room() (int64, error) {
	c.lock()
	defer c.unlock()
	_, room, err := c.tightest()
	return room, err
}

// GiveBack is [Claim]'s.
func (c *claim) GiveBack(n int64) {
	c.lock()
	defer c.unlock()
	c.grow(-min(n, c.amount))
}

// Settle is [Claim]'s: until the books say what was used, it is still taken.
func (c *claim) Settle(t *Tx) error {
	t.ledger.OnCommit(c.End)
	return nil
}

// End is [Claim]'s.
func (c *claim) End() {
	c.lock()
	defer c.unlock()
	c.grow(-c.amount)
	c.ended = true
}

// tightest returns the first bound with the least room, and the room that it has. The books are read under the lock. The use of a claim is
// written into the books before the claim ends, so each use is always counted, here or in the books.
func (c *claim) tightest() (tightest int, room int64, err error) {
	switch {
	case c.ended:
		return 0, 0, errEnded
	case slices.ContainsFunc(c.of, func(b Bound) bool { return b.Left != nil }):
		return c.tightestByBooks()
	default:
		return c.tightestIn(nil)
	}
}

func (c *claim) tightestByBooks() (tightest int, room int64, err error) {
	err = c.memory.ledger.View(func(r ledger.Reader) error {
		tightest, room, err = c.tightestIn(r)
		return err
	})
	return tightest, room, err
}

func (c *claim) tightestIn(r ledger.Reader) (tightest int, room int64, err error) {
	room = math.MaxInt64
	for i, b := range c.of {
		most := b.Most
		if b.Left != nil {
			if most, err = b.Left(r); err != nil {
				return 0, 0, err
			}
		}
		here := most - c.things(b.Of)[b.Of].amount
		if b.Share {
			here = c.shareOf(b)
		}
		if here < room {
			tightest, room = i, here
		}
	}
	return tightest, room, nil
}

// shareOf returns how much more the owner of a shared thing may have, so that SharePart times the owner's whole part is left for everybody.
func (c *claim) shareOf(b Bound) int64 {
	has := c.things(b.Of)[b.Of].amount
	for _, all := range c.of {
		if all.Of == (Thing{Kind: b.Of.Kind}) {
			left := all.Most - c.things(all.Of)[all.Of].amount
			return (left - SharePart*has) / (SharePart + 1)
		}
	}
	return b.Most - has
}

var errEnded = errors.New("the claim has ended")

// grow changes how much the claim has; its things are locked.
func (c *claim) grow(by int64) {
	if by == 0 || c.ended {
		return
	}
	c.amount += by
	for _, b := range c.of {
		things := c.things(b.Of)
		t := things[b.Of]
		t.amount += by
		if by < 0 && t.freed != nil {
			close(t.freed)
			t.freed = nil
		}
		if by > 0 && b.Note != nil {
			t.note = b.Note
		}
		if t.amount == 0 {
			delete(things, b.Of)
		} else {
			things[b.Of] = t
		}
	}
}

// passes is what happens at a rate, by kind and owner.
type passes struct {
	mu    sync.Mutex
	kinds map[Kind]map[Thing]*rate.Limiter
}

const maxPassing = 10_000 // owners that are remembered at once, of each kind

// Pass is [Claims]'.
func (m *memory) Pass(of Thing, at Rate) (wait time.Duration) {
	now := time.Now()
	reservation := m.passes.limiter(of, at).ReserveN(now, 1)
	if wait = reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// Wait is [Claims]'.
func (m *memory) Wait(of Thing, at Rate) time.Duration {
	p := &m.passes
	p.mu.Lock()
	l := p.kinds[of.Kind][of]
	p.mu.Unlock()
	if l == nil {
		return 0
	}
	missing := 1 - l.Tokens()
	return max(0, time.Duration(missing/float64(at.perSecond())*float64(time.Second)))
}

// Count is [Claims]'.
func (m *memory) Count(of Thing, at Rate, n int64) {
	l, now := m.passes.limiter(of, at), time.Now()
	for most := int64(at.Burst); n > 0 && most > 0; n -= most { // a limiter takes no more than its burst at once
		l.ReserveN(now, int(min(n, most)))
	}
}

// perSecond is how often a second something may happen.
func (r Rate) perSecond() rate.Limit {
	return rate.Limit(float64(max(1, r.N)) / r.Every.Seconds())
}

func (p *passes) limiter(of Thing, at Rate) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kinds == nil {
		p.kinds = make(map[Kind]map[Thing]*rate.Limiter)
	}
	limiters := p.kinds[of.Kind]
	if limiters == nil {
		limiters = make(map[Thing]*rate.Limiter)
		p.kinds[of.Kind] = limiters
	}
	l := limiters[of]
	if l == nil {
		if len(limiters) >= maxPassing {
			maps.DeleteFunc(limiters, func(_ Thing, l *rate.Limiter) bool { return l.Tokens() >= float64(l.Burst()) }) // nothing is known of these
		}
		if len(limiters) >= maxPassing {
			clear(limiters) // if there are too many owners, all of them are forgotten
		}
		l = rate.NewLimiter(at.perSecond(), at.Burst)
		limiters[of] = l
	}
	if l.Limit() != at.perSecond() || l.Burst() != at.Burst { // the rate was changed
		l.SetLimit(at.perSecond())
		l.SetBurst(at.Burst)
	}
	return l
}

// paid is until when things are paid for, by kind.
type paid struct {
	mu    sync.Mutex
	kinds map[Kind]map[Thing]Paid
}

// Paid is [Claims]'.
func (m *memory) Paid(of Thing) Paid {
	m.paid.mu.Lock()
	defer m.paid.mu.Unlock()
	return m.paid.kinds[of.Kind][of]
}

// PayIn is [Claims]'.
func (m *memory) PayIn(t *Tx, of Thing, until Paid) error {
	t.ledger.OnCommit(func() { m.paid.pay(of, until) })
	return nil
}

func (p *paid) pay(of Thing, until Paid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kinds == nil {
		p.kinds = make(map[Kind]map[Thing]Paid)
	}
	if p.kinds[of.Kind] == nil || len(p.kinds[of.Kind]) >= maxPassing {
		p.kinds[of.Kind] = make(map[Thing]Paid)
	}
	p.kinds[of.Kind][of] = until
}

// live is what lives in the process.
type live struct {
	mu   sync.Mutex
	ends map[Living]struct{}
}

// Live is [Claims]'.
func (m *memory) Live(of Living) {
	l := &m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends == nil {
		l.ends = make(map[Living]struct{})
	}
	l.ends[of] = struct{}{}
}

// Gone is [Claims]'.
func (m *memory) Gone(of Living) {
	m.live.mu.Lock()
	defer m.live.mu.Unlock()
	delete(m.live.ends, of)
}

// EndLive is [Claims]'.
func (m *memory) EndLive() {
	m.live.mu.Lock()
	ends := slices.Collect(maps.Keys(m.live.ends))
	m.live.mu.Unlock()
	var all sync.WaitGroup
	for _, of := range ends {
		all.Go(of.EndNow)
	}
	all.Wait()
}
