package escrow

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Limit bounds what an agent may spend in a window of time: with one of its keys, to one payee, or in total. [Tx.spend] says what counts. A
// window begins with the first spending after the previous window has ended.
//
// An agent sets limits for itself, and the operator sets other limits for it. All of them apply, and each of the two changes only its own.
type Limit struct {
	Key    string        `cbor:"1,keyasint,omitempty"` // a key's id; empty: all keys
	Payee  string        `cbor:"2,keyasint,omitempty"` // empty: all payees
	Amount ledger.Amount `cbor:"3,keyasint"`
	Window time.Duration `cbor:"4,keyasint"`

	ByOperator bool `cbor:"5,keyasint,omitempty"` // the operator has set it

	Spent ledger.Amount `cbor:"-"` // in the current window, at the time of reading
	Until time.Time     `cbor:"-"` // the end of the current window; zero: there is none
}

// id identifies what the limit counts, so that the count is kept when the amount of the limit changes.
func (l Limit) id() string {
	parts := []string{l.Key, l.Payee, l.Window.String()}
	if l.ByOperator {
		parts = append(parts, "operator")
	}
	return strings.Join(parts, "|")
}

// spentRecord is what was spent since a window began.
type spentRecord struct {
	Since time.Time     `cbor:"1,keyasint"`
	Spent ledger.Amount `cbor:"2,keyasint"`
}

const (
	maxLimits = 50
	maxWindow = 366 * 24 * time.Hour
)

// SetLimits replaces the limits that an agent has set for itself. If the caller is the operator, it replaces those that the operator has set
// for the agent. A key that may pay only some payees, or has a limit of its own, can't set limits. SetLimits returns all limits of the agent.
func (t *Tx) SetLimits(by Actor, agent string, limits []Limit) ([]Limit, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return nil, err
	}
	if err := t.unbound(by, "can't set limits"); err != nil {
		return nil, err
	}
	if len(limits) > maxLimits {
		return nil, invalid("limits", "limits: %d are too many, at most %d", len(limits), maxLimits)
	}
	limits = slices.Clone(limits) // so that the caller's slice is not changed
	seen := map[string]bool{}
	for i := range limits {
		limits[i].ByOperator = by.Operator
		if err := t.checkLimit(agent, limits[i]); err != nil {
			return nil, err
		}
		if id := limits[i].id(); seen[id] {
			return nil, invalid("limits", "limits: two for the same key, payee and window")
		} else {
			seen[id] = true
		}
	}
	if err := t.audit(by, "limits.set", agent, ""); err != nil {
		return nil, err
	}
	all, err := limitsOf(t.ledger, agent, t.Now())
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		if l.ByOperator != by.Operator {
			limits = append(limits, l)
		}
	}
	if err := t.put(limitTable.key(agent), limits); err != nil {
		return nil, err
	}
	return limitsOf(t.ledger, agent, t.Now())
}

// CheckWindow refuses a window that is too short or too long.
func (l Limit) CheckWindow() error {
	if l.Window < time.Second || l.Window > maxWindow {
		return invalid("window_hours", "window_hours: from one second to %d hours", maxWindow/time.Hour)
	}
	return nil
}

func (t *Tx) checkLimit(agent string, l Limit) error {
	if err := checkAmount("amount", l.Amount); err != nil {
		return err
	}
	if err := l.CheckWindow(); err != nil {
		return err
	}
	if l.Payee != "" {
		if _, err := t.agent("payee", l.Payee); err != nil {
			return err
		}
	}
	if l.Key != "" {
		var key Key
		found, err := load(t.ledger, keyTable.key(l.Key), &key)
		if err != nil {
			return err
		}
		if !found || key.Agent != agent {
			return invalid("key_id", "key_id %.40q: no such key", l.Key)
		}
	}
	return nil
}

// unbound refuses a key that has a restriction or a limit of its own, since such a key must not remove its restrictions.
func (t *Tx) unbound(by Actor, what string) error {
	switch {
	case len(by.Payees) > 0:
		return refuse(Forbidden, nil, "this key may pay only some payees, so it %s", what)
	case len(by.Models)+len(by.Routes) > 0:
		return refuse(Forbidden, nil, "this key may make only some calls, so it %s", what)
	case by.Expires:
		return refuse(Forbidden, nil, "this key expires, so it %s", what)
	case by.Pace != Pace{}:
		return refuse(Forbidden, nil, "this key has a rate of its own, so it %s", what)
	}
	if by.Key == "" {
		return nil
	}
	limits, err := limitsOf(t.ledger, by.Agent, t.Now())
	for _, l := range limits {
		if l.Key == by.Key {
			return refuse(Forbidden, nil, "this key has a limit of its own, so it %s", what)
		}
	}
	return err
}

// byOperator returns limits as the operator's.
func byOperator(limits []Limit) []Limit {
	limits = slices.Clone(limits)
	for i := range limits {
		limits[i].ByOperator = true
	}
	return limits
}

// Limits returns an agent's limits, and what was spent of them.
func (b *Book) Limits(agent string) ([]Limit, error) {
	has := false // most agents have none
	err := b.peek(limitTable.key(agent), func([]byte) error { has = true; return nil })
	if err != nil || !has {
		return nil, err
	}
	return b.spentLimits(agent)
}

// spentLimits is Limits for an agent that has some.
func (b *Book) spentLimits(agent string) (limits []Limit, err error) {
	err = b.look(func(r ledger.Reader) error {
		limits, err = limitsOf(r, agent, b.Now())
		return err
	})
	return limits, err
}

func limitsOf(r ledger.Reader, agent string, now time.Time) (limits []Limit, err error) {
	if _, err := load(r, limitTable.key(agent), &limits); err != nil {
		return nil, err
	}
	for i := range limits {
		s, err := spentIn(r, agent, limits[i], now)
		if err != nil {
			return nil, err
		}
		if limits[i].Spent = s.Spent; s.Spent > 0 {
			limits[i].Until = s.Since.Add(limits[i].Window)
		}
	}
	return limits, nil
}

// spentIn returns what was spent in the current window. If there is none, a new window begins now.
func spentIn(r ledger.Reader, agent string, l Limit, now time.Time) (s spentRecord, err error) {
	if _, err := load(r, spentTable.key(agent, l.id()), &s); err != nil {
		return s, err
	}
	if now.Sub(s.Since) >= l.Window {
		s = spentRecord{Since: now}
	}
	return s, nil
}

// exceeded returns the refusal that names the exceeded limit.
func (l Limit) exceeded(required, room ledger.Amount) error {
	fields := map[string]string{
		"limit": "spending", "amount": l.Amount.String(), "window": Period(l.Window),
		"required": required.String(), "available": max(room, 0).String(),
	}
	what := "all spending"
	if l.Payee != "" {
		fields["payee"], what = l.Payee, "spending to "+l.Payee
	}
	if l.Key != "" {
		fields["key_id"] = l.Key
		what += " by key " + l.Key
	}
	if !l.Until.IsZero() {
		fields["until"] = l.Until.Format(time.RFC3339)
	}
	who := "the agent has"
	if l.ByOperator {
		who, fields["set_by"] = "the operator has", "operator"
	}
	return refuse(LimitExceeded, fields, "%s limited %s to %s in %s; %s is needed, but only %s is left", who, what, l.Amount, Period(l.Window), required, max(room, 0))
}

// thing is the limit among the things that are claimed.
func (l Limit) thing(payer string) Thing {
	return Thing{Kind: SpendLimit, Owner: payer, Name: l.id()}
}

// limitClaim is what one call, or one operation, has claimed of its payer's limits. It is nil if no limit applies.
type limitClaim struct {
	Claim
	limits []Limit
}

// claimLimits claims the first amount of a call from all limits that apply to it. It returns nil if none applies. It writes nothing:
// [Tx.spent] counts at the end what the call has cost.
func (b *Book) claimLimits(ctx context.Context, key string, s spending) (*limitClaim, error) {
	limits, err := b.Limits(s.agent)
	if err != nil || len(limits) == 0 {
		return nil, err
	}
	take := func(of ...Bound) (Claim, error) { return b.process.claims.Take(ctx, int64(s.amount), of...) }
	return claimOf(take, limits, key, s, b.Now)
}

// claimOf claims an amount from all limits that count it.
func claimOf(take func(...Bound) (Claim, error), limits []Limit, key string, s spending, now func() time.Time) (c *limitClaim, err error) {
	c = &limitClaim{}
	var of []Bound
	for _, l := range limits {
		if s.countsFor(l, key) {
			c.limits = append(c.limits, l)
			of = append(of, Bound{Of: l.thing(s.agent), Left: func(r ledger.Reader) (int64, error) {
				was, err := spentIn(r, s.agent, l, now())
				return int64(l.Amount - was.Spent), err
			}})
		}
	}
	if len(of) == 0 {
		return nil, nil
	}
	if c.Claim, err = take(of...); err != nil {
		return nil, c.refusal(err, s.amount)
	}
	return c, nil
}

// refusal returns the refusal that names the limit without enough room.
func (c *limitClaim) refusal(err error, required ledger.Amount) error {
	if full, isFull := errors.AsType[*NoRoom](err); isFull {
		return c.limits[full.Bound].exceeded(required, ledger.Amount(full.Room))
	}
	return err
}

// extend claims a further amount, or refuses and changes nothing.
func (c *limitClaim) extend(by ledger.Amount) error {
	if c == nil {
		return nil
	}
	return c.refusal(c.Extend(int64(by)), by)
}

// extendUpTo claims a further amount, or as much of it as the limits have room for.
func (c *limitClaim) extendUpTo(by ledger.Amount) ledger.Amount {
	if c == nil {
		return by
	}
	got, err := c.ExtendUpTo(int64(by))
	if err != nil {
		return 0
	}
	return ledger.Amount(got)
}

// room is how much more could be claimed at the moment.
func (c *limitClaim) room() ledger.Amount {
	if c == nil {
		return math.MaxInt64
	}
	room, err := c.Room()
	if err != nil {
		return 0
	}
	return ledger.Amount(room)
}

// giveBack gives an amount back.
func (c *limitClaim) giveBack(amount ledger.Amount) {
	if c != nil {
		c.GiveBack(int64(amount))
	}
}

// end gives back all that is claimed.
func (c *limitClaim) end() {
	if c != nil {
		c.End()
	}
}

// settle ends the claim as soon as the operation is durable that counts what was spent.
func (c *limitClaim) settle(t *Tx) error {
	if c == nil {
		return nil
	}
	return c.Settle(t)
}
