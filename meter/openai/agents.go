package openai

import (
	"maps"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// The APIs of agents that the provider stores. The usage of an answer is that of everything that the agent did for it.
var (
	runAPI          = &wire.API{Name: "threads.runs", Dialect: wire.New(run), Limits: []string{"max_completion_tokens"}}
	conversationAPI = &wire.API{Name: "conversations", Dialect: wire.New(conversation), Limits: []string{"completion_args.max_tokens"}}
)

// run reads the events of a run of OpenAI's Assistants. Each step states its usage. At the end the run states the usage of all steps, which
// counts. https://platform.openai.com/docs/api-reference/assistants-streaming
var run = wire.Dialect{
	Rules: append([]wire.Rule{{Path: "delta.content.*.text.value", Text: meter.Output, In: wire.Stream},
		{Path: "thread_id", Makes: "threads"}}, chat.Rules...),
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if m.Is("[DONE]") || m.Get("object").String() == "thread.run" || m.Failed("error") {
			return endChat(t, m)
		}
		return wire.Pass
	},
	Stop: stopChat,
}

// inspectRun reads a request that runs an assistant. It returns nil for a request without a stream: its answer comes before the assistant
// has run, and states no usage.
func inspectRun(r *wire.Request) (*meter.Call, error) {
	if !r.Bool("stream") {
		return nil, r.Err()
	}
	c := r.Call(runAPI)
	c.InputOpen, c.Stays = true, true // because of the thread
	return c, nil
}

// conversation reads an answer of Mistral's conversations, or the events of its stream, of which the last states the usage.
// https://docs.mistral.ai/api/endpoint/beta/conversations
var conversation = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "conversation_id", Makes: "conversations"},
		{Path: "content.file_id", Makes: "files", In: wire.Stream}, // an image that was generated
		{Path: "outputs.*.content.*.file_id", Makes: "files", In: wire.Whole},
		{Path: "type", In: wire.Stream},
		{Path: "model"},
		{Path: "usage"},
		{Path: "content", Text: meter.Output, In: wire.Stream}, // of message.output.delta
		{Path: "content.text", Text: meter.Output, In: wire.Stream},
		{Path: "outputs.*.content", Text: meter.Output, In: wire.Whole},
		{Path: "outputs.*.content.*.text", Text: meter.Output, In: wire.Whole},
		{Path: "outputs.*.name", Text: meter.Output, Call: true, In: wire.Whole},
		{Path: "outputs.*.arguments", Text: meter.Output, In: wire.Whole},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if v := m.Get("model").String(); v != "" {
			t.Model = v
		}
		if u := m.Get("usage"); u.IsObject() {
			t.State(usage(u))
			maps.Copy(t.Sums, fees(t, t.Model, u))
		}
		switch m.Get("type").String() {
		case "conversation.response.error":
			t.Failed = true
			return wire.Terminal
		case "conversation.response.done":
			return wire.Terminal
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(4, 3, []string{
		"instructions", "inputs", "inputs.*.content", "inputs.*.content.*.text", "inputs.*.result",
	}, []string{"inputs.*"}).Tokens,
	Stop: stopChat,
}

func inspectConversation(r *wire.Request) (*meter.Call, error) {
	c := r.Call(conversationAPI)
	c.InputOpen = true // because of what was said before, and what its tools find
	c.Stays = r.Bool("store") || r.Get("store").Type != gjson.False
	return c, nil
}
