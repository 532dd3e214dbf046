package escrow

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Actor is who asks: an agent by one of its keys, or the operator.
type Actor struct {
	Agent    string   // empty for the operator, and for one without a key
	Key      string   // the id of the key that was used, if any
	Operator bool     // may act for any agent; each act of it is written to the audit log
	ReadOnly bool     // the key may look but move nothing
	Payees   []string // when not empty, the key pays these alone
}

// mayMove refuses those that move nothing at all.
func (a Actor) mayMove() error {
	switch {
	case a.Operator:
		return nil
	case a.Agent == "":
		return refuse(Unauthorized, nil, "a key is needed")
	case a.ReadOnly:
		return refuse(Forbidden, nil, "this key is read-only: it moves nothing")
	default:
		return nil
	}
}

// mayPay refuses a key that is bound to other payees. Who spends passes it in [Tx.spend].
func (a Actor) mayPay(payee string) error {
	if err := a.mayMove(); err != nil {
		return err
	}
	if len(a.Payees) > 0 && !slices.Contains(a.Payees, payee) {
		return refuse(Forbidden, map[string]string{"payee": payee}, "this key is bound to other payees than %q", payee)
	}
	return nil
}

// isOperator refuses all others.
func (a Actor) isOperator(what string) error {
	if a.Operator {
		return nil
	}
	if a.Agent == "" {
		return refuse(Unauthorized, nil, "%s is the operator's: its key is needed", what)
	}
	return refuse(Forbidden, nil, "%s is the operator's", what)
}

// ReadsFor returns the agent whose affairs are read: an agent reads its own, the operator those of any that it names.
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

// ListsFor is [Book.ReadsFor] for lists that the operator may also have of all agents, by naming none.
func (b *Book) ListsFor(by Actor, agent string) (string, error) {
	if by.Operator && agent == "" {
		return "", nil
	}
	return b.ReadsFor(by, agent)
}

// actsFor is [Book.ReadsFor] for what moves or changes something: the agent itself or one that the operator names in field.
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

// Act is one line of the audit log: what the operator did.
type Act struct {
	ID      string    `cbor:"1,keyasint"`
	What    string    `cbor:"2,keyasint"` // "escrow.release", "wallet.deposit", ...
	Subject string    `cbor:"3,keyasint"` // the agent, escrow, or charge
	Detail  string    `cbor:"4,keyasint,omitempty"`
	At      time.Time `cbor:"5,keyasint"`
}

// audit records what the operator does, in the operation that does it. Agents' acts need no log: the books tell them.
func (t *Tx) audit(by Actor, what, subject, detail string) error {
	if !by.Operator {
		return nil
	}
	act := Act{ID: t.process.ids.next("act_", t.Now()), What: what, Subject: subject, Detail: detail, At: t.Now()}
	return t.put(auditTable.key(act.ID), act)
}

// Audit lists what the operator did, newest first; next is where the next page begins, empty at the end.
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
