package formats

import (
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter"
)

// The providers whose clients look for an error in a form of their own.
const (
	Anthropic = "anthropic"
	Google    = "google"
	Ollama    = "ollama"
)

// Provider tells whose clients send such requests, by a header that they send and by paths that only that provider has; "" for all others,
// whose clients know OpenAI's errors. The body is not looked at, as an error may come before it is read.
func Provider(h meter.Head) string {
	path := strings.TrimRight(strings.ToLower(h.Path), "/")
	has := func(part string) bool { return strings.Contains(path+"/", part) }
	_, operation, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ":")
	switch {
	case h.Header.Get("Anthropic-Version") != "", has("/messages/") && !has("/threads/") && !has("/conversations/"):
		return Anthropic
	case has("/openai/"): // Google's and others' own door for OpenAI's clients
		return ""
	case h.Header.Get("X-Goog-Api-Client") != "", operation != "" && has("/models/"), has("/v1beta/"), has("/v1alpha/"), has("/v1beta1/"):
		return Google
	}
	if i := strings.LastIndex(path, "/api/"); i >= 0 && slices.Contains(ollamaCalls, path[i+len("/api/"):]) {
		return Ollama
	}
	return ""
}

var ollamaCalls = []string{"chat", "generate", "embed", "embeddings", "show", "tags", "ps", "pull", "push", "create", "copy", "delete", "version"}
