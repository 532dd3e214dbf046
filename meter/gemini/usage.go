package gemini

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter/wire"
)

// ReadUsage reads a UsageMetadata. promptTokenCount includes what was read from a cache, and candidatesTokenCount excludes thoughts. The
// prompts of tools that the model used are in neither, and count as input. In the Live API the names have response instead of candidates.
// https://ai.google.dev/api/generate-content#UsageMetadata
func ReadUsage(u gjson.Result) (s wire.Stated) {
	number := func(path string) int64 { return wire.Number(u.Get(path), &s.Suspect) }
	modality := func(details, want string) int64 { return byModality(u.Get(details), want, "tokenCount", &s.Suspect) }
	candidates := "candidates"
	if u.Get("responseTokenCount").Exists() {
		candidates = "response"
	}
	s.HasCompletion = u.Get(candidates+"TokenCount").Exists() || u.Get("thoughtsTokenCount").Exists()
	s.HasPrompt = u.Get("promptTokenCount").Exists() || s.HasCompletion // a count of 0 is left out
	s.Cached = number("cachedContentTokenCount")
	s.Prompt = number("promptTokenCount") + number("toolUsePromptTokenCount")
	s.AudioInput = max(0, modality("promptTokensDetails", "AUDIO")-modality("cacheTokensDetails", "AUDIO")) + modality("toolUsePromptTokensDetails", "AUDIO")
	s.ImageInput = max(0, modality("promptTokensDetails", "IMAGE")-modality("cacheTokensDetails", "IMAGE")) + modality("toolUsePromptTokensDetails", "IMAGE")
	s.Reasoning = number("thoughtsTokenCount")
	s.Completion = number(candidates+"TokenCount") + s.Reasoning
	total := number("totalTokenCount")
	switch hidden := total - s.Prompt - s.Completion; {
	case !s.HasPrompt || total == 0 || hidden > maxHidden:
	case hidden > 0:
		s.Completion, s.HasCompletion = s.Completion+hidden, true
	case hidden == 0: // early in a stream, and at the end with Gemma
		s.NoMore = true
	}
	s.AudioOutput = modality(candidates+"TokensDetails", "AUDIO")
	s.ImageOutput = modality(candidates+"TokensDetails", "IMAGE")
	return s
}

// maxHidden is how many tokens a total may have besides its parts. A greater difference is an error, and does not count.
const maxHidden = 10_000_000

// byModality adds up the counts of one modality in a list. key is the path of the count in an element.
func byModality(list gjson.Result, modality, key string, suspect *bool) (n int64) {
	list.ForEach(func(_, v gjson.Result) bool {
		if strings.EqualFold(v.Get("modality").String(), modality) {
			n += wire.Number(v.Get(key), suspect)
		}
		return n < wire.MaxTokens
	})
	return n
}

// totals reads the usage of an interaction.
func totals(u gjson.Result) (s wire.Stated) {
	number := func(path string) int64 { return wire.Number(u.Get(path), &s.Suspect) }
	s.HasPrompt, s.HasCompletion = u.Get("total_input_tokens").Exists(), u.Get("total_output_tokens").Exists()
	s.Cached = number("total_cached_tokens")
	s.Prompt = number("total_input_tokens") + number("total_tool_use_tokens")
	s.Reasoning = number("total_thought_tokens") + number("total_reasoning_tokens")
	s.Completion = number("total_output_tokens") + s.Reasoning
	modality := func(of, want string) int64 {
		return byModality(u.Get(of+"_tokens_by_modality"), want, "tokens", &s.Suspect)
	}
	s.AudioInput = max(0, modality("input", "audio")-modality("cached", "audio")) + modality("tool_use", "audio")
	s.ImageInput = max(0, modality("input", "image")-modality("cached", "image")) + modality("tool_use", "image")
	s.AudioOutput, s.ImageOutput = modality("output", "audio"), modality("output", "image")
	return s
}

// tier reads the service tier, which Vertex AI states as a part of the traffic type (ON_DEMAND_FLEX).
func tier(u gjson.Result) string {
	if v := u.Get("serviceTier").String(); v != "" {
		return strings.ToLower(v)
	}
	v, found := strings.CutPrefix(u.Get("trafficType").String(), "ON_DEMAND_")
	if !found {
		return ""
	}
	return strings.ToLower(v)
}
