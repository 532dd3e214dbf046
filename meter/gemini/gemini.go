// Package gemini reads Google's Gemini API, on generativelanguage.googleapis.com and on Vertex AI. [Inspect] recognises a request. The API:
// https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
package gemini

import (
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// limits are the fields that limit each candidate, including thoughts, in all spellings that the API accepts.
var limits = []string{"generationConfig.maxOutputTokens", "generationConfig.max_output_tokens",
	"generation_config.maxOutputTokens", "generation_config.max_output_tokens"}

var (
	generateAPI     = &wire.API{Name: "generateContent", Dialect: wire.New(orWrapped(generate)), Limits: limits, Limit: limit}
	streamAPI       = &wire.API{Name: "streamGenerateContent", Dialect: wire.New(orWrapped(generate)), Limits: limits, Limit: limit}
	embeddingsAPI   = &wire.API{Name: "embeddings", Dialect: wire.New(embeddings)}
	interactionsAPI = &wire.API{Name: "interactions", Dialect: wire.New(interactions), Limits: []string{"generation_config.max_output_tokens"}}
	videosAPI       = &wire.API{Name: "videos", Dialect: wire.New(operation.Keeping(wire.Rule{Path: "name", Makes: "operations", Named: true}))}
	liveAPI         = &wire.API{Name: "live", Dialect: wire.New(live)}
)

// generate reads GenerateContentResponse objects: a single one, a stream of events, or a streamed array. Most chunks of a stream state the
// usage so far. The usage of the last chunk counts, but nothing marks a chunk as the last.
var generate = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "usageMetadata"},
		{Path: "modelVersion"},
		{Path: "candidates.*.finishReason"},
		{Path: "candidates.*.groundingMetadata.webSearchQueries.*", Each: searched},
		{Path: "candidates.*.groundingMetadata.groundingChunks.*.maps.uri", Mark: true},
		{Path: "candidates.*.groundingMetadata.groundingChunks.*.web.uri", Mark: true},
		{Path: "error", Mark: true}, {Path: "error"},
		{Path: "promptFeedback.blockReason", Mark: true},
		{Path: "candidates.*.content.parts.*.text", Text: meter.Output},
		{Path: "candidates.*.content.parts.*.functionCall.name", Text: meter.Output, Call: true},
		{Path: "candidates.*.content.parts.*.functionCall.args.*", Text: meter.Output},
		{Path: "candidates.*.content.parts.*.executableCode.code", Text: meter.Output},
	},
	Answers: []string{"candidates.*"},
	End:     endGenerate,
	Prompt:  prompt.Tokens,
	Stop:    stop,
}

var prompt = wire.NewPrompt(2, 0, alsoIn("request.", []string{
	"contents.*.parts.*.text", "contents.parts.*.text", "contents.*.parts.*.functionCall.name", "contents.*.parts.*.functionCall.args.*",
	"contents.*.parts.*.functionResponse.response.*", "systemInstruction.parts.*.text", "system_instruction.parts.*.text",
	"tools.*.functionDeclarations.*.name", "tools.*.functionDeclarations.*.description",
	"content.parts.*.text", "requests.*.content.parts.*.text", "instances.*.content",
}), alsoIn("request.", []string{"contents.*"}))

func endGenerate(t *wire.State, m *wire.Message) wire.Verdict {
	if v := get(m, "modelVersion").String(); v != "" {
		t.Model = v
	}
	if u := get(m, "usageMetadata"); u.IsObject() {
		s := ReadUsage(u)
		t.State(s)
		if v := tier(u); v != "" {
			t.Tier = v
		}
	}
	grounded(t, has(m, "candidates.*.groundingMetadata.groundingChunks.*.web.uri"))
	if has(m, "candidates.*.groundingMetadata.groundingChunks.*.maps.uri") {
		t.Sums[meter.MapsSearch] = meter.Whole(1)
	}
	t.Failed = t.Failed || m.Failed("error") || has(m, "promptFeedback.blockReason")
	if get(m, "candidates.*.finishReason").String() != "" {
		return wire.Last
	}
	return wire.Pass
}

// embeddings reads embeddings. Newer models state promptTokenCount, and older ones nothing. Vertex's predict states a count for each text.
var embeddings = wire.Dialect{
	Rules: []wire.Rule{{Path: "usageMetadata"}, {Path: "predictions.*.embeddings.statistics.token_count"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usageMetadata"); u.IsObject() {
			s := ReadUsage(u)
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

// finished are the states of an interaction that will not change any more. If an interaction requires an action, a new one continues it.
var finished = map[string]bool{"completed": true, "failed": true, "cancelled": true, "incomplete": true, "requires_action": true}

// interactions reads an interaction, or the events of its stream. https://ai.google.dev/gemini-api/docs/interactions
var interactions = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "status"}, {Path: "interaction.status"},
		{Path: "id", Makes: "interactions", In: wire.Whole}, {Path: "interaction.id", Makes: "interactions", In: wire.Stream},
		{Path: "model"}, {Path: "usage"}, {Path: "interaction.model"}, {Path: "interaction.usage"},
		{Path: "service_tier"}, {Path: "interaction.service_tier"},
		{Path: "event_type"}, {Path: "delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "outputs.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "steps.*.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "outputs.*.arguments.queries.*", Each: searched}, {Path: "steps.*.arguments.queries.*", Each: searched},
		{Path: "delta.arguments.queries.*", Each: searched},
		{Path: "interaction.outputs.*.arguments.queries.*", Each: searched}, {Path: "interaction.steps.*.arguments.queries.*", Each: searched},
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
		grounded(t, false)
		if v := m.Get("id").String() + m.Get("interaction.id").String(); v != "" {
			t.ID = v
		}
		if status := m.Get("status").String() + m.Get("interaction.status").String(); status != "" {
			t.Pending = !finished[status]
			t.Answered = !t.Pending
		}
		switch m.Event {
		case "interaction.completed", "interaction.complete", "interaction.failed":
			return wire.Terminal
		}
		return wire.Pass
	},
	Answers: []string{"outputs.*", "steps.*"},
	Prompt:  wire.NewPrompt(0, 0, []string{"input", "input.*.text", "input.*.content.*.text", "system_instruction"}, nil).Tokens,
	Stop:    stop,
}

// operation reads the answer to a request for a video: an operation, which states no usage.
var operation = wire.Dialect{
	End: func(t *wire.State, _ *wire.Message) wire.Verdict {
		t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		return wire.Pass
	},
}

// live reads the messages of a WebSocket. The usages of its turns are added up. https://ai.google.dev/api/live
var live = wire.Dialect{
	Frames: true,
	Rules: []wire.Rule{
		{Path: "usageMetadata"},
		{Path: "serverContent.modelTurn.parts.*.text", Text: meter.Output},
		{Path: "serverContent.modelTurn.parts.*.inlineData.data", Text: meter.AudioOutput}, // its transcription may come after the usage
		{Path: "toolCall.functionCalls.*.name", Text: meter.Output, Call: true},
		{Path: "toolCall.functionCalls.*.args.*", Text: meter.Output},
	},
	// What is said is PCM of 16 bit, mostly of 16 kHz; the client may choose fewer, down to the 8 kHz of telephones. It has up to 32 tokens a
	// second (https://ai.google.dev/gemini-api/docs/audio). What answers has 24 kHz, and about 25 tokens a second.
	Sound: func(*wire.State) (said, answered int64) { return 2 * 8_000 / 32, 2 * 24_000 / 25 },
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usageMetadata"); u.IsObject() {
			s := ReadUsage(u)
			s.HasCompletion = s.HasPrompt // the usage comes at the end of a turn
			t.AddStated(s)
		}
		return wire.Pass
	},
	Stop: stop,
}

// stop ends a stream with an error in Google's form. https://cloud.google.com/apis/design/errors
func stop(code, message string) []wire.Note {
	return []wire.Note{{Data: wire.JSON(map[string]any{
		"error": map[string]any{"code": 402, "message": message, "status": strings.ToUpper(code)}})}}
}

// Inspect recognises a request by the method at the end of its path, such as models/NAME:generateContent. It returns nil for a
// request that is not Gemini's.
func Inspect(r *wire.Request) (*meter.Call, error) {
	c, err := inspect(r)
	if c != nil {
		r.RefuseForms()
	}
	return c, err
}

func inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post(":generatecontent"):
		return inspectGenerate(r, generateAPI, false)
	case r.Post(":streamgeneratecontent"):
		return inspectGenerate(r, streamAPI, true)
	case r.Post(":counttokens"), r.Post(":computetokens"):
		return r.FreeCall("countTokens"), nil
	case r.Post(":embedcontent"), r.Post(":batchembedcontents"), r.Post(":predict") && strings.Contains(r.Clean, "embedding"):
		return inspectEmbeddings(r), nil
	case r.Post(":predictlongrunning"): // Veo: https://ai.google.dev/gemini-api/docs/video
		c := r.Call(videosAPI)
		r.Named(c, model(r.Path))
		r.AskSeconds(c, "parameters.durationSeconds", "parameters.duration_seconds")
		c.ByAsked = true
		return c, nil
	case r.Post(":fetchpredictoperation"):
		return r.FreeCall("operations"), nil
	case r.Post("/interactions"):
		return inspectInteraction(r)
	case strings.Contains(r.Clean, "/interactions/") && (r.Method == http.MethodGet || r.Post("/cancel")):
		c := r.Call(interactionsAPI)
		if !r.Fetch(c, "/interactions/", later) {
			return nil, nil
		}
		c.Free = len(r.Body) == 0
		return c, nil
	case r.Upgrade(".bidigeneratecontent"), r.Upgrade("bidigeneratecontent"):
		c := r.Call(liveAPI)
		c.Stream, c.InputOpen, c.Malformed = true, true, false
		c.Talks = true // the client's first message names it
		return c, nil
	}
	return nil, nil
}

// later is the kind of interactions that are fetched later.
const later = "interaction"

// inspectInteraction reads a request for an interaction, which may run in the background.
func inspectInteraction(r *wire.Request) (*meter.Call, error) {
	c := r.Call(interactionsAPI)
	r.Follow(c, "previous_interaction_id", later)
	if !r.Bool("background") {
		c.Keeps = later
		return c, nil
	}
	if c.Stream {
		return nil, &meter.LaterError{Field: "stream", Reason: "an interaction in the background can't be metered as a stream: leave one of the two out"}
	}
	c.Later = later
	return c, nil
}

// model returns the NAME in .../models/NAME:method.
func model(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}

// limit returns the field of the generation config in the spelling of the request.
func limit(c *meter.Call) string {
	if gjson.GetBytes(c.Body, "generation_config").IsObject() {
		return "generation_config.maxOutputTokens"
	}
	return limits[0]
}

// bothConfigs refuses a request that has its configuration in two spellings.
func bothConfigs(r *wire.Request) {
	if r.Has("generationConfig") && r.Has("generation_config") {
		r.Refuse("generation_config", "generationConfig is there too: state one of the two")
	}
}

func inspectGenerate(r *wire.Request, api *wire.API, stream bool) (*meter.Call, error) {
	if r.Object() && r.IsObject("request") && strings.Contains(r.Clean, "/v1internal:") {
		return inspectWrapped(r, api, stream)
	}
	c := r.Call(api)
	c.Stream = stream
	r.Named(c, model(r.Path))
	bothConfigs(r)
	return c, nil
}

func inspectEmbeddings(r *wire.Request) *meter.Call {
	c := r.Call(embeddingsAPI)
	c.InputOnly = true
	r.Named(c, model(r.Path))
	r.Get("requests").ForEach(func(_, v gjson.Result) bool {
		r.Also(c, "requests", strings.TrimPrefix(v.Get("model").String(), "models/"))
		return true
	})
	return c
}
