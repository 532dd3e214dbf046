// Package mcp speaks the Model Context Protocol over streamable HTTP: one POST has a JSON-RPC message (or a batch of them, in
// the older revision), and its answer is JSON or a stream of events with notifications before the result.
// https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
package mcp

import (
	"maps"
	"net/http"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// maxCalls bounds how many calls of a batch are told apart.
const maxCalls = 1024

// calls is the API of one request: the tool calls in it, by the id that their answers will have.
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
	}), c, status, h)
}

// answers matches results to calls. A call has failed that is answered by an error, or by a result that says isError.
// https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
var answers = wire.New(wire.Dialect{
	Rules: []wire.Rule{
		{Path: "id"}, {Path: "result", Mark: true}, {Path: "result.isError"}, {Path: "error", Mark: true},
	},
	Elements: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		waiting := t.Scratch.(map[string]string)
		id := m.Get("id")
		tool, found := waiting[id.Raw]
		if !found || !m.Has("result") && !m.Has("error") {
			return wire.Pass
		}
		delete(waiting, id.Raw) // an answer that is repeated counts once
		if m.Has("error") || m.Get("result.isError").Bool() {
			t.ToolsFailed[tool]++
		} else {
			t.Tools[tool]++
			t.Sums.Add(meter.ToolCall, meter.Whole(1))
		}
		if len(waiting) == 0 {
			return wire.Terminal
		}
		return wire.Pass
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "message", Data: wire.JSON(map[string]any{
			"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": -32000, "message": code + ": " + message}})}}
	},
})

// Inspect recognises JSON-RPC 2.0 by the body, on a path that no other format knows. What calls no tool is free; so are the GET
// that opens or resumes a stream, and the DELETE that ends a session: what they bring was asked for, and is charged, elsewhere.
func Inspect(r *wire.Request) (*meter.Call, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	messages := []gjson.Result{gjson.ParseBytes(r.Body)}
	if messages[0].IsArray() {
		messages = messages[0].Array()
	}
	if len(messages) == 0 || !isRPC(messages[0]) {
		return nil, nil
	}
	api := &calls{tools: map[string]string{}}
	api.Name = "mcp"
	for _, m := range messages {
		if err := wire.Unrepeated(m, m.Get("params")); err != nil {
			return nil, err
		}
		if m.Get("method").String() == "tools/call" && m.Get("id").Exists() && len(api.tools) < maxCalls {
			api.tools[m.Get("id").Raw] = m.Get("params.name").String()
		}
	}
	c := r.Call(&api.API)
	c.Malformed = !wire.Valid(r.Body)
	c.Format = api
	c.Stream, c.InputOnly, c.InputOpen = true, true, false
	c.Tools = slices.Sorted(maps.Values(api.tools))
	c.Free = len(api.tools) == 0
	return c, nil
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
