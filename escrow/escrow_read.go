package escrow

import (
	"context"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// storedEscrow returns an escrow as committed, or nil if there is none.
func (b *Book) storedEscrow(id string) (e *Escrow, err error) {
	err = b.look(func(r ledger.Reader) error {
		e, err = escrowByID(r, id)
		return err
	})
	return e, err
}

// drawnEscrow is storedEscrow for a call, which does not change the escrow that it gets.
func (b *Book) drawnEscrow(id string) (*Escrow, error) {
	return b.process.drawn.peek(b, escrowTable.key(id))
}

// currentEscrow returns an escrow as committed, after what is due to it was done. It returns nil if there is none.
func (b *Book) currentEscrow(ctx context.Context, id string) (*Escrow, error) {
	e, err := b.storedEscrow(id)
	if err != nil || e == nil || !e.over(b.Now()) {
		return e, err
	}
	return Do(ctx, b, func(t *Tx) (*Escrow, error) { return t.escrow(id) })
}

// maxCandidates is how many open escrows of a pair a call tries at most.
const maxCandidates = 64

// openEscrows returns the escrows of a pair that meters may draw from, the oldest first. They must not be changed.
func (b *Book) openEscrows(payer, payee string) (escrows []*Escrow, err error) {
	err = b.view(func(r ledger.Reader) error {
		return r.Scan(openByPair.under(payer, payee), func(key, _ []byte) (bool, error) {
			of := escrowTable.key(openByPair.lastPart(key, payer, payee))
			value, err := r.Get(of)
			if err != nil || value == nil {
				return true, err
			}
			e, err := b.process.drawn.of(of, value)
			if err == nil {
				escrows = append(escrows, e)
			}
			return len(escrows) < maxCandidates, err
		})
	})
	return escrows, err
}

// Escrow returns an escrow to one of its parties or the operator, with what is due to it done first.
func (b *Book) Escrow(ctx context.Context, by Actor, id string) (Escrow, error) {
	e, err := b.currentEscrow(ctx, id)
	if err != nil {
		return Escrow{}, err
	}
	if e == nil || !e.visible(by) {
		return Escrow{}, noEscrow(id)
	}
	if e.Kind == KindHold {
		return Escrow{}, e.isHold()
	}
	return *e, b.noteHeld(e)
}

// noteHeld sets what running calls hold. It is read later than the rest of the escrow, so it is limited to what remains.
func (b *Book) noteHeld(e *Escrow) error {
	if e.Remaining() == 0 {
		return nil
	}
	acc, held, err := b.ledger.Balance(e.Account())
	e.Held = min(held+acc.DebitsPending, e.Remaining())
	return err
}

// EscrowFilter selects escrows. A zero field selects all.
type EscrowFilter struct {
	Agent  string // whose escrows; empty: all agents', which is the operator's to see
	Status string // a [Status], or "active": all that still hold money
	Role   string // "payer", "payee", or empty: both
	Holds  bool   // holds, and no other escrows; otherwise escrows without holds
}

// StatusActive stands for all statuses that still hold money.
const StatusActive = "active"

func (f EscrowFilter) check() error {
	switch Status(f.Status) {
	case "", StatusActive, StatusOpen, StatusRefundRequested, StatusDisputed, StatusReleased, StatusRefunded, StatusSettled:
	default:
		return invalid("status", "status %.40q: active, open, refund_requested, disputed, released, refunded or settled", f.Status)
	}
	switch f.Role {
	case "":
		return nil
	case "payer", "payee":
		if f.Agent == "" {
			return invalid("role", "role %q: of which agent_id?", f.Role)
		}
		return nil
	default:
		return invalid("role", "role %.40q: payer or payee", f.Role)
	}
}

func (f EscrowFilter) wants(e *Escrow) bool {
	return f.Holds == (e.Kind == KindHold) && (f.Status == "" || f.Status == StatusActive && e.Remaining() > 0 || Status(f.Status) == e.Status) &&
		(f.Role == "" || (f.Role == "payer") == (e.From == f.Agent))
}

// list returns the shortest list that contains all selected escrows.
func (f EscrowFilter) list() list[Escrow] {
	switch status := Status(f.Status); {
	case f.Agent == "" && (status == StatusDisputed || status == StatusRefundRequested):
		return list[Escrow]{table: frozenTable}
	case f.Agent == "":
		return list[Escrow]{table: escrowTable}
	case status != "" && !status.Closed():
		return list[Escrow]{table: activeByAgent, parts: []string{f.Agent}}
	default:
		return list[Escrow]{table: escrowByAgent, parts: []string{f.Agent}}
	}
}

// Escrows lists escrows, newest first. Things that are due show only after [Book.RunDue] has done them.
func (b *Book) Escrows(ctx context.Context, f EscrowFilter, p Page) (escrows []Escrow, next string, err error) {
	if err := f.check(); err != nil {
		return nil, "", err
	}
	l := f.list()
	l.item = func(r ledger.Reader, id string, _ []byte) (Escrow, bool, error) {
		e, err := escrowByID(r, id)
		if err != nil || e == nil {
			return Escrow{}, false, err
		}
		return *e, f.wants(e), nil
	}
	err = b.view(func(r ledger.Reader) error {
		escrows, next, err = l.page(r, p)
		return err
	})
	for i := range escrows {
		if err == nil {
			err = b.noteHeld(&escrows[i])
		}
	}
	return escrows, next, err
}
