// Package meter says what a request to a paid API asks for, and counts what its answer uses. It knows no money and no Caddy.
//
// A call is metered in four steps, of which the first is package formats':
//
//	call, err := formats.Inspect(head, body) // what is asked for; call.Body is what to send on
//	counter := call.Counter(status, header)  // counts the answer
//	out = counter.Feed(out[:0], chunk)       // for each chunk of it: what may go to the client now
//	usage := counter.Usage(true)             // what the answer used
//	rest := counter.Tail()                   // what Feed held back, to be sent once the usage is charged
//
// A [Usage] counts [Units] by [Class]. Package pricing makes an amount of them.
//
// # Packages
//
// Each wire format (OpenAI's, Anthropic's, ...) is one package below this one, which implements [Format]. Package formats
// lists them and recognises a request. The formats share four packages: wire splits a body into messages and counts them, sse
// splits a stream of server-sent events, skim reads JSON of any size in bounded memory, and tokens counts tokens locally.
// Package probe reads a single value of a response, such as a number of rows, from a header or from its JSON.
package meter

import (
	"errors"
	"net/http"
)

// The errors of reading a request. A request that can't be read for sure can't be metered, so it should be refused.
var (
	// ErrEncoded is returned when a request body is compressed.
	ErrEncoded = errors.New("the request body has a Content-Encoding: send it plain")
	// ErrUnanswered is returned when a request calls a tool (MCP) without an id that is the call's own, so that no answer can be
	// matched to it, and when it calls more than 1024 tools.
	ErrUnanswered = errors.New("each call needs an id of its own, a string or a number, and at most 1024 go in a batch")
	// ErrTooManyKeys is returned when an object of the request that decides its cost has more than 1000 keys.
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

// LaterError is returned when a request asks for an answer that comes later, in a way in which it can't be metered.
type LaterError struct {
	// Field is what asks for it: a field of the body.
	Field string
	// Reason says why that can't be metered, and what can.
	Reason string
}

func (e *LaterError) Error() string { return e.Field + ": " + e.Reason }

// Class names a kind of unit that a response is counted in. The classes of one [Usage] are disjoint: a token that was read
// from a cache is counted in [Cached] alone, not in [Input] as well. Any other name is a unit of the provider's own
// (`count rows header X-Row-Count`).
type Class string

const (
	Calls    Class = "call"           // complete responses
	Event    Class = "event"          // SSE events with data, JSON lines, WebSocket messages; not the one that ends the stream
	Byte     Class = "byte"           // bytes of the decoded response body that went to the client
	Second   Class = "second"         // seconds of audio, or of a connection
	Elapsed  Class = "elapsed_second" // seconds from the request to the end of the answer, by our clock
	ToolCall Class = "tool_call"      // MCP tool calls that succeeded

	Input        Class = "input"          // prompt tokens neither read from nor written to a cache
	Cached       Class = "cached"         // prompt tokens read from a cache
	CacheWrite   Class = "cache_write"    // prompt tokens written to a cache (5 minutes, where the provider says how long)
	CacheWrite1h Class = "cache_write_1h" // prompt tokens written to a cache for an hour
	Output       Class = "output"         // completion tokens that are in no class below
	Reasoning    Class = "reasoning"      // completion tokens spent on hidden thought
	AudioInput   Class = "audio_input"    // prompt tokens of audio, not read from a cache
	AudioOutput  Class = "audio_output"   // completion tokens of audio
	ImageInput   Class = "image_input"    // prompt tokens of images, not read from a cache
	ImageOutput  Class = "image_output"   // completion tokens of images
	WebSearch    Class = "web_search"     // web searches that the provider made
	MapsSearch   Class = "maps_search"    // searches on a map that the provider made
	FileSearch   Class = "file_search"    // searches in files that the provider keeps
	CodeSession  Class = "code_session"   // containers in which the provider ran code; at xAI, runs
	Citation     Class = "citation"       // tokens of what was cited (Perplexity), which are in no class above
	Page         Class = "page"           // pages that the provider read (OCR)
	SearchUnit   Class = "search_unit"    // the units that Cohere bills a rerank by

	// What the request itself asks for, see [Call.Asked].
	InputCharacter Class = "input_character" // characters of text that is to be spoken
	AskedImage     Class = "asked_image"     // images that are asked for
	AskedSecond    Class = "asked_second"    // seconds of video that are asked for
	InputByte      Class = "input_byte"      // bytes of the request's body
)

// Source says how a usage is known.
type Source string

const (
	Stated    Source = "stated"    // the provider stated it, or it was counted exactly (calls, bytes, events)
	Estimated Source = "estimated" // a part of it was counted by a local tokenizer
)

// Usage is what one response used.
type Usage struct {
	Units  Units
	Source Source
	// Model is the model that answered, where the response says so; else empty.
	Model string
	// ServiceTier is the tier that the response states ("batch", "flex", "priority"); else empty. What else multiplies the prices is
	// joined to it by a plus, see [JoinTiers].
	ServiceTier string
	// PromptTokens is the size of the whole prompt, cached parts included. Tariffs have tiers by it (`above 200k tokens`).
	PromptTokens int64
	// Tools counts the tool calls (MCP) that succeeded, by the tool's name. ToolsFailed counts those that ended in an error.
	Tools, ToolsFailed map[string]int64
	// Passes are the parts of Units that ran on other models than Model (Anthropic's advisor). Each is priced as its own model's.
	Passes []Pass
	// Beside is what ran on other models and is not in Units, since the provider states it apart: an image that was generated
	// within OpenAI's Responses, or the transcription of what is said in its Realtime.
	Beside []Pass
	// Unanswered says that a whole answer holds neither output nor usage nor an error, although its format has them: what was asked for comes
	// later, or elsewhere.
	Unanswered bool
	// Pending says that the answer is told to be unfinished: more of it comes later.
	Pending bool
	// Later, where the answer to a call with [Call.Later] is Unanswered or Pending, names what is to be fetched, as [Call.Fetches] does.
	Later string
	// Kept, of an answer to a call with [Call.Keeps], names what the provider keeps it as, as [Call.Fetches] does.
	Kept string
	// Length is how long the audio is, in seconds, where the answer does not state it: as its upload says, or its last subtitle.
	Length Quantity
	// Containers are those whose sessions are in Units, as [CodeSession], each with one for each of [Call.ContainerGB]. A session of a container
	// is more than one call may use.
	Containers []string
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

// Head is what a format needs to know of a request beside its body.
type Head struct {
	Method string
	Path   string // URL path, decoded
	Query  string // raw query
	Header http.Header
}

// Call is one request, as a format understands it.
type Call struct {
	// API is the kind of call in the provider's words: "chat.completions", "messages", ... Empty when no format knows it.
	API string
	// Model is the model asked for.
	Model string
	// Models are other models that the request names, one of which may answer in its place: fallbacks, or what another place calls
	// the model. The dearest of them all bounds the price.
	Models []string
	// ServiceTier is the tier that is asked for, as in [Usage].
	ServiceTier string
	// Stream says that a streamed answer is asked for.
	Stream bool
	// Free says that the call uses no tokens (GET /v1/models, count_tokens).
	Free bool
	// InputTokens is the most tokens that the input can have, unless InputOpen is set.
	InputTokens int64
	// InputOpen says that the input has parts that the body does not contain (a file or an earlier response by its id, the
	// results of a hosted search), so that InputTokens does not bound it.
	InputOpen bool
	// InputRefers says that the input refers to something that the body does not contain, with or without a bound of its tokens (an
	// image by its URL). What the provider states of the input is not held against the body then.
	InputRefers bool
	// MaxOutput is the most output tokens the answer can have, over all choices; 0 when the request does not bound it.
	MaxOutput int64
	// Thinks says that the request asks for reasoning, of which the answer may not show all.
	Thinks bool
	// Malformed says that the body is not what the API takes (such as no JSON object), so that little could be read of it.
	Malformed bool
	// InputOnly says that the answer has no output tokens (embeddings, rerank, moderation). MaxOutput says nothing then.
	InputOnly bool
	// Asked are units that the request itself asks for, whatever the answer states: characters to be spoken, images, seconds of video. They
	// are used when the provider has answered.
	Asked Units
	// ContainerGB is the memory, in gigabytes, of a container that the call has the provider make or use; at least 1.
	ContainerGB int64
	// Unsaid is the class of which the request asks for some, and does not say how many; else empty.
	Unsaid Class
	// Timed says that seconds of audio are what the call is about: its answer may state them, or is of as many as its upload.
	Timed bool
	// Length is how long the uploaded recording is; 0 where that can't be told.
	Length Quantity
	// ByAsked says that the answer states nothing of what it costs, so that the call can be priced by Asked, or by the call, alone.
	ByAsked bool
	// Tools are the names of the tools that the request calls (MCP), one entry for each call.
	Tools []string
	// Choices is how many answers are asked for (n, candidateCount, for each of several prompts); 0 and 1 mean one.
	Choices int64
	// Once, where set, names a result that is charged once only, however often it is fetched (the results of a batch).
	Once string
	// Later, where set, says that the answer may come later: the kind of thing that it is then fetched as.
	Later string
	// Keeps, where set, says that the provider keeps the answer: the kind of thing that it is then fetched as, also where it was cut.
	Keeps string
	// Fetches, where set, names an answer that an earlier call has asked for, and that this one fetches if it is finished: its kind, a colon,
	// and the provider's name of it. Where nobody has asked for it in that way, the call is what else is said of it.
	Fetches string
	// Of, where set, names a thing that an earlier call has asked for, as in Fetches, and that this one is about: if another agent has asked for
	// it, it is not there.
	Of string
	// AnyModel says that the call is about answers of models that the request need not name.
	AnyModel bool
	// Talks says that the client goes on asking over the connection that the call opens (a WebSocket): it may name models there, see
	// package wire's Talk. TalksOf is the kind of answers that it may build on there; empty where it can't.
	Talks   bool
	TalksOf string
	// Follows are answers, named as in Fetches, that the request has the provider build on.
	Follows []string
	// Elsewhere is the field, header or parameter by which the request wants its answer sent elsewhere, past the meter; else empty.
	Elsewhere string
	// Body is the request body to send on. Where it differs from the one that came in, it was changed so that the answer can be
	// metered: a stream is asked for its usage.
	Body []byte
	// Format counts the response. Package formats sets it, for an unknown API too.
	Format Format
}

// Format is a wire format, as one call speaks it.
type Format interface {
	// Counter returns a counter for the response of c, which came with this status and header.
	Counter(c *Call, status int, h http.Header) Counter
	// LimitOutput does the work of [Call.LimitOutput].
	LimitOutput(c *Call, n int64) bool
}

// Counter returns a counter for the response to c, which came with this status and header.
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
	// Feed takes the next bytes of the decoded body and appends to dst those that may go to the client now. Feed holds back
	// what makes the client believe that the response is complete: the last byte of a body, or the event that ends a stream
	// and all that follows it. Feed drops what the client did not ask for, such as the usage chunk of a stream.
	Feed(dst, chunk []byte) []byte
	// Ended reports whether the message has come that ends the stream for sure. Nothing need follow it, though the upstream may
	// keep its connection open.
	Ended() bool
	// Tail ends the counting and returns what Feed held back. It is called when the body has ended, or is given up.
	Tail() []byte
	// Progress tells cheaply what has been used so far. The final usage is at least at and, as far as can be told, at most
	// bound.
	Progress() (at, bound Units)
	// Usage returns what the response used. With complete, the response ends here as it should: counting ends, and the call
	// itself is counted. Without, the response was cut by the client, the upstream or us: what was passed on is counted, by the
	// provider's statements as far as they reach and else by a local tokenizer. Usage(false) may also be asked for in
	// mid-stream, for the exact usage so far; Feed can go on after it.
	Usage(complete bool) Usage
	// Stop returns the bytes that end the stream properly, with an error event in the provider's own format that carries code
	// and message. They are sent instead of what Feed held back. Stop returns nil where the format has no such event, or where
	// none can stand at this place of the stream.
	Stop(code, message string) []byte
	// Comment returns text, which is one line, as a comment that may stand before what Feed holds back: an event stream's block of its
	// own. It returns nil where the format's official clients do not all skip one, where the body is no event stream, and where a part
	// of an event has gone on already.
	Comment(text string) []byte
}
