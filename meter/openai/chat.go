// Package openai reads OpenAI's HTTP API, and APIs that are compatible with it: Azure, Groq, Mistral, DeepSeek, xAI, OpenRouter, Together,
// Perplexity, vLLM, llama.cpp, Ollama's /v1 and many more. [Inspect] recognises a request. The API:
// https://platform.openai.com/docs/api-reference
package openai

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// chatLimits: max_completion_tokens is the newer field. A limit of -1 means none (llama.cpp, LM Studio).
var (
	chatLimits = []string{"max_completion_tokens", "max_tokens"}
	endless    = []int64{-1}
)

// The quiet APIs are for streams whose client did not ask for the usage.
var (
	chatAPI       = &wire.API{Name: "chat.completions", Dialect: wire.New(chat), Limits: chatLimits, Limit: limitChat, Endless: endless}
	quietChat     = &wire.API{Name: "chat.completions", Dialect: wire.New(quiet(chat)), Limits: chatLimits, Limit: limitChat, Endless: endless}
	completions   = &wire.API{Name: "completions", Dialect: wire.New(chat), Limits: chatLimits, Limit: limitChat, Endless: endless}
	quietComplete = &wire.API{Name: "completions", Dialect: wire.New(quiet(chat)), Limits: chatLimits, Limit: limitChat, Endless: endless}
)

// keeping are what such an answer has that OpenAI keeps: itself, if it is asked to, and its sound.
type keeping struct {
	api           *wire.API
	stored, voice bool
}

// keepings are the twins of those for answers of which OpenAI keeps something.
var keepings = func() map[keeping]*wire.API {
	twins := map[keeping]*wire.API{}
	for of, d := range map[*wire.API]wire.Dialect{chatAPI: chat, quietChat: quiet(chat)} {
		itself := []wire.Rule{{Path: "id", Makes: "chat/completions"}}
		voice := []wire.Rule{{Path: "choices.*.message.audio.id", Makes: "audio", In: wire.Whole}, {Path: "choices.*.delta.audio.id", Makes: "audio", In: wire.Stream}}
		for k, rules := range map[keeping][]wire.Rule{{of, true, false}: itself, {of, false, true}: voice, {of, true, true}: slices.Concat(itself, voice)} {
			twin := *of
			twin.Dialect = wire.New(d.Keeping(rules...))
			twins[k] = &twin
		}
	}
	return twins
}()

// chat reads chat.completion and chat.completion.chunk objects. A stream states its usage in a last chunk with empty choices if the request
// asks for it, or in the chunk that finishes the answer (Mistral, Groq, OpenRouter), or so far in every chunk (Databricks, Perplexity). A
// chunk with an empty choices array need not be the usage chunk: Azure's first chunk has one too.
var chat = wire.Dialect{
	Comments: true,
	Rules: []wire.Rule{
		{Path: "model"},
		{Path: "usage"},
		{Path: "x_groq.usage"},                               // the same usage again; old streams of Groq have only this
		{Path: "result.usage"},                               // Cloudflare
		{Path: "choices.*.usage"}, {Path: "choices.*.index"}, // Moonshot's streams
		{Path: "service_tier"},
		{Path: "object"},
		{Path: "id", In: wire.Whole}, {Path: "request_id", In: wire.Whole}, {Path: "task_status", In: wire.Whole},
		{Path: "error", Mark: true}, {Path: "error"}, // Azure has an error that is null
		{Path: "choices.*", Mark: true},

		{Path: "choices.*.delta.content", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.content.*.text", Text: meter.Output, In: wire.Stream}, // Mistral's chunks of content
		{Path: "choices.*.delta.content.*.thinking.*.text", Text: meter.Reasoning, In: wire.Stream},
		{Path: "choices.*.delta.refusal", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.reasoning_content", Text: meter.Reasoning, In: wire.Stream}, // DeepSeek, vLLM, xAI
		{Path: "choices.*.delta.reasoning", Text: meter.Reasoning, In: wire.Stream},         // OpenRouter, Groq, Cerebras
		{Path: "choices.*.delta.tool_calls.*.function.name", Text: meter.Output, Call: true, In: wire.Stream},
		{Path: "choices.*.delta.tool_calls.*.function.arguments", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.function_call.name", Text: meter.Output, Call: true, In: wire.Stream},
		{Path: "choices.*.delta.function_call.arguments", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.audio.transcript", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.audio.data", Text: meter.AudioOutput, In: wire.Stream},

		{Path: "choices.*.message.content", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.content.*.thinking.*.text", Text: meter.Reasoning, In: wire.Whole},
		{Path: "choices.*.message.refusal", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.reasoning_content", Text: meter.Reasoning, In: wire.Whole},
		{Path: "choices.*.message.reasoning", Text: meter.Reasoning, In: wire.Whole},
		{Path: "choices.*.message.tool_calls.*.function.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "choices.*.message.tool_calls.*.function.arguments", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.function_call.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "choices.*.message.function_call.arguments", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.audio.transcript", Text: meter.Output, In: wire.Whole},

		{Path: "choices.*.text", Text: meter.Output},                  // completions
		{Path: "result.response", Text: meter.Output, In: wire.Whole}, // Cloudflare
		{Path: "response", Text: meter.Output, In: wire.Stream},
	},
	Answers: []string{"choices.*"},
	End:     endChat,
	Sound:   sound,
	Prompt:  chatPrompt.Tokens,
	Stop:    stopChat,
}

// chatPrompt counts as https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken does.
var chatPrompt = wire.NewPrompt(3, 3, []string{
	"messages.*.content", "messages.*.content.*.text", "messages.*.role", "messages.*.name",
	"messages.*.tool_calls.*.function.name", "messages.*.tool_calls.*.function.arguments",
	"tools.*.function.name", "tools.*.function.description", "prompt", "prompt.*",
}, []string{"messages.*"})

func endChat(t *wire.State, m *wire.Message) wire.Verdict {
	if m.Is("[DONE]") {
		return wire.Final
	}
	if t.ID = m.Get("request_id").String(); t.ID == "" || m.Get("task_status").Exists() { // xAI's deferred answers have a request_id, Z.ai's have a task_status too
		t.ID = m.Get("id").String()
	}
	t.Pending = m.Get("task_status").String() == "PROCESSING"
	return endChatAt(t, m, "")
}

// endChatAt reads a completion, or a chunk of one, that is below a path.
func endChatAt(t *wire.State, m *wire.Message, at string) wire.Verdict {
	t.Failed = t.Failed || m.Failed(at+"error") || m.Get(at+"object").String() == "error" || m.Get("task_status").String() == "FAIL" // object: vLLM
	t.Answered = t.Answered || m.Has(at+"choices.*")
	if v := m.Get(at + "model").String(); v != "" {
		t.Model = v
	}
	stated := m.Get(at + "usage")
	for _, path := range []string{"x_groq.usage", "result.usage", "choices.*.usage"} {
		if !stated.IsObject() {
			stated = m.Get(at + path)
		}
	}
	if each := m.All(at + "choices.*.usage"); len(each) > 0 && t.Call.Choices > 1 && !m.Get(at+"usage").IsObject() {
		stateChoices(t, each, m.All(at+"choices.*.index"))
		return wire.Pass
	}
	if v := tier(m.Get(at+"service_tier"), stated); v != "" {
		t.Tier = v
	}
	if !stated.IsObject() {
		return wire.Pass
	}
	t.State(usage(stated))
	maps.Copy(t.Sums, fees(t, t.Model, stated))
	if c := cost(stated); c != "" {
		t.Cost = c
	}
	return wire.Pass
}

// stateChoices handles answers that each state a usage of their own. Their output is added up, and their common prompt counts once.
func stateChoices(t *wire.State, usages, indexes []gjson.Result) {
	choices, _ := t.Scratch.(map[int64]wire.Stated)
	if choices == nil {
		choices = map[int64]wire.Stated{}
		t.Scratch = choices
	}
	for i, u := range usages {
		index := int64(i)
		if len(indexes) == len(usages) {
			index = indexes[i].Int()
		}
		if u.IsObject() && (len(choices) < maxTold || choices[index].HasPrompt) {
			choices[index] = usage(u)
		}
	}
	var sum wire.Stated
	for _, s := range choices {
		prompt := max(sum.Prompt, s.Prompt)
		cached := min(sum.Cached, s.Cached)
		if len(choices) == 1 || !sum.HasPrompt {
			cached = s.Cached
		}
		sum.Add(wire.Stated{Completion: s.Completion, Reasoning: s.Reasoning, HasPrompt: s.HasPrompt, HasCompletion: s.HasCompletion, Suspect: s.Suspect})
		sum.Prompt, sum.Cached = prompt, cached
	}
	t.State(sum)
}

// maxTold is how many answers are told apart.
const maxTold = 4096

// quiet returns d for a client that did not ask for the usage. It drops the chunk that has only the usage, and deletes "usage":null from
// the others.
func quiet(d wire.Dialect) wire.Dialect {
	d.End = func(t *wire.State, m *wire.Message) wire.Verdict {
		verdict := endChat(t, m)
		if m.Get("usage").IsObject() && !m.Has("choices.*") && !m.Failed("error") {
			return wire.Drop
		}
		return verdict
	}
	d.Edit = dropNullUsage
	return d
}

// inspectChat reads a request for chat completions or completions. Unless quiet is nil, a stream is asked for its usage; quiet is then the
// API that removes that usage from what the client gets.
func inspectChat(r *wire.Request, api, quiet *wire.API) (*meter.Call, error) {
	ask := quiet != nil && r.Bool("stream") && !r.Bool("stream_options.include_usage")
	if ask {
		api = quiet
	}
	if twin := keepings[keeping{api, r.Get("store").Raw == "true", present(r.Get("audio"))}]; twin != nil {
		api = twin
	}
	c := r.Call(api)
	r.Named(c, r.Deployment())
	if r.Bool("deferred") { // xAI: https://docs.x.ai/docs/guides/deferred-chat-completions
		return answeredLater(r, c, laterChat, nil)
	}
	c.Stays = r.Bool("store")
	if ask && !c.Malformed {
		c.Body = askUsage(c.Body, r.Get("stream_options"))
	}
	return c, nil
}

// askUsage returns the body, changed so that the stream states its usage.
func askUsage(body []byte, options gjson.Result) []byte {
	if options.IsObject() {
		body, _ = sjson.SetBytes(body, "stream_options.include_usage", true)
	} else {
		body, _ = sjson.SetRawBytes(body, "stream_options", []byte(`{"include_usage":true}`))
	}
	return body
}

// limitChat: max_tokens is deprecated at OpenAI, and its reasoning models refuse it. Other providers know only max_tokens, or accept both.
// Some refuse a request with both.
func limitChat(c *meter.Call) string {
	if ownModel(c.Model) {
		return "max_completion_tokens"
	}
	return "max_tokens"
}

// ownModel reports whether a model is one of OpenAI's own chat models, by its name: gpt-5, o3, ft:gpt-4o, openai/gpt-4.1. The open gpt-oss
// is served by others.
func ownModel(model string) bool {
	model = strings.TrimPrefix(strings.TrimPrefix(model, "openai/"), "ft:")
	for _, prefix := range []string{"gpt-audio", "chatgpt", "codex", "computer-use"} {
		if strings.HasPrefix(model, prefix) {
			return true
		}
	}
	for _, family := range []string{"gpt-", "o"} {
		if rest, found := strings.CutPrefix(model, family); found && rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			return true
		}
	}
	return false
}

// dropNullUsage deletes `"usage":null` from an event. A stream that was asked for its usage has it in every chunk but the last.
func dropNullUsage(_ *wire.State, raw []byte) []byte {
	if !bytes.Contains(raw, []byte("null")) {
		return raw
	}
	at := bytes.IndexByte(raw, '{')
	if at < 0 {
		return raw
	}
	v := gjson.GetBytes(raw[at:], "usage")
	if v.Type != gjson.Null || v.Raw != "null" || v.Index == 0 {
		return raw
	}
	start, end := at+v.Index, at+v.Index+len("null")
	start = bytes.LastIndexByte(raw[:start], '"')     // the key's closing quote
	start = bytes.LastIndexByte(raw[:start], '"')     // and its opening one
	before := bytes.TrimRight(raw[:start], " \t\r\n") // ends with a comma or the brace
	after := bytes.TrimLeft(raw[end:], " \t\r\n")
	switch {
	case bytes.HasSuffix(before, []byte(",")):
		start = len(before) - 1
	case bytes.HasPrefix(after, []byte(",")):
		end = len(raw) - len(after) + 1
	}
	return append(raw[:start], raw[end:]...)
}

// stopChat ends a stream with an error in OpenAI's form.
func stopChat(code, message string) []wire.Note {
	type problem struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    string `json:"code"`
	}
	return []wire.Note{
		{Data: wire.JSON(map[string]problem{"error": {message, code, code}})},
		{Data: []byte("[DONE]")},
	}
}
