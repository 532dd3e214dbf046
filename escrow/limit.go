package escrow

import (
	"strings"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Limit bounds what an agent may spend, set by itself: with one of its keys, to one payee, or in all. It counts what leaves the
// wallet: transfers, debits, escrows as they are locked, subscriptions, and metered calls (from an escrow that the agent has locked
// itself, they were counted then). A window begins with the first spending after the one before it.
type Limit struct {
	Key    string        `cbor:"1,keyasint,omitempty"` // a key's id; empty: all keys
	Payee  string        `cbor:"2,keyasint,omitempty"` // empty: all payees
	Amount ledger.Amount `cbor:"3,keyasint"`
	Window time.Duration `cbor:"4,keyasint"`

	Spent ledger.Amount `cbor:"-"` // in the window that runs, as of when it was read
	Until time.Time     `cbor:"-"` // its end; zero: none runs
}

// id names what the limit counts, so that its count outlives a change of the amount.
func (l Limit) id() string {
	return strings.Join([]string{l.Key, l.Payee, l.Window.String()}, "|")
}

func (l Limit) binds(by Actor, payee string) bool {
	return (l.Key == "" || l.Key == by.Key) && (l.Payee == "" || l.Payee == payee)
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

// SetLimits replaces all limits of an agent. A key that is bound to payees, or has a limit of its own, sets none.
func (t *Tx) SetLimits(by Actor, agent string, limits []Limit) ([]Limit, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return nil, err
	}
	if err := t.unbound(by, "sets no limits"); err != nil {
		return nil, err
	}
	if len(limits) > maxLimits {
		return nil, invalid("limits", "limits: %d are too many, at most %d", len(limits), maxLimits)
	}
	seen := map[string]bool{}
	for _, l := range limits {
		if err := t.checkLimit(agent, l); err != nil {
			return nil, err
		}
		if seen[l.id()] {
			return nil, invalid("limits", "limits: two for the same key, payee and window")
		}
		seen[l.id()] = true
	}
	if err := t.audit(by, "limits.set", agent, ""); err != nil {
		return nil, err
	}
	if err := t.put(limitTable.key(agent), limits); err != nil {
		return nil, err
	}
	return limitsOf(t.ledger, agent, t.Now())
}

func (t *Tx) checkLimit(agent string, l Limit) error {
	if err := checkAmount("amount", l.Amount); err != nil {
		return err
	}
	if l.Window < time.Second || l.Window > maxWindow {
		return invalid("window_hours", "window_hours: from one second to %d hours", maxWindow/time.Hour)
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

// unbound refuses a key that is bound to payees or limited by itself: it must not free itself.
func (t *Tx) unbound(by Actor, what string) error {
	if len(by.Payees) > 0 {
		return refuse(Forbidden, nil, "this key is bound to payees; it %s", what)
	}
	if by.Key == "" {
		return nil
	}
	limits, err := limitsOf(t.ledger, by.Agent, t.Now())
	for _, l := range limits {
		if l.Key == by.Key {
			return refuse(Forbidden, nil, "this key has a limit of its own; it %s", what)
		}
	}
	return err
}

// Limits returns an agent's limits, and what was spent of them.
func (b *Book) Limits(agent string) (limits []Limit, err error) {
	err = b.view(func(r ledger.Reader) error {
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

// spentIn is what was spent in the window that runs; a new one begins now.
func spentIn(r ledger.Reader, agent string, l Limit, now time.Time) (s spentRecord, err error) {
	if _, err := load(r, spentTable.key(agent, l.id()), &s); err != nil {
		return s, err
	}
	if now.Sub(s.Since) >= l.Window {
		s = spentRecord{Since: now}
	}
	return s, nil
}

// spend counts a payment against the payer's limits, or refuses it.
func (t *Tx) spend(by Actor, payer, payee string, amount ledger.Amount) error {
	limits, err := limitsOf(t.ledger, payer, t.Now())
	if err != nil {
		return err
	}
	for _, l := range limits {
		if !l.binds(by, payee) {
			continue
		}
		if room := l.Amount - l.Spent - t.process.limits.reserved(payer, l); amount > room {
			return l.exceeded(amount, room)
		}
		if err := t.countSpent(payer, l, amount); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) countSpent(payer string, l Limit, amount ledger.Amount) error {
	s, err := spentIn(t.ledger, payer, l, t.Now())
	if err != nil || amount == 0 {
		return err
	}
	s.Spent += amount
	return t.put(spentTable.key(payer, l.id()), s)
}

// exceeded names the limit that is in the way.
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
	return refuse(LimitExceeded, fields, "the agent has limited %s to %s in %s; %s is asked for, %s is left", what, l.Amount, Period(l.Window), required, max(room, 0))
}

// limitBook is what running calls have set aside of their payers' limits.
type limitBook struct {
	mu    sync.Mutex
	aside map[string]ledger.Amount
}

func newLimitBook() *limitBook { return &limitBook{aside: map[string]ledger.Amount{}} }

func (b *limitBook) key(payer string, l Limit) string { return payer + "\x00" + l.id() }

func (b *limitBook) reserved(payer string, l Limit) ledger.Amount {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.aside[b.key(payer, l)]
}

// change sets more aside, or less; b is locked.
func (b *limitBook) change(payer string, l Limit, by ledger.Amount) {
	key := b.key(payer, l)
	if b.aside[key] += by; b.aside[key] == 0 {
		delete(b.aside, key)
	}
}

// limitHold is what one call has set aside of its payer's limits. A nil one is bound by none.
type limitHold struct {
	book   *Book
	payer  string
	limits []Limit
	amount ledger.Amount
}

// holdLimits sets an amount aside of all limits that bind a call, nil where none does. Nothing is written.
func (b *Book) holdLimits(by Actor, payer, payee string, amount ledger.Amount) (*limitHold, error) {
	h := &limitHold{book: b, payer: payer}
	limits, err := b.Limits(payer)
	if err != nil {
		return nil, err
	}
	for _, l := range limits {
		if l.binds(by, payee) {
			h.limits = append(h.limits, l)
		}
	}
	if len(h.limits) == 0 {
		return nil, nil
	}
	return h, h.extend(amount)
}

// extend sets a further amount aside, or refuses and changes nothing.
func (h *limitHold) extend(by ledger.Amount) error {
	if h == nil {
		return nil
	}
	shared := h.book.process.limits
	shared.mu.Lock()
	defer shared.mu.Unlock()
	l, room, err := h.tightest()
	if err != nil {
		return err
	}
	if by > room {
		return l.exceeded(by, room)
	}
	h.grow(by)
	return nil
}

// extendUpTo sets a further amount aside, or as much of it as the limits have room for; below zero, it gives back.
func (h *limitHold) extendUpTo(by ledger.Amount) ledger.Amount {
	if h == nil {
		return by
	}
	shared := h.book.process.limits
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if by > 0 {
		_, room, err := h.tightest()
		if err != nil {
			return 0
		}
		by = min(by, max(room, 0))
	}
	h.grow(by)
	return by
}

// tightest is the limit with the least room; the limits are locked.
func (h *limitHold) tightest() (tightest Limit, room ledger.Amount, err error) {
	err = h.book.view(func(r ledger.Reader) error {
		for i, l := range h.limits {
			s, err := spentIn(r, h.payer, l, h.book.Now())
			if err != nil {
				return err
			}
			here := l.Amount - s.Spent - h.book.process.limits.aside[h.book.process.limits.key(h.payer, l)]
			if i == 0 || here < room {
				tightest, room = l, here
			}
		}
		return nil
	})
	return tightest, room, err
}

func (h *limitHold) grow(by ledger.Amount) {
	for _, l := range h.limits {
		h.book.process.limits.change(h.payer, l, by)
	}
	h.amount += by
}

// release gives back what is set aside, once what was spent of it is durable.
func (h *limitHold) release() {
	if h == nil {
		return
	}
	shared := h.book.process.limits
	shared.mu.Lock()
	defer shared.mu.Unlock()
	h.grow(-h.amount)
}

// countLimits counts what a call has spent against the limits that bind it.
func (t *Tx) countLimits(h *limitHold, amount ledger.Amount) error {
	if h == nil {
		return nil
	}
	for _, l := range h.limits {
		if err := t.countSpent(h.payer, l, amount); err != nil {
			return err
		}
	}
	return nil
}
