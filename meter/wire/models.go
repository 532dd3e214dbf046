package wire

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// maxModels bounds how many models a request may name.
const maxModels = 64

// nameModels fills in what else a request names as its model, or as what may answer in its place.
func (r *Request) nameModels(c *meter.Call) {
	r.refuseRouting()
	for _, name := range strings.Fields(modelNames) {
		r.Also(c, name, r.Name(name))
	}
	r.namePreset(c)
	for _, name := range strings.Fields("model " + modelNames) {
		r.Also(c, "extra_body", r.Name("extra_body."+name))
	}
	for _, list := range []string{"models", "fallbacks", "fallback_models", "providerOptions.gateway.models", "extra_body.models"} {
		r.nameList(c, list)
	}
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		r.Refuse("query", "it is not written as a query should be")
	}
	for _, name := range []string{"model", "model[]", "deployment"} {
		for _, key := range slices.Sorted(maps.Keys(query)) {
			if string(fold([]byte(key))) != name {
				continue
			}
			if len(query[key]) > 1 || key != name {
				r.Refuse("query", key+" stands there twice, or in another spelling")
			}
			r.checkName("query", query[key][0])
			r.Also(c, "query", query[key][0])
		}
	}
	for _, name := range modelHeaders {
		for _, value := range r.Header.Values(name) {
			r.checkName(name, value)
			r.Also(c, name, value)
		}
	}
	r.nameOne(c)
}

// nameList reads a list of models: a name, or an array of names or of objects that have one as their model.
func (r *Request) nameList(c *meter.Call, path string) {
	if !r.set(path) {
		return
	}
	list := r.Get(path)
	if list.Type == gjson.String {
		r.Also(c, path, list.Str)
		return
	}
	if !list.IsArray() {
		r.Refuse(path, "expected a list of models")
		return
	}
	list.ForEach(func(_, v gjson.Result) bool {
		if v.IsObject() {
			v = v.Get("model")
		}
		if v.Type != gjson.String {
			r.Refuse(path, "expected a list of the models' names")
			return false
		}
		r.checkName(path, v.Str)
		r.Also(c, path, v.Str)
		return r.err == nil
	})
}

// Also notes that a model may answer, which the field names. It is the call's own where that has none yet.
func (r *Request) Also(c *meter.Call, field, model string) {
	switch {
	case model == "" || model == c.Model || slices.Contains(c.Models, model):
	case c.Model == "":
		c.Model = model
	case len(c.Models) == maxModels, len(model) > maxName:
		r.Refuse(field, "too many models are named, or one at too great a length")
	default:
		c.Models = append(c.Models, model)
	}
}

// Named says that the path names the model. Another one that stands elsewhere is kept among [meter.Call.Models].
func (r *Request) Named(c *meter.Call, model string) {
	if model == "" {
		return
	}
	r.checkName("path", model)
	body := c.Model
	c.Model = model
	c.Models = slices.DeleteFunc(c.Models, func(m string) bool { return m == model })
	if strings.TrimPrefix(body, "models/") != strings.TrimPrefix(model, "models/") {
		r.Also(c, "model", body)
	}
}

// operations are how paths end that name a model before.
var operations = []string{"/extensions/chat/completions", "/chat/completions", "/completions", "/embeddings", "/responses", "/messages",
	"/images/generations", "/images/edits", "/images/variations", "/audio/transcriptions", "/audio/translations", "/audio/speech",
	"/text/generation", "/text/generation_stream", "/text/chat", "/text/chat_stream", "/invocations", "/ocr", "/moderations", "/rerank", "/embed"}

// deployments are what stands before such a name, which usually is the model's.
var deployments = []struct {
	before string
	v1     bool // the operation is mounted at /v1 behind the name
}{
	{"/deployments/", false}, // Azure: /openai/deployments/NAME/chat/completions; of LiteLLM, a name may have slashes
	{"/engines/", false},     // OpenAI, once
	{"endpoints/", false},    // Databricks: /serving-endpoints/NAME/invocations; SageMaker: /endpoints/NAME/invocations; Vertex AI
	{"/models/", true},       // Hugging Face: /models/NAME/v1/chat/completions
}

// Deployment is the name of what answers where the path has it, in its own spelling; else empty.
func (r *Request) Deployment() string {
	if _, rest, found := strings.Cut(r.Clean, "/ai/run/"); found { // Cloudflare
		return r.Path[len(r.Path)-len(rest):]
	}
	for _, d := range deployments {
		_, rest, found := strings.Cut(r.Clean, d.before)
		if !found {
			continue
		}
		name, ok := cutOperation(rest)
		switch {
		case d.v1 && ok:
			name, ok = strings.CutSuffix(name, "/v1")
		case !d.v1 && !ok:
			name, _, ok = strings.Cut(rest, "/")
		}
		// Docker mounts an engine's API at /engines/NAME/v1, and Vertex AI its own at /endpoints/openapi: the body names the model.
		if !ok || name == "" || name == "openapi" || !d.v1 && (name == "v1" || strings.HasSuffix(name, "/v1")) {
			continue
		}
		start := len(r.Path) - len(rest)
		return r.Path[start : start+len(name)]
	}
	return ""
}

// cutOperation cuts off how a path ends.
func cutOperation(path string) (rest string, found bool) {
	for _, end := range operations {
		if rest, found = strings.CutSuffix(path, end); found {
			return rest, true
		}
	}
	return "", false
}
