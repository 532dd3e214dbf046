package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Session identifies the time during which one process has the ledger open. Some records are meant to last only as long as their process
// runs. They carry its session, so that other processes clean them up only after the session is over. The zero Session, which records of
// older program versions have, is over.
type Session struct {
	Epoch   uint64 `cbor:"1,keyasint,omitempty"` // 1 when the ledger is opened for the first time, then 2, 3, ...
	Process string `cbor:"2,keyasint,omitempty"` // a random text, since a ledger restored from a backup may use an epoch twice
}

// Shared is implemented by stores that several processes may have open at the same time. On any other store, opening the ledger ends all
// earlier sessions.
type Shared interface {
	// Shared does nothing; it marks the type.
	Shared()
}

// Lasting is implemented by a [Shared] store that says how long sessions without a sign of life last, for [Options].Lifetime.
type Lasting interface {
	// Lifetime returns that time, or zero for the default.
	Lifetime() time.Duration
}

// errSessionOver is the reason why a ledger stops whose session was ended by another process.
var errSessionOver = errors.New("another process has ended this one's session, since it showed no sign of life")

// Session returns the session of this process.
func (tx *Tx) Session() Session { return tx.session }

// Over reports whether a session has ended. On a shared store, a session ends when its process closes the ledger, or when the process shows
// no sign of life for [Options].Lifetime.
func (tx *Tx) Over(s Session) (bool, error) {
	if tx.ledger.shared {
		return !slices.Contains(tx.sessions, s), nil
	}
	meta, err := readMeta(tx.w)
	return !slices.Contains(meta.Sessions, s), err
}

// Sessions returns the sessions that are not over.
func (tx *Tx) Sessions() ([]Session, error) {
	if tx.ledger.shared {
		return tx.sessions, nil
	}
	return Sessions(tx.w)
}

// Sessions returns the sessions that are not over.
func Sessions(r Reader) ([]Session, error) {
	meta, err := readMeta(r)
	return meta.Sessions, err
}

// Session returns the session of this process. On a shared store it changes if other processes end it, and [Ledger.Reopen] begins a new one.
func (l *Ledger) Session() Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

// Processes returns how many processes have the ledger open, as far as this one knows.
func (l *Ledger) Processes() int {
	l.tending.mu.Lock()
	defer l.tending.mu.Unlock()
	return max(1, len(l.tending.known))
}

// Ended returns a channel that has a message when sessions of other processes have ended since the last message. What their calls have left
// should be settled then.
func (l *Ledger) Ended() <-chan struct{} { return l.tending.ended }

// beginSession begins a session with the next epoch. A store that is open for reading has no session, and needs none.
func (l *Ledger) beginSession() error {
	process := rand.Text()
	asked := l.elapsed()
	type begun struct {
		session Session
		all     []Session
	}
	b, err := submit(l.store, func(w Writer) (begun, error) {
		meta, err := readMeta(w)
		if err != nil {
			return begun{}, err
		}
		if !l.shared {
			meta.Sessions = nil
		}
		meta.Epoch++
		session := Session{Epoch: meta.Epoch, Process: process}
		meta.Sessions = append(meta.Sessions, session)
		w.Put(metaKey, encode(meta))
		return begun{session, meta.Sessions}, nil
	})
	if errors.Is(err, ErrReadOnly) {
		return nil
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.session = b.session
	l.mu.Unlock()
	l.tending.contact(asked)
	l.tending.mu.Lock()
	l.tending.known = b.all // so that the end of each of them is noticed
	l.tending.mu.Unlock()
	return nil
}

// resumeSession makes the memory right after the store was reopened. If the session is over, it begins another.
func (l *Ledger) resumeSession() error {
	if !l.shared {
		return l.memory.reload(l.own)
	}
	var meta metaRecord
	err := l.View(func(r Reader) (err error) {
		meta, err = readMeta(r)
		return err
	})
	if err != nil {
		return err
	}
	if slices.Contains(meta.Sessions, l.Session()) {
		return l.memory.reload(l.own)
	}
	l.memory.forget()
	return l.beginSession()
}

// endSession ends the session, so that the other processes on a shared store know that it is over.
func (l *Ledger) endSession() error {
	session := l.Session()
	if !l.shared || session == (Session{}) {
		return nil
	}
	_, err := submit(l.store, func(w Writer) (struct{}, error) { return struct{}{}, removeSession(w, session) })
	return err
}

// removeSession ends a session. Its leases are not valid any more.
func removeSession(w Writer, s Session) error {
	meta, err := readMeta(w)
	if err != nil || !slices.Contains(meta.Sessions, s) {
		return err
	}
	meta.Sessions = slices.DeleteFunc(meta.Sessions, func(other Session) bool { return other == s })
	w.Put(metaKey, encode(meta))
	w.Delete(beatKey(s))
	w.Delete(recallKey(s))
	return nil
}

func beatKey(s Session) []byte { return append([]byte{beatPrefix}, s.Process...) }

type beatRecord struct {
	Beat uint64 `cbor:"1,keyasint"`
}

func readBeat(r Reader, s Session) (b beatRecord, err error) {
	key := beatKey(s)
	value, err := r.Get(key)
	if err != nil || value == nil {
		return b, err
	}
	return b, decode(key, value, &b)
}

// tending is what a process knows that tends its session on a shared store.
type tending struct {
	lifetime time.Duration
	ended    chan struct{}
	stop     context.CancelFunc
	stopped  context.Context
	running  sync.WaitGroup

	recalls recalls

	mu     sync.Mutex
	more   func(*Tx) error
	last   time.Duration // when the last question was asked that the database has answered
	beaten time.Duration // when the last sign of life was tried
	idled  time.Duration // when idle leases were looked for
	others map[Session]sign
	known  []Session // in the last round
}

// sign is the last sign of life of another process.
type sign struct {
	beat  uint64
	since time.Duration // when it was seen first
	seen  time.Duration // when it was seen last
}

func newTending(lifetime time.Duration) tending {
	if lifetime == 0 {
		lifetime = 10 * time.Second
	}
	stopped, stop := context.WithCancel(context.Background())
	return tending{lifetime: lifetime, ended: make(chan struct{}, 1), stopped: stopped, stop: stop, others: map[Session]sign{}}
}

func (t *tending) end() {
	t.stop()
	t.running.Wait()
}

// contact notes that the database has confirmed something that was asked at a time: other processes can't have ended the session for one
// lifetime since then.
func (t *tending) contact(asked time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.last, asked)
}

// Leasing returns the reason why this process can set nothing aside now, neither money nor what it has leased of other things, or nil. See
// [Ledger.OnTend].
func (l *Ledger) Leasing() error { return l.mayHold() }

// OnTend makes each round of [Ledger.Tend] call fn in its operation. It is for leases of other things than accounts: fn gives back what other
// processes have recalled, and what was not used for [IdleAfter]. A later call replaces fn.
func (l *Ledger) OnTend(fn func(*Tx) error) {
	l.tending.mu.Lock()
	defer l.tending.mu.Unlock()
	l.tending.more = fn
}

// mayHold returns the reason why no holds can be made now. On a shared store, a process makes none if it has had no contact with the database
// for so long that others may be about to end its session.
func (l *Ledger) mayHold() error {
	if err := l.failure(); err != nil || !l.shared || l.tending.lifetime < 0 {
		return err
	}
	l.tending.mu.Lock()
	defer l.tending.mu.Unlock()
	if silent := l.elapsed() - l.tending.last; silent > l.tending.lifetime*8/10 {
		return fmt.Errorf("%w: the database has confirmed nothing for %s", ErrUnavailable, silent.Round(time.Second))
	}
	return nil
}

func (l *Ledger) tendUntilClosed() {
	for {
		select {
		case <-l.tending.stopped.Done():
			return
		case <-time.After(tendEvery):
		}
		if l.failure() == nil {
			if err := l.Tend(l.tending.stopped); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
				l.logger.Warn("tending the session on the shared ledger", "error", err)
			}
		}
	}
}

// Tend does what a process must do now and then that shares its ledger: it shows a sign of life, gives back leases that others have recalled
// or that were idle for some time, and ends the sessions of processes that show no sign of life. A ledger calls Tend by itself, see
// [Options].Lifetime.
func (l *Ledger) Tend(ctx context.Context) error {
	if !l.shared {
		return nil
	}
	now := l.elapsed()
	t := &l.tending
	t.mu.Lock()
	beats := t.lifetime > 0 && now-t.beaten >= t.lifetime/4
	if beats {
		t.beaten = now
	}
	var idle []AccountID
	if now-t.idled >= time.Second {
		t.idled = now
		idle = l.memory.idle(now)
	}
	more := t.more
	t.mu.Unlock()
	round, err := Do(ctx, l, func(tx *Tx) (round, error) {
		seen, err := tx.tend(beats, idle)
		if err == nil && more != nil {
			err = more(tx)
		}
		return seen, err
	})
	if err != nil {
		return err
	}
	t.contact(now)
	return l.judgeOthers(ctx, round, beats, now)
}

// round is what a round of tending has seen.
type round struct {
	sessions []Session
	beats    map[Session]uint64
}

func (tx *Tx) tend(beats bool, idle []AccountID) (round, error) {
	seen := round{sessions: tx.sessions}
	if err := tx.answerRecalls(); err != nil {
		return seen, err
	}
	for _, id := range idle {
		if err := tx.returnLease(id); err != nil {
			return seen, err
		}
	}
	if !beats {
		return seen, nil
	}
	mine := tx.session
	seen.beats = make(map[Session]uint64, len(tx.sessions))
	for _, s := range tx.sessions {
		b, err := readBeat(tx.w, s)
		if err != nil {
			return seen, err
		}
		if s == mine {
			b.Beat++
			tx.put(beatKey(s), encode(b))
			continue
		}
		seen.beats[s] = b.Beat
	}
	return seen, nil
}

// judgeOthers ends the sessions of processes that have shown no sign of life for one lifetime while this one was looking. It also notices
// sessions that have ended.
func (l *Ledger) judgeOthers(ctx context.Context, r round, beats bool, now time.Duration) error {
	var dead []Session
	t := &l.tending
	t.mu.Lock()
	fewer := slices.ContainsFunc(t.known, func(s Session) bool { return !slices.Contains(r.sessions, s) })
	t.known = r.sessions
	for s := range t.others {
		if !slices.Contains(r.sessions, s) {
			delete(t.others, s)
		}
	}
	if beats {
		for s, beat := range r.beats {
			if last, known := t.others[s]; !known || last.beat != beat || now-last.seen > t.lifetime/2 {
				t.others[s] = sign{beat: beat, since: now, seen: now} // also if nobody looked for a while: perhaps the database was away
			} else {
				last.seen = now
				t.others[s] = last
				if now-last.since >= t.lifetime {
					dead = append(dead, s)
				}
			}
		}
	}
	t.mu.Unlock()
	for _, s := range dead {
		beat := r.beats[s]
		ended, err := Do(ctx, l, func(tx *Tx) (bool, error) { return tx.endOther(s, beat) })
		if err != nil {
			return err
		}
		if ended {
			fewer = true
			l.logger.Warn("ended the session of another process on the shared ledger, which showed no sign of life", "epoch", s.Epoch, "process", s.Process)
		}
	}
	if !fewer {
		return nil
	}
	select {
	case t.ended <- struct{}{}:
	default:
	}
	return l.removeInvalid(ctx)
}

// endOther ends the session of another process, unless it has shown a sign of life meanwhile.
func (tx *Tx) endOther(s Session, beat uint64) (ended bool, err error) {
	b, err := readBeat(tx.w, s)
	if err != nil || b.Beat != beat || !slices.Contains(tx.sessions, s) {
		return false, err
	}
	tx.dirty = true
	return true, removeSession(tx.w, s)
}

// removeInvalid removes leases of sessions that are over.
func (l *Ledger) removeInvalid(ctx context.Context) error {
	for from := []byte{leasePrefix}; from != nil; {
		var ids []AccountID
		err := l.View(func(r Reader) error {
			return r.Scan(Range{From: from, To: []byte{leasePrefix + 1}}, func(key, _ []byte) (bool, error) {
				ids = append(ids, AccountID(key[1:]))
				return len(ids) < 256, nil
			})
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		_, err = Do(ctx, l, func(tx *Tx) (struct{}, error) { return struct{}{}, tx.keepValid(ids) })
		if err != nil {
			return err
		}
		from = append(leaseKey(ids[len(ids)-1]), 0)
		if len(ids) < 256 {
			from = nil
		}
	}
	return nil
}

func (tx *Tx) keepValid(ids []AccountID) error {
	for _, id := range ids {
		valid, err := tx.leasesOf(id)
		if err != nil {
			return err
		}
		own, _ := valid.split(tx.session)
		tx.putLease(id, valid, own)
	}
	return nil
}
