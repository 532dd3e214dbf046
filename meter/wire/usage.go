package wire

import (
	"slices"

	"github.com/tidwall/gjson"
)

// The names of each number of a usage, in the order in which they are tried. A class is read once, by the first name that has a value.
// Providers and gateways mix the names on any path: chat's names in Responses, Anthropic's cache together with chat's prompt_tokens.
var (
	promptWords     = []string{"prompt_tokens", "input_tokens", "inputTokens"}
	completionWords = []string{"completion_tokens", "output_tokens", "outputTokens"}
	totalWords      = []string{"total_tokens", "totalTokens"}

	inputDetails  = []string{"prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details"}
	outputDetails = []string{"completion_tokens_details", "output_tokens_details", "completion_token_details", "output_token_details"}

	readWords      = []string{"cached_tokens", "cache_read_tokens", "cache_read_input_tokens", "cache_read"} // the last: LangChain's
	writtenWords   = []string{"cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens", "cache_creation_input_tokens", "cache_creation"}
	reasoningWords = []string{"reasoning_tokens", "thinking_tokens", "reasoning_output_tokens"} // the last: Codex
	audioWords     = []string{"audio_tokens", "audio"}

	// These are parts of the prompt: DeepSeek states them together with OpenAI's names, Moonshot and Codex instead of them.
	insideReadWords = []string{"prompt_cache_hit_tokens", "cached_tokens", "cached_input_tokens"}
	// These are Anthropic's and Bedrock's. Their input does not include them.
	besideReadWords    = []string{"cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"}
	besideWrittenWords = []string{"cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"}
)

// Fields returns a function that gets the fields of an object by name. It reads the object once. Of equal names the first counts.
func Fields(object gjson.Result) func(name string) gjson.Result {
	if !object.IsObject() {
		return func(string) gjson.Result { return gjson.Result{} }
	}
	type field struct {
		name  string
		value gjson.Result
	}
	fields := make([]field, 0, 8)
	object.ForEach(func(name, value gjson.Result) bool {
		fields = append(fields, field{name.Str, value})
		return true
	})
	return func(name string) gjson.Result {
		for _, f := range fields {
			if f.name == name {
				return f.value
			}
		}
		return gjson.Result{}
	}
}

// ReadUsage reads a usage with the names of OpenAI (chat completions and the newer APIs), Anthropic or Bedrock, or a mixture. get returns a
// field of the usage.
//
// OpenAI's prompt includes what was read from and written to a cache, and its completion includes reasoning and audio
// (https://platform.openai.com/docs/api-reference/chat/object). Anthropic's input_tokens and Bedrock's inputTokens do not include the cache
// (https://docs.anthropic.com/en/api/messages#response-usage). If there is a total, it shows which of the two is the case: see explain.
func ReadUsage(get func(key string) gjson.Result) (s Stated) {
	first := func(get func(string) gjson.Result, keys []string) int64 {
		for _, key := range keys {
			if v := get(key); !v.IsObject() {
				if n := Number(v, &s.Suspect); n != 0 {
					return n
				}
			}
		}
		return 0
	}
	pick := func(keys []string) gjson.Result {
		for _, key := range keys {
			if v := get(key); v.Exists() && v.Type != gjson.Null {
				return v
			}
		}
		return gjson.Result{}
	}
	in, out := Fields(pick(inputDetails)), Fields(pick(outputDetails))
	s.HasPrompt, s.HasCompletion = pick(promptWords).Exists(), pick(completionWords).Exists()
	s.Prompt, s.Completion = Number(pick(promptWords), &s.Suspect), Number(pick(completionWords), &s.Suspect)

	var beside bool // the cache's part is stated in Anthropic's way
	for _, f := range []struct {
		n                          *int64
		nested, inside, besideThis []string
	}{{&s.Cached, readWords, insideReadWords, besideReadWords}, {&s.CacheWrite, writtenWords, nil, besideWrittenWords}} {
		if *f.n = first(in, f.nested); *f.n == 0 {
			*f.n = first(get, f.inside)
		}
		if *f.n == 0 {
			*f.n = first(get, f.besideThis)
			beside = beside || *f.n != 0
		}
	}
	for i, written := range []gjson.Result{get("cache_creation"), in("cache_creation_token_details"), in("cache_creation")} { // the sum may be missing
		if !written.IsObject() {
			continue
		}
		hour, short := Number(written.Get("ephemeral_1h_input_tokens"), &s.Suspect), Number(written.Get("ephemeral_5m_input_tokens"), &s.Suspect)
		if s.CacheWrite == 0 {
			s.CacheWrite = hour + short
			beside = beside || i == 0 && s.CacheWrite != 0
		}
		s.CacheWrite1h = min(hour, s.CacheWrite)
		break
	}
	cached := in("cached_tokens_details").Get
	s.AudioInput = max(0, first(in, audioWords)-Number(cached("audio_tokens"), &s.Suspect))
	s.ImageInput = max(0, Number(in("image_tokens"), &s.Suspect)-Number(cached("image_tokens"), &s.Suspect)) // xAI and OpenAI's images
	if s.Reasoning = first(out, append(slices.Clip(reasoningWords), "reasoning")); s.Reasoning == 0 {
		s.Reasoning = first(get, reasoningWords)
	}
	s.AudioOutput, s.ImageOutput = first(out, audioWords), Number(out("image_tokens"), &s.Suspect)
	if v := get("market_cost"); v.Exists() && v.Type != gjson.Null && s.Reasoning > s.Completion {
		s.Completion += s.Reasoning // Vercel's gateway leaves Gemini's thoughts out of everything but the cost
	}
	if get("citation_tokens").Exists() {
		s.Completion += s.Reasoning // Perplexity bills it besides both: https://docs.perplexity.ai/getting-started/pricing
	}
	s.Prompt += Number(get("connector_tokens"), &s.Suspect) // what tools found, in Mistral's conversations

	openAI := get("prompt_tokens").Exists() // LiteLLM and Databricks state Anthropic's cache together with a prompt that includes it
	s.explain(Number(pick(totalWords), &s.Suspect), beside, beside && (!openAI || s.Cached+s.CacheWrite > s.Prompt))
	return s
}

// explain adds to s what the total has besides prompt and completion. First comes what other fields explain: the cache's part, if the
// prompt does not include it; audio input at Mistral, whose prompt_tokens do not include it; and reasoning in xAI's chat, whose
// completion_tokens do not include it. The rest is output that only the total counts, such as Gemini's thoughts. beside says that the
// cache's part is stated in a way in which the prompt may exclude it. excluded says whether the prompt excludes it if there is no total.
func (s *Stated) explain(total int64, beside, excluded bool) {
	cache := s.Cached + s.CacheWrite
	n := total - s.Prompt - s.Completion
	switch {
	case !s.HasPrompt:
		return
	case total <= 0 || n < 0:
		if excluded {
			s.Prompt += cache
		}
		return
	case !s.HasCompletion:
		if beside && n >= cache && excluded {
			s.Prompt += cache
			n -= cache
		}
		if n <= maxExcess {
			s.Completion, s.HasCompletion = n, true
		}
		return
	case n == 0:
		return
	}
	for _, e := range []struct{ input, output int64 }{
		{0, s.Reasoning}, {s.AudioInput, 0}, {cache, 0}, {s.Cached, 0}, {s.CacheWrite, 0}, {cache, s.Reasoning}, {s.AudioInput, s.Reasoning},
	} {
		if e.input+e.output == n {
			s.Prompt += e.input
			s.Completion += e.output
			return
		}
	}
	if n >= cache && (beside || cache > s.Prompt) {
		s.Prompt += cache
		n -= cache
	}
	if n > maxExcess {
		s.Suspect = true
		return
	}
	s.Completion += n
	s.Reasoning += n
}

// maxExcess is how many tokens a total may have besides its parts. A greater difference is an error, and does not count.
const maxExcess = 10_000_000
