package escrow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A watch tells a reader, such as an open page, that something of an agent has changed: its wallet, a charge, an escrow, a subscription, a
// credit or a key. It does not tell what. The reader asks for that in the usual way, so it learns only what it may know, and a reader that is
// slow misses nothing: for all that happened since it last asked there is one message.

const (
	watchesOf = 10   // of one agent
	watchesBy = 1000 // of all agents; those of the operator do not count
)

// Watch hears of the changes of one agent, or of all agents.
type Watch struct {
	watches *watches
	agent   string
	changed chan struct{} // has room for one
	claim   Claim
	shared  bool
}

// watches are the watches of a process, and marks that count changes.
type watches struct {
	mu sync.Mutex
	of map[string]map[*Watch]struct{} // by agent; those of the operator are below TheOperator

	seed  maphash.Seed
	begun string              // tells the marks of this process from those of others
	marks [1024]atomic.Uint64 // the changes of the agents whose hash leads here
	all   atomic.Uint64       // the changes of all agents
}

func newWatches() *watches {
	return &watches{of: make(map[string]map[*Watch]struct{}), seed: maphash.MakeSeed(), begun: rand.Text()[:8]}
}

// counter returns the counter of an agent's changes. Agents may share one: then one of them hears of nothing new.
func (w *watches) counter(agent string) *atomic.Uint64 {
	if agent == TheOperator {
		return &w.all
	}
	return &w.marks[maphash.String(w.seed, agent)%uint64(len(w.marks))]
}

func (w *watches) mark(agent string) string {
	return fmt.Sprintf("%s-%d", w.begun, w.counter(agent).Load())
}

// tell tells the watches of agents, and those of the operator, that something has changed. It never waits for a reader.
func (w *watches) tell(agents []string) {
	w.all.Add(1)
	for _, agent := range agents {
		if agent != TheOperator {
			w.counter(agent).Add(1)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.of) == 0 {
		return
	}
	for _, agent := range append(agents, TheOperator) {
		for watch := range w.of[agent] {
			watch.wake()
		}
	}
}

func (w *Watch) wake() {
	select {
	case w.changed <- struct{}{}:
	default: // it has not looked at the last change yet
	}
}

// changed tells the watches of agents when the operation is durable.
func (t *Tx) changed(agents ...string) {
	watches := t.process.watches
	t.ledger.OnCommit(func() { watches.tell(agents) })
}

// Mark returns a text that changes when something of an agent changes. An empty agent stands for all.
func (b *Book) Mark(agent string) string { return b.process.watches.mark(agent) }

// Watch returns a watch of an agent; an empty one stands for all agents, which only the operator may watch. If the agent's [Book.Mark] is not
// since any more, the watch begins with a change. The caller must call End.
func (b *Book) Watch(ctx context.Context, agent, since string) (*Watch, error) {
	bounds := []Bound{{Of: Thing{Kind: OpenWatch, Owner: agent, Name: "of one"}, Most: watchesOf}}
	if agent != TheOperator {
		bounds = append(bounds, Bound{Of: Thing{Kind: OpenWatch}, Most: watchesBy})
	}
	claim, err := b.process.claims.Take(ctx, 1, bounds...)
	if full := (*NoRoom)(nil); errors.As(err, &full) {
		return nil, refuse(RateLimited, map[string]string{"retry_after": "15"}, "too many pages are open")
	} else if err != nil {
		return nil, err
	}
	watches := b.process.watches
	w := &Watch{watches: watches, agent: agent, changed: make(chan struct{}, 1), claim: claim, shared: b.ledger.IsShared()}
	watches.mu.Lock()
	if watches.of[agent] == nil {
		watches.of[agent] = make(map[*Watch]struct{})
	}
	watches.of[agent][w] = struct{}{}
	watches.mu.Unlock()
	if watches.mark(agent) != since {
		w.wake()
	}
	return w, nil
}

// Changed receives a value when something has changed.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Mark is the agent's [Book.Mark].
func (w *Watch) Mark() string { return w.watches.mark(w.agent) }

// IsPartial reports whether there may be changes that the watch does not hear of, since other processes share the ledger.
func (w *Watch) IsPartial() bool { return w.shared }

// End ends the watch.
func (w *Watch) End() {
	w.watches.mu.Lock()
	defer w.watches.mu.Unlock()
	delete(w.watches.of[w.agent], w)
	if len(w.watches.of[w.agent]) == 0 {
		delete(w.watches.of, w.agent)
	}
	w.claim.End()
}

// ownersOf returns the agents whose wallets are among accounts.
func ownersOf(accounts ...ledger.AccountID) (agents []string) {
	for _, id := range accounts {
		if agent := accountName(id); id == ledger.Wallet(agent) {
			agents = append(agents, agent)
		}
	}
	return agents
}
