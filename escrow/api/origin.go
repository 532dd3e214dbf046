package api

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Origin returns the scheme and the host by which a client has reached this server, such as "https://gate.example". If a proxy that the
// operator trusts has sent the request, it says what the client had asked for.
func Origin(r *http.Request, proxied bool) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if proxied {
		if asked := firstOf(r.Header.Get("X-Forwarded-Proto")); asked == "http" || asked == "https" {
			scheme = asked
		}
		if asked := firstOf(r.Header.Get("X-Forwarded-Host")); asked != "" {
			host = asked
		}
	}
	return scheme + "://" + host
}

// firstOf returns the first value of a list in a header, which is the client's.
func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

// resourceMetadataAt is the path of an OAuth resource's metadata; the resource's own path follows.
// https://www.rfc-editor.org/rfc/rfc9728#section-3.1
const resourceMetadataAt = "/.well-known/oauth-protected-resource"

// ResourceMetadataPath returns the path at which clients look for the metadata of /mcp below a prefix.
func ResourceMetadataPath(prefix string) string { return resourceMetadataAt + prefix + "/mcp" }

// WriteResourceMetadata answers with the metadata of /mcp (RFC 9728). It names no authorization server, since keys are made by the API: a
// client that finds none uses the key in its configuration.
func WriteResourceMetadata(w http.ResponseWriter, origin, prefix string) {
	text, err := json.Marshal(map[string]any{
		"resource": origin + prefix + "/mcp", "resource_name": "Tallygate", "bearer_methods_supported": []string{"header"},
		"resource_documentation": origin + prefix + "/llms.txt",
	})
	if err != nil {
		panic(err) // can't happen: it has only strings
	}
	allowAll(w.Header())
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}
