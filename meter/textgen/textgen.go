// Package textgen reads APIs that generate text and state their usage in fields of their own: IBM watsonx, llama.cpp, Aleph Alpha, and
// Anthropic's old completions. Each is a line of a table. [Inspect] recognises a request.
package textgen

import (
	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// paths are the ends of the APIs' paths, with the field that limits the output ("" if there is no output).
var paths = []struct{ end, limit string }{
	{"/text/generation", "parameters.max_new_tokens"}, // IBM watsonx: https://cloud.ibm.com/apidocs/watsonx-ai#text-generation
	{"/text/generation_stream", "parameters.max_new_tokens"},
	{"/generation/text", "parameters.max_new_tokens"}, // before its version 1
	{"/generation/text_stream", "parameters.max_new_tokens"},
	{"/ml/v1/text/embeddings", ""},
	{"/completion", "n_predict"},             // llama.cpp: https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-completion
	{"/v1/complete", "max_tokens_to_sample"}, // Anthropic, which states nothing: https://docs.anthropic.com/en/api/complete
	{"/complete", "maximum_tokens"},          // Aleph Alpha: https://docs.aleph-alpha.com/api/complete
}

// words are the paths of the counts. In a stream, at least one message has the prompt's count; it is 0 or missing in the others.
var words = []struct{ prompt, completion string }{
	{"results.*.input_token_count", "results.*.generated_token_count"}, // watsonx, running
	{"input_token_count", ""}, // embeddings of watsonx
	{"tokens_evaluated", "tokens_predicted"},
	{"num_tokens_prompt_total", "num_tokens_generated"},
}

// texts are the paths of the generated text.
var texts = []string{"results.*.generated_text", "content", "completion", "completions.*.completion"}

var dialect = wire.New(wire.Dialect{
	Rules: rules(),
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		for _, path := range []string{"model_id", "model"} {
			if v := m.Get(path).String(); v != "" {
				t.Model = v
			}
		}
		t.Failed = t.Failed || m.Failed("error")
		s := t.Stated
		for _, w := range words {
			if v := m.Get(w.prompt); v.Type == gjson.Number {
				s.Prompt, s.HasPrompt = max(s.Prompt, wire.Number(v, &s.Suspect)), true
			}
			if v := m.Get(w.completion); v.Type == gjson.Number {
				s.Completion, s.HasCompletion = wire.Number(v, &s.Suspect), true
			}
		}
		if s != t.Stated {
			t.State(s)
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(0, 0, []string{"input", "inputs.*", "prompt", "prompt.*", "prompt.*.data"}, nil).Tokens,
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "error", Data: wire.JSON(map[string]any{"error": map[string]string{"type": code, "message": message}})}}
	},
})

func rules() []wire.Rule {
	rules := []wire.Rule{{Path: "model"}, {Path: "model_id"}, {Path: "error", Mark: true}, {Path: "error"}}
	for _, w := range words {
		rules = append(rules, wire.Rule{Path: w.prompt})
		if w.completion != "" {
			rules = append(rules, wire.Rule{Path: w.completion})
		}
	}
	for _, path := range texts {
		rules = append(rules, wire.Rule{Path: path, Text: meter.Output})
	}
	return rules
}

// Inspect recognises a request by the end of its path and by a prompt in its body. It returns nil for other requests.
func Inspect(r *wire.Request) (*meter.Call, error) {
	if !r.Has("prompt") && !r.Has("input") && !r.Has("inputs") {
		return nil, nil
	}
	for _, p := range paths {
		if !r.Post(p.end) {
			continue
		}
		api := &wire.API{Name: "generation", Dialect: dialect}
		if p.limit != "" {
			api.Limits, api.Endless = []string{p.limit}, []int64{-1, -2}
		}
		c := r.Call(api)
		c.InputOnly = p.limit == ""
		r.Named(c, r.Deployment())
		return c, nil
	}
	return nil, nil
}
