package wire

import (
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// maxModels bounds how many models a request may name.
const maxModels = 64

// nameModels reads the models that a request names outside of the field "model": under other names of that field, in lists of fallbacks, in
// the query and in headers. Any of them may answer, so each is noted.
func (r *Request) nameModels(c *meter.Call) {
	r.refuseRouting()
	for _, name := range modelFields {
		r.Also(c, name, r.Name(name))
	}
	r.namePreset(c)
	for _, name := range extraModelFields {
		r.Also(c, "extra_body", r.Name(name))
	}
	for _, list := range []string{"models", "fallbacks", "fallback_models", "providerOptions.gateway.models", "extra_body.models"} {
		r.nameList(c, list)
	}
	r.nameInQuery(c)
	for _, name := range modelHeaders {
		for _, value := range r.Header.Values(name) {
			r.checkName(name, value)
			r.Also(c, name, value)
		}
	}
	r.nameOne(c)
}

var (
	modelFields      = strings.Fields(modelNames)
	extraModelFields = strings.Fields("extra_body.model extra_body." + strings.ReplaceAll(modelNames, " ", " extra_body."))
)

// nameInQuery reads the models that the query names.
func (r *Request) nameInQuery(c *meter.Call) {
	if r.Query == "" {
		return
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
}

// nameList reads a field that lists models. Its value is one name, or an array. An element of the array is a name, or an object with a name in
// its field "model".
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

// Also notes a model that may answer. field is the field that names it. The first model that is noted becomes the call's own if the call has
// none yet.
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

// Named makes model, which the path names, the model of the call. If the body names another one, that is kept in [meter.Call.Models].
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

// operations are the ends of those paths that have the name of a model before the operation.
var operations = []string{"/extensions/chat/completions", "/chat/completions", "/completions", "/embeddings", "/responses", "/messages",
	"/images/generations", "/images/edits", "/images/variations", "/audio/transcriptions", "/audio/translations", "/audio/speech",
	"/text/generation", "/text/generation_stream", "/text/chat", "/text/chat_stream", "/invocations", "/ocr", "/moderations", "/rerank", "/embed"}

// deployments are the parts of a path after which the name of a deployment comes. That name is usually the model's.
var deployments = []struct {
	before string
	v1     bool // /v1 stands between the name and the operation
}{
	{"/deployments/", false}, // Azure: /openai/deployments/NAME/chat/completions; of LiteLLM, a name may have slashes
	{"/engines/", false},     // OpenAI, once
	{"endpoints/", false},    // Databricks: /serving-endpoints/NAME/invocations; SageMaker: /endpoints/NAME/invocations; Vertex AI
	{"/models/", true},       // Hugging Face: /models/NAME/v1/chat/completions
}

// googleNames are the parts of a path after which Google has NAME:method: of models of any publisher, and of endpoints of Vertex AI.
var googleNames = map[string]bool{"models": true, "endpoints": true}

// Deployment returns the name of the deployment in the path, in upper and lower case as it was sent. It is empty if the path has none.
func (r *Request) Deployment() string {
	if _, rest, found := strings.Cut(r.Clean, "/ai/run/"); found { // Cloudflare
		return r.Path[len(r.Path)-len(rest):]
	}
	if last := path.Base(r.Path); googleNames[path.Base(path.Dir(r.Clean))] && strings.Contains(last, ":") {
		return last[:strings.LastIndexByte(last, ':')]
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

// cutOperation returns a path without the operation at its end. found is false if no known operation is there.
func cutOperation(path string) (rest string, found bool) {
	for _, end := range operations {
		if rest, found = strings.CutSuffix(path, end); found {
			return rest, true
		}
	}
	return "", false
}
