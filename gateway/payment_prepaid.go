package gateway

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Wallet pays calls from the caller's wallet, and before that with credit that the payee has issued to it.
type Wallet struct{}

// Escrow pays calls by partial releases from an escrow between the caller and the payee: the one that the caller names, else the
// oldest open one that covers the first hold.
type Escrow struct {
	// Open is the amount of the escrow that is opened where there is none that fits. 0: such a call is refused.
	Open ledger.Amount
	// OpenFor is how long an escrow opened this way lasts; what remains then goes back to the payer.
	OpenFor time.Duration
}

func (Wallet) charges() bool { return true }
func (Escrow) charges() bool { return true }

// order lets credit pay first, but not where the answer is judged: its price may have to be locked, which money alone can be.
func (Wallet) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Credit = escrow.FromWallet, q.route.Quality == nil
}

func (e Escrow) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Escrow, o.Open, o.OpenFor = escrow.FromEscrow, q.terms.escrow, e.Open, e.OpenFor
}

// walletDrawEvery is how often a stream that is paid from a wallet draws, where its batches take longer.
const walletDrawEvery = 5 * time.Second

func (Wallet) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	return prepay(q, auth, walletDrawEvery)
}

func (Escrow) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	return prepay(q, auth, 0)
}

// prepay is the payment of a call from money that is held, in a wallet or an escrow.
func prepay(q *asked, auth *escrow.Authorisation, drawEvery time.Duration) payment {
	if price, ok := q.fixed(); ok {
		return &oncePaid{held{asked: q, auth: auth}, price}
	}
	if q.rates.UsesTokens() && q.call.API != "" {
		// What an answer that comes whole can cost is held: where less is there, the answer gets shorter. A stream draws as it goes.
		most := auth.Held()
		if q.inParts() {
			most = auth.Reachable()
		}
		q.fitOutput(most)
	}
	return &prepaid{held: held{asked: q, auth: auth}, drawEvery: drawEvery}
}

// oncePaid is the payment of a call whose price is known and held before it is made.
type oncePaid struct {
	held
	price ledger.Amount
}

func (p *oncePaid) known() (ledger.Amount, bool)               { return p.price, true }
func (p *oncePaid) covers(int) bool                            { return true }
func (p *oncePaid) reach(meter.Units, func() meter.Usage) bool { return true }

// prepaid is the payment of a call whose price depends on its answer.
type prepaid struct {
	held
	drawEvery time.Duration // how long a batch may take until it is drawn unfilled; 0: as long as it likes
	needed    ledger.Amount // how much of what is covered the answer may have cost by now
	drawn     int64         // batches
	drawnAt   time.Time
	drawing   bool // a draw is on its way to the disk
	absurd    bool // the provider states a usage that the request can't have
	exact     bool // draws are posted at once: they are of units that are counted exactly
}

func (p *prepaid) start(now time.Time, statesCost bool) {
	p.held.start(now, statesCost)
	p.drawnAt = now
	// What the provider will state as the cost may be less than the prices, and so may be what tiers come to in the end: until then the draws
	// are pending, as those of estimates.
	p.exact = !statesCost && !p.rates.UsesTokens() && !p.rates.HasTiers()
}

func (p *prepaid) covers(n int) bool {
	units := meter.Units{meter.Byte: meter.Whole(int64(n)), meter.Event: meter.Whole(int64(n)/2 + 1)}
	worst, err := p.worth(units)
	if p.rates.UsesTokens() {
		worst = max(worst, ledger.Amount(p.dear.MostFor(0, int64(n))))
	}
	return err == nil && worst <= p.covered-p.needed
}

func (p *prepaid) reach(bound meter.Units, exact func() meter.Usage) bool {
	need, _ := p.worth(bound)
	p.needed = need
	if need <= p.covered {
		return true
	}
	batch := p.batchPrice()
	if need-p.covered > batch && exact().Suspect {
		p.absurd = true // it came at once, and only what is held is charged of it: nothing more may go out for that
		return false
	}
	target := max(need, need+batch) // a sum beyond all amounts is below zero
	if p.limit > 0 {
		target = min(target, p.limit)
	}
	if target > p.covered {
		p.covered = p.auth.ExtendUpTo(target)
	}
	if need <= p.covered {
		return true
	}
	due, _ := p.rates.Due(exact())
	return ledger.Amount(due) < p.covered
}

func (p *prepaid) exhausted() (ledger.Outcome, string) {
	if p.absurd {
		return api.UpstreamFailed, "the provider states a usage that is beyond what this request can have: what was held for the call is charged"
	}
	return p.held.exhausted()
}

func (p *prepaid) secure(s *escrow.Settlement) *ledger.Refusal {
	if limit := p.terms.maxCharge; limit > 0 && s.Amount > limit {
		return p.exceeded(s.Amount)
	}
	if s.Amount <= p.covered {
		return nil
	}
	if err := p.auth.Extend(s.Amount); err != nil {
		return asRefusal(err)
	}
	p.covered = s.Amount
	return nil
}

func (p *prepaid) draw(at meter.Units, now time.Time) error {
	if p.route.Quality != nil || p.call.Once != "" {
		return nil // what the call comes to is known only in the end
	}
	if p.drawing {
		p.drawing = false
		if err := p.auth.Await(); err != nil {
			return err
		}
	}
	batches := p.route.batch().Of(at)
	overdue := p.drawEvery > 0 && now.Sub(p.drawnAt) >= p.drawEvery
	if batches <= p.drawn && !overdue {
		return nil
	}
	due, err := p.rates.Price(meter.Usage{Units: at}, p.usedBefore)
	if err != nil {
		return nil // absurd usage: it is clamped when the call is settled
	}
	p.drawn, p.drawnAt, p.drawing = max(batches, p.drawn), now, true
	p.auth.Draw(min(ledger.Amount(due.Nano), p.covered), p.exact)
	return nil
}
