package formats

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// What a provider keeps belongs to who made it. Where the ids stand in the paths, in the requests and in the answers of each collection is told
// here, in package wire (the fields of requests) and in the rules of the formats (the answers to calls that are metered).

// aliases are collections that have another name in requests. xAI's collections are the vector stores of OpenAI's tools:
// https://docs.x.ai/developers/files/collections/api
var aliases = map[string]string{"collections": "vector_stores"}

// Kinds are the kinds of resources that are known, sorted. Four are in no collection that can be listed: items, which are parts of an OpenAI
// response, audio, which is what a chat has spoken, models, of which only fine-tuned ones are somebody's, and tasks, which are those of MCP.
var Kinds = func() []string {
	kinds := map[string]bool{"items": true, "audio": true, "models": true, "tasks": true}
	for kind := range stores {
		kinds[kind] = kind != "mcp" && aliases[kind] == ""
	}
	maps.DeleteFunc(kinds, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(kinds))
}()

// operations are what stands in a path where the id of a resource does else.
var operations = map[string]map[string]bool{
	"threads": words("runs"), "responses": words("input_tokens compact"), "agents": words("completions"),
	"videos": words("generations edits extensions"), "datasets": words("usage"), "fine_tuning": words("alpha checkpoints"),
}

// makers are the rules by which the answer to a POST tells what was made, where that is no call of a format's own. A collection that is not
// here tells the id of the new resource as id.
var makers = map[string][]wire.Rule{
	"files":            {{Path: "id", Makes: "files"}, {Path: "name", Makes: "files", Named: true}, {Path: "file.name", Makes: "files", Named: true}}, // the last: Gemini
	"uploads":          {{Path: "id", Makes: "uploads"}, {Path: "file.id", Makes: "files"}},
	"threads":          {{Path: "id", Makes: "threads"}, {Path: "thread_id", Makes: "threads"}},
	"conversations":    {{Path: "id", Makes: "conversations"}, {Path: "conversation_id", Makes: "conversations"}}, // the latter: Mistral
	"videos":           {{Path: "id", Makes: "videos"}, {Path: "request_id", Makes: "videos"}},
	"batches":          {{Path: "id", Makes: "batches"}, {Path: "name", Makes: "batches", Named: true}},
	"operations":       {{Path: "name", Makes: "operations", Named: true}},
	"cachedcontents":   {{Path: "name", Makes: "cachedcontents", Named: true}},
	"filesearchstores": {{Path: "name", Makes: "filesearchstores", Named: true}},
	"corpora":          {{Path: "name", Makes: "corpora", Named: true}},
	"tunedmodels":      {{Path: "name", Makes: "operations", Named: true}, {Path: "metadata.tunedModel", Makes: "tunedmodels", Named: true}},
	"embed-jobs":       {{Path: "job_id", Makes: "embed-jobs"}, {Path: "id", Makes: "embed-jobs"}},

	"vector_stores":               {{Path: "id", Makes: "vector_stores"}, {Path: "collection_id", Makes: "vector_stores"}}, // the latter: xAI
	"finetuning/finetuned-models": {{Path: "finetuned_model.id", Makes: "finetuning/finetuned-models"}},
}

// making are the formats that count the answers to such POSTs, by their collections.
var making = func() map[string]*wire.API {
	apis := map[string]*wire.API{}
	for kind := range stores {
		rules := makers[kind]
		if rules == nil {
			rules = []wire.Rule{{Path: "id", Makes: kind}}
		}
		apis[kind] = &wire.API{Dialect: wire.New(wire.GenericDialect.Keeping(rules...))}
	}
	return apis
}()

// makesBelow are operations on a resource whose answer tells of another one of its collection, or of what came of it.
var makesBelow = map[string]map[string]bool{
	"videos": words("remix"), "uploads": words("complete"), "conversations": words("restart"),
}

// telling are where a resource tells of others that came of it, by its kind: a path in gjson's syntax, and their kind.
var telling = map[string][]struct{ path, kind string }{
	"batches": {{"output_file_id", "files"}, {"error_file_id", "files"}, {"response.responsesFile", "files"}, {"metadata.output.responsesFile", "files"},
		{"dest.fileName", "files"}},
	"batch/jobs":       {{"output_file", "files"}, {"error_file", "files"}},
	"fine_tuning/jobs": {{"result_files", "files"}, {"fine_tuned_model", "models"}},
	"operations":       {{"response.generateVideoResponse.generatedSamples.#.video.uri", "files"}, {"response.generatedVideos.#.video.uri", "files"}},
	"uploads":          {{"file.id", "files"}},
	"embed-jobs":       {{"output_dataset_id", "datasets"}},
	"responses":        {{"output.#.id", "items"}, {"output.#.container_id", "containers"}},
	"threads": {{"data.#.content.#.image_file.file_id", "files"}, {"data.#.content.#.text.annotations.#.file_path.file_id", "files"},
		{"content.#.image_file.file_id", "files"}, {"content.#.text.annotations.#.file_path.file_id", "files"}},
	"conversations": {{"entries.#.content.#.file_id", "files"}, {"messages.#.content.#.file_id", "files"}},
}

// place is a resource, or a collection, that a path names.
type place struct {
	kind, id string
	named    bool     // there is a part where the id stands, be it one or not
	rest     []string // what follows the id
}

// naming are what the name of a model, or of a deployment of one, stands behind in a path.
var naming = words("models deployments engines endpoints serving-endpoints projects locations")

// placeOf finds the first collection that a path names behind its version, or anywhere where it has no version.
func placeOf(path string) (p place, found bool) {
	parts := slices.DeleteFunc(strings.Split(path, "/"), func(part string) bool { return part == "" })
	first := 0
	for i, part := range parts {
		if version.MatchString(part) {
			first = i + 1
		} else if first > 0 {
			break
		}
	}
	for i := first; i < len(parts); i++ {
		if i > first && naming[strings.ToLower(parts[i-1])] {
			continue
		}
		kind, next := collection(parts[i]), i+1
		if next < len(parts) {
			if both := kind + "/" + collection(parts[next]); stores[both] {
				kind, next = both, next+1
			}
		}
		if !stores[kind] || kind == "mcp" {
			continue
		}
		p.kind = cmp.Or(aliases[kind], kind)
		if next < len(parts) {
			id, _, _ := strings.Cut(parts[next], ":")
			p.id, p.named, p.rest = meter.CheckID(id), true, parts[next+1:]
		}
		return p, true
	}
	return p, false
}

// collection is a part of a path as the name of a collection: without a method, which may follow a colon.
func collection(part string) string {
	name, _, _ := strings.Cut(strings.ToLower(part), ":")
	return name
}

// keep fills in what a call has to do with the resources that the provider keeps.
func keep(r *wire.Request, c *meter.Call) {
	s := &c.Stored
	p, found := placeOf(r.Path)
	if found {
		keepPlace(r, c, p)
	} else if kind := longRunning(r); kind != "" && c.API == "" {
		c.Format, s.Makes = making[kind], true
	} else if c.API == "" && r.IsMultipart() {
		_ = r.ReferInForm() // as far as it can be read
	}
	if r.Query != "" {
		keepQuery(r, s, p)
	}
	if len(r.Body) > 0 {
		uses, err := r.Uses()
		s.Uses = append(s.Uses, uses...)
		s.Unclear = cmp.Or(s.Unclear, err)
	}
	for _, model := range append([]string{c.Model, r.Get("model").Str}, c.Models...) {
		if named, ok := tuned(model); ok && !slices.Contains(s.Uses, named) {
			s.Uses = append(s.Uses, named)
		}
	}
}

// tunedByCohere are the names of models that Cohere has fine-tuned: their ids, with an ending. Its own models have names with words:
// https://docs.cohere.com/reference/getfinetunedmodel, https://docs.cohere.com/docs/chat-fine-tuning
var tunedByCohere = regexp.MustCompile(`^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-ft)?$`)

// tuned is the resource that a fine-tuned model is, by its name: OpenAI's ft:..., Gemini's tunedModels/... and Cohere's ID-ft.
func tuned(model string) (r meter.Resource, ok bool) {
	switch folded := strings.ToLower(model); {
	case strings.HasPrefix(folded, "ft:"):
		return meter.Resource{Kind: "models", ID: meter.CheckID(model)}, true
	case strings.HasPrefix(folded, "tunedmodels/"):
		return meter.NamedResource("tunedmodels", model)
	default:
		if id := tunedByCohere.FindStringSubmatch(folded); id != nil {
			return meter.Resource{Kind: "finetuning/finetuned-models", ID: id[1]}, true
		}
	}
	return r, false
}

// longRunning is the kind of what Gemini makes of a long work with a model; "" for all else.
func longRunning(r *wire.Request) string {
	switch {
	case r.Post(":predictlongrunning"):
		return "operations"
	case r.Post(":batchgeneratecontent"), r.Post(":asyncbatchembedcontent"):
		return "batches"
	}
	return ""
}

// keepPlace is keep for a path that names a collection.
func keepPlace(r *wire.Request, c *meter.Call, p place) {
	s := &c.Stored
	if p.named && r.Method == http.MethodPost && operations[p.kind][strings.ToLower(p.id)] {
		p = place{kind: p.kind}
	}
	unknown := c.API == ""
	if unknown {
		s.Unclear = checkBody(r, p)
	}
	named := meter.Resource{Kind: p.kind, ID: p.id}
	switch r.Method {
	case http.MethodOptions, http.MethodConnect:
		return
	case http.MethodGet, http.MethodHead:
		switch {
		case p.named && len(telling[p.kind]) > 0:
			s.Tells = p.kind
		case !p.named && p.kind != "generation" && !r.Upgrade(""):
			s.Lists = p.kind
		}
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		below := len(p.rest) > 0 && makesBelow[p.kind][strings.ToLower(p.rest[len(p.rest)-1])]
		if unknown && (!p.named || below) {
			c.Format, s.Makes = making[p.kind], true
		}
	case http.MethodDelete:
		if p.named && len(p.rest) == 0 {
			s.Deletes = &named
		}
		p.named = true // without an id it is all of them at once
	default:
		p.named = true
	}
	if p.named {
		s.Uses = append(s.Uses, named)
	}
}

// checkBody refuses a body in which a provider may read the ids of resources that can't be read here.
func checkBody(r *wire.Request, p place) error {
	isUpload := strings.HasPrefix(r.Clean, "/upload/") || p.kind == "uploads"
	switch {
	case p.kind == "uploads" && strings.EqualFold(r.Get("purpose").String(), "batch"):
		return &meter.AmbiguousError{Field: "purpose", Reason: "what the requests of a batch name can't be read in parts: upload them as one file"}
	case len(r.Body) == 0 || isUpload:
		return nil
	case isEncoded(r.Header):
		return meter.ErrEncoded
	case r.IsMultipart():
		return r.ReferInForm()
	case !r.Object():
		return &meter.AmbiguousError{Field: "body", Reason: "expected a JSON object or a multipart form"}
	}
	return nil
}

// cursors are the parameters of a query that name a resource of the list that is asked for.
var cursors = words("after before after_id before_id starting_after ending_before")

// keepQuery notes the resources that a query names.
func keepQuery(r *wire.Request, s *meter.Stored, p place) {
	query, err := url.ParseQuery(r.Query)
	if err != nil && p.kind != "" {
		s.Unclear = cmp.Or(s.Unclear, error(&meter.AmbiguousError{Field: "query", Reason: "it is not written as a query should be"}))
	}
	for name, values := range query {
		name = strings.ToLower(strings.TrimSuffix(name, "[]"))
		isID := s.Lists != "" && cursors[name] || p.kind == "generation" && name == "id" // the latter: OpenRouter
		for _, value := range values[:min(len(values), maxQuery)] {
			named, ok := wire.Reference(name, value)
			if isID && value != "" {
				named, _ = meter.NamedResource(p.kind, value)
				ok = true
			}
			if ok && !slices.Contains(s.Uses, named) {
				s.Uses = append(s.Uses, named)
			}
		}
		if len(values) > maxQuery {
			s.Unclear = cmp.Or(s.Unclear, error(&meter.AmbiguousError{Field: "query", Reason: name + " stands there too often"}))
		}
	}
}

const maxQuery = 100 // values of one parameter that are looked at

const maxListed = 10_000 // resources of one list

// ErrUnlisted is returned for an answer that can't be read as a list of resources.
var ErrUnlisted = errors.New("the answer is not a list of resources that can be read")

// List is an answer to a request for a list, of which each element is a resource.
type List struct {
	Resources []meter.Resource // of the elements that are one, in their order; the IDs of others are empty
	body      gjson.Result
	elements  []gjson.Result
}

// ReadList reads the answer to a request for a list of resources of a kind. The error is [ErrUnlisted].
func ReadList(kind string, body []byte) (*List, error) {
	if !gjson.ValidBytes(body) {
		return nil, ErrUnlisted
	}
	l := &List{body: gjson.ParseBytes(body)}
	if !l.body.IsObject() && !l.body.IsArray() {
		return nil, ErrUnlisted
	}
	l.eachArray(func(_ string, elements []gjson.Result) {
		for _, e := range elements {
			r := meter.Resource{Kind: kind}
			if e.IsObject() {
				for _, key := range []string{"id", "job_id", "collection_id", "name"} { // the last two: xAI's and Gemini's
					if v := e.Get(key); v.Type == gjson.String && v.Str != "" {
						named, _ := meter.NamedResource(kind, v.Str)
						r.ID = named.ID
						break
					}
				}
			}
			l.Resources = append(l.Resources, r)
			l.elements = append(l.elements, e)
		}
	})
	if len(l.Resources) > maxListed {
		return nil, ErrUnlisted
	}
	return l, nil
}

// eachArray calls fn for the arrays whose elements are listed: the body itself, or those that it has.
func (l *List) eachArray(fn func(key string, elements []gjson.Result)) {
	if l.body.IsArray() {
		fn("", l.body.Array())
		return
	}
	l.body.ForEach(func(key, v gjson.Result) bool {
		if v.IsArray() {
			fn(key.Str, v.Array())
		}
		return true
	})
}

// Keep returns the answer with those elements alone that are kept, by their place among [List.Resources]. What the list says of itself agrees
// with that. What else it has that is no plain value is left out.
func (l *List) Keep(kept []bool) []byte {
	var first, last string
	left, at := 0, 0
	take := func(elements []gjson.Result) []byte {
		out := []byte{'['}
		for _, e := range elements {
			if kept[at] {
				if len(out) > 1 {
					out = append(out, ',')
				}
				out = append(out, e.Raw...)
				if left++; first == "" {
					first = e.Get("id").Raw
				}
				last = e.Get("id").Raw
			}
			at++
		}
		return append(out, ']')
	}
	if l.body.IsArray() {
		return take(l.body.Array())
	}
	arrays := map[int][]byte{}
	n := 0
	l.eachArray(func(_ string, elements []gjson.Result) { arrays[n] = take(elements); n++ })
	var out bytes.Buffer
	n = 0
	l.body.ForEach(func(key, v gjson.Result) bool {
		raw := []byte(v.Raw)
		switch {
		case v.IsArray():
			raw = arrays[n]
			n++
		case v.IsObject():
			return true
		case key.Str == "first_id":
			raw = []byte(cmp.Or(first, "null"))
		case key.Str == "last_id":
			raw = []byte(cmp.Or(last, "null"))
		case key.Str == "has_more" && left == 0: // there is nothing to go on from
			raw = []byte("false")
		case totals[key.Str]:
			raw = strconv.AppendInt(nil, int64(left), 10)
		}
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		out.WriteString(key.Raw)
		out.WriteByte(':')
		out.Write(raw)
		return true
	})
	return slices.Concat([]byte{'{'}, out.Bytes(), []byte{'}'})
}

// nextTokens are the fields of a list that lead to its next page, and the parameters in which their values are sent. Gemini:
// https://ai.google.dev/api/files#method:-files.list, Cohere: https://docs.cohere.com/reference/listfinetunedmodels, Anthropic's skills:
// https://docs.anthropic.com/en/api/skills/list-skills
var nextTokens = []struct{ field, parameter string }{{"nextPageToken", "pageToken"}, {"next_page_token", "page_token"}, {"next_page", "page"}}

// Next returns the query that asks for the page after this one, if the list says that there is one. query is that of this page. afterID says
// that the provider calls its cursor after_id, as Anthropic does, and not after.
func (l *List) Next(query string, afterID bool) (next string, more bool) {
	values, err := url.ParseQuery(query)
	if err != nil || !l.body.IsObject() || len(l.elements) == 0 {
		return "", false
	}
	for _, t := range nextTokens {
		if token := l.body.Get(t.field); token.Type == gjson.String && token.Str != "" {
			values.Set(t.parameter, token.Str)
			return values.Encode(), true
		}
	}
	for _, name := range []string{"before", "before_id", "ending_before"} {
		if values.Has(name) {
			return "", false
		}
	}
	id := l.elements[len(l.elements)-1].Get("id")
	if !l.body.Get("has_more").Bool() || id.Type != gjson.String || id.Str == "" {
		return "", false
	}
	if afterID {
		values.Set("after_id", id.Str)
	} else {
		values.Set("after", id.Str)
	}
	if !values.Has("limit") {
		values.Set("limit", "100") // the most that providers allow for all their lists
	}
	return values.Encode(), true
}

// totals are what a list calls the number of its elements.
var totals = map[string]bool{"total": true, "total_count": true, "total_size": true, "totalSize": true, "count": true}

// Told returns the resources of which an element tells, which came of it.
func (l *List) Told(kind string, i int) []meter.Resource { return tell(nil, kind, l.elements[i]) }

// Made returns the resources that the whole answer to a call tells of, which the provider keeps of it.
func Made(c *meter.Call, status int, h http.Header, body []byte) []meter.Resource {
	counter := c.Counter(status, h)
	counter.Feed(nil, body)
	counter.Tail()
	return counter.Usage(false).Made
}

// maxTold bounds how many resources one answer tells of.
const maxTold = 256

// Told returns the resources that the whole answer to a request for a resource of a kind tells of, which came of it.
func Told(kind string, body []byte) []meter.Resource {
	if len(telling[kind]) == 0 || !gjson.ValidBytes(body) {
		return nil
	}
	return tell(nil, kind, gjson.ParseBytes(body))
}

// tell adds what a resource of a kind tells of.
func tell(told []meter.Resource, kind string, of gjson.Result) []meter.Resource {
	var add func(kind string, v gjson.Result)
	add = func(kind string, v gjson.Result) {
		switch {
		case v.IsArray():
			v.ForEach(func(_, v gjson.Result) bool { add(kind, v); return true })
		case v.Type == gjson.String && len(told) < maxTold:
			if r, ok := meter.NamedResource(kind, v.Str); ok && r.ID != "" && !slices.Contains(told, r) {
				told = append(told, r)
			}
		}
	}
	if !of.IsObject() {
		return told
	}
	for _, t := range telling[kind] {
		add(t.kind, of.Get(t.path))
	}
	return told
}
