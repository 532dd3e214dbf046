package formats

import (
	"net/http"
	"regexp"
	"strings"
)

// What only looks is free: at a catalog, or at a thing that the provider stores, which was paid for when it was made, or not to be paid for.
// These are the collections of the providers' APIs. A GET of any other path may be work like any POST, such as a search: it has no price.

// catalogs are the collections that tell what a provider offers. At mcp and sse an MCP client listens for messages of its server, and ends its
// session by DELETE.
var catalogs = words("models tags version ps foundation-models inference-profiles engines voices mcp sse")

// stores are the collections of things that a provider keeps for its customer. Where a name has two parts, the path has two.
// OpenAI: https://platform.openai.com/docs/api-reference, Anthropic: https://docs.anthropic.com/en/api, Gemini:
// https://ai.google.dev/api, Mistral: https://docs.mistral.ai/api, Cohere: https://docs.cohere.com/reference, xAI:
// https://docs.x.ai/developers/rest-api-reference/collections
var stores = words(`
	files uploads responses conversations chat/completions batches messages/batches batch/jobs threads assistants vector_stores containers
	fine_tuning fine_tuning/jobs fine-tuning fine-tuning/jobs finetuning/finetuned-models evals videos skills
	cachedContents tunedModels operations corpora fileSearchStores interactions generatedFiles
	datasets embed-jobs agents libraries generation collections
	mcp`)

// verbs end the paths that ask for work, whatever collection they begin in: a server may do it for any method.
var verbs = words(`
	search query ask answer generate predict rawpredict streamrawpredict infer invoke invocations converse run embed rerank translate
	synthesize generatecontent streamgeneratecontent generateanswer embedcontent batchembedcontents predictlongrunning`)

// endsInVerb reports whether a path ends in a verb, as a part of its own or after a colon.
func endsInVerb(path string) bool {
	path = strings.ToLower(strings.TrimRight(path, "/"))
	return verbs[path[strings.LastIndexAny(path, "/:")+1:]]
}

func words(list string) map[string]bool {
	set := make(map[string]bool)
	for word := range strings.FieldsSeq(list) {
		set[strings.ToLower(word)] = true
	}
	return set
}

// version is a path's part that the names of collections follow.
var version = regexp.MustCompile(`^(?i:v\d+((alpha|beta)\d*)?|api|openai|beta)$`)

// asksNothing reports whether a request only looks at a catalog or a stored thing, or deletes one. One with a body asks for something: a
// provider may answer it as if it were a POST.
func asksNothing(method, path string, body []byte) bool {
	if len(body) > 0 {
		return false
	}
	collection := collectionOf(path)
	switch method {
	case http.MethodOptions:
		return true
	case http.MethodGet, http.MethodHead:
		return (catalogs[collection] || stores[collection]) && !endsInVerb(path)
	case http.MethodDelete:
		return stores[collection]
	default:
		return false
	}
}

// collectionOf is the collection that a path names: what follows its last version, or stands first where it has none; empty if that is none.
func collectionOf(path string) string {
	parts := strings.Split(strings.ToLower(strings.Trim(path, "/")), "/")
	first := 0
	for i, part := range parts {
		if version.MatchString(part) {
			first = i + 1
		} else if i > 0 && first > 0 {
			break
		}
	}
	if first >= len(parts) {
		return ""
	}
	if first+1 < len(parts) {
		if both := parts[first] + "/" + parts[first+1]; catalogs[both] || stores[both] {
			return both
		}
	}
	return parts[first]
}
