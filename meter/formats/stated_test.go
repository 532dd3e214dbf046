package formats_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
)

// TestStatedInputStands: what the provider states of an input that is not all in the request is not held against it; what is beyond
// what the request can have used stands too, and is marked.
func TestStatedInputStands(t *testing.T) {
	const many, absurd = 1_500_000, 900_000_000
	for _, tt := range []struct {
		path, request string
		suspect       bool
	}{
		{respPath, `{"input":"hi"}`, true},
		{respPath, `{"input":"hi","previous_response_id":null}`, true},
		{respPath, `{"input":"hi","previous_response_id":"r"}`, false},
		{respPath, `{"input":"hi","previous_response\u005fid":"r"}`, false},
		{respPath, `{"input":"hi","paramſ":1,"previous_reſponse_id":"r"}`, false},
		{respPath, `{"input":"hi","conversation":{"id":"c"}}`, false},
		{respPath, `{"prompt":{"id":"p"}}`, false},
		{respPath, `{"prompt":{"\u0069d":"p"}}`, false},
		{respPath, `{"input":[{"type":"item_reference","id":"i"}]}`, false},
		{respPath, `{"input":[{"type":"item\u005freference","id":"i"}]}`, false},
		{respPath, `{"input":[{"id":"i"}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x.y/z.png"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file\u005fid":"f"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file_data":"data:application/pdf;base64,JVBERi0xLjQK` + strings.Repeat("A", 400) + `"}]}]}`, false},
		{respPath, `{"input":"hi","tools":[{"type":"file_search","vector_store_ids":["v"]}]}`, false},
		{respPath, `{"input":"hi","tools":[{"t\u0079pe":"web\u005fsearch"}]}`, false},
		{respPath, `{"input":"hi","tools":["web_search"]}`, false},
		{respPath, `{"input":"hi","tools":[{"web_search":{}}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"HTTPS://x.y/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http\u0073://x.y/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"gs:\/\/x\/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":"hello"}]}`, true},
		{geminiPath, `{"contents":[{"parts":[{"fileData":{"fileUri":"https://x.y/z"}}]}]}`, false},
		{geminiPath, `{"contents":[],"cachedContent":"c"}`, false},
		{geminiPath, `{"contents":[],"cached_content":"c"}`, false},
		{geminiPath, `{"contents":[],"CachedContent":"c"}`, false},
		{messagesPath, `{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://x.y"}}]}]}`, false},
		{conversePath, `{"messages":[{"content":[{"document":{"source":{"s3Location":{"uri":"s3://a"}}}}]}]}`, false},
		{"/v1/threads/t/runs", `{"stream":true}`, false},
		{"/v1/conversations", `{"inputs":"x"}`, false},
		{"/v2/chat", `{"messages":[],"connectors":[{"id":"web"}]}`, false},
	} {
		call, err := post(tt.path, tt.request)
		if err != nil {
			t.Errorf("%s: %v", tt.request, err)
			continue
		}
		for stated, suspect := range map[int64]bool{many: tt.suspect, absurd: true} {
			n := strconv.FormatInt(stated, 10)
			var answer string
			switch tt.path {
			case geminiPath:
				answer = `{"usageMetadata":{"promptTokenCount":` + n + `,"candidatesTokenCount":1}}`
			case conversePath:
				answer = `{"usage":{"inputTokens":` + n + `,"outputTokens":1}}`
			case respPath, messagesPath:
				answer = `{"type":"message","usage":{"input_tokens":` + n + `,"output_tokens":1}}`
			case "/v2/chat":
				answer = `{"usage":{"billed_units":{"input_tokens":` + n + `,"output_tokens":1}}}`
			default:
				answer = `{"object":"thread.run","usage":{"prompt_tokens":` + n + `,"completion_tokens":1}}`
			}
			if tt.path == respPath {
				answer = strings.Replace(answer, `"type":"message",`, "", 1)
			}
			c := call.Counter(200, http.Header{"Content-Type": {"application/json"}})
			c.Feed(nil, []byte(answer))
			u := c.Usage(true)
			if got := u.Units[meter.Input]; got != meter.Whole(min(stated, 20_000_000)) || u.Suspect != suspect || u.Source != meter.Stated {
				t.Errorf("%s, %d stated: counts %s, suspect %v, %s", tt.request, stated, got, u.Suspect, u.Source)
			}
		}
	}
}

// TestTheHigherCountStands: an output beyond the request's bound is marked, and not taken for less than it is.
func TestTheHigherCountStands(t *testing.T) {
	for _, tt := range []struct {
		request string
		stated  int64
		want    int64
		suspect bool
	}{
		{`{"max_tokens":100}`, 150_000, 150_000, true},
		{`{"max_tokens":100}`, 90_000, 90_000, false}, // thoughts
		{`{"max_tokens":100}`, 1e11, 10_000_000, true},
		{`{}`, 9_000_000, 9_000_000, false},
		{`{"n":2}`, 1e11, 20_000_000, true},
	} {
		call, err := post(chatPath, tt.request)
		if err != nil {
			t.Fatal(err)
		}
		c := call.Counter(200, http.Header{"Content-Type": {"application/json"}})
		c.Feed(nil, []byte(`{"usage":{"prompt_tokens":1,"completion_tokens":`+strconv.FormatInt(tt.stated, 10)+`}}`))
		if u := c.Usage(true); u.Units[meter.Output] != meter.Whole(tt.want) || u.Suspect != tt.suspect {
			t.Errorf("%s: %d counts as %s, suspect %v", tt.request, tt.stated, u.Units[meter.Output], u.Suspect)
		}
	}
}

// TestUsageAfterVeryMuchElse: the usage that an answer states at its end is read however many choices, calls and blocks stand before it, and so
// are the tools that ran last.
func TestUsageAfterVeryMuchElse(t *testing.T) {
	const many = 3000
	list := func(element string) string { return strings.Repeat(element+",", many) }
	calls := list(`{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}","action":{"type":"x"},"container_id":"` + strings.Repeat("c", 80) + `"}`)
	response := `{"id":"r","object":"response","status":"completed","model":"m","output":[` + calls + `{"type":"web_search_call","id":"ws_1","action":{"type":"search"}}],` +
		`"usage":{"input_tokens":1000,"output_tokens":100000,"output_tokens_details":{"reasoning_tokens":90000},"total_tokens":101000}}`
	for name, tt := range map[string]struct {
		path, request, answer string
		searches              int64
	}{
		"choices": {chatPath, `{"messages":[],"n":3000}`, `{"object":"chat.completion","choices":[` + list(`{"index":1,"message":{"content":"ok"},"finish_reason":"stop"}`) +
			`{}],"usage":{"prompt_tokens":1000,"completion_tokens":100000,"completion_tokens_details":{"reasoning_tokens":90000},"total_tokens":101000}}`, 0},
		"calls":           {respPath, `{"input":"hi"}`, response, 1},
		"calls, streamed": {respPath, `{"input":"hi","stream":true}`, events(`{"type":"response.completed","response":` + response + `}`), 1},
		"blocks": {messagesPath, `{"messages":[]}`, `{"type":"message","content":[` + list(`{"type":"code_execution_tool_result","content":{"content":[{"file_id":"file_1"}]}}`) +
			`{}],"usage":{"input_tokens":1000,"output_tokens":100000,"output_tokens_details":{"thinking_tokens":90000}}}`, 0},
		"parts": {geminiPath, `{"contents":[]}`, `{"candidates":[` + list(`{"finishReason":"STOP","content":{"parts":[{"text":"ok"}]}}`) +
			`{}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":10000,"thoughtsTokenCount":90000,"totalTokenCount":101000}}`, 0},
	} {
		call, err := post(tt.path, tt.request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		kind := "application/json"
		if call.Stream {
			kind = "text/event-stream"
		}
		c := call.Counter(200, http.Header{"Content-Type": {kind}})
		c.Feed(nil, []byte(tt.answer))
		u := c.Usage(true)
		output := u.Units[meter.Output] + u.Units[meter.Reasoning]
		if u.Source != meter.Stated || u.Units[meter.Input] != meter.Whole(1000) || output != meter.Whole(100_000) || u.Units[meter.WebSearch] != meter.Whole(tt.searches) {
			t.Errorf("%s: counted %v, %s", name, u.Units, u.Source)
		}
	}
}
