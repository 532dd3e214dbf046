package probe

import (
	"net/http"

	"github.com/tallygate/tallygate/meter"
)

// Count is a class of units that a response states at a probe.
type Count struct {
	Class meter.Class
	Probe *Probe
}

// Add returns a counter that counts what c counts, and these.
func Add(c meter.Counter, counts []Count, call *meter.Call, status int, h http.Header) meter.Counter {
	if len(counts) == 0 {
		return c
	}
	w := &counting{Counter: c}
	for _, count := range counts {
		w.classes = append(w.classes, count.Class)
		w.readers = append(w.readers, count.Probe.Reader(call, status, h))
	}
	return w
}

type counting struct {
	meter.Counter
	classes []meter.Class
	readers []*Reader
}

func (c *counting) Feed(dst, chunk []byte) []byte {
	for _, r := range c.readers {
		r.Feed(chunk)
	}
	return c.Counter.Feed(dst, chunk)
}

func (c *counting) Tail() []byte {
	c.end()
	return c.Counter.Tail()
}

func (c *counting) end() {
	for _, r := range c.readers {
		r.End()
	}
}

func (c *counting) Progress() (at, bound meter.Units) {
	at, bound = c.Counter.Progress()
	for i, r := range c.readers {
		q, _, _ := r.Quantity()
		at.Add(c.classes[i], q)
		bound.Add(c.classes[i], q)
	}
	return at, bound
}

func (c *counting) Usage(complete bool) meter.Usage {
	if complete {
		c.end()
	}
	u := c.Counter.Usage(complete)
	if !complete && u.Units[meter.Byte] == 0 { // nothing was delivered
		return u
	}
	for i, r := range c.readers {
		q, exact, ok := r.Quantity()
		u.Units.Add(c.classes[i], q)
		u.Suspect = u.Suspect || ok && !exact
	}
	return u
}

var _ meter.Counter = (*counting)(nil)
