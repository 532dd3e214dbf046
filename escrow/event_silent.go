package escrow

import (
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// silent knows agents without webhooks, which most agents are. So the operations of a call do not search for them. It is used only by
// operations, which run one after another. If other processes share the ledger, it knows none.
type silent struct {
	mu     sync.Mutex // a run may be undone while another one begins
	agents map[string]struct{}
	shared bool
}

const maxSilent = 100_000 // beyond it all are forgotten

func newSilent(l *ledger.Ledger) *silent {
	return &silent{agents: make(map[string]struct{}), shared: l.IsShared()}
}

func (s *silent) has(agent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.agents[agent]
	return has
}

func (s *silent) add(agent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.agents) >= maxSilent {
		clear(s.agents)
	}
	s.agents[agent] = struct{}{}
}

func (s *silent) remove(agent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.agents, agent)
}

// webhooks returns the webhooks of an agent as this operation sees them.
func (t *Tx) webhooks(agent string) ([]Webhook, error) {
	silent := t.process.silent
	if silent.has(agent) {
		return nil, nil
	}
	hooks, err := webhooks(t.ledger, agent)
	if err == nil && len(hooks) == 0 && !silent.shared {
		silent.add(agent)
		t.ledger.OnUndo(func() { silent.remove(agent) }) // what is undone with this operation may be the end of a webhook
	}
	return hooks, err
}
