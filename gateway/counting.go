package gateway

import (
	"bytes"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
)

// counting is an answer that is charged, as it goes by. Its methods that take the call's lock say so; the others are called under it.
type counting struct {
	*admitted
	status    int
	counter   meter.Counter
	watcher   Watcher      // sees the body for whoever judges the answer; nil where nobody does
	sent      bool         // bytes of the body have gone out
	delivered *meter.Usage // what had gone out when the money ran out, where that is known exactly
}

func newCounting(a *admitted, status int, h http.Header, sse bool) *counting {
	c := &counting{admitted: a, status: status}
	if _, known := a.pay.known(); known && !sse {
		c.counter = oneCall{}
	} else {
		var costs []*probe.Probe
		if c.statesCost() {
			costs = a.route.Cost.Probes
		}
		c.counter = probe.Add(a.call.Counter(status, h), a.route.Counts, costs, a.call, status, h)
	}
	if q := a.route.Quality; q != nil && a.pay.moves() {
		c.watcher = q.Judge.Watch(a.answerTo(status, h))
	}
	return c
}

// statesCost reports whether the answer may state what it costs. A connection that leaves HTTP, or a file of results, has many
// answers, each with a cost of its own.
func (c *counting) statesCost() bool {
	return c.route.Cost != nil && c.status != http.StatusSwitchingProtocols && c.call.Once == ""
}

// oneCall counts an answer whose price is known, and holds nothing back.
type oneCall struct{}

func (oneCall) Feed(dst, chunk []byte) []byte     { return append(dst, chunk...) }
func (oneCall) Ended() bool                       { return false }
func (oneCall) Tail() []byte                      { return nil }
func (oneCall) Progress() (at, bound meter.Units) { return nil, nil }
func (oneCall) Stop(code, message string) []byte  { return nil }
func (oneCall) Comment(text string) []byte        { return nil }
func (oneCall) Usage(complete bool) (u meter.Usage) {
	u.Source = meter.Stated
	if complete {
		u.Units = meter.Units{meter.Calls: meter.Whole(1)}
	}
	return u
}

// whole counts an answer that is here whole, and returns all of it but its end. Whether the money reaches for it is decided when it is
// settled. It takes the call's lock.
func (c *counting) whole(p []byte) (out []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return nil, errAborted
	}
	c.watch(p)
	c.sent = true
	out = c.counter.Feed(nil, p)
	c.reach()
	return out, nil
}

// chunk takes the next bytes of the answer and appends to dst those that may go to the client. What they cost is held and, batch
// by batch, drawn. exhausted says that the money has run out with these bytes: no more may follow than what is returned. It takes
// the call's lock.
func (c *counting) chunk(dst, p []byte) (out []byte, exhausted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.aborted:
		return dst, false, errAborted
	case c.end != nil:
		return dst, false, errSettled // a handler that goes on after its write has failed
	}
	c.watch(p)
	for len(p) > 0 && !exhausted {
		n := len(p)
		var before *meter.Usage
		if !c.pay.covers(n) {
			n = slice(p)
			before = c.exactly()
		}
		paid := len(dst)
		dst = c.counter.Feed(dst, p[:n])
		p = p[n:]
		at, reached := c.reach()
		if exhausted = !reached && !c.route.FinishUnpaid; exhausted {
			dst, c.delivered = dst[:paid], before // the money has run out within what came last
		}
		if err := c.pay.draw(at, time.Now()); err != nil {
			return dst, false, err
		}
	}
	c.sent = true
	return dst, exhausted, nil
}

// exactly is what was used so far, where the units are counted exactly and so can be told apart to the last one; else nil.
func (c *counting) exactly() *meter.Usage {
	if c.rates.UsesTokens() {
		return nil
	}
	usage := c.counter.Usage(false)
	return &usage
}

// reach holds what the answer may have used by now. It reports false where the money is not there, and what was certainly used.
func (c *counting) reach() (at meter.Units, reached bool) {
	at, bound := c.counter.Progress()
	c.addSeconds(at, c.call.Length)
	c.addSeconds(bound, c.call.Length)
	if bound != nil {
		c.addAsked(bound)
	}
	return at, c.pay.reach(bound, func() meter.Usage {
		usage := c.counter.Usage(false)
		c.addSeconds(usage.Units, usage.Length)
		if usage.Units != nil {
			c.addAsked(usage.Units)
		}
		return usage
	})
}

func (c *counting) watch(p []byte) {
	if c.watcher != nil {
		c.watcher.Feed(p)
	}
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

// addSeconds counts time, where that is what is charged. A second is one of audio, as the answer states it, else as the upload or the last
// subtitle says; or one of a connection, or of a call that no format knows, by the clock. It is not counted where the answer states tokens
// that have a price.
func (c *counting) addSeconds(units meter.Units, length meter.Quantity) (estimated bool) {
	if units == nil {
		return false
	}
	elapsed := meter.Quantity(time.Since(c.began).Microseconds())
	if c.rates.Uses(meter.Elapsed) {
		units.Add(meter.Elapsed, elapsed)
	}
	if units[meter.Second] > 0 || !c.rates.Uses(meter.Second) || c.rates.UsesTokens() && c.status != http.StatusSwitchingProtocols && hasTokens(units) {
		return false
	}
	if !c.call.Timed && (c.call.API == "" || c.status == http.StatusSwitchingProtocols || c.request.Method == http.MethodConnect) {
		units.Add(meter.Second, elapsed)
		return false
	}
	units.Add(meter.Second, length)
	return length > 0
}

// stopEvent is what ends a stream in the provider's own format when the money has run out, or when what the client says is refused; nil where
// there is no such thing. It takes the call's lock.
func (c *counting) stopEvent() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	code, message := c.pay.exhausted()
	if c.talk != nil && c.talk.refused != nil {
		code, message = c.talk.refused.Outcome, c.talk.refused.Detail
	}
	return c.counter.Stop(string(code), message)
}

// comment is a comment of an event stream, where the format's clients skip one; else nil. It takes the call's lock.
func (c *counting) comment(text string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Comment(text)
}

// isOver reports whether the event that ends a stream has come. It takes the call's lock.
func (c *counting) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Ended()
}

// tail is the end of the answer that was held back. It takes the call's lock.
func (c *counting) tail() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Tail()
}

// price is what the complete answer costs, before its quality is judged. It takes the call's lock.
func (c *counting) price() (ledger.Amount, bool) {
	c.mu.Lock() // the end of the process may settle the call meanwhile
	defer c.mu.Unlock()
	usage := c.counter.Usage(true)
	c.addSeconds(usage.Units, usage.Length)
	if usage.Units != nil {
		c.addAsked(usage.Units)
	}
	bill, err := c.bill(usage, false, c.usedBefore)
	return bill.amount, err == nil
}
