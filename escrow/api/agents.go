package api

import (
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
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
		put("/agents/me", "changeAgent", "Change the agent's name", func(r *request, t *escrow.Tx, in *changeAgent) (listedAgent, error) {
			agent, err := t.RenameAgent(r.by, in.AgentID, in.Name)
			return AgentOf(agent), err
		}),
		post("/agents/me/keys", "createKey", "Make a further key", createKey).creates(),
		put("/agents/me/keys/{id}", "changeKey", "Change what a key may do; what is missing stays as it is", changeKey),
		post("/agents/me/keys/{id}/rotate", "rotateKey", "Replace a key's secret; the old one is valid for overlap_hours more", rotateKey),
		get("/agents/me/keys", "listKeys", "The agent's keys, revoked ones included", listKeys),
		del("/agents/me/keys/{id}", "revokeKey", "Revoke a key", func(r *request, t *escrow.Tx, in *ofAgentByID) error {
			return t.RevokeKey(r.by, in.AgentID, in.ID)
		}),
		get("/agents/{id}", "getAgent", "An agent, its wallet, and what the operator has set for it", getAgent).operators(),
		put("/agents/{id}/limits", "setAgentLimits", "Limit what an agent may spend, and how often it may call; the agent can't lift this", setAgentLimits).operators(),
		post("/agents/{id}/suspend", "suspendAgent", "Suspend an agent: it may only read", func(r *request, t *escrow.Tx, in *reasonedIn) (listedAgent, error) {
			agent, err := t.Suspend(r.by, in.ID, in.Reason)
			return AgentOf(agent), err
		}).operators(),
		post("/agents/{id}/resume", "resumeAgent", "End the suspension of an agent", func(r *request, t *escrow.Tx, in *byID) (listedAgent, error) {
			agent, err := t.Resume(r.by, in.ID)
			return AgentOf(agent), err
		}).operators(),
		post("/agents/{id}/close", "closeAgent", "Close an agent for ever, and book its money out", closeAgent).operators(),
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
	Status    string        `json:"status" jsonschema:"active, suspended or closed"`
	Reason    string        `json:"reason,omitempty" jsonschema:"why it is suspended or closed"`
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
	Models   []string `json:"models,omitempty" jsonschema:"globs of the only models that the key may call; missing: any"`
	Routes   []string `json:"routes,omitempty" jsonschema:"globs of the only metered routes that the key may call, as /tariffs names them; missing: any"`
	Rate     *rate    `json:"rate,omitempty" jsonschema:"how often the key may call; missing: no limit"`

	ExpiresAt time.Time `json:"expires_at,omitzero" jsonschema:"when the key ends; missing: never"`
}

// rate is how often a key or an agent may call.
type rate struct {
	Requests int64 `json:"requests_per_minute,omitempty" jsonschema:"missing: no limit"`
	Tokens   int64 `json:"tokens_per_minute,omitempty" jsonschema:"missing: no limit"`
}

func (r *rate) pace() escrow.Pace {
	if r == nil {
		return escrow.Pace{}
	}
	return escrow.Pace(*r)
}

func rateAnswer(p escrow.Pace) *rate {
	if (p == escrow.Pace{}) {
		return nil
	}
	out := rate(p)
	return &out
}

// keyChange has pointers, since a field that is missing stays as it is.
type keyChange struct {
	ID        string    `path:"id"`
	AgentID   string    `json:"agent_id,omitempty" jsonschema:"whose key it is; only the operator gives it"`
	Name      *string   `json:"name,omitempty"`
	ReadOnly  *bool     `json:"read_only,omitempty"`
	Payees    *[]string `json:"payees,omitempty" jsonschema:"empty: any"`
	Models    *[]string `json:"models,omitempty" jsonschema:"empty: any"`
	Routes    *[]string `json:"routes,omitempty" jsonschema:"empty: any"`
	Rate      *rate     `json:"rate,omitempty" jsonschema:"empty: no limit"`
	ExpiresAt *string   `json:"expires_at,omitempty" jsonschema:"empty: never"`
}

type rotateIn struct {
	ID      string   `path:"id"`
	AgentID string   `json:"agent_id,omitempty" jsonschema:"whose key it is; only the operator gives it"`
	Overlap *overlap `json:"overlap_hours,omitempty" jsonschema:"how long the old secret stays valid; missing: 24"`
}

// overlap is a number of hours that may be 0.
type overlap hours

// UnmarshalJSON reads a number or a string.
func (o *overlap) UnmarshalJSON(text []byte) error {
	if s := strings.Trim(string(text), `"`); s == "0" || s == "0.0" {
		*o = 0
		return nil
	}
	return (*hours)(o).UnmarshalJSON(text)
}

// MarshalJSON writes a number.
func (o overlap) MarshalJSON() ([]byte, error) { return hours(o).MarshalJSON() }

type keyOut struct {
	KeyID     string     `json:"key_id"`
	APIKey    string     `json:"api_key,omitempty" jsonschema:"shown once, at creation"`
	Name      string     `json:"name,omitempty"`
	ReadOnly  bool       `json:"read_only"`
	Payees    []string   `json:"payees,omitempty"`
	Models    []string   `json:"models,omitempty"`
	Routes    []string   `json:"routes,omitempty"`
	Rate      *rate      `json:"rate,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	RotatedAt *time.Time `json:"rotated_at,omitempty" jsonschema:"when the key got its present secret, if that is not its first"`
	OldUntil  *time.Time `json:"old_key_until,omitempty" jsonschema:"until when the secret before is valid"`
	RevokedAt *time.Time `json:"revoked_at"`
}

func (k keyOut) withoutSecret() any { k.APIKey = ""; return k }

func keyAnswer(k escrow.Key) keyOut {
	return keyOut{
		KeyID: k.ID, Name: k.Name, ReadOnly: k.ReadOnly, Payees: k.Payees, Models: k.Models, Routes: k.Routes, Rate: rateAnswer(k.Pace), CreatedAt: k.CreatedAt,
		ExpiresAt: optionalTime(k.ExpiresAt), RotatedAt: optionalTime(k.RotatedAt), OldUntil: optionalTime(k.OldUntil), RevokedAt: optionalTime(k.RevokedAt),
	}
}

func createKey(r *request, t *escrow.Tx, in *keyIn) (keyOut, error) {
	key, secret, err := t.CreateKey(r.by, in.AgentID, escrow.KeyOrder{
		Name: in.Name, ReadOnly: in.ReadOnly, Payees: in.Payees, Models: in.Models, Routes: in.Routes, Pace: in.Rate.pace(), ExpiresAt: in.ExpiresAt,
	})
	out := keyAnswer(key)
	out.APIKey = secret
	return out, err
}

func changeKey(r *request, t *escrow.Tx, in *keyChange) (keyOut, error) {
	var expires time.Time
	if in.ExpiresAt != nil && *in.ExpiresAt != "" {
		var err error
		if expires, err = parseTime(*in.ExpiresAt); err != nil {
			return keyOut{}, invalid("expires_at", "expires_at %.40q: expected a time such as 2026-11-24T12:00:00Z, or nothing for never", *in.ExpiresAt)
		}
	}
	key, err := t.ChangeKey(r.by, in.AgentID, in.ID, func(o escrow.KeyOrder) escrow.KeyOrder {
		replace(&o.Name, in.Name)
		replace(&o.ReadOnly, in.ReadOnly)
		replace(&o.Payees, in.Payees)
		replace(&o.Models, in.Models)
		replace(&o.Routes, in.Routes)
		if in.Rate != nil {
			o.Pace = in.Rate.pace()
		}
		if in.ExpiresAt != nil {
			o.ExpiresAt = expires
		}
		return o
	})
	return keyAnswer(key), err
}

// replace sets a value to the one that a request gives, if it gives one.
func replace[T any](value, by *T) {
	if by != nil {
		*value = *by
	}
}

func rotateKey(r *request, t *escrow.Tx, in *rotateIn) (keyOut, error) {
	overlap := 24 * time.Hour
	if in.Overlap != nil {
		overlap = time.Duration(*in.Overlap)
	}
	key, secret, err := t.RotateKey(r.by, in.AgentID, in.ID, overlap)
	out := keyAnswer(key)
	out.APIKey = secret
	return out, err
}

type changeAgent struct {
	AgentID string `json:"agent_id,omitempty" jsonschema:"which agent; only the operator gives it"`
	Name    string `json:"name"`
}

type reasonedIn struct {
	ID     string `path:"id"`
	Reason string `json:"reason,omitempty" jsonschema:"the other party is told it"`
}

type agentLimitsIn struct {
	ID     string     `path:"id"`
	Limits *[]limitIn `json:"limits,omitempty" jsonschema:"all limits of the operator for the agent; missing: they stay as they are"`
	Rate   *rate      `json:"rate,omitempty" jsonschema:"how often the agent may call; missing: it stays as it is"`
}

type agentLimitsOut struct {
	AgentID string     `json:"agent_id"`
	Limits  []limitOut `json:"limits" jsonschema:"all limits of the agent, whoever set them"`
	Rate    *rate      `json:"rate"`
}

// setAgentLimits sets the operator's limits of an agent, and how often it may call.
func setAgentLimits(r *request, t *escrow.Tx, in *agentLimitsIn) (out agentLimitsOut, err error) {
	out.AgentID = in.ID
	if _, _, err := t.Bounds(r.by, in.ID); err != nil {
		return out, err
	}
	if in.Rate != nil {
		if _, err := t.SetPace(r.by, in.ID, in.Rate.pace()); err != nil {
			return out, err
		}
	}
	if in.Limits != nil {
		if _, err := t.SetLimits(r.by, in.ID, each(*in.Limits, limitIn.limit)); err != nil {
			return out, err
		}
	}
	agent, limits, err := t.Bounds(r.by, in.ID)
	out.Limits, out.Rate = each(limits, limitAnswer), rateAnswer(agent.Pace)
	return out, err
}

type agentAccountOut struct {
	listedAgent
	Wallet walletOut     `json:"wallet"`
	Debt   ledger.Amount `json:"debt,omitzero" jsonschema:"what is owed, since a payment was taken back after its money was spent"`
	Limits []limitOut    `json:"limits" jsonschema:"all limits of the agent, whoever set them"`
	Rate   *rate         `json:"rate"`
}

func getAgent(r *request, in *byID) (agentAccountOut, error) {
	agent, w, err := r.book.Account(r.Context(), r.by, in.ID)
	if err != nil {
		return agentAccountOut{}, err
	}
	debt, err := r.book.Debt(in.ID)
	if err != nil {
		return agentAccountOut{}, err
	}
	limits, err := r.book.Limits(in.ID)
	return agentAccountOut{listedAgent: AgentOf(agent), Wallet: walletAnswer(w), Debt: debt, Limits: each(limits, limitAnswer), Rate: rateAnswer(agent.Pace)}, err
}

type closeIn struct {
	ID        string `path:"id"`
	Reason    string `json:"reason,omitempty" jsonschema:"the agent is told it"`
	Reference string `json:"reference,omitempty" jsonschema:"of the payout, as for a withdrawal"`
	Memo      string `json:"memo,omitempty" jsonschema:"of the payout"`
}

type closedOut struct {
	listedAgent
	Payout paymentOut `json:"payout,omitzero" jsonschema:"the withdrawal of all the money in the wallet; missing if there was none"`
}

func closeAgent(r *request, t *escrow.Tx, in *closeIn) (closedOut, error) {
	c, err := t.CloseAgent(r.by, in.ID, in.Reason, escrow.PaymentOrder{Reference: in.Reference, Memo: in.Memo})
	return ClosedAgentOf(c), err
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
