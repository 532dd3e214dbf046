package wire

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// checkHeader refuses headers that could make a provider read the body as something other than JSON in UTF-8.
func (r *Request) checkHeader() {
	types := r.Header.Values("Content-Type")
	if len(types) > 1 {
		r.Refuse("Content-Type", "the header occurs twice")
	}
	if len(types) == 0 || len(r.Body) == 0 {
		return
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil && types[0] != "" {
		r.Refuse("Content-Type", "it is not a valid media type")
		return
	}
	if r.kind != 0 && !isUTF8(params["charset"]) {
		r.Refuse("Content-Type", "the charset is not UTF-8")
	}
	if r.kind != 0 && media == "application/x-www-form-urlencoded" {
		r.checkForm()
	}
	if r.kind != 0 && strings.HasPrefix(media, "multipart/") {
		r.Refuse("Content-Type", "the body is JSON, not a form")
	}
}

// checkQuery refuses what decides the price if it stands in the query: servers that take a request's parameters from wherever they stand would
// read another request than the body's.
func (r *Request) checkQuery() {
	if r.Method != http.MethodPost || r.Query == "" {
		return
	}
	for pair := range strings.FieldsFuncSeq(r.Query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err == nil {
			key = decoded
		}
		key, _, _ = strings.Cut(strings.TrimSpace(key), "[") // n[] and n[0] are n, to some
		if len(key) <= maxShown && priced[string(fold([]byte(key)))] {
			r.Refuse(shown([]byte(key)), "it stands in the query: state it in the body")
			return
		}
	}
}

// priced are the parameters that decide how much is asked for, by their folded names.
var priced = func() map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq(outputNames + " " + countNames + " seconds duration durationSeconds duration_seconds memory_limit service_tier serviceTier") {
		names[string(fold([]byte(name)))] = true
	}
	return names
}()

func isUTF8(charset string) bool {
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}

// checkForm refuses JSON that is also a form with a known name in it. curl sends all JSON as a form by default.
func (r *Request) checkForm() {
	for pair := range strings.FieldsFuncSeq(string(r.Body), func(c rune) bool { return c == '&' || c == ';' }) {
		key, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err == nil {
			key = decoded
		}
		key = strings.TrimSpace(key)
		if len(key) <= maxShown && vocabulary.children[string(fold([]byte(key)))] != nil {
			r.Refuse(shown([]byte(key)), "it stands in a form within the JSON: send the header Content-Type: application/json")
			return
		}
	}
}
