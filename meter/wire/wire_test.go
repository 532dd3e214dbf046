package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// plain is a small dialect of our own: `n` states tokens, `t` is text, `do` says what becomes of the message.
var plain = wire.New(wire.Dialect{
	Rules: []wire.Rule{{Path: "n"}, {Path: "do"}, {Path: "t", Text: meter.Output}, {Path: "x.*", Mark: true}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if n := m.Get("n"); n.Exists() {
			s := wire.Stated{HasCompletion: true, HasPrompt: true}
			s.Completion = wire.Number(n, &s.Suspect)
			t.State(s)
		}
		switch {
		case m.Is("[DONE]"), m.Get("do").String() == "end":
			return wire.Terminal
		case m.Get("do").String() == "drop":
			return wire.Drop
		case m.Get("do").String() == "last":
			return wire.Last
		}
		return wire.Pass
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "error", Data: []byte(`"` + code + `"`)}}
	},
})

func counter(contentType string, stream bool) meter.Counter {
	return wire.NewCounter(plain, &meter.Call{Model: "gpt-4o", Stream: stream}, 200, http.Header{"Content-Type": {contentType}})
}

func sseStream(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		b.WriteString("data: " + d + "\n\n")
	}
	return b.String()
}

func TestHolding(t *testing.T) {
	tests := []struct {
		name, contentType, body, held, units string
	}{
		{"no terminal event", "text/event-stream", sseStream("1", "2"), "", "call=1,event=2"},
		{"terminal", "text/event-stream", sseStream("1", "[DONE]") + ": end\n\n", sseStream("[DONE]") + ": end\n\n", "call=1,event=1"},
		{"after the terminal", "text/event-stream", sseStream("[DONE]", `{"t":"hello"}`), sseStream("[DONE]", `{"t":"hello"}`), "call=1,event=1,output=1"},
		{"last", "text/event-stream", sseStream("1", `{"do":"last"}`), sseStream(`{"do":"last"}`), "call=1,event=2"},
		{"not the last", "text/event-stream", sseStream(`{"do":"last"}`, "1"), "", "call=1,event=2"},
		{"last, then a comment", "text/event-stream", sseStream(`{"do":"last"}`) + ": x\n\n", sseStream(`{"do":"last"}`) + ": x\n\n", "call=1,event=1"},
		{"no final newline", "text/event-stream", "data: {\"n\":7}", "data: {\"n\":7}", "call=1,event=1,output=7"},
		{"lines", "application/x-ndjson", "{\"t\":\"a\"}\n{\"do\":\"end\",\"n\":3}\n", "{\"do\":\"end\",\"n\":3}\n", "call=1,event=1,output=3"},
		{"line without end", "application/x-ndjson", "{\"n\":3}", "{\"n\":3}", "call=1,event=1,output=3"},
		{"json", "application/json", `{"n":3}` + "\n", "\n", "call=1,output=3"},
		{"json array", "application/json", `[{"n":1},` + "\n" + `{"n":3}` + "\n]\n", "\n]\n", "call=1,event=2,output=3"},
		{"json suffix", "application/problem+json", `{"n":3}`, "}", "call=1,output=3"},
		{"undecided json", "", `{"n":3}`, "}", "call=1,output=3"},
		{"undecided sse", "", sseStream(`{"n":3}`), "", "call=1,event=1,output=3"},
		{"undecided text", "text/plain", "hello", "o", "call=1"},
		{"sse that is json", "text/event-stream", `{"n":3}`, `{"n":3}`, "call=1"},
		{"raw", "audio/mpeg", "data: 1\n\n", "\n", "call=1"},
		{"empty", "application/json", "", "", "call=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 5, 1000} {
				c := counter(tt.contentType, true)
				var out []byte
				for rest := tt.body; rest != ""; {
					n := min(size, len(rest))
					out = c.Feed(out, []byte(rest[:n]))
					rest = rest[n:]
				}
				if want := strings.TrimSuffix(tt.body, tt.held); string(out) != want {
					t.Errorf("pieces of %d: passed on %q, want %q", size, out, want)
				}
				u := c.Usage(true)
				delete(u.Units, meter.Byte)
				if tail := string(c.Tail()); tail != tt.held {
					t.Errorf("pieces of %d: held back %q, want %q", size, tail, tt.held)
				}
				if got := u.Units.String(); got != tt.units {
					t.Errorf("pieces of %d: counted %s, want %s", size, got, tt.units)
				}
			}
		})
	}
}

// TestAtOnce: a complete event goes on with the byte that completes it.
func TestAtOnce(t *testing.T) {
	c := counter("text/event-stream", true)
	event := "event: x\r\ndata: {\"t\":\"a\"}\r\n\r\n"
	if out := c.Feed(nil, []byte(event[:len(event)-1])); len(out) != 0 {
		t.Errorf("%q went on before it was complete", out)
	}
	if out := c.Feed(nil, []byte(event[len(event)-1:]+"data: 1")); string(out) != event {
		t.Errorf("passed on %q", out)
	}
}

// TestOversized: an event of any size goes on without being collected, and is read all the same.
func TestOversized(t *testing.T) {
	c := counter("text/event-stream", true)
	var out []byte
	feed := func(s string) {
		n := len(out)
		out = c.Feed(out, []byte(s))
		if grown := len(out) - n; grown > 2*wire.MaxEvent {
			t.Fatalf("%d bytes came at once", grown)
		}
	}
	body := `data: {"b64":"` + strings.Repeat("QUJD", 1<<20) + `","t":" hello hello","do":"end","n":9}` + "\n\n"
	for i := 0; i < len(body); i += 32 << 10 {
		feed(body[i:min(i+32<<10, len(body))])
	}
	if held := len(body) - len(out); held == 0 || held > 32<<10 {
		t.Errorf("%d of %d bytes were held back", held, len(body))
	}
	if stop := c.Stop("x", "y"); stop == nil {
		t.Error("after the event the stream can't be stopped")
	}
	u := c.Usage(true)
	if u.Units[meter.Output] != meter.Whole(9) || u.Source != meter.Stated {
		t.Errorf("counted %v", u.Units)
	}
	if all := string(out) + string(c.Tail()); all != body {
		t.Error("the bytes were changed")
	}
}

// TestEndOfOversized: however an event is cut, its last bytes go on only when it is known not to be the end.
func TestEndOfOversized(t *testing.T) {
	event := func(do string) string {
		return `data: {"b64":"` + strings.Repeat("QUJD", wire.MaxEvent/3) + `","t":" hello","do":"` + do + `"}` + "\n\n"
	}
	for _, do := range []string{"end", "on"} {
		for last := range 24 {
			c := counter("text/event-stream", true)
			body := event(do)
			out := c.Feed(nil, []byte(body[:len(body)-last]))
			if last > 0 && len(out) > len(body)-16 {
				t.Fatalf("%s, %d bytes to come: all but %d bytes went on", do, last, len(body)-len(out))
			}
			out = c.Feed(out, []byte(body[len(body)-last:]))
			if ended := len(out) <= len(body)-16; ended != (do == "end") {
				t.Fatalf("%s, the last %d bytes on their own: %d of %d bytes went on", do, last, len(out), len(body))
			}
			if all := string(out) + string(c.Tail()); all != body {
				t.Fatal("the bytes were changed")
			}
		}
	}
}

func TestStopInOversized(t *testing.T) {
	c := counter("text/event-stream", true)
	c.Feed(nil, []byte("data: "+strings.Repeat("x", 2*wire.MaxEvent)))
	if stop := c.Stop("x", "y"); stop != nil {
		t.Errorf("stopped by %q in the middle of an event", stop)
	}
}

// TestEndless: what follows a terminal event without end is not collected.
func TestEndless(t *testing.T) {
	c := counter("text/event-stream", true)
	c.Feed(nil, []byte(sseStream("[DONE]")))
	event := sseStream(strings.Repeat("x", 1000))
	var out int
	for range 10_000 {
		out += len(c.Feed(nil, []byte(event)))
	}
	if kept := len(c.Tail()); kept > 3*wire.MaxEvent {
		t.Errorf("%d bytes are kept", kept)
	}
	if out == 0 {
		t.Error("nothing went on")
	}
}

func TestCut(t *testing.T) {
	c := counter("text/event-stream", true)
	c.Feed(nil, []byte(sseStream(`{"t":" one"}`, `{"n":5}`, `{"t":" two"}`)+`data: {"t":" three"}`))
	want := "byte=55,event=3,output=6" // the stated five, and a word after it; the unfinished event was not sent
	for range 2 {
		u := c.Usage(false)
		if got := u.Units.String(); got != want || u.Source != meter.Estimated {
			t.Errorf("counted %s, %s; want %s", got, u.Source, want)
		}
	}
	if out := c.Feed(nil, []byte("\n\n")); len(out) == 0 {
		t.Error("after Usage(false) the stream does not go on")
	}

	c = counter("application/json", false)
	c.Feed(nil, []byte(`{"t":"hello hello hello`))
	for range 2 {
		if u := c.Usage(false); u.Units[meter.Output] != meter.Whole(3) || u.Source != meter.Estimated {
			t.Errorf("counted %v of a body that was cut", u.Units)
		}
	}
	c.Feed(nil, []byte(`","n":3}`))
	if u := c.Usage(true); u.Units[meter.Output] != meter.Whole(3) || u.Source != meter.Stated {
		t.Errorf("counted %v, %s", u.Units, u.Source)
	}

	c = counter("text/event-stream", true)
	c.Feed(nil, []byte(`data: {"t":"hello"}`))
	if got := c.Usage(false).Units.String(); got != "" {
		t.Errorf("counted %s, though nothing was sent", got)
	}
}

func TestErrorBody(t *testing.T) {
	c := wire.NewCounter(plain, &meter.Call{}, 429, http.Header{"Content-Type": {"application/json"}})
	c.Feed(nil, []byte(`{"n":5,"t":"too many requests"}`))
	if got := c.Usage(true).Units.String(); got != "byte=31,call=1" {
		t.Errorf("counted %s", got)
	}
}

func TestProgress(t *testing.T) {
	c := counter("text/event-stream", true)
	for range 200 {
		c.Feed(nil, []byte(sseStream(`{"t":" hello there, what is up?"}`)))
		at, bound := c.Progress()
		exact := c.Usage(false).Units
		if at[meter.Output] > exact[meter.Output] || bound[meter.Output] < exact[meter.Output] || at[meter.Event] != exact[meter.Event] {
			t.Fatalf("at %v, exact %v, bound %v", at, exact, bound)
		}
	}
	c.Feed(nil, []byte(sseStream(`{"n":12}`)))
	at, bound := c.Progress()
	if at.String() != bound.String() || at[meter.Output] != meter.Whole(12) {
		t.Errorf("after a statement: at %v, bound %v", at, bound)
	}
}

// TestAbsurd: what is no count is none, and of what no answer can have used, the most that one can stands.
func TestAbsurd(t *testing.T) {
	for n, want := range map[string]string{
		`-5`: "", `1e30`: "output=10000000", `99999999999999999999`: "output=10000000", `20000000`: "output=10000000", `"12"`: "output=12", `"x"`: "",
		`[1]`: "", `{"n":1}`: "", `true`: "", `1.5`: "output=2", `NaN`: "", `-1e400`: "", `1e400`: "output=10000000",
	} {
		c := counter("application/json", false)
		c.Feed(nil, []byte(`{"n":`+n+`}`))
		u := c.Usage(true)
		delete(u.Units, meter.Byte)
		delete(u.Units, meter.Calls)
		if got := u.Units.String(); got != want || !u.Suspect {
			t.Errorf("%s counted as %q, suspect %v; want %q", n, got, u.Suspect, want)
		}
	}
	c := counter("application/json", false)
	c.Feed(nil, []byte(`{"n":12.0}`))
	if u := c.Usage(true); u.Suspect || u.Units[meter.Output] != meter.Whole(12) {
		t.Errorf("12.0 counted as %v, suspect %v", u.Units, u.Suspect)
	}
}

func TestStated(t *testing.T) {
	tests := []struct {
		stated  wire.Stated
		want    string
		suspect bool
	}{
		{wire.Stated{Prompt: 10, Cached: 4, CacheWrite: 3, CacheWrite1h: 1, Completion: 9, Reasoning: 5}, "cache_write=2,cache_write_1h=1,cached=4,input=3,output=4,reasoning=5", false},
		{wire.Stated{Prompt: 7, Cached: 161}, "cached=7", true},
		{wire.Stated{Prompt: 2168, Cached: 2161, CacheWrite: 2161}, "cache_write=2161,cached=2161,input=7", false},
		{wire.Stated{Prompt: 10, CacheWrite: 12}, "cache_write=10", true},
		{wire.Stated{Prompt: 10, Cached: 8, AudioInput: 5}, "audio_input=2,cached=8", false},
		{wire.Stated{Completion: 3, Reasoning: 5}, "reasoning=3", true},
		{wire.Stated{Completion: 10, AudioOutput: 4, ImageOutput: 3}, "audio_output=4,image_output=3,output=3", false},
	}
	for _, tt := range tests {
		s := tt.stated
		if got := s.Units().String(); got != tt.want || s.Suspect != tt.suspect {
			t.Errorf("%+v: %s, suspect %v", tt.stated, got, s.Suspect)
		}
	}
}

func TestWebSocket(t *testing.T) {
	frame := func(first byte, payload string) string {
		switch n := len(payload); {
		case n < 126:
			return string([]byte{first, byte(n)}) + payload
		case n < 1<<16:
			return string(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n))) + payload
		default:
			return string(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n))) + payload
		}
	}
	masked := string([]byte{0x81, 0x80 | 7, 1, 2, 3, 4})
	for i, c := range []byte(`{"n":4}`) {
		masked += string([]byte{c ^ byte(i%4+1)})
	}
	closing := frame(0x88, "\x03\xe8")
	body := frame(0x81, `{"t":"`+strings.Repeat(" hello", 100)+`"}`) + frame(0x89, "ping") +
		frame(0x01, `{"t":" he`) + frame(0x89, "") + frame(0x80, `llo"}`) + masked
	for _, size := range []int{1, 3, 1000} {
		c := wire.NewCounter(plain, &meter.Call{Model: "gpt-4o", Stream: true}, 101, http.Header{})
		var out []byte
		for rest := body + closing; rest != ""; {
			n := min(size, len(rest))
			out = c.Feed(out, []byte(rest[:n]))
			rest = rest[n:]
		}
		if string(out) != body {
			t.Errorf("pieces of %d: the frames were changed", size)
		}
		if stop := string(c.Stop("funds", "")); stop != frame(0x81, `"funds"`)+"\x88\x02\x03\xf0" {
			t.Errorf("stopped by %q", stop)
		}
		if tail := string(c.Tail()); tail != closing {
			t.Errorf("pieces of %d: held back %q", size, tail)
		}
		u := c.Usage(true)
		delete(u.Units, meter.Byte)
		if got := u.Units.String(); got != "call=1,event=3,output=4" {
			t.Errorf("pieces of %d: counted %s", size, got)
		}
	}
}

func TestEventStream(t *testing.T) {
	encode := func(name, payload string) string {
		var b bytes.Buffer
		m := eventstream.Message{Payload: []byte(payload)}
		m.Headers.Set(":event-type", eventstream.StringValue(name))
		if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	end := encode("x", `{"do":"end"}`)
	passed := encode("x", `{"t":" hello"}`) + encode("chunk", `{"bytes":"eyJuIjo2fQ=="}`) + strings.Repeat("\x00\x00\x00\x10bad CRC here", 1)
	for _, size := range []int{1, 5, 1000} {
		c := counter("application/vnd.amazon.eventstream", true)
		var out []byte
		for rest := passed + end; rest != ""; {
			n := min(size, len(rest))
			out = c.Feed(out, []byte(rest[:n]))
			rest = rest[n:]
		}
		if string(out) != passed || string(c.Tail()) != end {
			t.Errorf("pieces of %d: the messages were changed", size)
		}
		u := c.Usage(true)
		delete(u.Units, meter.Byte)
		if got := u.Units.String(); got != "call=1,event=3,output=6" {
			t.Errorf("pieces of %d: counted %s", size, got)
		}
	}
	c := counter("application/vnd.amazon.eventstream", true)
	m, err := eventstream.NewDecoder().Decode(bytes.NewReader(c.Stop("funds", "")), nil)
	if err != nil || m.Headers.Get(":exception-type").String() != "error" || string(m.Payload) != `"funds"` {
		t.Errorf("stopped by %v, %v", m, err)
	}
}

func TestInputBound(t *testing.T) {
	png := "iVBORw0KGgo" + strings.Repeat("A", 400_001)
	text := strings.Repeat("hello world ", 1000)
	tests := []struct {
		body     string
		min, max int64
		open     bool
	}{
		{`{"messages":[{"content":"` + text + `"}]}`, 12_000, 12_200, false},
		{`{"image_url":{"url":"data:image/png;base64,` + png + `"}}`, 24_600, 25_000, false},
		{`{"type":"input_image","image_url":"https://x.y/z.png"}`, 24_600, 25_000, false},
		{`{"source":{"type":"text","data":"` + text + `"}}`, 12_000, 12_200, false},
		{`{"content":"` + png + `"}`, 400_000, 400_200, false},
		{`{"data":"` + "T2dnUw" + strings.Repeat("A", 12002) + `"}`, 1000, 1200, false}, // Ogg
		{`{"previous_response_id":"r"}`, 28, 200, true},
		{`{"tools":[{"type":"web_search"}]}`, 30, 200, true},
		{`{"tools":[{"type":"code_execution_20250825"}]}`, 30, 200, true},
		{`{"tools":[{"codeExecution":{}}]}`, 30, 200, true},
		{`{"tools":[{"type":"function"}]}`, 30, 200, false},
		{`{"mcp_servers":[{"type":"url","url":"https://x.y"}]}`, 30, 200, true},
		{`{"source":{"type":"url","url":"https://x.y/z.pdf"},"type":"document"}`, 60, 200, true},
		{`{"type":"image","source":{"type":"url","url":"https://x.y/z.png"}}`, 24_600, 25_000, false},
		{`{"a":"\\\\\""}`, 10, 100, false},
		{`{"a":"cut`, 9, 100, false},
	}
	for _, tt := range tests {
		c := wire.NewRequest(meter.Head{}, []byte(tt.body)).Call(&wire.API{})
		if c.InputTokens < tt.min || c.InputTokens > tt.max || c.InputOpen != tt.open {
			t.Errorf("%.50s: at most %d tokens, open %v; want %d to %d, %v", tt.body, c.InputTokens, c.InputOpen, tt.min, tt.max, tt.open)
		}
	}
}

func FuzzCounter(f *testing.F) {
	kinds := []string{"text/event-stream", "application/x-ndjson", "application/json", "application/vnd.amazon.eventstream", "", "audio/mpeg"}
	f.Add(uint8(0), []byte(sseStream(`{"t":"a"}`, `{"do":"last"}`, "[DONE]")), 3)
	f.Add(uint8(2), []byte(`[{"n":1},{"do":"drop"}]`), 1)
	f.Add(uint8(6), []byte("\x81\x05{\"n\":\x88\x00"), 2)
	f.Fuzz(func(t *testing.T, kind uint8, body []byte, size int) {
		status, h := 200, http.Header{}
		if k := int(kind) % (len(kinds) + 1); k < len(kinds) {
			h.Set("Content-Type", kinds[k])
		} else {
			status = 101
		}
		drops := bytes.Contains(body, []byte("drop")) || bytes.Contains(body, []byte(`\u`))
		var first string
		for i, size := range []int{len(body) + 1, max(size, 1)} {
			c := wire.NewCounter(plain, &meter.Call{Model: "gpt-4o", Stream: true}, status, h)
			var out []byte
			var before meter.Quantity
			for rest := body; len(rest) > 0; {
				n := min(size, len(rest))
				out = c.Feed(out, rest[:n])
				rest = rest[n:]
				tokens, ok := c.Ahead()
				at, bound := c.Progress()
				if at[meter.Output] > bound[meter.Output] {
					t.Fatalf("at %v, bound %v", at, bound)
				}
				if ok && bound[meter.Output] > before+meter.Whole(tokens) {
					t.Fatalf("%d tokens more than %v: %v", tokens, before, bound)
				}
				before = bound[meter.Output]
			}
			out = append(out, c.Tail()...)
			if !drops && !bytes.Equal(out, body) {
				t.Fatalf("the body was changed: %q", out)
			}
			if got := c.Usage(true).Units.String(); i == 0 {
				first = got
			} else if got != first {
				t.Fatalf("counted %s in pieces, %s whole", got, first)
			}
		}
	})
}

// FuzzRequest compares what is taken for JSON with what Go takes for it.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{`{}`, `[]`, `{"a":[1,-0.5e+3,true,false,null,"\u00e9\n"]}`, `{"a":01}`, `{"a":1.}`, `{"a":"\x"}`, `{"a":tru}`, `[1,]`, `{"a" 1}`,
		`{} x`, "{\"a\":\"\x01\"}", `{"a":"\u12"}`, `[-]`, `[1e]`, `{"max_tokens":1e2,"N":1.0}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := wire.NewRequest(meter.Head{}, body)
		text := bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")), " \t\r\n")
		want := json.Valid(text) && (text[0] == '{' || text[0] == '[')
		if got := r.Object() || r.Batch(); got != want && bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) < 1000 {
			t.Errorf("%q is JSON: %v, Go says %v", body, got, want)
		}
		if want && !json.Valid(r.Body) {
			t.Errorf("%q goes on as %q", body, r.Body)
		}
	})
}
