package openai

import (
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var (
	responsesAPI = &wire.API{Name: "responses", Dialect: wire.New(responses), Limits: []string{"max_output_tokens"}, Least: leastResponse}
	// unstoredAPI is that of responses which OpenAI does not keep.
	unstoredAPI = &wire.API{Name: "responses", Dialect: wire.New(responses.Forgetting("responses", "items")), Limits: []string{"max_output_tokens"}, Least: leastResponse}
)

func leastResponse(*meter.Call) int64 { return 16 } // the lowest limit that OpenAI accepts; it includes reasoning

// responses reads response objects, and the events of their streams, of which the last states the usage. OpenRouter sends [DONE] after it,
// others do not. https://platform.openai.com/docs/api-reference/responses-streaming
var responses = wire.Dialect{
	Comments: true,
	Rules: []wire.Rule{
		{Path: "type", In: wire.Stream},
		{Path: "delta", Text: meter.Output, In: wire.Stream},
		{Path: "item.name", Text: meter.Output, Call: true, In: wire.Stream}, // of response.output_item.added
		{Path: "response.model", In: wire.Stream},
		{Path: "response.service_tier", In: wire.Stream},
		{Path: "response.usage", In: wire.Stream},
		{Path: "response.tool_usage", In: wire.Stream},
		{Path: "response.output.*.type", In: wire.Stream},
		{Path: "response.output.*.action.type", In: wire.Stream},
		{Path: "response.output.*.container_id", In: wire.Stream},

		{Path: "response.id", Makes: "responses", In: wire.Stream},
		{Path: "response.conversation.id", Makes: "conversations", In: wire.Stream},
		{Path: "item.id", Makes: "items", In: wire.Stream},
		{Path: "response.output.*.id", Makes: "items", In: wire.Stream},
		{Path: "id", Makes: "responses", In: wire.Whole},
		{Path: "conversation.id", Makes: "conversations", In: wire.Whole},
		{Path: "output.*.id", Makes: "items", In: wire.Whole},

		{Path: "model", In: wire.Whole},
		{Path: "status", In: wire.Whole},
		{Path: "service_tier", In: wire.Whole},
		{Path: "usage", In: wire.Whole},
		{Path: "tool_usage", In: wire.Whole},
		{Path: "output.*.type", In: wire.Whole},
		{Path: "output.*.action.type", In: wire.Whole},
		{Path: "output.*.container_id", In: wire.Whole},
		{Path: "output.*.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "output.*.content.*.refusal", Text: meter.Output, In: wire.Whole},
		{Path: "output.*.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "output.*.arguments", Text: meter.Output, In: wire.Whole},
		{Path: "output.*.input", Text: meter.Output, In: wire.Whole},
		{Path: "output.*.summary.*.text", Text: meter.Reasoning, In: wire.Whole},
	},
	Answers: []string{"output.*"},
	End:     endResponses,
	Class: func(m *wire.Message, class meter.Class) meter.Class {
		switch m.Get("type").String() {
		case "response.output_audio.delta", "response.audio.delta":
			return meter.AudioOutput
		case "response.output_item.done": // repeats an earlier event
			return ""
		case "response.reasoning_text.delta", "response.reasoning_summary_text.delta":
			return meter.Reasoning
		}
		return class
	},
	Sound:  sound,
	Prompt: responsesPrompt.Tokens,
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "error", Data: wire.JSON(struct {
			Type    string `json:"type"`
			Code    string `json:"code"`
			Message string `json:"message"`
		}{"error", code, message})}}
	},
}

var responsesPrompt = wire.NewPrompt(4, 3, []string{
	"instructions", "input", "input.*.content", "input.*.content.*.text", "input.*.arguments", "input.*.output", "input.*.name",
	"tools.*.name", "tools.*.description", "tools.*.parameters.properties.*.description",
}, []string{"input.*", "tools.*.parameters.properties.*"})

var socketAPI = &wire.API{Name: "responses", Dialect: wire.New(socket)}

// socket reads the events of responses over a WebSocket: those of a stream, of one response after another, or of several at once. The usages are
// added up. https://developers.openai.com/api/docs/guides/websocket-mode
var socket = func() wire.Dialect {
	d := responses
	d.Frames, d.Comments, d.Answers, d.Prompt = true, false, nil, nil
	d.Start, d.Sound, d.End = realtime.Start, realtime.Sound, endSocket
	d.Stop = realtime.Stop
	d.Rules = append(slices.Clip(d.Rules), wire.Rule{Path: "usage", In: wire.Stream}) // xAI
	return d
}()

func endSocket(t *wire.State, m *wire.Message) wire.Verdict {
	s, kind := t.Scratch.(*session), m.Get("type").String()
	id := m.Get("response.id").String()
	s.answers(t, m.Get("response.model").String())
	t.ID = id // of the answer at whose end the money may run out; those that go on are unfinished
	done := kind == "response.done" || finished[strings.TrimPrefix(kind, "response.")]
	if strings.HasPrefix(kind, "response.") {
		t.Pending = !done
	}
	if done && !t.Peeking() {
		t.End(id)
	} else if !done {
		t.Begin(id)
	}
	if !done || t.Peeking() {
		return wire.Pass
	}
	u := m.Get("response.usage")
	if !u.Get("output_tokens").Exists() {
		u = m.Get("usage")
	}
	if !u.IsObject() {
		return wire.Pass
	}
	v := tier(m.Get("response.service_tier"), u)
	if meter.PlainTier(v) {
		v = "default"
	}
	if !slices.Contains(s.tiers, v) && len(s.tiers) < 8 {
		s.tiers = append(s.tiers, v)
	}
	// Several tiers on one connection have no price together: it is charged at the dearest.
	if t.Tier = s.tiers[0]; len(s.tiers) > 1 {
		t.Tier = strings.Join(s.tiers, "+")
	}
	t.AddPass(s.model, usage(u))
	ran := toolsOf(m, "response.")
	ran.Add(t, s.model, m.Get("response.tool_usage"), u)
	return wire.Pass
}

// finished are the states of a response that will not change any more.
var finished = map[string]bool{"completed": true, "incomplete": true, "failed": true, "cancelled": true}

func endResponses(t *wire.State, m *wire.Message) wire.Verdict {
	if m.Is("[DONE]") {
		return wire.Final
	}
	kind, at := m.Get("type").String(), "response."
	if kind == "" { // a complete body
		at = ""
	}
	if v := m.Get(at + "model").String(); v != "" {
		t.Model = v
	}
	if v := tier(m.Get(at+"service_tier"), m.Get(at+"usage")); v != "" {
		t.Tier = v
	}
	for _, v := range m.All(at + "output.*.container_id") {
		t.Make("containers", v)
	}
	if u := m.Get(at + "usage"); u.IsObject() {
		s := usage(u)
		t.State(s)
		t.Cost = cost(u)
		ran, beside := toolsOf(m, at), m.Get(at+"tool_usage")
		var units meter.Units
		units, t.Containers = ran.count(t, t.Model, beside, u)
		maps.Copy(t.Sums, units)
		t.Beside = generated(beside.Get("image_gen"))
	}
	status := m.Get("status").String()
	if v := m.Get(at + "id").String(); v != "" {
		t.ID = v
	}
	t.Answered = t.Answered || finished[status]
	t.Pending = status != "" && !finished[status] || kind != "" && kind != "error" && !finished[strings.TrimPrefix(kind, "response.")]
	t.Failed = t.Failed || kind == "error" || kind == "response.failed" || m.Get("status").String() == "failed"
	switch kind {
	case "response.completed", "response.incomplete", "response.failed":
		return wire.Terminal
	}
	return wire.Pass
}

// generated returns the usage of an image model within a response. It is not part of the response's usage.
func generated(u gjson.Result) []meter.Pass {
	s := usage(u)
	units := s.Units()
	if len(units) == 0 {
		return nil
	}
	return []meter.Pass{{Model: "gpt-image-1", Units: units}}
}

func inspectResponses(r *wire.Request) (*meter.Call, error) {
	api := responsesAPI
	if r.Get("store").Raw == "false" || strings.HasSuffix(r.Clean, "/compact") {
		api = unstoredAPI
	}
	c := r.Call(api)
	c.InputOpen = c.InputOpen || refersToItem(r)
	c.ContainerGB = containerGB(r)
	r.Follow(c, "previous_response_id", laterResponse)
	if r.Bool("background") {
		return answeredLater(r, c, laterResponse, nil)
	}
	c.Keeps = laterResponse
	c.Stays = present(r.Get("conversation"))
	return c, nil
}

// refersToItem reports whether the input has an item that is only named by its id; its type may be missing.
// https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
func refersToItem(r *wire.Request) (found bool) {
	if !r.Has("input.*.id") {
		return false
	}
	r.Get("input").ForEach(func(_, item gjson.Result) bool {
		found = item.Get("id").Exists() && !item.Get("type").Exists() && !item.Get("role").Exists()
		return !found
	})
	return found
}
