package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
)

const helloAnswer = "You said: hello. I am a demo model: I know nothing, but I count every token I say."

func TestChatBySDK(t *testing.T) {
	client := openai.NewClient(option.WithBaseURL(open(t, "llm")+"/v1"), option.WithAPIKey("none"))
	ask := openai.ChatCompletionNewParams{
		Model:    "demo-mini",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
	}
	whole, err := client.Chat.Completions.New(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if got := whole.Choices[0].Message.Content; got != helloAnswer {
		t.Errorf("got %q", got)
	}
	if u := whole.Usage; u.PromptTokens != 8 || u.CompletionTokens != 23 || u.TotalTokens != 31 {
		t.Errorf("usage %s, want 8 + 23 = 31", u.RawJSON())
	}

	ask.StreamOptions.IncludeUsage = param.NewOpt(true)
	stream := client.Chat.Completions.NewStreaming(t.Context(), ask)
	var streamed openai.ChatCompletionAccumulator
	for stream.Next() {
		if !streamed.AddChunk(stream.Current()) {
			t.Fatalf("the chunk does not belong to the answer: %s", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if got := streamed.Choices[0].Message.Content; got != helloAnswer {
		t.Errorf("streamed %q", got)
	}
	if streamed.Choices[0].FinishReason != "stop" || streamed.Usage.CompletionTokens != whole.Usage.CompletionTokens || streamed.Usage.PromptTokens != 8 {
		t.Errorf("streamed: finish %q, usage %+v", streamed.Choices[0].FinishReason, streamed.Usage)
	}

	models, err := client.Models.List(t.Context())
	if err != nil || len(models.Data) != 3 || models.Data[0].ID != "demo-mini" {
		t.Errorf("models: %+v, %v", models, err)
	}
}

func TestMessagesBySDK(t *testing.T) {
	client := anthropic.NewClient(anthropicoption.WithBaseURL(open(t, "llm")), anthropicoption.WithAPIKey("none"), anthropicoption.WithMaxRetries(0))
	ask := anthropic.MessageNewParams{
		Model:     "demo-large",
		MaxTokens: 100,
		System:    []anthropic.TextBlockParam{{Text: "Be brief."}},
		Messages:  []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hello"))},
	}
	whole, err := client.Messages.New(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if whole.Content[0].Text != helloAnswer || whole.StopReason != "end_turn" {
		t.Errorf("got %q, stop %q", whole.Content[0].Text, whole.StopReason)
	}
	if u := whole.Usage; u.InputTokens != 15 || u.OutputTokens != 23 {
		t.Errorf("usage %s, want 15 and 23", u.RawJSON())
	}

	stream := client.Messages.NewStreaming(t.Context(), ask)
	var streamed anthropic.Message
	var last string
	for stream.Next() {
		last = stream.Current().Type
		if err := streamed.Accumulate(stream.Current()); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if last != "message_stop" || streamed.Content[0].Text != helloAnswer {
		t.Errorf("streamed %q, the last event %q", streamed.Content[0].Text, last)
	}
	if streamed.StopReason != "end_turn" || streamed.Usage.OutputTokens != 23 || streamed.Usage.InputTokens != 15 {
		t.Errorf("streamed: stop %q, usage %+v", streamed.StopReason, streamed.Usage)
	}

	counted, err := client.Messages.CountTokens(t.Context(), anthropic.MessageCountTokensParams{Model: ask.Model, Messages: ask.Messages})
	if err != nil || counted.InputTokens != 8 {
		t.Errorf("count_tokens: %+v, %v; want 8", counted, err)
	}

	ask.MaxTokens = 5
	short, err := client.Messages.New(t.Context(), ask)
	if err != nil || short.StopReason != "max_tokens" || short.Usage.OutputTokens != 5 {
		t.Errorf("cut to 5 tokens: %+v, %v", short, err)
	}
}

// chunks are the data of a chat completion's stream, without the closing [DONE].
func chunks(t *testing.T, body string) []map[string]json.RawMessage {
	t.Helper()
	body, ok := strings.CutSuffix(body, "data: [DONE]\n\n")
	if !ok {
		t.Fatalf("the stream does not end with [DONE]: %q", body)
	}
	var got []map[string]json.RawMessage
	for line := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
		var chunk map[string]json.RawMessage
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &chunk); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		got = append(got, chunk)
	}
	return got
}

func TestUsageInAStreamOnlyWhereAskedFor(t *testing.T) {
	url := open(t, "llm") + "/v1/chat/completions"
	const ask = `{"model":"demo-mini","messages":[{"role":"user","content":"hello"}],"stream":true%}`
	for _, options := range []string{``, `,"stream_options":null`, `,"stream_options":{"include_usage":false}`} {
		r := post(t, url, strings.Replace(ask, "%", options, 1))
		if strings.Contains(r.body, "usage") {
			t.Errorf("%q: usage was not asked for: %q", options, r.body)
		}
	}
	got := chunks(t, post(t, url, strings.Replace(ask, "%", `,"stream_options":{"include_usage":true}`, 1)).body)
	for i, chunk := range got[:len(got)-1] {
		if string(chunk["usage"]) != "null" || string(chunk["choices"]) == "[]" {
			t.Errorf("chunk %d: usage %s, choices %s; want null and one choice", i, chunk["usage"], chunk["choices"])
		}
	}
	last := got[len(got)-1]
	const want = `{"prompt_tokens":8,"completion_tokens":23,"total_tokens":31,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}`
	if string(last["choices"]) != "[]" || string(last["usage"]) != want {
		t.Errorf("the last chunk: choices %s, usage %s", last["choices"], last["usage"])
	}
}

func TestChatParameters(t *testing.T) {
	url := open(t, "llm") + "/v1/chat/completions"
	tests := []struct {
		name, body     string
		output, choice int // tokens, choices
		finish         string
	}{
		{"max_tokens", `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":4}`, 4, 1, "length"},
		{"max_completion_tokens goes first", `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":4,"max_completion_tokens":6}`, 6, 1, "length"},
		{"a limit that is not reached", `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":23}`, 23, 1, "stop"},
		{"n", `{"model":"m","messages":[{"role":"user","content":"hello"}],"n":3}`, 69, 3, "stop"},
		{"parts", `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hel"},{"type":"text","text":"lo"}]}]}`, 23, 1, "stop"},
		{"the last message is answered", `{"model":"m","messages":[{"role":"user","content":"a b c d"},{"role":"assistant","content":null},{"role":"user","content":"hello"}]}`, 23, 1, "stop"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got struct {
				Choices []struct {
					Finish string `json:"finish_reason"`
				}
				Usage struct {
					Output int `json:"completion_tokens"`
				}
			}
			r := post(t, url, test.body)
			r.decode(t, &got)
			if got.Usage.Output != test.output || len(got.Choices) != test.choice || got.Choices[0].Finish != test.finish {
				t.Errorf("got %s", r.body)
			}
		})
	}
	streamed := chunks(t, post(t, url, `{"model":"m","messages":[{"role":"user","content":"hello"}],"n":2,"stream":true}`).body)
	if len(streamed) != 2*(1+23+1) {
		t.Errorf("two choices in %d chunks, want 2 times (role, 23 tokens, finish)", len(streamed))
	}
}

func TestLLMErrors(t *testing.T) {
	url := open(t, "llm")
	const hello = `"messages":[{"role":"user","content":"hello"}]`
	tests := []struct {
		path, body string
		status     int
		want       string // part of the body
	}{
		{"/v1/chat/completions", `{`, 400, "not valid JSON"},
		{"/v1/chat/completions", `{` + hello + `}`, 400, `"param":"model"`},
		{"/v1/chat/completions", `{"model":"m"}`, 400, `"param":"messages"`},
		{"/v1/chat/completions", `{"model":"m",` + hello + `,"n":0}`, 400, `"param":"n"`},
		{"/v1/chat/completions", `{"model":"m",` + hello + `,"max_tokens":-1}`, 400, `"param":"max_tokens"`},
		{"/v1/chat/completions", `{"model":"m",` + hello + `,"max_completion_tokens":-1}`, 400, `"param":"max_completion_tokens"`},
		{"/v1/chat/completions", `{"model":"m",` + hello + `,"stream_options":{"include_usage":true}}`, 400, `"param":"stream_options"`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":7}]}`, 400, "a string or a list of parts"},
		{"/v1/chat/completions", `{"model":"` + strings.Repeat("m", mostPrompt) + `"}`, 400, "longer than 1048576 bytes"},
		{"/v1/chat/completions", `{"model":"demo-broken",` + hello + `,"stream":true}`, 500, `"type":"server_error"`},
		{"/v1/images", `{}`, 404, "unknown request URL: POST /v1/images"},
		{"/v1/messages", `{`, 400, `"type":"error"`},
		{"/v1/messages", `{"max_tokens":9,` + hello + `}`, 400, "model"},
		{"/v1/messages", `{"model":"m","max_tokens":9}`, 400, "messages"},
		{"/v1/messages", `{"model":"m",` + hello + `}`, 400, "max_tokens"},
		{"/v1/messages", `{"model":"demo-broken","max_tokens":9,` + hello + `}`, 500, `"type":"api_error"`},
		{"/v1/messages/count_tokens", `[`, 400, `"type":"error"`},
	}
	for _, test := range tests {
		t.Run(test.path+" "+test.want, func(t *testing.T) {
			r := post(t, url+test.path, test.body)
			if r.status != test.status || !strings.Contains(r.body, test.want) {
				t.Errorf("%d %s, want %d with %q", r.status, r.body, test.status, test.want)
			}
		})
	}
}

// TestStreamsPieceByPiece reads the first event while the second one is an hour away, and then hangs up. So the first event was sent at once. The
// provider must stop when its client has gone, otherwise closing the server would wait for it.
func TestStreamsPieceByPiece(t *testing.T) {
	tests := []struct{ provider, method, path, body string }{
		{"llm", "POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}`},
		{"llm", "POST", "/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}`},
		{"live", "GET", "/live", ""},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			url := openPaced(t, test.provider, time.Hour)
			request, err := http.NewRequestWithContext(ctx, test.method, url+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if line, err := bufio.NewReader(r.Body).ReadString('\n'); err != nil || line == "" {
				t.Errorf("got %q, %v", line, err)
			}
		})
	}
}

func TestPiecesAreWholeCharacters(t *testing.T) {
	tests := []struct{ tokens, want []string }{
		{[]string{"a", "b"}, []string{"a", "b"}},
		{[]string{"a", "\xf0\x9f", "\xa6\x89", "b"}, []string{"a", "🦉", "b"}},
		{[]string{"a", "\xf0\x9f"}, []string{"a"}},
	}
	for _, test := range tests {
		if got := wholeCharacters(test.tokens); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.tokens, got, test.want)
		}
	}
}
