package caddymodule

import (
	"bytes"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
)

// walletDrawEvery is how often a stream that is paid from a wallet draws, where its batches take longer.
const walletDrawEvery = 5 * time.Second

// begin starts the counting of a response that is charged. Of an event stream the end must be found, whatever its price is.
func (c *call) begin(status int, h http.Header, sse bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	var costs []*probe.Probe
	if c.readsCost() {
		costs = c.meter.Cost.probes
	}
	c.counter = probe.Add(c.asked.Counter(status, h), c.meter.counts, costs, c.asked, status, h)
	if c.fixed && !sse {
		c.counter = oneCall{}
	}
	if q := c.meter.Quality; q != nil {
		c.contentType = h.Get("Content-Type")
		if q.selfScored() {
			c.score = q.probe.Reader(c.asked, status, h)
		}
	}
	c.drawnAt = time.Now()
	c.covered = c.auth.Total()
}

// oneCall counts a response whose price is known, and holds nothing back.
type oneCall struct{}

func (oneCall) Feed(dst, chunk []byte) []byte     { return append(dst, chunk...) }
func (oneCall) Ended() bool                       { return false }
func (oneCall) Tail() []byte                      { return nil }
func (oneCall) Progress() (at, bound meter.Units) { return nil, nil }
func (oneCall) Stop(code, message string) []byte  { return nil }
func (oneCall) Usage(complete bool) (u meter.Usage) {
	u.Source = meter.Stated
	if complete {
		u.Units = meter.Units{meter.Calls: meter.Whole(1)}
	}
	return u
}

// countWhole counts a response that is here whole, and returns all of it but its end. It goes out although the money may not
// reach for it: the provider's work is done. What there is of the money is charged then, and the charge marked suspect.
func (c *call) countWhole(p []byte) (out []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return nil, errAborted
	}
	c.copyForJudge(p)
	c.sent = true
	out = c.counter.Feed(nil, p)
	if c.fixed {
		return out, nil
	}
	_, bound := c.counter.Progress()
	c.addSeconds(bound)
	c.cover(bound)
	return out, nil
}

// count takes the next bytes of the response and appends to dst those that may go to the client. What they cost is held
// and, batch by batch, drawn. exhausted says that the money has run out with these bytes: no more may follow than what is
// returned.
func (c *call) count(dst, p []byte) (out []byte, exhausted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.aborted:
		return dst, false, errAborted
	case c.settled:
		return dst, false, errSettled // a handler that goes on after its write has failed
	}
	c.copyForJudge(p)
	if c.fixed {
		c.sent = true
		return c.counter.Feed(dst, p), false, nil
	}
	for len(p) > 0 && !exhausted {
		n := len(p)
		var before *meter.Usage
		if !c.covers(n) {
			n = slice(p)
			if !c.rates.UsesTokens() { // units that are counted exactly can be told apart to the last one
				usage := c.counter.Usage(false)
				before = &usage
			}
		}
		paid := len(dst)
		dst = c.counter.Feed(dst, p[:n])
		p = p[n:]
		at, bound := c.counter.Progress()
		c.addSeconds(at)
		c.addSeconds(bound)
		if exhausted = !c.cover(bound) && c.meter.OnExhausted == exhaustedStop; exhausted {
			dst, c.delivered = dst[:paid], before // the money has run out within what came last
		}
		if err := c.draw(at); err != nil {
			return dst, false, err
		}
	}
	c.sent = true
	return dst, exhausted, nil
}

// copyForJudge keeps what whoever scores the answer needs of it.
func (c *call) copyForJudge(p []byte) {
	q := c.meter.Quality
	if q == nil || c.unpaid {
		return
	}
	if c.score != nil {
		c.score.Feed(p)
	}
	if q.From == scoreHTTP {
		room := min(len(p), judgedResponseBytes-len(c.copied))
		c.copied = append(c.copied, p[:room]...)
		c.copiedCut = c.copiedCut || room < len(p)
	}
}

// judge finds out what a complete answer is worth, before it is charged. A judge is asked without keeping the end of the
// process from settling the call.
func (c *call) judge() *escrow.Quality {
	q := c.meter.Quality
	if q == nil || c.unpaid {
		return nil
	}
	return q.decide(c.request.Context(), c)
}

// slice is how many bytes are counted at a time where the money held may end within what has come: a line, in which one event
// ends at most.
func slice(p []byte) int {
	p = p[:min(len(p), maxSlice)]
	if end := bytes.IndexByte(p, '\n'); end >= 0 {
		return end + 1
	}
	return len(p)
}

const maxSlice = 256

// covers reports whether what is held pays for n further bytes, whatever is in them.
func (c *call) covers(n int) bool {
	if c.unpaid {
		return c.meter.shadow()
	}
	if c.meter.Subscription != nil {
		return false
	}
	units := meter.Units{meter.Byte: meter.Whole(int64(n)), meter.Event: meter.Whole(int64(n)/2 + 1)}
	worst, err := c.rates.Most(meter.Usage{Units: units})
	if c.rates.UsesTokens() {
		worst = max(worst, c.rates.MostFor(0, int64(n)))
	}
	return err == nil && ledger.Amount(worst) <= c.covered-c.needed
}

// cover extends the hold to what the response may have cost so far, and a batch more. It reports false when the money is
// not there.
func (c *call) cover(bound meter.Units) bool {
	if c.unpaid {
		return c.meter.shadow() || c.isWorth(bound)
	}
	if s := c.meter.Subscription; s != nil {
		return !s.counted() || s.cover(c, bound)
	}
	need, _ := c.rates.Most(meter.Usage{Units: bound})
	c.needed = ledger.Amount(need)
	if ledger.Amount(need) <= c.covered {
		return true
	}
	target := ledger.Amount(need)
	if next := target + c.batchPrice(); next > target {
		target = next
	}
	if c.limit > 0 {
		target = min(target, c.limit)
	}
	if target > c.covered {
		c.covered = c.auth.ExtendUpTo(target)
	}
	if ledger.Amount(need) <= c.covered {
		return true
	}
	// The bound is a cheap one. Before the stream is ended, what it really used is counted.
	usage := c.counter.Usage(false)
	c.addSeconds(usage.Units)
	exact, _ := c.rates.Due(usage)
	return ledger.Amount(exact) < c.covered
}

// isWorth reports whether the milestone whose work the call does pays for so much.
func (c *call) isWorth(bound meter.Units) bool {
	need, err := c.rates.Most(meter.Usage{Units: bound})
	return err == nil && ledger.Amount(need) <= c.auth.Worth()
}

// draw posts a partial payment when a batch is full. No byte of the batch after it goes out before that is durable, so that a
// stream whose process dies has lost at most one batch.
func (c *call) draw(at meter.Units) error {
	if !c.meter.charges() || c.unpaid || c.asked.Once != "" {
		return nil // what a call comes to is known only in the end
	}
	if c.undrawn {
		c.undrawn = false
		if err := c.auth.Await(); err != nil {
			return err
		}
	}
	batches := c.meter.batch.Of(at)
	overdue := !c.meter.fromEscrow() && time.Since(c.drawnAt) >= walletDrawEvery
	if batches <= c.drawn && !overdue {
		return nil
	}
	due, err := c.rates.Due(meter.Usage{Units: at})
	if err != nil {
		return nil // absurd usage: it is clamped when the call is settled
	}
	c.drawn, c.drawnAt, c.undrawn = max(batches, c.drawn), time.Now(), true
	// What the provider will state as the cost may be less: until then the draws are pending.
	c.auth.Draw(min(ledger.Amount(due), c.covered), !c.rates.UsesTokens() && !c.readsCost())
	return nil
}

// addSeconds counts the time since the call began, where time is what is charged and the response doesn't state any.
func (c *call) addSeconds(units meter.Units) {
	if units != nil && units[meter.Second] == 0 && c.rates.Uses(meter.Second) {
		units.Add(meter.Second, meter.Quantity(time.Since(c.began).Microseconds()))
	}
}

// stopEvent is what ends a stream in the provider's own format when the money has run out; nil where there is no such thing.
func (c *call) stopEvent() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if worth := c.auth.Worth(); worth > 0 {
		return c.counter.Stop(string(limitExceeded), "the call has come to what its milestone pays: "+worth.String())
	}
	if c.limit > 0 && c.covered >= c.limit {
		return c.counter.Stop(string(limitExceeded), "the call has cost its limit of "+c.limit.String())
	}
	return c.counter.Stop(string(insufficientFunds), "the money for this call has run out: fund the wallet or the escrow, and ask again")
}

// isOver reports whether the event that ends a stream has come.
func (c *call) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Ended()
}

// tail is the end of the response that was held back.
func (c *call) tail() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Tail()
}
