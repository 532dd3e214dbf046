package batch

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/gemini"
	"github.com/tallygate/tallygate/meter/openai"
	"github.com/tallygate/tallygate/meter/tokens"
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
		answers int    // so far
		open    answer // the one that is being read
	}
	counted int
}

// answer is what was read of one answer. Its fields come in any order, until the next answer begins.
type answer struct {
	id, model string
	stated    string // the usage, as it is stated
	usage     wire.Stated
	ran       openai.Tools
	beside    gjson.Result // what it tells of tools beside its usage
	shown     []byte       // its output
	shows     bool         // it has output
	over      bool         // which is too long to be kept
}

// results reads the answers of a batch: from a file with one in each line, or from an object with many.
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

// maxShown is how many bytes of an answer's output are kept, to count them if the answer states no usage.
const maxShown = 128 << 10

// texts are the fields of an output that tokens are counted in.
var texts = map[string]bool{
	"text": true, "content": true, "reasoning": true, "reasoning_content": true, "thinking": true, "refusal": true, "arguments": true, "input": true, "args": true,
}

// count counts the tokens of an answer's output.
func count(model string, shown []byte) int64 {
	text := tokens.NewText(tokens.ForModel(model))
	var read func(key string, v gjson.Result, depth int)
	read = func(key string, v gjson.Result, depth int) {
		switch {
		case texts[key] && (v.Type == gjson.String || key == "input" || key == "args"):
			text.Write([]byte(v.String()))
			text.Break()
		case depth < maxDepth && (v.IsObject() || v.IsArray()):
			v.ForEach(func(k, inner gjson.Result) bool {
				if v.IsObject() {
					key = k.String()
				}
				read(key, inner, depth+1)
				return true
			})
		}
	}
	gjson.ForEachLine(string(shown), func(v gjson.Result) bool {
		read("", v, 0)
		return true
	})
	return text.Answer()
}

// maxDepth is how deep the text of an output may be.
const maxDepth = 8

// outputs are the fields in which an answer has its output: chat and images, messages, Gemini, embeddings. That of a response is read by its
// items, since they tell which tools ran.
var outputs = []string{"choices", "content", "candidates", "data", "embedding", "embeddings"}

// itemTexts are the fields in which the items of a response have their texts.
var itemTexts = []string{"content", "summary", "arguments", "input"}

func rules() (list []wire.Rule) {
	for _, p := range places {
		read := func(field string, read func(*wire.State, *answer, gjson.Result)) {
			list = append(list, wire.Rule{Path: p.path + "." + field, Each: func(t *wire.State, v gjson.Result) {
				read(t, &t.Scratch.(*tally).group[p.group].open, v)
			}})
		}
		list = append(list, wire.Rule{Path: p.path, Mark: true, Each: func(t *wire.State, _ gjson.Result) { t.Scratch.(*tally).flush(t, p.group) }})
		for _, field := range []string{"id", "responseId"} {
			read(field, func(_ *wire.State, a *answer, v gjson.Result) { a.id = v.String() })
		}
		for _, field := range []string{"model", "modelVersion"} {
			read(field, func(_ *wire.State, a *answer, v gjson.Result) { a.model = v.String() })
		}
		for _, field := range outputs {
			read(field, func(_ *wire.State, a *answer, v gjson.Result) {
				a.shows = a.shows || v.Type != gjson.Null || !v.Exists()
				a.show("", v)
			})
		}
		for _, field := range itemTexts {
			read("output.*."+field, func(_ *wire.State, a *answer, v gjson.Result) { a.show(field, v) })
		}
		read("output.*.type", func(_ *wire.State, a *answer, v gjson.Result) {
			a.shows = true
			a.ran.Item(v)
		})
		read("output.*.action.type", func(_ *wire.State, a *answer, v gjson.Result) { a.ran.Action(v) })
		read("output.*.container_id", func(_ *wire.State, a *answer, v gjson.Result) { a.ran.Container(v) })
		read("tool_usage", func(_ *wire.State, a *answer, v gjson.Result) { a.beside = v })
		read("usage", func(t *wire.State, a *answer, v gjson.Result) {
			if !v.IsObject() {
				return
			}
			a.uses(v, usage(v))
			if names := meter.JoinTiers("batch", v.Get("speed").String(), v.Get("inference_geo").String()); names != "batch" {
				t.Tier = names
			}
		})
		read("usageMetadata", func(_ *wire.State, a *answer, v gjson.Result) {
			s := gemini.ReadUsage(v)
			s.HasCompletion = s.HasPrompt
			a.uses(v, s)
		})
		// Gemini states the tokens of an embedding in a string. https://ai.google.dev/gemini-api/docs/batch-api#batch-embedding
		read("tokenCount", func(_ *wire.State, a *answer, v gjson.Result) {
			s := wire.Stated{HasPrompt: true, HasCompletion: true}
			s.Prompt = wire.Number(gjson.Parse(v.String()), &s.Suspect)
			a.uses(v, s)
		})
	}
	return list
}

// usage reads a usage, which may be that of embeddings.
func usage(u gjson.Result) wire.Stated {
	s := wire.ReadUsage(wire.Fields(u))
	if !s.HasCompletion && (s.HasPrompt || u.Get("total_tokens").Type == gjson.Number) {
		s = openai.InputUsage(u)
	}
	return s
}

// uses notes the usage of an answer.
func (a *answer) uses(u gjson.Result, s wire.Stated) {
	if !s.HasPrompt && !s.HasCompletion {
		return
	}
	a.usage, a.stated = s, u.Raw
}

// show keeps a part of the output, which stood in a field; the field is empty where the part is all that tells its text.
func (a *answer) show(field string, v gjson.Result) {
	if a.over = a.over || !v.Exists() || len(a.shown)+len(v.Raw) > maxShown; a.over {
		return
	}
	if field == "" {
		a.shown = append(append(a.shown, v.Raw...), '\n')
		return
	}
	a.shown = append(append(append(a.shown, `{"`+field+`":`...), v.Raw...), "}\n"...)
}

// flush counts the answer that was read. An answer that states no usage is counted by its text. If it has none, nobody can tell what it costs.
func (y *tally) flush(t *wire.State, group int) {
	g := &y.group[group]
	a := g.open
	g.open = answer{shown: a.shown[:0]}
	has := a.usage.HasPrompt || a.usage.HasCompletion
	if !has && !a.shows {
		return
	}
	if g.answers++; group > 0 && g.answers <= y.counted {
		return
	}
	if group > 0 {
		y.counted = g.answers
	}
	if !t.Result(a.id, a.model+"\n"+a.stated) {
		return
	}
	model := strings.TrimPrefix(a.model, "models/")
	if !has {
		n := count(model, a.shown)
		if a.over || n == 0 {
			t.Unstated = true
			return
		}
		t.Estimated = true
		a.usage = wire.Stated{Completion: n, HasCompletion: true}
	}
	t.AddPass(model, a.usage)
	a.ran.Add(t, model, a.beside, gjson.Parse(a.stated))
}
