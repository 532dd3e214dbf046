// Package ollama reads Ollama's own API. What Ollama serves under /v1 is OpenAI's API. [Inspect] recognises a request. The API:
// https://github.com/ollama/ollama/blob/main/docs/api.md
package ollama

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// limits are the fields that limit the output. Without them, with -1, and with -2 (the size of the context), the answer has no limit.
var (
	limits  = []string{"options.num_predict"}
	endless = []int64{-1, -2}
)

var (
	chatAPI     = &wire.API{Name: "api.chat", Dialect: wire.New(answer), Limits: limits, Endless: endless}
	generateAPI = &wire.API{Name: "api.generate", Dialect: wire.New(answer), Limits: limits, Endless: endless}
	embedAPI    = &wire.API{Name: "embeddings", Dialect: wire.New(embed)}
)

// answer reads the lines of an answer, or the one object of an answer that is not streamed. The last line says done and states the counts.
// If prompt_eval_count is missing, the prompt was in the cache and cost nothing. An error in mid-stream has a line of its own.
var answer = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "model"}, {Path: "done"}, {Path: "prompt_eval_count"}, {Path: "eval_count"}, {Path: "error", Mark: true}, {Path: "error"}, {Path: "done_reason"},
		{Path: "message.content", Text: meter.Output},
		{Path: "message.thinking", Text: meter.Output},
		{Path: "message.tool_calls.*.function.name", Text: meter.Output, Call: true},
		{Path: "message.tool_calls.*.function.arguments.*", Text: meter.Output},
		{Path: "response", Text: meter.Output},
		{Path: "thinking", Text: meter.Output},
	},
	Lines: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if v := m.Get("model").String(); v != "" {
			t.Model = v
		}
		if m.Get("eval_count").Exists() || m.Get("prompt_eval_count").Exists() {
			s := wire.Stated{HasPrompt: true, HasCompletion: true}
			s.Prompt = wire.Number(m.Get("prompt_eval_count"), &s.Suspect)
			s.Completion = wire.Number(m.Get("eval_count"), &s.Suspect)
			t.State(s)
		}
		switch m.Get("done_reason").String() {
		case "load", "unload": // the model was loaded or unloaded, and there is no answer
			t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		}
		t.Failed = t.Failed || m.Failed("error")
		if m.Get("done").Bool() {
			return wire.Final
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(4, 4, []string{"messages.*.content", "prompt", "system"}, []string{"messages.*"}).Tokens,
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Data: wire.JSON(map[string]string{"error": code + ": " + message})}}
	},
}

// embed reads embeddings: /api/embed states prompt_eval_count, and the older /api/embeddings states nothing.
var embed = wire.Dialect{
	Rules: []wire.Rule{{Path: "model"}, {Path: "prompt_eval_count"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Model = m.Get("model").String()
		if v := m.Get("prompt_eval_count"); v.Exists() {
			s := wire.Stated{HasPrompt: true, HasCompletion: true}
			s.Prompt = wire.Number(v, &s.Suspect)
			t.State(s)
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(0, 0, []string{"input", "input.*", "prompt"}, nil).Tokens,
}

// Inspect recognises a request by its path under /api. It returns nil for other requests. Answers are streamed unless the request says
// "stream": false.
func Inspect(r *wire.Request) (*meter.Call, error) {
	var api *wire.API
	switch {
	case r.Post("/api/chat") && r.IsArray("messages"):
		api = chatAPI
	case r.Post("/api/generate"):
		api = generateAPI
	case r.Post("/api/embed"), r.Post("/api/embeddings"):
		api = embedAPI
	case r.Post("/api/show"), r.Post("/api/me"):
		return r.FreeCall(strings.TrimPrefix(r.Clean[strings.LastIndex(r.Clean, "/api/"):], "/")), nil
	default:
		return nil, nil
	}
	c := r.Call(api)
	c.InputOnly = api == embedAPI
	if stream := r.Get("stream"); !c.InputOnly {
		c.Stream = stream.Type == gjson.Null || stream.Bool() // null is the same as a missing field
	}
	return c, nil
}
