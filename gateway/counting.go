package gateway

import (
	"bytes"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/meter/wire"
)

// counting is an answer that is charged, while it passes. Its methods take the call's lock if they say so; otherwise the caller holds it.
type counting struct {
	*admitted
	status    int
	counter   meter.Counter
	passes    bool         // nothing in it is counted, or held back
	messages  bool         // it comes as messages, each of which is an event
	watcher   Watcher      // sees the body for a judge; nil if nobody judges the answer
	sent      bool         // bytes of the body were sent
	mustShow  bool         // it must show to be an answer before it goes on
	delivered *meter.Usage // what was sent when the money ran out, if that is known exactly
	tokens    int64        // of its final usage
}

func newCounting(a *admitted, status int, h http.Header, sse bool) *counting {
	c := &counting{admitted: a, status: status}
	kind := mediaType(h)
	c.messages = sse || a.call.Stream || wire.IsLines(kind) || kind == "application/vnd.amazon.eventstream" || status == http.StatusSwitchingProtocols || a.request.Method == http.MethodConnect
	_, known := a.pay.known()
	c.mustShow = !known && a.mayBeOther(status, kind)
	if known && !sse && !a.stored().Makes && !a.paced.CountsTokens() {
		c.counter, c.passes = oneCall{}, true
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

// mayBeOther reports whether an answer whose tokens are charged may be something else, which can't be counted: its media type is none that can
// be read, or the request may have been for something else.
func (a *admitted) mayBeOther(status int, kind string) bool {
	c := a.call
	if status/100 != 2 || c.API == "" || c.InputOnly || c.Mute || c.Timed || c.ByAsked || !a.rates.UsesTokens() {
		return false
	}
	return c.ByShape || !wire.IsReadable(kind)
}

// statesCost reports whether the answer may state one cost for the whole call. A connection that leaves HTTP, and a file of results,
// contain many answers, each with its own cost.
func (c *counting) statesCost() bool {
	return c.route.Cost != nil && c.status != http.StatusSwitchingProtocols && c.call.Once == ""
}

// oneCall counts an answer whose price is known, and holds nothing back.
type oneCall struct{}

func (oneCall) Feed(dst, chunk []byte) []byte     { return append(dst, chunk...) }
func (oneCall) Ended() bool                       { return false }
func (oneCall) Recognised() bool                  { return true }
func (oneCall) Tail() []byte                      { return nil }
func (oneCall) Progress() (at, bound meter.Units) { return nil, nil }
func (oneCall) Ahead() (tokens int64, ok bool)    { return 0, true }
func (oneCall) Stop(code, message string) []byte  { return nil }
func (oneCall) Comment(text string) []byte        { return nil }
func (oneCall) Usage(complete bool) (u meter.Usage) {
	u.Source = meter.Stated
	if complete {
		u.Units = meter.Units{meter.Calls: meter.Whole(1)}
	}
	return u
}

// whole counts an answer that is complete, and appends all of it except its end to dst. Nothing is held for it before it is settled: then it gets all
// the money that it needs, or none, so that of several calls at the same time some are served, though there is too little for all. whole takes the
// call's lock.
func (c *counting) whole(dst, p []byte) (out []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return nil, errAborted
	}
	c.watch(p)
	c.sent = true
	return c.counter.Feed(dst, p), nil
}

// chunk takes the next bytes of the answer, and appends to dst the bytes that may go to the client. Their price is held, and drawn batch by
// batch. If exhausted is true, the money has run out, and nothing may be sent after what chunk has returned. If dst is empty and the answer passes,
// out may be p itself, so that a long download is not copied. chunk takes the call's lock.
func (c *counting) chunk(dst, p []byte) (out []byte, exhausted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.talk.news()
	switch {
	case c.aborted:
		return dst, false, errAborted
	case c.end != nil:
		return dst, false, errSettled // the handler goes on although a write has failed
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
		if c.passes && paid == 0 && n == len(p) {
			dst = p
		} else {
			dst = c.counter.Feed(dst, p[:n])
		}
		p = p[n:]
		if c.isAhead() {
			continue
		}
		at, reached := c.reach()
		if exhausted = !reached && !c.route.FinishUnpaid; exhausted {
			if dst = dst[:paid]; !c.call.Stays { // the money ran out within the last bytes
				c.delivered = before
			}
		}
		if err := c.pay.draw(at); err != nil {
			return dst, false, err
		}
	}
	c.sent = true
	if exhausted && c.call.Stays { // what the whole answer has used is charged, see streamed.hear
		c.counter.Feed(nil, p)
	}
	return dst, exhausted, nil
}

// hear counts the next bytes of an answer of which nothing more is sent. It takes the call's lock.
func (c *counting) hear(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted || c.end != nil {
		return errSettled
	}
	c.counter.Feed(nil, p)
	return nil
}

// takesTime reports whether time is charged, which passes while nothing goes to the client.
func (q *asked) takesTime() bool { return q.rates.Uses(meter.Second) || q.rates.Uses(meter.Elapsed) }

// pass holds what the time that has passed has cost, and draws it, as chunk does. It takes the call's lock.
func (c *counting) pass() (exhausted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.aborted:
		return false, errAborted
	case c.end != nil: // the client's answer to a close frame
		return false, nil
	}
	at, reached := c.reach()
	if !reached && !c.route.FinishUnpaid {
		return true, nil
	}
	return false, c.pay.draw(at)
}

// exactly returns what was used so far, if the units are counted exactly, so that a stream can be cut after any unit. Otherwise it returns
// nil.
func (c *counting) exactly() *meter.Usage {
	if c.rates.UsesTokens() {
		return nil
	}
	usage := c.counter.Usage(false)
	return &usage
}

// isAhead reports whether what has come since reach was called is so little that nothing more has to be held or drawn for it.
func (c *counting) isAhead() bool {
	tokens, ok := c.counter.Ahead()
	return ok && !c.takesTime() && c.pay.ahead(tokens)
}

// reach holds the price of what the answer may have used so far. If there is not enough money, it returns false, and what was certainly
// used.
func (c *counting) reach() (at meter.Units, reached bool) {
	at, bound := c.counter.Progress()
	c.addSeconds(at, c.call.Length)
	c.addSeconds(bound, c.call.Length)
	if bound != nil {
		c.addAsked(bound)
	}
	return at, c.pay.reach(bound, c)
}

// usedSoFar counts what was really used so far.
func (c *counting) usedSoFar() meter.Usage { return c.usage(false) }

// usage counts what was used, with what the counter does not count: time, and what the request says.
func (c *counting) usage(complete bool) meter.Usage {
	usage := c.counter.Usage(complete)
	c.addSeconds(usage.Units, usage.Length)
	if usage.Units != nil {
		c.addAsked(usage.Units)
	}
	return usage
}

func (c *counting) watch(p []byte) {
	if c.watcher != nil {
		c.watcher.Feed(p)
	}
}

// slice is how many bytes are counted at a time when the money may run out within the bytes that have come. It is at most one line, and an empty
// line after it, which contains the end of at most one event.
func slice(p []byte) int {
	p = p[:min(len(p), maxSlice)]
	end := bytes.IndexByte(p, '\n')
	switch {
	case end < 0:
		return len(p)
	case end+1 < len(p) && p[end+1] == '\n':
		return end + 2
	}
	return end + 1
}

const maxSlice = 256

// addSeconds counts time, if time is charged. A second is a second of audio: as the answer states it, or else from the length of the upload
// or the end of the last subtitle. For a connection, and for a call of an unknown API, it is a second of the time that passed. Time is not
// counted if the answer states tokens that have a price.
func (c *counting) addSeconds(units meter.Units, length meter.Quantity) (estimated bool) {
	if units == nil || !c.takesTime() {
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

// comment returns a comment for an event stream, or nil if clients of this format may not skip comments. It takes the call's lock.
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

// tail returns the end of the answer, which was held back. It takes the call's lock.
func (c *counting) tail() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counter.Tail()
}

// price returns what the complete answer costs, before its quality is judged. It takes the call's lock.
func (c *counting) price() (ledger.Amount, bool) {
	c.mu.Lock() // the end of the process may settle the call at the same time
	defer c.mu.Unlock()
	usage := c.usage(true)
	bill, err := c.bill(usage, false, c.usedBefore)
	return bill.amount, err == nil
}
