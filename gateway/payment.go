package gateway

import (
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Payment is a way in which the calls of a route are paid: [Wallet], [Escrow] or [Subscription]. Two more ways depend on the call: for the
// work of a milestone, the escrow pays when the work is accepted; in shadow mode nothing is paid.
type Payment interface {
	// charges reports whether a call costs the price of its usage. It does not if a quota covers the usage.
	charges() bool
	// order sets in the order of a call where its money comes from.
	order(q *asked, o *escrow.CallOrder)
	// begin returns the payment of a call that was authorised.
	begin(q *asked, o escrow.CallOrder, auth *escrow.Authorisation) payment
}

// payment is how one call is paid. The caller holds the call's lock.
type payment interface {
	// known returns what the call will be charged, if that is certain before its answer. Then nothing more has to be held.
	known() (price ledger.Amount, ok bool)
	// moves reports whether money moves when the call is settled.
	moves() bool
	// costs reports whether the call is charged or recorded at all.
	costs() bool
	// start is called when the answer begins. It gets whether the answer may state its own cost.
	start(now time.Time, statesCost bool)
	// covers reports whether what is held pays for n further bytes, whatever they contain.
	covers(n int) bool
	// ahead reports whether nothing more has to be held or drawn if so many tokens of output have come since reach and draw, and bytes and events.
	ahead(tokens int64) bool
	// reach extends what is held to the bound of what the answer may have used so far, plus a batch. It returns false if there is not enough
	// money. bound is quick to compute; exact counts what was really used.
	reach(bound meter.Units, exact uses) bool
	// draw pays a batch when it is full. Nothing of the next batch is sent before the draw is durable, so that a stream loses at most one
	// batch if the process dies. at is what was certainly used so far.
	draw(at meter.Units) error
	// exhausted returns the code and the message of the error event that ends a stream.
	exhausted() (code ledger.Outcome, message string)
	// complete sets in a settlement what depends on this way of paying.
	complete(s *escrow.Settlement, used meter.Units)
	// secure makes sure that a settlement can be charged in full. If it refuses, it has changed nothing.
	secure(s *escrow.Settlement) *ledger.Refusal
	// clamp reduces a settlement whose usage is absurd to what was set aside for the call.
	clamp(s *escrow.Settlement)
	// authorisation returns the money that is set aside, or nil if the call costs nothing.
	authorisation() *escrow.Authorisation
	// mention sets headers about the plan that pays the call. quotaLeft is in millionths of the plan's unit.
	mention(h http.Header, quotaLeft int64)
	// cancel gives back what is held.
	cancel()
}

// uses counts what an answer has really used so far.
type uses interface{ usedSoFar() meter.Usage }

// payment returns how the call is paid: as the route says, unless the call does the work of a milestone, or the route is in shadow mode.
func (q *asked) payment() Payment {
	switch {
	case q.route.Shadow:
		return shadow{}
	case q.terms.milestone != "":
		return milestone{}
	case q.waits():
		return afterwards{}
	default:
		return q.route.payment()
	}
}

// held is the common part of all payments from money that was set aside.
type held struct {
	*asked
	auth    *escrow.Authorisation
	covered ledger.Amount // how much was authorised in total, held or drawn already
}

func (p *held) known() (ledger.Amount, bool)              { return 0, false }
func (p *held) moves() bool                               { return true }
func (p *held) costs() bool                               { return true }
func (p *held) start(time.Time, bool)                     { p.covered = p.auth.Total() }
func (p *held) covers(int) bool                           { return false }
func (p *held) ahead(int64) bool                          { return false }
func (p *held) draw(meter.Units) error                    { return nil }
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
	if p.away() {
		return api.LedgerUnavailable, "the ledger can't be used at the moment, so no more money could be set aside for this call; try again later"
	}
	return escrow.InsufficientFunds, "the money for this call has run out: fund the wallet or the escrow, and ask again"
}

// away reports whether nothing more can be set aside for the call since the ledger can't be used.
func (p *held) away() bool { return p.gateway.book.Ledger().Leasing() != nil }

// worth is the most that a usage costs.
func (q *asked) worth(bound meter.Units) (ledger.Amount, error) {
	most, err := q.dear.Most(meter.Usage{Units: bound})
	return ledger.Amount(most), err
}

// free is the payment of a call that costs nothing, or is let through.
type free struct{}

func (free) known() (ledger.Amount, bool)              { return 0, false }
func (free) moves() bool                               { return false }
func (free) costs() bool                               { return false }
func (free) start(time.Time, bool)                     {}
func (free) covers(int) bool                           { return true }
func (free) reach(meter.Units, uses) bool              { return true }
func (free) ahead(int64) bool                          { return true }
func (free) draw(meter.Units) error                    { return nil }
func (free) exhausted() (ledger.Outcome, string)       { return "", "" }
func (free) complete(*escrow.Settlement, meter.Units)  {}
func (free) secure(*escrow.Settlement) *ledger.Refusal { return nil }
func (free) clamp(*escrow.Settlement)                  {}
func (free) authorisation() *escrow.Authorisation      { return nil }
func (free) mention(http.Header, int64)                {}
func (free) cancel()                                   {}
