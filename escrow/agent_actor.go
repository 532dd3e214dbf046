package escrow

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Actor is the caller of an operation: an agent with one of its keys, or the operator.
type Actor struct {
	Agent    string   // empty for the operator, and for a caller without a key
	Key      string   // the id of the key that was used, if any
	Operator bool     // may act for any agent; each of its acts is written to the audit log
	ReadOnly bool     // the key may only read
	Payees   []string // if not empty, the key may pay only these
	Models   []string // if not empty, globs of the only models that the key may call
	Routes   []string // if not empty, globs of the only metered routes that the key may call
	Expires  bool     // the key ends at some time
	Pace     Pace     // of the key
	Agents   Pace     // of the agent, whichever of its keys is used
	Barred   string   // if not empty, the agent is "suspended" or "closed", and may only read
	Why      string   // the reason that the operator gave for that
}

// mayMove refuses callers that may not move money: those without a key or with a read-only key.
func (a Actor) mayMove() error {
	switch {
	case a.Operator:
		return nil
	case a.Agent == "":
		return refuse(Unauthorized, nil, "a key is needed")
	case a.Barred != "":
		return barred(a.Barred, a.Why)
	case a.ReadOnly:
		return refuse(Forbidden, nil, "this key is read-only: it moves nothing")
	default:
		return nil
	}
}

// MayCall refuses an agent that is suspended or closed: it makes no metered calls, even if they cost nothing.
func (a Actor) MayCall() error {
	if a.Barred != "" {
		return barred(a.Barred, a.Why)
	}
	return nil
}

// mayPay refuses a key that may pay only other payees. Everything that is spent passes it in [Tx.spend].
func (a Actor) mayPay(payee string) error {
	if err := a.mayMove(); err != nil {
		return err
	}
	if len(a.Payees) > 0 && !slices.Contains(a.Payees, payee) {
		return refuse(Forbidden, map[string]string{"payee": payee}, "this key may pay only other payees than %q", payee)
	}
	return nil
}

// operatorKey tells an operator whose key is not accepted where the right one is. is says what is wrong with the key, if there is a right one.
func (r Rules) operatorKey(is string) string {
	if r.OperatorKeyHash == [32]byte{} {
		return "no operator's key is configured: set operator_key in the global option tallygate, and reload"
	}
	return is + ": that is the one in operator_key in the global option tallygate"
}

// OnlyOperator refuses a caller who is not the operator. what names the act.
func (b *Book) OnlyOperator(what string) error {
	return refuse(Forbidden, nil, "only the operator may %s, and this is an agent's key; %s", what, b.rules.operatorKey("send the operator's key"))
}

// isOperator refuses all callers but the operator. what names the act in the refusal.
func (a Actor) isOperator(what string) error {
	if a.Operator {
		return nil
	}
	if a.Agent == "" {
		return refuse(Unauthorized, nil, "%s is only for the operator: the operator's key is needed", what)
	}
	return refuse(Forbidden, nil, "%s is only for the operator", what)
}

// ReadsFor returns the agent whose data the caller reads. An agent may only read its own data; the operator names any agent.
func (b *Book) ReadsFor(by Actor, agent string) (string, error) {
	switch {
	case by.Operator && agent == string(ledger.Commission):
		return agent, nil
	case by.Operator:
		err := b.view(func(r ledger.Reader) error {
			_, err := namedAgent(r, "agent_id", agent)
			return err
		})
		return agent, err
	case by.Agent == "":
		return "", refuse(Unauthorized, nil, "a key is needed")
	case agent != "" && agent != by.Agent:
		return "", refuse(NotFound, nil, "agent_id %.80q is not the key's agent; only the operator looks at others", agent)
	default:
		return by.Agent, nil
	}
}

// ListsFor is like [Book.ReadsFor], for lists of all agents, which the operator gets by naming no agent.
func (b *Book) ListsFor(by Actor, agent string) (string, error) {
	if by.Operator && agent == "" {
		return "", nil
	}
	return b.ReadsFor(by, agent)
}

// actsFor is like [Book.ReadsFor], for operations that change something. field is the name of the request's field for the agent.
func (t *Tx) actsFor(by Actor, field, agent string) (string, error) {
	if err := by.mayMove(); err != nil {
		return "", err
	}
	if by.Operator {
		_, err := t.agent(field, agent)
		return agent, err
	}
	if agent != "" && agent != by.Agent {
		return "", refuse(Forbidden, nil, "%s %q is not the key's agent; only the operator acts for others", field, agent)
	}
	return by.Agent, nil
}

// PaysIn returns the agent into whose wallet a caller has somebody pay. An agent that is suspended may do this too, since it may owe money.
func (b *Book) PaysIn(by Actor, agent string) (string, error) {
	id, err := b.ReadsFor(by, agent)
	if err != nil {
		return "", err
	}
	if by.ReadOnly {
		return "", refuse(Forbidden, nil, "this key is read-only")
	}
	if id == string(ledger.Commission) {
		return "", invalid("agent_id", "nobody pays into the commission")
	}
	a, _, err := b.Agent(id)
	if err == nil && a.status() == agentClosed {
		err = refuse(InvalidStatus, map[string]string{"agent_status": agentClosed}, "the agent %q is closed", id)
	}
	return id, err
}

// Act is one line of the audit log: what the operator did.
type Act struct {
	ID      string    `cbor:"1,keyasint"`
	What    string    `cbor:"2,keyasint"` // "escrow.release", "wallet.deposit", ...
	Subject string    `cbor:"3,keyasint"` // the agent, escrow, or charge
	Detail  string    `cbor:"4,keyasint,omitempty"`
	At      time.Time `cbor:"5,keyasint"`
}

// audit records what the operator does, in the same operation. Acts of agents need no log, since the books show them.
func (t *Tx) audit(by Actor, what, subject, detail string) error {
	if !by.Operator {
		return nil
	}
	act := Act{ID: t.process.ids.next("act_", t.Now()), What: what, Subject: subject, Detail: detail, At: t.Now()}
	return t.put(auditTable.key(act.ID), act)
}

// Audit lists what the operator did, newest first. next is the Before of the next page, empty at the end.
func (b *Book) Audit(p Page) (acts []Act, next string, err error) {
	log := list[Act]{table: auditTable, item: func(_ ledger.Reader, id string, value []byte) (act Act, wanted bool, err error) {
		return act, true, decode(auditTable.key(id), value, &act)
	}}
	err = b.view(func(r ledger.Reader) error {
		acts, next, err = log.page(r, p)
		return err
	})
	return acts, next, err
}
