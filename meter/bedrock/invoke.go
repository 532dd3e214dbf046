package bedrock

import (
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/anthropic"
	"github.com/tallygate/tallygate/meter/wire"
)

// invoke reads an InvokeModel response. Its body has the form of the model's vendor. For every model, the usage of a whole response is in
// headers; for embeddings, only the usage of the input is. The usage of a stream is in its last chunk. The bodies of Anthropic's models also
// state their usage, in the form of Anthropic's own API.
// https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
var invoke = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "type"},
		{Path: "model"}, // Anthropic, OpenAI
		{Path: "message.model"},
		{Path: "usage"},
		{Path: "message.usage"},
		{Path: "amazon-bedrock-invocationMetrics"},
		{Path: "metadata.usage"},       // Nova, streamed
		{Path: "inputTextTokenCount"},  // Titan
		{Path: "results.*.tokenCount"}, // Titan
		{Path: "totalOutputTextTokenCount"},
		{Path: "prompt_token_count"},     // Llama
		{Path: "generation_token_count"}, // Llama

		{Path: "delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "delta.thinking", Text: meter.Output, In: wire.Stream},
		{Path: "delta.partial_json", Text: meter.Output, In: wire.Stream},
		{Path: "contentBlockDelta.delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "outputText", Text: meter.Output, In: wire.Stream},
		{Path: "text", Text: meter.Output, In: wire.Stream},
		{Path: "choices.*.delta.content", Text: meter.Output, In: wire.Stream},

		{Path: "content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "content.*.thinking", Text: meter.Output, In: wire.Whole},
		{Path: "content.*.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "content.*.input.*", Text: meter.Output, In: wire.Whole},
		{Path: "output.message.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "results.*.outputText", Text: meter.Output, In: wire.Whole},
		{Path: "choices.*.message.content", Text: meter.Output, In: wire.Whole},

		{Path: "completion", Text: meter.Output},
		{Path: "generation", Text: meter.Output},
		{Path: "outputs.*.text", Text: meter.Output},
		{Path: "generations.*.text", Text: meter.Output},
	},
	Start:  startInvoke,
	End:    endInvoke,
	Prompt: invokePrompt.Tokens,
	Stop:   stop,
}

var invokePrompt = wire.NewPrompt(4, 3, []string{
	"system", "system.*.text", "messages.*.content", "messages.*.content.*.text", "prompt", "inputText", "input_text", "texts.*", "query", "documents.*",
}, []string{"messages.*"})

// reading is the state of an InvokeModel response.
type reading struct {
	anthropic.Running
	header bool // the headers have stated the usage
}

func startInvoke(t *wire.State, h http.Header) {
	r := &reading{Running: anthropic.NewRunning()}
	t.Scratch = r
	s := wire.Stated{}
	number := func(name string) (n int64, ok bool) {
		v := h.Get("X-Amzn-Bedrock-" + name + "-Token-Count")
		return wire.Number(gjson.Parse(v), &s.Suspect), v != ""
	}
	s.Prompt, s.HasPrompt = number("Input")
	s.Completion, s.HasCompletion = number("Output")
	s.Cached, _ = number("Cache-Read-Input")
	s.CacheWrite, _ = number("Cache-Write-Input")
	s.Prompt = withCache(t, s.Prompt, s.Cached+s.CacheWrite)
	if s.HasPrompt {
		s.HasCompletion = true // a response with embeddings states only its input, and has no output
		t.State(s)
		r.header, t.Covered = true, t.Stated.HasCompletion
	}
}

func endInvoke(t *wire.State, m *wire.Message) wire.Verdict {
	r := t.Scratch.(*reading)
	kind := m.Get("type").String()
	t.Failed = t.Failed || kind == "error" || strings.HasSuffix(m.Event, "Exception")
	for _, path := range []string{"model", "message.model"} {
		if v := m.Get(path).String(); v != "" {
			t.Model = v
		}
	}
	u := m.Get("usage")
	switch {
	case kind == "message_start":
		r.Merge(m.Get("message.usage"))
		r.State(t, false)
	case u.Get("input_tokens").Exists() || u.Get("output_tokens").Exists():
		r.Merge(u)
		r.State(t, true)
	case r.header: // the headers stay: they include what a guardrail has removed from the body
	case u.Get("inputTokens").Exists():
		t.State(converseUsage(t, u))
	case m.Get("metadata.usage").Get("inputTokens").Exists():
		t.State(converseUsage(t, m.Get("metadata.usage")))
	case u.Get("prompt_tokens").Exists():
		t.State(wire.ReadUsage(wire.Fields(u)))
	default:
		own(t, m)
	}
	metrics := m.Get("amazon-bedrock-invocationMetrics")
	if metrics.IsObject() && r.Empty() {
		s := invocation(t, metrics)
		if had := t.Stated; s.Prompt == 0 && had.HasPrompt { // a count of zero does not replace an earlier one
			had.Completion, had.HasCompletion = s.Completion, true
			s = had
		}
		t.State(s)
	}
	if metrics.Exists() || kind == "message_stop" {
		return wire.Terminal
	}
	return wire.Pass
}

// words are the fields in which some models state their usage. In a stream, one chunk has the count of the prompt. It is null in the others.
var words = []struct{ prompt, completion string }{
	{"prompt_token_count", "generation_token_count"},     // Llama; in a stream, the count so far
	{"inputTextTokenCount", "results.*.tokenCount"},      // Titan
	{"inputTextTokenCount", "totalOutputTextTokenCount"}, // Titan, streamed
}

// own reads the usage from the fields of words. A count that the message does not have stays as it was.
func own(t *wire.State, m *wire.Message) {
	s := t.Stated
	for _, w := range words {
		for _, f := range []struct {
			path   string
			n      *int64
			stated *bool
		}{{w.prompt, &s.Prompt, &s.HasPrompt}, {w.completion, &s.Completion, &s.HasCompletion}} {
			if v := m.Get(f.path); v.Type == gjson.Number {
				*f.n, *f.stated = wire.Number(v, &s.Suspect), true
			}
		}
	}
	if s != t.Stated {
		t.State(s)
	}
}

func pair(prompt, completion gjson.Result) wire.Stated {
	s := wire.Stated{HasPrompt: true, HasCompletion: true}
	s.Prompt, s.Completion = wire.Number(prompt, &s.Suspect), wire.Number(completion, &s.Suspect)
	return s
}

// invocation reads the metrics of a stream. The tokens that were read from a cache, or written to one, are not in inputTokenCount.
func invocation(t *wire.State, v gjson.Result) wire.Stated {
	s := pair(v.Get("inputTokenCount"), v.Get("outputTokenCount"))
	s.Cached = wire.Number(v.Get("cacheReadInputTokenCount"), &s.Suspect)
	s.CacheWrite = wire.Number(v.Get("cacheWriteInputTokenCount"), &s.Suspect)
	s.Prompt = withCache(t, s.Prompt, s.Cached+s.CacheWrite)
	return s
}

// invokeLimits are the fields by which requests to the models limit the output.
var invokeLimits = []string{
	"inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens", "max_tokens", "max_completion_tokens",
	"textGenerationConfig.maxTokenCount", "max_gen_len", "max_tokens_to_sample", "maxTokens",
}

// families are the fields that limit the output, by the vendor of the model. One is added to a request that has no limit.
var families = []struct{ model, field string }{
	{"anthropic.", "max_tokens"}, {"amazon.nova", "inferenceConfig.maxTokens"}, {"amazon.titan", "textGenerationConfig.maxTokenCount"},
	{"meta.", "max_gen_len"}, {"mistral.", "max_tokens"}, {"cohere.", "max_tokens"}, {"openai.", "max_completion_tokens"},
	{"deepseek.", "max_tokens"}, {"qwen.", "max_tokens"}, {"ai21.", "max_tokens"},
}

func limitInvoke(c *meter.Call) string {
	for _, f := range families {
		if strings.Contains(c.Model, f.model) {
			return f.field
		}
	}
	return ""
}
