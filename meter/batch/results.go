package batch

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/gemini"
	"github.com/tallygate/tallygate/meter/openai"
	"github.com/tallygate/tallygate/meter/wire"
)

// places are the paths at which a message may contain the answers of a batch. The paths of one group lead to the same answers.
var places = func() (list []place) {
	for _, path := range []string{
		"response.body", "result.message", // a line, of OpenAI's and Mistral's files, and of Anthropic's
		"response",                                                  // a line of Gemini's files
		"outputs.*.response.body", "data.*.outputs.*.response.body", // Mistral's jobs
		"results.*.batch_result.response.*", "results.*.response.body", // xAI's pages
		"data.*.response.body", "data.*.response", "results.*.response", "results.*.result.message", // OpenRouter's
	} {
		list = append(list, place{path, 0})
	}
	for _, list1 := range []string{"", "operations.*."} {
		for _, answers := range []string{"inlinedResponses.inlinedResponses.*.response", "inlinedEmbedContentResponses.inlinedResponses.*.response"} {
			list = append(list, place{list1 + "metadata.output." + answers, 1}, place{list1 + "response." + answers, 2}, place{list1 + "output." + answers, 3})
		}
	}
	return list
}()

type place struct {
	path  string
	group int
}

// groups is the number of groups.
const groups = 4

// tally counts the answers in results while they are read.
type tally struct {
	group [groups]struct {
		answers  int // so far
		model    string
		usage    wire.Stated
		has      bool // a usage was read whose model was not
		searched meter.Quantity
	}
	counted int
}

// results reads the answers of a batch: from a file with one in each line, or from an object with many. Each answer states a model and a
// usage, in either order.
var results = wire.Dialect{
	Lines: true,
	Start: func(t *wire.State, _ http.Header) {
		t.Scratch, t.Tier = &tally{}, "batch"
	},
	Rules: slices.Concat(rules(), []wire.Rule{{Path: "status"}, {Path: "done"}}),
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if t.Peeking() {
			return wire.Pass
		}
		for i := range t.Scratch.(*tally).group {
			t.Scratch.(*tally).flush(t, i)
		}
		status := strings.ToLower(m.Get("status").String())
		t.Pending = slices.Contains(unfinished, status) || m.Get("done").Type == gjson.False
		return wire.Pass
	},
}

// unfinished are the states of a batch that may get more results.
var unfinished = []string{"validating", "in_progress", "finalizing", "cancelling", "queued", "running", "cancellation_requested"}

func rules() (list []wire.Rule) {
	for _, p := range places {
		model := func(t *wire.State, v gjson.Result) { t.Scratch.(*tally).names(t, p.group, v.String()) }
		list = append(list,
			wire.Rule{Path: p.path + ".model", Each: model}, wire.Rule{Path: p.path + ".modelVersion", Each: model},
			wire.Rule{Path: p.path + ".usage", Each: func(t *wire.State, v gjson.Result) { t.Scratch.(*tally).uses(t, p.group, v, usage(v)) }},
			wire.Rule{Path: p.path + ".usageMetadata", Each: func(t *wire.State, v gjson.Result) {
				s := gemini.ReadUsage(v)
				s.HasCompletion = s.HasPrompt
				t.Scratch.(*tally).uses(t, p.group, v, s)
			}})
	}
	return list
}

// usage reads a usage, which may be that of embeddings.
func usage(u gjson.Result) wire.Stated {
	s := wire.ReadUsage(u.Get)
	if !s.HasCompletion {
		s = openai.InputUsage(u)
	}
	return s
}

// names notes the model of an answer.
func (y *tally) names(t *wire.State, group int, model string) {
	g := &y.group[group]
	g.model = model
	if g.has {
		y.flush(t, group)
	}
}

// uses notes the usage of an answer.
func (y *tally) uses(t *wire.State, group int, u gjson.Result, s wire.Stated) {
	g := &y.group[group]
	if !u.IsObject() {
		return
	}
	if g.has {
		y.flush(t, group)
	}
	g.usage, g.has, g.searched = s, true, openai.Searches(u, &s.Suspect)
	if names := meter.JoinTiers("batch", u.Get("speed").String(), u.Get("inference_geo").String()); names != "batch" {
		t.Tier = names
	}
	if g.model != "" {
		y.flush(t, group)
	}
}

// flush counts the answer that was read.
func (y *tally) flush(t *wire.State, group int) {
	g := &y.group[group]
	if g.has {
		if g.answers++; group == 0 || g.answers > y.counted {
			if group > 0 {
				y.counted = g.answers
			}
			t.AddPass(strings.TrimPrefix(g.model, "models/"), g.usage)
			t.Sums[meter.WebSearch] += g.searched
		}
	}
	g.model, g.has = "", false
}
