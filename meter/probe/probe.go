// Package probe reads one value of a response, from a header or from its JSON: a count of units of the provider's own, a price
// that the provider states, a score. The body is read as it passes by, in bounded memory.
//
// [Header] and [JSON] make a [Probe], and [Probe.Reader] reads its value out of one response. [Add] makes a counter count the
// values of probes beside all else.
package probe

import (
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Probe says where a response has a value. It is safe for concurrent use.
type Probe struct {
	parts   []*Probe // whose values are added up, see Sum
	header  string
	rest    string // the path that gjson follows in the value at rule; "" for that value itself
	many    bool   // the path goes through arrays: the values are added up
	dialect *wire.Dialect
	rule    string
}

// Header returns the probe for a response header.
func Header(name string) (*Probe, error) {
	if name == "" || strings.ContainsAny(name, " :\r\n") {
		return nil, fmt.Errorf("header %q: expected the name of a response header, such as X-Row-Count", name)
	}
	return &Probe{header: http.CanonicalHeaderKey(name)}, nil
}

// JSON returns the probe for a path in gjson's syntax (https://github.com/tidwall/gjson/blob/master/SYNTAX.md). A leading `$.` is
// ignored.
//
// Keys, and `#` for every element of an array, are followed through a body of any size: "rows.#" counts the rows, and
// "items.#.qty" adds the quantities up. Any other syntax is looked up by gjson in the value that the keys before it lead to,
// which must have at most 64 KiB. Of a stream, the last message that has the value counts.
func JSON(path string) (*Probe, error) {
	path = strings.TrimPrefix(strings.TrimPrefix(path, "$"), ".")
	if strings.Contains(path, "..") || strings.HasSuffix(path, ".") {
		return nil, fmt.Errorf("JSON path %q: expected keys joined by dots, such as result.rows.#", path)
	}
	p := &Probe{}
	var keys []string
	mark := false
	parts := strings.Split(path, ".")
	for i, part := range parts {
		if last := i == len(parts)-1; part == "#" {
			keys = append(keys, "*")
			mark, p.many = last, true
			continue
		}
		if !plain(part) {
			p.rest = strings.Join(parts[i:], ".")
			break
		}
		keys = append(keys, part)
	}
	if p.many && p.rest != "" { // "a.#.b.@reverse": only gjson can tell
		return nil, errors.New("a JSON path with # can't be followed by anything but keys")
	}
	p.rule = strings.Join(keys, ".")
	rule := wire.Rule{Path: p.rule, Mark: mark}
	if p.many && !mark {
		rule.Each = func(t *wire.State, v gjson.Result) { t.Scratch.(*value).add(v) }
	}
	p.dialect = wire.New(wire.Dialect{Rules: []wire.Rule{rule}, End: p.end})
	return p, nil
}

// Sum returns the probe for what several have together. Its text is the exact sum; a part that the response does not have counts
// as nothing.
func Sum(parts []*Probe) *Probe { return &Probe{parts: parts} }

// plain reports whether a part of a path is a key and has no other meaning to gjson.
func plain(part string) bool {
	return part != "" && !strings.ContainsAny(part, `*?|#@\!{}[]()=<>%"~:`) && strings.Trim(part, "0123456789") != ""
}

// Sums reports whether the probe adds values up. The text of such a probe is the sum, which the response does not state.
func (p *Probe) Sums() bool { return p.many }

// Reader looks for a probe's value in one response.
type Reader struct {
	probe   *Probe
	parts   []*Reader   // of a sum
	trailer http.Header // where a header may still come, after the body
	counter meter.Counter
	scrap   []byte
	found   value
}

type value struct {
	text     string
	quantity meter.Quantity
	isNumber bool
	found    bool
	none     bool   // of a probe that adds values up: there may be none in what was read
	sum      *value // of the message that is being read
}

// add adds n to the sum of the message that is being read.
func (v *value) add(n gjson.Result) {
	if v.sum == nil {
		v.sum = &value{isNumber: true, found: true}
	}
	q, ok := meter.DecimalQuantity(n.String())
	v.sum.isNumber = v.sum.isNumber && ok
	v.sum.quantity = min(v.sum.quantity+q, meter.MaxQuantity)
}

// take makes the sum the value.
func (v *value) take() {
	if v.sum != nil {
		v.sum.text = v.sum.quantity.String()
		*v = *v.sum
	}
}

// InBody reports whether the value, or a part of it, stands in the body of a response.
func (p *Probe) InBody() bool {
	return p.header == "" && p.parts == nil || slices.ContainsFunc(p.parts, (*Probe).InBody)
}

// Reader returns a reader of the response to call, which came with this status and header. An error (a status of 400 or above)
// has no value, whatever it states.
func (p *Probe) Reader(call *meter.Call, status int, h http.Header) *Reader {
	r := &Reader{probe: p}
	if status >= 400 {
		return r
	}
	for _, part := range p.parts {
		r.parts = append(r.parts, part.Reader(call, status, h))
	}
	if p.parts != nil {
		return r
	}
	if p.header != "" {
		r.trailer = h
		r.readHeader(p.header)
		return r
	}
	d := p.dialect.Starting(func(t *wire.State, _ http.Header) { t.Scratch = &r.found })
	r.counter = wire.NewCounter(d, &meter.Call{Stream: call.Stream}, status, h)
	return r
}

// readHeader reads a header of this name, if there is one.
func (r *Reader) readHeader(name string) {
	if values := r.trailer[name]; len(values) > 0 && strings.TrimSpace(values[0]) != "" {
		text := strings.TrimSpace(values[0])
		r.found.text, r.found.found = text, true
		r.found.quantity, r.found.isNumber = meter.DecimalQuantity(text)
	}
}

// Feed reads the next bytes of the decoded body.
func (r *Reader) Feed(chunk []byte) {
	for _, part := range r.parts {
		part.Feed(chunk)
	}
	if r.counter != nil {
		r.scrap = r.counter.Feed(r.scrap[:0], chunk)
	}
}

// End says that the body has ended. A value may be complete only then.
func (r *Reader) End() {
	if r.trailer != nil { // a proxy adds trailers to the header once the body is over, announced ones by their plain names
		r.readHeader(r.probe.header)
		r.readHeader(http.TrailerPrefix + r.probe.header)
	}
	if r.parts != nil {
		r.addUp()
	}
	if r.counter != nil {
		r.counter.Tail()
	}
}

// addUp makes the sum of the parts the value. Where a part is no number, its text is the value, so that it is refused.
func (r *Reader) addUp() {
	sum := new(big.Rat)
	r.found = value{isNumber: true}
	for _, part := range r.parts {
		part.End()
		text, ok := part.Text()
		if !ok {
			continue
		}
		q, exact, _ := part.Quantity() // exact for what is written as a number of a reasonable size
		d, number := new(big.Rat).SetString(text)
		if !exact || !number || len(text) > maxTerm {
			r.found = value{text: text, found: true}
			return
		}
		sum.Add(sum, d)
		digits, _ := sum.FloatPrec() // a sum of decimals is one
		r.found.quantity = min(r.found.quantity+q, meter.MaxQuantity)
		r.found.text, r.found.found = sum.FloatString(digits), true
	}
}

// maxTerm is how many bytes a number has at most that is added up exactly.
const maxTerm = 64

// Text returns the value as the response states it, or the sum of its values. ok is false when it has none.
func (r *Reader) Text() (text string, ok bool) { return r.found.text, r.found.found }

// Tells reports whether the response has the value, which may be that there is nothing in a list.
func (r *Reader) Tells() bool { return r.found.found || r.found.none }

// Quantity returns the value as a count of units. ok is false when the response has none. exact is false when the value is no
// such count (negative, no number, too large); q is clamped then.
func (r *Reader) Quantity() (q meter.Quantity, exact, ok bool) {
	return r.found.quantity, r.found.isNumber, r.found.found
}

// end is the dialect's End: it reads the value of a message.
func (p *Probe) end(t *wire.State, m *wire.Message) wire.Verdict {
	found := t.Scratch.(*value)
	if p.many {
		if n := m.Count(p.rule); n > 0 {
			*found = value{text: strconv.FormatInt(n, 10), quantity: meter.Whole(n), isNumber: true, found: true}
		}
		found.take()
		found.none = true
		return wire.Pass
	}
	v := m.Get(p.rule)
	if p.rest != "" {
		v = v.Get(p.rest)
	}
	switch {
	case v.IsArray():
		for _, n := range v.Array() {
			found.add(n)
		}
		found.take()
		found.text = v.Raw
	case v.Exists() && v.Type != gjson.Null:
		q, isNumber := meter.DecimalQuantity(v.String())
		*found = value{text: v.String(), quantity: q, isNumber: isNumber, found: true}
		if v.Type == gjson.Number && v.Raw != "" {
			found.text = v.Raw // String may have gone through a float
		}
	}
	return wire.Pass
}
