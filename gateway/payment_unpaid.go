package gateway

import (
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// milestone is the payment of a call that does the work of a milestone. The escrow pays when the work is accepted, and the call's price may
// not be above what the milestone pays.
type milestone struct{}

func (milestone) charges() bool { return true }

func (milestone) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Escrow, o.Milestone = escrow.FromEscrow, q.terms.escrow, q.terms.milestone
}

func (milestone) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	if q.rates.UsesTokens() && q.call.API != "" {
		q.fitOutput(auth.Worth())
	}
	return &milestoneWork{held{asked: q, auth: auth}}
}

type milestoneWork struct{ held }

func (p *milestoneWork) moves() bool { return false }

// reach reports whether the milestone pays for this much.
func (p *milestoneWork) reach(bound meter.Units, _ uses) bool {
	need, err := p.worth(bound)
	return err == nil && need <= p.auth.Worth()
}

func (p *milestoneWork) secure(s *escrow.Settlement) *ledger.Refusal {
	if s.Amount <= p.auth.Worth() {
		return nil
	}
	code, message := p.exhausted()
	return refuse(code, message, "required", s.Amount.String(), "limit", p.auth.Worth().String(), "currency", p.gateway.book.Currency())
}

func (p *milestoneWork) clamp(s *escrow.Settlement) { s.Amount = min(s.Amount, p.auth.Worth()) }

func (p *milestoneWork) exhausted() (ledger.Outcome, string) {
	return escrow.LimitExceeded, "the call has come to what its milestone pays: " + p.auth.Worth().String()
}

// shadow is the payment in shadow mode: calls are recorded, and nothing is held, refused or charged.
type shadow struct{}

func (shadow) charges() bool { return true }

func (shadow) order(_ *asked, o *escrow.CallOrder) { o.Shadow = true }

func (shadow) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	return &shadowed{held{asked: q, auth: auth}}
}

type shadowed struct{ held }

func (p *shadowed) moves() bool                  { return false }
func (p *shadowed) covers(int) bool              { return true }
func (p *shadowed) reach(meter.Units, uses) bool { return true }
