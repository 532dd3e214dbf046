// Package wire is what all wire formats share: the counter that frames a response body (SSE, lines, JSON, ...), passes it on,
// and shows each of its messages to a format's [Dialect], which is mostly a table.
package wire

import (
	"encoding/json"
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
)

// Rule says what is picked out of the JSON of a response's messages.
type Rule struct {
	// Path is where: keys joined by dots, `*` for any. See package skim.
	Path string
	// Text, where set, is the class that the text found there counts as when it must be counted locally.
	Text meter.Class
	// Call says of a text that it is the name of a tool that is called, which costs tokens beside its text.
	Call bool
	// Mark keeps no value, only how many there are.
	Mark bool
	// Each, where set, is given each value as it is read, instead of keeping it.
	Each func(t *State, v gjson.Result)
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
	Pass     Verdict = iota
	Drop             // the client did not ask for it
	Terminal         // it and all that follows stays back until the response is settled
	Last             // it stays back until another message follows: it may be the end of a format that has no terminal event
	Final            // Terminal, and nothing follows: the response may end with it, though the upstream stays
)

// Dialect is how one API states its usage and its text.
type Dialect struct {
	Rules []Rule
	// Start, where set, looks at the response's header.
	Start func(t *State, h http.Header)
	// End reads a complete message.
	End func(t *State, m *Message) Verdict
	// Class, where set, says as what the text of the message counts, which its rule has as class; "" for no text at all. It
	// may be asked before the message ends.
	Class func(m *Message, class meter.Class) meter.Class
	// Prompt, where set, estimates the tokens of the request, for a response that does not state them.
	Prompt func(c *meter.Call) int64
	// Stop, where set, returns the messages that end a stream with an error.
	Stop func(code, message string) []Note
	// Edit, where set, rewrites the bytes of an SSE event that passes. It returns raw itself when there is nothing to do.
	Edit func(t *State, raw []byte) []byte
	// Elements says that a message which is a JSON array is as many messages as it has elements.
	Elements bool
	// Frames says that the body is what comes over a WebSocket, also where its status is not 101 (HTTP/2).
	Frames bool
	// Lines says that a body of an undecided content type is JSON lines.
	Lines bool

	paths [Whole + 1]*skim.Paths
}

// Note is a message of ours to the client.
type Note struct {
	Event string // "" for none
	Data  []byte
}

// JSON encodes v, which can be encoded.
func JSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// New compiles d.
func New(d Dialect) *Dialect {
	for _, shape := range []Shape{Stream, Whole} {
		patterns := make([]skim.Pattern, len(d.Rules))
		for i, r := range d.Rules {
			patterns[i] = skim.Pattern{Path: r.Path, Kind: r.kind(shape)}
		}
		d.paths[shape] = skim.Compile(patterns)
	}
	return &d
}

// Starting returns d with a Start of one call.
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
