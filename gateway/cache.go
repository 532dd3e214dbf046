package gateway

import (
	"net/http"
	"strings"
)

// A metered answer belongs to who paid for it, and may say what is left in its wallet. A cache in front that is shared would give it to others
// for nothing, and RFC 9111 lets it wherever the key is not in Authorization. So it is told not to, unless the provider has done so.

// keepPrivate has no shared cache store an answer. Caches by other rules than Cache-Control's have none.
// https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2, https://www.rfc-editor.org/rfc/rfc9213
func keepPrivate(h http.Header) { forbidCaching(h, "private") }

// keepUnstored has no cache at all store an answer that says what the payer has.
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

// isCacheRule reports whether a header speaks to caches that heed it before Cache-Control: CDN-Cache-Control and those of single vendors.
func isCacheRule(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "surrogate-control", "edge-control", "x-accel-expires", "x-litespeed-cache-control":
		return true
	default:
		return strings.HasSuffix(name, "-cache-control")
	}
}

// directives splits a list at its commas, but for those in quotes.
func directives(list string) []string {
	quoted := false
	return strings.FieldsFunc(strings.ReplaceAll(list, "\t", " "), func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}
