// Package wire is the common part of all wire formats. A [Request] is a request in the form that formats read, and an [API] is one
// operation of a provider. The counter of a response splits the body into messages (SSE events, lines, frames, or one JSON document),
// passes them on, and gives each to the [Dialect] of its API. A dialect is mostly a table of [Rule], which say what to read from a message.
// To add an API, begin with [New] and a Dialect.
package wire

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
)

// Rule says what to read from the JSON of a response's messages.
type Rule struct {
	// Path is where the value is: keys joined by dots, with `*` for any key or array element. See package skim.
	Path string
	// Text, if set, says that the value is text of the answer, and as which class its tokens are counted locally.
	Text meter.Class
	// Call says that the text is the name of a tool that the answer calls. A tool call costs tokens besides its text.
	Call bool
	// Mark says that the values are only counted, and not kept.
	Mark bool
	// Each, if set, is called with each value when it is read. The values are not kept. With Mark it is called when a value begins, without it.
	Each func(t *State, v gjson.Result)
	// Makes, where set, says that the value is the id of a resource of this kind, which the provider keeps of the call. None is kept here.
	Makes string
	// Named says, of a rule with Makes, that the value is the resource's whole name, such as files/abc: any other is one that its maker chose.
	Named bool
	// In restricts the rule to streams or to whole bodies.
	In Shape
}

// Shape is the form in which an answer is sent.
type Shape uint8

const (
	Both Shape = iota
	Stream
	Whole
)

// Verdict is what happens to a message on its way to the client.
type Verdict uint8

const (
	Pass     Verdict = iota // it is sent at once
	Drop                    // it is not sent, because the client did not ask for it
	Terminal                // it is held back until the response is settled, together with everything after it
	Last                    // it is held back until another message follows, since it may be the end in a format without a terminal event
	Final                   // like Terminal, and nothing need follow: the response may end here, although the upstream's connection stays open
)

// Dialect is how one API states its usage and its text.
type Dialect struct {
	Rules []Rule
	// Start, if set, reads the response's header.
	Start func(t *State, h http.Header)
	// End reads a complete message.
	End func(t *State, m *Message) Verdict
	// Class, if set, returns the class as which the text of a message counts. It gets the class of the rule. "" means that the text does not
	// count. Class may be called before the message ends.
	Class func(m *Message, class meter.Class) meter.Class
	// Sound, if set, returns how many bytes of what a client says over a connection, and of what answers it, are a token of sound. Text of the
	// class [meter.AudioOutput] is such sound in base64.
	Sound func(t *State) (said, answered int64)
	// Prompt, if set, estimates the tokens of the request, for a response that does not state them.
	Prompt func(c *meter.Call) int64
	// Stop, if set, returns the messages that end a stream with an error.
	Stop func(code, message string) []Note
	// Comments says that all official clients of the API skip comments in an event stream, according to our tests. Google's clients lose the
	// event after a comment, or fail.
	Comments bool
	// Edit, if set, rewrites the bytes of an SSE event that is sent. It returns raw itself if there is nothing to change.
	Edit func(t *State, raw []byte) []byte
	// Elements says that a message which is a JSON array counts as one message for each of its elements.
	Elements bool
	// Frames says that the body is what a server sends over a WebSocket, even if its status is not 101 (over HTTP/2 it is 200).
	Frames bool
	// Answers are paths, one of which a complete body has if it is an answer. Without them, every body counts as an answer.
	Answers []string
	// States says that what is charged of a whole body can't be counted in it, but only stated by it.
	States bool
	// Lines says that a body is JSON lines if its content type does not say.
	Lines bool

	paths [Whole + 1]*skim.Paths
	marks []int // the rules that do
	makes bool  // a rule does
}

// Note is a message that Tallygate sends to the client.
type Note struct {
	Event string // "" for none
	Data  []byte
}

// JSON encodes v, which must be a value of this program. It panics if v can't be encoded.
func JSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// New returns d with its rules compiled.
func New(d Dialect) *Dialect {
	for _, path := range d.Answers {
		d.Rules = append(slices.Clip(d.Rules), Rule{Path: path, Mark: true, In: Whole})
	}
	d.marks = nil
	for i, r := range d.Rules {
		if r.Mark {
			d.marks = append(d.marks, i)
		}
	}
	for _, shape := range []Shape{Stream, Whole} {
		patterns := make([]skim.Pattern, len(d.Rules))
		for i, r := range d.Rules {
			patterns[i] = skim.Pattern{Path: r.Path, Kind: r.kind(shape)}
		}
		d.paths[shape] = skim.Compile(patterns)
	}
	d.makes = slices.ContainsFunc(d.Rules, func(r Rule) bool { return r.Makes != "" })
	return &d
}

// Makes reports whether an answer may tell of resources that the provider keeps.
func (d *Dialect) Makes() bool { return d != nil && d.makes }

// Starting returns d with a Start function that belongs to one call.
func (d Dialect) Keeping(rules ...Rule) Dialect {
	d.Rules = slices.Concat(d.Rules, rules)
	return d
}

// Forgetting returns d without its rules for the resources of these kinds: the request asks the provider not to keep them.
func (d Dialect) Forgetting(kinds ...string) Dialect {
	d.Rules = slices.DeleteFunc(slices.Clone(d.Rules), func(r Rule) bool { return slices.Contains(kinds, r.Makes) })
	return d
}

// Starting returns d with a Start that belongs to one call.
func (d *Dialect) Starting(start func(t *State, h http.Header)) *Dialect {
	one := *d
	one.Start = start
	return &one
}

func (r Rule) kind(shape Shape) skim.Kind {
	switch {
	case r.In != Both && r.In != shape:
		return skim.Skip
	case r.Text != "":
		return skim.Text
	case r.Mark:
		return skim.Mark
	}
	return skim.Keep
}
