package formats_test

import (
	"net/http"
	"testing"

	"github.com/tallygate/tallygate/meter"
)

// TestReports has the usages of public bug reports of other gateways, each with its source, in bodies of our own making.
func TestReports(t *testing.T) {
	const (
		chat      = "/v1/chat/completions"
		messages  = "/v1/messages"
		responses = "/v1/responses"
		converse  = "/model/anthropic.claude-opus-4-6-v1/converse"
		gemini    = "/v1beta/models/gemini-2.5-flash:generateContent"
		json      = "application/json"
		sse       = "text/event-stream"
	)
	for _, test := range []struct {
		source                               string
		path, request, contentType, response string
		want                                 string
	}{
		{"https://github.com/BerriAI/litellm/issues/11789", messages, `{"stream":true}`, sse, events(
			`{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":2455,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":23}}`, `{"type":"message_stop"}`),
			"cached=2455,input=4,output=23"},
		{"https://github.com/BerriAI/litellm/issues/9812", messages, `{}`, json,
			`{"type":"message","usage":{"input_tokens":3,"cache_creation_input_tokens":12304,"cache_read_input_tokens":0,"output_tokens":550}}`,
			"cache_write=12304,input=3,output=550"},
		{"https://github.com/BerriAI/litellm/pull/31724", chat, `{}`, json,
			`{"usage":{"prompt_tokens":4818,"completion_tokens":47,"total_tokens":4865,"prompt_tokens_details":{"cached_tokens":0,"text_tokens":15,"cache_creation_tokens":4803,"cache_creation_token_details":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":4803}},"cache_creation_input_tokens":4803,"cache_read_input_tokens":0}}`,
			"cache_write_1h=4803,input=15,output=47"},
		{"https://github.com/BerriAI/litellm/pull/25517", messages, `{"stream":true}`, sse, events(
			`{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":3,"cache_creation_input_tokens":17,"cache_read_input_tokens":32651,"output_tokens":1}}}`,
			`{"type":"message_delta","usage":{"output_tokens":40,"cache_creation_input_tokens":17,"cache_read_input_tokens":32651}}`,
			`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":40,"cacheReadInputTokenCount":32651,"cacheWriteInputTokenCount":17}}`),
			"cache_write=17,cached=32651,input=3,output=40"},
		{"https://github.com/earendil-works/pi/issues/9457", converse, `{}`, json,
			`{"usage":{"inputTokens":5,"outputTokens":7,"totalTokens":9625,"cacheReadInputTokens":0,"cacheWriteInputTokens":9613,"cacheDetails":[{"ttl":"1h","inputTokens":9613}]}}`,
			"cache_write_1h=9613,input=5,output=7"},
		{"https://github.com/wso2/gateway-controllers/pull/241", converse, `{}`, json,
			`{"usage":{"inputTokens":5,"outputTokens":7,"totalTokens":112,"cacheReadInputTokens":0,"cacheWriteInputTokens":100,"cacheDetails":[{"ttl":"5m","inputTokens":60},{"ttl":"1h","inputTokens":40}]}}`,
			"cache_write=60,cache_write_1h=40,input=5,output=7"},
		{"https://github.com/maximhq/bifrost/issues/4746", converse, `{}`, json,
			`{"usage":{"inputTokens":10,"outputTokens":7,"totalTokens":117,"cacheReadInputTokens":100,"cacheWriteInputTokens":0}}`,
			"cached=100,input=10,output=7"},
		{"https://github.com/envoyproxy/ai-gateway/pull/2184, incomplete", responses, `{"stream":true}`, sse, events(
			`{"type":"response.created","response":{"id":"r","status":"in_progress","usage":null}}`,
			`{"type":"response.incomplete","response":{"id":"r","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":11,"output_tokens":16,"total_tokens":27}}}`),
			"input=11,output=16"},
		{"https://github.com/envoyproxy/ai-gateway/pull/2184, failed with a usage", responses, `{"stream":true}`, sse, events(
			`{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error"},"usage":{"input_tokens":11,"output_tokens":16,"total_tokens":27}}}`),
			"input=11,output=16"},
		{"https://github.com/envoyproxy/ai-gateway/pull/2184, failed before", responses, `{"stream":true,"input":"hello"}`, sse, events(
			`{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"server_error"},"usage":null}}`),
			""},
		{"https://github.com/QuantumNous/new-api/issues/7241, whole", responses, `{}`, json,
			`{"id":"r","status":"incomplete","output":[{"type":"reasoning"}],"usage":{"input_tokens":11,"output_tokens":16,"output_tokens_details":{"reasoning_tokens":16},"total_tokens":27}}`,
			"input=11,reasoning=16"},
		{"https://github.com/BerriAI/litellm/issues/17136", chat, `{"stream":true,"stream_options":{"include_usage":true}}`, sse, events(
			`{"choices":[{"delta":{"content":"a"}}]}`,
			`{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}`,
			`{"choices":[]}`, `[DONE]`),
			"input=12,output=5"},
		{"https://github.com/Portkey-AI/gateway/issues/1338", chat, `{"stream":true,"stream_options":{"include_usage":true}}`, sse, events(
			`{"choices":[{"delta":{"content":"a"}}]}`,
			`{"choices":[{"delta":{},"finish_reason":"length"}],"x_groq":{"id":"req","usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}}`,
			`{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}`, `[DONE]`),
			"input=11,output=3"},
		{"https://github.com/ARahim3/mlx-dspark/issues/37", chat, `{"stream":true}`, sse, events(
			`{"choices":[{"delta":{"reasoning_content":"hm"}}]}`,
			`{"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":65,"completion_tokens":251,"total_tokens":316,"prompt_tokens_details":{"cached_tokens":64}}}`, `[DONE]`),
			"cached=64,input=1,output=251"},
		{"https://github.com/router-for-me/CLIProxyAPI/pull/3077", chat, `{"stream":true}`, sse, events(
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`,
			`{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`,
			`{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":2,"total_tokens":21}}`, `[DONE]`),
			"input=19,output=2"},
		{"https://github.com/router-for-me/CLIProxyAPI/pull/3221", chat, `{"stream":true}`, sse, events(
			`{"choices":[{"delta":{"content":"a"}}],"usage":null}`,
			`{"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":2,"total_tokens":21}}`,
			`{"choices":[],"usage":null}`, `[DONE]`),
			"input=19,output=2"},
		{"https://github.com/earendil-works/pi/issues/8075", chat, `{}`, json,
			`{"usage":{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32,"cached_tokens":12}}`, "cached=12,input=7,output=13"},
		{"https://github.com/vercel/ai/issues/18905", chat, `{}`, json,
			`{"usage":{"prompt_tokens":100,"completion_tokens":20,"prompt_cache_hit_tokens":40}}`, "cached=40,input=60,output=20"},
		{"https://github.com/langfuse/langfuse/issues/4590", chat, `{}`, json,
			`{"usage":{"input_tokens":62394,"output_tokens":214,"total_tokens":62608,"input_token_details":{"audio":0,"cache_read":60024},"output_token_details":{"audio":0,"reasoning":100}}}`,
			"cached=60024,input=2370,output=114,reasoning=100"},
		{"https://github.com/langfuse/codex-observability-plugin/issues/22", responses, `{}`, json,
			`{"status":"completed","usage":{"input_tokens":117231,"cached_input_tokens":115584,"output_tokens":225,"total_tokens":117456}}`,
			"cached=115584,input=1647,output=225"},
		{"https://github.com/livekit/agents/pull/5121", chat, `{}`, json,
			`{"usage":{"input_tokens":200,"output_tokens":50,"total_tokens":250,"input_token_details":{"text_tokens":120,"audio_tokens":80,"cached_tokens":90,"cached_tokens_details":{"text_tokens":40,"audio_tokens":50}},"output_token_details":{"text_tokens":10,"audio_tokens":40}}}`,
			"audio_input=30,audio_output=40,cached=90,input=80,output=10"},
		{"https://github.com/meistrari/aicost/pull/10", gemini, `{}`, json,
			`{"candidates":[],"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":20,"toolUsePromptTokenCount":30,"thoughtsTokenCount":50,"cachedContentTokenCount":60,"totalTokenCount":200}}`,
			"cached=60,input=70,output=20,reasoning=50"},
		{"https://github.com/Joouis/agent-maestro/pull/190", gemini, `{}`, json,
			`{"usageMetadata":{"promptTokenCount":220,"candidatesTokenCount":5,"thoughtsTokenCount":185,"totalTokenCount":410}}`, "input=220,output=5,reasoning=185"},
		{"https://github.com/BerriAI/litellm/pull/38370", chat, `{}`, json,
			`{"usage":{"prompt_tokens":1316,"completion_tokens":5,"total_tokens":1321,"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":1313}}}`, "cache_write=1313,input=3,output=5"},
		{"https://github.com/mindroom-ai/mindroom/pull/2134", responses, `{}`, json,
			`{"status":"completed","usage":{"input_tokens":1316,"output_tokens":5,"total_tokens":1321,"input_tokens_details":{"cached_tokens":1000,"cache_write_tokens":300}}}`, "cache_write=300,cached=1000,input=16,output=5"},
		{"https://github.com/musistudio/claude-code-router/issues/1234", chat, `{"stream":true}`, sse, events(
			`{"code":0,"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}`,
			`{"code":0,"choices":[],"usage":{"completion_tokens":133,"prompt_tokens":113,"total_tokens":246,"prompt_tokens_details":{"cached_tokens":0}}}`, `[DONE]`),
			"input=113,output=133"},
		{"https://github.com/BerriAI/litellm/issues/41067", messages, `{"stream":true}`, sse, events(
			`{"type":"message_start","message":{"model":"m","usage":{"input_tokens":0,"output_tokens":0}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":20,"output_tokens":9,"cache_read_input_tokens":2603,"cache_creation_input_tokens":0}}`, `{"type":"message_stop"}`),
			"cached=2603,input=20,output=9"},
		{"https://github.com/jd-opensource/OxyGent/pull/139", chat, `{}`, json,
			`{"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"cached_input_tokens":60,"cache_creation_input_tokens":0}}`, "cached=60,input=40,output=20"},
		{"https://github.com/ml-explore/mlx-lm/pull/849", chat, `{}`, json,
			`{"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":"60"}}}`, "cached=60,input=40,output=20"},
		{"https://github.com/BerriAI/litellm/pull/31724, without the sum", chat, `{}`, json,
			`{"usage":{"prompt_tokens":100,"completion_tokens":4,"total_tokens":104,"prompt_tokens_details":{"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":30}}}}`,
			"cache_write=20,cache_write_1h=30,input=50,output=4"},
	} {
		t.Run(test.source, func(t *testing.T) {
			call, err := post(test.path, test.request)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, 1 << 20} {
				c := call.Counter(200, http.Header{"Content-Type": {test.contentType}})
				run(c, []byte(test.response), size)
				u := c.Usage(true)
				for _, class := range []meter.Class{meter.Byte, meter.Event, meter.Calls} {
					delete(u.Units, class)
				}
				if got := u.Units.String(); got != test.want || u.Source != meter.Stated {
					t.Errorf("counted %s, %s; want %s, stated", got, u.Source, test.want)
				}
			}
		})
	}
}
