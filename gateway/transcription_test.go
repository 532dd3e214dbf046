package gateway_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// silence is a WAV of some seconds.
func silence(seconds int) string {
	const rate = 100
	b := []byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00")
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, rate)
	return string(b) + "\x01\x00\x08\x00data\x00\x00\x00\x00" + strings.Repeat("\x80", rate*seconds)
}

// TestSecondsOfAudio: a second is a second of the recording, whatever the format of the answer states, and never a second of the provider's
// clock.
func TestSecondsOfAudio(t *testing.T) {
	t.Parallel()
	const (
		plain    = "text/plain; charset=utf-8"
		json     = "application/json"
		path     = "/v1/audio/transcriptions"
		subtitle = "1\n00:00:00,000 --> 00:00:02,500\nhello\n\n2\n00:00:02,500 --> 00:01:04,250\nthere\n\n"
		webVTT   = "WEBVTT\n\n00:00.000 --> 00:02.500 align:start\nhello\n\n00:02.500 --> 00:04.000 align:start\nthere\n"
	)
	for _, test := range []struct {
		name, path, format, recording string
		kind, answer                  string
		status                        int
		charge, source                string
	}{
		{"text", path, "text", silence(60), plain, "hello there\n", 200, "0.6", "estimated"},
		{"JSON that states nothing", path, "json", silence(60), json, `{"text":"hello there"}`, 200, "0.6", "estimated"},
		{"JSON that states the duration", path, "verbose_json", silence(60), json, `{"text":"hello","duration":10}`, 200, "0.1", "stated"},
		{"JSON that states it in its usage", path, "json", silence(60), json, `{"text":"hello","usage":{"type":"duration","seconds":10}}`, 200, "0.1", "stated"},
		{"SubRip", path, "srt", "?", plain, subtitle, 200, "0.6425", "estimated"},
		{"SubRip that ends before the recording", path, "srt", silence(90), plain, subtitle, 200, "0.9", "estimated"},
		{"WebVTT", path, "vtt", "?", "text/vtt", webVTT, 200, "0.04", "estimated"},
		{"text of what can't be read", path, "text", "?", plain, "hello", 422, "", ""},
		{"JSON that states nothing, of what can't be read", path, "json", "?", json, `{"text":"hello"}`, 502, "", ""},
		{"text, although JSON was asked for, of what can't be read", path, "json", "?", plain, "hello", 502, "", ""},
		{"more than there is money for", path, "text", silence(101), plain, "hello", 402, "", ""},
		{"a body that is the recording", "/v1/listen?model=m", "", silence(60), json, `{"results":{}}`, 200, "0.6", "estimated"},
		{"the same, stated", "/v1/listen?model=m", "", silence(60), json, `{"metadata":{"duration":12.5}}`, 200, "0.125", "stated"},
		{"a chat", "/v1/chat/completions", "", `{"model":"m","messages":[]}`, json, `{"choices":[{}]}`, 422, "", ""},
		{"speech", "/v1/audio/speech", "", `{"model":"m","input":"hello"}`, "audio/mpeg", "x", 422, "", ""},
	} {
		for _, byModel := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, by model %t", test.name, byModel), func(t *testing.T) {
				t.Parallel()
				price, err := pricing.ParseClassPrice("second", strings.Fields("0.01 per second"))
				must(t, err)
				route := gateway.Route{Rates: rates(t, "0.01 per second")}
				tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{price}}}}
				must(t, tariff.Compile(nil))
				if byModel {
					route = gateway.Route{Tariff: tariff}
				}
				s := openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
					if test.status == 422 || test.status == 402 {
						t.Error("it reached the provider")
					}
					w.Header().Set("Content-Type", test.kind)
					_, _ = io.WriteString(w, test.answer)
				})
				body, kind := test.recording, json
				if test.format != "" {
					var form bytes.Buffer
					w := multipart.NewWriter(&form)
					must(t, w.WriteField("model", "m"))
					must(t, w.WriteField("response_format", test.format))
					file, err := w.CreateFormFile("file", "a.wav")
					must(t, err)
					_, _ = io.WriteString(file, test.recording)
					must(t, w.Close())
					body, kind = form.String(), w.FormDataContentType()
				} else if strings.HasPrefix(body, "RIFF") {
					kind = "audio/wav"
				}
				answer, got := s.call(s.key, http.MethodPost, test.path, body, "Content-Type", kind)
				want(t, "status", answer.StatusCode, test.status)
				if test.status != 200 {
					if strings.Contains(got, "hello") {
						t.Errorf("it brings the answer: %s", got)
					}
					want(t, "balance", s.balance("alice"), "1")
					return
				}
				want(t, "charge", answer.Header.Get("Tallygate-Charge"), test.charge)
				charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
				must(t, err)
				want(t, "source", charges[0].Source, test.source)
			})
		}
	}
}

// TestTheRecordingIsTheOnlyOne: where a provider may find another recording than the one whose length is known, the length is unknown. Text,
// which states none, is then refused.
func TestTheRecordingIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	const (
		file  = `name="file"; filename="a.wav"`
		other = `name="x"; filename="b.wav"`
	)
	short, long := silence(1), silence(60)
	for name, test := range map[string]struct {
		parts  []string // pairs: what Content-Disposition says, and the value
		charge string   // empty: refused
	}{
		"one":                          {[]string{file, long}, "0.6"},
		"of another name":              {[]string{`name="audio"; filename="a.wav"`, long}, "0.6"},
		"with what clients send":       {[]string{file, long, `name="language"`, "en", `name="prompt"`, "https://x", `name="timestamp_granularities[]"`, "word"}, "0.6"},
		"two":                          {[]string{file, long, file, short}, ""},
		"a short one of another name":  {[]string{file, long, other, short}, ""},
		"a short one before it":        {[]string{other, short, file, long}, ""},
		"one without a file's name":    {[]string{"name=\"file\"\r\nContent-Type: application/octet-stream", long, other, short}, ""},
		"in base64":                    {[]string{`name="audio"`, "UklGRg==", other, short}, ""},
		"by a URL":                     {[]string{`name="url"`, "https://x/long.wav", file, short}, ""},
		"by a URL that has the bytes":  {[]string{`name="URL"`, "data:audio/wav;base64,UklGRg==", file, short}, ""},
		"by a URL of the name of one":  {[]string{`name="file_url[]"`, "//x/long.wav", file, short}, ""},
		"by what the provider has":     {[]string{`name="file_uri"`, "gs://long.wav", file, short}, ""},
		"only by a URL":                {[]string{`name="file"`, "https://x/long.wav"}, ""},
		"two, of which one is no file": {[]string{file, short, `name="file"`, "https://x/long.wav"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.01 per second")}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = io.WriteString(w, "hello there\n")
			})
			var form strings.Builder
			for pair := range slices.Chunk(append(test.parts, `name="model"`, "m", `name="response_format"`, "text"), 2) {
				form.WriteString("--b\r\nContent-Disposition: form-data; " + pair[0] + "\r\n\r\n" + pair[1] + "\r\n")
			}
			answer, body := s.call(s.key, http.MethodPost, "/v1/audio/transcriptions", form.String()+"--b--\r\n", "Content-Type", "multipart/form-data; boundary=b")
			if test.charge == "" {
				want(t, "status", answer.StatusCode, 422)
				want(t, "balance", s.balance("alice"), "1")
			} else if charge := answer.Header.Get("Tallygate-Charge"); charge != test.charge {
				t.Errorf("%d, charged %q, want %s: %s", answer.StatusCode, charge, test.charge, body)
			}
		})
	}
}
