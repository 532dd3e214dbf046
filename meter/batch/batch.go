// Package batch reads batches: many requests that are sent together, run in the background, and are fetched as results. The results are
// charged once, when they are fetched. Since the providers' batches share their paths, this package knows all of them. [Inspect] recognises
// a request about a batch.
//
// OpenAI: https://platform.openai.com/docs/guides/batch, Anthropic: https://docs.anthropic.com/en/api/creating-message-batches, Gemini:
// https://ai.google.dev/api/batch-api, Mistral: https://docs.mistral.ai/api/endpoint/batch, xAI:
// https://docs.x.ai/docs/guides/batch-api, OpenRouter: https://openrouter.ai/docs/api/api-reference/batch/get-batch-results
package batch

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// kind is the kind of batches in names of things that are asked for first and fetched later.
const kind = "batch"

var (
	jobAPI    = sending("batches")
	messages  = sending("messages/batches") // Anthropic's
	mistral   = sending("batch/jobs")
	resultAPI = &wire.API{Name: "batch.results", Dialect: wire.New(results)}
	fileAPI   = &wire.API{Name: "files", Dialect: wire.New(wire.GenericDialect.Keeping(wire.Rule{Path: "id", Makes: "files"}))}
)

// sending is what batches are sent by, which the provider keeps in a collection.
func sending(collection string) *wire.API {
	return &wire.API{Name: "batches", Dialect: wire.New(job.Keeping(
		wire.Rule{Path: "id", Makes: collection}, wire.Rule{Path: "batch_id", Makes: collection}, wire.Rule{Path: "name", Makes: collection, Named: true}))}
}

// job reads the batch's name from the answer to the request that sends it.
var job = wire.Dialect{
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		for _, path := range []string{"name", "batch_id", "id"} { // name is Gemini's; xAI has batch_id besides a name
			if v := m.Get(path).String(); v != "" {
				t.ID = v[strings.LastIndexByte(v, '/')+1:]
			}
		}
		t.Pending = true
		return wire.Pass
	},
}

// Inspect recognises a request about batches by its path. It returns nil for any other request.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/files") && r.IsMultipart():
		return inspectFile(r)
	case r.Post("/batches"), r.Post("/batch/jobs"), r.Post("/messages/batches"), r.Post(":batchgeneratecontent"), r.Post(":asyncbatchembedcontent"):
		return inspectJob(r), nil
	case r.Post("/requests") && strings.Contains(r.Clean, "/batches/"): // xAI adds requests to a batch one by one
		c := inspectJob(r)
		c.Later, c.Of = "", of(r)
		return c, nil
	case r.Method == http.MethodGet || r.Post("/cancel") || r.Post(":cancel"):
		return inspectResults(r), nil
	}
	return nil, nil
}

// inspectJob reads a request that sends a batch. The batch's requests are in its body, or in a file that was uploaded before.
func inspectJob(r *wire.Request) *meter.Call {
	api := jobAPI
	switch {
	case r.Post("/messages/batches"):
		api = messages
	case r.Post("/batch/jobs"):
		api = mistral
	}
	c := r.Call(api)
	c.Later, c.AnyModel, c.InputOnly, c.ServiceTier = kind, true, true, "batch"
	if at := strings.LastIndexByte(r.Path, ':'); at > 0 {
		r.Named(c, r.Path[strings.LastIndexByte(r.Path, '/')+1:at])
	}
	c.InputOpen = true // for a file; and for the output, which is limited only by each request
	for _, list := range []string{"requests", "batch_requests"} {
		n := 0
		r.Get(list).ForEach(func(_, request gjson.Result) bool {
			readRequest(r, c, list+"."+strconv.Itoa(n), request)
			n++
			return r.Err() == nil
		})
	}
	if (r.Post(":batchgeneratecontent") || r.Post(":asyncbatchembedcontent")) && namesFile(r.Get("batch")) {
		c.Stored.Unclear = &meter.AmbiguousError{Field: "batch.input_config.file_name", Reason: "what the requests in the file name can't be read: send the requests in the body"}
	}
	return c
}

// namesFile reports whether a batch of Gemini's has its requests in a file.
func namesFile(batch gjson.Result) (is bool) {
	batch.ForEach(func(key, v gjson.Result) bool {
		switch strings.ReplaceAll(strings.ToLower(key.Str), "_", "") {
		case "inputconfig":
			is = is || namesFile(v)
		case "filename":
			is = true
		}
		return !is
	})
	return is
}

// inspectFile reads the upload of a batch's requests, one in each line. Their models must have prices. It returns nil for other uploads.
func inspectFile(r *wire.Request) (*meter.Call, error) {
	c := r.Call(fileAPI)
	purpose, content := r.ReadUpload(c)
	c.AnyModel, c.InputOnly, c.InputTokens = true, true, 0
	if !readLines(r, c, content, strings.EqualFold(purpose, kind)) && r.Err() == nil {
		return nil, nil
	}
	return c, nil
}

// inspectResults reads a request that fetches results, or a batch object, which may contain its results.
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
		// A page may have more in it the next time: each of its results is charged once.
	case of(r) != "":
		once = of(r)
	case get && (strings.HasSuffix(r.Clean, "/batches") || strings.HasSuffix(r.Clean, "/batch/jobs")): // Gemini's lists may contain results
	default:
		return nil
	}
	c := r.Call(resultAPI)
	c.Malformed = false
	refuseMask(r)
	c.Once, c.Of, c.AnyModel, c.InputOnly, c.InputOpen = once, of(r), true, true, true
	c.Itemized = once == "" || once == c.Of
	return c
}

// refuseMask refuses a request that asks Google for an answer that can't be read, or to leave fields out of it, which may include the usage.
// https://cloud.google.com/apis/docs/system-parameters
func refuseMask(r *wire.Request) {
	const reason = "without all fields the results can't be counted: leave it out"
	r.RefuseForms()
	query, _ := url.ParseQuery(r.Query)
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if strings.EqualFold(strings.TrimPrefix(key, "$"), "fields") {
			r.Refuse(key, reason)
		}
	}
	if r.Header.Get("X-Goog-Fieldmask") != "" {
		r.Refuse("X-Goog-FieldMask", reason)
	}
}

func between(s, before, after string) string {
	return strings.TrimSuffix(s[strings.LastIndex(s, before)+len(before):], after)
}

// of returns the name of the batch that a path is about, or an empty text.
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
