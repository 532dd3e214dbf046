package escrow

import (
	"hash/maphash"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A call takes of several things, one after the other: room of limits, a quota, credits, money. If there is too little of one, it gives back what
// it has taken of the others. Until then, other calls of the payer find less than there is. Without more, of two calls at the same time each could
// take what the other needs, so that both are refused; and a call that can't be served could have one refused for which there is enough.
//
// So a call that finds too little tries again while no other of the payer is in the middle of that. Processes that share a ledger don't know of
// each other's calls, and what they take may be an operation of a database, for which others must not wait. There a call tries only once.

// take runs f, which takes of several things of an agent: all that it needs, or else nothing.
func (b *Book) take(agent string, f func() error) (err error) {
	b.takeUpTo(agent, func() (enough bool) {
		err = f()
		outcome := ledger.OutcomeOf(err)
		return outcome != InsufficientFunds && outcome != LimitExceeded
	})
	return err
}

// takeUpTo runs f, which takes as much as there is of several things of an agent, and reports whether that is enough. If it is not, f runs once
// more.
func (b *Book) takeUpTo(agent string, f func() (enough bool)) {
	if b.process.shared {
		f()
		return
	}
	lock := b.process.taking.of(agent)
	lock.RLock()
	enough := f()
	lock.RUnlock()
	if !enough {
		lock.Lock()
		defer lock.Unlock()
		f()
	}
}

// agentLocks are locks for what one agent does in memory, in an instant. Agents share a few locks, so nothing may wait under one of them.
type agentLocks struct {
	seed  maphash.Seed
	locks *[64]sync.RWMutex
}

func newAgentLocks() agentLocks {
	return agentLocks{seed: maphash.MakeSeed(), locks: new([64]sync.RWMutex)}
}

func (l agentLocks) of(agent string) *sync.RWMutex {
	return &l.locks[maphash.String(l.seed, agent)%uint64(len(l.locks))]
}
