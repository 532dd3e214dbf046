package formats_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// recording is an entry of the recordings' index.json.
type recording struct {
	File        string            `json:"file"`
	RequestFile string            `json:"request_file"`
	Provider    string            `json:"provider"`
	API         string            `json:"api"`
	Stream      bool              `json:"stream"`
	Method      string            `json:"method"`
	Status      int               `json:"status"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers"`
	RequestPath string            `json:"request_path"`
	Model       string            `json:"model"`
	Usage       map[string]any    `json:"usage"`
	Iterations  map[string]any    `json:"usage_iterations_sum"`
	Ambiguous   bool              `json:"ambiguous"`
	Features    []string          `json:"features"`
	Notes       []string          `json:"notes"`

	body    []byte
	request []byte
}

// recordings loads all recordings. They are not part of the repository: without them the tests are skipped, unless
// TALLYGATE_REQUIRE_RECORDINGS is set.
func recordings(t testing.TB) []*recording {
	dir := os.Getenv("TALLYGATE_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "recordings")
	}
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		if os.Getenv("TALLYGATE_REQUIRE_RECORDINGS") != "" {
			t.Fatalf("the recordings are required: %v", err)
		}
		t.Skipf("SKIPPED, the recorded provider responses are not here (set TALLYGATE_RECORDINGS): %v", err)
	}
	var all []*recording
	if err := json.Unmarshal(index, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.body, err = os.ReadFile(filepath.Join(dir, r.File)); err != nil {
			t.Fatal(err)
		}
		if r.RequestFile == "" {
			continue
		}
		if r.request, err = os.ReadFile(filepath.Join(dir, r.RequestFile)); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func (r *recording) header() http.Header {
	h := http.Header{}
	for name, value := range r.Headers {
		h.Set(name, value)
	}
	if r.ContentType != "" {
		h.Set("Content-Type", r.ContentType)
	}
	return h
}

func (r *recording) inspect(t testing.TB) *meter.Call {
	t.Helper()
	path, query, _ := strings.Cut(r.RequestPath, "?")
	body := r.request
	if body == nil { // not recorded: as much as the index tells
		body, _ = json.Marshal(map[string]any{"model": r.Model, "stream": r.Stream, "stream_options": map[string]any{"include_usage": r.Stream}})
	}
	call, err := formats.Inspect(meter.Head{Method: r.Method, Path: path, Query: query}, body)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// run feeds the body in pieces of the given size, or of random sizes where it is 0, and returns what a client got.
func run(c meter.Counter, body []byte, size int) []byte {
	var out []byte
	for rest := body; len(rest) > 0; {
		n := size
		if n == 0 {
			n = 1 + rand.IntN(200)
		}
		n = min(n, len(rest))
		out = c.Feed(out, rest[:n])
		rest = rest[n:]
	}
	return append(out, c.Tail()...)
}

// whole units of the classes.
func sum(u meter.Units, classes ...meter.Class) int64 {
	var n meter.Quantity
	for _, c := range classes {
		n += u[c]
	}
	return n.Ceil()
}

func (r *recording) stated(name string) int64 {
	usage := r.Usage
	if r.Iterations != nil {
		if _, ok := r.Iterations[name]; ok {
			usage = r.Iterations
		}
	}
	n, _ := usage[name].(float64)
	return int64(n)
}

// check compares what was counted with what the provider stated.
func (r *recording) check(t *testing.T, u meter.Usage) {
	t.Helper()
	input := sum(u.Units, meter.Input, meter.AudioInput, meter.ImageInput)
	output := sum(u.Units, meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput)
	cached, written := sum(u.Units, meter.Cached), sum(u.Units, meter.CacheWrite, meter.CacheWrite1h)
	want := struct{ input, cached, written, output int64 }{
		r.stated("input") + r.stated("tool_use_prompt"), r.stated("cached"), r.stated("cache_write"), r.stated("output") + r.stated("unattributed")}
	if r.Ambiguous && want.cached == want.written { // OpenRouter: what was written is counted as read, too
		want.written = 0
	}
	got := struct{ input, cached, written, output int64 }{input, cached, written, output}
	if got != want {
		t.Errorf("counted %+v, stated %+v (%v)", got, want, u.Units)
	}
	if u.Source != meter.Stated {
		t.Errorf("source %q, though stated", u.Source)
	}
}

func TestRecordings(t *testing.T) {
	for _, r := range recordings(t) {
		if r.Status >= 400 || r.Usage == nil || r.API != "chat.completions" && r.API != "messages" {
			continue
		}
		t.Run(r.File, func(t *testing.T) {
			for _, size := range []int{len(r.body), 1, 0, 0, 0, 7} {
				call := r.inspect(t)
				if call.API != r.API {
					t.Fatalf("recognised as %q, is %q", call.API, r.API)
				}
				c := call.Counter(r.Status, r.header())
				out := run(c, r.body, size)
				r.check(t, c.Usage(true))
				if bytes.Equal(call.Body, r.request) && !bytes.Equal(out, r.body) {
					t.Errorf("pieces of %d: the body was changed", size)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}
