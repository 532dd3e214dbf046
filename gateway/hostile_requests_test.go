package gateway_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// order is a request of a hostile payer.
type order struct {
	target string
	header http.Header
	body   []byte
}

var (
	models  = [2][]string{{`"cheap"`, `"cheap"`, `"dear"`}, {`"Dear"`, `"dear "`, `"cheap\u0000dear"`, `"\u0064ear"`, `["dear"]`, `null`, `""`, `0`}}
	numbers = [2][]string{{"1", "2", "5", "50", "300"}, {"0", "-1", "null", `"1"`, `"50"`, `" 50 "`, "true", "1.0", "1e2", "5e0", "0.5", "NaN", "Infinity", "1e999", "9223372036854775808", "[1]", "{}", `"1_0"`, "-0", "1.9", "01"}}
	truths  = [2][]string{{"true", "false"}, {"null", `"true"`, `"false"`, `"yes"`, "1", "0", "2", `""`, "[]", "{}"}}
	texts   = [2][]string{{`"hello"`, `"hello hello hello hello"`}, {`"\ud83d\ude00 \ud83d"`, `["a","b"]`, `null`, `7`}}
)

// mischief happens only now and then: if everything in a request were odd, it would be refused for the first thing, and the others would
// not be tested.
func mischief(t *rapid.T, what string) bool { return rapid.IntRange(0, 14).Draw(t, what) == 14 }

// drawValue is a value of a field, now and then of the wrong type.
func drawValue(t *rapid.T, field string) string {
	pick := func(values [2][]string) string {
		if mischief(t, "odd") {
			return rapid.SampledFrom(values[1]).Draw(t, field)
		}
		return rapid.SampledFrom(values[0]).Draw(t, field)
	}
	switch field {
	case "model", "name":
		return pick(models)
	case "models":
		return pick([2][]string{{`["cheap"]`, `["cheap","dear"]`, `[]`}, {`"dear"`, `[{"model":"dear"}]`, `null`}})
	case "stream", "include_usage":
		return pick(truths)
	case "input":
		return pick(texts)
	case "previous_response_id":
		return pick([2][]string{{`"resp_1"`, `null`}, {`""`, `["resp_1"]`}})
	case "image":
		return `{"type":"image_url","image_url":{"url":"https://example.com/x.png"}}`
	case "method":
		return pick([2][]string{{`"tools/call"`, `"tools/list"`}, {`"Tools/Call"`, `"tools\/call"`, `"tools/call "`}})
	case "jsonrpc":
		return pick([2][]string{{`"2.0"`}, {`"1.0"`, `2.0`}})
	}
	return pick(numbers)
}

// nested are the fields of objects.
var nested = map[string][]string{
	"stream_options": {"include_usage"}, "generationConfig": {"maxOutputTokens", "candidateCount", "max_output_tokens"},
	"generation_config": {"max_output_tokens", "maxOutputTokens", "candidate_count"}, "options": {"num_predict"},
	"inferenceConfig": {"maxTokens"}, "params": {"name"}, "extra_body": {"model", "max_tokens", "n"},
}

// drawFields are some of the fields and their values. Now and then one occurs twice, or in an odd spelling.
func drawFields(t *rapid.T, names []string) (fields []string) {
	for _, name := range names {
		times := rapid.IntRange(0, 1).Draw(t, name)
		if mischief(t, "twice") {
			times = 2
		}
		for range times {
			var value string
			switch inner := nested[name]; {
			case inner == nil:
				value = drawValue(t, name)
			case mischief(t, "no object"):
				value = rapid.SampledFrom([]string{"null", "[]", `"x"`, "0"}).Draw(t, name)
			default:
				value = "{" + strings.Join(drawFields(t, inner), ",") + "}"
			}
			fields = append(fields, `"`+drawSpelling(t, name)+`":`+value)
		}
	}
	return fields
}

func drawSpelling(t *rapid.T, key string) string {
	if !mischief(t, "spelling") {
		return key
	}
	return rapid.SampledFrom([]string{
		strings.ToUpper(key[:1]) + key[1:], fmt.Sprintf(`\u%04x`, key[0]) + key[1:],
		strings.Replace(strings.Replace(key, "s", "ſ", 1), "k", "K", 1), strings.Replace(key, "e", `\u0065`, 1),
	}).Draw(t, "spelled")
}

// drawRequest is a request in which a thing may be said twice, and differently.
func drawRequest(t *rapid.T, g good) order {
	o := order{header: http.Header{"Content-Type": {"application/json"}}}
	model := rapid.SampledFrom([]string{"cheap", "cheap", "dear"}).Draw(t, "model of the path")
	if mischief(t, "odd path") {
		model = rapid.SampledFrom([]string{"Dear", "dear%20", "cheap%2f..%2fdear", "cheap/../dear", "cheap;dear"}).Draw(t, "odd model")
	}
	path := g.paths[0]
	if rapid.IntRange(0, 3).Draw(t, "another path") == 3 {
		path = rapid.SampledFrom(g.paths).Draw(t, "path")
	}
	o.target = strings.Replace(path, "MODEL", model, 1)
	if rapid.IntRange(0, 5).Draw(t, "query") == 5 {
		o.target += rapid.SampledFrom([]string{"?model=dear", "?model=cheap", "?model=cheap&model=dear", "?Model=dear", "?model=cheap;model=dear", "?m%6fdel=dear", "?model=dear%20"}).Draw(t, "model of the query")
	}
	if g.form && rapid.Bool().Draw(t, "form") {
		o.body, o.header = drawForm(t, g)
		return o
	}
	var parts []string
	if g.name == toolsGood {
		parts = append(parts, `"jsonrpc":"2.0"`, `"method":"tools/call"`, `"params":{"name":"`+rapid.SampledFrom([]string{"cheap", "dear"}).Draw(t, "tool")+`"}`)
	} else {
		parts = append(parts, g.base)
	}
	fields := g.fields
	switch {
	case g.name == toolsGood && !mischief(t, "said again"):
		fields = nil
	case g.fields[0] == "model" && !strings.Contains(path, "MODEL") && !mischief(t, "no model"):
		parts, fields = append(parts, `"model":`+drawValue(t, "model")), fields[1:]
		if mischief(t, "another model") {
			parts = append(parts, `"`+drawSpelling(t, "model")+`":`+drawValue(t, "model"))
		}
	}
	if g.asks != "" && !mischief(t, "unsaid") {
		value := drawValue(t, g.asks)
		parts, fields = append(parts, `"`+g.asks+`":`+value), fields[:1]
	}
	parts = append(parts, drawFields(t, fields)...)
	o.body = []byte("{" + strings.Join(rapid.Permutation(parts).Draw(t, "order"), ",") + "}")
	if mischief(t, "odd document") {
		o.body = drawDocument(t, string(o.body))
	}
	if mischief(t, "odd kind") {
		o.header.Set("Content-Type", rapid.SampledFrom([]string{"", "text/plain", "application/json; charset=utf-16", "application/json; charset=utf-7", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"}).Draw(t, "kind"))
	}
	if mischief(t, "a form") {
		values := url.Values{}
		for _, f := range g.fields {
			values.Set(f, strings.Trim(drawValue(t, f), `"`))
		}
		o.body = []byte(values.Encode())
		o.header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return o
}

// drawDocument is a body that some programs take for JSON and others don't, or that they read differently.
func drawDocument(t *rapid.T, body string) []byte {
	var wide []byte
	for _, unit := range utf16.Encode([]rune(body)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	return []byte(rapid.SampledFrom([]string{
		"\uFEFF" + body, "\uFEFF\uFEFF" + body, body + `{"model":"dear"}`, strings.Replace(body, ",", `,/*",*/`, 1), "[" + body + "]", string(wide), "\xff\xfe" + string(wide),
		strings.TrimSuffix(body, "}") + `,"x":NaN}`, strings.TrimSuffix(body, "}") + ",}", strings.Replace(body, `"cheap"`, "\"cheap\xff\"", 1),
		"//\n" + body, "\v" + body, "\x00" + body, " \n" + body, body + "\n", `{"model":"dear"}` + body, ")]}'\n" + body,
	}).Draw(t, "document"))
}

// drawForm is a multipart form, not always well-formed.
func drawForm(t *rapid.T, g good) ([]byte, http.Header) {
	var body strings.Builder
	add := func(name, value string) {
		quote, end, extra := `"`, "\r\n", ""
		if mischief(t, "odd part") {
			quote = rapid.SampledFrom([]string{`"`, ``}).Draw(t, "quote")
			end = rapid.SampledFrom([]string{"\r\n", "\n"}).Draw(t, "end")
			extra = rapid.SampledFrom([]string{"", `; filename="x"`, `; name="n"`, `; name*=utf-8''n`, "\r\nContent-Transfer-Encoding: base64"}).Draw(t, "extra")
		}
		fmt.Fprintf(&body, "--x%sContent-Disposition: form-data; name=%s%s%s%s%s%s%s%s", end, quote, name, quote, extra, end, end, value, end)
	}
	add("model", rapid.SampledFrom([]string{"cheap", "cheap", "dear", "Dear"}).Draw(t, "model"))
	if !mischief(t, "unsaid") {
		add(g.asks, strings.Trim(drawValue(t, g.asks), `"`))
	}
	if mischief(t, "said again") {
		field := rapid.SampledFrom(append(slices.Clone(g.fields), "n[]", "N", "Seconds", "model[]")).Draw(t, "field")
		add(field, strings.Trim(drawValue(t, strings.TrimSuffix(strings.ToLower(field), "[]")), `"`))
	}
	body.WriteString("--x--\r\n")
	kind := "multipart/form-data; boundary=x"
	if mischief(t, "odd boundary") {
		kind = rapid.SampledFrom([]string{"multipart/form-data; boundary=y; boundary=x", `multipart/form-data; boundary="x"`, "multipart/form-data; boundary=x; charset=utf-16", "Multipart/Form-Data;boundary=x"}).Draw(t, "kind")
	}
	return []byte(body.String()), http.Header{"Content-Type": {kind}}
}
