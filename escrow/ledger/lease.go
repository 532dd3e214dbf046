package ledger

import (
	"context"
	"math"
	"slices"
	"time"
)

// Several processes share a ledger by leases. A lease is a part of an account's money that one process may hold and spend without asking
// the others. The leases of an account are in one record. A lease is valid as long as the session is not over that has it, so the end of a
// session returns all its leases at once. What is available to a process is what is available on the account, minus the leases of the
// others.
//
// A hold takes money from the process's own lease, which takes no operation. If the lease is too small, an operation makes it larger: by
// what is missing, and by about as much as was held on the account in the last seconds, but by no more than half of what is free beyond
// what is missing. Operations that use a hold make the lease fit again. A lease that is not used for some time is given back.
//
// If a process finds that too little is free, it recalls the leases of the others. They give back what they don't hold.

// leases are the leases of an account, one for each session that has one.
type leases []lease

type lease struct {
	Session Session `cbor:"1,keyasint"`
	Amount  Amount  `cbor:"2,keyasint"`
}

const (
	tendEvery   = 100 * time.Millisecond // leases that others have recalled are given back within this time
	recallWait  = 300 * time.Millisecond // how long a hold waits for leases that it has recalled
	recallPause = 20 * time.Millisecond  // between two looks whether they came back
	idleAfter   = 5 * time.Second        // a lease that is not used for so long is given back
)

func leaseKey(id AccountID) []byte { return append([]byte{leasePrefix}, id...) }

// recallKey is the key of the list of accounts whose leases a session is asked to give back.
func recallKey(s Session) []byte { return append([]byte{recallPrefix}, s.Process...) }

// leasesOf returns the valid leases of an account.
func (tx *Tx) leasesOf(id AccountID) (all leases, err error) {
	return readLeases(tx.w, id, tx.sessions)
}

func readLeases(r Reader, id AccountID, valid []Session) (all leases, err error) {
	key := leaseKey(id)
	value, err := r.Get(key)
	if err != nil || value == nil {
		return nil, err
	}
	if err := decode(key, value, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l lease) bool { return !slices.Contains(valid, l.Session) }), nil
}

// split returns the lease of one session, and the sum of those of all others.
func (all leases) split(s Session) (own, others Amount) {
	for _, l := range all {
		if l.Session == s {
			own = l.Amount
		} else {
			others += l.Amount
		}
	}
	return own, others
}

// putLease sets this process's lease of an account.
func (tx *Tx) putLease(id AccountID, all leases, own Amount) {
	mine := tx.session
	next := slices.DeleteFunc(slices.Clone(all), func(l lease) bool { return l.Session == mine })
	if own > 0 {
		next = append(next, lease{mine, own})
	}
	if len(next) == 0 {
		tx.dirty = true
		tx.w.Delete(leaseKey(id))
		return
	}
	tx.put(leaseKey(id), encode(next))
}

// leased is what an operation wants of a lease.
type leased struct {
	got    Amount // by how much the lease became larger
	others Amount // what other processes have leased of the account
}

// extendLease makes this process's lease of an account larger, by at least an amount. If less is free, and recall is true, it recalls the
// leases of the others, and waits a moment for them. It returns what it got in the end, which may be less.
func (l *Ledger) extendLease(id AccountID, by Amount, recall bool) (got Amount, err error) {
	for began := l.elapsed(); ; {
		step, err := Do(context.Background(), l, func(tx *Tx) (leased, error) { return tx.extendLease(id, by-got, recall) })
		got += step.got
		if err != nil || got >= by || !recall || step.others == 0 || l.elapsed()-began >= recallWait {
			return got, err
		}
		time.Sleep(recallPause)
	}
}

func (tx *Tx) extendLease(id AccountID, by Amount, recall bool) (leased, error) {
	account, err := tx.Account(id)
	if err != nil {
		return leased{}, err
	}
	all, err := tx.leasesOf(id)
	if err != nil {
		return leased{}, err
	}
	own, others := all.split(tx.session)
	free := max(0, account.Available()-own-others)
	s := tx.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, id, own)
	if err != nil {
		return leased{}, err
	}
	grant := min(by, free)
	if grant == by {
		grant += min(p.recent(tx.ledger.elapsed()), (free-by)/2)
	}
	if grant > 0 {
		tx.make(change{place: p, incoming: grant})
		tx.putLease(id, all, own+grant)
	}
	if grant < by && recall {
		err = tx.recall(id, all)
	}
	return leased{got: grant, others: others}, err
}

// Recall asks the other processes of a shared store for what they have set aside of an account, but do not hold for anything. They give it
// back within a moment.
func (tx *Tx) Recall(id AccountID) error {
	if !tx.ledger.shared {
		return nil
	}
	all, err := tx.leasesOf(id)
	if err != nil {
		return err
	}
	return tx.recall(id, all)
}

func (tx *Tx) recall(id AccountID, all leases) error {
	for _, l := range all {
		if l.Session == tx.session {
			continue
		}
		recalled, err := tx.recalled(l.Session)
		if err != nil {
			return err
		}
		if !slices.Contains(recalled, id) {
			tx.put(recallKey(l.Session), encode(append(recalled, id)))
		}
	}
	return nil
}

func (tx *Tx) recalled(s Session) (ids []AccountID, err error) {
	key := recallKey(s)
	value, err := tx.w.Get(key)
	if err != nil || value == nil {
		return nil, err
	}
	return ids, decode(key, value, &ids)
}

// answerRecalls gives back what other processes have recalled.
func (tx *Tx) answerRecalls() error {
	mine := tx.session
	ids, err := tx.recalled(mine)
	if err != nil || len(ids) == 0 {
		return err
	}
	tx.dirty = true
	tx.w.Delete(recallKey(mine))
	for _, id := range ids {
		if err := tx.returnLease(id); err != nil {
			return err
		}
	}
	return nil
}

// returnLease gives back the part of a lease that no hold has.
func (tx *Tx) returnLease(id AccountID) error {
	all, err := tx.leasesOf(id)
	if err != nil {
		return err
	}
	own, _ := all.split(tx.session)
	if own == 0 {
		return nil
	}
	s := tx.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, id, own)
	if err != nil {
		return err
	}
	tx.shrink(p, all, own, p.free())
	return nil
}

// shrink makes this process's lease smaller; the shard must be locked.
func (tx *Tx) shrink(p *place, all leases, own, by Amount) {
	if by <= 0 {
		return
	}
	tx.make(change{place: p, available: -by})
	tx.putLease(p.id, all, own-by)
}

// fitLease makes a lease fit what was held on the account in the last seconds, so that the next holds need no operation, and the others have
// the rest. free is what is available on the account and in no lease.
func (tx *Tx) fitLease(p *place, all leases, own, free Amount) {
	wanted := p.recent(tx.ledger.elapsed())
	switch has := p.free() + p.incoming; {
	case has > wanted:
		tx.shrink(p, all, own, min(has-wanted, p.free()))
	case has < wanted/2:
		if grant := min(wanted-has, free/2); grant > 0 {
			tx.make(change{place: p, incoming: grant})
			tx.putLease(p.id, all, own+grant)
		}
	}
}

// use is how much was held on an account in the last seconds.
type use struct {
	second     int64 // of the monotonic clock
	last, this Amount
}

// note counts an amount that is held now.
func (u *use) note(by Amount, now time.Duration) {
	u.turn(now)
	if sum, err := u.this.Add(by); err == nil {
		u.this = sum
	}
}

func (u *use) turn(now time.Duration) {
	switch second := int64(now / time.Second); {
	case second == u.second:
	case second == u.second+1:
		u.last, u.this, u.second = u.this, 0, second
	default:
		u.last, u.this, u.second = 0, 0, second
	}
}

// recent returns about how much was held on the account in the last two seconds; the shard must be locked.
func (p *place) recent(now time.Duration) Amount {
	p.use.turn(now)
	sum, err := p.use.last.Add(p.use.this)
	if err != nil {
		return math.MaxInt64
	}
	return sum
}

// idle returns accounts whose lease was not used for some time. It forgets those that have no lease.
func (m *memory) idle(now time.Duration) (ids []AccountID) {
	for i := range m.shards {
		ids = append(ids, m.shards[i].idle(now)...)
	}
	return ids
}

func (s *shard) idle(now time.Duration) (ids []AccountID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.places {
		if now-p.used < idleAfter {
			continue
		}
		if p.free() > 0 && p.pins == 0 || p.held > 0 && p.free() > 0 {
			ids = append(ids, id)
		} else if p.held == 0 && p.pins == 0 && p.available == 0 && p.incoming == 0 {
			delete(s.places, id)
		}
	}
	return ids
}
