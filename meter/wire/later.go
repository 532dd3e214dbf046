package wire

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// Answers that do not come with the answer to their request: they are fetched later, or sent elsewhere.

// Elsewhere returns the field, parameter or header by which the request asks the provider to send its answer elsewhere, or an empty text.
//
// Replicate: https://replicate.com/docs/topics/webhooks, fal: https://docs.fal.ai/model-endpoints/webhooks, Deepgram:
// https://developers.deepgram.com/docs/callback, BytePlus: https://docs.byteplus.com/en/docs/ModelArk, DashScope:
// https://help.aliyun.com/zh/model-studio/developer-reference, and https://www.rfc-editor.org/rfc/rfc7240#section-4.1.
func (r *Request) Elsewhere() string {
	for _, field := range callbackFields {
		if v := r.Get(field); v.Exists() && v.Type != gjson.Null && v.Type != gjson.False && v.Raw != `""` {
			return field
		}
	}
	if r.Query != "" && r.Method != http.MethodGet { // of GET, a callback is the name of a function in a script
		query, _ := url.ParseQuery(r.Query) // a malformed query is refused in another place, if it matters
		for _, key := range slices.Sorted(maps.Keys(query)) {
			if callbackParameters[string(fold([]byte(key)))] {
				return key
			}
		}
	}
	for _, value := range r.Header.Values("X-DashScope-Async") {
		if !strings.EqualFold(strings.TrimSpace(value), "disable") {
			return "X-DashScope-Async"
		}
	}
	for _, value := range r.Header.Values("Prefer") {
		if strings.Contains(lower(value), "respond-async") {
			return "Prefer"
		}
	}
	return ""
}

var callbackFields = strings.Fields(callbackNames)

var callbackParameters = set(lower(callbackNames) + " fal_webhook webhook_id")

// Fetch makes the call one that fetches an answer of a kind, if the path names one after collection, such as "/responses/". It returns
// false if the path names none.
func (r *Request) Fetch(c *meter.Call, collection, kind string) bool {
	at := strings.LastIndex(r.Clean, collection)
	if at < 0 {
		return false
	}
	id, _, _ := strings.Cut(r.Clean[at+len(collection):], "/")
	if !fetchable(id) {
		return false
	}
	c.Malformed, c.Fetches = false, Fetched(kind, id)
	c.Stream = c.Stream || queryTrue(r.Query, "stream")
	return true
}

// queryTrue reports whether a parameter of the query is set, and not to false.
func queryTrue(query, name string) bool {
	values, _ := url.ParseQuery(query)
	return values.Has(name) && !strings.EqualFold(values.Get(name), "false")
}

// Follow notes that the call continues an answer of a kind, which a field of the request names.
func (r *Request) Follow(c *meter.Call, field, kind string) {
	if id := r.Name(field); id != "" {
		c.Follows = append(c.Follows, Fetched(kind, id))
	}
}
