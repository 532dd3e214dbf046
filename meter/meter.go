// Package meter is the vocabulary of metering: units and their classes, what a request asks for, and how its response is
// counted. It knows no money, and no Caddy.
//
// A wire format (OpenAI's, Anthropic's, ...) is one package below this one that implements [Format]; package formats lists
// them and recognises a request. What they share: wire (framing of bodies, and the counter itself), sse, skim (JSON of any
// size in bounded memory), tokens (local tokenizers).
package meter

import (
	"errors"
	"net/http"
)

// Errors of reading a request. A body that can't be read for sure can't be metered, so it should be refused.
var (
	// ErrEncoded is returned when a request body is compressed.
	ErrEncoded = errors.New("the request body has a Content-Encoding: send it plain")
	// ErrBackground is returned when a request asks for an answer that is not in its response but fetched later.
	ErrBackground = errors.New("the request asks for an answer in the background, which can't be metered: leave out background")
	// ErrUnanswered is returned when a call in a request can't be told from others by its answer, or has none.
	ErrUnanswered = errors.New("each call needs an id of its own, a string or a number, and at most 1024 go in a batch")
	// ErrTooManyKeys is returned when an object in a request, of those that decide the cost, has more keys than are looked at.
	ErrTooManyKeys = errors.New("an object of the request body has more than 1000 keys")
)

// AmbiguousError is returned when a request can be read in more than one way, so that a provider may take it for another one than
// the one that was priced: a key that stands twice, a bound that contradicts another, a value that is not of its field's type.
type AmbiguousError struct {
	// Field is what can't be read for sure: a field of the body by its path, such as "stream_options.include_usage", the name of a
	// header, "path", "query", or "body".
	Field string
	// Reason says what is wrong with it and what was expected.
	Reason string
}

func (e *AmbiguousError) Error() string { return e.Field + ": " + e.Reason }

// Class names a kind of unit that a response is counted in. The classes of one [Usage] are disjoint: a token that was read
// from a cache is counted in [Cached] and not in [Input] too. A class that is not listed here is one of the provider's own
// (`count rows header X-Row-Count`).
type Class string

const (
	Calls    Class = "call"      // one complete response
	Event    Class = "event"     // an SSE data event, but for the terminal one; likewise a line of NDJSON, a frame, a message
	Byte     Class = "byte"      // of the decoded response body, as it went to the client
	Second   Class = "second"    // of audio, or of the connection
	ToolCall Class = "tool_call" // an MCP tool call that succeeded

	Input        Class = "input"          // prompt tokens neither read from nor written to a cache
	Cached       Class = "cached"         // prompt tokens read from a cache
	CacheWrite   Class = "cache_write"    // prompt tokens written to a cache (5 minutes, where the provider says how long)
	CacheWrite1h Class = "cache_write_1h" // prompt tokens written to a cache for an hour
	Output       Class = "output"         // completion tokens that are not of a class below
	Reasoning    Class = "reasoning"      // completion tokens spent on hidden thought
	AudioInput   Class = "audio_input"    // tokens
	AudioOutput  Class = "audio_output"   // tokens
	ImageInput   Class = "image_input"    // tokens
	ImageOutput  Class = "image_output"   // tokens
	WebSearch    Class = "web_search"     // searches that the provider made
	Page         Class = "page"           // pages read (OCR)
	SearchUnit   Class = "search_unit"    // rerank
)

// Source says where a usage comes from.
type Source string

const (
	Stated    Source = "stated"    // the provider said so, or we counted exactly (calls, bytes, events)
	Estimated Source = "estimated" // counted locally by a tokenizer
)

// Usage is what one response used.
type Usage struct {
	Units  Units
	Source Source
	// Model is the model that answered, where the response says so; else empty.
	Model string
	// ServiceTier is the tier that the response states ("batch", "flex", "priority"); else empty.
	ServiceTier string
	// PromptTokens is the size of the whole prompt, cached parts included: what tariffs tier by (`above 200k tokens`).
	PromptTokens int64
	// Tools counts successful tool calls by name (MCP), ToolsFailed those that ended in an error.
	Tools, ToolsFailed map[string]int64
	// Passes are parts of Units that ran on another model than Model, to be priced as that model's (Anthropic's advisor).
	Passes []Pass
	// Beside is what ran on other models and is not in Units, since the provider states it apart (an image generated within
	// OpenAI's Responses, the transcription of what is said in its Realtime).
	Beside []Pass
	// Cost is the price in USD that the provider itself states, as it wrote it (OpenRouter's usage.cost); else empty.
	Cost string
	// Suspect is set where stated numbers were absurd or contradicted each other and were clamped, and where they are beyond what
	// the request can have used, as far as that is known; then they stand.
	Suspect bool
}

// Pass is a part of a usage that ran on a model of its own.
type Pass struct {
	Model string
	Units Units
}

// Head is what a format needs to know of a request before its body.
type Head struct {
	Method string
	Path   string // URL path, decoded
	Query  string // raw query
	Header http.Header
}

// Call is one request, understood.
type Call struct {
	// API is the call's kind in the provider's words: "chat.completions", "messages", ... Empty when no format knows it.
	API string
	// Model is the model asked for.
	Model string
	// Models are other models that the request names, one of which may answer in its place: fallbacks, or what another place calls
	// the model. The dearest of them all bounds the price.
	Models []string
	// Stream says that a streamed answer is asked for.
	Stream bool
	// Free says that the call states no usage and costs nothing by tokens (GET /v1/models, count_tokens).
	Free bool
	// InputTokens is the most that the input can count, in tokens; see InputOpen.
	InputTokens int64
	// InputOpen says that the input has parts that the body does not show (a file or an earlier response by its id, the
	// results of a hosted search), so that InputTokens is no bound of it.
	InputOpen bool
	// InputRefers says that the input refers to something that the body does not contain, with or without a bound of its tokens (an
	// image by its URL). What the provider states of the input is not held against the body then.
	InputRefers bool
	// MaxOutput is the most output tokens the answer can have, over all choices; 0 when the request does not bound it.
	MaxOutput int64
	// Malformed says that the body is not what the API takes (no JSON object), so that little could be read of it.
	Malformed bool
	// InputOnly says that the answer has no output tokens, so that MaxOutput says nothing (embeddings, rerank, moderation).
	InputOnly bool
	// Tools are the tools that are called by name (MCP), one entry a call.
	Tools []string
	// Choices is how many answers are asked for (n, candidateCount, for each of several prompts); 0 and 1 mean one.
	Choices int64
	// Once, where set, names a result that must be charged once only, however often it is fetched (a batch's results).
	Once string
	// Body is the request body to send on: the one that came in, or one made measurable (usage asked for in a stream).
	Body []byte
	// Format counts the response. The package formats sets it, for an unknown API too.
	Format Format
}

// Format is a wire format, as one call speaks it.
type Format interface {
	// Counter returns a counter for the response of c, which came with this status and header.
	Counter(c *Call, status int, h http.Header) Counter
	// LimitOutput does the work of [Call.LimitOutput].
	LimitOutput(c *Call, n int64) bool
}

// Counter returns a counter for the response that came with this status and header.
func (c *Call) Counter(status int, h http.Header) Counter {
	return c.Format.Counter(c, status, h)
}

// LimitOutput rewrites Body so that the answer has at most n output tokens, over all choices, and sets MaxOutput to what was
// put in. Where the request has no bound yet one is added; where it has one by several names, all say the same. It reports false,
// and changes nothing, when the format has no field for it or the field can't be that small.
func (c *Call) LimitOutput(n int64) bool {
	if c.MaxOutput > 0 && c.MaxOutput <= n {
		return true
	}
	return n > 0 && c.Format.LimitOutput(c, n)
}

// Counter counts one response as it goes by. It is not safe for concurrent use. Its memory is bounded whatever it is fed.
type Counter interface {
	// Feed takes the next bytes of the decoded body and appends to dst those that may go to the client now. What makes
	// the client believe that the response is complete (an SSE stream's terminal event and what follows it) stays back until
	// Tail; what the client did not ask for (the usage chunk of a stream) is dropped.
	Feed(dst, chunk []byte) []byte
	// Ended reports whether what ends the response has come: what Feed holds back begins with it.
	Ended() bool
	// Tail returns what Feed held back. The body has ended, or is given up.
	Tail() []byte
	// Progress tells, cheaply, what has been used so far. At is at most what the final usage will be; Bound is at least
	// that, as far as can be told.
	Progress() (at, bound Units)
	// Usage is the final usage. complete is false for a response that ends here because it was cut, by the client, the
	// upstream or us: then what was passed on is counted (stated usage first, else locally, marked Estimated), and a call is
	// not. It may be asked for in mid-stream with false, to know exactly what has been used so far: Feed can go on.
	Usage(complete bool) Usage
	// Stop returns the bytes that end the stream properly in the provider's own format, with an error event that carries
	// code and message; nil where the format has none, or can't have one here. What Feed held back is not sent then.
	Stop(code, message string) []byte
}
