// Package cohere reads Cohere's API, versions 1 and 2, and the rerank API that other providers have copied from it. [Inspect] recognises a
// request. The API: https://docs.cohere.com/reference
package cohere

import (
	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var (
	chatAPI     = &wire.API{Name: "chat", Dialect: wire.New(chat), Limits: []string{"max_tokens"}}
	generateAPI = &wire.API{Name: "generate", Dialect: wire.New(chat), Limits: []string{"max_tokens"}}
	embedAPI    = &wire.API{Name: "embeddings", Dialect: wire.New(input)}
	rerankAPI   = &wire.API{Name: "rerank", Dialect: wire.New(input)}
	classifyAPI = &wire.API{Name: "classify", Dialect: wire.New(input)}
)

// chat reads both versions. In version 2 a stream consists of server-sent events, and message-end states the usage. In version 1 it
// consists of JSON lines, and stream-end states the usage in response.meta. A complete answer states it in meta.
var chat = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "type"}, // in streams, some of which come as application/json
		{Path: "event_type"},
		{Path: "is_finished"},
		{Path: "delta.usage"},
		{Path: "response.meta"},
		{Path: "usage"},
		{Path: "meta"},

		{Path: "delta.message.content.text", Text: meter.Output, In: wire.Stream},
		{Path: "delta.message.content.thinking", Text: meter.Reasoning, In: wire.Stream},
		{Path: "delta.message.tool_plan", Text: meter.Output, In: wire.Stream},
		{Path: "delta.message.tool_calls.function.name", Text: meter.Output, Call: true, In: wire.Stream},
		{Path: "delta.message.tool_calls.function.arguments", Text: meter.Output, In: wire.Stream},
		{Path: "text", Text: meter.Output},
		{Path: "message.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "message.content.*.thinking", Text: meter.Reasoning, In: wire.Whole},
		{Path: "message.tool_plan", Text: meter.Output, In: wire.Whole},
		{Path: "message.tool_calls.*.function.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "message.tool_calls.*.function.arguments", Text: meter.Output, In: wire.Whole},
		{Path: "generations.*.text", Text: meter.Output, In: wire.Whole},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		for _, path := range []string{"usage", "meta", "delta.usage", "response.meta"} {
			if u := m.Get(path); u.IsObject() {
				state(t, u)
			}
		}
		switch {
		case m.Is("[DONE]"):
			return wire.Final
		case m.Get("type").String() == "message-end", m.Get("event_type").String() == "stream-end", m.Get("is_finished").Bool():
			return wire.Terminal
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(4, 0, []string{
		"message", "preamble", "chat_history.*.message", "prompt", "messages.*.content", "messages.*.content.*.text", "documents.*", "documents.*.*",
	}, []string{"messages.*", "chat_history.*"}).Tokens,
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Data: wire.JSON(map[string]string{"id": code, "message": message})}}
	},
}

// input reads answers without output tokens: embeddings, rerank, classify. Providers other than Cohere state a usage in OpenAI's way.
var input = wire.Dialect{
	Rules: []wire.Rule{{Path: "model"}, {Path: "meta"}, {Path: "usage"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Model = m.Get("model").String()
		if meta := m.Get("meta"); meta.Get("billed_units").Exists() {
			state(t, meta)
			t.Stated.HasPrompt, t.Stated.HasCompletion = true, true
			return wire.Pass
		}
		if u := m.Get("usage"); u.IsObject() {
			s := wire.Stated{HasPrompt: true, HasCompletion: true}
			for _, key := range []string{"prompt_tokens", "input_tokens", "total_tokens"} {
				if s.Prompt = wire.Number(u.Get(key), &s.Suspect); s.Prompt > 0 {
					break
				}
			}
			t.State(s)
			if c := u.Get("cost"); c.Type == gjson.Number {
				t.Cost = c.Raw
			}
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(0, 0, []string{"query", "documents.*", "documents.*.text", "texts.*", "inputs.*"}, nil).Tokens,
}

// state states the usage of a usage or meta object. Cohere bills billed_units. tokens is what the model processed, including preambles of
// Cohere; it counts if there are no billed_units. https://docs.cohere.com/docs/how-does-cohere-pricing-work
func state(t *wire.State, u gjson.Result) {
	var s wire.Stated
	number := func(path string) int64 { return wire.Number(u.Get(path), &s.Suspect) }
	from := "billed_units"
	if !u.Get(from).Exists() {
		from = "tokens"
	}
	if !u.Get(from).Exists() {
		return
	}
	s.HasPrompt, s.HasCompletion = true, true
	s.ImageInput = number(from + ".image_tokens")
	s.Prompt = number(from+".input_tokens") + s.ImageInput
	s.Completion = number(from + ".output_tokens")
	t.State(s)
	t.Sums[meter.SearchUnit] = meter.Whole(number(from + ".search_units"))
}

// Inspect recognises a request by the end of its path. /v1/chat is Cohere's only if the body has a message; others read messages there,
// so a body with both is refused. Inspect returns nil for other requests.
func Inspect(r *wire.Request) (*meter.Call, error) {
	var api *wire.API
	switch {
	case r.Post("/v2/chat"), r.Post("/v1/chat") && r.Has("message"):
		api = chatAPI
		if r.Has("message") && r.Has("messages") {
			r.Refuse("messages", "message is there too: state one of the two")
		}
	case r.Post("/v1/generate") && r.Has("prompt"), r.Post("/v1/summarize") && r.Has("text"):
		api = generateAPI
	case r.Post("/embed") && !r.Post("/api/embed"): // the latter is Ollama's
		api = embedAPI
	case r.Post("/rerank"):
		api = rerankAPI
	case r.Post("/v1/classify"):
		api = classifyAPI
	case r.Post("/v1/tokenize"), r.Post("/v1/detokenize"):
		return r.FreeCall("tokenize"), nil
	default:
		return nil, nil
	}
	c := r.Call(api)
	c.InputOnly = api.Limits == nil
	return c, nil
}
