// Package anthropic reads Anthropic's Messages API. [Inspect] recognises a request. The API: https://docs.anthropic.com/en/api/messages
package anthropic

import (
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var (
	messagesAPI = &wire.API{Name: "messages", Dialect: wire.New(messages), Limits: []string{"max_tokens"}, Least: least}
	// vertexAPI is Google's. Its documentation does not say that refusals are free.
	vertexAPI = &wire.API{Name: "messages", Dialect: messagesAPI.Dialect.Starting(start(false)), Limits: []string{"max_tokens"}, Least: least}
)

// messages reads a message object, or the events of its stream. The usage of a stream begins with that of message_start. The usage of
// message_delta is cumulative and replaces it field by field: a delta may lack fields, and may change the input (searches).
// https://docs.anthropic.com/en/docs/build-with-claude/streaming
var messages = wire.Dialect{
	Comments: true,
	Rules: []wire.Rule{
		{Path: "type"},
		{Path: "model"},
		{Path: "usage"},
		{Path: "message.model", In: wire.Stream},
		{Path: "message.usage", In: wire.Stream},
		{Path: "delta.stop_reason", In: wire.Stream},
		{Path: "stop_reason", In: wire.Whole},

		{Path: "message.container.id", Makes: "containers", In: wire.Stream},
		{Path: "delta.container.id", Makes: "containers", In: wire.Stream},
		{Path: "content_block.content.content.*.file_id", Makes: "files", In: wire.Stream}, // of code that ran
		{Path: "container.id", Makes: "containers", In: wire.Whole},
		{Path: "content.*.content.content.*.file_id", Makes: "files", In: wire.Whole},

		{Path: "delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "delta.thinking", Text: meter.Reasoning, In: wire.Stream},
		{Path: "delta.partial_json", Text: meter.Output, In: wire.Stream},
		{Path: "content_block.name", Text: meter.Output, Call: true, In: wire.Stream},

		{Path: "content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "content.*.thinking", Text: meter.Reasoning, In: wire.Whole},
		{Path: "content.*.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "content.*.input.*", Text: meter.Output, In: wire.Whole},
		{Path: "content.*.input.*.*", Text: meter.Output, In: wire.Whole},
	},
	Answers: []string{"content.*", "completion"},
	Start:   start(true),
	End:     end,
	Prompt:  prompt.Tokens,
	Stop:    stop,
}

var prompt = wire.NewPrompt(4, 3, []string{
	"system", "system.*.text", "messages.*.content", "messages.*.content.*.text", "messages.*.content.*.content",
	"messages.*.content.*.content.*.text", "messages.*.content.*.thinking", "messages.*.content.*.name",
	"messages.*.content.*.input.*", "tools.*.name", "tools.*.description",
	"tools.*.input_schema.properties.*.description",
}, []string{"messages.*", "tools.*.input_schema.properties.*"})

// start makes the state of a message.
func start(refusalsFree bool) func(*wire.State, http.Header) {
	return func(t *wire.State, _ http.Header) {
		r := NewRunning()
		r.refusalsFree = refusalsFree
		t.Scratch = &r
	}
}

func end(t *wire.State, m *wire.Message) wire.Verdict {
	switch kind := m.Get("type").String(); kind {
	case "message_stop":
		return wire.Final
	case "error":
		t.Failed = true
	case "message_start":
		t.Model = m.Get("message.model").String()
		u := t.Scratch.(*Running)
		u.Merge(m.Get("message.usage"))
		u.State(t, false)
	case "message_delta", "message":
		if v := m.Get("model").String(); v != "" {
			t.Model = v
		}
		u := t.Scratch.(*Running)
		u.refused = u.refused || m.Get("delta.stop_reason").String() == "refusal" || m.Get("stop_reason").String() == "refusal"
		u.Merge(m.Get("usage"))
		u.State(t, true)
	}
	return wire.Pass
}

// least is the lowest limit of the output: above the budget for thinking.
func least(c *meter.Call) int64 {
	budget := gjson.GetBytes(c.Body, "thinking.budget_tokens").Float() // an integer may overflow, and become negative
	return 1 + int64(min(max(budget, 0), wire.MaxTokens))
}

// stop ends a stream with an error in Anthropic's form. https://docs.anthropic.com/en/docs/build-with-claude/streaming#error-events
func stop(code, message string) []wire.Note {
	type problem struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	}
	return []wire.Note{{Event: "error", Data: wire.JSON(struct {
		Type  string  `json:"type"`
		Error problem `json:"error"`
	}{"error", problem{code, message}})}}
}

// Inspect recognises a request by the end of its path, on Vertex AI too. It returns nil for other requests.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/v1/messages"), r.Post("/messages") && r.IsArray("messages") && r.Has("max_tokens"):
		return r.Call(messagesAPI), nil
	case r.Post("/messages/count_tokens"):
		return r.FreeCall("messages.count_tokens"), nil
	case r.Post(":rawpredict"), r.Post(":streamrawpredict"):
		switch {
		case !strings.Contains(r.Clean, "/publishers/anthropic/"):
			return nil, nil
		case r.Post("/count-tokens:rawpredict"): // the model of this name only counts tokens
			return r.FreeCall("messages.count_tokens"), nil
		}
		c := r.Call(vertexAPI)
		name := r.Path[strings.LastIndexByte(r.Path, '/')+1:]
		r.Named(c, name[:strings.LastIndexByte(name, ':')])
		return c, nil
	}
	return nil, nil
}
