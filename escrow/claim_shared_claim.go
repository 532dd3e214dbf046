package escrow

import (
	"context"
	"errors"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// sharedClaim is a claim of things of which some count for all processes.
type sharedClaim struct {
	claims *sharedClaims
	of     []Bound // those that count for all processes
	index  []int   // of each of them among all bounds
	all    []Bound
	own    Claim // of the other things; its amount is also that of the whole claim

	mu      sync.Mutex
	session ledger.Session // in which taken was taken
	taken   int64          // of the things that count for all processes
	ended   bool
}

func (c *sharedClaims) claim(of []Bound) *sharedClaim {
	s := &sharedClaim{claims: c, all: of, session: c.ledger.Session()}
	for i, b := range of {
		if b.Of.Kind.IsShared() {
			s.of, s.index = append(s.of, b), append(s.index, i)
		}
	}
	return s
}

func (s *sharedClaim) ownBounds() (own []Bound) {
	for _, b := range s.all {
		if !b.Of.Kind.IsShared() {
			own = append(own, b)
		}
	}
	return own
}

// ownError gives an error of the process's own things the index of the bound among all.
func (s *sharedClaim) ownError(err error) error {
	full, isFull := errors.AsType[*NoRoom](err)
	if !isFull {
		return err
	}
	at := -1
	for i, b := range s.all {
		if !b.Of.Kind.IsShared() {
			if at++; at == full.Bound {
				return &NoRoom{Bound: i, Room: full.Room, Note: full.Note}
			}
		}
	}
	return err
}

// take takes more of the things that count for all processes, or as much as there is of it. It returns how much it took.
func (s *sharedClaim) take(by int64, upTo bool) (int64, error) {
	if by == 0 && upTo {
		return 0, nil
	}
	in := s.renew()
	got := by
	if !s.claims.takeLeased(s.of, by, in) {
		var err error
		if got, err = s.takeByOperation(by, upTo, in); err != nil {
			return 0, err
		}
		s.claims.mu.Lock()
		s.claims.note(s.of, got)
		s.claims.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		s.claims.giveBack(s.of, in, got)
		return 0, errEnded
	case s.session != in: // it has ended meanwhile
		return 0, errEnded
	}
	s.taken += got
	return got, nil
}

// takeByOperation is take by an operation, which decides and takes in one step. If too little is free, it waits for what other processes have
// leased ahead.
func (s *sharedClaim) takeByOperation(by int64, upTo bool, in ledger.Session) (int64, error) {
	try := func(last bool) (int64, error) {
		return ledger.Do(context.Background(), s.claims.ledger, func(tx *ledger.Tx) (int64, error) {
			if tx.Session() != in {
				return 0, errEnded
			}
			room, err := s.claims.enoughIn(tx, s.of, by)
			if err != nil {
				return 0, err
			}
			n := by
			if upTo && (last || room.ahead == 0) {
				n = max(0, min(by, room.Room))
			}
			if n > max(0, room.Room) {
				room.Bound = s.index[room.Bound]
				return 0, room
			}
			if n == 0 {
				return 0, nil
			}
			return n, s.claims.add(tx, s.of, n)
		})
	}
	got, err := try(!allLeased(s.of))
	if _, isFull := errors.AsType[*NoRoom](err); isFull && upTo {
		return try(true)
	}
	return got, err
}

// renew forgets what the claim had taken, if other processes have ended the session in which it did. The claim can then take what there is.
func (s *sharedClaim) renew() (in ledger.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.claims.ledger.Session(); now != s.session {
		s.own.GiveBack(s.taken)
		s.session, s.taken = now, 0
	}
	return s.session
}

// Amount is [Claim]'s.
func (s *sharedClaim) Amount() int64 {
	s.renew()
	return s.own.Amount()
}

// Extend is [Claim]'s.
func (s *sharedClaim) Extend(by int64) error {
	if err := s.own.Extend(by); err != nil {
		return s.ownError(err)
	}
	_, err := s.take(by, false)
	if err != nil {
		s.own.GiveBack(by)
	}
	return err
}

// ExtendUpTo is [Claim]'s.
func (s *sharedClaim) ExtendUpTo(by int64) (int64, error) {
	own, err := s.own.ExtendUpTo(by)
	if err != nil {
		return 0, err
	}
	got, err := s.take(own, true)
	s.own.GiveBack(own - got)
	return got, err
}

// Room is [Claim]'s.
func (s *sharedClaim) Room() (int64, error) {
	own, err := s.own.Room()
	if err != nil {
		return 0, err
	}
	session, read := s.claims.ledger.Session(), s.claims.ledger.View
	if allLeased(s.of) {
		read = s.claims.ledger.Look
	}
	err = read(func(r ledger.Reader) error {
		valid, err := ledger.Sessions(r)
		if err != nil {
			return err
		}
		room, err := s.claims.roomOf(r, s.of, valid, session)
		if err == nil {
			own = min(own, room.Room)
		}
		return err
	})
	return own, err
}

// GiveBack is [Claim]'s. It does not wait until the other processes can have it.
func (s *sharedClaim) GiveBack(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = min(n, s.taken); n <= 0 || s.ended {
		return
	}
	s.own.GiveBack(n)
	s.taken -= n
	s.claims.giveBack(s.of, s.session, n)
}

// Settle is [Claim]'s.
func (s *sharedClaim) Settle(t *Tx) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	if s.taken > 0 && s.session == t.ledger.Session() {
		if err := s.claims.add(t.ledger, s.of, -s.taken); err != nil {
			return err
		}
	}
	t.ledger.OnCommit(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended, s.taken = true, 0
		s.own.End()
	})
	return nil
}

// End is [Claim]'s. It does not wait until the other processes can have what it gives back.
func (s *sharedClaim) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.own.End()
	if s.taken > 0 {
		s.claims.giveBack(s.of, s.session, s.taken)
	}
}
