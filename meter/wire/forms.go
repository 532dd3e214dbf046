package wire

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// RefuseForms refuses a request that asks Google for its answer in a form that can't be read. Headers may stand in the query too.
// https://cloud.google.com/apis/docs/system-parameters
func (r *Request) RefuseForms() {
	const reason = "in another form than JSON the answer can't be counted: leave it out"
	query, _ := url.ParseQuery(r.Query)
	for _, key := range slices.Sorted(maps.Keys(query)) {
		switch name := strings.ToLower(strings.TrimPrefix(key, "$")); {
		case name == "callback", name == "httpheaders", name == "alt" && slices.ContainsFunc(query[key], r.unreadable):
			r.Refuse(key, reason)
		}
	}
	if strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), "protobuf") {
		r.Refuse("Accept", reason)
	}
}

// unreadable reports whether a form of Google's answers is none of those that can be read: JSON, events of it, and a file as it is. Google's own
// clients ask for json;enum-encoding=int.
func (r *Request) unreadable(form string) bool {
	form, _, _ = strings.Cut(form, ";")
	return form != "json" && form != "sse" && !(form == "media" && strings.HasSuffix(r.Clean, ":download"))
}
