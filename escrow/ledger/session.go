package ledger

import (
	"crypto/rand"
	"errors"
	"slices"
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

// Session returns the session of this process.
func (tx *Tx) Session() Session { return tx.ledger.session }

// Over reports whether a session has ended. On a shared store, a session ends when its process closes the ledger.
func (tx *Tx) Over(s Session) (bool, error) {
	meta, err := readMeta(tx.w)
	return !slices.Contains(meta.Sessions, s), err
}

// beginSession begins a session with the next epoch. A store that is open for reading has no session, and needs none.
func (l *Ledger) beginSession() error {
	process := rand.Text()
	session, err := submit(l.store, func(w Writer) (Session, error) {
		meta, err := readMeta(w)
		if err != nil {
			return Session{}, err
		}
		if !l.IsShared() {
			meta.Sessions = nil
		}
		meta.Epoch++
		session := Session{Epoch: meta.Epoch, Process: process}
		meta.Sessions = append(meta.Sessions, session)
		w.Put(metaKey, encode(meta))
		return session, nil
	})
	if errors.Is(err, ErrReadOnly) {
		return nil
	}
	l.session = session
	return err
}

// endSession ends the session, so that the other processes on a shared store know that it is over.
func (l *Ledger) endSession() error {
	if !l.IsShared() || l.session == (Session{}) {
		return nil
	}
	_, err := submit(l.store, func(w Writer) (struct{}, error) {
		meta, err := readMeta(w)
		if err != nil {
			return struct{}{}, err
		}
		meta.Sessions = slices.DeleteFunc(meta.Sessions, func(s Session) bool { return s == l.session })
		w.Put(metaKey, encode(meta))
		return struct{}{}, nil
	})
	return err
}
