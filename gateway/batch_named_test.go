package gateway_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// upload is a form with a file, and its content type.
func upload(t *testing.T, purpose string, files ...string) (form, kind string) {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	must(t, w.WriteField("purpose", purpose))
	for _, content := range files {
		file, err := w.CreateFormFile("file", "a.jsonl")
		must(t, err)
		_, _ = file.Write([]byte(content))
	}
	must(t, w.Close())
	return body.String(), w.FormDataContentType()
}

// TestRequestsOfABatch: each request of a batch, in its body or in an upload, names only what is its payer's, and leaves its answer nowhere but in
// the results.
func TestRequestsOfABatch(t *testing.T) {
	t.Parallel()
	line := func(body string) string {
		return `{"custom_id":"1","method":"POST","url":"/v1/responses","body":{"model":"cheap",` + body + `}}` + "\n"
	}
	good := line(`"input":"hi"`)
	type test struct {
		name, path, purpose string
		body                string // of the request, or the file
		code, tells         string // empty: it is accepted
	}
	uploaded := func(name, lines, code, tells string) test {
		return test{name, "/v1/files", "batch", lines, code, tells}
	}
	tests := []test{
		uploaded("plain", good+good, "", ""),
		uploaded("store false", good+line(`"store":false,"background":false,"conversation":null`), "", ""),
		uploaded("a conversation", good+line(`"conversation":"conv_1"`), "invalid_request", "line 2.body.conversation"),
		uploaded("a conversation by an object", good+line(`"conversation":{"id":"conv_1"}`), "invalid_request", "line 2.body.conversation"),
		uploaded("another spelling", good+line(`"conversa\u0074ion":"conv_1"`), "invalid_request", "line 2.body.conversation"),
		uploaded("a key twice", good+line(`"store":true,"store":false`), "ambiguous_request", "line 2"),
		uploaded("stored", line(`"store":true`), "invalid_request", "line 1.body.store"),
		uploaded("in the background", good+"\n"+line(`"background":true`), "invalid_request", "line 3.body.background"),
		uploaded("a thread", `{"custom_id":"1","url":"/v1/threads/t/runs","body":{}}`, "invalid_request", "line 1.url"),
		uploaded("another's answer", line(`"previous_response_id":"resp_9"`), "unknown_resource", "resp_9"),
		uploaded("another's file", line(`"input":[{"role":"user","content":[{"type":"input_file","file_id":"file-9"}]}]`), "unknown_resource", "file-9"),
		uploaded("another's item", line(`"input":[{"type":"item_reference","id":"msg_9"}]`), "unknown_resource", "msg_9"),
		uploaded("another's audio", `{"custom_id":"1","url":"/v1/chat/completions","body":{"model":"cheap","messages":[{"role":"assistant","audio":{"id":"audio_9"}}]}}`, "unknown_resource", "audio_9"),
		uploaded("a model without a price", good+`{"custom_id":"2","body":{"Model":"secret"}}`, "no_price", "secret"),
		uploaded("no JSON", good+"x", "ambiguous_request", "line 2"),
		uploaded("an end of a line that is none", `{"x":"`+"\u2028"+`{\"body\":{}}"}`, "ambiguous_request", "line 1"),
		uploaded("its answer goes elsewhere", line(`"webhook":"https://a.example"`), "invalid_request", "webhook"),
		{"for another purpose", "/v1/files", "user_data", good + line(`"store":true`), "invalid_request", "line 2.body.store"},
		{"in parts", "/v1/uploads", "", `{"purpose":"batch","filename":"a.jsonl","bytes":9,"mime_type":"application/jsonl"}`, "ambiguous_request", "purpose"},

		{"Anthropic, plain", "/v1/messages/batches", "", `{"requests":[{"custom_id":"1","params":{"model":"cheap","max_tokens":10,"messages":[]}}]}`, "", ""},
		{"Anthropic, another's file", "/v1/messages/batches", "", `{"requests":[{"custom_id":"1","params":{"model":"cheap","messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"file_9"}}]}]}}]}`, "unknown_resource", "file_9"},
		{"Mistral, plain", "/v1/batch/jobs", "", `{"endpoint":"/v1/chat/completions","model":"cheap","requests":[{"custom_id":"1","body":{"messages":[]}}]}`, "", ""},
		{"Mistral, stored", "/v1/batch/jobs", "", `{"endpoint":"/v1/conversations","model":"cheap","requests":[{"custom_id":"1","body":{}},{"custom_id":"2","body":{"store":true}}]}`, "invalid_request", "requests.1.body.store"},
		{"xAI, stored", "/v1/batches/x1/requests", "", `{"batch_requests":[{"batch_request_id":"1","batch_request":{"responses":{"model":"cheap","store":true}}}]}`, "invalid_request", "batch_requests.0.batch_request.responses.store"},
		{"Gemini, a file that can't be read", "/v1beta/models/cheap:batchGenerateContent", "", `{"batch":{"inputConfig":{"fileName":"files/1"}}}`, "ambiguous_request", "file_name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			forwarded := false
			route := batchRoute(t, true)
			route.Shared = shared(t, "batches/*", "files/1")
			s := openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
				forwarded = true
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"id":"file-1"}`)
			})
			body, headers := test.body, []string(nil)
			if test.purpose != "" {
				form, kind := upload(t, test.purpose, test.body)
				body, headers = form, []string{"Content-Type", kind}
			}
			r, answer := s.call(s.key, http.MethodPost, test.path, body, headers...)
			if test.code == "" {
				want(t, "status: "+answer, r.StatusCode, http.StatusOK)
				return
			}
			if got := gjson.Get(answer, "code").String(); got != test.code || !strings.Contains(answer, test.tells) || forwarded {
				t.Errorf("%d %s, want %s of %q; forwarded %t", r.StatusCode, answer, test.code, test.tells, forwarded)
			}
		})
	}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, true), func(http.ResponseWriter, *http.Request) { t.Error("two files are forwarded") })
	form, kind := upload(t, "batch", good, line(`"store":true`))
	if r, answer := s.call(s.key, http.MethodPost, "/v1/files", form, "Content-Type", kind); r.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("two files at once: %s %s", r.Status, answer)
	}
}

// TestAnUploadBelongsToItsSender walks the way of a batch whose requests are uploaded by a form, whatever the purpose of the file: each step is its
// sender's alone.
func TestAnUploadBelongsToItsSender(t *testing.T) {
	t.Parallel()
	for _, purpose := range []string{"batch", "user_data"} {
		provider := new(shelf)
		route := batchRoute(t, true)
		route.Shared = nil
		s := openShop(t, escrow.Rules{}, gateway.Options{}, route, provider.ServeHTTP)
		bob := s.another("bob")
		provider.put("/v1/files", "application/json", `{"id":"file-1","object":"file"}`)
		provider.put("/v1/files/file-1", "application/json", `{"id":"file-1","object":"file"}`)
		provider.put("/v1/batches", "application/json", `{"id":"batch_1","object":"batch","status":"validating","input_file_id":"file-1"}`)
		provider.put("/v1/batches/batch_1", "application/json", `{"id":"batch_1","status":"completed","input_file_id":"file-1","output_file_id":"file-2"}`)
		provider.put("/v1/files/file-2/content", "application/octet-stream", `{"custom_id":"1","response":{"status_code":200,"body":`+chatCheap+"}}\n")
		form, kind := upload(t, purpose, `{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"cheap","messages":[]}}`+"\n")
		if r, answer := s.call(s.key, http.MethodPost, "/v1/files", form, "Content-Type", kind); r.StatusCode != http.StatusOK {
			t.Fatalf("upload for %q: %s", purpose, answer)
		}
		for _, step := range []struct{ method, path, body string }{
			{http.MethodGet, "/v1/files/file-1", ""},
			{http.MethodPost, "/v1/batches", `{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}`},
			{http.MethodGet, "/v1/batches/batch_1", ""},
			{http.MethodGet, "/v1/files/file-2/content", ""},
		} {
			r, answer := s.call(bob, step.method, step.path, step.body)
			want(t, "another's "+step.path+": "+answer, r.StatusCode, http.StatusNotFound)
			r, answer = s.call(s.key, step.method, step.path, step.body)
			want(t, "own "+step.path+": "+answer, r.StatusCode, http.StatusOK)
		}
	}
}

// TestSoundBelongsToWhoAskedForIt: what a chat has spoken is named only by the agent that asked for it.
func TestSoundBelongsToWhoAskedForIt(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), func(w http.ResponseWriter, _ *http.Request) {
			const usage = `"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}`
			if stream {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"audio\":{\"id\":\"audio_1\",\"transcript\":\"w\"}}}]}\n\ndata: {\"choices\":[],%s}\n\ndata: [DONE]\n\n", usage)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"id":"a","model":"m","choices":[{"message":{"audio":{"id":"audio_1","transcript":"w"}}}],%s}`, usage)
		})
		bob := s.another("bob")
		again := `{"model":"m","max_tokens":9,"messages":[{"role":"assistant","Audio":{"\u0069d":"audio_1"}}]}`
		r, answer := s.call(s.key, http.MethodPost, "/v1/chat/completions", again)
		want(t, "before: "+answer, r.StatusCode, http.StatusNotFound)
		r, answer = s.call(s.key, http.MethodPost, "/v1/chat/completions", fmt.Sprintf(`{"model":"m","max_tokens":9,"messages":[],"modalities":["text","audio"],"audio":{"voice":"v"},"stream":%t}`, stream))
		want(t, "asked: "+answer, r.StatusCode, http.StatusOK)
		r, answer = s.call(s.key, http.MethodPost, "/v1/chat/completions", again)
		want(t, "named: "+answer, r.StatusCode, http.StatusOK)
		r, answer = s.call(bob, http.MethodPost, "/v1/chat/completions", again)
		want(t, "by another: "+answer, r.StatusCode, http.StatusNotFound)
	}
}
