package gateway

import (
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
	for _, directive := range directives(strings.Join(h.Values("Cache-Control"), ",")) {
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
	h.Set("Cache-Control", strings.Join(kept, ", "))
}

// isCacheRule reports whether a header is for caches that follow it instead of Cache-Control: CDN-Cache-Control, and headers of single
// vendors.
func isCacheRule(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "surrogate-control", "edge-control", "x-accel-expires", "x-litespeed-cache-control":
		return true
	default:
		return strings.HasSuffix(name, "-cache-control")
	}
}

// directives splits a list at its commas, except for commas in quotes.
func directives(list string) []string {
	quoted := false
	return strings.FieldsFunc(strings.ReplaceAll(list, "\t", " "), func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}
