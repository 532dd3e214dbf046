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

// What does not come with the answer to its request: it is fetched later, or sent elsewhere.

// Elsewhere is the field, parameter or header by which the request wants its answer sent elsewhere; empty where it does not.
//
// Replicate: https://replicate.com/docs/topics/webhooks, fal: https://docs.fal.ai/model-endpoints/webhooks, Deepgram:
// https://developers.deepgram.com/docs/callback, BytePlus: https://docs.byteplus.com/en/docs/ModelArk, DashScope:
// https://help.aliyun.com/zh/model-studio/developer-reference, and https://www.rfc-editor.org/rfc/rfc7240#section-4.1.
func (r *Request) Elsewhere() string {
	for _, field := range strings.Fields(callbackNames) {
		if v := r.Get(field); v.Exists() && v.Type != gjson.Null && v.Type != gjson.False && v.Raw != `""` {
			return field
		}
	}
	query, _ := url.ParseQuery(r.Query) // one that is not written by the book is refused elsewhere, where it matters
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if r.Method == http.MethodGet { // there a callback is a function's name, for a script
			break
		}
		if name := string(fold([]byte(key))); callbackParameters[name] {
			return key
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

var callbackParameters = set(lower(callbackNames) + " fal_webhook webhook_id")

// Fetch makes of the call one that fetches the answer of a kind that the path names after collection, such as "/responses/". It reports false
// where the path names none.
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

// queryTrue reports whether a parameter of the query is set and not false.
func queryTrue(query, name string) bool {
	values, _ := url.ParseQuery(query)
	return values.Has(name) && !strings.EqualFold(values.Get(name), "false")
}

// Follow notes the answer of a kind that a field of the request names as one to build on.
func (r *Request) Follow(c *meter.Call, field, kind string) {
	if id := r.Name(field); id != "" {
		c.Follows = append(c.Follows, Fetched(kind, id))
	}
}
