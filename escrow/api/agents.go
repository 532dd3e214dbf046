package api

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// agentOut is a new agent.
type agentOut struct {
	AgentID   string    `json:"agent_id"`
	Name      string    `json:"name,omitempty"`
	APIKey    string    `json:"api_key,omitempty" jsonschema:"shown once, at creation"`
	KeyID     string    `json:"key_id,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

func (a agentOut) withoutSecret() any { a.APIKey = ""; return a }

type meOut struct {
	AgentID   string     `json:"agent_id"`
	Name      string     `json:"name,omitempty"`
	Operator  bool       `json:"operator,omitempty"`
	KeyID     string     `json:"key_id,omitempty" jsonschema:"the key that this request came with"`
	ReadOnly  bool       `json:"read_only,omitempty"`
	Payees    []string   `json:"payees,omitempty" jsonschema:"the only agents that the key may pay; missing: any"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
}

type createAgent struct {
	AgentID string `json:"agent_id,omitempty" jsonschema:"letters, digits and . _ : @ -, at most 64; missing: one is generated"`
	Name    string `json:"name,omitempty"`
}

func agentRoutes() []route {
	return []route{
		post("/agents", "createAgent", "Make an agent and its first key", func(r *request, t *escrow.Tx, in *createAgent) (agentOut, error) {
			agent, key, secret, err := t.CreateAgent(r.by, escrow.AgentOrder{ID: in.AgentID, Name: in.Name})
			return agentOut{AgentID: agent.ID, Name: agent.Name, APIKey: secret, KeyID: key.ID, CreatedAt: agent.CreatedAt}, err
		}).open().creates().throttled(registrations),
		get("/agents", "listAgents", "All agents", listAgents).operators(),
		get("/agents/me", "getMe", "The agent, or operator, that the key belongs to", getMe),
		post("/agents/me/keys", "createKey", "Make a further key", createKey).creates(),
		get("/agents/me/keys", "listKeys", "The agent's keys, revoked ones included", listKeys),
		del("/agents/me/keys/{id}", "revokeKey", "Revoke a key", func(r *request, t *escrow.Tx, in *ofAgentByID) error {
			return t.RevokeKey(r.by, in.AgentID, in.ID)
		}),
		get("/audit", "listAudit", "What the operator did", listAudit).operators(),
	}
}

func getMe(r *request, _ *none) (meOut, error) {
	out := meOut{AgentID: r.by.Agent, Operator: r.by.Operator, KeyID: r.by.Key, ReadOnly: r.by.ReadOnly, Payees: r.by.Payees}
	if r.by.Operator {
		out.AgentID = "operator"
		return out, nil
	}
	agent, _, err := r.book.Agent(r.by.Agent)
	out.Name, out.CreatedAt = agent.Name, optionalTime(agent.CreatedAt)
	return out, err
}

type agentsOut struct {
	Agents     []listedAgent `json:"agents"`
	NextCursor *string       `json:"next_cursor"`
}

type listedAgent struct {
	AgentID   string        `json:"agent_id"`
	Name      string        `json:"name,omitempty"`
	Origin    escrow.Origin `json:"origin"`
	CreatedAt time.Time     `json:"created_at"`
}

type listIn struct {
	paging
}

func listAgents(r *request, in *listIn) (out agentsOut, err error) {
	page := in.page()
	if page.Limit == 0 {
		page.Limit = escrow.DefaultPage
	}
	agents, place, err := r.book.Agents(page.Before, min(page.Limit, escrow.MaxPage))
	out.Agents = each(agents, AgentOf)
	out.NextCursor = next(r, place)
	return out, err
}

type keyIn struct {
	AgentID  string   `json:"agent_id,omitempty" jsonschema:"whose key it will be; only the operator gives it"`
	Name     string   `json:"name,omitempty"`
	ReadOnly bool     `json:"read_only,omitempty" jsonschema:"the key may read, and move no money"`
	Payees   []string `json:"payees,omitempty" jsonschema:"the only agents that the key may pay; missing: any"`
}

type keyOut struct {
	KeyID     string     `json:"key_id"`
	APIKey    string     `json:"api_key,omitempty" jsonschema:"shown once, at creation"`
	Name      string     `json:"name,omitempty"`
	ReadOnly  bool       `json:"read_only"`
	Payees    []string   `json:"payees,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	RevokedAt *time.Time `json:"revoked_at"`
}

func (k keyOut) withoutSecret() any { k.APIKey = ""; return k }

func keyAnswer(k escrow.Key) keyOut {
	return keyOut{KeyID: k.ID, Name: k.Name, ReadOnly: k.ReadOnly, Payees: k.Payees, CreatedAt: k.CreatedAt, RevokedAt: optionalTime(k.RevokedAt)}
}

func createKey(r *request, t *escrow.Tx, in *keyIn) (keyOut, error) {
	key, secret, err := t.CreateKey(r.by, in.AgentID, escrow.KeyOrder{Name: in.Name, ReadOnly: in.ReadOnly, Payees: in.Payees})
	out := keyAnswer(key)
	out.APIKey = secret
	return out, err
}

type keysOut struct {
	Keys       []keyOut `json:"keys"`
	NextCursor *string  `json:"next_cursor"`
}

// listOfAgent are the parameters of a list of an agent's things.
type listOfAgent struct {
	ofAgent
	paging
}

func listKeys(r *request, in *listOfAgent) (keysOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return keysOut{}, err
	}
	keys, err := r.book.Keys(agent)
	if err != nil {
		return keysOut{}, err
	}
	page, at, err := pageOf(keys, in.paging, func(k escrow.Key) string { return k.ID })
	return keysOut{Keys: each(page, keyAnswer), NextCursor: next(r, at)}, err
}

type auditOut struct {
	Audit      []actOut `json:"audit"`
	NextCursor *string  `json:"next_cursor"`
}

type actOut struct {
	ID        string    `json:"id"`
	What      string    `json:"what"`
	Subject   string    `json:"subject"`
	Detail    string    `json:"detail,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

func listAudit(r *request, in *listIn) (auditOut, error) {
	acts, place, err := r.book.Audit(in.page())
	return auditOut{Audit: each(acts, func(a escrow.Act) actOut {
		return actOut{ID: a.ID, What: a.What, Subject: a.Subject, Detail: a.Detail, CreatedAt: a.At}
	}), NextCursor: next(r, place)}, err
}

// each returns the answers for a list. An empty list is an empty array in JSON, not null.
func each[In, Out any](list []In, answer func(In) Out) []Out {
	out := make([]Out, 0, len(list))
	for _, item := range list {
		out = append(out, answer(item))
	}
	return out
}

// optionalTime returns a time that is null in JSON if at is zero.
func optionalTime(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}
