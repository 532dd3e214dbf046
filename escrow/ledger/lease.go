package ledger

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Several processes share a ledger by leases. A lease is a part of an account's money that one process may hold and spend without asking
// the others. The leases of an account are in one record. A lease is valid as long as the session is not over that has it, so the end of a
// session returns all its leases at once. What is available to a process is what is available on the account, minus the leases of the
// others.
//
// A hold takes money from the process's own lease, which takes no operation. If the lease is too small, the hold is extended by an operation
// that makes the lease larger: by what is missing, and by about as much as was held on the account in the last seconds, but by no more than
// half of what is free beyond that. Operations that use a hold make the lease fit again. A lease that is not used for some time is given back.
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
	recallWait  = time.Second            // how long a hold or an operation waits for leases that it has recalled
	recallPause = 20 * time.Millisecond  // before the first look whether they came back; twice as long before each further one
)

// IdleAfter is the time after which a lease that is not used is given back.
const IdleAfter = 5 * time.Second

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

// wanted is what a hold wants of an account that this process has leased too little of.
type wanted struct {
	by     Amount
	part   bool // less will do
	recall bool // if too little is free, the leases of the others are recalled
}

// given is what an operation gave to a hold.
type given struct {
	amount Amount
	free   Amount // what there was for the hold
	others Amount // what other processes have leased
}

// extendByLease extends the hold, and makes this process's lease larger for it. If w.recall is true, it waits a moment for the leases of the
// others. The operation decides and takes in one step, so that no two holds get in each other's way.
func (h *Hold) extendByLease(w wanted) (given, error) {
	l := h.ledger
	var got given
	var err error
	try := func(part bool) (enough bool) {
		step := w
		step.part = part
		got, err = Do(context.Background(), l, func(tx *Tx) (given, error) { return tx.extend(h, step) })
		return err != nil || got.amount == w.by
	}
	if try(w.part && !w.recall) || !w.recall {
		return got, err
	}
	came := false
	if got.others > 0 {
		came = l.awaitLeases(context.Background(), []string{string(h.id)}, func() bool { return try(false) })
	}
	if !came && (w.part || got.others > 0) {
		try(w.part)
	}
	return got, err
}

// awaitLeases waits for leases of others that were recalled, and tries again and again what needs them. It returns true if a try succeeded.
// Only one of those who need leases of an account tries; the others wait until it has ended. So who asks again and again for money that there
// is not can't keep the processes busy.
func (l *Ledger) awaitLeases(ctx context.Context, names []string, try func() bool) bool {
	ended, first := l.tending.recalls.begin(names)
	if !first {
		select {
		case <-ended:
		case <-ctx.Done():
		}
		return false
	}
	defer l.tending.recalls.end(names)
	began := time.Now()
	for pause := recallPause; time.Since(began) < l.patience; pause = min(2*pause, tendEvery) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
		if try() {
			return true
		}
	}
	return false
}

// recalls are the accounts and other things whose leases are waited for.
type recalls struct {
	mu    sync.Mutex
	waits map[string]chan struct{} // closed when the one that tries has ended
}

// begin returns true for the one that tries. For the others it returns a channel that is closed when that one has ended.
func (r *recalls) begin(names []string) (ended <-chan struct{}, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		if wait, is := r.waits[name]; is {
			return wait, false
		}
	}
	if r.waits == nil {
		r.waits = make(map[string]chan struct{})
	}
	wait := make(chan struct{})
	for _, name := range names {
		r.waits[name] = wait
	}
	return wait, true
}

func (r *recalls) end(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.waits[names[0]])
	for _, name := range names {
		delete(r.waits, name)
	}
}

func (tx *Tx) extend(h *Hold, w wanted) (given, error) {
	account, err := tx.Account(h.id)
	if err != nil {
		return given{}, err
	}
	all, own, others, err := tx.parts(h.id, account)
	if err != nil {
		return given{}, err
	}
	h.lock()
	defer h.shard.mu.Unlock()
	p, err := tx.pin(h.shard, h.id, own)
	if err != nil {
		return given{}, err
	}
	outside := account.Available() - own - others
	unheld := own - p.held
	got := given{free: outside + unheld, others: others}
	switch {
	case h.released || h.place != p || w.by > got.free && !w.part:
	default:
		got.amount = max(0, min(w.by, got.free))
	}
	if got.amount > 0 {
		grow := max(0, got.amount-unheld)
		grow += min(p.recent(tx.ledger.elapsed()), (outside-grow)/2)
		tx.make(change{place: p, hold: h, incoming: grow, held: got.amount})
		if grow > 0 {
			tx.putLease(h.id, all, own+grow)
		}
	}
	if got.amount < w.by && w.recall {
		err = tx.recall(h.id, all)
	}
	return got, err
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

// lack is something of which an operation found too little, because other processes have leased it.
type lack struct {
	name   string
	recall func(*Tx) error
}

// Lack says that the operation is going to fail, since other processes have leased too much of something that is not an account; name is its
// name. [Do] then makes an operation that calls recall, which asks the others for what they don't need. It waits a moment for them, and runs
// the operation again.
func (tx *Tx) Lack(name string, recall func(*Tx) error) {
	tx.lacks = append(tx.lacks, lack{name, recall})
}

// lackFunds is Lack for an account.
func (tx *Tx) lackFunds(id AccountID) {
	tx.Lack(string(id), func(tx *Tx) error { return tx.Recall(id) })
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
	tx.shrink(p, all, own, p.unheld())
	return nil
}

// shrink makes this process's lease smaller; the shard must be locked.
func (tx *Tx) shrink(p *place, all leases, own, by Amount) {
	if by <= 0 {
		return
	}
	incoming := min(p.incoming, by)
	tx.make(change{place: p, incoming: -incoming, available: incoming - by})
	tx.putLease(p.id, all, own-by)
}

// fitLease makes a lease fit what was held on the account in the last seconds, so that the next holds need no operation, and the others have
// the rest. free is what is available on the account and in no lease.
func (tx *Tx) fitLease(p *place, all leases, own, free Amount) {
	wanted := p.recent(tx.ledger.elapsed())
	switch has := p.unheld(); {
	case has > wanted:
		tx.shrink(p, all, own, has-wanted)
	case has < wanted/2:
		if grow := min(wanted-has, free/2); grow > 0 {
			tx.make(change{place: p, incoming: grow})
			tx.putLease(p.id, all, own+grow)
		}
	}
}

// recent returns about how much was held on the account in the last two seconds; the shard must be locked.
func (p *place) recent(now time.Duration) Amount { return Amount(p.use.Sum(now)) }

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
		if now-p.used < IdleAfter {
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
