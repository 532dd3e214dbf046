package caddymodule

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/gateway"
)

// A meter takes the caller's key off the request. Caddy has more places in which the key may be: it keeps the URL as it was before all
// rewrites, and a request that no meter covers still has its key.

// below returns the handlers that a meter passes requests to. If the request has a query, a key in it also leaves the original URL.
func (m *Meter) below(next caddyhttp.Handler, r *http.Request) gateway.Handler {
	if r.URL.RawQuery == "" && originalQuery(r) == "" {
		return next
	}
	return withoutKeys{next, r.URL.RawQuery}
}

// withoutKeys removes from the original URL what the meter has removed from the request.
type withoutKeys struct {
	next   caddyhttp.Handler
	before string // the query, as the meter got it
}

func (h withoutKeys) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	after := strings.Split(r.URL.RawQuery, "&")
	var taken []string
	for pair := range strings.SplitSeq(h.before, "&") {
		if !slices.Contains(after, pair) {
			taken = append(taken, pair)
		}
	}
	cleanOriginal(r, taken, nil)
	return h.next.ServeHTTP(w, r)
}

func originalQuery(r *http.Request) string {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL.RawQuery
	}
	return ""
}

// originalPath returns the path of a request before all rewrites.
func originalPath(r *http.Request) string {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL.Path
	}
	return r.URL.Path
}

// cleanOriginal removes from the original URL the parameters in taken, and all that contain a Tallygate key, or one that own reports. The URL is shared by all copies of
// the request. The text of the whole URL, of which each copy has its own, is replaced where it can be read: in the placeholder.
func cleanOriginal(r *http.Request, taken []string, own func(key string) bool) {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || original.URL == nil || original.URL.RawQuery == "" {
		return
	}
	before := original.URL.RawQuery
	kept := slices.DeleteFunc(strings.Split(before, "&"), func(pair string) bool { return slices.Contains(taken, pair) })
	original.URL.RawQuery = strings.Join(kept, "&")
	gateway.DropKeys(&original, own)
	if original.URL.RawQuery == before {
		return
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.request.orig_uri", original.URL.RequestURI())
	}
}

// passedOn is the variable of a request that the directive tallygate has passed on.
const passedOn = "tallygate.passed_on"

// notePassedOn notes that a request goes on to the site's handlers. Perhaps no meter covers it there.
func notePassedOn(r *http.Request) { caddyhttp.SetVar(r.Context(), passedOn, r) }

// dropUnmetered removes Tallygate keys from a request that goes to an upstream and is not below a meter, although it is below the directive
// tallygate. Otherwise the upstream could use the keys of those who call it directly. sent is the request as the proxy sends it.
func (a *App) dropUnmetered(sent *http.Request) {
	if gateway.IsMetered(sent) {
		return
	}
	passed, ok := caddyhttp.GetVar(sent.Context(), passedOn).(*http.Request)
	if !ok {
		return
	}
	var own func(key string) bool
	if a.isOpen() {
		own = a.gateway.OwnKey
	}
	gateway.DropKeys(passed, own) // header_up reads placeholders from it
	gateway.DropKeys(sent, own)
	cleanOriginal(sent, nil, own)
}
