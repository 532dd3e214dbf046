package wire

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/tokens"
)

// State is what has been read of a response so far. The functions of a [Dialect] fill it in.
type State struct {
	Call *meter.Call

	// Stated is the usage that the provider has stated so far; later statements replace earlier ones.
	Stated Stated
	// Covered says that the stated usage is that of the whole response: text that follows does not count.
	Covered bool
	// Sums are units that are added up over the response: searches, pages, seconds, search units.
	Sums meter.Units
	// Tools counts the tool calls that succeeded, by the tool's name.
	Tools map[string]int64
	// ToolsFailed counts the tool calls that failed.
	ToolsFailed map[string]int64
	// Unmatched and Waiting are those of [meter.Usage].
	Unmatched int64
	Waiting   []string
	// Passes and Beside are those of [meter.Usage]. Passes are part of Stated, Beside is not.
	Passes, Beside []meter.Pass

	Model, Tier, Cost string
	// ID is the provider's name for an answer that comes later. Answered says that the body is an answer. Pending says that the provider calls
	// the answer unfinished.
	ID                string
	Answered, Pending bool
	// Unfinished are the IDs of answers over one connection that have begun and not ended.
	Unfinished []string
	// Containers are those of [meter.Usage].
	Containers []string
	// Failed says that the provider reported an error in the body. If there is no output either, the prompt is not estimated.
	Failed bool

	// Made are the resources that the provider keeps of the call. Only those that the answer has named so far are known.
	Made []meter.Resource

	// Results are those of [meter.Usage].
	Results []string
	// Estimated says that the format itself has counted a part of the usage. Unstated says that nobody can tell what a part of the answer used.
	Estimated, Unstated bool

	// Scratch belongs to the format. It may keep anything there while it reads the response.
	Scratch any

	texts   []textOf // of Output and Reasoning
	sound   int64    // characters of sound in base64
	turn    turn     // of a connection
	peeking bool     // see Peeking; nothing is added up meanwhile
	covers  bool     // the message states a usage that includes its own text
}

// Peeking reports whether End was called for a message that is not complete yet. End will be called again when it is.
func (t *State) Peeking() bool { return t.peeking }

// hasText reports whether there is text, or sound, that is not included in any stated usage.
func (t *State) hasText() bool {
	if t.sound > 0 {
		return true
	}
	return slices.ContainsFunc(t.texts, func(text textOf) bool { return !text.Empty() })
}

// textOf is the text of a class.
type textOf struct {
	class meter.Class
	*tokens.Text
}

// State replaces the stated usage. The usage is marked as suspect if it is more than the request can use.
func (t *State) State(s Stated) {
	if !s.HasPrompt && !s.HasCompletion { // nothing was stated
		t.Stated.Suspect = t.Stated.Suspect || s.Suspect
		return
	}
	t.Stated = s.credible(t.Call)
	t.dropText()
}

// AddStated adds a usage to the stated one. It is the usage of one of several responses on a connection, or of one line of a batch.
func (t *State) AddStated(s Stated) {
	if t.peeking {
		return
	}
	t.Stated.Add(s)
	t.dropText()
	t.turn.end(t, s)
}

// maxMade bounds how many resources one answer can make, and maxMadeOver all answers over one connection. Further ones belong to nobody.
const (
	maxMade     = 256
	maxMadeOver = 4096
)

// Make notes that the provider keeps a resource of the call.
func (t *State) Make(kind string, id gjson.Result) {
	most := maxMade
	if t.Call.Talks {
		most = maxMadeOver
	}
	if id.Type != gjson.String || len(t.Made) == most {
		return
	}
	if r, ok := meter.NamedResource(kind, id.Str); ok && r.ID != "" && !slices.Contains(t.Made, r) {
		t.Made = append(t.Made, r)
	}
}

// maxResults bounds how many results of one answer are remembered. Further ones are charged each time.
const maxResults = 10_000

// Result notes a result of an answer with several: the provider's id of it, and what else tells it apart. It returns false if the result was
// charged before, so that it does not count. A result without an id can't be recognised, and counts each time.
func (t *State) Result(id, content string) bool {
	if id == "" || t.Call.Paid == nil {
		return true
	}
	sum := sha256.Sum256([]byte(id + "\x00" + content))
	name := hex.EncodeToString(sum[:16])
	if t.Call.Paid(name) {
		return false
	}
	if len(t.Results) < maxResults {
		t.Results = append(t.Results, name)
	}
	return true
}

// Begin notes that an answer over a connection has begun.
func (t *State) Begin(id string) {
	if id != "" && len(t.Unfinished) < maxMadeOver && !slices.Contains(t.Unfinished, id) {
		t.Unfinished = append(t.Unfinished, id)
	}
}

// End notes that an answer over a connection has ended. Without an id it is the only one.
func (t *State) End(id string) {
	t.Unfinished = slices.DeleteFunc(t.Unfinished, func(other string) bool { return other == id || id == "" })
}

// maxPasses bounds how many models have a pass of their own in one response. All further models share the pass of [meter.FurtherModels].
const maxPasses = 64

// AddPass adds a usage to the stated one. It is the usage of one of several answers, as in a batch, and model is the model that gave it.
func (t *State) AddPass(model string, s Stated) {
	if t.peeking {
		return
	}
	if t.Model == "" {
		t.Model = model
	}
	if model != t.Model {
		t.Passes = merge(t.Passes, meter.Pass{Model: model, Units: s.Units()})
	}
	t.AddStated(s)
}

// AddBeside adds the usage of another model. It is not part of the stated usage.
func (t *State) AddBeside(p meter.Pass) {
	if !t.peeking {
		t.Beside = merge(t.Beside, p)
	}
}

// merge adds p to the pass of the same model, or to the list.
func merge(passes []meter.Pass, p meter.Pass) []meter.Pass {
	if len(p.Units) == 0 {
		return passes
	}
	p.Model = name(p.Model)
	of := func(model string) int {
		return slices.IndexFunc(passes, func(old meter.Pass) bool { return old.Model == model })
	}
	at := of(p.Model)
	if at < 0 && len(passes) >= maxPasses {
		p.Model = meter.FurtherModels
		at = of(p.Model)
	}
	if at < 0 {
		return append(passes, p)
	}
	for class, n := range p.Units {
		passes[at].Units.Add(class, n)
	}
	return passes
}

// dropText forgets the text so far if the stated usage includes it. Beside answers over a connection that go on, nobody knows whose it is.
func (t *State) dropText() {
	if t.Stated.HasCompletion {
		t.covers = true
		if len(t.Unfinished) > 0 {
			return
		}
		t.sound = 0
		for _, text := range t.texts {
			text.Reset()
		}
	}
}

// text returns the counter for the text of class c.
func (t *State) text(c meter.Class) *tokens.Text {
	for _, text := range t.texts {
		if text.class == c {
			return text.Text
		}
	}
	text := tokens.NewText(tokens.ForModel(cmp.Or(t.Call.Model, t.Model)))
	t.texts = append(t.texts, textOf{c, text})
	return text
}

// Message is one message of a response: an SSE event, a line, a frame, or a whole JSON body.
type Message struct {
	Event string // the SSE event's name, or the frame's type

	rules   []Rule
	marks   []int // the rules that mark
	values  []value
	kept    []byte    // the values' bytes
	said    [8]string // what Get has returned last of the first values, since most messages of a stream say the same again
	read    []read    // by rule
	literal []byte    // the first bytes of the message
	texts   []segment
	text    []byte  // the texts' bytes
	room    *[]byte // what text was taken from; nil if there is no text yet
	inText  bool    // the last string is not complete
}

// textRooms are memory for the texts of whole bodies, which is used again for other bodies.
var textRooms sync.Pool

// takeRoom makes room for text.
func (m *Message) takeRoom() {
	room, ok := textRooms.Get().(*[]byte)
	if !ok {
		room = new([]byte)
	}
	m.room, m.text = room, (*room)[:0]
}

// giveRoom gives back the room of a text that was counted.
func (m *Message) giveRoom() {
	if m.room != nil {
		*m.room = m.text[:0]
		textRooms.Put(m.room)
		m.room, m.text = nil, nil
	}
}

type value struct{ rule, start, end int }

// read is how much of a message there was for a rule.
type read struct {
	values int64 // how many were marked or kept
	bytes  int   // of those that were kept
}

// segment is the text of one string, or of a piece of it.
type segment struct {
	rule, start, end int
	ended            bool // the string ends with it
}

const (
	maxValues  = 4096      // that are kept for a rule, so that the values at one path do not crowd out those at another
	maxKept    = 256 << 10 // bytes of them
	maxText    = 64 << 10  // bytes of text that are kept until the message ends
	maxTexts   = 4096      // how many strings they may be
	maxLiteral = 16
	maxSaid    = 64 // bytes of a value that is remembered
)

// Is reports whether the message is exactly s, such as "[DONE]"; s has at most 15 bytes.
func (m *Message) Is(s string) bool { return string(m.literal) == s }

// Get returns the last value that was kept at path. If there is none, the result does not exist.
func (m *Message) Get(path string) gjson.Result {
	for i := len(m.values) - 1; i >= 0; i-- {
		if m.rules[m.values[i].rule].Path == path {
			return gjson.Parse(m.raw(i))
		}
	}
	return gjson.Result{}
}

// raw returns a value as it is written in the message.
func (m *Message) raw(i int) string {
	raw := m.kept[m.values[i].start:m.values[i].end]
	if i >= len(m.said) || len(raw) > maxSaid {
		return string(raw)
	}
	if said := &m.said[i]; string(raw) != *said {
		*said = string(raw)
	}
	return m.said[i]
}

// All returns the values kept at path, in order.
func (m *Message) All(path string) []gjson.Result {
	var all []gjson.Result
	for _, v := range m.values {
		if m.rules[v.rule].Path == path {
			all = append(all, gjson.ParseBytes(m.kept[v.start:v.end]))
		}
	}
	return all
}

// Has reports whether there is a value at path. A rule must mark the path.
func (m *Message) Has(path string) bool { return m.Count(path) > 0 }

// Failed reports whether the message has an error at path. One rule must mark the path and another keep it. The values null and false, and an
// empty text, object or array, are no errors.
func (m *Message) Failed(path string) bool {
	v := m.Get(path)
	switch {
	case v.IsObject(), v.IsArray():
		return strings.Trim(v.Raw, "{[ \t\r\n]}") != ""
	case v.Exists(): // null, false, and "" are the same
		return v.String() != "" && v.Type != gjson.False
	}
	return m.Has(path) // too large to be kept
}

// Count returns how many values there are at path. A rule must mark the path.
func (m *Message) Count(path string) (n int64) {
	for _, i := range m.marks {
		if m.rules[i].Path == path {
			n += m.read[i].values
		}
	}
	return n
}

// most returns the highest number of tokens that the text of the message gathered so far can have. Each byte is at most one token. The answer
// itself, and each tool call, cost some more.
func (c *counter) most() int64 {
	m := &c.msg
	if len(m.texts) == 0 {
		return 0
	}
	n := int64(16)
	for _, s := range m.texts {
		size := int64(s.end - s.start)
		if c.class(s) == meter.AudioOutput {
			size = c.soundOf(size)
		}
		if n += size; m.rules[s.rule].Call {
			n += 64
		}
	}
	return n
}

func (m *Message) reset() {
	m.Event, m.values, m.kept, m.literal = "", m.values[:0], m.kept[:0], m.literal[:0]
	m.texts, m.text, m.inText = m.texts[:0], m.text[:0], false
	clear(m.read)
}

// gather is a [skim.Sink] for the current message of a counter.
type gather struct{ *counter }

func (g gather) Value(i int, raw []byte) {
	m := &g.msg
	if rule := m.rules[i]; rule.Makes != "" {
		if id := gjson.ParseBytes(raw); !rule.Named || strings.Contains(id.Str, "/") {
			g.state.Make(rule.Makes, id)
		}
	}
	if each := m.rules[i].Each; each != nil {
		each(&g.state, gjson.ParseBytes(raw))
		return
	}
	read := &m.read[i]
	if raw == nil || read.values == maxValues || read.bytes+len(raw) > maxKept {
		return
	}
	read.values++
	read.bytes += len(raw)
	start := len(m.kept)
	m.kept = append(m.kept, raw...)
	m.values = append(m.values, value{i, start, len(m.kept)})
}

func (g gather) Text(i int, piece []byte) {
	m := &g.msg
	if piece == nil {
		if m.inText { // the string's beginning may be counted already
			m.texts = append(m.texts, segment{rule: i, start: len(m.text), end: len(m.text), ended: true})
		}
		m.inText = false
		return
	}
	for len(piece) > 0 {
		m.inText = true
		if m.room == nil {
			m.takeRoom()
		}
		if len(m.text) == maxText || len(m.texts) >= maxTexts {
			g.commitText()
		}
		n := min(len(piece), maxText-len(m.text))
		start := len(m.text)
		m.text = append(m.text, piece[:n]...)
		piece = piece[n:]
		if k := len(m.texts); k > 0 && m.texts[k-1].rule == i && !m.texts[k-1].ended {
			m.texts[k-1].end = len(m.text)
		} else {
			m.texts = append(m.texts, segment{rule: i, start: start, end: len(m.text)})
		}
	}
}

func (g gather) Mark(i int) {
	g.msg.read[i].values++
	if each := g.msg.rules[i].Each; each != nil {
		each(&g.state, gjson.Result{})
	}
}
