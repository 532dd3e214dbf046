package formats_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

func events(data ...string) string { return "data: " + strings.Join(data, "\n\ndata: ") + "\n\n" }

// chunks is the stream of an InvokeModel that has these pieces of JSON.
func chunks(pieces ...string) string {
	var b bytes.Buffer
	encoder := eventstream.NewEncoder()
	for _, piece := range pieces {
		m := eventstream.Message{Payload: fmt.Appendf(nil, `{"bytes":%q}`, base64.StdEncoding.EncodeToString([]byte(piece)))}
		m.Headers.Set(":event-type", eventstream.StringValue("chunk"))
		if err := encoder.Encode(&b, m); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// TestDeviations has each provider's ways, in bodies of our own making.
func TestDeviations(t *testing.T) {
	const (
		chat             = "/v1/chat/completions"
		messages         = "/v1/messages"
		responses        = "/v1/responses"
		codeAssist       = "/v1internal:generateContent"
		codeAssistStream = "/v1internal:streamGenerateContent"
		gemini           = "/v1beta/models/gemini-2.5-flash:generateContent"
		json             = "application/json"
		sse              = "text/event-stream"
		lines            = "application/x-ndjson"
	)
	tests := []struct {
		name, path, request, contentType, response string
		want                                       string // classes of tokens and of what else is stated
		source                                     meter.Source
	}{
		{"cached and reasoning are parts", chat, `{}`, json,
			`{"usage":{"prompt_tokens":10,"completion_tokens":9,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"completion_tokens_details":{"reasoning_tokens":5}}}`,
			"cache_write=3,cached=4,input=3,output=4,reasoning=5", meter.Stated},
		{"audio", chat, `{}`, json,
			`{"usage":{"prompt_tokens":59,"completion_tokens":16,"prompt_tokens_details":{"audio_tokens":43},"completion_tokens_details":{"audio_tokens":11}}}`,
			"audio_input=43,audio_output=11,input=16,output=5", meter.Stated},
		{"xAI: reasoning outside of the completion", chat, `{}`, json,
			`{"usage":{"prompt_tokens":12,"completion_tokens":1,"total_tokens":241,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":228},"num_sources_used":2}}`,
			"cached=2,input=10,output=1,reasoning=228,web_search=2", meter.Stated},
		{"Gemini as OpenAI: thoughts in the total alone", chat, `{}`, json,
			`{"usage":{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}}`, "input=35,output=12,reasoning=62", meter.Stated},
		{"a total of nonsense", chat, `{}`, json,
			`{"usage":{"prompt_tokens":35,"completion_tokens":12,"total_tokens":1e11}}`, "input=35,output=12", meter.Stated},
		{"a total without a completion", chat, `{}`, json, `{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":35,"total_tokens":47}}`, "input=35,output=12", meter.Stated},
		{"Vercel's gateway: thoughts outside of the total", chat, `{}`, json,
			`{"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"cost":0.0000702,"completion_tokens_details":{"reasoning_tokens":25},"market_cost":0.0000702}}`, "input=9,output=2,reasoning=25", meter.Stated},
		{"Mistral: audio outside of the prompt", chat, `{}`, json,
			`{"usage":{"prompt_tokens":5,"completion_tokens":11,"total_tokens":391,"prompt_tokens_details":{"audio_tokens":375}}}`,
			"audio_input=375,input=5,output=11", meter.Stated},
		{"Azure's Grok: more cached than asked", chat, `{}`, json,
			`{"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":161}}}`, "cached=7,output=1", meter.Stated},
		{"OpenRouter: written and read overlap", chat, `{}`, json,
			`{"usage":{"prompt_tokens":2168,"completion_tokens":1,"total_tokens":2169,"prompt_tokens_details":{"cached_tokens":2161,"cache_write_tokens":2161}}}`,
			"cache_write=2161,cached=2161,input=7,output=1", meter.Stated},
		{"words of Anthropic's cache, outside of the prompt by the total", chat, `{}`, json,
			`{"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":9320,"cache_read_input_tokens":9000}}`, "cached=9000,input=300,output=20", meter.Stated},
		{"the same, and thoughts in the total alone", chat, `{}`, json,
			`{"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":10360,"cache_read_input_tokens":9000,"cache_creation_input_tokens":1000}}`, "cache_write=1000,cached=9000,input=300,output=20,reasoning=40", meter.Stated},
		{"the same, and thoughts as stated", chat, `{}`, json,
			`{"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":9360,"cache_read_input_tokens":9000,"completion_tokens_details":{"reasoning_tokens":40}}}`, "cached=9000,input=300,output=20,reasoning=40", meter.Stated},
		{"words of Anthropic's cache, inside of the prompt by the total", chat, `{}`, json,
			`{"usage":{"prompt_tokens":9300,"completion_tokens":20,"total_tokens":9320,"cache_read_input_tokens":9000}}`, "cached=9000,input=300,output=20", meter.Stated},
		{"a cache in OpenAI's words, outside of the prompt by the total", chat, `{}`, json,
			`{"usage":{"prompt_tokens":300,"completion_tokens":20,"total_tokens":9320,"prompt_tokens_details":{"cached_tokens":9000}}}`, "cached=9000,input=300,output=20", meter.Stated},
		{"Moonshot: a usage for each of two answers", chat, `{"n":2,"stream":true}`, sse,
			events(`{"choices":[{"index":0,"delta":{"content":"a"}}]}`, `{"choices":[{"index":1,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}]}`,
				`{"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}]}`, "[DONE]"), "input=9,output=12", meter.Stated},
		{"the same, whole", chat, `{"n":2}`, json,
			`{"choices":[{"index":0,"message":{"content":"a"},"usage":{"prompt_tokens":9,"completion_tokens":5}},{"index":1,"message":{"content":"b"},"usage":{"prompt_tokens":9,"completion_tokens":7}}]}`,
			"input=9,output=12", meter.Stated},
		{"LiteLLM: a class in two words is read once", chat, `{}`, json,
			`{"usage":{"prompt_tokens":9300,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":9000},"cache_read_input_tokens":9000}}`, "cached=9000,input=300,output=20", meter.Stated},
		{"Anthropic's cache beside a smaller prompt, without a total", chat, `{}`, json,
			`{"usage":{"prompt_tokens":300,"completion_tokens":20,"cache_read_input_tokens":9000}}`, "cached=9000,input=300,output=20", meter.Stated},
		{"Anthropic's words on chat's path", chat, `{}`, json,
			`{"usage":{"input_tokens":300,"output_tokens":20,"cache_read_input_tokens":100,"cache_creation":{"ephemeral_1h_input_tokens":7,"ephemeral_5m_input_tokens":5}}}`,
			"cache_write=5,cache_write_1h=7,cached=100,input=300,output=20", meter.Stated},
		{"chat's words on the path of responses", responses, `{}`, json,
			`{"usage":{"prompt_tokens":30,"completion_tokens":20,"total_tokens":50,"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":5}}}`,
			"cached=10,input=20,output=15,reasoning=5", meter.Stated},
		{"chat's words in a stream of responses", responses, `{"stream":true}`, sse,
			events(`{"type":"response.completed","response":{"usage":{"prompt_tokens":30,"completion_tokens":20}}}`), "input=30,output=20", meter.Stated},
		{"chat's words on Anthropic's path", messages, `{}`, json, `{"type":"message","usage":{"prompt_tokens":30,"completion_tokens":20}}`, "input=30,output=20", meter.Stated},
		{"Moonshot: the usage in a choice", chat, `{"stream":true}`, sse,
			events(`{"choices":[{"delta":{"content":"hello"}}]}`, `{"choices":[{"delta":{},"usage":{"prompt_tokens":30,"completion_tokens":20,"total_tokens":50,"cached_tokens":10}}]}`, "[DONE]"),
			"cached=10,input=20,output=20", meter.Stated},
		{"OpenRouter: what was written overlaps in part", chat, `{}`, json,
			`{"usage":{"prompt_tokens":100,"completion_tokens":1,"total_tokens":101,"prompt_tokens_details":{"cached_tokens":80,"cache_write_tokens":60}}}`,
			"cache_write=60,cached=80,input=20,output=1", meter.Stated},
		{"the parts of a cache write without their sum", messages, `{}`, json,
			`{"type":"message","usage":{"input_tokens":4,"output_tokens":3,"cache_creation":{"ephemeral_1h_input_tokens":7,"ephemeral_5m_input_tokens":5}}}`,
			"cache_write=5,cache_write_1h=7,input=4,output=3", meter.Stated},
		{"a refusal without output is free", messages, `{}`, json,
			`{"type":"message","content":[],"stop_reason":"refusal","usage":{"input_tokens":412,"output_tokens":0,"cache_read_input_tokens":50}}`, "", meter.Stated},
		{"a refusal without output is free, streamed", messages, `{"stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":412,"output_tokens":1}}}`,
				`{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":0}}`, `{"type":"message_stop"}`), "", meter.Stated},
		{"a refusal after some output", messages, `{}`, json,
			`{"type":"message","content":[],"stop_reason":"refusal","usage":{"input_tokens":412,"output_tokens":7}}`, "input=412,output=7", meter.Stated},
		{"a refusal on Vertex AI", "/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict", `{}`, json,
			`{"type":"message","content":[],"stop_reason":"refusal","usage":{"input_tokens":412,"output_tokens":0}}`, "input=412", meter.Stated},
		{"an attempt that was declined before the fallback", messages, `{}`, json,
			`{"type":"message","model":"b","stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":3,"iterations":[{"type":"message","model":"a","input_tokens":9,"output_tokens":0},{"type":"fallback_message","model":"b","input_tokens":9,"output_tokens":3}]}}`,
			"input=9,output=3", meter.Stated},
		{"an attempt that was declined after some output", messages, `{}`, json,
			`{"type":"message","model":"b","stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":3,"iterations":[{"type":"message","model":"a","input_tokens":9,"output_tokens":2},{"type":"fallback_message","model":"b","input_tokens":9,"output_tokens":3}]}}`,
			"input=18,output=5", meter.Stated},
		{"all attempts were declined", messages, `{}`, json,
			`{"type":"message","model":"b","stop_reason":"refusal","usage":{"input_tokens":9,"output_tokens":0,"iterations":[{"type":"message","model":"a","input_tokens":9,"output_tokens":0},{"type":"fallback_message","model":"b","input_tokens":9,"output_tokens":0}]}}`,
			"", meter.Stated},
		{"a delta whose input side is all zero", messages, `{"stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":12,"cache_read_input_tokens":30,"output_tokens":1}}}`,
				`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":7}}`, `{"type":"message_stop"}`),
			"cached=30,input=12,output=7", meter.Stated},
		{"a delta whose input side is zero in part", messages, `{"stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}`,
				`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"cache_read_input_tokens":12,"output_tokens":7}}`, `{"type":"message_stop"}`),
			"cached=12,output=7", meter.Stated},
		{"Bedrock: OpenAI's models count the cache in the input", "/model/openai.gpt-5/converse", `{}`, json,
			`{"usage":{"inputTokens":4995,"outputTokens":19,"cacheWriteInputTokens":4993,"totalTokens":10007}}`, "cache_write=4993,input=2,output=19", meter.Stated},
		{"Bedrock: OpenAI's models where they don't", "/model/openai.gpt-5/converse", `{}`, json,
			`{"usage":{"inputTokens":2,"outputTokens":19,"cacheWriteInputTokens":4993,"totalTokens":5014}}`, "cache_write=4993,input=2,output=19", meter.Stated},
		{"Bedrock: the last metrics know no input", "/model/meta.llama/invoke-with-response-stream", `{}`, "application/vnd.amazon.eventstream",
			chunks(`{"generation":"a","prompt_token_count":9,"generation_token_count":1}`, `{"generation":"","generation_token_count":2,"amazon-bedrock-invocationMetrics":{"inputTokenCount":0,"outputTokenCount":3}}`), "input=9,output=3", meter.Stated},
		{"Gemini 2: grounding by the prompt", gemini, `{}`, json,
			`{"modelVersion":"gemini-2.5-flash","candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a","b"]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}`,
			"input=3,output=1,web_search=1", meter.Stated},
		{"Gemini 3: grounding by the query, once each", gemini, `{}`, json,
			`{"modelVersion":"gemini-3-flash","candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["","a","b"," ","a"]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}`,
			"input=3,output=1,web_search=2", meter.Stated},
		{"Gemini 3: grounding, streamed and repeated", "/v1beta/models/gemini-3-pro:streamGenerateContent", `{}`, sse,
			events(`{"candidates":[{"groundingMetadata":{"webSearchQueries":["a"]}}]}`, `{"candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a","b"]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}`),
			"input=3,output=1,web_search=2", meter.Stated},
		{"Gemini: only what the search found", gemini, `{}`, json,
			`{"candidates":[{"groundingMetadata":{"groundingChunks":[{"web":{"uri":"u"}},{"web":{"uri":"v"}},{"maps":{"uri":"w"}}]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}`,
			"input=3,maps_search=1,output=1,web_search=1", meter.Stated},
		{"interactions: searches", "/v1beta/interactions", `{"model":"gemini-3-pro"}`, json,
			`{"model":"gemini-3-pro","outputs":[{"type":"google_search_call","arguments":{"queries":["a","b"]}}],"usage":{"total_input_tokens":3,"total_output_tokens":1}}`,
			"input=3,output=1,web_search=2", meter.Stated},
		{"interactions: searches, streamed", "/v1beta/interactions", `{"model":"gemini-3-pro","stream":true}`, sse,
			events(`{"event_type":"content.delta","delta":{"type":"google_search_call","arguments":{"queries":["a"]}}}`) + "event: interaction.completed\n" +
				events(`{"event_type":"interaction.completed","interaction":{"model":"gemini-3-pro","usage":{"total_input_tokens":3,"total_output_tokens":1}}}`),
			"input=3,output=1,web_search=1", meter.Stated},
		{"OpenAI: a model that always searches", chat, `{"model":"gpt-4o-search-preview"}`, json,
			`{"model":"gpt-4o-search-preview-2025-03-11","usage":{"prompt_tokens":3,"completion_tokens":1}}`, "input=3,output=1,web_search=1", meter.Stated},
		{"Perplexity's deep research", chat, `{}`, json,
			`{"usage":{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,"num_search_queries":18,"reasoning_tokens":739}}`,
			"citation=20016,input=33,output=7163,reasoning=739,web_search=18", meter.Stated},
		{"responses: search in files, and code", responses, `{}`, json,
			`{"output":[{"type":"file_search_call"},{"type":"file_search_call"},{"type":"code_interpreter_call","container_id":"c"},{"type":"code_interpreter_call","container_id":"c"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
			"code_session=1,file_search=2,input=1,output=1", meter.Stated},
		{"responses: search in files, and code, streamed", responses, `{"stream":true}`, sse,
			events(`{"type":"response.completed","response":{"output":[{"type":"file_search_call"},{"type":"code_interpreter_call","container_id":"c"},{"type":"code_interpreter_call","container_id":"d"}],"usage":{"input_tokens":1,"output_tokens":1}}}`),
			"code_session=2,file_search=1,input=1,output=1", meter.Stated},
		{"responses: code in a large container", responses, `{"tools":[{"type":"code_interpreter","container":{"type":"auto","memory_limit":"4g"}}]}`, json,
			`{"output":[{"type":"code_interpreter_call","container_id":"c"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
			"code_session=4,input=1,output=1", meter.Stated},
		{"xAI: tools as stated", responses, `{}`, json,
			`{"output":[],"usage":{"input_tokens":1,"output_tokens":1,"server_side_tool_usage_details":{"file_search_calls":2,"document_search_calls":1,"code_interpreter_calls":4}}}`,
			"code_session=4,file_search=3,input=1,output=1", meter.Stated},
		{"DeepSeek: both ways to say cached", chat, `{}`, json,
			`{"usage":{"prompt_tokens":563,"completion_tokens":1,"prompt_cache_hit_tokens":512,"prompt_tokens_details":{"cached_tokens":512}}}`,
			"cached=512,input=51,output=1", meter.Stated},
		{"Groq: the same usage twice", chat, `{"stream":true}`, sse,
			events(`{"choices":[{"delta":{}}],"usage":{"prompt_tokens":5,"completion_tokens":2},"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":2}}}`, "[DONE]"),
			"input=5,output=2", meter.Stated},
		{"Groq: an old stream", chat, `{"stream":true}`, sse,
			events(`{"choices":[{"delta":{}}],"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":2}}}`, "[DONE]"), "input=5,output=2", meter.Stated},
		{"Groq: an error and nothing else", chat, `{"stream":true,"messages":[{"role":"user","content":"hello"}]}`, sse,
			"event: error\n" + events(`{"error":{"message":"tool use failed, and a long text","status_code":400}}`), "", meter.Stated},
		{"an error after some text", chat, `{"model":"gpt-4o","stream":true}`, sse,
			events(`{"choices":[{"delta":{"content":"Hello there"}}]}`, `{"error":{"message":"overloaded, and a long text"},"choices":[]}`, "[DONE]"),
			"input=3,output=2", meter.Estimated},
		{"an error in a word", chat, `{"messages":[{"role":"user","content":"hello"}]}`, json, `{"error":"overloaded"}`, "", meter.Stated},
		{"an error of nothing", chat, `{"model":"gpt-4o"}`, json, `{"error":{ },"choices":[{"message":{"content":"hello"}}]}`, "input=3,output=1", meter.Estimated},
		{"running usage: the last one holds", chat, `{"stream":true}`, sse,
			events(`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`,
				`{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}`),
			"input=5,output=2", meter.Stated},
		{"a usage before the text that it has", chat, `{"model":"gpt-4o","stream":true}`, sse,
			events(`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}`, `{"choices":[{"delta":{"content":"hello there"}}],"usage":null}`, "[DONE]"), "input=5,output=2", meter.Stated},
		{"a usage that says nothing", chat, `{"model":"gpt-4o","stream":true}`, sse,
			events(`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}`, `{"choices":[],"usage":{}}`, `{"choices":[],"usage":{"prompt_tokens":null}}`, "[DONE]"), "input=5,output=2", meter.Stated},
		{"no usage", chat, `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hi"}]}`, sse,
			events(`{"choices":[{"delta":{"role":"assistant","content":"Hello"},"index":0}]}`, `{"choices":[{"delta":{"content":" world"},"index":0}]}`, "[DONE]"),
			"input=8,output=2", meter.Estimated},
		{"choices take turns", chat, `{"model":"gpt-4o","stream":true,"n":2,"stream_options":{"include_usage":false}}`, sse,
			events(`{"choices":[{"delta":{"content":"hel"},"index":0}]}`, `{"choices":[{"delta":{"content":"lo"},"index":1}]}`, "[DONE]"),
			"input=3,output=2", meter.Estimated},
		{"a tool call, thinking, a refusal", chat, `{"model":"gpt-4o"}`, json,
			`{"choices":[{"message":{"content":null,"refusal":"No","reasoning_content":"hm","tool_calls":[{"function":{"name":"look","arguments":"{}"}}]}}]}`,
			"input=3,output=11,reasoning=1", meter.Estimated}, // a call has 8 tokens beside its text
		{"a usage of zero", chat, `{"model":"gpt-4o"}`, json, `{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":0,"completion_tokens":0}}`, "", meter.Stated},
		{"absurd", chat, `{}`, json, `{"usage":{"prompt_tokens":-5,"completion_tokens":"NaN","prompt_tokens_details":[7],"completion_tokens_details":{"reasoning_tokens":1e99}}}`, "", meter.Stated},
		{"Perplexity: no terminal event", chat, `{"stream":true}`, sse,
			events(`{"choices":[{"delta":{"content":"a"},"message":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`), "input=5,output=1", meter.Stated},
		{"Mistral's thinking", chat, `{"model":"gpt-4o","stream":true,"messages":[]}`, sse,
			events(`{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes"}]}}]}`, "[DONE]"),
			"input=3,output=1,reasoning=1", meter.Estimated},
		{"by the shape of the body", "/v1/chat", `{"model":"palmyra","messages":[{"role":"user","content":"x"}]}`, json,
			`{"choices":[{}],"usage":{"prompt_tokens":4,"completion_tokens":3}}`, "input=4,output=3", meter.Stated},
		{"Databricks: the path names the model", "/serving-endpoints/llama/invocations", `{"messages":[{"role":"user","content":"x"}]}`, json,
			`{"object":"chat.completion","choices":[{}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}`, "input=4,output=3", meter.Stated},
		{"Cloudflare: within a result", "/client/v4/accounts/a/ai/run/@cf/meta/llama", `{"messages":[{"role":"user","content":"x"}]}`, json,
			`{"result":{"response":"hi","usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}},"success":true}`, "input=4,output=3", meter.Stated},
		{"a stream that is called JSON", chat, `{"stream":true}`, json, "\r\n" + events(`{"choices":[{"delta":{"content":"a"}}]}`, `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}`, "[DONE]"),
			"input=5,output=2", meter.Stated},
		{"a byte order mark", chat, `{}`, json, "\xEF\xBB\xBF" + `{"usage":{"prompt_tokens":5,"completion_tokens":2}}`, "input=5,output=2", meter.Stated},
		{"JSON that is called HTML", chat, `{}`, "text/html", `{"usage":{"prompt_tokens":5,"completion_tokens":2}}`, "input=5,output=2", meter.Stated},
		{"xAI: images are a part", chat, `{}`, json, `{"usage":{"prompt_tokens":300,"completion_tokens":1,"total_tokens":301,"prompt_tokens_details":{"text_tokens":44,"image_tokens":256}}}`,
			"image_input=256,input=44,output=1", meter.Stated},

		{"responses: the usage in the last event", responses, `{"stream":true}`, sse,
			"event: response.created\n" + events(`{"type":"response.created","response":{"usage":null}}`, `{"type":"response.output_text.delta","delta":"hello"}`) +
				"event: response.completed\n" + events(`{"type":"response.completed","response":{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":17}}}`),
			"cached=4,input=6,output=2,reasoning=5", meter.Stated},
		{"responses: failed", responses, `{"stream":true}`, sse,
			"event: error\n" + events(`{"type":"error","message":"no"}`, `{"type":"response.failed","response":{"usage":null}}`), "", meter.Stated},
		{"responses: searches", responses, `{}`, json,
			`{"output":[{"type":"web_search_call","action":{"type":"search"}},{"type":"web_search_call","action":{"type":"open_page"}},{"type":"message"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
			"input=1,output=1,web_search=1", meter.Stated},
		{"responses: searches as stated", responses, `{}`, json,
			`{"output":[{"type":"web_search_call"}],"tool_usage":{"web_search":{"num_requests":3}},"usage":{"input_tokens":1,"output_tokens":1}}`,
			"input=1,output=1,web_search=3", meter.Stated},
		{"responses: searches as xAI states them", responses, `{}`, json,
			`{"output":[{"type":"web_search_call","action":{"type":"search"}}],"usage":{"input_tokens":1,"output_tokens":1,"server_side_tool_usage_details":{"web_search_calls":2,"x_search_calls":1,"mcp_calls":4}}}`,
			"input=1,output=1,web_search=3", meter.Stated},
		{"responses: cut audio is sound, and no text", responses, `{"model":"gpt-4o","stream":true}`, sse,
			events(`{"type":"response.output_audio.delta","delta":"QUJDQUJDQUJDQUJD"}`), "audio_output=1,input=3", meter.Estimated},
		{"chat: cut audio is sound", "/v1/chat/completions", `{"model":"gpt-4o","stream":true,"messages":[]}`, sse,
			events(`{"choices":[{"index":0,"delta":{"audio":{"id":"a","data":"` + strings.Repeat("AAAA", 8000) + `"}}}]}`), "audio_output=10,input=3", meter.Estimated},
		{"assistants: the run has what its steps have", "/v1/threads/thread_1/runs", `{"assistant_id":"a","stream":true}`, sse,
			"event: thread.run.step.completed\n" + events(`{"object":"thread.run.step","usage":{"prompt_tokens":3,"completion_tokens":1}}`) +
				"event: thread.run.step.completed\n" + events(`{"object":"thread.run.step","usage":{"prompt_tokens":4,"completion_tokens":2}}`) +
				"event: thread.run.completed\n" + events(`{"object":"thread.run","model":"gpt-4o","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}`) + "event: done\n" + events("[DONE]"),
			"input=7,output=3", meter.Stated},
		{"Mistral's conversations: what tools bring in is input", "/v1/conversations", `{"inputs":"x"}`, json,
			`{"object":"conversation.response","outputs":[{"type":"message.output","content":"hi"}],"usage":{"prompt_tokens":18,"completion_tokens":5,"total_tokens":123,"connector_tokens":100,"connectors":{"web_search":1}}}`,
			"input=118,output=5,web_search=1", meter.Stated},
		{"Mistral's conversations: a stream", "/v1/conversations/conv_1", `{"inputs":"x","stream":true}`, sse,
			"event: message.output.delta\n" + events(`{"type":"message.output.delta","content":"hi"}`) + "event: conversation.response.done\n" + events(`{"type":"conversation.response.done","usage":{"prompt_tokens":18,"completion_tokens":5,"total_tokens":23}}`),
			"input=18,output=5", meter.Stated},
		{"embeddings", "/v1/embeddings", `{}`, json, `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`, "input=8", meter.Stated},
		{"Voyage: the total alone", "/v1/embeddings", `{}`, json, `{"data":[],"usage":{"total_tokens":8}}`, "input=8", meter.Stated},
		{"Voyage: of images too", "/v1/multimodalembeddings", `{"inputs":[]}`, json, `{"data":[],"usage":{"text_tokens":5,"image_pixels":2000000,"total_tokens":3576}}`, "input=3576", meter.Stated},
		{"embeddings without usage", "/v1/embeddings", `{"model":"text-embedding-3-small","input":["hello","world"]}`, json, `{"data":[]}`, "input=2", meter.Estimated},
		{"moderations", "/v1/moderations", `{"input":"hello"}`, json, `{"results":[{}]}`, "", meter.Stated},
		{"images", "/v1/images/generations", `{}`, json, `{"data":[{"b64_json":"x"}],"usage":{"input_tokens":22,"input_tokens_details":{"image_tokens":2,"text_tokens":20},"output_tokens":272}}`,
			"asked_image=1,image_input=2,image_output=272,input=20", meter.Stated},
		{"images as OpenRouter makes them", "/api/v1/images", `{}`, json, `{"data":[{}],"usage":{"prompt_tokens":5,"completion_tokens":1537,"total_tokens":1542,"completion_tokens_details":{"image_tokens":1120}}}`,
			"image_output=1120,input=5,output=417", meter.Stated},
		{"transcription by tokens", "/v1/audio/transcriptions", `{}`, json,
			`{"text":"x","usage":{"type":"tokens","input_tokens":37,"input_token_details":{"text_tokens":2,"audio_tokens":35},"output_tokens":145}}`, "audio_input=35,input=2,output=145", meter.Stated},
		{"transcription by time", "/v1/audio/transcriptions", `{}`, json, `{"text":"x","usage":{"type":"duration","seconds":8.25}}`, "second=8.25", meter.Stated},
		{"transcription with a duration", "/v1/audio/transcriptions", `{"model":"whisper-1"}`, json, `{"text":"","duration":8.47}`, "second=8.47", meter.Stated},
		{"transcription with a duration and a text", "/v1/stt", `{}`, json, `{"text":"hello there","duration":3.7}`, "second=3.7", meter.Stated},
		{"speech", "/v1/audio/speech", `{}`, sse, events(`{"type":"speech.audio.delta","audio":"QUJD"}`, `{"type":"speech.audio.done","usage":{"input_tokens":10,"output_tokens":82}}`, "[DONE]"),
			"audio_output=82,input=10", meter.Stated},
		{"ocr", "/v1/ocr", `{}`, json, `{"pages":[{}],"usage_info":{"pages_processed":3}}`, "page=3", meter.Stated},

		{"anthropic: the cache is outside of the input", messages, `{}`, json,
			`{"type":"message","usage":{"input_tokens":4,"cache_creation_input_tokens":30,"cache_read_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10},"output_tokens":9,"output_tokens_details":{"thinking_tokens":3},"server_tool_use":{"web_search_requests":2}}}`,
			"cache_write=20,cache_write_1h=10,cached=100,input=4,output=6,reasoning=3,web_search=2", meter.Stated},
		{"anthropic: a delta changes the input", messages, `{"stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":2039,"output_tokens":9,"cache_read_input_tokens":7}}}`, `{"type":"ping"}`,
				`{"type":"content_block_delta","delta":{"type":"text_delta","text":"hello"}}`,
				`{"type":"message_delta","usage":{"input_tokens":10423,"output_tokens":120}}`, `{"type":"message_stop"}`),
			"cached=7,input=10423,output=120", meter.Stated},
		{"anthropic: a delta without input", messages, `{"stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":20,"output_tokens":1}}}`, `{"type":"message_delta","usage":{"output_tokens":12}}`, `{"type":"message_stop"}`),
			"input=20,output=12", meter.Stated},
		{"anthropic: an error in the middle", messages, `{"model":"claude","stream":true}`, sse,
			events(`{"type":"message_start","message":{"usage":{"input_tokens":20,"output_tokens":1}}}`, `{"type":"content_block_delta","delta":{"type":"text_delta","text":"hello hello hello hello hello hello"}}`,
				`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
			"input=20,output=7", meter.Estimated},
		{"anthropic: mounted without a version", "/anthropic/messages", `{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"x"}]}`, json, `{"type":"message","usage":{"input_tokens":4,"output_tokens":3}}`,
			"input=4,output=3", meter.Stated},
		{"anthropic: passes outside of the totals", messages, `{}`, json,
			`{"type":"message","usage":{"input_tokens":612,"output_tokens":20,"iterations":[{"type":"compaction","input_tokens":60385,"output_tokens":522},{"type":"message","input_tokens":612,"output_tokens":20}]}}`,
			"input=60997,output=542", meter.Stated},

		{"gemini: thoughts outside of the candidates, tools outside of the prompt", gemini, `{}`, json,
			`{"usageMetadata":{"promptTokenCount":85,"candidatesTokenCount":122,"thoughtsTokenCount":87,"toolUsePromptTokenCount":149,"cachedContentTokenCount":5,"totalTokenCount":443,"promptTokensDetails":[{"modality":"TEXT","tokenCount":75},{"modality":"AUDIO","tokenCount":10}]}}`,
			"audio_input=10,cached=5,input=219,output=122,reasoning=87", meter.Stated},
		{"gemini: the last snapshot holds", gemini, `{}`, sse,
			"data: {\"usageMetadata\":{\"promptTokenCount\":169,\"candidatesTokenCount\":1}}\r\n\r\ndata: {\"usageMetadata\":{\"promptTokenCount\":79,\"candidatesTokenCount\":12}}\r\n\r\n",
			"input=79,output=12", meter.Stated},
		{"gemini: an array", "/v1beta/models/g:streamGenerateContent", `{}`, json, `[{"usageMetadata":{"promptTokenCount":7}}` + "\n,\r\n" + `{"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3}}]`, "input=7,output=3", meter.Stated},
		{"gemini: vertex embeddings", "/v1/projects/p/publishers/google/models/text-embedding-005:predict", `{}`, json,
			`{"predictions":[{"embeddings":{"statistics":{"token_count":3.0}}},{"embeddings":{"statistics":{"token_count":4}}}]}`, "input=7", meter.Stated},
		{"gemini: interactions", "/v1beta/interactions", `{"stream":true}`, sse,
			"event: interaction.completed\n" + events(`{"interaction":{"usage":{"total_input_tokens":7,"total_output_tokens":3,"total_thought_tokens":5,"total_cached_tokens":2,"total_tool_use_tokens":1}}}`) + "event: done\n" + events("[DONE]"),
			"cached=2,input=6,output=3,reasoning=5", meter.Stated},
		{"gemini: interactions by modality", "/v1beta/interactions", `{}`, json,
			`{"usage":{"total_input_tokens":267,"input_tokens_by_modality":[{"modality":"text","tokens":9},{"modality":"image","tokens":258}],"total_output_tokens":1130,"output_tokens_by_modality":[{"modality":"image","tokens":1120}]}}`,
			"image_input=258,image_output=1120,input=9,output=10", meter.Stated},
		{"gemini: what is nothing is left out", gemini, `{"contents":[{"parts":[{"text":"hello"}]}]}`, json, `{"candidates":[{"content":{"parts":[{"text":"hi"}]}}],"usageMetadata":{"candidatesTokenCount":18}}`, "output=18", meter.Stated},
		{"gemini: what only the total has", gemini, `{}`, json, `{"usageMetadata":{"promptTokenCount":11,"totalTokenCount":18}}`, "input=11,output=7", meter.Stated},
		{"gemini: a total of the prompt alone", gemini, `{}`, json, `{"candidates":[{"content":{"parts":[{"text":"hello"}]}}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8}}`, "input=8", meter.Stated},
		{"gemini: a prompt that is blocked", gemini, `{"contents":[{"parts":[{"text":"hello"}]}]}`, json, `{"promptFeedback":{"blockReason":"MODEL_ARMOR"},"usageMetadata":{"trafficType":"ON_DEMAND"}}`, "", meter.Stated},
		{"gemini: Code Assist", codeAssist, `{"model":"gemini-2.5-pro","project":"p","request":{"contents":[]}}`, json,
			`{"response":{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7,"thoughtsTokenCount":3,"totalTokenCount":15},"modelVersion":"gemini-2.5-pro"},"traceId":"t"}`,
			"input=5,output=7,reasoning=3", meter.Stated},
		{"gemini: Code Assist, streamed", codeAssistStream, `{"model":"gemini-2.5-pro","request":{"contents":[]}}`, sse, events(
			`{"response":{"candidates":[{"content":{"parts":[{"text":"h"}]}}],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":5}},"traceId":"t"}`,
			`{"response":{"candidates":[{"content":{"parts":[{"text":"i"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}},"traceId":"t"}`),
			"input=5,output=2", meter.Stated},
		{"gemini: Code Assist, an array", codeAssistStream, `{"model":"gemini-2.5-pro","request":{"contents":[]}}`, json,
			`[{"response":{"usageMetadata":{"promptTokenCount":5}}},{"response":{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}}]`, "input=5,output=2", meter.Stated},
		{"gemini: Code Assist, grounding by the query", codeAssist, `{"model":"gemini-3-pro","request":{"contents":[]}}`, json,
			`{"response":{"modelVersion":"gemini-3-pro","candidates":[{"groundingMetadata":{"webSearchQueries":["a","b"]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}}}`,
			"input=3,output=1,web_search=2", meter.Stated},
		{"gemini: Code Assist, a prompt that is blocked", codeAssist, `{"model":"gemini-2.5-pro","request":{"contents":[{"parts":[{"text":"hello"}]}]}}`, json,
			`{"response":{"promptFeedback":{"blockReason":"SAFETY"}}}`, "", meter.Stated},
		{"gemini: in a wrapper at any path", gemini, `{}`, json, `{"response":{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}}`, "input=5,output=7", meter.Stated},
		{"Bedrock: images of Amazon's", "/model/amazon.nova-canvas-v1:0/invoke", `{"textToImageParams":{"text":"x"}}`, json, `{"images":["aaaa","bbbb"],"error":null}`, "asked_image=2", meter.Stated},
		{"Bedrock: an image of Stability's", "/model/stability.sd3-5-large-v1:0/invoke", `{"prompt":"x"}`, json, `{"seeds":[1],"finish_reasons":[null],"images":["aaaa"]}`, "asked_image=1", meter.Stated},
		{"Bedrock: images of Stable Diffusion XL", "/model/stability.stable-diffusion-xl-v1/invoke", `{"text_prompts":[{"text":"x"}]}`, json, `{"result":"success","artifacts":[{"seed":1,"base64":"aaaa","finishReason":"SUCCESS"}]}`, "asked_image=1", meter.Stated},
		{"vertex serves Claude", "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4@20250514:rawPredict", `{"max_tokens":5}`, json,
			`{"type":"message","usage":{"input_tokens":4,"output_tokens":3}}`, "input=4,output=3", meter.Stated},
		{"vertex counts for Claude", "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", `{"model":"claude-sonnet-4","messages":[{"role":"user","content":"hello"}]}`, json, `{"input_tokens":14}`, "", meter.Stated},

		{"bedrock: the cache is outside of the input", "/model/amazon.nova-lite-v1:0/converse", `{}`, json,
			`{"usage":{"inputTokens":11,"outputTokens":264,"cacheReadInputTokens":5,"cacheWriteInputTokens":1028,"totalTokens":1308}}`, "cache_write=1028,cached=5,input=11,output=264", meter.Stated},
		{"bedrock: unless the total says otherwise", "/model/openai.gpt-oss-120b-1:0/converse", `{}`, json,
			`{"usage":{"inputTokens":110,"outputTokens":20,"cacheReadInputTokens":100,"totalTokens":130}}`, "cached=100,input=10,output=20", meter.Stated},
		{"bedrock: Llama", "/model/meta.llama3/invoke", `{}`, json, `{"generation":"hi","prompt_token_count":5,"generation_token_count":2}`, "input=5,output=2", meter.Stated},
		{"bedrock: Titan", "/model/amazon.titan/invoke", `{}`, json, `{"inputTextTokenCount":5,"results":[{"tokenCount":32,"outputText":"x"}]}`, "input=5,output=32", meter.Stated},
		{"bedrock: Nova's own words for a cache", "/model/amazon.nova-lite-v1:0/invoke", `{}`, json,
			`{"usage":{"inputTokens":11,"outputTokens":26,"totalTokens":1070,"cacheReadInputTokenCount":5,"cacheWriteInputTokenCount":1028}}`, "cache_write=1028,cached=5,input=11,output=26", meter.Stated},
		{"bedrock: Titan, streamed and without metrics", "/model/amazon.titan/invoke-with-response-stream", `{}`, "application/vnd.amazon.eventstream",
			chunks(`{"outputText":"no","inputTextTokenCount":6,"totalOutputTextTokenCount":3}`), "input=6,output=3", meter.Stated},
		{"bedrock: Llama, streamed and without metrics", "/model/meta.llama3/invoke-with-response-stream", `{}`, "",
			chunks(`{"generation":"a","prompt_token_count":5,"generation_token_count":1}`, `{"generation":"b","prompt_token_count":null,"generation_token_count":2}`), "input=5,output=2", meter.Stated},

		{"cohere: billed units", "/v2/chat", `{}`, json, `{"usage":{"billed_units":{"input_tokens":51,"output_tokens":66},"tokens":{"input_tokens":267,"output_tokens":91},"cached_tokens":144}}`, "input=51,output=66", meter.Stated},
		{"cohere: a stream of version 2", "/v2/chat", `{"stream":true}`, sse, events(`{"type":"content-delta","delta":{"message":{"content":{"text":"hi"}}}}`, `{"type":"message-end","delta":{"usage":{"billed_units":{"input_tokens":5,"output_tokens":1}}}}`, "[DONE]"), "input=5,output=1", meter.Stated},
		{"cohere: a stream of version 1", "/v1/chat", `{"message":"x","stream":true}`, "application/stream+json",
			`{"event_type":"text-generation","text":"hi"}` + "\n" + `{"event_type":"stream-end","response":{"text":"hi","meta":{"billed_units":{"input_tokens":5,"output_tokens":1}}}}` + "\n", "input=5,output=1", meter.Stated},
		{"cohere: a stream of version 1 that is called JSON", "/v1/chat", `{"message":"x","stream":true}`, json,
			`{"event_type":"text-generation","text":"hi"}` + "\n" + `{"event_type":"stream-end","response":{"text":"hi","meta":{"billed_units":{"input_tokens":5,"output_tokens":1}}}}` + "\n", "input=5,output=1", meter.Stated},
		{"Pinecone: embeddings", "/embed", `{"inputs":[{"text":"x"}]}`, json, `{"data":[],"usage":{"total_tokens":11}}`, "input=11", meter.Stated},
		{"rerank", "/v2/rerank", `{}`, json, `{"results":[],"meta":{"billed_units":{"search_units":2}}}`, "search_unit=2", meter.Stated},
		{"rerank by tokens", "/v1/rerank", `{}`, json, `{"results":[],"usage":{"total_tokens":17}}`, "input=17", meter.Stated},

		{"ollama", "/api/chat", `{"messages":[]}`, lines, `{"message":{"content":"hi"},"done":false}` + "\n" + `{"done":true,"prompt_eval_count":17,"eval_count":50}` + "\n", "input=17,output=50", meter.Stated},
		{"ollama: the prompt was in the cache", "/api/generate", `{"stream":false}`, json, `{"response":"hi","done":true,"eval_count":38}`, "output=38", meter.Stated},
		{"ollama: a model is loaded", "/api/chat", `{"model":"m","messages":[]}`, json, `{"message":{"content":""},"done":true,"done_reason":"load"}`, "", meter.Stated},
		{"ollama: an error in the middle", "/api/generate", `{"model":"m","prompt":""}`, lines, `{"response":"hello"}` + "\n" + `{"error":"an error was encountered while running the model"}` + "\n", "input=4,output=1", meter.Estimated},

		{"mcp: a tool", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"jsonrpc":"2.0","id":1,"result":{"content":[]}}`, "tool_call=1", meter.Stated},
		{"mcp: after a notification", "/mcp", `{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"look"}}`, sse,
			events(`{"jsonrpc":"2.0","method":"notifications/message","params":{}}`, `{"jsonrpc":"2.0","id":"a","result":{}}`), "tool_call=1", meter.Stated},
		{"mcp: isError", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":1,"result":{"isError":true}}`, "", meter.Stated},
		{"mcp: an error", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":1,"error":{"code":-1}}`, "", meter.Stated},
		{"mcp: a question", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":1,"result":{"resultType":"input_required","inputRequests":{}}}`, "", meter.Stated},
		{"mcp: no question", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":1,"result":{"resultType":"complete","content":[]}}`, "tool_call=1", meter.Stated},
		{"mcp: no error", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":1,"error":null,"result":{}}`, "tool_call=1", meter.Stated},
		{"mcp: an id as the server writes it", "/mcp", `{"jsonrpc":"2.0","id":-0,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":0,"result":{}}`, "tool_call=1", meter.Stated},
		{"mcp: another id", "/mcp", `{"jsonrpc":"2.0","id":"a\u200b","method":"tools/call","params":{"name":"look"}}`, json, `{"id":"a","result":{}}`, "tool_call=1", meter.Stated},
		{"mcp: no id", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, json, `{"id":null,"result":{}}`, "tool_call=1", meter.Stated},
		{"mcp: an error with another id", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, sse, events(`{"id":null,"error":{"code":-1}}`, `{"id":1,"result":{}}`), "tool_call=1", meter.Stated},
		{"mcp: the answer to what is no tool", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a"}}]`, json,
			`[{"id":1,"result":{}},{"id":2,"error":{"code":-1}}]`, "", meter.Stated},
		{"mcp: an answer twice", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, sse, events(`{"id":1,"result":{}}`, `{"id":1,"result":{}}`), "tool_call=1", meter.Stated},
		{"mcp: a batch", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`, json,
			`[{"id":2,"result":{}},{"id":1,"result":{"isError":true}}]`, "tool_call=1", meter.Stated},
		{"mcp: a batch with other ids", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`, json,
			`[{"id":"x","result":{}},{"id":"y","result":{}},{"id":"y","result":{}},{"id":"z","result":{}}]`, "tool_call=2", meter.Stated},
		{"mcp: a batch with one other id, and then its own", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`, json,
			`[{"id":"x","result":{}},{"id":1,"result":{}},{"id":2,"result":{}}]`, "tool_call=2", meter.Stated},
		{"mcp: a batch with other ids, one failed", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`, json,
			`[{"id":"x","result":{"isError":true}},{"id":"y","result":{}}]`, "tool_call=1", meter.Stated},
		{"mcp: a batch in an event", "/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`, sse,
			events(`[{"id":2,"result":{}},{"id":1,"result":{}}]`), "tool_call=2", meter.Stated},
		{"mcp: no tool", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, json, `{"id":1,"result":{}}`, "", meter.Stated},

		{"watsonx: the prompt in the first event", "/ml/v1/text/generation_stream", `{"model_id":"m","input":"x"}`, sse,
			events(`{"results":[{"generated_text":"","generated_token_count":0,"input_token_count":8}]}`, `{"results":[{"generated_text":"the","generated_token_count":1,"input_token_count":0}]}`,
				`{"results":[{"generated_text":" sky","generated_token_count":2,"input_token_count":0}]}`), "input=8,output=2", meter.Stated},
		{"watsonx: embeddings", "/ml/v1/text/embeddings", `{"model_id":"m","inputs":["x"]}`, json, `{"results":[{"embedding":[1]}],"input_token_count":11}`, "input=11", meter.Stated},
		{"llama.cpp", "/completion", `{"prompt":"x"}`, json, `{"content":"hi","tokens_evaluated":11,"tokens_predicted":7}`, "input=11,output=7", meter.Stated},
		{"Aleph Alpha", "/complete", `{"prompt":[{"type":"text","data":"x"}]}`, json, `{"completions":[{"completion":"hi"}],"num_tokens_prompt_total":11,"num_tokens_generated":7}`, "input=11,output=7", meter.Stated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			call, err := post(tt.path, tt.request)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, 1 << 20} {
				c := call.Counter(200, http.Header{"Content-Type": {tt.contentType}})
				run(c, []byte(tt.response), size)
				u := c.Usage(true)
				for _, class := range []meter.Class{meter.Byte, meter.Event, meter.Calls} {
					delete(u.Units, class)
				}
				if got := u.Units.String(); got != tt.want || u.Source != tt.source {
					t.Errorf("counted %s, %s; want %s, %s", got, u.Source, tt.want, tt.source)
				}
			}
		})
	}
}

func TestUsageFields(t *testing.T) {
	usage := func(path, request, contentType, response string, h ...string) meter.Usage {
		call, err := post(path, request)
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{"Content-Type": {contentType}}
		for i := 0; i < len(h); i += 2 {
			header.Set(h[i], h[i+1])
		}
		c := call.Counter(200, header)
		run(c, []byte(response), 5)
		return c.Usage(true)
	}
	u := usage("/v1/chat/completions", `{}`, "application/json", `{"model":"gpt-x","service_tier":"flex","usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.00123}}`)
	if u.Model != "gpt-x" || u.ServiceTier != "flex" || u.Cost != "0.00123" || u.PromptTokens != 1 {
		t.Errorf("got %+v", u)
	}
	if u = usage("/v1/chat/completions", `{}`, "application/json", `{"usage":{"prompt_tokens":1,"cost_in_usd_ticks":1176500}}`); u.Cost != "0.0001176500" {
		t.Errorf("a cost of %q", u.Cost)
	}
	if u = usage("/v1/chat/completions", `{}`, "application/json", `{"usage":{"prompt_tokens":1,"cost":{"total_cost":0.00619}}}`); u.Cost != "0.00619" {
		t.Errorf("a cost of %q", u.Cost)
	}
	u = usage("/v1/messages", `{}`, "application/json", `{"type":"message","model":"claude-sonnet","usage":{"input_tokens":4,"output_tokens":3,"service_tier":"priority","iterations":[{"type":"message","input_tokens":4,"output_tokens":3},{"type":"advisor_message","model":"claude-opus","input_tokens":10,"output_tokens":20}]}}`)
	if len(u.Passes) != 1 || u.Passes[0].Model != "claude-opus" || u.Passes[0].Units.String() != "input=10,output=20" || u.Units[meter.Input] != meter.Whole(14) || u.ServiceTier != "priority" {
		t.Errorf("got %+v", u)
	}
	u = usage("/v1beta/models/g:generateContent", `{}`, "application/json", `{"modelVersion":"g-1","usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1,"trafficType":"ON_DEMAND_FLEX"}}`)
	if u.Model != "g-1" || u.ServiceTier != "flex" {
		t.Errorf("got %+v", u)
	}
	u = usage("/model/x.y/invoke", `{}`, "application/json", `{"anything":1}`, "X-Amzn-Bedrock-Input-Token-Count", "4", "X-Amzn-Bedrock-Output-Token-Count", "50", "X-Amzn-Bedrock-Cache-Read-Input-Token-Count", "18131")
	if u.Units.String() != "byte=14,cached=18131,call=1,input=4,output=50" || u.PromptTokens != 18135 {
		t.Errorf("got %+v", u)
	}
	u = usage("/model/amazon.nova/invoke", `{}`, "application/json", `{"usage":{"inputTokens":30}}`, "X-Amzn-Bedrock-Input-Token-Count", "30", "X-Amzn-Bedrock-Output-Token-Count", "51")
	if u.Units.String() != "byte=28,call=1,input=30,output=51" { // a guardrail has changed the body
		t.Errorf("got %+v", u)
	}
	for _, response := range []string{`{"usage":{"prompt_tokens":1,"service_tier":"batch"}}`, `{"service_tier":"batch","usage":{"service_tier":"auto"}}`} {
		if u = usage("/v1/chat/completions", `{}`, "application/json", response); u.ServiceTier != "batch" {
			t.Errorf("%s: tier %q", response, u.ServiceTier)
		}
	}
	for _, test := range []struct{ fields, tier string }{
		{`"service_tier":"standard","inference_geo":"not_available"`, "standard"}, {`"speed":"fast"`, "fast"}, {`"inference_geo":"us"`, "us"},
		{`"service_tier":"standard","speed":"fast","inference_geo":"us"`, "fast+us"}, {`"service_tier":"priority","speed":"standard","inference_geo":"global"`, "priority"},
	} {
		u = usage("/v1/messages", `{}`, "application/json", `{"type":"message","usage":{"input_tokens":1,"output_tokens":1,`+test.fields+`}}`)
		if u.ServiceTier != test.tier {
			t.Errorf("%s: tier %q", test.fields, u.ServiceTier)
		}
	}
	u = usage("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, "application/json", `{"id":1,"result":{"isError":true}}`)
	if u.ToolsFailed["look"] != 1 || len(u.Tools) != 0 {
		t.Errorf("got %+v", u)
	}
}

// TestTheModelThatAnswers: where the path names it, the body does not, whatever it says; and nothing hides it in a form.
func TestTheModelThatAnswers(t *testing.T) {
	for _, tt := range []struct{ path, body, want string }{
		{"/openai/deployments/dear/chat/completions", `{"model":"cheap","messages":[{"role":"user"}]}`, "dear"},
		{"/openai/deployments/dear/images/generations", `{"model":"cheap"}`, "dear"},
		{"/v1/projects/p/locations/l/publishers/anthropic/models/dear:rawPredict", `{"model":"cheap"}`, "dear"},
		{"/openai/deployments/Dear/chat/completions", `{}`, "Dear"},
		{"/model/dear/invoke", `{"model":"cheap"}`, "dear"},
		{"/serving-endpoints/dear/invocations", `{"messages":[{"role":"user"}]}`, "dear"},
		{"/ai/run/@cf/Dear/model", `{"model":"cheap","messages":[{"role":"user"}]}`, "@cf/Dear/model"},
		{"/ml/v1/text/chat", `{"model_id":"dear","messages":[{"role":"user"}]}`, "dear"},
		{"/model/İİİİİİİİİİ/invoke", `{}`, "İİİİİİİİİİ"}, // in lower case it is longer
		{"/v1beta/models/dear:generateContent", `{"model":"cheap"}`, "dear"},
		{"/v1/chat/completions", `{"mod\u0065l":"dear"}`, "dear"},
	} {
		if c, err := post(tt.path, tt.body); err != nil || c.Model != tt.want {
			t.Errorf("%s: model %q, %v; want %q", tt.path, c.Model, err, tt.want)
		}
	}
	form := strings.Repeat("--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n", 100) +
		"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ndear\r\n--b--\r\n"
	head := meter.Head{Method: "POST", Path: "/v1/audio/transcriptions", Header: http.Header{"Content-Type": {"multipart/form-data; boundary=b"}}}
	if c, err := formats.Inspect(head, []byte(form)); err != nil || c.Model != "dear" {
		t.Errorf("a form: model %q, %v", c.Model, err)
	}
}

// TestToolCallsAreToldApart: each has an id by which its answer is known, however a server writes it.
func TestToolCallsAreToldApart(t *testing.T) {
	call := func(id string) string {
		return `{"jsonrpc":"2.0",` + id + `"method":"tools/call","params":{"name":"look"}}`
	}
	for name, body := range map[string]string{
		"without an id": call(""), "null": call(`"id":null,`), "a list": call(`"id":[1],`), "endless": call(`"id":1e999,`),
		"twice":                  "[" + call(`"id":1,`) + "," + call(`"id":1.0,`) + "]",
		"as a number and a text": "[" + call(`"id":1,`) + "," + call(`"id":"1",`) + "]",
	} {
		if c, err := post("/mcp", body); err == nil {
			t.Errorf("%s: taken, free %v", name, c.Free)
		}
	}
	for _, ids := range [][2]string{{"1.0", "1"}, {`"\u0061"`, `"a"`}, {"1e2", "100"}, {"9007199254740993", "9007199254740992"}, {`"1"`, "1"}} {
		c, err := post("/mcp", call(`"id":`+ids[0]+","))
		if err != nil {
			t.Fatal(err)
		}
		r := c.Counter(200, http.Header{"Content-Type": {"application/json"}})
		r.Feed(nil, []byte(`{"jsonrpc":"2.0","id":`+ids[1]+`,"result":{}}`))
		if n := r.Usage(true).Units[meter.ToolCall]; n != meter.Whole(1) {
			t.Errorf("asked as %s, answered as %s: counts %s", ids[0], ids[1], n)
		}
	}
}

// TestToolCallsThatAreAnsweredElsewhere: a server that takes a call, and answers it on another stream, has been asked for it all the same.
func TestToolCallsThatAreAnsweredElsewhere(t *testing.T) {
	for status, want := range map[int]meter.Quantity{202: meter.Whole(2), 204: meter.Whole(2), 200: 0} {
		c, err := post("/mcp", `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]`)
		if err != nil {
			t.Fatal(err)
		}
		u := c.Counter(status, http.Header{}).Usage(true)
		if u.Units[meter.ToolCall] != want {
			t.Errorf("%d: %s tool calls, want %s", status, u.Units[meter.ToolCall], want)
		}
	}
}

// FuzzCounter feeds anything to the counter of every API.
func FuzzCounter(f *testing.F) {
	paths := []string{
		"/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/images/generations", "/v1/audio/transcriptions", "/v1/audio/speech",
		"/v1/ocr", "/v1beta/models/g:streamGenerateContent", "/v1beta/interactions", "/model/anthropic.x/converse-stream", "/model/anthropic.x/invoke-with-response-stream",
		"/v2/chat", "/v2/rerank", "/api/chat", "/mcp", "/unknown", "/v1/threads/t/runs", "/v1/conversations", "/completion",
	}
	kinds := []string{"text/event-stream", "application/json", "application/x-ndjson", "application/vnd.amazon.eventstream"}
	f.Add(uint8(0), uint8(0), `{"stream":true,"n":2}`, []byte(events(`{"choices":[{"delta":{"content":"a"}}],"usage":null}`, `{"choices":[],"usage":{"prompt_tokens":1}}`, "[DONE]")))
	f.Add(uint8(1), uint8(0), `{"stream":true}`, []byte(events(`{"type":"message_start","message":{"usage":{"input_tokens":1}}}`, `{"type":"message_delta","usage":{"output_tokens":1,"iterations":[{}]}}`)))
	f.Add(uint8(15), uint8(1), `[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]`, []byte(`[{"id":1,"result":{}}]`))
	f.Fuzz(func(t *testing.T, path, kind uint8, request string, response []byte) {
		call, err := post(paths[int(path)%len(paths)], request)
		if err != nil {
			return
		}
		call.LimitOutput(100)
		c := call.Counter(200, http.Header{"Content-Type": {kinds[int(kind)%len(kinds)]}})
		for i := range response {
			c.Feed(nil, response[i:i+1])
		}
		at, bound := c.Progress()
		c.Stop("a", "b")
		for _, u := range []meter.Units{at, bound, c.Usage(false).Units, c.Usage(true).Units} {
			for class, n := range u {
				if n < 0 || n > meter.MaxQuantity {
					t.Errorf("%d of %s", n, class)
				}
			}
		}
	})
}

// TestRealtime: responses of one connection add up; what another model transcribed stands beside.
func TestRealtime(t *testing.T) {
	call, err := formats.Inspect(meter.Head{Method: "GET", Path: "/v1/realtime", Query: "model=gpt-realtime", Header: http.Header{"Upgrade": {"websocket"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if call.API != "realtime" || call.Model != "gpt-realtime" || call.Free {
		t.Errorf("recognised as %+v", call)
	}
	c := call.Counter(101, http.Header{})
	for _, m := range []string{
		`{"type":"session.created","session":{"model":"gpt-realtime","audio":{"input":{"transcription":{"model":"gpt-4o-transcribe"}}}}}`,
		`{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"tokens","input_tokens":26,"input_token_details":{"audio_tokens":26},"output_tokens":9}}`,
		`{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":1.5}}`,
		`{"type":"response.output_audio.delta","delta":"QUJDQUJDQUJD"}`,
		`{"type":"response.done","response":{"usage":{"input_tokens":122,"input_token_details":{"audio_tokens":26,"cached_tokens":64,"cached_tokens_details":{"audio_tokens":10}},"output_tokens":97,"output_token_details":{"audio_tokens":69}}}}`,
		`{"type":"response.done","response":{"usage":{"input_tokens":10,"output_tokens":3}}}`,
	} {
		c.Feed(nil, frame(0x81, []byte(m)))
	}
	u := c.Usage(true)
	delete(u.Units, meter.Byte)
	if got := u.Units.String(); got != "audio_input=16,audio_output=69,cached=64,call=1,event=6,input=52,output=31" {
		t.Errorf("counted %s", got)
	}
	if len(u.Beside) != 1 || u.Beside[0].Model != "gpt-4o-transcribe" || u.Beside[0].Units.String() != "audio_input=26,output=9,second=1.5" {
		t.Errorf("beside it %+v", u.Beside)
	}
}

// TestCommentsStandWhereClientsSkipThem: a comment is a block of its own between two events, on the formats whose official clients skip it,
// and nowhere else.
func TestCommentsStandWhereClientsSkipThem(t *testing.T) {
	const chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n"
	for _, tt := range []struct {
		path, body, kind, sent string
		comment                bool
	}{
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "text/event-stream", chunk + "data: [DONE]\n\n", true},
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "text/event-stream; charset=utf-8", "", true},
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "text/event-stream", chunk + "data: {\"cut", true}, // which stays back
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "text/event-stream", "data: {\"x\":\"" + strings.Repeat("x", 200<<10), false},
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "text/event-stream", "data: {\"x\":\"" + strings.Repeat("x", 200<<10) + "\"}\n\n", true},
		{"/v1/chat/completions", `{"model":"m","stream":true}`, "application/json", `{"choices":[]}`, false},
		{"/v1/completions", `{"model":"m","stream":true}`, "text/event-stream", chunk, true},
		{"/v1/responses", `{"model":"m","stream":true}`, "text/event-stream", "", true},
		{"/v1/messages", `{"model":"m","stream":true}`, "text/event-stream", "", true},
		{"/v1beta/models/m:streamGenerateContent", `{"contents":[]}`, "text/event-stream", "data: {}\n\n", false},
		{"/v1beta/models/m:streamGenerateContent", `{"contents":[]}`, "application/json", "[{}]", false},
		{"/v2/chat", `{"model":"m","stream":true,"messages":[]}`, "text/event-stream", "data: {}\n\n", false},
		{"/api/chat", `{"model":"m","messages":[]}`, "application/x-ndjson", "{}\n", false},
		{"/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`, "text/event-stream", "data: {}\n\n", false},
		{"/unknown", `{}`, "text/event-stream", "data: 1\n\n", false},
	} {
		c, err := post(tt.path, tt.body)
		if err != nil {
			t.Fatal(tt.path, err)
		}
		counter := c.Counter(200, http.Header{"Content-Type": {tt.kind}})
		counter.Feed(nil, []byte(tt.sent))
		for _, when := range []string{"before", "after"} {
			if got := counter.Comment("a"); (got != nil) != tt.comment || tt.comment && string(got) != ": a\n\n" {
				t.Errorf("%s %.60q, %s its end: %q", tt.path, tt.sent, when, got)
			}
			counter.Usage(true)
		}
	}
}
