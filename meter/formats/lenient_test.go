package formats_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/tallygate/tallygate/meter"
)

// lenient is a request as a provider written in Go reads it.
type lenient struct {
	Model    any `json:"model"`
	Models   any `json:"models"`
	Stream   any `json:"stream"`
	N        any `json:"n"`
	BestOf   any `json:"best_of"`
	Max      any `json:"max_tokens"`
	MaxNew   any `json:"max_completion_tokens"`
	Previous any `json:"previous_response_id"`
	Prompt   any `json:"prompt"`
	Options  struct {
		IncludeUsage any `json:"include_usage"`
	} `json:"stream_options"`
}

// readers read a body as providers do: with keys in any case, and with the last of two keys that are the same.
var readers = map[string]func(body []byte) (lenient, bool){
	"Go": func(body []byte) (l lenient, ok bool) {
		return l, json.NewDecoder(bytes.NewReader(body)).Decode(&l) == nil // what follows the first value is not read
	},
	"Python": func(body []byte) (l lenient, ok bool) {
		var m map[string]any
		if json.Unmarshal(body, &m) != nil {
			return l, false
		}
		l = lenient{Model: m["model"], Models: m["models"], Stream: m["stream"], N: m["n"], BestOf: m["best_of"], Max: m["max_tokens"],
			MaxNew: m["max_completion_tokens"], Previous: m["previous_response_id"], Prompt: m["prompt"]}
		if options, ok := m["stream_options"].(map[string]any); ok {
			l.Options.IncludeUsage = options["include_usage"]
		}
		return l, true
	},
}

// number is what a lenient provider makes of a value that should be a whole number: 0 for none.
func number(v any) int64 {
	switch v := v.(type) {
	case float64:
		return int64(max(min(v, math.MaxInt32*1e6), -1))
	case string:
		n, _ := strconv.ParseFloat(v, 64)
		return number(n)
	case bool:
		if v {
			return 1
		}
	}
	return 0
}

// truthy is what Python and JavaScript take for true.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	}
	return true
}

// agree checks that a provider reads of the body that goes on what the call says.
func (l lenient) agree(t *testing.T, name string, c *meter.Call) {
	t.Helper()
	if model, _ := l.Model.(string); l.Model != nil && model != c.Model && !slices.Contains(c.Models, model) && model != "" {
		t.Errorf("%s reads the model %v, we %q and %q", name, l.Model, c.Model, c.Models)
	}
	if list, ok := l.Models.([]any); ok {
		for _, m := range list {
			if s, ok := m.(string); ok && s != "" && s != c.Model && !slices.Contains(c.Models, s) {
				t.Errorf("%s reads the model %q, we %q and %q", name, s, c.Model, c.Models)
			}
		}
	}
	if truthy(l.Stream) != c.Stream || c.Stream && !truthy(l.Options.IncludeUsage) {
		t.Errorf("%s reads stream %v, usage %v; we %v", name, l.Stream, l.Options.IncludeUsage, c.Stream)
	}
	choices := max(1, number(l.N), number(l.BestOf))
	for _, v := range []any{l.Max, l.MaxNew} {
		if n := number(v); n > 0 && n*choices > c.MaxOutput || v != nil && n <= 0 && c.MaxOutput > 0 {
			t.Errorf("%s reads a bound of %v, %d times; we %d", name, v, choices, c.MaxOutput)
		}
	}
	if l.Previous != nil && l.Previous != false && !c.InputOpen {
		t.Errorf("%s reads a previous response %v, we none", name, l.Previous)
	}
}

// agreeAll checks a body that is taken with all readers, before and after its output is limited, and that what goes on is read
// as what came.
func agreeAll(t *testing.T, body string) (taken bool) {
	t.Helper()
	c, err := post(chatPath, body)
	if err != nil || c.Malformed {
		return false
	}
	check := func() {
		for name, read := range readers {
			l, ok := read(c.Body)
			if !ok {
				t.Errorf("%s does not read %q, which goes on", name, c.Body)
				continue
			}
			l.agree(t, name, c)
		}
	}
	check()
	if c.LimitOutput(40) {
		check()
		if c.MaxOutput < 1 || c.MaxOutput > 40 {
			t.Errorf("limited to %d", c.MaxOutput)
		}
	}
	if again, err := post(chatPath, string(c.Body)); err != nil || again.Model != c.Model || again.MaxOutput != c.MaxOutput {
		t.Errorf("what goes on is read as %+v, %v", again, err)
	}
	return true
}

// FuzzOneReading compares how we read a request with how lenient providers read the one that goes on: they agree, or it is refused.
func FuzzOneReading(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","stream":true,"n":2,"max_tokens":9,"previous_response_id":"r","messages":[]}`,
		`{"Model":"m","STREAM":true,"N":2,"max_toKens":9,"previous_response\u005fid":"r"}`,
		`{"model":"a","Model":"b"}`, `{"model":"a","mod\u0065l":"b"}`, `{"ſtream":true,"stream":false}`, `{"stream":"yes"}`,
		`{"stream":1,"stream_options":{"include_usage":2}}`, `{"stream":true,"Stream_options":{"Include_usage":false}}`,
		`{"max_tokens":1,"max_completion_tokens":2}`, `{"max_tokens":1e2,"n":1.0}`, `{"max_tokens":-1}`, `{"max_tokens":"5"}`, `{"max_tokens":true}`,
		`{"model":"a"}{"model":"b"}`, "\xEF\xBB\xBF{}", `{"models":["a","b"],"model":"c"}`, `{"model":["a"]}`, `{"model":"a\u0000"}`,
		`{"a":{"b":[{"c":null}]},"n":3,"best_of":5,"max_tokens":7}`, `{"stream":null,"model":null,"max_tokens":null}`,
		`{"stream_options":null,"stream":true}`, `{"prompt":["a","b"],"max_tokens":5}`, "{\"model\":\"\xff\"}", `{"\ud800":1,"\ud801":2}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) { agreeAll(t, body) })
}

// TestRandomRequests makes requests of known fields, each in any spelling and of any value, some of them twice.
func TestRandomRequests(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := []string{"model", "models", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens", "previous_response_id", "prompt", "user"}
	values := []string{`"a"`, `"b"`, `""`, "null", "true", "false", "0", "1", "2", "9", "9.0", "9e0", "1.5", "-1", "-1.0", "1e3", "1e99", `"9"`, `["a","b"]`, `[]`,
		`{}`, `{"include_usage":true}`, `{"Include_Usage":false}`, `{"include_usage":1}`, `{"include_usage":false,"include_u\u0073age":true}`}
	spell := func(key string) string {
		var b strings.Builder
		for _, c := range key {
			switch random.IntN(40) {
			case 0:
				c = unicode.ToUpper(c)
			case 1:
				c = unicode.SimpleFold(c)
			case 2:
				fmt.Fprintf(&b, `\u%04x`, c)
				continue
			}
			b.WriteRune(c)
		}
		return b.String()
	}
	taken, refused := 0, 0
	for range 50_000 {
		var fields []string
		for range 1 + random.IntN(4) {
			fields = append(fields, `"`+spell(keys[random.IntN(len(keys))])+`":`+values[random.IntN(len(values))])
		}
		body := "{" + strings.Join(fields, ",") + "}"
		if agreeAll(t, body) {
			taken++
		} else {
			refused++
		}
		if t.Failed() {
			t.Fatalf("the request was %s", body)
		}
	}
	if taken < 5000 || refused < 5000 {
		t.Errorf("%d were taken, %d refused: little was tested", taken, refused)
	}
}
