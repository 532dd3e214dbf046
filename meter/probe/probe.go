// Package probe reads one value of a response, from a header or from its JSON. The value may be a number of units of the provider's own, a
// price that the provider states, or a score. The body is read while it passes, in bounded memory.
//
// [Header] and [JSON] make a [Probe]. [Probe.Reader] makes a [Reader], which reads the value of one response. [Add] returns a counter that also
// counts the values of probes.
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

// Probe tells where a value is in a response. It is safe for concurrent use.
type Probe struct {
	parts   []*Probe // see Sum
	header  string
	rest    string // the path within the value at rule, for gjson; "" means the value itself
	many    bool   // the path goes through arrays, so the values are added up
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
// A path of keys, and of `#` for every element of an array, works for a body of any size: "rows.#" counts the rows, and "items.#.qty" adds up
// the quantities. If a path has other syntax, the keys before it lead to a value, and gjson looks the rest up in that value. The value may
// have at most 64 KiB. In a stream, the last message with the value counts.
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
	if p.many && p.rest != "" { // such as "a.#.b.@reverse", which gjson alone can follow
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

// Sum returns a probe whose value is the sum of the parts' values. Its text is the exact sum. A part that the response does not have counts as
// zero.
func Sum(parts []*Probe) *Probe { return &Probe{parts: parts} }

// plain reports whether gjson reads a part of a path as a key, and as nothing else.
func plain(part string) bool {
	return part != "" && !strings.ContainsAny(part, `*?|#@\!{}[]()=<>%"~:`) && strings.Trim(part, "0123456789") != ""
}

// Sums reports whether the probe adds up several values of one path. Its text is then their sum, which is not written in the response.
func (p *Probe) Sums() bool { return p.many }

// Reader looks for a probe's value in one response.
type Reader struct {
	probe   *Probe
	parts   []*Reader   // of a sum
	trailer http.Header // a header may still be added to it, after the body
	counter meter.Counter
	scrap   []byte
	found   value
}

type value struct {
	text     string
	quantity meter.Quantity
	isNumber bool
	unread   bool // it, or a part of a sum, is no number at all, such as "5,000" or true
	found    bool
	none     bool   // the probe adds values up, and a message was read: if it has no values, their sum is nothing
	sum      *value // the sum for the message that is being read
}

// add adds n to the sum of the message that is being read.
func (v *value) add(n gjson.Result) {
	if v.sum == nil {
		v.sum = &value{isNumber: true, found: true}
	}
	if n.Type == gjson.Null {
		return
	}
	q, ok := meter.DecimalQuantity(strings.TrimSpace(n.String()))
	v.sum.isNumber = v.sum.isNumber && ok
	v.sum.unread = v.sum.unread || !ok && q == 0
	v.sum.quantity = min(v.sum.quantity+q, meter.MaxQuantity)
}

// take sets the value to the sum.
func (v *value) take() {
	if v.sum != nil {
		v.sum.text = v.sum.quantity.String()
		*v = *v.sum
	}
}

// InBody reports whether the value, or a part of it, is in the body of a response.
func (p *Probe) InBody() bool {
	return p.header == "" && p.parts == nil || slices.ContainsFunc(p.parts, (*Probe).InBody)
}

// Reader returns a reader of the response to call. status and h are the response's. An error, which has a status of 400 or above, has no value,
// whatever its body states.
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

// readHeader reads the header of this name, if it is there.
func (r *Reader) readHeader(name string) {
	if values := r.trailer[name]; len(values) > 0 && strings.TrimSpace(values[0]) != "" {
		text := strings.TrimSpace(values[0])
		r.found.text, r.found.found = text, true
		r.found.quantity, r.found.isNumber = meter.DecimalQuantity(text)
		r.found.unread = !r.found.isNumber && r.found.quantity == 0
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

// End tells the reader that the body has ended. Only then is every value complete.
func (r *Reader) End() {
	if r.trailer != nil { // after the body a proxy adds trailers to the header, and those that were announced under their own names
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

// addUp sets the value to the sum of the parts. If a part is no number, its text becomes the value, and is refused later.
func (r *Reader) addUp() {
	sum := new(big.Rat)
	r.found = value{isNumber: true}
	for _, part := range r.parts {
		part.End()
		text, ok := part.Text()
		if !ok {
			continue
		}
		q, exact, _ := part.Quantity()
		d, number := new(big.Rat).SetString(text)
		if !exact || !number || len(text) > maxTerm {
			r.found = value{text: text, found: true, unread: true}
			return
		}
		sum.Add(sum, d)
		digits, _ := sum.FloatPrec() // the sum of decimal numbers is a decimal number
		r.found.quantity = min(r.found.quantity+q, meter.MaxQuantity)
		r.found.text, r.found.found = sum.FloatString(digits), true
	}
}

// maxTerm is the largest length, in bytes, of a number that is added up exactly.
const maxTerm = 64

// Text returns the value as it is written in the response, or the sum of the values. ok is false if there is no value.
func (r *Reader) Text() (text string, ok bool) { return r.found.text, r.found.found }

// Tells reports whether the response states the value. A probe that adds values up is also told if there are none, as in an empty list.
func (r *Reader) Tells() bool { return r.found.found || r.found.none }

// Quantity returns the value as a number of units. ok is false if the response has no value. exact is false if the value is negative, too
// large, or no number; q is then the nearest number that is possible.
func (r *Reader) Quantity() (q meter.Quantity, exact, ok bool) {
	return r.found.quantity, r.found.isNumber, r.found.found
}

// Unread reports whether the response has the value, and it is no number, or of a sum one of the values is none: "5,000", true, an object.
func (r *Reader) Unread() bool { return r.found.unread }

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
		q, isNumber := meter.DecimalQuantity(strings.TrimSpace(v.String()))
		*found = value{text: v.String(), quantity: q, isNumber: isNumber, unread: !isNumber && q == 0, found: true}
		if v.Type == gjson.Number && v.Raw != "" {
			found.text = v.Raw // String may have gone through a float
		}
	}
	return wire.Pass
}
