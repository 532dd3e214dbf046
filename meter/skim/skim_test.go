package skim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter/skim"
)

// log is a Sink that writes down what it is told.
type log struct {
	lines []string
	text  map[int]string
}

func (l *log) Value(i int, raw []byte) {
	if raw == nil {
		raw = []byte("too long")
	}
	l.lines = append(l.lines, fmt.Sprintf("%d=%s", i, raw))
}

func (l *log) Text(i int, piece []byte) {
	if l.text == nil {
		l.text = map[int]string{}
	}
	if l.text[i] += string(piece); piece == nil {
		l.text[i] += "|"
	}
}

func (l *log) Mark(i int) { l.lines = append(l.lines, fmt.Sprintf("%d!", i)) }

func (l *log) String() string {
	out := strings.Join(l.lines, " ")
	for i := range 16 {
		if text, ok := l.text[i]; ok {
			out += fmt.Sprintf(" %d:%q", i, text)
		}
	}
	return strings.TrimSpace(out)
}

func read(patterns []skim.Pattern, doc string, size int) (string, *skim.Reader) {
	var l log
	r := skim.New(skim.Compile(patterns), &l)
	for rest := doc; rest != "" && !r.Done(); {
		n := min(size, len(rest))
		r.Write([]byte(rest[:n]))
		rest = rest[n:]
	}
	r.Close()
	return l.String(), r
}

func TestReader(t *testing.T) {
	patterns := []skim.Pattern{
		{Path: "usage"}, {Path: "a.*.b"}, {Path: "a.*", Kind: skim.Mark},
		{Path: "t", Kind: skim.Text}, {Path: "t.*.t", Kind: skim.Text}, {Path: "k\"ey"},
	}
	tests := []struct{ doc, want string }{
		{`{"usage":{"n":[1,{"m":"}"}]},"x":"\"usage\":1"}`, `0={"n":[1,{"m":"}"}]}`},
		{` { "usage" : 12 , "usage" : null } `, `0=12 0=null`},
		{`{"x":{"usage":1},"y":[{"usage":2}],"usage":3}`, `0=3`},
		{`{"us\u0061ge":true}`, `0=true`},
		{`{"k\"ey":"v\\"}`, `5="v\\"`},
		{`{"a":[{"b":1},{"c":9},{"b":"x"}]}`, `2! 1=1 2! 2! 1="x"`},
		{`{"a":{"k":{"b":1}}}`, `2! 1=1`},
		{`{"a":[]}`, ``},
		{`{"t":"a\n\"\u00e9\ud83d\ude00\/\u0041"}`, `3:"a\n\"é😀/A|"`},
		{`{"t":"\ud83dx\ude00\ud83d"}`, `3:"�x��|"`},
		{`{"t":[{"t":"one"},{"t":"two"}],"usage":0}`, `0=0 4:"one|two|"`},
		{`{"t":null,"usage":1}`, `0=1`},
		{`{"usage":"` + strings.Repeat("x", skim.MaxKept) + `"}`, `0=too long`},
		{`{"usage":{"n":1`, ``},
		{`{"t":"cut he`, `3:"cut he"`},
		{`{"t":"cut\ud83d`, `3:"cut"`},
		{`}`, ``},
		{`{"a":}]{"usage":4}`, ``},
		{`[{"usage":1}]`, ``},
		{"\xEF\xBB\xBF{\"usage\":5}", `0=5`},
		{`{` + strings.Repeat(`"x":[`, 10000) + `1` + strings.Repeat(`]`, 10000) + `,"usage":6}`, `0=6`},
		{strings.Repeat(`{"x":`, 10000), ``},
	}
	for _, tt := range tests {
		for _, size := range []int{len(tt.doc), 1, 3} {
			if got, _ := read(patterns, tt.doc, size); got != tt.want {
				t.Errorf("%.60s in pieces of %d: got %.200s, want %.200s", tt.doc, size, got, tt.want)
			}
		}
	}
}

func TestWholeDocument(t *testing.T) {
	for _, doc := range []string{`{"a":1}`, `[1,2]`, `"x"`, `12`} {
		if got, _ := read([]skim.Pattern{{Path: ""}}, doc, 1); got != "0="+doc {
			t.Errorf("%s: kept %s", doc, got)
		}
	}
}

// TestAgainstGJSON compares with another reader of JSON, over documents of every shape, cut anywhere.
func TestAgainstGJSON(t *testing.T) {
	paths := []string{"a", "b.a", "b.b.a", "c.*.a"}
	patterns := make([]skim.Pattern, len(paths))
	for i, p := range paths {
		patterns[i].Path = p
	}
	rapid.Check(t, func(t *rapid.T) {
		doc := "{" + members(t, 4) + "}"
		if !gjson.Valid(doc) {
			t.Fatalf("not valid: %s", doc)
		}
		var want []string
		walk(gjson.Parse(doc), nil, func(path []string, v gjson.Result) bool {
			for i, p := range paths {
				if matches(p, path) {
					want = append(want, fmt.Sprintf("%d=%s", i, v.Raw))
					return false
				}
			}
			return true
		})
		got, r := read(patterns, doc, rapid.IntRange(1, 9).Draw(t, "size"))
		if got != strings.Join(want, " ") {
			t.Fatalf("%s:\ngot  %s\nwant %s", doc, got, strings.Join(want, " "))
		}
		if !r.Done() {
			t.Fatalf("%s: not done", doc)
		}
	})
}

func members(t *rapid.T, depth int) string {
	n := rapid.IntRange(0, 3).Draw(t, "n")
	out := make([]string, n)
	for i := range out {
		key := rapid.SampledFrom([]string{"a", "b", "c", "\\u0061", "x\\\"y"}).Draw(t, "key")
		out[i] = fmt.Sprintf(`"%s"%s:%s`, key, rapid.SampledFrom([]string{"", " ", "\n"}).Draw(t, "space"), jsonValue(t, depth-1))
	}
	return strings.Join(out, rapid.SampledFrom([]string{",", " , "}).Draw(t, "comma"))
}

func jsonValue(t *rapid.T, depth int) string {
	kinds := 4
	if depth > 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return "null"
	case 1:
		return rapid.SampledFrom([]string{"0", "-1.5e3", "true"}).Draw(t, "literal")
	case 2:
		return `"` + rapid.SampledFrom([]string{"", "{", "]\\\\", "\\\"", "a:b,"}).Draw(t, "string") + `"`
	case 3:
		return `""`
	case 4:
		return "{" + members(t, depth) + "}"
	default:
		n := rapid.IntRange(0, 3).Draw(t, "elements")
		elements := make([]string, n)
		for i := range elements {
			elements[i] = jsonValue(t, depth-1)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
}

// walk visits the values of a document in order; visit says whether to go into them.
func walk(v gjson.Result, path []string, visit func([]string, gjson.Result) bool) {
	v.ForEach(func(key, value gjson.Result) bool {
		k := key.String()
		if v.IsArray() {
			k = "#"
		}
		p := append(path[:len(path):len(path)], k)
		if visit(p, value) && (value.IsObject() || value.IsArray()) {
			walk(value, p, visit)
		}
		return true
	})
}

func matches(pattern string, path []string) bool {
	keys := strings.Split(pattern, ".")
	if len(keys) != len(path) {
		return false
	}
	for i, k := range keys {
		if k != "*" && k != path[i] {
			return false
		}
	}
	return true
}

func FuzzReader(f *testing.F) {
	f.Add(`{"usage":{"n":1},"t":"\ud83d\ude00"}`, 3)
	f.Add(`[[[{"a":]}`, 1)
	f.Fuzz(func(t *testing.T, doc string, size int) {
		patterns := []skim.Pattern{{Path: "usage"}, {Path: "t", Kind: skim.Text}, {Path: "*.a"}, {Path: "b.*", Kind: skim.Mark}}
		whole, _ := read(patterns, doc, len(doc)+1)
		if pieces, _ := read(patterns, doc, min(max(size, 1), 64)); pieces != whole {
			t.Errorf("%q: in pieces %s, whole %s", doc, pieces, whole)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	doc := []byte(`{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}`)
	r := skim.New(skim.Compile([]skim.Pattern{{Path: "usage"}, {Path: "choices.*.delta.content", Kind: skim.Text}}), &discard{})
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		r.Reset()
		r.Write(doc)
	}
}

func BenchmarkSkip(b *testing.B) {
	doc := []byte(`{"data":[{"embedding":[` + strings.Repeat("-0.0123,", 10000) + `1]}],"b64":"` + strings.Repeat("QUJD", 20000) + `","usage":1}`)
	r := skim.New(skim.Compile([]skim.Pattern{{Path: "usage"}}), &discard{})
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		r.Reset()
		r.Write(doc)
	}
}

type discard struct{}

func (discard) Value(int, []byte) {}
func (discard) Text(int, []byte)  {}
func (discard) Mark(int)          {}
