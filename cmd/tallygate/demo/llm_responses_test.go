package demo

import (
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
)

func TestResponsesBySDK(t *testing.T) {
	client := openai.NewClient(option.WithBaseURL(open(t, "llm")+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ask := responses.ResponseNewParams{Model: "demo-mini", Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("hello")}}
	whole, err := client.Responses.New(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if whole.OutputText() != helloAnswer || whole.Status != "completed" || whole.Usage.InputTokens != 8 || whole.Usage.OutputTokens != 23 || whole.Usage.TotalTokens != 31 {
		t.Errorf("%q, %s, %+v", whole.OutputText(), whole.Status, whole.Usage)
	}
	stream := client.Responses.NewStreaming(t.Context(), ask)
	text, last := "", responses.Response{}
	for stream.Next() {
		switch event := stream.Current(); event.Type {
		case "response.output_text.delta":
			text += event.Delta
		case "response.completed":
			last = event.Response
		}
	}
	if err := stream.Err(); err != nil || text != helloAnswer || last.OutputText() != helloAnswer || last.Usage.TotalTokens != 31 {
		t.Errorf("streamed %q, %v, %+v", text, err, last.Usage)
	}
	ask.MaxOutputTokens = param.NewOpt(int64(5))
	if short, err := client.Responses.New(t.Context(), ask); err != nil || short.Status != "incomplete" || short.Usage.OutputTokens != 5 {
		t.Errorf("%v, %+v", err, short)
	}
}

func TestEmbeddingsBySDK(t *testing.T) {
	client := openai.NewClient(option.WithBaseURL(open(t, "llm")+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ask := openai.EmbeddingNewParams{Model: "demo-mini", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"owls", "salt", "owls"}}, Dimensions: param.NewOpt(int64(16))}
	got, err := client.Embeddings.New(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Data) != 3 || len(got.Data[0].Embedding) != 16 || got.Data[0].Embedding[3] != got.Data[2].Embedding[3] || got.Usage.PromptTokens == 0 {
		t.Errorf("%+v", got)
	}
}

// The model calls the first tool that it is offered, and answers when it has the result.
func TestToolsBySDK(t *testing.T) {
	client := openai.NewClient(option.WithBaseURL(open(t, "llm")+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	parameters := map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}, "days": map[string]any{"type": "integer"}}, "required": []string{"city", "days"}}
	ask := openai.ChatCompletionNewParams{
		Model:    "demo-mini",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Oslo")},
		Tools:    []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "weather", Parameters: parameters})},
	}
	called, err := client.Chat.Completions.New(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	choice := called.Choices[0]
	if choice.FinishReason != "tool_calls" || len(choice.Message.ToolCalls) != 1 || choice.Message.ToolCalls[0].Function.Arguments != `{"city":"Oslo","days":1}` || called.Usage.CompletionTokens == 0 {
		t.Fatalf("%s", called.RawJSON())
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), ask)
	var streamed openai.ChatCompletionAccumulator
	for stream.Next() {
		streamed.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil || streamed.Choices[0].Message.ToolCalls[0].Function.Name != "weather" {
		t.Errorf("streamed: %v, %+v", err, streamed.Choices)
	}
	ask.Messages = append(ask.Messages, choice.Message.ToParam(), openai.ToolMessage("rain", choice.Message.ToolCalls[0].ID))
	if after, err := client.Chat.Completions.New(t.Context(), ask); err != nil || after.Choices[0].FinishReason != "stop" {
		t.Errorf("%v, %+v", err, after)
	}

	request := responses.ResponseNewParams{
		Model: "demo-mini", Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("Oslo")},
		Tools: []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{Name: "weather", Parameters: parameters}}},
	}
	response, err := client.Responses.New(t.Context(), request)
	if err != nil || response.Output[0].Type != "function_call" || response.Output[0].Name != "weather" {
		t.Errorf("%v, %+v", err, response)
	}
}
