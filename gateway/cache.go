package gateway

import (
	"iter"
	"net/http"
	"strings"
)

// A metered answer is for the agent that paid for it, and may state that agent's balance. A shared cache in front of the server would give
// it to others for free; RFC 9111 allows that unless the key is in Authorization. So caches are told not to, unless the provider has done
// so itself.

// keepPrivate tells shared caches not to store an answer. Caches with rules of their own, besides Cache-Control, are told too.
// https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2, https://www.rfc-editor.org/rfc/rfc9213
func keepPrivate(h http.Header) { forbidCaching(h, "private") }

// keepUnstored tells all caches not to store an answer, because it states the payer's balance.
func keepUnstored(h http.Header) { forbidCaching(h, "no-store") }

func forbidCaching(h http.Header, how string) {
	for name := range h {
		if isCacheRule(name) {
			delete(h, name)
		}
	}
	kept := []string{how}
	for directive := range directives(strings.Join(h["Cache-Control"], ",")) {
		if directive = strings.TrimSpace(directive); directive == "" {
			continue
		}
		name, _, _ := strings.Cut(directive, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "no-store":
			return
		case "private":
			if strings.EqualFold(directive, "private") && how == "private" {
				return
			}
		case "public", "s-maxage", "proxy-revalidate":
		default:
			kept = append(kept, directive)
		}
	}
	if how == "no-store" {
		kept = kept[:1]
	}
	h["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

// isCacheRule reports whether a header is for caches that follow it instead of Cache-Control: CDN-Cache-Control, and headers of single
// vendors.
func isCacheRule(name string) bool {
	from := len(name) - len(cacheRuleSuffix)
	return from >= 0 && isNamed(name[from:], cacheRuleSuffix) || isOneOf(name, cacheRules)
}

const cacheRuleSuffix = "-Cache-Control"

var cacheRules = []string{"Surrogate-Control", "Edge-Control", "X-Accel-Expires"}

// directives splits a list at its commas, except for commas in quotes.
func directives(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		list := strings.ReplaceAll(list, "\t", " ")
		begin, quoted := 0, false
		for i := range len(list) {
			switch {
			case list[i] == '"':
				quoted = !quoted
			case list[i] == ',' && !quoted:
				if !yield(list[begin:i]) {
					return
				}
				begin = i + 1
			}
		}
		yield(list[begin:])
	}
}
