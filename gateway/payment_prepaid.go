package gateway

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// Wallet pays calls from the caller's wallet.
type Wallet struct{}

// Escrow pays calls by partial releases from an escrow between the caller and the payee: the one that the caller names, or else the oldest
// open one that covers the first hold.
type Escrow struct {
	// Open is the amount of the escrow that is opened if there is no suitable one. 0: such a call is refused.
	Open ledger.Amount
	// OpenFor is how long such an escrow lasts. What remains then goes back to the payer.
	OpenFor time.Duration
}

func (Wallet) charges() bool { return true }
func (Escrow) charges() bool { return true }

// usesCredit reports whether the payee's credit pays first. It does not if the answer is judged: then the price may have to be locked in an
// escrow, which is possible only with money.
func usesCredit(q *asked) bool { return q.route.Quality == nil }

func (Wallet) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Credit = escrow.FromWallet, usesCredit(q)
}

func (e Escrow) order(q *asked, o *escrow.CallOrder) {
	o.From, o.Escrow, o.Open, o.OpenFor = escrow.FromEscrow, q.terms.escrow, e.Open, e.OpenFor
	o.Credit = usesCredit(q) && q.terms.milestone == ""
}

// walletDrawEvery is how often a stream that is paid from a wallet draws, if its batches take longer.
const walletDrawEvery = 5 * time.Second

func (Wallet) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	return prepay(q, auth, walletDrawEvery)
}

func (Escrow) begin(q *asked, _ escrow.CallOrder, auth *escrow.Authorisation) payment {
	return prepay(q, auth, 0)
}

// prepay returns the payment of a call from money that is held in a wallet or an escrow.
func prepay(q *asked, auth *escrow.Authorisation, drawEvery time.Duration) payment {
	if price, ok := q.fixed(); ok {
		return &oncePaid{held{asked: q, auth: auth}, price}
	}
	if q.rates.UsesTokens() && q.call.API != "" {
		// For an answer that comes whole, all that it can cost is held. If there is less money, the answer gets shorter. A stream draws batch by
		// batch.
		most := auth.Held()
		if q.inParts() {
			most = auth.Reachable()
		}
		q.fitOutput(most)
	}
	return &prepaid{held: held{asked: q, auth: auth}, drawEvery: drawEvery}
}

// oncePaid is the payment of a call whose price is known and held before the call.
type oncePaid struct {
	held
	price ledger.Amount
}

func (p *oncePaid) known() (ledger.Amount, bool) { return p.price, true }
func (p *oncePaid) covers(int) bool              { return true }
func (p *oncePaid) ahead(int64) bool             { return true }
func (p *oncePaid) reach(meter.Units, uses) bool { return true }

// prepaid is the payment of a call whose price depends on its answer.
type prepaid struct {
	held
	drawEvery time.Duration // after this time a batch is drawn although it is not full; 0: never
	needed    ledger.Amount // how much of covered the answer may have cost so far
	drawn     int64         // the number of batches that were drawn
	drawnAt   time.Time
	drawing   bool // a draw is being written to disk
	absurd    bool // the provider states a usage that this request can't have
	exact     bool // draws are posted at once, because their units are counted exactly
	chunk     chunkPrice
	few       fewTokens
	missing   meter.Quantity // until the next batch is full
}

// fewTokens is the price of up to mostFew tokens of output, which may come before it is looked at what the whole answer costs.
type fewTokens struct {
	rates *pricing.Rates
	most  ledger.Amount
	ok    bool // such tokens, and no bytes and events, are what the answer costs more
	came  bool // some of them have come since needed was computed
}

const mostFew = 64

// chunkPrice is the most that so many bytes of an answer can cost at some prices. The last one is kept, since most chunks of a stream are of similar
// size.
type chunkPrice struct {
	rates *pricing.Rates
	bytes int // a multiple of chunkStep
	most  ledger.Amount
	ok    bool
}

const chunkStep = 64

func (p *prepaid) start(now time.Time, statesCost bool) {
	p.held.start(now, statesCost)
	p.drawnAt = now
	// The final price may be lower than the prices: if the provider states its cost, or if there are tiers. Until then the draws are pending,
	// as draws of estimates are.
	p.exact = !statesCost && !p.rates.UsesTokens() && !p.rates.HasTiers()
}

func (p *prepaid) covers(n int) bool {
	left := p.covered - p.needed
	if p.few.came {
		left -= p.few.most
	}
	if size := (n + chunkStep - 1) / chunkStep * chunkStep; !p.dear.HasTiers() { // with tiers more may cost less
		if p.chunk.rates != p.dear || p.chunk.bytes != size {
			most, ok := p.mostOf(size)
			p.chunk = chunkPrice{p.dear, size, most, ok}
		}
		return p.chunk.ok && p.chunk.most <= left
	}
	most, ok := p.mostOf(n)
	return ok && most <= left
}

// mostOf returns the most that n bytes of an answer can cost.
func (p *prepaid) mostOf(n int) (most ledger.Amount, ok bool) {
	most, err := p.worth(meter.Units{meter.Byte: meter.Whole(int64(n)), meter.Event: meter.Whole(int64(n)/2 + 1)})
	if p.rates.UsesTokens() {
		most = max(most, ledger.Amount(p.dear.MostFor(0, int64(n))))
	}
	return most, err == nil
}

func (p *prepaid) ahead(tokens int64) bool {
	if tokens > mostFew || p.drawing || meter.Whole(tokens) >= p.missing {
		return false
	}
	if p.few.rates != p.dear {
		p.few = p.priceOfFew()
	}
	if !p.few.ok || p.few.most > p.covered-p.needed || p.overdue() {
		return false
	}
	p.few.came = true
	return true
}

func (p *prepaid) priceOfFew() fewTokens {
	others := meter.Units{meter.Byte: meter.MaxQuantity, meter.Event: meter.MaxQuantity}
	return fewTokens{
		rates: p.dear,
		most:  ledger.Amount(p.dear.MostFor(0, mostFew)),
		ok:    !p.dear.HasTiers() && !p.dear.Uses(meter.Byte) && !p.dear.Uses(meter.Event) && p.route.batch().Of(others) == 0,
	}
}

// overdue reports whether a draw is due although no batch is full.
func (p *prepaid) overdue() bool { return p.drawEvery > 0 && time.Since(p.drawnAt) >= p.drawEvery }

func (p *prepaid) reach(bound meter.Units, exact uses) bool {
	need, _ := p.worth(bound)
	p.needed, p.few.came = need, false
	if need <= p.covered {
		return true
	}
	batch := p.batchPrice()
	if need-p.covered > batch && exact.usedSoFar().Suspect {
		p.absurd = true // the usage came all at once, and only what is held is charged for it, so nothing more may be sent for it
		return false
	}
	target := max(need, need+batch) // a sum above the largest amount is negative
	if p.limit > 0 {
		target = min(target, p.limit)
	}
	if target > p.covered {
		p.covered = p.auth.ExtendUpTo(target)
	}
	if need <= p.covered {
		return true
	}
	due, _ := p.rates.Due(exact.usedSoFar())
	return ledger.Amount(due) < p.covered
}

// clamp leaves an absurd usage that costs at most a batch more than was set aside, as reach does.
func (p *prepaid) clamp(s *escrow.Settlement) {
	if s.Amount-p.covered > p.batchPrice() {
		p.held.clamp(s)
	}
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

func (p *prepaid) draw(at meter.Units) error {
	p.missing = meter.MaxQuantity
	if p.route.Quality != nil || p.once() {
		return nil // the price is known only at the end, and a charge of a part must not stand for the whole
	}
	if p.drawing {
		p.drawing = false
		if err := p.auth.Await(); err != nil {
			return err
		}
	}
	batches, missing := p.route.batch().Goes(at)
	p.missing = missing
	if batches <= p.drawn && !p.overdue() {
		return nil
	}
	due, err := p.rates.Price(meter.Usage{Units: at}, p.usedBefore)
	if err != nil {
		return nil // an absurd usage is clamped when the call is settled
	}
	p.drawn, p.drawnAt, p.drawing = max(batches, p.drawn), time.Now(), true
	p.auth.Draw(min(ledger.Amount(due.Nano), p.covered), p.exact)
	return nil
}
