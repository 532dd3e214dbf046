package probe

import (
	"net/http"

	"github.com/tallygate/tallygate/meter"
)

// Count is a class of units, and the probe that reads their number from a response.
type Count struct {
	Class meter.Class
	Probe *Probe
}

// Add returns a counter that counts what c counts, and also the units of counts. status and h are those of the response to call. costs are the
// places where the provider may state its price. If costs is not empty, the Cost of the usage is the first of these values that the response
// has. A cost that c has found is then not used.
func Add(c meter.Counter, counts []Count, costs []*Probe, call *meter.Call, status int, h http.Header) meter.Counter {
	if len(counts) == 0 && len(costs) == 0 {
		return c
	}
	w := &counting{Counter: c}
	for _, count := range counts {
		w.classes = append(w.classes, count.Class)
		w.readers = append(w.readers, count.Probe.Reader(call, status, h))
	}
	for _, cost := range costs {
		w.readers = append(w.readers, cost.Reader(call, status, h))
	}
	return w
}

type counting struct {
	meter.Counter
	classes []meter.Class
	readers []*Reader // one for each class, then one for each place of the cost
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
	for i, class := range c.classes {
		q, _, _ := c.readers[i].Quantity()
		at.Add(class, q)
		bound.Add(class, q)
	}
	return at, bound
}

// Ahead is not known, since each message may change what the probes read.
func (c *counting) Ahead() (tokens int64, ok bool) { return 0, false }

func (c *counting) Usage(complete bool) meter.Usage {
	if complete {
		c.end()
	}
	u := c.Counter.Usage(complete)
	costs := c.readers[len(c.classes):]
	if len(costs) > 0 {
		u.Cost = ""
	}
	if !complete && u.Units[meter.Byte] == 0 { // the client got nothing
		return u
	}
	told := len(c.classes) == 0
	for i, class := range c.classes {
		q, exact, ok := c.readers[i].Quantity()
		told = told || c.readers[i].Tells()
		u.Units.Add(class, q)
		if c.readers[i].Unread() {
			u.Unread = append(u.Unread, class)
		} else {
			u.Suspect = u.Suspect || ok && !exact
		}
	}
	u.Uncounted = !told
	for _, r := range costs {
		if text, ok := r.Text(); ok {
			u.Cost = text
			break
		}
	}
	return u
}

var _ meter.Counter = (*counting)(nil)
