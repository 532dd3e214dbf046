// Package bedrock reads Amazon Bedrock's runtime API: Converse and InvokeModel, with complete answers and with event streams. [Inspect]
// recognises a request. The API: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
package bedrock

import (
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var converseLimits = []string{"inferenceConfig.maxTokens"}

var (
	converseAPI     = &wire.API{Name: "converse", Dialect: wire.New(converse), Limits: converseLimits}
	converseStream  = &wire.API{Name: "converse-stream", Dialect: wire.New(converse), Limits: converseLimits}
	invokeAPI       = &wire.API{Name: "invoke", Dialect: wire.New(invoke), Limits: invokeLimits, Limit: limitInvoke}
	invokeImagesAPI = &wire.API{Name: "invoke", Dialect: wire.New(invokeImages)}
	invokeStreamAPI = &wire.API{Name: "invoke-stream", Dialect: wire.New(invoke), Limits: invokeLimits, Limit: limitInvoke}
)

// converse reads a Converse response, or the messages of a ConverseStream. There messageStop ends the answer, and the metadata after it
// states the usage.
var converse = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "usage"},
		{Path: "serviceTier.type"}, {Path: "performanceConfig.latency"},
		{Path: "trace.promptRouter.invokedModelId"},
		{Path: "delta.text", Text: meter.Output, In: wire.Stream},
		{Path: "delta.reasoningContent.text", Text: meter.Output, In: wire.Stream},
		{Path: "delta.toolUse.input", Text: meter.Output, In: wire.Stream},
		{Path: "start.toolUse.name", Text: meter.Output, Call: true, In: wire.Stream},
		{Path: "output.message.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "output.message.content.*.reasoningContent.reasoningText.text", Text: meter.Output, In: wire.Whole},
		{Path: "output.message.content.*.toolUse.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "output.message.content.*.toolUse.input.*", Text: meter.Output, In: wire.Whole},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usage"); u.IsObject() {
			t.State(converseUsage(t, u))
		}
		if v := meter.JoinTiers(m.Get("serviceTier.type").String(), m.Get("performanceConfig.latency").String()); v != "" {
			t.Tier = v
		}
		if v := m.Get("trace.promptRouter.invokedModelId").String(); v != "" {
			t.Model = v[strings.LastIndexByte(v, '/')+1:]
		}
		t.Failed = t.Failed || strings.HasSuffix(m.Event, "Exception")
		if m.Event == "messageStop" {
			return wire.Terminal
		}
		return wire.Pass
	},
	Prompt: conversePrompt.Tokens,
	Stop:   stop,
}

var conversePrompt = wire.NewPrompt(4, 3, []string{
	"system.*.text", "messages.*.content.*.text", "messages.*.content.*.toolUse.name", "messages.*.content.*.toolUse.input.*",
	"messages.*.content.*.toolResult.content.*.text", "toolConfig.tools.*.toolSpec.name", "toolConfig.tools.*.toolSpec.description",
}, []string{"messages.*"})

// converseUsage reads a TokenUsage. inputTokens excludes what was read from or written to a cache, and totalTokens is the sum of
// all four. Where the total is only input plus output, the input includes the cache's part (OpenAI's models).
// https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
//
// OpenAI's models count the cache's part in inputTokens too, at least in streams, and totalTokens counts it twice then: measured in
// https://github.com/maximhq/bifrost/pull/6942.
func converseUsage(t *wire.State, u gjson.Result) (s wire.Stated) {
	number := func(path string) int64 { return wire.Number(u.Get(path), &s.Suspect) }
	s.HasPrompt, s.HasCompletion = u.Get("inputTokens").Exists(), u.Get("outputTokens").Exists()
	input := number("inputTokens")
	s.Completion = number("outputTokens")
	s.Cached = max(number("cacheReadInputTokens"), number("cacheReadInputTokenCount")) // the latter: Nova's own
	s.CacheWrite = max(number("cacheWriteInputTokens"), number("cacheWriteInputTokenCount"))
	u.Get("cacheDetails").ForEach(func(_, v gjson.Result) bool {
		if v.Get("ttl").String() == "1h" {
			s.CacheWrite1h += wire.Number(v.Get("inputTokens"), &s.Suspect)
		}
		return s.CacheWrite1h < wire.MaxTokens
	})
	s.Prompt = withCache(t, input, s.Cached+s.CacheWrite)
	if total := number("totalTokens"); total == input+s.Completion {
		s.Prompt = input
	}
	return s
}

// withCache returns the whole input. cache is the part that was read from or written to a cache.
func withCache(t *wire.State, input, cache int64) int64 {
	if strings.Contains(t.Call.Model, "openai.") && input >= cache {
		return input
	}
	return input + cache
}

// stop ends an event stream with the exception by which Bedrock reports the failure of a model in mid-stream.
func stop(_, message string) []wire.Note {
	return []wire.Note{{Event: "modelStreamErrorException", Data: wire.JSON(map[string]string{"message": message})}}
}

// Inspect recognises a request by its path, /model/ID/OPERATION. It returns nil for other requests.
func Inspect(r *wire.Request) (*meter.Call, error) {
	_, rest, found := strings.Cut(r.Clean, "/model/")
	if !found || r.Method != http.MethodPost {
		return nil, nil
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 {
		return nil, nil
	}
	var api *wire.API
	stream := false
	switch rest[at+1:] {
	case "converse":
		api = converseAPI
	case "converse-stream":
		api, stream = converseStream, true
	case "invoke":
		api = invokeAPI
	case "invoke-with-response-stream":
		api, stream = invokeStreamAPI, true
	case "count-tokens":
		return r.FreeCall("count-tokens"), nil
	default:
		return nil, nil
	}
	id := r.Path[len(r.Path)-len(rest):][:at]
	makesImages := api == invokeAPI && namesImages(id)
	if makesImages {
		api = invokeImagesAPI
	}
	c := r.Call(api)
	r.Named(c, id)
	c.Stream = stream
	if makesImages {
		r.AskImages(c)
	}
	c.InputOpen = c.InputOpen || strings.Contains(rest, ":prompt/") // a prompt that Bedrock stores
	return c, nil
}
