package wire

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/sse"
)

// counter implements [meter.Counter] for every dialect.
type counter struct {
	d     *Dialect
	state State
	skim  *skim.Reader
	msg   Message
	dumb  bool // the body belongs to an error, and is not read

	shape    Shape
	framer   framer
	events   int64
	bytes    int64
	lastRule int // the rule of the text that was counted last

	array   *arraySplitter // splits a message that is read element by element
	verdict Verdict        // the strictest verdict on those elements so far

	at, bound meter.Units // what Progress has returned last
	seen      seen

	ended bool // Tail was called
	tail  []byte
}

// framer finds the messages in a body, and decides when each may go to the client.
type framer interface {
	// feed reads chunk and appends to dst the bytes that may be sent.
	feed(c *counter, dst, chunk []byte) []byte
	// finish reads the rest at the end of the body, and returns what was held back.
	finish(c *counter) []byte
	// atEnd reports whether the message that ends the stream has come.
	atEnd() bool
	// passing reports whether a part of an unfinished message was passed on.
	passing(c *counter) bool
	// write returns notes in the body's framing, to end the stream with, or nil if no note may be sent at this place.
	write(notes []Note) []byte
}

// NewCounter returns a counter for the response to call, which has this status and header.
func NewCounter(d *Dialect, call *meter.Call, status int, h http.Header) meter.Counter {
	c := &counter{d: d, state: State{Call: call, Sums: meter.Units{}}, dumb: status >= 400, lastRule: -1}
	c.msg.rules, c.msg.marks, c.msg.read = d.Rules, d.marks, make([]read, len(d.Rules))
	c.framer = newFramer(c, status, h)
	if d.Start != nil && !c.dumb {
		d.Start(&c.state, h)
	}
	return c
}

// use sets the shape of the body. The framer calls it before anything is read.
func (c *counter) use(shape Shape) {
	c.shape = shape
	c.skim = skim.New(c.d.paths[shape], gather{c})
}

func (c *counter) Feed(dst, chunk []byte) []byte {
	if c.ended {
		return dst
	}
	start := len(dst)
	dst = c.framer.feed(c, dst, chunk)
	c.bytes += int64(len(dst) - start)
	return dst
}

func (c *counter) Ended() bool { return c.framer.atEnd() }

func (c *counter) Tail() []byte {
	if !c.ended {
		c.ended = true
		c.tail = c.framer.finish(c)
		c.bytes += int64(len(c.tail))
	}
	return c.tail
}

func (c *counter) Stop(code, message string) []byte {
	if c.ended || c.d.Stop == nil {
		return nil
	}
	return c.framer.write(c.d.Stop(code, message))
}

func (c *counter) Comment(text string) []byte {
	stream, ok := c.framer.(*messages)
	if !ok || !c.d.Comments || stream.inside {
		return nil
	}
	if _, ok := stream.split.(*sseSplitter); !ok {
		return nil
	}
	return []byte(": " + text + "\n\n")
}

// data reads a piece of the current message.
func (c *counter) data(p []byte) {
	if c.dumb {
		return
	}
	if c.d.Elements && c.array == nil && len(c.msg.literal) == 0 && bytes.HasPrefix(bytes.TrimLeft(p, " \t\r\n"), []byte("[")) {
		c.array, c.verdict = &arraySplitter{}, Pass
	}
	if room := maxLiteral - len(c.msg.literal); room > 0 {
		c.msg.literal = append(c.msg.literal, p[:min(room, len(p))]...)
	}
	if c.array == nil {
		c.skim.Write(p)
		return
	}
	for len(p) > 0 {
		n, end := c.array.scan(p, func(q []byte) { c.skim.Write(q) })
		if p = p[n:]; end == sse.Event {
			c.array.next()
			c.verdict = max(c.verdict, c.element(""))
		}
	}
}

// end ends the current message, and makes the counter ready for the next one.
func (c *counter) end(event string) Verdict {
	switch {
	case c.dumb:
		return Pass
	case event == endOfStream:
		c.msg.reset()
		return Final
	case c.array != nil:
		c.array = nil
		c.msg.reset()
		return c.verdict
	}
	return c.element(event)
}

// element ends a JSON document: a message, or an element of one.
func (c *counter) element(event string) Verdict {
	c.skim.Close()
	c.msg.Event = event
	c.state.covers = false
	v := c.d.End(&c.state, &c.msg)
	c.state.Answered = c.state.Answered || slices.ContainsFunc(c.d.Answers, c.msg.Has)
	if !c.state.covers {
		c.commitText()
	}
	if c.d.Frames {
		c.state.turn.begin(&c.state)
	}
	if c.state.Call.Choices > 1 { // the deltas of several choices alternate, so no token extends from one to the next
		for _, text := range c.state.texts {
			text.Break()
		}
	}
	c.skim.Reset()
	c.msg.reset()
	if c.shape == Whole {
		c.msg.giveRoom()
	}
	return v
}

// peek reads the current message as far as it has come. It is read again when it ends.
func (c *counter) peek() {
	if c.dumb {
		return
	}
	c.state.peeking = true
	c.d.End(&c.state, &c.msg)
	c.state.peeking = false
}

// commitText counts the text of the message that was collected so far.
func (c *counter) commitText() {
	m := &c.msg
	for _, s := range m.texts {
		rule, class := m.rules[s.rule], c.class(s)
		switch {
		case class == "" || c.state.Covered:
			continue
		case class == meter.AudioOutput:
			c.state.sound += int64(s.end - s.start)
			continue
		}
		text := c.state.text(class)
		if s.rule != c.lastRule {
			text.Break()
			c.lastRule = s.rule
		}
		text.Write(m.text[s.start:s.end])
		if s.ended && rule.Call {
			text.Call()
		}
		if s.ended && c.shape == Whole {
			text.Break()
		}
	}
	m.texts, m.text = m.texts[:0], m.text[:0]
}

// class is the class of a text.
func (c *counter) class(s segment) meter.Class {
	class := c.msg.rules[s.rule].Text
	if c.d.Class != nil {
		class = c.d.Class(&c.msg, class)
	}
	return class
}

// exact adds the units that are counted without reading the messages.
func (c *counter) exact(u meter.Units) {
	u.Add(meter.Event, meter.Whole(c.events))
	u.Add(meter.Byte, meter.Whole(c.bytes))
}

func (c *counter) Recognised() bool {
	if c.dumb || c.ended || !c.framer.passing(c) {
		return c.known()
	}
	c.peek()
	return c.known() || len(c.msg.texts) > 0
}

// known reports whether the messages so far have output, a usage or an error.
func (c *counter) known() bool {
	t := &c.state
	return t.Stated.HasPrompt || t.Stated.HasCompletion || t.hasText() || t.Failed || t.Answered
}

func (c *counter) Progress() (at, bound meter.Units) {
	passing := !c.ended && c.framer.passing(c)
	if passing {
		c.peek()
	}
	if c.at == nil {
		c.at, c.bound = meter.Units{}, meter.Units{}
	}
	at, bound = c.at, c.bound
	clear(at)
	c.exact(at)
	t := &c.state
	stated := t.Stated // a copy, since its units may mark it as suspect
	stated.addTo(at)
	for class, n := range t.Sums {
		at.Add(class, n)
	}
	clear(bound)
	maps.Copy(bound, at)
	if !stated.HasPrompt && c.d.Prompt != nil {
		bound.Add(meter.Input, meter.Whole(t.Call.InputTokens))
	}
	for _, text := range t.texts {
		text.Settle()
	}
	low, high := t.estimates() // all as output: only the end shows whether the provider states reasoning separately
	at.Add(meter.Output, meter.Whole(low))
	bound.Add(meter.Output, meter.Whole(high))
	bound.Add(meter.AudioOutput, meter.Whole(c.soundOf(t.sound)))
	c.addOpen(bound)
	if passing {
		bound.Add(meter.Output, meter.Whole(c.most()))
	}
	c.seen = seen{!passing, t.Stated, low, high}
	return at, bound
}

// seen is what Progress has seen when it was called last.
type seen struct {
	known     bool
	stated    Stated
	low, high int64 // of all texts
}

func (c *counter) Ahead() (tokens int64, ok bool) {
	t := &c.state
	if !c.seen.known || c.ended || c.d.Frames || t.sound > 0 || len(t.Sums) > 0 || t.Stated != c.seen.stated || c.framer.passing(c) || t.hasNews() {
		return 0, false
	}
	low, high := t.estimates()
	if low, high = low-c.seen.low, high-c.seen.high; low < 0 || high < 0 { // some of the text was tokenised
		return 0, false
	}
	return max(low, high), true
}

// hasNews reports whether some of the text was tokenised since the estimates were read.
func (t *State) hasNews() bool {
	return slices.ContainsFunc(t.texts, func(text textOf) bool { return text.HasNews() })
}

// estimates are the lowest and the highest number of tokens of the text.
func (t *State) estimates() (low, high int64) {
	for _, text := range t.texts {
		low += text.Low()
		high += text.High()
	}
	return low, high
}

func (c *counter) Usage(complete bool) meter.Usage {
	if complete {
		c.Tail()
	} else if !c.ended && c.framer.passing(c) {
		c.commitText()
		c.peek()
	}
	t := &c.state
	u := meter.Usage{Source: meter.Stated, Model: name(t.Model), ServiceTier: t.Tier, Cost: t.Cost,
		Tools: t.Tools, ToolsFailed: t.ToolsFailed, Unmatched: t.Unmatched, Waiting: t.Waiting, Passes: t.Passes, Beside: t.Beside, Made: t.Made, Containers: t.Containers, Results: t.Results}
	u.Units = meter.Units{}
	c.exact(u.Units)
	if !complete && c.bytes == 0 { // nothing was delivered
		return u
	}
	if complete {
		u.Units.Add(meter.Calls, meter.Whole(1))
	}
	for class, n := range t.Sums {
		u.Units.Add(class, n)
	}
	if c.dumb {
		return u
	}
	stated := t.Stated
	c.later(&u)
	stated.addTo(u.Units)
	if t.Estimated {
		u.Source = meter.Estimated
	}
	u.Suspect = stated.Suspect
	u.PromptTokens = stated.Prompt
	if !stated.HasPrompt && c.d.Prompt != nil && (!t.Failed || t.hasText()) {
		u.PromptTokens = c.d.Prompt(t.Call) + t.Call.InputStored
		u.Units.Add(meter.Input, meter.Whole(u.PromptTokens))
		u.Source = meter.Estimated
	}
	if !complete && !stated.HasCompletion && !stated.NoMore && c.d.Prompt != nil && !t.Call.InputOnly {
		u.Source = meter.Estimated // what it has put out is not stated, be there text of it or not
	}
	if complete && (stated.HasCompletion || stated.NoMore) && !c.d.Frames { // the usage covers later text too, except on a WebSocket, where later text belongs to another answer
		return u
	}
	c.addUnstated(&u)
	return u
}

// addUnstated adds what was passed on and no usage includes.
func (c *counter) addUnstated(u *meter.Usage) {
	t := &c.state
	if u.Open = c.addOpen(u.Units); u.Open > 0 {
		u.Settled = meter.Whole(t.Stated.Completion)
		u.Source = meter.Estimated
	}
	add := func(class meter.Class, n int64) {
		if n > 0 {
			u.Units.Add(class, meter.Whole(n))
			u.Source = meter.Estimated
		}
	}
	add(meter.AudioOutput, c.soundOf(t.sound))
	for _, text := range t.texts {
		n := text.Count()
		if text.class == meter.Output {
			n = text.Answer()
		}
		add(text.class, n)
	}
}

// later sets in a usage whether its answer is still to come.
func (c *counter) later(u *meter.Usage) {
	t := &c.state
	u.Unanswered = !c.known() && c.shape != Stream && len(c.d.Answers) > 0
	u.Unstated = t.Unstated || c.d.States && !t.Stated.HasPrompt && !t.Stated.HasCompletion && !t.Failed && c.shape != Stream && !t.Call.Mute
	u.Pending, u.Failed = t.Pending, t.Failed
	if t.Call.Keeps != "" && fetchable(t.ID) {
		u.Kept = Fetched(t.Call.Keeps, t.ID)
	}
	for _, id := range t.Unfinished {
		if t.Call.Keeps != "" && fetchable(id) {
			u.Unfinished = append(u.Unfinished, Fetched(t.Call.Keeps, id))
		}
	}
	if (u.Unanswered || u.Pending) && t.Call.Later != "" && fetchable(t.ID) {
		u.Later = Fetched(t.Call.Later, t.ID)
	}
}

// Fetched returns the name of an answer that is fetched later. It is in lower case, because some providers accept any case.
func Fetched(kind, id string) string { return kind + ":" + lower(id) }

// fetchable reports whether an answer's id can be a part of a path.
func fetchable(id string) bool {
	return id != "" && len(id) <= maxName && !strings.ContainsFunc(id, func(c rune) bool { return odd(c) || c == '/' })
}

// maxName is how many bytes of a model's name are stored.
const maxName = 256

// name returns the name of a model that a provider states, in a form that can be stored and written in one line.
func name(stated string) string {
	stated = stated[:min(len(stated), maxName)]
	if i := strings.IndexFunc(stated, unicode.IsControl); i >= 0 {
		stated = stated[:i]
	}
	return strings.ToValidUTF8(stated, "")
}

var _ meter.Counter = (*counter)(nil)
