package escrow

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Origin says how an agent was created.
type Origin string

// The origins of agents.
const (
	SelfRegistered Origin = "self"
	ByOperator     Origin = "operator"
	ByConfig       Origin = "config" // the payee of a configured meter
	ByRail         Origin = "rail"   // an agent that paid by a rail before it was registered
	ByMeter        Origin = "meter"  // an agent that a handler before a meter had identified, at its first call
)

// Agent is a party that pays or is paid.
type Agent struct {
	ID        string        `cbor:"1,keyasint"`
	Name      string        `cbor:"2,keyasint,omitempty"`
	Origin    Origin        `cbor:"3,keyasint"`
	CreatedAt time.Time     `cbor:"4,keyasint"`
	FaucetAt  time.Time     `cbor:"5,keyasint,omitzero"`  // when it claimed the faucet; zero if it has not
	Faucet    ledger.Amount `cbor:"6,keyasint,omitempty"` // what it got from the faucet

	SuspendedAt time.Time `cbor:"7,keyasint,omitzero"`  // zero unless it is suspended
	ClosedAt    time.Time `cbor:"8,keyasint,omitzero"`  // zero unless it is closed
	Reason      string    `cbor:"9,keyasint,omitempty"` // why it is suspended or closed
	Pace        Pace      `cbor:"10,keyasint,omitzero"` // set by the operator
}

// AgentOrder describes a new agent. If ID is empty, one is generated.
type AgentOrder struct{ ID, Name string }

const (
	maxText = 1000 // bytes of a memo, a reason, a note, a name
	maxID   = 64
)

var agentID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}$`)

// reserved are words that are used in places of an agent's id, so no agent may have them as its id.
var reserved = []string{"me", "operator", "world", string(ledger.Commission)}

// CheckAgentID returns a refusal with invalid_request for the field if id can't be the id of an agent.
func CheckAgentID(field, id string) error {
	if !agentID.MatchString(id) {
		return invalid(field, "%s %.80q: 1 to %d letters, digits or . _ : @ -, the first a letter or digit", field, id, maxID)
	}
	if slices.Contains(reserved, id) {
		return invalid(field, "%s %q is a reserved word; choose another", field, id)
	}
	return nil
}

func checkText(field, text string) error {
	if len(text) > maxText {
		return invalid(field, "%s is %d bytes long; at most %d are kept", field, len(text), maxText)
	}
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return invalid(field, "%s is not UTF-8 text, or has a zero byte", field)
	}
	return nil
}

// CreateAgent makes an agent and its first key, and returns the key, which is not stored. by is the zero Actor for an agent that registers
// itself. Refused: forbidden or unauthorized if only the operator may register agents, already_exists.
func (t *Tx) CreateAgent(by Actor, o AgentOrder) (Agent, Key, string, error) {
	if !by.Operator && !t.rules.OpenRegistration {
		if by.Agent == "" {
			return Agent{}, Key{}, "", refuse(Unauthorized, nil, "only the operator may register agents here: the operator's key is needed")
		}
		return Agent{}, Key{}, "", refuse(Forbidden, nil, "only the operator may register agents here")
	}
	if by.ReadOnly {
		return Agent{}, Key{}, "", refuse(Forbidden, nil, "this key is read-only")
	}
	origin := SelfRegistered
	if by.Operator {
		origin = ByOperator
	} else if rail, _, is := strings.Cut(o.ID, ":"); is && slices.Contains(t.rules.Rails, rail) {
		return Agent{}, Key{}, "", refuse(Forbidden, map[string]string{"agent_id": o.ID}, "agents whose id begins with %q are made by payments; choose another agent_id", rail+":")
	}
	agent, err := t.addAgent(o, origin)
	if err != nil {
		return Agent{}, Key{}, "", err
	}
	if err := t.audit(by, "agent.create", agent.ID, ""); err != nil {
		return Agent{}, Key{}, "", err
	}
	key, secret, err := t.addKey(agent.ID, KeyOrder{})
	return agent, key, secret, err
}

func (t *Tx) addAgent(o AgentOrder, origin Origin) (Agent, error) {
	if o.ID == "" {
		o.ID = t.process.ids.next("agt_", t.Now())
	}
	if err := CheckAgentID("agent_id", o.ID); err != nil {
		return Agent{}, err
	}
	if err := checkText("name", o.Name); err != nil {
		return Agent{}, err
	}
	if _, found, err := agentByID(t.ledger, o.ID); err != nil {
		return Agent{}, err
	} else if found {
		return Agent{}, refuse(AlreadyExists, map[string]string{"agent_id": o.ID}, "agent %q exists already; choose another agent_id", o.ID)
	}
	agent := Agent{ID: o.ID, Name: o.Name, Origin: origin, CreatedAt: t.Now()}
	if limits := t.rules.DefaultLimits; len(limits) > 0 && origin != ByConfig {
		if err := t.put(limitTable.key(o.ID), byOperator(limits)); err != nil {
			return Agent{}, err
		}
	}
	t.changed(o.ID)
	return agent, t.put(agentTable.key(o.ID), agent)
}

// Reserve makes the payee of a configuration, if it does not exist. If an agent with that id has registered itself, Reserve returns an error
// that says what to do, since the money of the route would go to a stranger.
func (b *Book) Reserve(ctx context.Context, payee string) error {
	if err := CheckAgentID("payee", payee); err != nil {
		return err
	}
	agent, found, err := b.Agent(payee)
	if err == nil && !found {
		agent, err = Do(ctx, b, func(t *Tx) (Agent, error) {
			if agent, found, err := agentByID(t.ledger, payee); err != nil || found {
				return agent, err
			}
			return t.addAgent(AgentOrder{ID: payee}, ByConfig)
		})
	}
	if err != nil {
		return err
	}
	if agent.Origin == SelfRegistered {
		return fmt.Errorf("payee %q is an agent that registered itself on %s: name another payee in the configuration, or, if it is yours, adopt it with 'tallygate agents add --adopt %s'",
			payee, agent.CreatedAt.Format(time.DateOnly), payee)
	}
	return nil
}

// Admit makes an agent that a handler before a meter has identified, if it does not exist.
func (t *Tx) Admit(id string) (Agent, error) {
	if agent, found, err := agentByID(t.ledger, id); err != nil || found {
		return agent, err
	}
	return t.addAgent(AgentOrder{ID: id}, ByMeter)
}

// Adopt accepts an agent that has registered itself, so that a configuration may name it as a payee. Only the operator may do this.
func (t *Tx) Adopt(by Actor, id string) (Agent, error) {
	if !by.Operator {
		return Agent{}, refuse(Forbidden, nil, "only the operator adopts agents")
	}
	agent, err := t.agent("agent_id", id)
	if err != nil {
		return Agent{}, err
	}
	agent.Origin = ByOperator
	if err := t.audit(by, "agent.adopt", id, ""); err != nil {
		return Agent{}, err
	}
	t.changed(id)
	return agent, t.put(agentTable.key(id), agent)
}

func agentByID(r ledger.Reader, id string) (agent Agent, found bool, err error) {
	found, err = load(r, agentTable.key(id), &agent)
	return agent, found, err
}

// agent returns the agent that a request names in field. If there is none, it returns a refusal with invalid_request.
func (t *Tx) agent(field, id string) (Agent, error) { return namedAgent(t.ledger, field, id) }

func namedAgent(r ledger.Reader, field, id string) (Agent, error) {
	if id == "" {
		return Agent{}, invalid(field, "%s is missing", field)
	}
	if len(id) > maxID {
		return Agent{}, invalid(field, "%s %.80q: no such agent", field, id)
	}
	agent, found, err := agentByID(r, id)
	if err == nil && !found {
		err = invalid(field, "%s %q: no such agent", field, id)
	}
	return agent, err
}

// Agent returns an agent. If there is none with that id, found is false.
func (b *Book) Agent(id string) (agent Agent, found bool, err error) {
	if len(id) > maxID {
		return Agent{}, false, nil
	}
	err = b.view(func(r ledger.Reader) error {
		agent, found, err = agentByID(r, id)
		return err
	})
	return agent, found, err
}

// Agents lists agents in the order of their ids, beginning after the id after. next is the after of the next page, empty at the end.
func (b *Book) Agents(after string, limit int) (agents []Agent, next string, err error) {
	err = b.view(func(r ledger.Reader) error {
		all := agentTable.under()
		all.From = append(agentTable.key(after), 0)
		if after == "" {
			all.From = agentTable.key()
		}
		return r.Scan(all, func(key, value []byte) (bool, error) {
			if len(agents) == limit {
				next = agents[limit-1].ID
				return false, nil
			}
			var agent Agent
			if err := decode(key, value, &agent); err != nil {
				return false, err
			}
			agents = append(agents, agent)
			return true, nil
		})
	})
	return agents, next, err
}
