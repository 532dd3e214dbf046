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

// Provider returns the provider whose clients send such requests, by a header that they send or by paths that only that provider has. It
// returns "" for all others, whose clients understand OpenAI's errors. It does not read the body, since an error may come before the body
// is read.
func Provider(h meter.Head) string {
	path := strings.TrimRight(strings.ToLower(h.Path), "/")
	has := func(part string) bool { return strings.Contains(path+"/", part) }
	_, operation, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ":")
	switch {
	case h.Header.Get("Anthropic-Version") != "", has("/messages/") && !has("/threads/") && !has("/conversations/"):
		return Anthropic
	case has("/openai/"): // the paths of Google and others for OpenAI's clients
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
