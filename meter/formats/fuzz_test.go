package formats_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
)

// answered is a request and the messages of its answer, one a line.
type answered struct {
	request, messages string
}

// How the fuzzed messages are put into a body.
var framings = []struct {
	contentType string
	body        func(messages string) []byte
}{
	{"text/event-stream", func(messages string) []byte { return []byte(events(strings.Split(messages, "\n")...)) }},
	{"application/json", func(messages string) []byte { return []byte(messages) }},
	{"application/x-ndjson", func(messages string) []byte { return []byte(messages + "\n") }},
	{"application/vnd.amazon.eventstream", framed},
	{"text/event-stream", func(messages string) []byte { return []byte(messages) }}, // framed by the fuzzer
}

// framed makes AWS event messages, whose checksums no fuzzer would find. A line is the event's type, a space, and its payload.
func framed(messages string) []byte {
	var b bytes.Buffer
	encoder := eventstream.NewEncoder()
	for line := range strings.SplitSeq(messages, "\n") {
		kind, payload, _ := strings.Cut(line, " ")
		m := eventstream.Message{Payload: []byte(payload)}
		m.Headers.Set(":message-type", eventstream.StringValue("event"))
		m.Headers.Set(":event-type", eventstream.StringValue(kind))
		if encoder.Encode(&b, m) != nil {
			return nil
		}
	}
	return b.Bytes()
}

// fuzzFormat answers requests on a format's paths with anything. Whatever comes, the counts are those of a count, and the same in whatever
// pieces it comes; and what is used so far is never beyond its bound.
func fuzzFormat(f *testing.F, paths []string, seeds ...answered) {
	for i, seed := range seeds {
		for path := range paths {
			for framing := range framings {
				f.Add(uint8(path), uint8(framing), uint(i*7+1), seed.request, seed.messages)
			}
		}
	}
	f.Fuzz(func(t *testing.T, path, framing uint8, size uint, request, messages string) {
		how := framings[int(framing)%len(framings)]
		body := how.body(messages)
		method := "POST"
		if request == "" {
			method = "GET"
		}
		head := meter.Head{Method: method, Path: paths[int(path)%len(paths)], Header: http.Header{"Content-Type": {"application/json"}}}
		var whole string
		for _, size := range []int{len(body) + 1, int(size%1000) + 1} {
			call, err := formats.Inspect(head, []byte(request))
			if err != nil {
				return
			}
			call.LimitOutput(100)
			c := call.Counter(200, http.Header{"Content-Type": {how.contentType}})
			for rest := body; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				c.Feed(nil, rest[:min(size, len(rest))])
				at, bound := c.Progress()
				inRange(t, at)
				inRange(t, bound)
				if at[meter.Output] > bound[meter.Output] {
					t.Fatalf("%v so far, at most %v", at, bound)
				}
			}
			c.Stop("a", "b")
			inRange(t, c.Usage(false).Units)
			u := c.Usage(true)
			inRange(t, u.Units)
			for _, pass := range append(u.Passes, u.Beside...) {
				inRange(t, pass.Units)
			}
			if whole == "" {
				whole = u.Units.String()
			} else if got := u.Units.String(); got != whole {
				t.Fatalf("%s in pieces of %d, %s whole", got, size, whole)
			}
		}
	})
}

func inRange(t *testing.T, units meter.Units) {
	t.Helper()
	for class, n := range units {
		if n < 0 || n > meter.MaxQuantity {
			t.Errorf("%d of %s", n, class)
		}
	}
}

func FuzzOpenAIChat(f *testing.F) {
	fuzzFormat(f, []string{"/v1/chat/completions", "/v1/completions", "/openai/deployments/d/chat/completions", "/unknown"},
		answered{`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true,"n":2}`,
			`{"choices":[{"index":0,"delta":{"content":"hello","reasoning_content":"hm","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}],"usage":null}` + "\n" +
				`{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":1},"completion_tokens_details":{"reasoning_tokens":1}}}` + "\n[DONE]"},
		answered{`{"model":"gpt-4o","prompt":["a"],"max_tokens":5}`, `{"choices":[{"text":"b"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.1}}`})
}

// FuzzBatch reads the results of batches, and answers that are fetched later.
func FuzzBatch(f *testing.F) {
	fuzzFormat(f, []string{"/v1/files/f/content", "/v1/messages/batches/b/results", "/v1/batches/b", "/v1/batches", "/v1/batch/jobs/j", "/v1/batches/b/results",
		"/download/v1beta/files/f:download", "/v1/responses/r", "/v1beta/interactions/i", "/async/chat/completions/a", "/v1/chat/deferred-completion/d"},
		answered{"", `{"custom_id":"1","response":{"body":{"model":"a","usage":{"prompt_tokens":1,"completion_tokens":2}}}}` + "\n" + `{"custom_id":"2","result":{"message":{"model":"b","usage":{"input_tokens":3,"output_tokens":4}}}}`},
		answered{"", `{"name":"batches/b","done":true,"metadata":{"output":{"inlinedResponses":{"inlinedResponses":[{"response":{"usageMetadata":{"promptTokenCount":1},"modelVersion":"m"}}]}}},"response":{"inlinedResponses":{"inlinedResponses":[{"response":{"usageMetadata":{"promptTokenCount":1},"modelVersion":"m"}}]}}}`},
		answered{"", `{"id":"j","status":"RUNNING","outputs":[{"response":{"body":{"usage":{"prompt_tokens":1},"model":"m"}}},{"response":{"body":{"model":"m","usage":{"total_tokens":1}}}}]}`},
		answered{"", `{"results":[{"batch_result":{"response":{"chat_get_completion":{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}}}}]}`},
		answered{"", `{"id":"a","status":"COMPLETED","response":{"model":"m","choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}}`},
		answered{`{"request":{"model":"m","messages":[],"max_tokens":3}}`, `{"id":"a","status":"CREATED"}`},
		answered{`{"requests":[{"params":{"model":"m"}}]}`, `{"id":"a"}`})
}

func FuzzJobs(f *testing.F) {
	fuzzFormat(f, []string{"/v1/predictions", "/v1/models/o/n/predictions", "/v1/predictions/p", "/api/v1/tasks/t", "/fal-ai/flux/dev", "/fal-ai/flux/requests/r"},
		answered{`{"version":"o/n","input":{"prompt":"hi"}}`, `{"id":"p","model":"o/n","status":"succeeded","output":["a"],"urls":{"stream":"u"},"metrics":{"predict_time":1.5,"token_input_count":1,"token_output_count":2}}`},
		answered{"", `{"output":{"task_id":"t","task_status":"SUCCEEDED","video_url":"u"},"usage":{"video_duration":5,"video_count":1}}`},
		answered{`{"prompt":"a","num_images":2,"duration":"5s"}`, `{"status":"IN_QUEUE","request_id":"r"}`})
}

func FuzzOpenAIResponses(f *testing.F) {
	fuzzFormat(f, []string{"/v1/responses", "/v1/threads/t/runs", "/v1/conversations"},
		answered{`{"model":"gpt-5","input":"hi","stream":true,"max_output_tokens":9}`,
			`{"type":"response.output_text.delta","delta":"hello"}` + "\n" +
				`{"type":"response.completed","response":{"model":"gpt-5-1","service_tier":"flex","output":[{"type":"web_search_call"},{"type":"message","content":[{"text":"hello"}]}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3}}}}`},
		answered{`{"assistant_id":"a"}`, `{"object":"thread.run","usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n[DONE]"})
}

func FuzzOpenAIMedia(f *testing.F) {
	fuzzFormat(f, []string{"/v1/images/generations", "/v1/images/edits", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/embeddings", "/v1/moderations", "/v1/ocr", "/v1/batches"},
		answered{`{"model":"gpt-image-1","prompt":"a cat","stream":true,"n":2}`,
			`{"type":"image_generation.partial_image","b64_json":"AAAA"}` + "\n" +
				`{"type":"image_generation.completed","b64_json":"AAAA","usage":{"input_tokens":5,"output_tokens":7,"input_tokens_details":{"text_tokens":2,"image_tokens":3}}}`},
		answered{`{"model":"x","input":["a","b"]}`, `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":2,"total_tokens":2}}`},
		answered{`{"model":"whisper-1","stream":true}`, `{"type":"transcript.text.delta","delta":"a"}` + "\n" + `{"type":"transcript.text.done","text":"a","usage":{"type":"duration","seconds":3}}`},
		answered{`{"model":"ocr"}`, `{"pages":[{"markdown":"x"}],"usage_info":{"pages_processed":1}}`})
}

func FuzzAnthropic(f *testing.F) {
	fuzzFormat(f, []string{"/v1/messages", "/v1/messages/batches", "/v1/messages/count_tokens", "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict"},
		answered{`{"model":"claude","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`,
			`{"type":"message_start","message":{"model":"claude-1","usage":{"input_tokens":5,"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"cache_creation":{"ephemeral_1h_input_tokens":1,"ephemeral_5m_input_tokens":2},"output_tokens":1}}}` + "\n" +
				`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}` + "\n" +
				`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7,"server_tool_use":{"web_search_requests":1},"iterations":[{"model":"other","input_tokens":1,"output_tokens":2}]}}` + "\n" +
				`{"type":"message_stop"}`},
		answered{`{"model":"claude","max_tokens":9,"messages":[]}`, `{"type":"message","model":"claude-1","content":[{"type":"text","text":"hello"},{"type":"tool_use","name":"f","input":{}}],"usage":{"input_tokens":5,"output_tokens":7}}`})
}

func FuzzGemini(f *testing.F) {
	fuzzFormat(f, []string{"/v1beta/models/g:generateContent", "/v1beta/models/g:streamGenerateContent", "/v1beta/interactions", "/v1beta/models/g:embedContent", "/v1beta/models/g:predict", "/v1internal:streamGenerateContent"},
		answered{`{"model":"g","request":{"contents":[{"parts":[{"text":"hi"}]}]}}`, `{"response":{"candidates":[{"content":{"parts":[{"text":"hello"}]}}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}}`},
		answered{`{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":9,"candidateCount":2}}`,
			`{"candidates":[{"content":{"parts":[{"text":"hello","thought":true}]},"finishReason":"STOP"}],"modelVersion":"g-1","usageMetadata":{"promptTokenCount":5,"cachedContentTokenCount":2,"candidatesTokenCount":7,"thoughtsTokenCount":3,"toolUsePromptTokenCount":1,"totalTokenCount":16,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":1}]}}`},
		answered{`{"model":"g","input":"hi","stream":true}`, `{"event_type":"content.delta","delta":{"text":"a"}}` + "\n" + `{"event_type":"interaction.complete","interaction":{"usage":{"total_input_tokens":3,"total_output_tokens":4}}}`})
}

func FuzzBedrock(f *testing.F) {
	fuzzFormat(f, []string{"/model/anthropic.claude/converse", "/model/m/converse-stream", "/model/anthropic.claude/invoke-with-response-stream", "/model/amazon.titan/invoke"},
		answered{`{"messages":[{"role":"user","content":[{"text":"hi"}]}],"inferenceConfig":{"maxTokens":9}}`,
			`contentBlockDelta {"contentBlockIndex":0,"delta":{"text":"hello"}}` + "\n" + `messageStop {"stopReason":"end_turn"}` + "\n" +
				`metadata {"usage":{"inputTokens":5,"outputTokens":7,"cacheReadInputTokens":2,"cacheWriteInputTokens":1},"metrics":{"latencyMs":1}}`},
		answered{`{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[]}`, `chunk {"bytes":"eyJ0eXBlIjoibWVzc2FnZV9zdGFydCIsIm1lc3NhZ2UiOnsidXNhZ2UiOnsiaW5wdXRfdG9rZW5zIjo1fX19"}` + "\n" +
			`chunk {"bytes":"eyJ0eXBlIjoibWVzc2FnZV9zdG9wIiwiYW1hem9uLWJlZHJvY2staW52b2NhdGlvbk1ldHJpY3MiOnsiaW5wdXRUb2tlbkNvdW50IjozfX0="}`},
		answered{`{"inputText":"hi","textGenerationConfig":{"maxTokenCount":9}}`, `{"inputTextTokenCount":3,"results":[{"tokenCount":7,"outputText":"hello"}]}`})
}

func FuzzCohere(f *testing.F) {
	fuzzFormat(f, []string{"/v2/chat", "/v1/chat", "/v1/generate", "/v2/embed", "/v2/rerank", "/v1/classify"},
		answered{`{"model":"command","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":9}`,
			`{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"hello"}}}}` + "\n" +
				`{"type":"message-end","delta":{"usage":{"billed_units":{"input_tokens":5,"output_tokens":7,"search_units":1},"tokens":{"input_tokens":9,"output_tokens":7}}}}`},
		answered{`{"model":"rerank","query":"q","documents":["a","b"]}`, `{"results":[{"index":0}],"meta":{"billed_units":{"search_units":1}}}`})
}

func FuzzOllama(f *testing.F) {
	fuzzFormat(f, []string{"/api/chat", "/api/generate", "/api/embed"},
		answered{`{"model":"llama","messages":[{"role":"user","content":"hi"}],"options":{"num_predict":9}}`,
			`{"model":"llama","message":{"content":"hello","thinking":"hm"},"done":false}` + "\n" + `{"model":"llama","done":true,"prompt_eval_count":5,"eval_count":7}`},
		answered{`{"model":"llama","prompt":"hi","stream":false}`, `{"response":"hello","done":true,"prompt_eval_count":5,"eval_count":7}`})
}

func FuzzTextgen(f *testing.F) {
	fuzzFormat(f, []string{"/ml/v1/text/generation", "/ml/v1/text/generation_stream", "/ml/v1/text/embeddings", "/completion", "/v1/complete", "/complete"},
		answered{`{"model_id":"granite","input":"hi","parameters":{"max_new_tokens":9}}`,
			`{"results":[{"generated_text":"hello","generated_token_count":7,"input_token_count":5}]}` + "\n" + `{"results":[{"generated_text":"","generated_token_count":8,"input_token_count":0}]}`},
		answered{`{"prompt":"hi","n_predict":9,"stream":true}`, `{"content":"hello","stop":false}` + "\n" + `{"content":"","stop":true,"tokens_evaluated":5,"tokens_predicted":7}`})
}

func FuzzMCP(f *testing.F) {
	fuzzFormat(f, []string{"/mcp"},
		answered{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":{}}}`,
			`{"jsonrpc":"2.0","method":"notifications/progress","params":{}}` + "\n" + `{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false}}`},
		answered{`[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"b"}}]`,
			`[{"jsonrpc":"2.0","id":"x","error":{"code":-1}},{"jsonrpc":"2.0","id":1.0,"result":{}}]`})
}

// FuzzTalk: what a client says over a WebSocket is read alike in whatever pieces it comes, and no model that Go's reader finds in it goes by
// unheard.
func FuzzTalk(f *testing.F) {
	for _, seed := range []string{
		`{"setup":{"model":"models/a"}}`, `{"type":"response.create","model":"a","previous_response_id":"r","background":true}`, `{"Session":{"mod\u0065l":"a","MODEL":"b"}}`,
		`{"models":["a",{"model":"b"}],"service_tier":"priority"}`, `{"model":"a"}x`, `{'model':"a"}`, "ping", `[{}]`, `{"model":1}`, `{"fallbacks":"a"`,
	} {
		f.Add([]byte(seed), byte(3))
	}
	f.Fuzz(func(t *testing.T, message []byte, size byte) {
		if len(message) > 60_000 {
			return
		}
		sent := frame(0x81, message)
		hear := func(size int) (all wire.Told, err error) {
			talk := wire.NewTalk("response", "")
			for rest := sent; len(rest) > 0 && err == nil; {
				n := min(size, len(rest))
				var told wire.Told
				told, err = talk.Read(rest[:n])
				rest = rest[n:]
				all.Models, all.Tiers, all.Follows = append(all.Models, told.Models...), append(all.Tiers, told.Tiers...), append(all.Follows, told.Follows...)
			}
			return all, err
		}
		whole, err := hear(len(sent))
		pieces, failed := hear(int(size) + 1)
		if (err == nil) != (failed == nil) {
			t.Fatalf("%v, in pieces %v", err, failed)
		}
		if err != nil {
			return
		}
		for _, model := range pieces.Models {
			if !slices.Contains(whole.Models, model) {
				t.Errorf("in pieces it names %q", model)
			}
		}
		var read struct {
			Model   string
			Setup   struct{ Model string }
			Session struct{ Model string }
			Models  []string
		}
		if json.Unmarshal(message, &read) != nil {
			return
		}
		for _, model := range append(read.Models, read.Model, read.Setup.Model, read.Session.Model) {
			if model != "" && !slices.Contains(whole.Models, wire.ModelOf(model)) {
				t.Errorf("%q is not heard, but %q", model, whole.Models)
			}
		}
	})
}
