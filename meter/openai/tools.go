package openai

import (
	"slices"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Tools is what the output of a response tells of the tools that ran at the provider: by the types of its items, by what its searches did, and by
// the containers in which code ran.
type Tools struct {
	webs, actions, searches, files, codes int64
	containers                            []string
}

// Item notes the type of an item.
func (r *Tools) Item(kind gjson.Result) {
	switch kind.String() {
	case "web_search_call":
		r.webs++
	case "file_search_call":
		r.files++
	case "code_interpreter_call":
		r.codes++
	}
}

// Action notes the type of an item's action.
func (r *Tools) Action(kind gjson.Result) {
	if r.actions++; kind.String() == "search" {
		r.searches++
	}
}

// Container notes the id of an item's container.
func (r *Tools) Container(id gjson.Result) {
	if id.Type == gjson.String && len(id.Str) <= maxContainer && len(r.containers) < maxTold && !slices.Contains(r.containers, id.Str) {
		r.containers = append(r.containers, id.Str)
	}
}

// maxContainer is how many bytes the id of a container may have that is told apart from others.
const maxContainer = 256

// toolsOf reads the output of a response that is below a path.
func toolsOf(m *wire.Message, at string) (r Tools) {
	for _, v := range m.All(at + "output.*.type") {
		r.Item(v)
	}
	for _, v := range m.All(at + "output.*.action.type") {
		r.Action(v)
	}
	for _, v := range m.All(at + "output.*.container_id") {
		r.Container(v)
	}
	return r
}

// Add adds what the tools of one of several answers used to the sums. beside is the answer's tool_usage.
func (r *Tools) Add(t *wire.State, model string, beside, usage gjson.Result) {
	units, containers := r.count(t, model, beside, usage)
	for _, id := range containers {
		if slices.Contains(t.Containers, id) { // all answers have one session of it
			units[meter.CodeSession] -= min(units[meter.CodeSession], meter.Whole(max(1, t.Call.ContainerGB)))
		} else if len(t.Containers) < maxTold {
			t.Containers = append(t.Containers, id)
		}
	}
	for class, n := range units {
		t.Sums.Add(class, n)
	}
	for _, pass := range generated(beside.Get("image_gen")) {
		t.AddBeside(pass)
	}
}

// count returns what the tools used, and the containers. xAI states its calls in the usage, and OpenAI its web searches beside it. All else is
// counted in the output: a container is a session for each gigabyte of its memory.
// https://platform.openai.com/docs/pricing#built-in-tools, https://docs.x.ai/docs/models#tools-pricing
func (r *Tools) count(t *wire.State, model string, beside, usage gjson.Result) (units meter.Units, containers []string) {
	units = fees(t, model, usage)
	if n := r.webSearches(beside, usage, &t.Stated.Suspect); n > 0 {
		units[meter.WebSearch] = n
	}
	if v := usage.Get("server_side_tool_usage_details"); v.IsObject() {
		count := func(key string) int64 { return wire.Number(v.Get(key), &t.Stated.Suspect) }
		units[meter.FileSearch] = meter.Whole(count("file_search_calls") + count("document_search_calls"))
		units[meter.CodeSession] = meter.Whole(count("code_interpreter_calls"))
		return units, nil
	}
	ran := r.codes
	if n := int64(len(r.containers)); n > 0 {
		ran = min(ran, n)
	}
	units[meter.FileSearch], units[meter.CodeSession] = meter.Whole(r.files), meter.Whole(ran*max(1, t.Call.ContainerGB))
	return units, r.containers
}

// webSearches counts web searches. OpenAI states them in tool_usage, and xAI in the counts of its two searches, which cost the same.
// Otherwise the search calls in the output are counted, except for those that open or read a page.
// https://platform.openai.com/docs/pricing#built-in-tools
func (r *Tools) webSearches(beside, usage gjson.Result, suspect *bool) meter.Quantity {
	if v := beside.Get("web_search.num_requests"); v.Exists() {
		return meter.Whole(wire.Number(v, suspect))
	}
	if v := usage.Get("server_side_tool_usage_details"); v.IsObject() {
		return meter.Whole(wire.Number(v.Get("web_search_calls"), suspect) + wire.Number(v.Get("x_search_calls"), suspect))
	}
	if n := searches(usage, suspect); n > 0 {
		return n
	}
	if r.webs == 0 || r.actions == 0 {
		return meter.Whole(r.webs)
	}
	return meter.Whole(min(r.webs, r.searches))
}
