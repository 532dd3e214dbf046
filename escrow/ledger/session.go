package ledger

import (
	"crypto/rand"
	"errors"
	"slices"
)

// Session is one opening of a ledger by one process. What a process leaves in the books only for as long as it runs carries its session,
// so that others leave it alone until the session is over. The zero Session is that of programs that knew none: it is over.
type Session struct {
	Epoch   uint64 `cbor:"1,keyasint,omitempty"` // counts the openings of the ledger
	Process string `cbor:"2,keyasint,omitempty"` // random: a ledger restored from a backup may count an epoch twice
}

// Shared is implemented by stores that several processes may have open at once. On any other store, whoever opens it knows that all
// sessions before are over.
type Shared interface {
	// Shared does nothing.
	Shared()
}

// Session returns the session in which the operation runs.
func (tx *Tx) Session() Session { return tx.ledger.session }

// Over reports whether a session has ended. On a shared store that is when its ledger was closed.
func (tx *Tx) Over(s Session) (bool, error) {
	meta, err := readMeta(tx.w)
	return !slices.Contains(meta.Sessions, s), err
}

// beginSession takes the next epoch. A store that was opened for reading gives none, and needs none.
func (l *Ledger) beginSession() error {
	process := rand.Text()
	_, isShared := l.store.(Shared)
	session, err := submit(l.store, func(w Writer) (Session, error) {
		meta, err := readMeta(w)
		if err != nil {
			return Session{}, err
		}
		if !isShared {
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

// endSession tells the other processes on a shared store that this one is done.
func (l *Ledger) endSession() error {
	if _, isShared := l.store.(Shared); !isShared || l.session == (Session{}) {
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
