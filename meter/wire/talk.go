package wire

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/sse"
)

// Talk reads what a client says over a WebSocket, as far as it bears on the price: which models it names, for which tier it asks, on which
// answers the provider is to build, and what else it names that the provider keeps. It reads the frames as they go by, in bounded memory.
//
// https://ai.google.dev/api/live, https://platform.openai.com/docs/api-reference/realtime-client-events,
// https://developers.openai.com/api/reference/resources/responses/websocket-events
type Talk struct {
	follows string // the kind of the answers that the client may build on; empty where there are none
	frames  frameSplitter
	skim    *skim.Reader
	closed  bool
	begun   byte // the first byte of the message that is no space; 0 before it has come
	binary  bool // the message began so
	named   named
	spoken  *spoken
	said    meter.Said // in the messages that are complete
	told    Told
	err     error
}

// Told is what a client has said.
type Told struct {
	// Models are the models that were named.
	Models []string
	// Tiers are what was asked for that multiplies the prices, as [meter.Call.ServiceTier] has it.
	Tiers []string
	// Follows are answers that the provider is to build on, named as in [meter.Call.Fetches].
	Follows []string
	// Uses are what was named that the provider keeps: answers, files, containers.
	Uses []meter.Resource
	// Thinks says that reasoning was asked for.
	Thinks bool
	// Said is how much the client has said, since the connection began.
	Said meter.Said
}

// NewTalk returns a reader of what a client says to a model, by its name if that is known. kind is that of the answers which it may have the
// provider build on.
func NewTalk(kind, model string) *Talk {
	t := &Talk{follows: kind, spoken: newSpoken(model)}
	t.skim = skim.New(saidPaths, heard{t})
	return t
}

// Read reads the next bytes that the client sends, and returns what they tell. The error says that what is asked for can't be metered: a
// [*meter.AmbiguousError] or a [*meter.LaterError]. The bytes must not go on then, and no message is complete without them.
func (t *Talk) Read(p []byte) (Told, error) {
	t.told = Told{}
	for len(p) > 0 && t.err == nil {
		n, end := t.frames.scan(p, t.data)
		if t.frames.skip {
			t.refuse("message", "it is compressed: send it plain")
		}
		if p = p[n:]; end == sse.Event {
			t.end()
		}
	}
	t.told.Uses, t.named.uses, t.told.Said = t.named.uses, nil, t.said
	return t.told, t.err
}

// The fields of a message that are read, at its top level and in the objects below that.
const (
	saidModel    = "model " + modelNames
	saidModels   = "models fallbacks fallback_models"
	saidTiers    = "service_tier serviceTier"
	saidAnswers  = "previous_response_id"
	saidForLater = "background"
	saidToStay   = "conversation"
	saidToThink  = "reasoning reasoning_effort thinking thinkingConfig thinking_config thinkingLevel thinking_level" // also one object deeper
)

// said is one of these fields.
type said struct{ name, role string }

var (
	saidFields []said
	saidPaths  = func() *skim.Paths {
		var patterns []skim.Pattern
		for _, role := range []string{saidModel, saidModels, saidTiers, saidAnswers, saidForLater, saidToStay, saidToThink} {
			places := []string{"", "*."}
			if role == saidToThink {
				places = append(places, "*.*.")
			}
			for _, name := range strings.Fields(role) {
				for _, at := range places {
					saidFields = append(saidFields, said{name, role})
					patterns = append(patterns, skim.Pattern{Path: at + string(fold([]byte(name)))})
				}
			}
		}
		return skim.Compile(patterns).Folding(fold)
	}()
)

// data reads a piece of a message. One that is no JSON object asks for nothing. JSON in UTF-16 or UTF-32, which some servers read in a binary
// message, has zeros between its characters, and is refused for them.
func (t *Talk) data(p []byte) {
	for t.begun == 0 && len(p) > 0 {
		if c := p[0]; c > ' ' && strings.IndexByte("\xEF\xBB\xBF\xFE\xFF", c) < 0 { // spaces, zeros, and a byte order mark
			t.begun, t.binary = c, t.frames.header[0]&0x0F == opBinary
			break
		}
		p = p[1:]
	}
	switch {
	case t.err != nil:
	case t.begun == '{':
		t.spoken.reader.Write(p)
		if t.named.read(p); t.err == nil {
			t.err = t.named.wrong
		}
		if n := t.skim.Write(p); len(bytes.Trim(p[n:], " \t\r\n")) > 0 {
			t.refuse("message", "something follows its JSON object")
		}
	case t.begun == '[', (!t.binary || t.begun == '/' || t.begun == '#') && bytes.IndexByte(p, '{') >= 0: // these two begin a comment
		t.refuse("message", "expected a JSON object")
	default:
		t.spoken.raw += int64(len(p))
	}
}

// Closed reports whether the client has sent its close frame.
func (t *Talk) Closed() bool { return t.closed }

// end ends a message.
func (t *Talk) end() {
	t.closed = t.closed || t.frames.closing
	if t.skim.Close(); t.begun == '{' && !t.skim.Done() && !t.frames.closing {
		t.refuse("message", "its JSON object does not end")
	}
	t.skim.Reset()
	t.said = t.spoken.end()
	t.frames.next()
	t.named.reset()
	t.begun, t.binary = 0, false
}

func (t *Talk) refuse(field, reason string) {
	if t.err == nil {
		t.err = &meter.AmbiguousError{Field: field, Reason: reason}
	}
}

// heard is a [skim.Sink] for the messages of a client.
type heard struct{ *Talk }

func (h heard) Text(int, []byte) {}
func (h heard) Mark(int)         {}

// Value reads a field.
func (h heard) Value(i int, raw []byte) {
	field, v := saidFields[i], gjson.ParseBytes(raw)
	switch {
	case raw == nil:
		h.refuse(field.name, "it has more than 64 KiB")
	case v.Type == gjson.Null:
	case field.role == saidToThink:
		h.told.Thinks = true
	case field.role == saidToStay:
		if h.follows != "" {
			h.stays()
		}
	case field.role == saidForLater:
		if v.Type != gjson.False {
			h.later(field.name)
		}
	case field.role == saidModels && v.IsArray():
		v.ForEach(func(_, v gjson.Result) bool {
			h.list(field.name, v)
			return true
		})
	default:
		h.name(field, v)
	}
}

// list reads an element of a list of models: a name, or an object that has one.
func (h heard) list(list string, v gjson.Result) {
	if !v.IsObject() {
		h.name(said{list, saidModel}, v)
		return
	}
	v.ForEach(func(key, v gjson.Result) bool {
		if string(fold([]byte(key.String()))) == "model" {
			h.name(said{list, saidModel}, v)
		}
		return true
	})
}

// name reads a field that is a name.
func (h heard) name(field said, v gjson.Result) {
	name := v.String()
	switch {
	case v.Type != gjson.String, len(name) > maxName, strings.TrimSpace(name) != name, strings.ContainsFunc(name, odd):
		h.refuse(field.name, "expected a name without spaces around it and without control characters")
	case name == "":
	case field.role == saidModel, field.role == saidModels:
		h.told.Models = h.tell(h.told.Models, ModelOf(name))
	case field.role == saidTiers:
		h.told.Tiers = h.tell(h.told.Tiers, meter.ServiceTier(name))
	case h.follows != "":
		h.told.Follows = h.tell(h.told.Follows, Fetched(h.follows, name))
	}
}

// ModelOf is the name of a model without what stands before it in Google's: "models/NAME", "publishers/google/models/NAME".
func ModelOf(resource string) string {
	if _, name, found := strings.Cut("/"+resource, "/models/"); found && name != "" {
		return name
	}
	return resource
}

// tell adds a name to a list.
func (t *Talk) tell(list []string, name string) []string {
	switch {
	case slices.Contains(list, name):
		return list
	case len(list) == maxModels:
		t.refuse("message", "too much is named")
		return list
	}
	return append(list, name)
}

// stays refuses an answer that goes into a conversation, where it can be read for nothing.
func (t *Talk) stays() {
	if t.err == nil {
		t.err = &meter.LaterError{Field: "conversation", Reason: "over a WebSocket an answer can't go into a conversation: name the earlier answer as previous_response_id, or ask by a request"}
	}
}

func (t *Talk) later(field string) {
	if t.err == nil {
		t.err = &meter.LaterError{Field: field, Reason: "an answer that comes later can't be asked for over a WebSocket: leave it out, or ask for it by a request"}
	}
}
