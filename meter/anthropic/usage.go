package anthropic

import (
	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Running is the usage of a message as it stands. It is merged field by field while the message's stream goes on.
type Running struct {
	fields map[string]gjson.Result
}

// NewRunning returns a Running without any field.
func NewRunning() Running { return Running{map[string]gjson.Result{}} }

// Empty reports whether nothing was stated.
func (r *Running) Empty() bool { return len(r.fields) == 0 }

// Merge takes over the fields of a usage object.
func (r *Running) Merge(usage gjson.Result) {
	usage.ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Null {
			r.fields[key.String()] = value
		}
		return len(r.fields) < 64
	})
}

// State states the usage to t. final says that output_tokens is the whole output so far; in message_start it is just a small
// number.
func (r *Running) State(t *wire.State, final bool) {
	if len(r.fields) == 0 {
		return
	}
	s := tokens(func(key string) gjson.Result { return r.fields[key] })
	if !final {
		s.Completion, s.Reasoning, s.HasCompletion = 0, 0, false
	}
	if passes := r.fields["iterations"]; final && passes.IsArray() && len(passes.Array()) > 0 {
		s = iterations(t, passes, s)
	}
	t.State(s)
	t.Sums[meter.WebSearch] = meter.Whole(wire.Number(r.fields["server_tool_use"].Get("web_search_requests"), &t.Stated.Suspect))
	if tier := r.fields["service_tier"].String(); tier != "" {
		t.Tier = tier
	}
}

// iterations adds up the passes of a response. top is its usage without them. Passes of compaction and of another model (an
// advisor, a fallback) are billed, but are not in top: "sum across all entries in the usage.iterations array".
// https://docs.anthropic.com/en/docs/build-with-claude/compaction#understanding-usage
func iterations(t *wire.State, passes gjson.Result, top wire.Stated) wire.Stated {
	sum := wire.Stated{Suspect: top.Suspect}
	t.Passes = nil
	for _, pass := range passes.Array() {
		s := tokens(func(key string) gjson.Result { return pass.Get(key) })
		sum.Add(s)
		if model := pass.Get("model").String(); model != "" && model != t.Model {
			t.Passes = append(t.Passes, meter.Pass{Model: model, Units: s.Units()})
		}
	}
	if sum.Prompt < top.Prompt || sum.Completion < top.Completion { // the passes do not cover the whole
		t.Passes = nil
		return top
	}
	sum.Reasoning = max(sum.Reasoning, top.Reasoning)
	return sum
}

// tokens reads the fields of a usage. input_tokens excludes what was read from or written to a cache; output_tokens includes
// thinking.
// https://docs.anthropic.com/en/api/messages#response-usage
func tokens(get func(string) gjson.Result) (s wire.Stated) {
	number := func(v gjson.Result) int64 { return wire.Number(v, &s.Suspect) }
	s.HasPrompt, s.HasCompletion = get("input_tokens").Exists(), get("output_tokens").Exists()
	s.Cached = number(get("cache_read_input_tokens"))
	s.CacheWrite = number(get("cache_creation_input_tokens"))
	if written := get("cache_creation"); written.IsObject() {
		s.CacheWrite1h = min(number(written.Get("ephemeral_1h_input_tokens")), s.CacheWrite)
	}
	s.Prompt = number(get("input_tokens")) + s.Cached + s.CacheWrite
	s.Completion = number(get("output_tokens"))
	if details := get("output_tokens_details"); details.IsObject() {
		s.Reasoning = number(details.Get("thinking_tokens"))
	}
	return s
}
