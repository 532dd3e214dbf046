package formats_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

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
	path, err := url.PathUnescape(path)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	if r.API == "realtime" {
		r.Method = http.MethodGet
		header.Set("Upgrade", "websocket")
	}
	body := r.request
	switch {
	case body != nil:
	case r.API == "mcp":
		body, _ = json.Marshal(map[string]any{"jsonrpc": "2.0", "id": json.RawMessage(gjson.GetBytes(r.body, "id").Raw),
			"method": "tools/call", "params": map[string]any{"name": "lookup"}})
	default: // not recorded: as much as the index tells
		body, _ = json.Marshal(map[string]any{"model": r.Model, "stream": r.Stream, "stream_options": map[string]any{"include_usage": r.Stream}})
	}
	call, err := formats.Inspect(meter.Head{Method: r.Method, Path: path, Query: query, Header: header}, body)
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

type counts struct{ input, cached, written, output, pages, searchUnits, searches int64 }

// want is what the provider stated, in our terms.
func (r *recording) want() counts {
	w := counts{
		input:  r.stated("input") + r.stated("tool_use_prompt"),
		cached: r.stated("cached"), written: r.stated("cache_write"),
		output:      r.stated("output") + r.stated("unattributed"),
		pages:       r.stated("pages"),
		searchUnits: r.stated("billed_search_units"),
		searches:    r.stated("web_search_requests"),
	}
	if _, billed := r.Usage["billed_input_tokens"]; billed { // Cohere
		w.input, w.cached, w.output = r.stated("billed_input_tokens"), 0, r.stated("billed_output_tokens")
	}
	return w
}

// check compares what was counted with what the provider stated.
func (r *recording) check(t *testing.T, u meter.Usage) {
	t.Helper()
	got := counts{
		input:       sum(u.Units, meter.Input, meter.AudioInput, meter.ImageInput),
		cached:      sum(u.Units, meter.Cached),
		written:     sum(u.Units, meter.CacheWrite, meter.CacheWrite1h),
		output:      sum(u.Units, meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput),
		pages:       sum(u.Units, meter.Page),
		searchUnits: sum(u.Units, meter.SearchUnit),
		searches:    sum(u.Units, meter.WebSearch),
	}
	want := r.want()
	if r.Provider != "anthropic" { // the index has searches of Anthropic only
		want.searches = got.searches
	}
	if got != want {
		t.Errorf("counted %+v, stated %+v (%v)", got, want, u.Units)
	}
	if u.Source != meter.Stated {
		t.Errorf("source %q, though stated", u.Source)
	}
	for _, class := range []meter.Class{meter.Reasoning, meter.AudioOutput} {
		name := string(class)
		if r.Iterations == nil && !r.Ambiguous && r.stated("unattributed") == 0 && r.Usage[name] != nil && sum(u.Units, class) != min(r.stated(name), want.output) {
			t.Errorf("%s counted %d, stated %d", name, sum(u.Units, class), r.stated(name))
		}
	}
}

// served is the response's body as it comes over the wire: a recorded WebSocket session is a line for each message.
func (r *recording) served(t *testing.T) []byte {
	if r.API != "realtime" {
		return r.body
	}
	var frames []byte
	for line := range bytes.Lines(r.body) {
		var m struct {
			Direction string
			Data      json.RawMessage
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if m.Direction == "received" {
			frames = append(frames, frame(0x81, m.Data)...)
		}
	}
	return frames
}

// frame makes an unmasked WebSocket frame.
func frame(first byte, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		return append([]byte{first, byte(n)}, payload...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n)), payload...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n)), payload...)
	}
}

// names of the API where ours differ from the index's.
var names = map[string]string{"listen": "audio.transcriptions", "responses.compact": "responses", "invocations": ""}

// tools are the recorded tool calls that succeeded; one more failed.
var tools = map[string]string{
	"mcp/mcp-call-tool-result-response.json":                           "lookup",
	"mcp/mcp-stream-test-mcptoolset-dynamic-toolset-in-workflow-7.sse": "ask_question",
}

func TestRecordings(t *testing.T) {
	for _, r := range recordings(t) {
		t.Run(r.File, func(t *testing.T) {
			body := r.served(t)
			sizes := []int{len(body), 1, 0, 0, 0, 7}
			if len(body) > 1<<18 {
				sizes = []int{len(body), 0, 4096}
			}
			for _, size := range sizes {
				call := r.inspect(t)
				name, renamed := names[r.API]
				if !renamed {
					name = r.API
				}
				switch {
				case r.Provider == "writer" && name == "chat":
					name = "chat.completions"
				case r.Provider == "gemini" && name == "realtime":
					name = "live"
				}
				if call.API != name {
					t.Fatalf("recognised as %q, is %q", call.API, name)
				}
				c := call.Counter(r.Status, r.header())
				out := run(c, body, size)
				u := c.Usage(true)
				if u.Unanswered && u.Length == 0 && r.Status < 400 { // subtitles tell how long they are
					t.Error("it was taken for no answer")
				}
				switch {
				case r.Status >= 400:
					if n := sum(u.Units, meter.Input, meter.Output); n != 0 {
						t.Errorf("an error of status %d counted as %v", r.Status, u.Units)
					}
				case r.API == "mcp":
					if n := u.Tools[tools[r.File]]; n != sum(u.Units, meter.ToolCall) || (n == 1) != (tools[r.File] != "") {
						t.Errorf("counted the tools %v in %v", u.Tools, u.Units)
					}
				case r.Usage != nil:
					r.check(t, u)
				case call.Free && (u.Source != meter.Stated || sum(u.Units, meter.Input, meter.Output) != 0):
					t.Errorf("a free call counted as %v", u.Units)
				}
				if bytes.Equal(call.Body, r.request) && !bytes.Equal(out, body) {
					t.Errorf("pieces of %d: the body was changed", size)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestCut ends every recorded response at random places: what is counted then is never more than in the end, but for the
// prompt, which is estimated while it is not stated; and what Progress says encloses it.
func TestCut(t *testing.T) {
	output := []meter.Class{meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput}
	for _, r := range recordings(t) {
		if r.Status >= 400 || r.Usage == nil {
			continue
		}
		t.Run(r.File, func(t *testing.T) {
			body := r.served(t)
			call := r.inspect(t)
			whole := call.Counter(r.Status, r.header())
			run(whole, body, len(body))
			final := whole.Usage(true).Units
			for range 20 {
				c := call.Counter(r.Status, r.header())
				c.Feed(nil, body[:rand.IntN(len(body))])
				at, bound := c.Progress()
				u := c.Usage(false).Units
				if n := sum(at, output...); n > sum(final, output...) && !falling[r.File] {
					t.Errorf("at least %d tokens of output, in the end %v", n, final)
				}
				if n := sum(u, output...); n > sum(bound, output...) || n < sum(at, output...) && u[meter.Byte] > 0 {
					t.Errorf("at %v, bound %v, exactly %v", at, bound, u)
				}
			}
		})
	}
}

// TestAhead: whoever looks only where Ahead says that it is not known what has come, or a little too much, misses nothing else.
func TestAhead(t *testing.T) {
	skipped := 0
	for _, r := range recordings(t) {
		if r.Status >= 400 {
			continue
		}
		call, other := r.inspect(t), r.inspect(t)
		often, seldom := call.Counter(r.Status, r.header()), other.Counter(r.Status, r.header())
		var at, bound meter.Units // what seldom has told last
		size := 1 + rand.IntN(300)
		for rest := r.served(t); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			often.Feed(nil, rest[:min(size, len(rest))])
			seldom.Feed(nil, rest[:min(size, len(rest))])
			nowAt, nowBound := often.Progress()
			tokens, ok := seldom.Ahead()
			if !ok || tokens > 64 {
				at, bound = seldom.Progress()
				at, bound = maps.Clone(at), maps.Clone(bound)
				continue
			}
			skipped++
			if len(r.served(t)) > tokenisedAlone {
				nowAt[meter.Output], nowBound[meter.Output] = at[meter.Output], bound[meter.Output] // only one of the two may have seen what was tokenised
			}
			within(t, r.File, at, nowAt, tokens)
			within(t, r.File, bound, nowBound, tokens)
		}
	}
	if skipped == 0 {
		t.Error("nothing was known ahead")
	}
}

// tokenisedAlone is the size from which a text may be tokenised on another goroutine.
const tokenisedAlone = 4 << 10

// within checks that units differ from what they were by bytes, events and so many tokens of output.
func within(t *testing.T, file string, before, now meter.Units, tokens int64) {
	t.Helper()
	if grown := now[meter.Output] - before[meter.Output]; grown < 0 || grown > meter.Whole(tokens) {
		t.Errorf("%s: %v, then %v: more than %d tokens", file, before, now, tokens)
	}
	for _, class := range slices.Concat(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(now))) {
		if class != meter.Byte && class != meter.Event && class != meter.Output && before[class] != now[class] {
			t.Errorf("%s: %v, then %v", file, before, now)
		}
	}
}

// falling are recordings whose last statement of usage is below what was stated, or sent, before.
var falling = map[string]bool{
	"gemini/streamGenerateContent-test-native-output-with-builtin-tools-stream.sse": true,
	"openai/responses-stream-response-stream-incomplete.sse":                        true,
}

// TestEveryCut cuts small responses in two at every byte.
func TestEveryCut(t *testing.T) {
	for _, r := range recordings(t) {
		body := r.served(t)
		if r.Status >= 400 || r.Usage == nil || len(body) > 1200 {
			continue
		}
		call := r.inspect(t)
		for i := range body {
			c := call.Counter(r.Status, r.header())
			c.Feed(c.Feed(nil, body[:i]), body[i:])
			r.check(t, c.Usage(true))
			if t.Failed() {
				t.Fatalf("%s, cut at byte %d", r.File, i)
			}
		}
	}
}
