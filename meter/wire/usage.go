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
func ReadUsage(get func(key string) gjson.Result) Stated {
	u := usage{get: get, in: Fields(pick(get, inputDetails)), out: Fields(pick(get, outputDetails))}
	s := &u.stated
	prompt, completion := pick(get, promptWords), pick(get, completionWords)
	s.HasPrompt, s.HasCompletion = prompt.Exists(), completion.Exists()
	s.Prompt, s.Completion = u.number(prompt), u.number(completion)
	u.readCache()
	u.readCacheByAge()
	u.readMedia()
	u.readReasoning()
	s.Prompt += u.number(get("connector_tokens")) // what tools found, in Mistral's conversations

	openAI := get("prompt_tokens").Exists() // LiteLLM and Databricks state Anthropic's cache together with a prompt that includes it
	s.explain(u.number(pick(get, totalWords)), u.beside, u.beside && (!openAI || s.Cached+s.CacheWrite > s.Prompt))
	return *s
}

// usage is a usage while it is read.
type usage struct {
	get     func(name string) gjson.Result // its own fields
	in, out func(name string) gjson.Result // the fields of the details of its input and of its output
	stated  Stated                         // what has been read
	beside  bool                           // the cache's part is stated in Anthropic's way, so the prompt may exclude it
}

// pick returns the first of these fields that has a value.
func pick(get func(name string) gjson.Result, names []string) gjson.Result {
	for _, name := range names {
		if v := get(name); v.Exists() && v.Type != gjson.Null {
			return v
		}
	}
	return gjson.Result{}
}

func (u *usage) number(v gjson.Result) int64 { return Number(v, &u.stated.Suspect) }

// first returns the first number of these fields that is not 0.
func (u *usage) first(get func(name string) gjson.Result, names []string) int64 {
	for _, name := range names {
		if v := get(name); !v.IsObject() {
			if n := u.number(v); n != 0 {
				return n
			}
		}
	}
	return 0
}

// readCache reads what was read from a cache and what was written to it: from the details of the input, else beside the prompt.
func (u *usage) readCache() {
	for _, f := range []struct {
		n                          *int64
		nested, inside, besideThis []string
	}{{&u.stated.Cached, readWords, insideReadWords, besideReadWords}, {&u.stated.CacheWrite, writtenWords, nil, besideWrittenWords}} {
		if *f.n = u.first(u.in, f.nested); *f.n == 0 {
			*f.n = u.first(u.get, f.inside)
		}
		if *f.n == 0 {
			*f.n = u.first(u.get, f.besideThis)
			u.beside = u.beside || *f.n != 0
		}
	}
}

// readCacheByAge reads how much was written to a cache for an hour. The sum of what was written may be missing: then it is made of the parts.
func (u *usage) readCacheByAge() {
	s := &u.stated
	for i, written := range []gjson.Result{u.get("cache_creation"), u.in("cache_creation_token_details"), u.in("cache_creation")} {
		if !written.IsObject() {
			continue
		}
		hour, short := u.number(written.Get("ephemeral_1h_input_tokens")), u.number(written.Get("ephemeral_5m_input_tokens"))
		if s.CacheWrite == 0 {
			s.CacheWrite = hour + short
			u.beside = u.beside || i == 0 && s.CacheWrite != 0
		}
		s.CacheWrite1h = min(hour, s.CacheWrite)
		return
	}
}

// readMedia reads the parts that are audio or images. Those of the input do not include what of them was read from a cache.
func (u *usage) readMedia() {
	cached := u.in("cached_tokens_details").Get
	u.stated.AudioInput = max(0, u.first(u.in, audioWords)-u.number(cached("audio_tokens")))
	u.stated.ImageInput = max(0, u.number(u.in("image_tokens"))-u.number(cached("image_tokens"))) // xAI and OpenAI's images
	u.stated.AudioOutput, u.stated.ImageOutput = u.first(u.out, audioWords), u.number(u.out("image_tokens"))
}

// readReasoning reads the part that is reasoning, and adds it to the completion where that is known not to include it.
func (u *usage) readReasoning() {
	s := &u.stated
	if s.Reasoning = u.first(u.out, append(slices.Clip(reasoningWords), "reasoning")); s.Reasoning == 0 {
		s.Reasoning = u.first(u.get, reasoningWords)
	}
	if v := u.get("market_cost"); v.Exists() && v.Type != gjson.Null && s.Reasoning > s.Completion {
		s.Completion += s.Reasoning // Vercel's gateway leaves Gemini's thoughts out of everything but the cost
	}
	if u.get("citation_tokens").Exists() {
		s.Completion += s.Reasoning // Perplexity bills it besides both: https://docs.perplexity.ai/getting-started/pricing
	}
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
