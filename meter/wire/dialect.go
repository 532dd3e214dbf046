// Package wire is what all wire formats share. A [Request] is a request as formats look at it, and an [API] is one operation
// of a provider. The counter of a response splits the body into messages (SSE events, lines, frames, or one JSON document),
// passes them on, and shows each to the [Dialect] of its API, which is mostly a table of [Rule]: what to pick out of a message.
package wire

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
)

// Rule says what is picked out of the JSON of a response's messages.
type Rule struct {
	// Path says where the value is: keys joined by dots, `*` for any key or array element. See package skim.
	Path string
	// Text, where set, says that the value is text of the answer, and which class its tokens are when they are counted locally.
	Text meter.Class
	// Call says that the text is the name of a tool that the answer calls. A tool call costs tokens beside its text.
	Call bool
	// Mark says that the values are only counted; none is kept.
	Mark bool
	// Each, where set, is given each value as it is read; none is kept.
	Each func(t *State, v gjson.Result)
	// Makes, where set, says that the value is the id of a resource of this kind, which the provider keeps of the call. None is kept here.
	Makes string
	// Named says, of a rule with Makes, that the value is the resource's whole name, such as files/abc: any other is one that its maker chose.
	Named bool
	// In restricts the rule to streams or to whole bodies.
	In Shape
}

// Shape is how an answer is sent.
type Shape uint8

const (
	Both Shape = iota
	Stream
	Whole
)

// Verdict is what becomes of a message on its way to the client.
type Verdict uint8

const (
	Pass     Verdict = iota // it goes on at once
	Drop                    // it does not go on: the client did not ask for it
	Terminal                // it stays back until the response is settled, and so does all that follows it
	Last                    // it stays back until another message follows: in a format without a terminal event it may be the end
	Final                   // as Terminal, and nothing need follow: the response may end here, though the upstream's connection does not
)

// Dialect is how one API states its usage and its text.
type Dialect struct {
	Rules []Rule
	// Start, where set, looks at the response's header.
	Start func(t *State, h http.Header)
	// End reads a complete message.
	End func(t *State, m *Message) Verdict
	// Class, where set, returns the class that the text of a message counts as, given the class of its rule; "" means that it
	// does not count. Class may be asked before the message ends.
	Class func(m *Message, class meter.Class) meter.Class
	// Prompt, where set, estimates the tokens of the request, for a response that does not state them.
	Prompt func(c *meter.Call) int64
	// Stop, where set, returns the messages that end a stream with an error.
	Stop func(code, message string) []Note
	// Comments says that the official clients of the API were seen to skip a comment in an event stream. Google's lose the event after
	// it, or fail.
	Comments bool
	// Edit, where set, rewrites the bytes of an SSE event that goes on. It returns raw itself when there is nothing to change.
	Edit func(t *State, raw []byte) []byte
	// Elements says that a message which is a JSON array stands for one message for each of its elements.
	Elements bool
	// Frames says that the body is what a server sends over a WebSocket, also where its status is not 101 (over HTTP/2 it is 200).
	Frames bool
	// Answers are the paths that a whole body has if it is an answer, whatever else it lacks. Without them, every body is one.
	Answers []string
	// Lines says that a body is JSON lines where its content type leaves that open.
	Lines bool

	paths [Whole + 1]*skim.Paths
	makes bool // a rule does
}

// Note is a message that we send to the client.
type Note struct {
	Event string // "" for none
	Data  []byte
}

// JSON encodes v. It panics if v can't be encoded, which must be a value of our own.
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

// Keeping returns d with rules for the resources that the provider keeps of the call.
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
