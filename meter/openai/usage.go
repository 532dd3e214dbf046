package openai

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// usage reads a usage object of chat completions, of completions, or of a compatible API. prompt_tokens includes audio and what was
// read from and written to a cache; completion_tokens includes reasoning and audio. The total shows where another provider
// differs: see excess. https://platform.openai.com/docs/api-reference/chat/object
func usage(u gjson.Result) (s wire.Stated) {
	number := func(path string) int64 { return wire.Number(u.Get(path), &s.Suspect) }
	first := func(paths ...string) int64 {
		for _, path := range paths {
			if n := number(path); n != 0 {
				return n
			}
		}
		return 0
	}
	s.HasPrompt, s.HasCompletion = present(u.Get("prompt_tokens")), present(u.Get("completion_tokens"))
	s.Prompt = number("prompt_tokens")
	s.Completion = number("completion_tokens")
	s.Cached = first("prompt_tokens_details.cached_tokens", // OpenAI and most
		"prompt_token_details.cached_tokens", // Writer
		"prompt_cache_hit_tokens",            // DeepSeek, which states both
		"cached_tokens")                      // Moonshot
	s.CacheWrite = number("prompt_tokens_details.cache_write_tokens")
	s.AudioInput = max(0, number("prompt_tokens_details.audio_tokens")-number("prompt_tokens_details.cached_tokens_details.audio_tokens"))
	s.ImageInput = number("prompt_tokens_details.image_tokens") // xAI
	s.Reasoning = first("completion_tokens_details.reasoning_tokens", "completion_token_details.reasoning_tokens", "reasoning_tokens")
	s.AudioOutput = number("completion_tokens_details.audio_tokens")
	s.ImageOutput = number("completion_tokens_details.image_tokens")
	if present(u.Get("market_cost")) && s.Reasoning > s.Completion {
		s.Completion += s.Reasoning // Vercel's gateway leaves Gemini's thoughts out of all but the cost
	}
	s.Prompt += number("connector_tokens") // what tools found, in Mistral's conversations
	excess(&s, number("total_tokens"))
	return s
}

// either reads a usage object of the older APIs or of the newer ones.
func either(u gjson.Result) wire.Stated {
	if present(u.Get("input_tokens")) {
		return tokenUsage(u)
	}
	return usage(u)
}

// tier reads the service tier, which stands beside the usage or, at Mistral, in it. "auto" is what was asked for, not the tier that
// served.
func tier(beside, usage gjson.Result) string {
	for _, v := range []gjson.Result{usage.Get("service_tier"), beside} {
		if v.Type == gjson.String && v.Str != "auto" {
			return v.Str
		}
	}
	return ""
}

// excess adds to s what the total has beyond prompt and completion. That is audio input at Mistral, whose prompt_tokens exclude
// it; reasoning in xAI's chat, whose completion_tokens exclude it; or Gemini's thoughts, which only the total counts.
func excess(s *wire.Stated, total int64) {
	n := total - s.Prompt - s.Completion
	switch {
	case s.HasPrompt && !s.HasCompletion && total > 0 && n >= 0 && n <= maxExcess:
		s.Completion, s.HasCompletion = n, true
	case n <= 0 || !s.HasPrompt || !s.HasCompletion:
	case n > maxExcess:
		s.Suspect = true
	case n == s.AudioInput:
		s.Prompt += n
	case n == s.Reasoning:
		s.Completion += n
	default:
		s.Completion += n
		s.Reasoning += n
	}
}

// maxExcess bounds by how many tokens a total may exceed its parts. A greater one is an error, and does not count.
const maxExcess = 10_000_000

func present(v gjson.Result) bool { return v.Exists() && v.Type != gjson.Null }

// cost reads the price that the provider states, in USD: OpenRouter's cost, Perplexity's cost.total_cost, or xAI's
// cost_in_usd_ticks (10^-10 USD).
func cost(u gjson.Result) string {
	for _, path := range []string{"cost.total_cost", "cost"} {
		if v := u.Get(path); v.Type == gjson.Number {
			return v.Raw
		}
	}
	ticks := u.Get("cost_in_usd_ticks").Raw
	if ticks == "" || strings.Trim(ticks, "0123456789") != "" || strings.Trim(ticks, "0") == "" {
		return ""
	}
	if pad := 11 - len(ticks); pad > 0 {
		ticks = strings.Repeat("0", pad) + ticks
	}
	point := len(ticks) - 10
	return ticks[:point] + "." + ticks[point:]
}

// searches reads how many searches the provider made: the count of OpenRouter or Mistral, or the sources that xAI used, which are
// what xAI bills.
func searches(u gjson.Result, suspect *bool) meter.Quantity {
	for _, path := range []string{"server_tool_use_details.web_search_requests", "server_tool_use.web_search_requests", "num_sources_used",
		"connectors.web_search"} {
		if n := wire.Number(u.Get(path), suspect); n > 0 {
			return meter.Whole(n)
		}
	}
	return 0
}
