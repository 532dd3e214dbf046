package anthropic

import (
	"slices"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Running is the usage of a message so far. It is merged field by field while the message's stream goes on.
type Running struct {
	fields  map[string]gjson.Result
	refused bool // the model declined to answer
	// refusalsFree says that a refusal without output is not billed.
	refusalsFree bool
}

// NewRunning returns a Running without any field.
func NewRunning() Running { return Running{fields: map[string]gjson.Result{}} }

// Empty reports whether nothing was stated.
func (r *Running) Empty() bool { return len(r.fields) == 0 }

// inputSide are the fields that state the input.
var inputSide = []string{"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"}

// Merge takes over the fields of a usage object. If all fields of the input are zero, they are ignored: some servers of this API know the
// input only when a stream starts, and send zeros when it ends.
func (r *Running) Merge(usage gjson.Result) {
	silent := !Input(usage)
	usage.ForEach(func(key, value gjson.Result) bool {
		known := len(r.fields) > 0 && silent && slices.Contains(inputSide, key.String())
		if value.Type != gjson.Null && !known {
			r.fields[key.String()] = value
		}
		return len(r.fields) < 64
	})
}

// Input reports whether a usage states any input.
func Input(usage gjson.Result) bool {
	var suspect bool
	for _, key := range inputSide[:3] {
		if wire.Number(usage.Get(key), &suspect) > 0 {
			return true
		}
	}
	return wire.ReadUsage(wire.Fields(usage)).Prompt > 0
}

// State states the usage to t. final says that output_tokens is the whole output so far; in message_start it is just a small number.
func (r *Running) State(t *wire.State, final bool) {
	if len(r.fields) == 0 {
		return
	}
	s := wire.ReadUsage(func(key string) gjson.Result { return r.fields[key] })
	if !final {
		s.Completion, s.Reasoning, s.HasCompletion = 0, 0, false
	}
	if r.refusalsFree && r.refused && s.Completion == 0 { // see iterations
		s.Prompt, s.Cached, s.CacheWrite, s.CacheWrite1h = 0, 0, 0, 0
	}
	if passes := r.fields["iterations"]; final && passes.IsArray() && len(passes.Array()) > 0 {
		s = r.iterations(t, passes, s)
	}
	t.State(s)
	t.Sums[meter.WebSearch] = meter.Whole(wire.Number(r.fields["server_tool_use"].Get("web_search_requests"), &t.Stated.Suspect))
	// https://docs.anthropic.com/en/docs/build-with-claude/fast-mode, https://docs.anthropic.com/en/docs/build-with-claude/data-residency
	if tier := meter.JoinTiers(r.fields["service_tier"].String(), r.fields["speed"].String(), r.fields["inference_geo"].String()); tier != "" {
		t.Tier = tier
	}
}

// iterations adds up the passes of a response. top is its usage without them. Passes of compaction and of another model (an advisor, a
// fallback) are billed, but are not in top: "sum across all entries in the usage.iterations array".
// https://docs.anthropic.com/en/docs/build-with-claude/compaction#understanding-usage
//
// An attempt that was declined before any output is not billed, and neither is an answer that consists only of such an attempt: "you are no
// longer billed for a request when it returns stop_reason: "refusal" without Claude having generated any output", "on the Claude API".
// https://platform.claude.com/docs/en/release-notes/overview (June 2, 2026)
//
// A fallback_message is the attempt that a fallback model made after the others.
// https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback
func (r *Running) iterations(t *wire.State, list gjson.Result, top wire.Stated) wire.Stated {
	passes := list.Array()
	last := -1 // the last attempt; those before it were declined
	for i, pass := range passes {
		if pass.Get("type").String() == "fallback_message" {
			last = i
		}
	}
	all, sum := wire.Stated{}, wire.Stated{Suspect: top.Suspect}
	t.Passes = nil
	for i, pass := range passes {
		s := wire.ReadUsage(wire.Fields(pass))
		all.Add(s)
		kind := pass.Get("type").String()
		attempt := kind == "message" || kind == "fallback_message"
		if r.refusalsFree && attempt && s.Completion == 0 && (i < last || r.refused) {
			continue
		}
		sum.Add(s)
		if model := pass.Get("model").String(); model != "" && model != t.Model {
			t.Passes = append(t.Passes, meter.Pass{Model: model, Units: s.Units()})
		}
	}
	if all.Prompt < top.Prompt || all.Completion < top.Completion { // the passes are not the whole usage
		t.Passes = nil
		return top
	}
	sum.HasPrompt, sum.HasCompletion = top.HasPrompt, top.HasCompletion
	sum.Reasoning = max(sum.Reasoning, top.Reasoning)
	return sum
}
