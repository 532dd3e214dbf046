package gateway

import (
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Payment is a way in which the calls of a route are paid: [Wallet], [Escrow] or [Subscription]. Two more are chosen by the call: the
// work of a milestone, which its escrow pays when it is accepted, and shadow mode, in which nothing is paid.
type Payment interface {
	// charges reports whether a call costs what its usage is priced at: not where a quota covers it.
	charges() bool
	// order says in the order of a call where its money comes from.
	order(q *asked, o *escrow.CallOrder)
	// begin makes the payment of a call that is authorised.
	begin(q *asked, o escrow.CallOrder, auth *escrow.Authorisation) payment
}

// payment is how one call is paid. The call's lock guards it.
type payment interface {
	// known is what the call will be charged, where that is certain before its answer: then nothing more has to be held.
	known() (price ledger.Amount, ok bool)
	// moves reports whether money moves when the call is settled.
	moves() bool
	// costs reports whether the call is charged or recorded at all.
	costs() bool
	// start is told when the answer begins, and whether that may state its own cost.
	start(now time.Time, statesCost bool)
	// covers reports whether what is held pays for n further bytes, whatever is in them.
	covers(n int) bool
	// reach extends what is held to what the answer may have used so far, bound, and a batch more. It reports false when the
	// money is not there. exact counts what was really used so far: the bound is a cheap one.
	reach(bound meter.Units, exact func() meter.Usage) bool
	// draw pays out a batch when it is full. No byte of the batch after it goes out before that is durable, so that a stream whose
	// process dies has lost at most one batch. at is what was certainly used so far.
	draw(at meter.Units, now time.Time) error
	// exhausted says why a stream was ended: the code and the message of its error event.
	exhausted() (code ledger.Outcome, message string)
	// complete fills into a settlement what this way of paying knows of it.
	complete(s *escrow.Settlement, used meter.Units)
	// secure makes sure that a settlement can be charged in full, and changes nothing where it refuses.
	secure(s *escrow.Settlement) *ledger.Refusal
	// clamp brings a settlement whose usage is absurd down to what was set aside for the call.
	clamp(s *escrow.Settlement)
	// authorisation is the money that is set aside; nil where the call costs nothing.
	authorisation() *escrow.Authorisation
	// mention tells in headers of the plan that pays the call. quotaLeft is in millionths of the plan's unit.
	mention(h http.Header, quotaLeft int64)
	// cancel gives back what is held.
	cancel()
}

// payment is how the call is paid: as the route says, but for what the call does itself.
func (q *asked) payment() Payment {
	switch {
	case q.route.Shadow:
		return shadow{}
	case q.terms.milestone != "":
		return milestone{}
	default:
		return q.route.payment()
	}
}

// held is what all payments from money set aside have in common.
type held struct {
	*asked
	auth    *escrow.Authorisation
	covered ledger.Amount // how much is authorised in all: held, or drawn already
}

func (p *held) known() (ledger.Amount, bool)              { return 0, false }
func (p *held) moves() bool                               { return true }
func (p *held) costs() bool                               { return true }
func (p *held) start(time.Time, bool)                     { p.covered = p.auth.Total() }
func (p *held) covers(int) bool                           { return false }
func (p *held) draw(meter.Units, time.Time) error         { return nil }
func (p *held) complete(*escrow.Settlement, meter.Units)  {}
func (p *held) authorisation() *escrow.Authorisation      { return p.auth }
func (p *held) mention(http.Header, int64)                {}
func (p *held) cancel()                                   { p.auth.Cancel() }
func (p *held) secure(*escrow.Settlement) *ledger.Refusal { return nil }
func (p *held) clamp(s *escrow.Settlement)                { s.Amount = min(s.Amount, p.covered) }
func (p *held) exhausted() (code ledger.Outcome, message string) {
	if p.limit > 0 && p.covered >= p.limit {
		return escrow.LimitExceeded, "the call has cost its limit of " + p.limit.String()
	}
	return escrow.InsufficientFunds, "the money for this call has run out: fund the wallet or the escrow, and ask again"
}

// worth is the most that so much usage costs.
func (q *asked) worth(bound meter.Units) (ledger.Amount, error) {
	most, err := q.dear.Most(meter.Usage{Units: bound})
	return ledger.Amount(most), err
}

// free is the payment of a call that costs nothing, or is let pass.
type free struct{}

func (free) known() (ledger.Amount, bool)               { return 0, false }
func (free) moves() bool                                { return false }
func (free) costs() bool                                { return false }
func (free) start(time.Time, bool)                      {}
func (free) covers(int) bool                            { return true }
func (free) reach(meter.Units, func() meter.Usage) bool { return true }
func (free) draw(meter.Units, time.Time) error          { return nil }
func (free) exhausted() (ledger.Outcome, string)        { return "", "" }
func (free) complete(*escrow.Settlement, meter.Units)   {}
func (free) secure(*escrow.Settlement) *ledger.Refusal  { return nil }
func (free) clamp(*escrow.Settlement)                   {}
func (free) authorisation() *escrow.Authorisation       { return nil }
func (free) mention(http.Header, int64)                 {}
func (free) cancel()                                    {}
