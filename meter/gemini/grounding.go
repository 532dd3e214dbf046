package gemini

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// queries are the searches of an answer so far. The chunks of a stream may repeat them.
type queries map[string]bool

// maxQueries is how many searches of one answer are told apart.
const maxQueries = 1000

// searched adds a query. "For billing purposes, we ignore the empty web search queries when counting unique queries."
// https://ai.google.dev/gemini-api/docs/google-search
func searched(t *wire.State, v gjson.Result) {
	made, _ := t.Scratch.(queries)
	if made == nil {
		made = queries{}
		t.Scratch = made
	}
	if query := strings.TrimSpace(v.String()); query != "" && len(made) < maxQueries {
		made[query[:min(len(query), 1024)]] = true
	}
}

// grounded states the searches: from Gemini 3 on one for each query, and before that one for the whole prompt. cites says that the answer
// cites search results; that counts as one search even without its queries. https://ai.google.dev/gemini-api/docs/pricing
func grounded(t *wire.State, cites bool) {
	made, _ := t.Scratch.(queries)
	n := int64(len(made))
	if n > 0 && byPrompt(t) {
		n = 1
	}
	if cites {
		n = max(n, 1)
	}
	t.Sums[meter.WebSearch] = max(t.Sums[meter.WebSearch], meter.Whole(n))
}

// byPrompt reports whether the model belongs to a generation for which grounding is paid by the prompt.
func byPrompt(t *wire.State) bool {
	name := t.Model
	if name == "" {
		name = t.Call.Model
	}
	return strings.Contains(name, "gemini-2") || strings.Contains(name, "gemini-1")
}
