package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// TestWhatIsAskedMustBeSaid: a request is refused before the provider works if it does not state the number on which its price depends, or
// asks for nothing that has a price.
func TestWhatIsAskedMustBeSaid(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, price, path, body string
		status                  int
		charge                  string
	}{
		{"a container", "0.03 per code_session", "/v1/containers", `{"name":"a"}`, 200, "0.03"},
		{"a large container", "0.03 per code_session", "/v1/containers", `{"name":"a","memory_limit":"4g"}`, 200, "0.12"},
		{"a container of no size", "0.03 per code_session", "/v1/containers", `{"name":"a","memory_limit":"many"}`, 422, ""},
		{"a container where tokens are sold", "0.03 per token", "/v1/containers", `{"name":"a"}`, 422, ""},
		{"a video of Google's", "0.01 per asked_second", "/v1beta/models/veo-3:predictLongRunning", `{"instances":[],"parameters":{"durationSeconds":8}}`, 200, "0.08"},
		{"a video of unknown length", "0.01 per asked_second", "/v1/videos", `{"model":"m"}`, 422, ""},
		{"a remix of unknown length", "0.01 per asked_second", "/v1/videos/video_1/remix", `{"model":"m"}`, 422, ""},
		{"speech without text", "0.01 per input_character", "/v1/audio/speech", `{"model":"m"}`, 422, ""},
		{"sound where tokens are sold", "0.01 per token", "/v1/audio/speech", `{"model":"m","input":"a"}`, 422, ""},
		{"sound of ElevenLabs where tokens are sold", "0.01 per token", "/v1/text-to-speech/voice", `{"text":"a"}`, 422, ""},
		{"sound where tokens of the input are sold", "0.01 per input_token", "/v1/audio/speech", `{"model":"m","input":"a"}`, 200, "0.01"},
		{"images by the query", "0.01 per asked_image", "/v1/images/generations?n=4", `{"model":"m"}`, 422, ""},
		{"images by the query, escaped, in another case, as a list", "0.01 per asked_image", "/v1/images/generations?%4E%5B0%5D=4", `{"model":"m"}`, 422, ""},
		{"seconds by the query", "0.01 per asked_second", "/v1/videos?Duration=10", `{"model":"m","seconds":"4"}`, 422, ""},
		{"what does not matter in the query", "0.01 per asked_image", "/v1/images/generations?api-version=1&name=4", `{"model":"m"}`, 200, "0.01"},
		{"a chat where images are sold", "0.01 per asked_image", "/v1/chat/completions", `{"model":"m","messages":[]}`, 422, ""},
		{"an image where seconds are sold", "0.01 per asked_second", "/v1/images/generations", `{"model":"m"}`, 422, ""},
		{"a video where tokens are sold", "0.01 per token", "/v1/videos", `{"model":"m","seconds":"4"}`, 422, ""},
		{"an unknown call where images are sold", "0.01 per asked_image", "/search", `{"n":4}`, 422, ""},
		{"a video by the call", "0.01 per call", "/v1/videos", `{"model":"m"}`, 200, "0.01"},
		{"a video by the minute", "0.6 per asked_minute", "/v1/videos", `{"model":"m","seconds":"4"}`, 200, "0.04"},
		{"an upload by the kilobyte", "1 per input_KB", "/upload", strings.Repeat("x", 100), 200, "0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, test.price)}, func(w http.ResponseWriter, r *http.Request) {
				asked++
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(w, "{}")
			})
			status, body := s.post(test.path, strings.NewReader(test.body))
			if status != test.status || (asked > 0) != (test.status == 200) {
				t.Fatalf("%d %s, the provider was asked %d times", status, body, asked)
			}
			want(t, "charges", s.amounts(), test.charge)
		})
	}
}

// TestABodyOfUnknownLengthIsWeighed: a body without a stated length costs the same, and the call does not begin without the money for it.
func TestABodyOfUnknownLengthIsWeighed(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.01 per input_byte")}, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat(".", int(n)))
	})
	if status, body := s.post("/upload", io.MultiReader(strings.NewReader("01234"), strings.NewReader("56789"))); status != 200 || body != ".........." {
		t.Fatalf("%d %s", status, body)
	}
	want(t, "charges", s.amounts(), "0.1")
	if status, _ := s.post("/upload", io.MultiReader(strings.NewReader(strings.Repeat("x", 91)))); status != 402 {
		t.Errorf("%d for more than there is money for", status)
	}
	want(t, "balance", s.balance("alice"), "0.9")
}

// post makes a call with alice's key.
func (s *shop) post(path string, body io.Reader) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, body)
	must(s.t, err)
	r.Header.Set("Tallygate-Key", s.key)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(s.t, err)
	return answer.StatusCode, string(text)
}

// TestImagesThatComeUnasked: an answer with more images than the request seems to ask for costs what it has, and one with fewer what was
// asked for. One that costs more than there is does not go out.
func TestImagesThatComeUnasked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, price, body, answer string
		status                    int
		charge                    string
	}{
		{"as asked", "0.01 per asked_image", `{"model":"m","n":2}`, `{"data":[{"url":"a"},{"url":"b"}]}`, 200, "0.02"},
		{"more", "0.01 per asked_image", `{"model":"m","batch_size":4}`, `{"data":[{"url":"a"},{"url":"b"},{"url":"c"},{"url":"d"}]}`, 200, "0.04"},
		{"more, in base64", "0.01 per asked_image", `{"model":"m","num_images":2}`, `{"created":1,"data":[{"b64_json":"a","url":null},{"b64_json":"b","url":null}]}`, 200, "0.02"},
		{"more, under another name", "0.01 per asked_image", `{"model":"m"}`, `{"images":[{"url":"a"},{"url":"b"},{"url":"c"}]}`, 200, "0.03"},
		{"fewer", "0.01 per asked_image", `{"model":"m","n":4}`, `{"data":[{"url":"a"}]}`, 200, "0.04"},
		{"as a stream", "0.01 per asked_image", `{"model":"m","stream":true}`, "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"a\"}\n\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"a\"}\n\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"b\"}\n\n", 200, "0.02"},
		{"more than there is money for", "0.4 per asked_image", `{"model":"m"}`, `{"data":[{"url":"a"},{"url":"b"},{"url":"c"}]}`, 402, ""},
		{"where calls are sold", "0.01 per call", `{"model":"m"}`, `{"data":[{"url":"a"},{"url":"b"},{"url":"c"}]}`, 200, "0.01"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, test.price)}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if strings.HasPrefix(test.answer, "data:") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			_, _ = io.WriteString(w, test.answer)
		})
		if status, body := s.post("/v1/images/generations", strings.NewReader(test.body)); status != test.status || status == 200 && !strings.HasPrefix(body, test.answer[:20]) {
			t.Errorf("%s: %d %s", test.name, status, body)
		}
		if got := s.amounts(); got != test.charge {
			t.Errorf("%s: charged %s, want %s", test.name, got, test.charge)
		}
	}
}
