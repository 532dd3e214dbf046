package sse_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter/sse"
)

// scan splits a stream in pieces of the given sizes, repeated, and writes down each event as NAME(DATA).
func scan(stream string, sizes ...int) (events []string, raw string) {
	var s sse.Scanner
	var data, bytes strings.Builder
	for i := 0; stream != ""; i++ {
		n := min(max(1, sizes[i%len(sizes)]), len(stream))
		piece := []byte(stream[:n])
		stream = stream[n:]
		for len(piece) > 0 {
			n, end := s.Scan(piece, func(p []byte) { data.Write(p) })
			bytes.Write(piece[:n])
			piece = piece[n:]
			if end == sse.More {
				continue
			}
			if end == sse.Event && s.HasData() {
				events = append(events, fmt.Sprintf("%s(%s)", s.Name(), data.String()))
			}
			data.Reset()
			s.Next()
		}
	}
	if s.InEvent() && s.HasData() {
		events = append(events, fmt.Sprintf("%s(%s)…", s.Name(), data.String()))
	}
	return events, bytes.String()
}

// reference splits a stream as the specification says, line by line.
func reference(stream string) (events []string) {
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	var name, data string
	lines, hasData := 0, false
	flush := func(mark string) {
		if hasData {
			events = append(events, fmt.Sprintf("%s(%s)%s", name, data, mark))
		}
		name, data, lines, hasData = "", "", 0, false
	}
	for {
		line, rest, found := strings.Cut(stream, "\n")
		if found && line == "" {
			flush("")
		}
		key, value, colon := strings.Cut(line, ":")
		if !found && !colon { // a field whose name is not complete
			key = ""
		}
		value = strings.TrimPrefix(value, " ")
		switch key {
		case "data":
			if lines++; lines > 1 {
				data += "\n"
			}
			data += value
			hasData = hasData || value != "" || lines > 1
		case "event":
			name = value
		}
		if stream = rest; !found {
			flush("…")
			return events
		}
	}
}

func TestScan(t *testing.T) {
	tests := []struct {
		stream string
		want   string
	}{
		{"data: a\n\ndata:b\n\n", "(a) (b)"},
		{"event: x\r\ndata: a\r\n\r\n: ping\r\n\r\ndata: b\r\n\r\n", "x(a) (b)"},
		{"data: a\r\rdata: b\r\r", "(a) (b)"},
		{"data: a\ndata:\ndata:  c\n\n", "(a\n\n c)"},
		{"data\n\n", ""},
		{"data\ndata\n\n", "(\n)"},
		{"data:\n\n", ""},
		{"event: x\n\ndata: a\n\n", "(a)"},
		{"id: 1\nretry: 5\nfoo\ndata: a\nevent: late\n\n", "late(a)"},
		{"datax: a\ndat: b\n: data: c\ndata : d\n\n", ""},
		{"data: a", "(a)…"},
		{"data: a\n", "(a)…"},
		{"\n\n\ndata: a\n\n\n\n", "(a)"},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 2, 3, 1000} {
			got, raw := scan(tt.stream, size)
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%q in pieces of %d: got %q, want %q", tt.stream, size, got, tt.want)
			}
			if raw != tt.stream {
				t.Errorf("%q: the bytes became %q", tt.stream, raw)
			}
		}
		if ref := strings.Join(reference(tt.stream), " "); ref != tt.want {
			t.Errorf("%q: the reference says %q", tt.stream, ref)
		}
	}
}

// TestCommentAtOnce: a keep-alive comment goes on without waiting for the event that follows.
func TestCommentAtOnce(t *testing.T) {
	var s sse.Scanner
	if n, end := s.Scan([]byte(": ping\n"), nil); n != 7 || end != sse.Comment {
		t.Errorf("took %d bytes, %v", n, end)
	}
}

func TestBOM(t *testing.T) {
	if got, _ := scan("\xEF\xBB\xBFdata: a\n\n", 1); len(got) != 1 || got[0] != "(a)" {
		t.Errorf("got %q", got)
	}
}

func TestLongName(t *testing.T) {
	got, _ := scan("event: "+strings.Repeat("x", 1000)+"\ndata: a\n\n", 7)
	if len(got) != 1 || got[0] != strings.Repeat("x", 64)+"(a)" {
		t.Errorf("got %q", got)
	}
}

func TestAgainstReference(t *testing.T) {
	part := rapid.SampledFrom([]string{"data: ", "data:", "event: e", ": c", "id: 1", "x", " ", "y:z", "data"})
	for _, newline := range []string{"\n", "\r\n", "\r"} {
		rapid.Check(t, func(t *rapid.T) {
			var b strings.Builder
			for range rapid.IntRange(0, 12).Draw(t, "parts") {
				b.WriteString(part.Draw(t, "part"))
				if rapid.Bool().Draw(t, "end of line") {
					b.WriteString(strings.Repeat(newline, rapid.IntRange(1, 3).Draw(t, "newlines")))
				}
			}
			stream := b.String()
			want := reference(stream)
			got, raw := scan(stream, rapid.SliceOfN(rapid.IntRange(1, 8), 1, 5).Draw(t, "sizes")...)
			if fmt.Sprint(got) != fmt.Sprint(want) || raw != stream {
				t.Fatalf("%q: got %q, want %q", stream, got, want)
			}
		})
	}
}

func FuzzScan(f *testing.F) {
	f.Add("event: x\r\ndata: a\r\n\r\n: ping\n\ndata: b\r\r", 3)
	f.Fuzz(func(t *testing.T, stream string, size int) {
		whole, raw := scan(stream, len(stream)+1)
		pieces, _ := scan(stream, min(max(size, 1), 100))
		if fmt.Sprint(whole) != fmt.Sprint(pieces) || raw != stream {
			t.Errorf("%q: whole %q, in pieces %q", stream, whole, pieces)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	event := []byte("data: " + strings.Repeat("x", 250) + "\n\n")
	var s sse.Scanner
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		s.Scan(event, func([]byte) {})
		s.Next()
	}
}
