// Package openai speaks OpenAI's HTTP API and what is compatible with it: Azure, Groq, Mistral, DeepSeek, xAI, OpenRouter,
// Together, Perplexity, vLLM, llama.cpp, Ollama's /v1 and many more.
// API: https://platform.openai.com/docs/api-reference
package openai

import (
	"bytes"
	"cmp"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// quietChat and quietComplete are for streams whose client did not ask for the usage, but the gateway did.
var (
	chatAPI       = &wire.API{Name: "chat.completions", Dialect: wire.New(chat), Limit: limitChat}
	quietChat     = &wire.API{Name: "chat.completions", Dialect: wire.New(quiet(chat)), Limit: limitChat}
	completions   = &wire.API{Name: "completions", Dialect: wire.New(chat), Limit: limitChat}
	quietComplete = &wire.API{Name: "completions", Dialect: wire.New(quiet(chat)), Limit: limitChat}
)

// chat reads chat.completion and chat.completion.chunk objects. A stream states its usage in a last chunk with empty choices, if
// the request asks for it; or in the chunk that finishes the answer (Mistral, Groq, OpenRouter); or in every chunk, as it is so
// far (Databricks, Perplexity). An empty choices array alone is not the usage chunk: Azure's first chunk has one too.
var chat = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "model"},
		{Path: "usage"},
		{Path: "x_groq.usage"}, // the same usage again; the only one in old streams of Groq
		{Path: "result.usage"}, // Cloudflare
		{Path: "service_tier"},
		{Path: "object"},
		{Path: "error", Mark: true}, {Path: "error"}, // Azure has an error of null
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

		{Path: "choices.*.text", Text: meter.Output}, // completions
		{Path: "result.response", Text: meter.Output, In: wire.Whole},
	},
	End:    endChat,
	Prompt: chatPrompt.Tokens,
	Stop:   stopChat,
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
	t.Failed = t.Failed || m.Failed("error") || m.Get("object").String() == "error" // the latter: vLLM
	if v := m.Get("model").String(); v != "" {
		t.Model = v
	}
	stated := m.Get("usage")
	for _, path := range []string{"x_groq.usage", "result.usage"} {
		if !stated.IsObject() {
			stated = m.Get(path)
		}
	}
	if v := tier(m.Get("service_tier"), stated); v != "" {
		t.Tier = v
	}
	if !stated.IsObject() {
		return wire.Pass
	}
	s := usage(stated)
	t.Sums[meter.WebSearch] = searches(stated, &s.Suspect)
	t.State(s)
	if c := cost(stated); c != "" {
		t.Cost = c
	}
	return wire.Pass
}

// quiet returns d for a client that did not ask for the usage. It drops the chunk that has only the usage, and deletes the
// "usage":null of the others.
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

// inspectChat reads a request for chat completions or completions. A stream is asked for its usage, unless quiet is nil; quiet
// is the API that keeps that usage from the client.
func inspectChat(r *wire.Request, api, quiet *wire.API) (*meter.Call, error) {
	if err := r.Unrepeated("stream_options"); err != nil {
		return nil, err
	}
	c := r.Call(api)
	c.Model = cmp.Or(deployment(r), c.Model, r.JSON.Get("model_id").String()) // the latter: IBM watsonx
	c.Choices = max(1, r.JSON.Get("n").Int(), r.JSON.Get("best_of").Int())
	if n := maxTokens(r.JSON); n > 0 {
		c.MaxOutput = n * min(c.Choices, 1<<20)
	}
	if quiet != nil && c.Stream && !c.Malformed && !r.JSON.Get("stream_options.include_usage").Bool() {
		if body := askUsage(c.Body, r.JSON.Get("stream_options")); body != nil {
			c.Body, c.Format = body, quiet
		}
	}
	return c, nil
}

// askUsage returns the body with the stream asked for its usage. It returns nil where the stream's options are no object: the
// provider will refuse them.
func askUsage(body []byte, options gjson.Result) []byte {
	switch {
	case options.IsObject():
		body, _ = sjson.SetBytes(body, "stream_options.include_usage", true)
	case !present(options):
		body, _ = sjson.SetRawBytes(body, "stream_options", []byte(`{"include_usage":true}`))
	default:
		return nil
	}
	return body
}

// maxTokens is the limit of each choice's output in tokens, 0 for none.
func maxTokens(body gjson.Result) int64 {
	n := body.Get("max_completion_tokens")
	if !present(n) {
		n = body.Get("max_tokens")
	}
	return min(max(0, n.Int()), wire.MaxTokens)
}

// limitChat sets max_tokens or max_completion_tokens. OpenAI has deprecated the former, and its reasoning models refuse it. Other
// providers may know nothing else.
func limitChat(c *meter.Call, n int64) ([]byte, int64, bool) {
	each := n / max(1, c.Choices)
	if each < 1 {
		return nil, 0, false
	}
	field := "max_tokens"
	if present(gjson.GetBytes(c.Body, "max_completion_tokens")) || !present(gjson.GetBytes(c.Body, field)) && ownModel(c.Model) {
		field = "max_completion_tokens"
	}
	body, err := sjson.SetBytes(c.Body, field, each)
	return body, each * max(1, c.Choices), err == nil
}

// ownModel reports whether a name is that of a chat model of OpenAI's own.
func ownModel(model string) bool {
	for _, prefix := range []string{"gpt-4", "gpt-5", "gpt-audio", "o1", "o3", "o4", "chatgpt", "gpt-3.5", "gpt-35", "ft:gpt", "codex"} {
		if strings.HasPrefix(model, prefix) {
			return true
		}
	}
	return false
}

// deployments are where a path names a deployment, usually by the name of its model. The provider ignores a model in the body
// then. The name lies between before and after; without an after, it goes on to the path's end.
var deployments = []struct{ before, after string }{
	{"/deployments/", "/"},         // Azure: /openai/deployments/NAME/chat/completions
	{"endpoints/", "/invocations"}, // Databricks: /serving-endpoints/NAME/invocations; SageMaker: /endpoints/NAME/invocations
	{"/ai/run/", ""},               // Cloudflare
}

// deployment is the name of the deployment in the request's path, or "".
func deployment(r *wire.Request) string {
	for _, d := range deployments {
		_, rest, found := strings.Cut(r.Clean, d.before)
		if end := strings.Index(rest, d.after); found && end >= 0 {
			name := r.Path[len(r.Path)-len(rest):]
			if d.after != "" {
				name = name[:end]
			}
			return name
		}
	}
	return ""
}

// dropNullUsage deletes `"usage":null` from an event. A stream that is asked for its usage has it in every chunk but the last.
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

// stopChat ends a stream as OpenAI reports an error in one.
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
