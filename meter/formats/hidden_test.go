package formats_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// TestNoPartOfAPromptIsHidden: where a provider states no usage, text counts wherever a payer puts it in the request, since servers make prompts of
// very different fields. Names and pictures do not count as text.
func TestNoPartOfAPromptIsHidden(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("lorem ipsum dolor sit amet ", 400)
	short := strings.Split(strings.TrimSpace(strings.Repeat("lorem ipsum dolor sit amet,", 400)), ",")
	const least = 2000 // the text has 2,400 tokens
	whole := map[string]any{"w": text}
	pieces := func(key string) (list []map[string]string) {
		for _, s := range short {
			list = append(list, map[string]string{key: s})
		}
		return list
	}
	keys := map[string]any{}
	for i, s := range short {
		keys[fmt.Sprint(s, " ", i)] = map[string]string{"type": "string"}
	}
	ids := make([]int, 2400)
	chat := `{"choices":[{"message":{"content":"w"},"finish_reason":"stop"}]}`
	for _, api := range []struct{ path, begin, answer string }{
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}]`, chat},
		{"/v1/completions", `{"model":"m","prompt":"hi"`, `{"choices":[{"text":"w"}]}`},
		{"/v1/responses", `{"model":"m","input":"hi"`, `{"output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}]}`},
		{"/v1/messages", `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]`, `{"type":"message","content":[{"type":"text","text":"w"}]}`},
		{"/v1beta/models/m:generateContent", `{"contents":[{"parts":[{"text":"hi"}]}]`, `{"candidates":[{"content":{"parts":[{"text":"w"}]}}]}`},
		{"/model/m/converse", `{"messages":[{"role":"user","content":[{"text":"hi"}]}]`, `{"output":{"message":{"content":[{"text":"w"}]}}}`},
		{"/api/chat", `{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}]`, `{"message":{"content":"w"},"done":true}`},
		{"/v2/chat", `{"model":"m","messages":[{"role":"user","content":"hi"}]`, `{"message":{"content":[{"text":"w"}]}}`},
		{"/v1/embeddings", `{"model":"m","encoding_format":"float"`, `{"data":[]}`},
		{"/embed", `{"model":"m","truncate":"END"`, `[[0.1]]`},
		{"/rerank", `{"model":"m","query":"hi"`, `[{"index":0}]`},
	} {
		count := func(field string, value any) int64 {
			t.Helper()
			v, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			body := api.begin + fmt.Sprintf(",%q:%s}", field, v)
			call, err := formats.Inspect(meter.Head{Method: http.MethodPost, Path: api.path, Header: http.Header{"Content-Type": {"application/json"}}}, []byte(body))
			if err != nil {
				t.Fatalf("%s %s: %v", api.path, field, err)
			}
			c := call.Counter(http.StatusOK, http.Header{"Content-Type": {"application/json"}})
			c.Feed(nil, []byte(api.answer))
			return int64(c.Usage(true).Units[meter.Input] / meter.Quantity(meter.Whole(1)))
		}
		bare := count("x", nil)
		for _, hidden := range []struct {
			field string
			value any
		}{
			{"zzz", text}, {"zzz", []string{text}}, {"zzz", [][]string{{text}}}, {"zzz", short}, {"zzz", whole}, {"zzz", map[string]any{"type": text}},
			{"zzz", pieces("text")}, {"zzz", pieces("name")}, {"zzz", pieces("q")}, {"zzz", map[string]any{text: 1}}, {"zzz", keys},
			{"tools", []any{map[string]any{"type": "function", "name": "f", "function": map[string]any{"name": "f", "parameters": map[string]any{"type": "object",
				"properties": map[string]any{"a": map[string]any{"type": "string", "description": text}}}}}}},
			{"tools", []any{map[string]any{"name": "f", "input_schema": map[string]any{"properties": keys}}}},
			{"response_format", map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "x", "schema": map[string]any{"enum": short}}}},
			{"documents", []any{map[string]any{"data": whole}}},
			{"system", []any{map[string]any{"type": "odd", "odd": text}}},
			{"zzz", ids}, {"zzz", [][]int{ids[:1200], ids[1200:]}}, {"zzz", map[string]any{"prompt_tokens": ids}},
		} {
			if n := count(hidden.field, hidden.value) - bare; n < least || n > 3*least {
				t.Errorf("%s: %d tokens of %s: %.80s", api.path, n, hidden.field, fmt.Sprint(hidden.value))
			}
		}
		picture := base64.StdEncoding.EncodeToString(append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 4000)...))
		for _, none := range []any{picture, "data:image/png;base64," + picture, map[string]any{"type": "short", "id": "a"}, map[string]any{"signature": text}, 12345, true} {
			if n := count("zzz", none) - bare; n > 8 {
				t.Errorf("%s: %d tokens of %.60v", api.path, n, none)
			}
		}
	}
}
