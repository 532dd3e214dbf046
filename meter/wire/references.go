package wire

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// A request may name what its provider keeps: a file, an earlier response, a thread. These are the fields in which an id stands, wherever
// the object is that has them, and the kinds of what they name. Keys are folded.
//
// OpenAI: https://platform.openai.com/docs/api-reference, Anthropic: https://docs.anthropic.com/en/api, Gemini: https://ai.google.dev/api,
// Mistral: https://docs.mistral.ai/api, Cohere: https://docs.cohere.com/reference,
// xAI: https://docs.x.ai/developers/rest-api-reference/collections
var references = func() map[string]string {
	kinds := map[string]string{}
	for kind, keys := range map[string]string{
		"responses":        "previous_response_id",
		"interactions":     "previous_interaction_id",
		"conversations":    "conversation conversation_id",
		"threads":          "thread_id",
		"assistants":       "assistant_id",
		"agents":           "agent_id handoffs",
		"files":            "file_id file_ids fileid input_file_id input_files training_file validation_file training_files validation_files fileuri file_uri uri filename file_name",
		"vector_stores":    "vector_store_id vector_store_ids collection_id collection_ids",
		"containers":       "container container_id",
		"cachedcontents":   "cachedcontent cached_content",
		"filesearchstores": "filesearchstorenames file_search_store_names",
		"skills":           "skill_id",
		"libraries":        "library_id library_ids",
		"datasets":         "dataset_id input_dataset_id",
		"evals":            "eval_id",
		"videos":           "video_id",
		"operations":       "operationname operation_name",
	} {
		for key := range strings.FieldsSeq(keys) {
			kinds[key] = kind
		}
	}
	return kinds
}()

// Reference returns the resource that the value of a field names, by the field's folded key. ok is false where it names none.
func Reference(key, value string) (r meter.Resource, ok bool) {
	kind := references[key]
	switch {
	case kind == "", value == "":
		return r, false
	case key == "skill_id" && !strings.HasPrefix(value, "skill_"): // Anthropic's own: "pptx"
		return r, false
	case strings.HasPrefix(key, "file") && strings.HasSuffix(key, "name"): // Gemini's, and anybody's words
		return meter.Resource{Kind: kind, ID: meter.CheckID(strings.TrimPrefix(value, "files/"))}, strings.HasPrefix(value, "files/") && !strings.Contains(value, ".")
	case strings.HasSuffix(key, "uri"): // of anything else, too
		if !strings.Contains(value, "/") {
			return r, false
		}
		r, ok = meter.NamedResource(kind, value)
		return r, ok && (strings.Contains(value, "://") || r.ID != value)
	}
	if r, ok = meter.NamedResource(kind, value); !ok {
		r.ID = "" // a URL, where an id is expected
	}
	return r, true
}

// maxUses bounds how many resources a request may name.
const maxUses = 1000

// refer notes a resource that the request names.
func (in *inputs) refer(r meter.Resource) {
	if len(in.uses) <= maxUses && !slices.Contains(in.uses, r) {
		in.uses = append(in.uses, r)
	}
}

// apart are the fields, by their folded keys, whose objects are not the provider's words: what a tool is called with and answers, its
// schema, and what the caller keeps there for itself. An id that stands there names nothing at the provider.
var apart = set("input args arguments response parameters input_schema inputschema schema json_schema properties metadata attributes labels")

// arraysApart are those whose arrays are no such words either. They are Cohere's.
var arraysApart = set("outputs documents")

// isApart reports whether the value of a field is not the provider's words. The request's own input is.
func (r *reader) isApart(key []byte) bool {
	switch r.body[r.at] {
	case '{':
		return apart[string(key)] && (r.depth > 1 || string(key) != "input")
	case '[':
		return arraysApart[string(key)]
	default:
		return false
	}
}

// Uses returns the resources that the body names. The error is a [*meter.AmbiguousError] where it names too many.
func (r *Request) Uses() ([]meter.Resource, error) {
	in := &r.input
	for _, object := range []struct{ path, kind string }{
		{"conversation.id", "conversations"}, {"container.id", "containers"}, {"video.id", "videos"}, {"data_source.source.id", "files"},
	} {
		if v := r.Get(object.path); v.Type == gjson.String && v.Str != "" {
			in.referTo(object.kind, v.Str)
		}
	}
	if r.Has("input.*.id") {
		r.referToItems(r.Get("input"))
	}
	if r.Has("messages.*.audio.id") {
		r.Get("messages").ForEach(func(_, message gjson.Result) bool {
			if id := message.Get("audio.id"); id.Type == gjson.String && id.Str != "" {
				in.referTo("audio", id.Str)
			}
			return true
		})
	}
	if len(in.uses) > maxUses {
		return nil, &meter.AmbiguousError{Field: "body", Reason: "it names more than 1000 files, responses and the like"}
	}
	return in.uses, nil
}

func (in *inputs) referTo(kind, value string) { in.refer(referred(kind, value)) }

// referred is the resource that a value names where an id of a kind is expected.
func referred(kind, value string) meter.Resource {
	r, ok := meter.NamedResource(kind, value)
	if !ok {
		r.ID = ""
	}
	return r
}

// referToItems notes the items of an input that are only named by their ids, and reasoning that is kept at the provider.
// https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
func (r *Request) referToItems(input gjson.Result) {
	items := []gjson.Result{input}
	if input.IsArray() {
		items = input.Array()
	}
	for _, item := range items {
		id, kind := item.Get("id"), item.Get("type").String()
		kept := kind == "item_reference" || kind == "" && !item.Get("role").Exists() || kind == "reasoning" && item.Get("encrypted_content").String() == ""
		if id.Type == gjson.String && id.Str != "" && kept {
			r.input.referTo("items", id.Str)
		}
	}
}
