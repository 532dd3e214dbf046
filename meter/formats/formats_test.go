package formats_test

import (
	"bytes"
	"errors"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/meter/wire"
)

func post(path, body string) (*meter.Call, error) {
	return formats.Inspect(meter.Head{Method: "POST", Path: path, Header: http.Header{"Content-Type": {"application/json"}}}, []byte(body))
}

func TestInspect(t *testing.T) {
	tests := []struct {
		name, path, body string
		api, model       string
		stream           bool
		maxOutput        int64
		forwarded        string // "" for unchanged
	}{
		{"plain", "/v1/chat/completions", `{"model":"gpt-4o","messages":[]}`, "chat.completions", "gpt-4o", false, 0, ""},
		{"mounted elsewhere", "/compatible-mode/v1/chat/completions", `{"model":"q"}`, "chat.completions", "q", false, 0, ""},
		{"trailing slash and case", "//v1/Chat/Completions/", `{"model":"q"}`, "chat.completions", "q", false, 0, ""},
		{"azure deployment", "/openai/deployments/gpt-4.1-mini/chat/completions", `{"messages":[]}`, "chat.completions", "gpt-4.1-mini", false, 0, ""},
		{"choices", "/v1/chat/completions", `{"model":"m","n":3,"max_tokens":100}`, "chat.completions", "m", false, 300, ""},
		{"two limits that agree", "/v1/chat/completions", `{"max_tokens":50,"max_completion_tokens":50}`, "chat.completions", "", false, 50, ""},
		{"usage asked", "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":true}}`, "chat.completions", "", true, 0, ""},
		{"usage not asked", "/v1/chat/completions", `{ "stream": true }`, "chat.completions", "", true, 0,
			`{ "stream": true ,"stream_options":{"include_usage":true}}`},
		{"usage refused", "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false},"x":1.0}`, "chat.completions", "", true, 0,
			`{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"x":1.0}`},
		{"null options", "/v1/chat/completions", `{"stream":true,"stream_options":null}`, "chat.completions", "", true, 0,
			`{"stream":true,"stream_options":{"include_usage":true}}`},
		{"no json", "/v1/chat/completions", `{"stream":true`, "chat.completions", "", true, 0, ""},
		{"empty", "/v1/chat/completions", ``, "chat.completions", "", false, 0, ""},
		{"completions", "/v1/completions", `{"model":"d","prompt":"x","max_tokens":5}`, "completions", "d", false, 5, ""},
		{"messages", "/v1/messages", `{"model":"claude","max_tokens":9,"stream":true}`, "messages", "claude", true, 9, ""},
		{"count tokens", "/v1/messages/count_tokens", `{"model":"claude"}`, "messages.count_tokens", "claude", false, 0, ""},
		{"Code Assist", "/v1internal:generateContent", `{"model":"gemini-2.5-pro","project":"p","request":{"contents":[],"generationConfig":{"maxOutputTokens":9,"candidateCount":2}}}`, "generateContent", "gemini-2.5-pro", false, 18, ""},
		{"Code Assist, streamed", "/v1internal:streamGenerateContent", `{"request":{"Contents":[],"generation_config":{"max_output_tokens":9}},"model":"gemini-2.5-pro"}`, "streamGenerateContent", "gemini-2.5-pro", true, 9,
			`{"request":{"contents":[],"generation_config":{"max_output_tokens":9}},"model":"gemini-2.5-pro"}`},
		{"Code Assist, a limit where there is none", "/v1internal:generateContent", `{"model":"g","generationConfig":{"maxOutputTokens":1},"request":{"contents":[]}}`, "generateContent", "g", false, 0, ""},
		{"Code Assist, no request", "/v1internal:generateContent", `{"model":"g"}`, "generateContent", "v1internal", false, 0, ""},
		{"unknown", "/search", `{"model":"claude"}`, "", "", false, 0, ""},
		{"no suffix", "/v1/chat/completions/x", `{"model":"claude"}`, "", "", false, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := post(tt.path, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.API != tt.api || c.Model != tt.model || c.Stream != tt.stream || c.MaxOutput != tt.maxOutput {
				t.Errorf("got %q, model %q, stream %v, at most %d", c.API, c.Model, c.Stream, c.MaxOutput)
			}
			want := tt.forwarded
			if want == "" {
				want = tt.body
			}
			if string(c.Body) != want {
				t.Errorf("forwarded %s", c.Body)
			}
			if c.InputTokens < int64(len(tt.body)) {
				t.Errorf("%d bytes bound as %d tokens", len(tt.body), c.InputTokens)
			}
		})
	}
}

func TestInspectRefusesWhatIsEncoded(t *testing.T) {
	for _, coding := range [][]string{{"gzip"}, {"identity", "gzip"}, {"", "br"}} {
		_, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/messages", Header: http.Header{"Content-Encoding": coding}}, []byte("x"))
		if !errors.Is(err, meter.ErrEncoded) {
			t.Errorf("%q: error %v", coding, err)
		}
	}
}

func TestLimitOutput(t *testing.T) {
	tests := []struct {
		path, body string
		n          int64
		want       string // "" for refused
		max        int64
		least      int64
	}{
		{"/v1/chat/completions", `{"model":"gpt-4o"}`, 10, `{"model":"gpt-4o","max_completion_tokens":10}`, 10, 1},
		{"/v1/chat/completions", `{"model":"mistral-small","n":3}`, 10, `{"model":"mistral-small","n":3,"max_tokens":3}`, 9, 3},
		{"/v1/chat/completions", `{"max_tokens":100,"model":"gpt-4o"}`, 10, `{"max_tokens":10,"model":"gpt-4o"}`, 10, 1},
		{"/v1/chat/completions", `{"max_tokens":5}`, 10, `{"max_tokens":5}`, 5, 1},
		{"/v1/chat/completions", `{"n":3}`, 2, "", 0, 3},
		{"/v1/chat/completions", `{}`, 0, "", 0, 1},
		{"/v1/chat/completions", `{"a`, 9, "", 0, 1},
		{"/v1/messages", `{"max_tokens":100}`, 10, `{"max_tokens":10}`, 10, 1},
		{"/v1/messages", `{"max_tokens":5000,"thinking":{"budget_tokens":1024}}`, 1024, "", 5000, 1025},
		{"/v1/messages", `{"max_tokens":5000,"thinking":{"budget_tokens":9223372036854775807}}`, 1024, "", 5000, wire.MaxTokens},
		{"/v1/messages", `{"max_tokens":5000,"thinking":{"budget_tokens":1e300}}`, 1024, "", 5000, wire.MaxTokens},
		{"/v1/messages", `{"max_tokens":5000,"thinking":{"budget_tokens":-5}}`, 10, `{"max_tokens":10,"thinking":{"budget_tokens":-5}}`, 10, 1},
		{"/v1internal:generateContent", `{"model":"g","request":{"contents":[]}}`, 10, `{"model":"g","request":{"contents":[],"generationConfig":{"maxOutputTokens":10}}}`, 10, 1},
		{"/v1internal:generateContent", `{"model":"g","request":{"generation_config":{"candidate_count":2}}}`, 10, `{"model":"g","request":{"generation_config":{"candidate_count":2,"maxOutputTokens":5}}}`, 10, 2},
		{"/v1/responses", `{"model":"gpt-4o"}`, 16, `{"model":"gpt-4o","max_output_tokens":16}`, 16, 16},
		{"/v1/responses", `{"model":"gpt-4o","max_output_tokens":100}`, 15, "", 100, 16},
		{"/search", `{}`, 9, "", 0, 0},
	}
	for _, tt := range tests {
		c, err := post(tt.path, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		if least := c.LeastOutput(); least != tt.least {
			t.Errorf("%s %s: the lowest limit is %d, want %d", tt.path, tt.body, least, tt.least)
		}
		ok, want := c.LimitOutput(tt.n), tt.want
		if want == "" {
			want = tt.body
		}
		if ok != (tt.want != "") || string(c.Body) != want || c.MaxOutput != tt.max {
			t.Errorf("%s %s to %d: %v, %s, at most %d", tt.path, tt.body, tt.n, ok, c.Body, c.MaxOutput)
		}
	}
}

// stream runs a response of server-sent events through a call's counter, byte by byte, and returns what a client got before
// and after it ended.
func stream(t *testing.T, path, request, response string) (c meter.Counter, fed, tail string) {
	t.Helper()
	call, err := post(path, request)
	if err != nil {
		t.Fatal(err)
	}
	c = call.Counter(200, http.Header{"Content-Type": {"text/event-stream"}})
	var out []byte
	for i := range response {
		out = c.Feed(out, []byte{response[i]})
	}
	return c, string(out), string(c.Tail())
}

func TestQuietStream(t *testing.T) {
	first := `data: {"choices":[],"prompt_filter_results":[{}]}` + "\n\n" // Azure
	text := `data: {"choices":[{"index":0,"delta":{"content":"Hi \"usage\":null"}}] , "usage":null, "x": 1}` + "\n\n"
	last := `data: {"usage":null,"choices":[{"index":0,"delta":{}}]}` + "\n\n"
	only := `data: {"choices":[{"index":0,"delta":{}}],"usage" : null }` + "\n\n"
	usage := `data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}` + "\n\n"
	done := "data: [DONE]\n\n"
	body := ": ping\n\n" + first + text + last + only + usage + done

	c, fed, tail := stream(t, "/v1/chat/completions", `{"stream":true}`, body)
	want := ": ping\n\n" + first +
		`data: {"choices":[{"index":0,"delta":{"content":"Hi \"usage\":null"}}] , "x": 1}` + "\n\n" +
		`data: {"choices":[{"index":0,"delta":{}}]}` + "\n\n" +
		`data: {"choices":[{"index":0,"delta":{}}] }` + "\n\n"
	if fed != want || tail != done {
		t.Errorf("got\n%s\nand the tail %q", fed, tail)
	}
	u := c.Usage(true)
	if got := u.Units.String(); got != "byte="+itoa(len(want)+len(done))+",call=1,event=4,input=5,output=2" || u.Source != meter.Stated {
		t.Errorf("counted %s, %s", got, u.Source)
	}

	c, fed, tail = stream(t, "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":true}}`, body)
	if fed+tail != body || tail != done {
		t.Errorf("a client that asked got\n%s\nand the tail %q", fed, tail)
	}
	c.Usage(true)
}

func itoa(n int) string { return meter.Whole(int64(n)).String() }

func TestCutStream(t *testing.T) {
	word := `data: {"choices":[{"index":0,"delta":{"content":" hello"}}]}` + "\r\n\r\n"
	call, err := post("/v1/chat/completions", `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Say hello."}]}`)
	if err != nil {
		t.Fatal(err)
	}
	c := call.Counter(200, http.Header{"Content-Type": {"text/event-stream"}})
	out := c.Feed(nil, []byte(strings.Repeat(word, 10)+word[:60])) // the last one is not complete, so it is not sent
	if string(out) != strings.Repeat(word, 10) {
		t.Errorf("passed on %d bytes", len(out))
	}
	at, bound := c.Progress()
	if at[meter.Output].Ceil() > 10 || bound[meter.Output].Ceil() < 10 || at[meter.Event] != meter.Whole(10) {
		t.Errorf("progress between %v and %v", at, bound)
	}
	if stop := string(c.Stop("insufficient_funds", "no money")); stop !=
		`data: {"error":{"message":"no money","type":"insufficient_funds","code":"insufficient_funds"}}`+"\n\ndata: [DONE]\n\n" {
		t.Errorf("stopped by %q", stop)
	}
	u := c.Usage(false)
	if n := u.Units[meter.Output].Ceil(); n != 10 || u.Source != meter.Estimated || u.Units[meter.Calls] != 0 {
		t.Errorf("counted %v, %s", u.Units, u.Source)
	}
	if n := u.PromptTokens; n < 9 || n > 12 {
		t.Errorf("prompt estimated as %d tokens", n)
	}
}

func TestAnthropicStop(t *testing.T) {
	c, _, _ := stream(t, "/v1/messages", `{"model":"claude","max_tokens":9,"stream":true}`, "")
	if stop := c.Stop("x", "y"); stop != nil {
		t.Errorf("a stream that has ended was stopped by %q", stop)
	}
	call, _ := post("/v1/messages", `{"model":"claude","max_tokens":9,"stream":true}`)
	c = call.Counter(200, http.Header{"Content-Type": {"text/event-stream"}})
	if stop := string(c.Stop("x", "y")); stop != "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"y\"}}\n\n" {
		t.Errorf("stopped by %q", stop)
	}
}

func TestForm(t *testing.T) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range map[string]string{"model": "gpt-4o-transcribe", "stream": "true", "prompt": strings.Repeat("x", 100)} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.CreateFormFile("file", "a.mp3")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(make([]byte, 1<<20))
	w.Close()
	h := http.Header{"Content-Type": {w.FormDataContentType()}}
	c, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/audio/transcriptions", Header: h}, b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if c.Model != "gpt-4o-transcribe" || !c.Stream || c.Malformed || c.InputTokens < 100_000 || c.InputTokens > 130_000 {
		t.Errorf("read as model %q, stream %v, at most %d tokens, malformed %v", c.Model, c.Stream, c.InputTokens, c.Malformed)
	}
}
