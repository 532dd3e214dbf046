package escrow

import (
	"context"
	"time"
)

// The operator can suspend an agent. Its keys then only read: it moves no money and makes no calls, nobody debits it under an allowance, and
// its subscriptions don't renew. Money still reaches it, escrows end as agreed, and calls that run are charged. An agent that is closed stays
// so for ever, and has no money.

// The statuses of an agent that is barred; an active agent has none.
const (
	agentSuspended = "suspended"
	agentClosed    = "closed"
)

// Status returns "active", "suspended" or "closed".
func (a Agent) Status() string {
	if status := a.status(); status != "" {
		return status
	}
	return "active"
}

func (a Agent) status() string {
	switch {
	case !a.ClosedAt.IsZero():
		return agentClosed
	case !a.SuspendedAt.IsZero():
		return agentSuspended
	default:
		return ""
	}
}

// bars returns the actor with what the operator has set for its agent.
func (a Agent) bars(by Actor) Actor {
	by.Barred, by.Why, by.Agents = a.status(), a.Reason, a.Pace
	return by
}

// Standing returns an actor that was identified without a key, with what the operator has set for its agent. The agent may be unknown.
func (b *Book) Standing(by Actor) (Actor, error) {
	agent, _, err := b.Agent(by.Agent)
	return agent.bars(by), err
}

func barred(status, why string) error {
	fields, detail := map[string]string{"agent_status": status}, "this agent is "+status
	if why != "" {
		fields["reason"] = why
		detail += ": " + why
	}
	return refuse(Forbidden, fields, "%s; ask the operator", detail)
}

// checkStanding refuses an agent that is suspended or closed.
func (t *Tx) checkStanding(agent string) error {
	a, _, err := agentByID(t.ledger, agent)
	if err == nil && a.status() != "" {
		err = barred(a.status(), a.Reason)
	}
	return err
}

// Suspend suspends an agent; the agent is told the reason. Only the operator may do this.
func (t *Tx) Suspend(by Actor, id, reason string) (Agent, error) {
	return t.setStanding(by, "agent.suspend", id, reason, func(a *Agent) error {
		if status := a.status(); status != "" {
			return refuse(InvalidStatus, nil, "the agent is %s already", status)
		}
		a.SuspendedAt, a.Reason = t.Now(), reason
		return nil
	})
}

// Resume ends the suspension of an agent. Subscriptions that were suspended meanwhile begin again with the payer's next call, or when the payer
// resumes them. Only the operator may do this.
func (t *Tx) Resume(by Actor, id string) (Agent, error) {
	return t.setStanding(by, "agent.resume", id, "", func(a *Agent) error {
		if a.status() != agentSuspended {
			return refuse(InvalidStatus, nil, "the agent is %s, not suspended", a.Status())
		}
		a.SuspendedAt, a.Reason = time.Time{}, ""
		return t.collect(id)
	})
}

// Closing is the result of closing an agent.
type Closing struct {
	Agent  Agent
	Payout *Payment // of all the money in its wallet; nil if there was none
}

// CloseAgent ends an agent for ever, and books the money in its wallet out, with a reference as [Tx.Withdraw]. Its keys then read, but change
// nothing. Only the operator may do this. Refused with invalid_status while calls of the agent run, or escrows of it hold money: they must end
// first, so that nothing is left behind.
func (t *Tx) CloseAgent(by Actor, id, reason string, payout PaymentOrder) (c Closing, err error) {
	c.Agent, err = t.setStanding(by, "agent.close", id, reason, func(a *Agent) error {
		if a.status() == agentClosed {
			return refuse(InvalidStatus, nil, "the agent was closed on %s", a.ClosedAt.Format(time.RFC3339))
		}
		if err := t.checkIdle(id); err != nil {
			return err
		}
		a.SuspendedAt, a.ClosedAt, a.Reason = time.Time{}, t.Now(), reason
		return nil
	})
	if err != nil {
		return Closing{}, err
	}
	w, err := t.Wallet(id)
	if err != nil || w.Balance == 0 {
		return c, err
	}
	payout.From, payout.Amount = id, w.Balance
	paid, err := t.Withdraw(by, payout)
	if err == nil && paid.Repeated { // the reference belongs to an earlier payout, so this money would stay
		err = refuse(AlreadyExists, map[string]string{"reference": payout.Reference}, "reference %.80q was booked before; give the payout another one", payout.Reference)
	}
	c.Payout = &paid
	return c, err
}

// checkIdle refuses an agent with calls that run, or escrows that hold money.
func (t *Tx) checkIdle(agent string) error {
	w, err := t.Wallet(agent)
	if err != nil {
		return err
	}
	if w.Held > 0 || w.Pending > 0 {
		return refuse(InvalidStatus, map[string]string{"held": w.Held.String(), "pending": w.Pending.String()}, "calls of the agent run, or payouts wait: %s is held and %s is pending; suspend it, and close it when they have ended", w.Held, w.Pending)
	}
	var first string
	err = t.ledger.Scan(activeByAgent.under(agent), func(key, _ []byte) (bool, error) {
		first = activeByAgent.lastPart(key, agent)
		return false, nil
	})
	if err == nil && first != "" {
		err = refuse(InvalidStatus, map[string]string{"escrow_id": first}, "escrow %s, and perhaps others, still holds money of the agent, as its payer or its payee: end these first", first)
	}
	return err
}

func (t *Tx) setStanding(by Actor, act, id, reason string, change func(*Agent) error) (Agent, error) {
	if err := by.isOperator(act); err != nil {
		return Agent{}, err
	}
	if err := checkText("reason", reason); err != nil {
		return Agent{}, err
	}
	agent, err := t.operatorsAgent(id)
	if err != nil {
		return Agent{}, err
	}
	if err := change(&agent); err != nil {
		return Agent{}, err
	}
	if err := t.audit(by, act, id, reason); err != nil {
		return Agent{}, err
	}
	t.changed(id)
	return agent, t.put(agentTable.key(id), agent)
}

// operatorsAgent returns the agent that a path of the operator's names. Refused with not_found if there is none.
func (t *Tx) operatorsAgent(id string) (Agent, error) {
	if len(id) > maxID {
		return Agent{}, noAgent(id)
	}
	agent, found, err := agentByID(t.ledger, id)
	if err == nil && !found {
		err = noAgent(id)
	}
	return agent, err
}

func noAgent(id string) error { return refuse(NotFound, nil, "no agent %.80q", id) }

// RenameAgent changes the name of an agent. The operator names the agent.
func (t *Tx) RenameAgent(by Actor, id, name string) (Agent, error) {
	id, err := t.actsFor(by, "agent_id", id)
	if err != nil {
		return Agent{}, err
	}
	if err := t.unbound(by, "can't change the agent"); err != nil {
		return Agent{}, err
	}
	if err := checkText("name", name); err != nil {
		return Agent{}, err
	}
	agent, err := t.agent("agent_id", id)
	if err != nil {
		return Agent{}, err
	}
	agent.Name = name
	if err := t.audit(by, "agent.rename", id, name); err != nil {
		return Agent{}, err
	}
	t.changed(id)
	return agent, t.put(agentTable.key(id), agent)
}

// SetPace sets how often an agent may call, whichever of its keys it uses. Only the operator may do this.
func (t *Tx) SetPace(by Actor, id string, p Pace) (Agent, error) {
	if err := p.check(); err != nil {
		return Agent{}, err
	}
	return t.setStanding(by, "agent.rate", id, "", func(a *Agent) error { a.Pace = p; return nil })
}

// Bounds returns an agent with the pace that the operator has set for it, and all its limits. Only the operator may read them.
func (t *Tx) Bounds(by Actor, id string) (Agent, []Limit, error) {
	if err := by.isOperator("looking at an agent"); err != nil {
		return Agent{}, nil, err
	}
	agent, err := t.operatorsAgent(id)
	if err != nil {
		return Agent{}, nil, err
	}
	limits, err := limitsOf(t.ledger, id, t.Now())
	return agent, limits, err
}

// Account returns an agent and its wallet, for the operator. Refused with not_found if there is none.
func (b *Book) Account(ctx context.Context, by Actor, id string) (Agent, Wallet, error) {
	if err := by.isOperator("looking at an agent"); err != nil {
		return Agent{}, Wallet{}, err
	}
	agent, found, err := b.Agent(id)
	if err == nil && !found {
		err = noAgent(id)
	}
	if err != nil {
		return Agent{}, Wallet{}, err
	}
	w, err := b.Wallet(ctx, id)
	return agent, w, err
}
