// Package batch reads batches: many requests that are sent in at once, run in the background, and are fetched as results. Whoever fetches the
// results is charged for them, once. It knows the batches of all providers, since they share their paths.
//
// OpenAI: https://platform.openai.com/docs/guides/batch, Anthropic: https://docs.anthropic.com/en/api/creating-message-batches, Gemini:
// https://ai.google.dev/api/batch-api, Mistral: https://docs.mistral.ai/api/endpoint/batch, xAI:
// https://docs.x.ai/docs/guides/batch-api, OpenRouter: https://openrouter.ai/docs/api/api-reference/batch/get-batch-results
package batch

import (
	"bytes"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// kind is what a batch is, among the things that are asked for first and fetched later.
const kind = "batch"

var (
	jobAPI    = &wire.API{Name: "batches", Dialect: wire.New(job)}
	resultAPI = &wire.API{Name: "batch.results", Dialect: wire.New(results)}
	fileAPI   = &wire.API{Name: "files", Dialect: wire.New(wire.Dialect{End: func(*wire.State, *wire.Message) wire.Verdict { return wire.Pass }})}
)

// job reads what the sending of a batch is answered with: its name.
var job = wire.Dialect{
	Rules: []wire.Rule{{Path: "id"}, {Path: "batch_id"}, {Path: "name"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		for _, path := range []string{"name", "batch_id", "id"} { // the name is Gemini's, and xAI's beside its batch_id
			if v := m.Get(path).String(); v != "" {
				t.ID = v[strings.LastIndexByte(v, '/')+1:]
			}
		}
		t.Pending = true
		return wire.Pass
	},
}

// Inspect recognises what has to do with batches, by the path. It returns nil for any other request.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/files") && r.IsMultipart():
		return inspectFile(r)
	case r.Post("/batches"), r.Post("/batch/jobs"), r.Post("/messages/batches"), r.Post(":batchgeneratecontent"), r.Post(":asyncbatchembedcontent"):
		return inspectJob(r), nil
	case r.Post("/requests") && strings.Contains(r.Clean, "/batches/"): // xAI adds them to a batch one by one
		c := inspectJob(r)
		c.Later, c.Of = "", of(r)
		return c, nil
	case r.Method == http.MethodGet || r.Post("/cancel") || r.Post(":cancel"):
		return inspectResults(r), nil
	}
	return nil, nil
}

// inspectJob reads a request that sends a batch. Its requests are those of its body, if they are not in a file.
func inspectJob(r *wire.Request) *meter.Call {
	c := r.Call(jobAPI)
	c.Later, c.AnyModel, c.InputOnly, c.ServiceTier = kind, true, true, "batch"
	if at := strings.LastIndexByte(r.Path, ':'); at > 0 {
		r.Named(c, r.Path[strings.LastIndexByte(r.Path, '/')+1:at])
	}
	c.InputOpen = true // a file; and the output of its requests, which is bounded only by each of them
	each := func(_, request gjson.Result) bool {
		name(r, c, request)
		request.ForEach(func(_, body gjson.Result) bool { // its body, its params, or what xAI calls its kind
			name(r, c, body)
			body.ForEach(func(_, inner gjson.Result) bool {
				name(r, c, inner)
				return r.Err() == nil
			})
			return r.Err() == nil
		})
		return r.Err() == nil
	}
	r.Get("requests").ForEach(each)
	r.Get("batch_requests").ForEach(each)
	return c
}

// name notes the model that a request of a batch names.
func name(r *wire.Request, c *meter.Call, request gjson.Result) {
	if request.IsObject() {
		if v := request.Get("model"); v.Type == gjson.String {
			r.Also(c, "requests", v.Str)
		}
	}
}

// inspectFile reads the upload of a batch's requests, a line each: their models must have prices. It returns nil for an upload of anything else.
func inspectFile(r *wire.Request) (*meter.Call, error) {
	c := r.Call(fileAPI)
	purpose, content := r.ReadUpload(c)
	if purpose != kind && r.Err() == nil {
		return nil, nil
	}
	c.AnyModel, c.InputOnly, c.InputTokens = true, true, 0
	for line := range bytes.Lines(content) {
		for _, path := range []string{"body.model", "params.model", "request.model"} {
			if v := gjson.GetBytes(line, path); v.Type == gjson.String {
				r.Also(c, "file", v.Str)
			}
		}
	}
	return c, nil
}

// inspectResults reads a request that fetches results, or a batch, which may have its results in it.
func inspectResults(r *wire.Request) *meter.Call {
	get := r.Method == http.MethodGet
	var once string
	switch {
	case get && strings.HasSuffix(r.Clean, "/results") && strings.Contains(r.Clean, "/messages/batches/"):
		once = "anthropic:" + between(r.Clean, "/batches/", "/results")
	case get && strings.HasSuffix(r.Clean, "/content") && strings.Contains(r.Clean, "/files/"):
		once = "openai:" + between(r.Clean, "/files/", "/content")
	case get && strings.HasSuffix(r.Clean, ":download") && strings.Contains(r.Clean, "/files/"):
		once = "gemini:" + between(r.Clean, "/files/", ":download")
	case get && strings.HasSuffix(r.Clean, "/results") && strings.Contains(r.Clean, "/batches/"):
		// A page of them, which may have more in it the next time: each fetch is charged for what it brings.
	case of(r) != "":
		once = of(r)
	case get && (strings.HasSuffix(r.Clean, "/batches") || strings.HasSuffix(r.Clean, "/batch/jobs")): // Gemini's lists may have results in them
	default:
		return nil
	}
	c := r.Call(resultAPI)
	c.Malformed = false
	refuseMask(r)
	c.Once, c.Of, c.AnyModel, c.InputOnly, c.InputOpen = once, of(r), true, true, true
	return c
}

// refuseMask refuses a request that has Google leave fields out, among which may be the usage.
// https://cloud.google.com/apis/docs/system-parameters
func refuseMask(r *wire.Request) {
	query, _ := url.ParseQuery(r.Query)
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if name := strings.ToLower(strings.TrimPrefix(key, "$")); name == "fields" {
			r.Refuse(key, "without all fields the results can't be counted: leave it out")
		}
	}
	if r.Header.Get("X-Goog-Fieldmask") != "" {
		r.Refuse("X-Goog-FieldMask", "without all fields the results can't be counted: leave it out")
	}
}

func between(s, before, after string) string {
	return strings.TrimSuffix(s[strings.LastIndex(s, before)+len(before):], after)
}

// of names the batch that a path is about; empty if it is about none.
func of(r *wire.Request) string {
	for _, collection := range []string{"/batches/", "/batch/jobs/"} {
		if at := strings.LastIndex(r.Clean, collection); at >= 0 {
			id, _, _ := strings.Cut(r.Clean[at+len(collection):], "/")
			if id = strings.TrimSuffix(id, ":cancel"); id != "" {
				return wire.Fetched(kind, id)
			}
		}
	}
	return ""
}
