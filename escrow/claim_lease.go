package escrow

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Claims of some kinds are taken from leases, so that a call under a limit or a plan needs no operation before it begins. A lease is a part of a
// thing that one process may claim without asking the others. The record of the thing says how much each process has leased; for the others
// that is taken, whether the process has claimed it or not. So the leases of all processes are never more than what the books say is left.
//
// What a process does with its lease is known only to itself: a claim takes from it, and gives back to it, in memory. A claim that it does not
// cover makes it larger, by an operation: by what is missing, and by about as much as was claimed in the last seconds, but by no more than
// half of what is free beyond that. The operation that writes into the books what a claim has used makes the lease smaller by as much, and
// makes it fit again.
//
// A process that finds too little recalls what the others have ahead: what is in their leases, but not claimed. They give it back, and have
// nothing ahead for some seconds, so that then each claim is an operation, and what is left of the thing can be used to the end by
// whichever process comes first.
//
// A process may only use its lease as long as its session can't be over, see [ledger.Ledger.Leasing].

// IsLeased reports whether a process takes claims of the kind from its lease, if it shares the ledger.
func (k Kind) IsLeased() bool { return k == SpendLimit || k == PlanQuota || k == RunningPlan }

// lease is what this process has leased of a thing.
type lease struct {
	leased  int64 // that claims may use
	written int64 // as operations in flight leave it; what they add may be used when they are durable
	ahead   int64 // what the record says that is leased and not claimed
	using   int64 // what operations in flight have used, and that the committed books do not show yet
	flights int   // operations in flight
	version uint64
	use     ledger.Demand // what was claimed
	used    time.Duration // by the monotonic clock: when it was last used
	scarce  time.Duration // others have recalled it, and until then nothing is leased ahead
}

func allLeased(of []Bound) bool {
	for _, b := range of {
		if !b.Of.Kind.IsLeased() {
			return false
		}
	}
	return true
}

// entry returns what this process has of a thing; c.mu must be locked.
func (c *sharedClaims) entry(of Thing) *shared {
	s := c.mine[of]
	if s == nil {
		s = new(shared)
		c.changed(s)
		c.mine[of] = s
	}
	return s
}

// changed notes that the committed books show more of what was used of a thing than before; c.mu must be locked.
func (c *sharedClaims) changed(s *shared) {
	c.versions++
	s.version = c.versions
}

// tidy forgets what this process has of a thing, if that is nothing; c.mu must be locked.
func (c *sharedClaims) tidy(of Thing) {
	if s := c.mine[of]; s != nil && s.amount == 0 && s.lease.isEmpty() && c.ledger.Elapsed() >= s.scarce {
		delete(c.mine, of)
	}
}

func (l *lease) isEmpty() bool {
	return l.leased == 0 && l.written == 0 && l.using == 0 && l.flights == 0
}

// takeLeased takes more of things from what this process has leased of them, without an operation. It returns false if that can't be: then an
// operation decides. How much the books have left of each thing is read as this process knows it, since they may have less than is leased:
// perhaps a limit was lowered.
func (c *sharedClaims) takeLeased(of []Bound, n int64, in ledger.Session) bool {
	if !allLeased(of) || c.ledger.Leasing() != nil {
		return false
	}
	for range 3 { // the books may change meanwhile
		versions, covered := c.covers(of, n, in)
		if !covered {
			return false
		}
		left, err := c.leftOf(of, in)
		if err != nil {
			return false
		}
		if taken, again := c.takeCovered(of, n, in, versions, left); !again {
			return taken
		}
	}
	return false
}

// covers reports whether the leases cover a claim, and returns their versions.
func (c *sharedClaims) covers(of []Bound, n int64, in ledger.Session) (versions []uint64, covered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leasesCover(of, n, in) {
		return nil, false
	}
	for _, b := range of {
		versions = append(versions, c.mine[b.Of].version)
	}
	return versions, true
}

// leasesCover reports whether the leases cover a claim; c.mu must be locked.
func (c *sharedClaims) leasesCover(of []Bound, n int64, in ledger.Session) bool {
	if c.session != in {
		return false
	}
	for _, b := range of {
		if s := c.mine[b.Of]; s == nil || c.dirty[b.Of] || n > s.leased-s.amount {
			return false
		}
	}
	return true
}

// leftOf returns how much of each thing the books have left for this process, as it knows them.
func (c *sharedClaims) leftOf(of []Bound, in ledger.Session) (left []int64, err error) {
	err = c.ledger.Look(func(r ledger.Reader) error {
		left = left[:0]
		valid, err := ledger.Sessions(r)
		if err != nil {
			return err
		}
		for _, b := range of {
			most, err := b.left(r)
			if err != nil {
				return err
			}
			_, sum, err := b.Of.others(r, valid, in)
			if err != nil {
				return err
			}
			left = append(left, most-sum)
		}
		return nil
	})
	return left, err
}

// takeCovered takes more of things, if the leases still cover it, and if the books have as much left. If they have changed since the versions
// were read, it asks for another look at them.
func (c *sharedClaims) takeCovered(of []Bound, n int64, in ledger.Session, versions []uint64, left []int64) (taken, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.leasesCover(of, n, in) {
		return false, false
	}
	for i, b := range of {
		switch s := c.mine[b.Of]; {
		case s.version != versions[i]:
			return false, true
		case n > left[i]-s.amount-s.using:
			return false, false
		}
	}
	for _, b := range of {
		c.mine[b.Of].amount += n
	}
	c.note(of, n)
	return true, false
}

// note counts what was claimed; c.mu must be locked.
func (c *sharedClaims) note(of []Bound, n int64) {
	now := c.ledger.Elapsed()
	for _, b := range of {
		if s := c.mine[b.Of]; s != nil && b.Of.Kind.IsLeased() {
			s.use.Note(n, now)
			s.used = now
		}
	}
}

// left returns how much there is of the thing.
func (b Bound) left(r ledger.Reader) (int64, error) {
	if b.Left == nil {
		return b.Most, nil
	}
	return b.Left(r)
}

// fit changes what the claims of this process have of a leased thing, and makes the lease fit; c.mu must be locked. If by is negative, the
// operation has already written into the books what was used.
func (c *sharedClaims) fit(t *ledger.Tx, b Bound, by int64) error {
	valid, err := t.Sessions()
	if err != nil {
		return err
	}
	left, err := b.left(t.Reader())
	if err != nil {
		return err
	}
	_, others, err := b.Of.others(t.Reader(), valid, t.Session())
	if err != nil {
		return err
	}
	s, now := c.entry(b.Of), c.ledger.Elapsed()
	s.used = now
	amount := s.amount + by
	free := max(0, left-others-amount)
	return c.lease(t, b.Of, flight{amount: by, using: max(0, -by), written: amount + s.fitting(amount, free, now) - s.written})
}

// fitting returns how much to lease ahead, beyond an amount that is claimed, if so much is free.
func (s *shared) fitting(amount, free int64, now time.Duration) int64 {
	if now < s.scarce {
		return 0
	}
	wanted, has := s.use.Sum(now), max(0, s.written-amount)
	if has < wanted/2 {
		has += min(wanted-has, max(0, free-has)/2)
	}
	return min(has, wanted, free)
}

// flight is what an operation changes of what this process has of a thing. It is taken back if the operation is undone.
type flight struct {
	amount, using, written int64
	silent                 bool // the record of the thing stays as it is
}

// lease makes a change, and writes the record of the thing; c.mu must be locked. What the lease loses can't be used from now on; what it gains
// can be used when the operation is durable.
func (c *sharedClaims) lease(t *ledger.Tx, of Thing, f flight) error {
	s, in := c.entry(of), t.Session()
	s.amount += f.amount
	s.using += f.using
	s.written += f.written
	s.leased += min(f.written, 0)
	s.flights++
	before := s.ahead
	if !f.silent {
		s.ahead = max(0, s.written-s.amount)
		delete(c.dirty, of)
	}
	ended := func(do func()) func() {
		return func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.session != in {
				return
			}
			s.flights--
			s.using -= f.using
			do()
			c.tidy(of)
		}
	}
	t.OnUndo(ended(func() {
		s.amount -= f.amount
		s.written -= f.written
		s.leased -= min(f.written, 0)
		if s.ahead = before; !f.silent {
			c.dirty[of] = true // if the outcome is unknown, it may be in the books all the same
		}
	}))
	t.OnCommit(ended(func() {
		s.leased += max(f.written, 0)
		c.changed(s)
	}))
	if f.silent {
		return nil
	}
	return c.write(t, of)
}

// useIn takes n of leased things for an operation that uses it at once. What is used is not leased any more.
func (c *sharedClaims) useIn(t *ledger.Tx, of []Bound, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inSession(t.Session())
	valid, err := t.Sessions()
	if err != nil {
		return err
	}
	for _, b := range of {
		left, err := b.left(t.Reader())
		if err != nil {
			return err
		}
		_, others, err := b.Of.others(t.Reader(), valid, t.Session())
		if err != nil {
			return err
		}
		s := c.entry(b.Of)
		less := max(0, s.written-max(s.amount, left-others-n))
		if err := c.lease(t, b.Of, flight{using: n, written: -less, silent: less == 0}); err != nil {
			return err
		}
	}
	return nil
}

// shrink gives back what is leased ahead of a thing; c.mu must be locked.
func (c *sharedClaims) shrink(t *ledger.Tx, of Thing) error {
	s := c.entry(of)
	return c.lease(t, of, flight{written: s.amount - s.written})
}

// recalled is a thing in the list of those that a process is asked to give back.
type recalled struct {
	Kind  Kind   `cbor:"1,keyasint"`
	Owner string `cbor:"2,keyasint"`
	Name  string `cbor:"3,keyasint"`
}

// recallsOf is where the list of a session is.
func recallsOf(s ledger.Session) Thing { return Thing{Kind: "recalled", Name: s.Process} }

// recall asks other processes for what they have leased ahead of a thing.
func (c *sharedClaims) recall(t *ledger.Tx, of Thing) error {
	valid, err := t.Sessions()
	if err != nil {
		return err
	}
	all, _, err := of.others(t.Reader(), valid, t.Session())
	if err != nil {
		return err
	}
	for _, other := range all {
		key := recallsOf(other.Session).key()
		var list []recalled
		if _, err := load(t, key, &list); err != nil {
			return err
		}
		if other.Ahead == 0 || slices.Contains(list, recalled(of)) {
			continue
		}
		value, err := encoding.Marshal(append(list, recalled(of)))
		if err != nil {
			return err
		}
		t.Put(key, value)
	}
	return nil
}

// lacks says that an operation finds too little of a thing, although other processes have leased some of it ahead.
func (c *sharedClaims) lacks(t *ledger.Tx, of Thing) {
	t.Lack(string(of.key()), func(t *ledger.Tx) error { return c.recall(t, of) })
}

// tend gives back what other processes have recalled, and what was not used for some time.
func (c *sharedClaims) tend(t *ledger.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inSession(t.Session())
	key, now := recallsOf(t.Session()).key(), c.ledger.Elapsed()
	var list []recalled
	if _, err := load(t, key, &list); err != nil {
		return err
	}
	if len(list) > 0 {
		t.Delete(key)
	}
	for _, r := range list {
		of := Thing(r)
		if !of.Kind.IsLeased() {
			continue
		}
		c.entry(of).scarce = now + ledger.IdleAfter
		if err := c.shrink(t, of); err != nil {
			return err
		}
	}
	for of, s := range c.mine {
		if of.Kind.IsLeased() && s.written > s.amount && now-s.used >= ledger.IdleAfter {
			if err := c.shrink(t, of); err != nil {
				return err
			}
		}
		c.tidy(of)
	}
	return nil
}
