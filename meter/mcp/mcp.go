// Package mcp speaks the Model Context Protocol over streamable HTTP. A POST has a JSON-RPC message or, in an older revision, a
// batch of them. Its answer is JSON, or a stream of events with notifications before the result.
// https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
package mcp

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

const (
	maxCalls = 1024 // in a batch
	maxID    = 1024 // bytes of an id
)

// calls is the API of one request. tools has the names of the tools that it calls, by the ids that their answers will have.
type calls struct {
	wire.API
	tools map[string]string
}

// Counter implements [meter.Format].
func (a *calls) Counter(c *meter.Call, status int, h http.Header) meter.Counter {
	waiting := maps.Clone(a.tools)
	return wire.NewCounter(answers.Starting(func(t *wire.State, _ http.Header) {
		t.Scratch = waiting
		t.Tools, t.ToolsFailed = map[string]int64{}, map[string]int64{}
		if status != http.StatusAccepted && status != http.StatusNoContent {
			return
		}
		// A server of an older revision has taken the calls and answers them on another stream, where they are not counted.
		for id, tool := range a.tools {
			delete(waiting, id)
			t.Tools[tool]++
			t.Sums.Add(meter.ToolCall, meter.Whole(1))
		}
	}), c, status, h)
}

// answers matches answers to calls. A call has failed if its answer is an error, or a result with isError.
// https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
var answers = wire.New(wire.Dialect{
	Rules: []wire.Rule{
		{Path: "id"}, {Path: "result", Mark: true}, {Path: "result.isError"}, {Path: "error", Mark: true}, {Path: "error"},
	},
	Elements: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		waiting := t.Scratch.(map[string]string)
		id, _ := idOf(m.Get("id"))
		tool, found := waiting[id]
		failed := m.Failed("error")
		if !found || !failed && !m.Has("result") {
			return wire.Pass
		}
		delete(waiting, id) // a repeated answer counts once
		if failed || m.Get("result.isError").Bool() {
			t.ToolsFailed[tool]++
		} else {
			t.Tools[tool]++
			t.Sums.Add(meter.ToolCall, meter.Whole(1))
		}
		if len(waiting) == 0 {
			return wire.Final // a server should close the stream now
		}
		return wire.Pass
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "message", Data: wire.JSON(map[string]any{
			"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": -32000, "message": code + ": " + message}})}}
	},
})

// Inspect recognises a request by its body, a POST of JSON-RPC 2.0. It returns nil for any other. A request that calls no tool
// is free. The GET that opens or resumes a stream and the DELETE that ends a session are no POSTs, and cost nothing: the calls
// whose answers they bring were charged when they were made.
func Inspect(r *wire.Request) (*meter.Call, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	body := gjson.ParseBytes(r.Body)
	first := body
	if body.IsArray() {
		first = body.Get("0")
	}
	if !isRPC(first) {
		return nil, nil
	}
	api := &calls{tools: map[string]string{}}
	api.Name = "mcp"
	var err error
	add := func(_, m gjson.Result) bool {
		err = api.add(m)
		return err == nil
	}
	if body.IsArray() {
		body.ForEach(add)
	} else {
		add(gjson.Result{}, body)
	}
	if err != nil {
		return nil, err
	}
	c := r.Call(&api.API)
	c.Malformed = !wire.Valid(r.Body)
	c.Format = api
	c.Stream, c.InputOnly, c.InputOpen = true, true, false
	c.Tools = slices.Sorted(maps.Values(api.tools))
	c.Free = len(api.tools) == 0
	return c, nil
}

// add adds a message's call, if it calls a tool.
func (a *calls) add(m gjson.Result) error {
	if err := wire.Unrepeated(m, m.Get("params")); err != nil {
		return err
	}
	if m.Get("method").String() != "tools/call" {
		return nil
	}
	id, ok := idOf(m.Get("id"))
	if _, twice := a.tools[id]; !ok || twice || len(a.tools) == maxCalls {
		return fmt.Errorf("%w: tools/call of id %.40s", meter.ErrUnanswered, m.Get("id").Raw)
	}
	a.tools[id] = m.Get("params.name").String()
	return nil
}

// idOf returns a message's id in the form in which ids are compared: a server may write the same number or text in another way
// than the request did. ok is false for what is no id. A server may take such a message for a notification, and still run the
// tool.
func idOf(v gjson.Result) (id string, ok bool) {
	switch v.Type {
	case gjson.Number:
		return strconv.FormatFloat(v.Num, 'g', -1, 64), !math.IsInf(v.Num, 0) && !math.IsNaN(v.Num)
	case gjson.String:
		return v.Str, len(v.Str) <= maxID
	default:
		return "", false
	}
}

// isRPC reports whether v is a JSON-RPC message, and not a request to a model dressed up as one.
func isRPC(v gjson.Result) bool {
	for _, key := range []string{"model", "messages", "prompt", "input", "inputs", "contents"} {
		if v.Get(key).Exists() {
			return false
		}
	}
	return v.Get("jsonrpc").String() == "2.0" && v.Get("method").Type == gjson.String
}
