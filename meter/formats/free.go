package formats

import (
	"net/http"
	"regexp"
	"strings"
)

// On a route with a tariff, a request is free if it only reads a catalog, or a thing that the provider stores. A stored thing was paid for when
// it was made, or it costs nothing. The collections below are those of the providers' APIs. A GET of any other path may make the provider
// work, as a search does. Such a call has no price in the tariff.

// catalogs are the collections that list what a provider offers. The paths mcp and sse are among them, since a GET there only makes an MCP
// client listen to its server.
var catalogs = words("models tags version ps foundation-models inference-profiles engines voices mcp sse")

// stores are the collections of things that a provider keeps for its customer. A name with a slash is two parts of the path. The path mcp is
// among them, since an MCP client ends its session by a DELETE there.
// OpenAI: https://platform.openai.com/docs/api-reference, Anthropic: https://docs.anthropic.com/en/api, Gemini:
// https://ai.google.dev/api, Mistral: https://docs.mistral.ai/api, Cohere: https://docs.cohere.com/reference
var stores = words(`
	files uploads responses conversations chat/completions batches messages/batches batch/jobs threads assistants vector_stores containers
	fine_tuning fine_tuning/jobs fine-tuning fine-tuning/jobs finetuning/finetuned-models evals videos skills
	cachedContents tunedModels operations corpora fileSearchStores interactions generatedFiles
	datasets embed-jobs agents libraries generation
	mcp`)

// verbs are the last words of paths that ask for work, in whatever collection they are. A server may do the work for any method, so such a
// path is not free.
var verbs = words(`
	search query ask answer generate predict rawpredict streamrawpredict infer invoke invocations converse run embed rerank translate
	synthesize generatecontent streamgeneratecontent generateanswer embedcontent batchembedcontents predictlongrunning`)

// endsInVerb reports whether a verb is the last part of a path, or stands after a colon in it.
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

// version matches a part of a path after which the name of a collection comes, such as v1.
var version = regexp.MustCompile(`^(?i:v\d+((alpha|beta)\d*)?|api|openai|beta)$`)

// asksNothing reports whether a request only reads a catalog or a stored thing, or deletes a stored thing. A request with a body asks for
// something, since a provider may answer it as if it were a POST.
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

// collectionOf returns the collection that a path names. It stands after the versions, or first if the path has no version. It is empty if
// nothing stands there.
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
