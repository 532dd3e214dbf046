package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// lists says in which lists an escrow is. Most draws from an escrow do not change it.
type lists struct {
	stored  bool // in those of both agents
	active  bool
	open    bool
	frozen  bool
	closing bool
	due     time.Time // zero: it is not in the list of what is due
}

// lists returns the lists in which the escrow is to be.
func (e *Escrow) lists() lists {
	return lists{
		stored:  true,
		active:  e.Remaining() > 0,
		open:    e.drawable() && e.Kind.drawn(),
		frozen:  e.Status == StatusRefundRequested || e.Status == StatusDisputed,
		closing: e.Closing != "" && e.Remaining() > 0,
		due:     e.dueAt(),
	}
}

// keysIn returns the keys of an escrow in lists.
func (e *Escrow) keysIn(l lists) map[string]bool {
	keys := make(map[string]bool)
	add := func(in bool, key []byte) {
		if in {
			keys[string(key)] = true
		}
	}
	for _, agent := range []string{e.From, e.To} {
		add(l.stored, escrowByAgent.key(agent, e.ID))
		add(l.active, activeByAgent.key(agent, e.ID))
	}
	add(l.open, openByPair.key(e.From, e.To, e.ID))
	add(l.frozen, frozenTable.key(e.ID))
	add(l.closing, closingTable.key(e.ID))
	add(!l.due.IsZero(), dueTurns.key(e.From, l.due, dueEscrow+e.ID))
	return keys
}

// list puts an escrow into the lists in which it is to be, and takes it out of others.
func (t *Tx) list(e *Escrow) error {
	before, after := e.listed, e.lists()
	if before == after {
		return nil
	}
	e.listed = after
	if before.open != after.open {
		from, to := e.From, e.To
		t.ledger.OnCommit(func() { t.process.oldest.forget(from, to) })
	}
	was, is := e.keysIn(before), e.keysIn(after)
	for key := range was {
		if !is[key] {
			t.ledger.Delete([]byte(key))
		}
	}
	for key := range is {
		if !was[key] {
			t.ledger.Put([]byte(key), []byte{})
		}
	}
	if after.due.IsZero() || after.due.Equal(before.due) {
		return nil
	}
	return dueTurns.by(t, e.From, after.due)
}

// drawable reports whether a meter may draw from the escrow.
func (e *Escrow) drawable() bool {
	return e.Status == StatusOpen && e.Closing == "" && e.Remaining() > 0
}

// dueAt returns the time when something is due to the escrow, or the zero time.
func (e *Escrow) dueAt() time.Time {
	switch {
	case e.Closing != "" || e.Remaining() == 0:
		return time.Time{}
	case e.Status == StatusOpen:
		return e.AutoReleaseAt
	case e.Status == StatusRefundRequested:
		return e.RefundAt
	default: // frozen
		return time.Time{}
	}
}

// saveEscrow writes an escrow and the lists that it is in, and closes it when nothing remains.
func (t *Tx) saveEscrow(e *Escrow) error {
	e.UpdatedAt = t.Now()
	if e.Remaining() == 0 {
		e.setClosed()
		if err := t.count(e); err != nil {
			return err
		}
	}
	if err := t.follow(e); err != nil {
		return err
	}
	if err := t.list(e); err != nil {
		return err
	}
	t.changed(e.From, e.To)
	if err := t.put(escrowTable.key(e.ID), e); err != nil {
		return err
	}
	_, err := t.unheld(e)
	return err
}

func (e *Escrow) setClosed() {
	switch {
	case e.Refunded == 0:
		e.Status = StatusReleased
	case e.Released == 0:
		e.Status = StatusRefunded
	default:
		e.Status = StatusSettled
	}
	e.Closing, e.RefundAsked, e.RefundAt = "", 0, time.Time{}
}

// escrow loads an escrow in order to change it, after what is due to it was done.
func (t *Tx) escrow(id string) (*Escrow, error) {
	e, err := escrowByID(t.ledger, id)
	if err != nil || e == nil {
		return nil, err
	}
	if err := t.expire(e); err != nil {
		return nil, err
	}
	_, err = t.unheld(e)
	return e, err
}

// escrowByID returns an escrow, or nil if there is none.
func escrowByID(r ledger.Reader, id string) (*Escrow, error) {
	if len(id) > maxID {
		return nil, nil
	}
	var e Escrow
	if found, err := load(r, escrowTable.key(id), &e); err != nil || !found {
		return nil, err
	}
	e.loaded()
	return &e, nil
}

// loaded completes an escrow that was read.
func (e *Escrow) loaded() {
	e.Kind = e.kind()
	e.listed = e.lists()
}

// unheld returns how much of an escrow no running call holds. It sets e.Held.
func (t *Tx) unheld(e *Escrow) (ledger.Amount, error) {
	acc, held, err := t.balance(e.Account())
	if err != nil {
		return 0, err
	}
	free := acc.Available() - held
	e.Held = acc.Balance() - free
	return max(free, 0), nil
}

// party returns an escrow to one of its parties or the operator. For anybody else it does not exist.
func (t *Tx) party(by Actor, id string) (*Escrow, error) {
	if err := by.mayMove(); err != nil {
		return nil, err
	}
	e, err := t.escrow(id)
	if err != nil {
		return nil, err
	}
	if e == nil || !e.visible(by) {
		return nil, noEscrow(id)
	}
	if e.Kind == KindHold {
		return nil, e.isHold()
	}
	return e, nil
}

func (e *Escrow) visible(by Actor) bool {
	return by.Operator || by.Agent != "" && (by.Agent == e.From || by.Agent == e.To)
}

func noEscrow(id string) error { return refuse(NotFound, nil, "no escrow %.80q", id) }

// wrongStatus refuses an act that the escrow's status does not allow.
func (e *Escrow) wrongStatus(act string) error {
	switch {
	case e.Closing != "":
		return refuse(InvalidStatus, map[string]string{"escrow_id": e.ID, "escrow_status": string(e.Status)},
			"the escrow is over: what running calls hold is left, and goes by %s when they end; no %s", e.Closing, act)
	case e.Status == StatusDisputed:
		return refuse(InvalidStatus, map[string]string{"escrow_id": e.ID, "escrow_status": string(e.Status)},
			"the escrow is disputed: only the operator resolves it; no %s", act)
	default:
		return refuse(InvalidStatus, map[string]string{"escrow_id": e.ID, "escrow_status": string(e.Status)},
			"the escrow is %s: no %s", e.Status, act)
	}
}

// tooMuch returns the refusal of an amount that is more than remains and is not held.
func (e *Escrow) tooMuch(field string, amount ledger.Amount) error {
	return refuse(ExceedsRemaining, map[string]string{
		"field": field, "escrow_id": e.ID, "remaining": e.Remaining().String(), "held": e.Held.String(),
	}, "%s is more than the %s that remain%s", amount, e.Remaining(), heldNote(e.Held))
}

func heldNote(held ledger.Amount) string {
	if held == 0 {
		return ""
	}
	return ", of which running calls hold " + held.String()
}
