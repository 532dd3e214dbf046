package escrow

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// sharedClaims implements Claims for a process that shares its ledger with others. What counts for all of them is in the books, in one record
// for each thing, so that claims and the use of what was claimed are in one order. Everything else is in memory.
//
// Memory also knows what the claims of this process have taken of each thing, and each operation writes that sum, not a difference. So the books
// become right again after a commit whose outcome was unknown, or when something could not be given back because the ledger had failed.
// Until then the books say too much, never too little.
type sharedClaims struct {
	*memory

	mu       sync.Mutex
	session  ledger.Session    // in which mine was taken
	mine     map[Thing]*shared // what this process has taken
	dirty    map[Thing]bool    // things of which the books may say too much
	versions uint64            // the last one that a lease has got
}

// shared is what one process has taken of a thing. Operations in flight have already changed it.
type shared struct {
	amount int64
	note   []byte
	lease  // of kinds that are leased
}

// claimed is how much of a thing the claims of one session have taken. It is valid until the session is over.
type claimed struct {
	Session ledger.Session `cbor:"1,keyasint"`
	Amount  int64          `cbor:"2,keyasint"` // or leased, of kinds that are leased
	Note    []byte         `cbor:"3,keyasint,omitempty"`
	Ahead   int64          `cbor:"4,keyasint,omitempty"` // the part of the amount that was leased, but not claimed, when this was written
}

func newSharedClaims(m *memory) *sharedClaims {
	c := &sharedClaims{memory: m, mine: make(map[Thing]*shared), dirty: make(map[Thing]bool)}
	m.ledger.OnTend(c.tend)
	return c
}

func (of Thing) key() []byte { return claimTable.key(of.Owner, string(of.Kind), of.Name) }

// others returns the claims of the other processes on a thing.
func (of Thing) others(r ledger.Reader, valid []ledger.Session, mine ledger.Session) (all []claimed, sum int64, err error) {
	if _, err = load(r, of.key(), &all); err != nil {
		return nil, 0, err
	}
	all = slices.DeleteFunc(all, func(c claimed) bool { return c.Session == mine || !slices.Contains(valid, c.Session) })
	for _, c := range all {
		sum += c.Amount
	}
	return all, sum, nil
}

// inSession begins anew if the session is another one than before; c.mu must be locked.
func (c *sharedClaims) inSession(now ledger.Session) {
	if c.session != now {
		c.session = now
		clear(c.mine)
		clear(c.dirty)
	}
}

// add adds to what this process has taken of things, and writes it. If the operation is thrown away, it takes that back.
func (c *sharedClaims) add(t *ledger.Tx, of []Bound, by int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inSession(t.Session())
	for _, b := range of {
		change := c.addExactly
		if b.Of.Kind.IsLeased() {
			change = c.fit
		}
		if err := change(t, b, by); err != nil {
			return err
		}
	}
	return nil
}

// addExactly is add for a thing that is not leased; c.mu must be locked.
func (c *sharedClaims) addExactly(t *ledger.Tx, b Bound, by int64) error {
	c.change(b.Of, by, b.Note)
	in := t.Session()
	t.OnUndo(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.session != in {
			return
		}
		c.change(b.Of, -by, nil)
		c.dirty[b.Of] = true // if the outcome is unknown, it may be in the books all the same
	})
	return c.write(t, b.Of)
}

// change changes what this process has taken; c.mu must be locked.
func (c *sharedClaims) change(of Thing, by int64, note []byte) {
	s := c.entry(of)
	s.amount = max(0, s.amount+by)
	if by > 0 && note != nil {
		s.note = note
	}
	c.tidy(of)
}

// write writes what this process has taken of a thing; c.mu must be locked.
func (c *sharedClaims) write(t *ledger.Tx, of Thing) error {
	valid, err := t.Sessions()
	if err != nil {
		return err
	}
	all, _, err := of.others(t, valid, t.Session())
	if err != nil {
		return err
	}
	if s := c.mine[of]; s != nil && max(s.amount, s.written) > 0 {
		all = append(all, claimed{Session: t.Session(), Amount: max(s.amount, s.written), Note: s.note, Ahead: s.ahead})
	}
	if len(all) == 0 {
		t.Delete(of.key())
		return nil
	}
	value, err := encoding.Marshal(all)
	if err == nil {
		t.Put(of.key(), value)
	}
	return err
}

// giveBack gives back what this process has taken of things, in memory at once, and in the books soon. What is leased stays so, unless the others
// don't know that they may recall it.
func (c *sharedClaims) giveBack(of []Bound, in ledger.Session, n int64) {
	c.mu.Lock()
	if c.session == in {
		for _, b := range of {
			c.change(b.Of, -n, nil)
			if s := c.mine[b.Of]; s == nil || !b.Of.Kind.IsLeased() || s.ahead == 0 || c.ledger.Elapsed() < s.scarce {
				c.dirty[b.Of] = true
			}
		}
	}
	isClean := len(c.dirty) == 0
	c.mu.Unlock()
	if isClean {
		return
	}
	ledger.Queue(c.ledger, func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, c.clean(tx) })
}

// clean writes what the books may say too much of.
func (c *sharedClaims) clean(t *ledger.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inSession(t.Session())
	cleaned := make([]Thing, 0, len(c.dirty))
	for of := range c.dirty {
		cleaned = append(cleaned, of)
	}
	for _, of := range cleaned {
		write := c.write
		if of.Kind.IsLeased() {
			write = c.shrink
		}
		if err := write(t, of); err != nil {
			return err
		}
	}
	for _, of := range cleaned {
		delete(c.dirty, of)
	}
	t.OnUndo(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range cleaned {
			c.dirty[of] = true
		}
	})
	return nil
}

// Clean is [Claims]'.
func (c *sharedClaims) Clean(ctx context.Context) error {
	c.mu.Lock()
	isDirty := len(c.dirty) > 0
	c.mu.Unlock()
	if !isDirty {
		return nil
	}
	_, err := ledger.Do(ctx, c.ledger, func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, c.clean(tx) })
	return err
}

// roomOf returns the first bound with the least room, the room that it has, and the note of a claim of it.
func (c *sharedClaims) roomOf(r ledger.Reader, of []Bound, valid []ledger.Session, session ledger.Session) (*NoRoom, error) {
	tightest := &NoRoom{Room: math.MaxInt64}
	for i, b := range of {
		most, err := b.left(r)
		if err != nil {
			return nil, err
		}
		all, sum, err := b.Of.others(r, valid, session)
		if err != nil {
			return nil, err
		}
		mine := c.takenHere(b.Of, session)
		if here := most - sum - mine.amount; here < tightest.Room {
			tightest = &NoRoom{Bound: i, Room: here, Note: mine.note, others: sum > 0, ahead: aheadOf(all)}
			if mine.note == nil && len(all) > 0 {
				tightest.Note = all[0].Note
			}
		}
	}
	return tightest, nil
}

// aheadOf is about how much others could give back of what they have leased.
func aheadOf(all []claimed) (sum int64) {
	for _, c := range all {
		sum += c.Ahead
	}
	return sum
}

// takenHere returns what this process has taken of a thing.
func (c *sharedClaims) takenHere(of Thing, in ledger.Session) shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mine[of]; s != nil && c.session == in {
		return *s
	}
	return shared{}
}

func (c *sharedClaims) roomIn(t *ledger.Tx, of []Bound) (*NoRoom, error) {
	valid, err := t.Sessions()
	if err != nil {
		return nil, err
	}
	return c.roomOf(t.Reader(), of, valid, t.Session())
}

// Taken is [Claims]'. Of things that count for all processes it returns what is committed; if that can't be read, it returns a very large
// number.
func (c *sharedClaims) Taken(of Thing) (sum int64) {
	if !of.Kind.IsShared() {
		return c.memory.Taken(of)
	}
	session := c.ledger.Session()
	err := c.ledger.View(func(r ledger.Reader) error {
		valid, err := ledger.Sessions(r)
		if err == nil {
			_, sum, err = of.others(r, valid, session)
		}
		return err
	})
	if err != nil {
		return math.MaxInt64
	}
	return sum + c.takenHere(of, session).amount
}

// TakenIn is [Claims]'.
func (c *sharedClaims) TakenIn(t *Tx, of Thing) (int64, error) {
	if !of.Kind.IsShared() {
		return c.memory.TakenIn(t, of)
	}
	valid, err := t.ledger.Sessions()
	if err != nil {
		return 0, err
	}
	all, sum, err := of.others(t.ledger, valid, t.ledger.Session())
	if err == nil && aheadOf(all) > 0 {
		c.lacks(t.ledger, of)
		return 0, refuse(InvalidStatus, map[string]string{"retry_after": "1"}, "another gateway may let calls in at this moment; try again")
	}
	return sum + c.takenHere(of, t.ledger.Session()).amount, err
}

// Pass is [Claims]'. All processes together let as much pass as one would: each has its share of the rate.
func (c *sharedClaims) Pass(of Thing, at Rate) time.Duration { return c.memory.Pass(of, c.share(at)) }

// Wait is [Claims]'.
func (c *sharedClaims) Wait(of Thing, at Rate) time.Duration { return c.memory.Wait(of, c.share(at)) }

// Count is [Claims]'.
func (c *sharedClaims) Count(of Thing, at Rate, n int64) { c.memory.Count(of, c.share(at), n) }

func (c *sharedClaims) share(at Rate) Rate {
	processes := c.ledger.Processes()
	at.Every *= time.Duration(processes)
	at.Burst = max(1, at.Burst/processes)
	return at
}

// shareOfCalls gives this process its share of the calls of an agent that may run at once.
func (c *sharedClaims) shareOfCalls(of []Bound) []Bound {
	processes := int64(c.ledger.Processes())
	of = slices.Clone(of)
	for i, b := range of {
		if b.Of.Kind == RunningCalls {
			of[i].Most = max(1, b.Most/processes)
		}
	}
	return of
}

// soonFree are the pauses between tries to claim something that another process has claimed, and perhaps is about to give back. A caller that has
// the answer of one process may be faster at the next one than that news.
var soonFree = []time.Duration{20 * time.Millisecond, 80 * time.Millisecond}

// Take is [Claims]'.
func (c *sharedClaims) Take(ctx context.Context, n int64, of ...Bound) (Claim, error) {
	of = c.shareOfCalls(of)
	for _, pause := range soonFree {
		s, err := c.takeNow(ctx, n, of)
		full, isFull := errors.AsType[*NoRoom](err)
		if !isFull || !full.others || full.ahead > 0 { // what others have ahead was waited for
			return s, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return c.takeNow(ctx, n, of)
}

func (c *sharedClaims) takeNow(ctx context.Context, n int64, of []Bound) (Claim, error) {
	s := c.claim(of)
	if len(s.of) == 0 {
		return c.memory.Take(ctx, n, of...)
	}
	var err error
	if s.own, err = c.memory.Take(ctx, n, s.ownBounds()...); err != nil {
		return nil, s.ownError(err)
	}
	if _, err := s.take(n, false); err != nil {
		s.own.End()
		return nil, err
	}
	return s, nil
}

// TakeUpTo is [Claims]'.
func (c *sharedClaims) TakeUpTo(ctx context.Context, n int64, of ...Bound) (Claim, error) {
	s := c.claim(of)
	if len(s.of) == 0 {
		return c.memory.TakeUpTo(ctx, n, of...)
	}
	var err error
	if s.own, err = c.memory.TakeUpTo(ctx, n, s.ownBounds()...); err != nil {
		return nil, s.ownError(err)
	}
	taken := s.own.Amount()
	got, err := s.take(taken, true)
	if err != nil {
		s.own.End()
		return nil, err
	}
	s.own.GiveBack(taken - got)
	return s, nil
}

// lookAgain is the time between two tries of [Claims] Await.
const lookAgain = 20 * time.Millisecond

// Await is [Claims]'. Nobody tells a process when another one gives something back, so it tries again and again.
func (c *sharedClaims) Await(ctx context.Context, n int64, of ...Bound) (Claim, error) {
	if len(c.claim(of).of) == 0 {
		return c.memory.Await(ctx, n, of...)
	}
	for {
		s, err := c.takeNow(ctx, n, of)
		if _, isFull := errors.AsType[*NoRoom](err); !isFull {
			return s, err
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// TakeIn is [Claims]'. What the operation uses is in the books when other operations look, so nothing is written here.
func (c *sharedClaims) TakeIn(t *Tx, n int64, of ...Bound) (Claim, error) {
	s := c.claim(of)
	if len(s.of) == 0 {
		return c.memory.TakeIn(t, n, of...)
	}
	room, err := c.enoughIn(t.ledger, s.of, n)
	if err != nil {
		return nil, err
	}
	if n > max(0, room.Room) {
		room.Bound = s.index[room.Bound]
		return nil, room
	}
	if allLeased(s.of) {
		if err := c.useIn(t.ledger, s.of, n); err != nil {
			return nil, err
		}
	}
	return c.memory.TakeIn(t, n, s.ownBounds()...)
}

// enoughIn returns the room that things have. If it is less than n, it notes what could be recalled.
func (c *sharedClaims) enoughIn(t *ledger.Tx, of []Bound, n int64) (*NoRoom, error) {
	room, err := c.roomIn(t, of)
	if err == nil && n > max(0, room.Room) && room.ahead > 0 {
		c.lacks(t, of[room.Bound].Of)
	}
	return room, err
}

// TakeUpToIn is [Claims]'.
func (c *sharedClaims) TakeUpToIn(t *Tx, n int64, of ...Bound) (Claim, error) {
	s := c.claim(of)
	if len(s.of) == 0 {
		return c.memory.TakeUpToIn(t, n, of...)
	}
	room, err := c.enoughIn(t.ledger, s.of, n)
	if err != nil {
		return nil, err
	}
	n = max(0, min(n, room.Room))
	if n > 0 && allLeased(s.of) {
		if err := c.useIn(t.ledger, s.of, n); err != nil {
			return nil, err
		}
	}
	return c.memory.TakeUpToIn(t, n, s.ownBounds()...)
}

// Paid is [Claims]'. What is not known, since the ledger can't be read, counts as not paid.
func (c *sharedClaims) Paid(of Thing) (paid Paid) {
	_ = c.ledger.View(func(r ledger.Reader) error {
		_, err := load(r, of.paidKey(), &paid)
		return err
	})
	return paid
}

func (of Thing) paidKey() []byte { return paidTable.key(of.Owner, string(of.Kind), of.Name) }

// forgetPaid is how many things that are not paid for any more are forgotten when another one is paid, so that there are never many of them.
const forgetPaid = 8

// PayIn is [Claims]'.
func (*sharedClaims) PayIn(t *Tx, of Thing, paid Paid) error {
	var gone [][]byte
	err := t.ledger.Scan(paidTable.under(of.Owner, string(of.Kind)), func(key, value []byte) (bool, error) {
		var p Paid
		if err := decode(key, value, &p); err != nil {
			return false, err
		}
		if p.Session.Before(t.Now()) && p.Minutes.Before(t.Now()) {
			gone = append(gone, slices.Clone(key))
		}
		return len(gone) < forgetPaid, nil
	})
	if err != nil {
		return err
	}
	for _, key := range gone {
		t.ledger.Delete(key)
	}
	return t.put(of.paidKey(), paid)
}

// Interface guards
var (
	_ Claims = (*memory)(nil)
	_ Claims = (*sharedClaims)(nil)
)
