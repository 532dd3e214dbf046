package formats_test

import (
	"net/http"
	"strings"
	"testing"
)

// BenchmarkStream is a stream of 500 deltas as a provider sends it, a chunk for each, with the progress asked for each time.
func BenchmarkStream(b *testing.B) {
	call, err := post("/v1/chat/completions", `{"model":"gpt-4o","stream":true}`)
	if err != nil {
		b.Fatal(err)
	}
	delta := []byte(events(`{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1751568164,"model":"gpt-4o-2024-08-06","service_tier":"default","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdefg"}`))
	last := []byte(events(`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":500,"total_tokens":505}}`, "[DONE]"))
	b.SetBytes(int64(500 * len(delta)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		c := call.Counter(200, http.Header{"Content-Type": {"text/event-stream"}})
		for range 500 {
			dst = c.Feed(dst[:0], delta)
			c.Progress()
		}
		c.Feed(dst[:0], last)
		c.Usage(true)
	}
}

// BenchmarkWhole is an answer of 16 KiB of text in one JSON body.
func BenchmarkWhole(b *testing.B) {
	call, err := post("/v1/messages", `{"model":"claude","max_tokens":5}`)
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(`{"type":"message","content":[{"type":"text","text":"` + strings.Repeat("hello world ", 1365) + `"}],"usage":{"input_tokens":5,"output_tokens":7}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		c := call.Counter(200, http.Header{"Content-Type": {"application/json"}})
		c.Feed(nil, body)
		c.Usage(true)
	}
}

// BenchmarkInspect is a request with 100 messages.
func BenchmarkInspect(b *testing.B) {
	body := `{"model":"gpt-4o","stream":true,"messages":[` + strings.Repeat(`{"role":"user","content":"Hello there, how do you do?"},`, 99) + `{"role":"user","content":"Bye"}]}`
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := post("/v1/chat/completions", body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInspectLong is a request with a text of a megabyte, in lines.
func BenchmarkInspectLong(b *testing.B) {
	body := `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat(`How do you do? \"Well,\" he said.\n`, 30_000) + `"}]}`
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := post("/v1/chat/completions", body); err != nil {
			b.Fatal(err)
		}
	}
}
