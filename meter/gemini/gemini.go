// Package gemini speaks Google's Gemini API, on generativelanguage.googleapis.com and on Vertex AI.
// API: https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
package gemini

import (
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var (
	generateAPI     = &wire.API{Name: "generateContent", Dialect: wire.New(generate), Limit: limit}
	streamAPI       = &wire.API{Name: "streamGenerateContent", Dialect: wire.New(generate), Limit: limit}
	embeddingsAPI   = &wire.API{Name: "embeddings", Dialect: wire.New(embeddings)}
	interactionsAPI = &wire.API{Name: "interactions", Dialect: wire.New(interactions)}
	liveAPI         = &wire.API{Name: "live", Dialect: wire.New(live)}
)

// generate reads GenerateContentResponse objects: a single one, a stream of events, or a streamed array. Most chunks of a stream
// have the usage so far. That of the last chunk counts, and nothing marks a chunk as the last.
var generate = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "usageMetadata"},
		{Path: "modelVersion"},
		{Path: "candidates.*.finishReason"},
		{Path: "error", Mark: true}, {Path: "error"},
		{Path: "promptFeedback.blockReason", Mark: true},
		{Path: "candidates.*.content.parts.*.text", Text: meter.Output},
		{Path: "candidates.*.content.parts.*.functionCall.name", Text: meter.Output, Call: true},
		{Path: "candidates.*.content.parts.*.functionCall.args.*", Text: meter.Output},
		{Path: "candidates.*.content.parts.*.executableCode.code", Text: meter.Output},
	},
	End:    endGenerate,
	Prompt: prompt.Tokens,
	Stop:   stop,
}

var prompt = wire.NewPrompt(2, 0, []string{
	"contents.*.parts.*.text", "contents.parts.*.text", "contents.*.parts.*.functionCall.name", "contents.*.parts.*.functionCall.args.*",
	"contents.*.parts.*.functionResponse.response.*", "systemInstruction.parts.*.text", "system_instruction.parts.*.text",
	"tools.*.functionDeclarations.*.name", "tools.*.functionDeclarations.*.description",
	"content.parts.*.text", "requests.*.content.parts.*.text", "instances.*.content",
}, []string{"contents.*"})

func endGenerate(t *wire.State, m *wire.Message) wire.Verdict {
	if v := m.Get("modelVersion").String(); v != "" {
		t.Model = v
	}
	if u := m.Get("usageMetadata"); u.IsObject() {
		s := usage(u)
		t.State(s)
		t.Tier = tier(u)
	}
	t.Failed = t.Failed || m.Failed("error") || m.Has("promptFeedback.blockReason")
	if m.Get("candidates.*.finishReason").String() != "" {
		return wire.Last
	}
	return wire.Pass
}

// embeddings reads embeddings. The newer models state promptTokenCount and the older ones nothing. Vertex's predict states a
// count for each text.
var embeddings = wire.Dialect{
	Rules: []wire.Rule{{Path: "usageMetadata"}, {Path: "predictions.*.embeddings.statistics.token_count"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usageMetadata"); u.IsObject() {
			s := usage(u)
			s.HasCompletion = true
			t.State(s)
		}
		if counts := m.All("predictions.*.embeddings.statistics.token_count"); len(counts) > 0 {
			s := wire.Stated{HasPrompt: true, HasCompletion: true}
			for _, v := range counts {
				s.Prompt += int64(wire.Decimal(v, &s.Suspect).Ceil())
			}
			t.State(s)
		}
		return wire.Pass
	},
	Prompt: prompt.Tokens,
}

// interactions reads an interaction or the events of its stream. https://ai.google.dev/gemini-api/docs/interactions
var interactions = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "model"}, {Path: "usage"}, {Path: "interaction.model"}, {Path: "interaction.usage"},
		{Path: "service_tier"}, {Path: "interaction.service_tier"},
		{Path: "event_type"}, {Path: "delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "outputs.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "steps.*.content.*.text", Text: meter.Output, In: wire.Whole},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if m.Is("[DONE]") {
			return wire.Final
		}
		for _, at := range []string{"", "interaction."} {
			if v := m.Get(at + "model").String(); v != "" {
				t.Model = v
			}
			if u := m.Get(at + "usage"); u.IsObject() {
				t.State(totals(u))
			}
			if v := m.Get(at + "service_tier").String(); v != "" {
				t.Tier = v
			}
		}
		switch m.Event {
		case "interaction.completed", "interaction.complete", "interaction.failed":
			return wire.Terminal
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(0, 0, []string{"input", "input.*.text", "input.*.content.*.text", "system_instruction"}, nil).Tokens,
	Stop:   stop,
}

// live reads the messages of a WebSocket. The usages of its turns are added up. https://ai.google.dev/api/live
var live = wire.Dialect{
	Frames: true,
	Rules: []wire.Rule{
		{Path: "usageMetadata"},
		{Path: "serverContent.outputTranscription.text", Text: meter.Output},
		{Path: "serverContent.modelTurn.parts.*.text", Text: meter.Output},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usageMetadata"); u.IsObject() {
			s := usage(u)
			s.HasCompletion = s.HasPrompt // the usage comes when the turn is over
			t.AddStated(s)
		}
		return wire.Pass
	},
}

// stop ends a stream with an error as Google reports one. https://cloud.google.com/apis/design/errors
func stop(code, message string) []wire.Note {
	return []wire.Note{{Data: wire.JSON(map[string]any{
		"error": map[string]any{"code": 402, "message": message, "status": strings.ToUpper(code)}})}}
}

// Inspect recognises a request by the method at the end of its path, such as models/NAME:generateContent. It returns nil for a
// request that is not Gemini's.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post(":generatecontent"):
		return inspectGenerate(r, generateAPI, false)
	case r.Post(":streamgeneratecontent"):
		return inspectGenerate(r, streamAPI, true)
	case r.Post(":counttokens"), r.Post(":computetokens"):
		return r.FreeCall("countTokens"), nil
	case r.Post(":embedcontent"), r.Post(":batchembedcontents"), r.Post(":predict") && strings.Contains(r.Clean, "embedding"):
		c := r.Call(embeddingsAPI)
		c.Model, c.InputOnly = model(r.Path), true
		return c, r.Unrepeated()
	case r.Post("/interactions"):
		c := r.Call(interactionsAPI)
		c.MaxOutput = r.MaxOutput("generation_config.max_output_tokens")
		if r.JSON.Get("background").Bool() {
			return nil, meter.ErrBackground
		}
		return c, r.Unrepeated("generation_config")
	case r.Upgrade(".bidigeneratecontent"), r.Upgrade("bidigeneratecontent"):
		c := r.Call(liveAPI)
		c.Stream, c.InputOpen, c.Malformed = true, true, false
		return c, nil
	}
	return nil, nil
}

// model is the NAME in .../models/NAME:method.
func model(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}

// config is the path of the generation config in body. The API takes two spellings.
func config(body gjson.Result) string {
	if body.Get("generation_config").IsObject() {
		return "generation_config"
	}
	return "generationConfig"
}

// field returns a field of the generation config in either spelling.
func field(body gjson.Result, camel, snake string) gjson.Result {
	at := config(body)
	if v := body.Get(at + "." + camel); v.Exists() {
		return v
	}
	return body.Get(at + "." + snake)
}

func inspectGenerate(r *wire.Request, api *wire.API, stream bool) (*meter.Call, error) {
	if err := r.Unrepeated("generationConfig", "generation_config"); err != nil {
		return nil, err
	}
	c := r.Call(api)
	c.Stream = stream
	c.Model = model(r.Path)
	c.Choices = max(1, field(r.JSON, "candidateCount", "candidate_count").Int())
	n := field(r.JSON, "maxOutputTokens", "max_output_tokens").Int()
	c.MaxOutput = min(max(0, n), wire.MaxTokens) * min(c.Choices, 1<<10)
	return c, nil
}

// limit sets maxOutputTokens, which limits each candidate, thoughts included.
func limit(c *meter.Call, n int64) ([]byte, int64, bool) {
	each := n / max(1, c.Choices)
	if each < 1 {
		return nil, 0, false
	}
	body := gjson.ParseBytes(c.Body)
	name := "maxOutputTokens"
	if at := config(body); body.Get(at + ".max_output_tokens").Exists() {
		name = "max_output_tokens"
	}
	out, err := sjson.SetBytes(c.Body, config(body)+"."+name, each)
	return out, each * max(1, c.Choices), err == nil
}
