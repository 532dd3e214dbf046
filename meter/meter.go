// Package meter finds out what a request to a paid API asks for, and counts what its answer uses. It knows nothing of money or of Caddy.
//
// A call is metered in these steps. Package formats does the first:
//
//	call, err := formats.Inspect(head, body) // what is asked for; call.Body is what to send on
//	counter := call.Counter(status, header)  // counts the answer
//	out = counter.Feed(out[:0], chunk)       // for each chunk of it: what may go to the client now
//	usage := counter.Usage(true)             // what the answer used
//	rest := counter.Tail()                   // what Feed held back, to be sent once the usage is charged
//
// A [Usage] counts [Units] by [Class]. Package pricing computes an amount from them.
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

// The errors of reading a request. A request that can't be read with certainty can't be metered, so it should be refused.
var (
	// ErrEncoded is returned when a request body is compressed.
	ErrEncoded = errors.New("the request body has a Content-Encoding: send it plain")
	// ErrUnanswered is returned when an MCP request calls a tool without an id of its own, so that no answer can be matched to the call, and
	// when it calls more than 1024 tools.
	ErrUnanswered = errors.New("each call needs an id of its own, a string or a number, and at most 1024 go in a batch")
	// ErrMakesKey is returned when a request asks the provider for a key of its own, which would work past the meter.
	ErrMakesKey = errors.New("the request asks the provider for a key of its own, by which calls go past this server: they have no price here")
	// ErrTooManyKeys is returned when an object of the request that decides its cost has more than 1000 keys.
	ErrTooManyKeys = errors.New("an object of the request body has more than 1000 keys")
)

// AmbiguousError is returned when a request can be read in more than one way, so that the provider might not read the request that was
// priced. For example, a key occurs twice, two limits contradict each other, or a value has the wrong type.
type AmbiguousError struct {
	// Field is what can't be read with certainty: the path of a field of the body, such as "stream_options.include_usage", the name of a
	// header, "path", "query", or "body".
	Field string
	// Reason says what is wrong with the field, and what was expected.
	Reason string
}

func (e *AmbiguousError) Error() string { return e.Field + ": " + e.Reason }

// LaterError is returned when a request asks for an answer that comes later, in a way that can't be metered.
type LaterError struct {
	// Field is the field of the body that asks for it.
	Field string
	// Reason says why this can't be metered, and what can be.
	Reason string
}

func (e *LaterError) Error() string { return e.Field + ": " + e.Reason }

// Class is the name of a kind of unit. The classes of one [Usage] are disjoint: a token that was read from a cache counts only as [Cached],
// and not also as [Input]. Any other name is a unit of the provider's own (`count rows header X-Row-Count`).
type Class string

const (
	Calls    Class = "call"           // complete responses
	Event    Class = "event"          // SSE events with data, JSON lines, WebSocket messages; without the one that ends the stream
	Byte     Class = "byte"           // bytes of the decoded response body that went to the client
	Second   Class = "second"         // seconds of audio, or of a connection
	Elapsed  Class = "elapsed_second" // seconds from the request to the end of the answer, by the server's clock
	ToolCall Class = "tool_call"      // MCP tool calls that succeeded

	Input           Class = "input"            // prompt tokens neither read from nor written to a cache
	Cached          Class = "cached"           // prompt tokens read from a cache
	CacheWrite      Class = "cache_write"      // prompt tokens written to a cache, for 5 minutes if the provider states a time
	CacheWrite1h    Class = "cache_write_1h"   // prompt tokens written to a cache for an hour
	Output          Class = "output"           // completion tokens that are in no class below
	Reasoning       Class = "reasoning"        // completion tokens of reasoning
	AudioInput      Class = "audio_input"      // prompt tokens of audio, not read from a cache
	AudioOutput     Class = "audio_output"     // completion tokens of audio
	ImageInput      Class = "image_input"      // prompt tokens of images, not read from a cache
	ImageOutput     Class = "image_output"     // completion tokens of images
	WebSearch       Class = "web_search"       // web searches that the provider made
	MapsSearch      Class = "maps_search"      // searches on a map that the provider made
	FileSearch      Class = "file_search"      // searches in files that the provider keeps
	CodeSession     Class = "code_session"     // containers in which the provider ran code; at xAI, runs
	ContainerMinute Class = "container_minute" // minutes for which a container of a gigabyte is charged
	Citation        Class = "citation"         // tokens of citations (Perplexity) that are in no class above
	Page            Class = "page"             // pages that the provider read (OCR)
	SearchUnit      Class = "search_unit"      // the units in which Cohere bills a rerank

	// Units that the request itself asks for, see [Call.Asked].
	InputCharacter Class = "input_character" // characters of text that is to be spoken
	AskedImage     Class = "asked_image"     // images that are asked for
	AskedSecond    Class = "asked_second"    // seconds of video that are asked for
	InputByte      Class = "input_byte"      // bytes of the request's body
)

// ContainerLeast is how many minutes of a container are charged at the least.
const ContainerLeast = 5

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
	// Model is the model that answered, if the response says so; otherwise empty.
	Model string
	// ServiceTier is the tier that the response states ("batch", "flex", "priority"); otherwise empty. Other things that change the prices are
	// joined to it by a plus, see [JoinTiers].
	ServiceTier string
	// PromptTokens is the size of the whole prompt, including cached parts. Tariffs may have other prices for large prompts (`above 200k
	// tokens`).
	PromptTokens int64
	// Tools counts the tool calls (MCP) that succeeded, by the tool's name. ToolsFailed counts those that ended in an error.
	Tools, ToolsFailed map[string]int64
	// Unmatched counts the results of tool calls (MCP) for which nobody knows of which tool they are. They are of some of those in Waiting: the
	// tools of the calls without an answer of their own.
	Unmatched int64
	Waiting   []string
	// Passes are the parts of Units that ran on other models than Model (Anthropic's advisor). Each has the prices of its own model.
	Passes []Pass
	// Beside is usage of other models that is not in Units, because the provider states it separately: an image that was generated within
	// OpenAI's Responses, or the transcription of speech in its Realtime API.
	Beside []Pass
	// Unanswered says that a complete answer contains neither output nor usage nor an error, although answers in this format do. So the real
	// answer comes later, or was sent elsewhere.
	Unanswered bool
	// Unstated says that a whole answer does not state its tokens, although they can't be counted locally. An image is such an answer.
	Unstated bool
	// Uncounted says that units of the provider's own were looked for in the answer, and that it states none of them.
	Uncounted bool
	// Unread are units of the provider's own whose number the answer states in a form that is no number, such as "5,000" or true.
	Unread []Class
	// Failed says that the provider reports an error, instead of an answer.
	Failed bool
	// Pending says that the answer states that it is unfinished.
	Pending bool
	// Later is the name of the answer to fetch, as in [Call.Fetches], if the call has [Call.Later] and its answer is Unanswered or Pending.
	Later string
	// Kept is the name under which the provider stores the answer, as in [Call.Fetches], if the call has [Call.Keeps]. Of several answers over
	// one connection it is the one of which the last message told, if it did.
	Kept string
	// Unfinished are the names, as in Kept, of the answers over one connection that have begun and not ended.
	Unfinished []string
	// Open is how many answers over one connection have begun whose usage has not come. Units has estimates of their input, and of the output
	// that was passed on. Settled is the output of the others.
	Open    int64
	Settled Quantity
	// Length is the length of the audio, in seconds, if the answer does not state it: from the upload, or from the last subtitle.
	Length Quantity
	// Containers are the ids of the containers in which the provider ran code. Units has, as [CodeSession], [Call.ContainerGB] sessions for each
	// of them. Several calls may use one session.
	Containers []string
	// Results are the names of the results that were counted in an itemized answer, as far as they can be told apart.
	Results []string
	// Cost is the price in USD that the provider states, as it wrote it (OpenRouter's usage.cost); otherwise empty.
	Cost string
	// Made are the resources that the answer says the provider keeps of the call.
	Made []Resource
	// Suspect is set if stated numbers were absurd or contradicted each other, and were reduced. It is also set if they are more than the
	// request can have used, as far as that is known; then they are not changed.
	Suspect bool
}

// Pass is a part of a usage that ran on another model.
type Pass struct {
	Model string
	Units Units
}

// FurtherModels is the model of a pass which has the usage of several models: an answer names more of them than have passes of their own.
const FurtherModels = "*"

// Head is what a format needs to know about a request besides its body.
type Head struct {
	Method string
	Path   string // URL path, decoded
	Query  string // raw query
	Header http.Header
}

// Call is one request, as a format understands it.
type Call struct {
	// API is the kind of call in the provider's words: "chat.completions", "messages", ... It is empty if no format knows it.
	API string
	// ByShape says that the form of the body told the API, at a path that may serve other things too. Only the answer shows whether it is right.
	ByShape bool
	// Model is the requested model.
	Model string
	// Models are other models that the request names and that may answer instead: fallbacks, or models that are named in another place. The
	// most expensive of all these models bounds the price.
	Models []string
	// ServiceTier is the requested tier, as in [Usage].
	ServiceTier string
	// Stream says that the request asks for a streamed answer.
	Stream bool
	// Free says that the call uses no tokens (GET /v1/models, count_tokens).
	Free bool
	// InputTokens is the highest number of tokens that the input can have, unless InputOpen is set.
	InputTokens int64
	// InputOpen says that the input has parts that are not in the body (a file or an earlier response by its id, the results of a hosted
	// search), so that InputTokens is no bound.
	InputOpen bool
	// InputStored is how many of InputTokens are not in the body, but stored at the provider: earlier parts of a conversation. It is set by who
	// knows that, and counts where the answer does not state its input.
	InputStored int64
	// InputRefers says that the input refers to something that is not in the body, with or without a bound of its tokens (an image by its
	// URL). Then the provider's statement of the input is not compared with the body.
	InputRefers bool
	// MaxOutput is the highest number of output tokens of the answer, for all choices together; 0 if the request does not limit it.
	MaxOutput int64
	// Thinks says that the request asks for reasoning. The answer may not show all of it.
	Thinks bool
	// Malformed says that the body is not what the API expects (for example no JSON object), so that little could be read from it.
	Malformed bool
	// InputOnly says that the answer has no output tokens (embeddings, rerank, moderation). MaxOutput is then not used.
	InputOnly bool
	// Asked are units that the request itself asks for, whatever the answer states: characters to be spoken, images, seconds of video. They
	// count as used when the provider has answered.
	Asked Units
	// Mute says that the answer does not state how much output it has. An answer of sound alone is such.
	Mute bool
	// ContainerGB is the memory, in gigabytes, of a container that the provider makes or uses for the call; at least 1.
	ContainerGB int64
	// Unsaid is a class that the request asks for without saying how much; otherwise empty.
	Unsaid Class
	// Timed says that the call is about seconds of audio. The answer may state them; otherwise the length of the upload counts.
	Timed bool
	// Length is the length of the uploaded recording; 0 if it is unknown.
	Length Quantity
	// ByAsked says that the answer never states its usage, so that only Asked or the call itself can have a price.
	ByAsked bool
	// Tools are the names of the tools that the request calls (MCP), one entry for each call.
	Tools []string
	// Choices is how many answers the request asks for (n, candidateCount, for each of several prompts); 0 and 1 mean one.
	Choices int64
	// Stored is what the call has to do with what the provider keeps.
	Stored Stored
	// Once, if set, is the name of a result that is charged only the first time it is fetched (the results of a batch).
	Once string
	// Itemized says that the answer is one of results, each of which is charged once, in whatever answer it stands: a page of a batch's results.
	Itemized bool
	// Paid, if set, reports whether a result of an itemized answer was charged before, by the name that [Usage.Results] had for it. Such a result
	// is not counted again.
	Paid func(result string) bool
	// Later, if set, is the kind of answer by which a later call fetches the answer. The answer to this call may be only a name for it.
	Later string
	// Stays says that the provider keeps the answer where the client can read it later for nothing: in a conversation, in a thread, or among
	// the stored completions. That is so even if the answer was cut, or did not reach the client.
	Stays bool
	// Tells are the classes that the answer to come states. One that is finished, and states none of those that have a price, is not passed on.
	Tells []Class
	// Prepaid says that an answer that is fetched was paid for when it was asked for.
	Prepaid bool
	// Strip are the fields of the answer, as paths, that tell where it can be read past the meter. Where its price depends on the answer, they
	// are taken out.
	Strip []string
	// Keeps, if set, is the kind of answer by which a later call can fetch this answer. The provider stores it, even if it was cut.
	Keeps string
	// Fetches, if set, is the name of an answer that an earlier call may have asked for, and that this call fetches if it is finished: its
	// kind, a colon, and the provider's name for it. If nobody has asked for it in that way, the other fields say what the call is.
	Fetches string
	// Of, if set, is the name of a thing that this call is about, in the form of Fetches. An earlier call has asked for the thing. If that call
	// was another agent's, the thing does not exist for this agent.
	Of string
	// AnyModel says that the request need not name the models whose answers it gets.
	AnyModel bool
	// Talks says that the call opens a connection (a WebSocket) over which the client asks for more. It may name models there; package wire's
	// Talk reads them. TalksOf is the kind of the earlier answers that it may continue there. It is empty if it can't continue any.
	Talks   bool
	TalksOf string
	// Said is what the client has said over such a connection so far.
	Said Said
	// Follows are the names of answers, as in Fetches, that the request continues.
	Follows []string
	// Elsewhere is the field, header or parameter that asks the provider to send the answer to another address, where it can't be metered. It is
	// empty if there is none.
	Elsewhere string
	// Body is the request body to send. It may differ from the original, so that the answer can be metered: for example, a stream is asked for
	// its usage.
	Body []byte
	// Format counts the response. Package formats sets it, also for an unknown API.
	Format Format
}

// Said is how much a client has said over a connection.
type Said struct {
	Tokens int64 // of text, and of what the provider has stored and was named
	Sound  int64 // bytes of recordings
}

// Format is a wire format. Each call has one.
type Format interface {
	// Counter returns a counter for the response to c, which has this status and header.
	Counter(c *Call, status int, h http.Header) Counter
	// LimitOutput implements [Call.LimitOutput].
	LimitOutput(c *Call, n int64) bool
	// LeastOutput implements [Call.LeastOutput].
	LeastOutput(c *Call) int64
}

// Counter returns a counter for the response to c, which has this status and header.
func (c *Call) Counter(status int, h http.Header) Counter {
	return c.Format.Counter(c, status, h)
}

// LimitOutput changes Body so that the answer has at most n output tokens, for all choices together, and sets MaxOutput to the limit that
// it wrote. If the request has no limit, one is added. If it has limits under several names, all are changed. LimitOutput returns false,
// and changes nothing, if the format has no field for a limit or the field can't be that small.
func (c *Call) LimitOutput(n int64) bool {
	if c.MaxOutput > 0 && c.MaxOutput <= n {
		return true
	}
	return n > 0 && c.Format.LimitOutput(c, n)
}

// LeastOutput is the lowest limit that LimitOutput can set, for all choices together, since the provider accepts no lower one. It is 0 if the
// format has no field for a limit.
func (c *Call) LeastOutput() int64 { return c.Format.LeastOutput(c) }

// Counter counts one response while it passes. It is not safe for concurrent use. Its memory is bounded, whatever it is fed.
type Counter interface {
	// Feed takes the next bytes of the decoded body, and appends to dst the bytes that may go to the client now. Feed holds back what would
	// make the client believe that the response is complete: the last byte of a body, or the event that ends a stream and everything after it.
	// Feed drops what the client did not ask for, such as the usage chunk of a stream.
	Feed(dst, chunk []byte) []byte
	// Ended reports whether the message that ends the stream has come. Nothing need follow it, although the upstream may keep its connection
	// open.
	Ended() bool
	// Tail ends the counting and returns what Feed held back. It is called when the body has ended, or is given up.
	Tail() []byte
	// Recognised reports whether what was fed so far shows an answer of the API: output, usage or an error.
	Recognised() bool
	// Progress is a quick estimate of what was used so far. The final usage is at least at and, as far as can be known, at most bound. The
	// caller may add to them; they are valid until Progress is called again.
	Progress() (at, bound Units)
	// Ahead returns by how many tokens of output, at most, both numbers of Progress have grown since it was called. ok is false if that is not known,
	// or if anything but bytes, events and those tokens has come.
	Ahead() (tokens int64, ok bool)
	// Usage returns what the response used. If complete is true, the response ends here as it should: counting ends, and the call itself is
	// counted. If complete is false, the response was cut by the client, the upstream or the server. Then the usage of what was passed on is
	// counted: from the provider's statements as far as they go, and otherwise by a local tokenizer. Usage(false) can also be called in
	// mid-stream, for the exact usage so far, and Feed may be called after it.
	Usage(complete bool) Usage
	// Stop returns bytes that end the stream properly, with an error event in the provider's own format that contains code and message. They
	// are sent instead of what Feed held back. Stop returns nil if the format has no such event, or if no event may be sent at this place of
	// the stream.
	Stop(code, message string) []byte
	// Comment returns text, which is one line, as a comment that may be sent before what Feed holds back: a block of its own in an event
	// stream. It returns nil if not all official clients of the format skip comments, if the body is not an event stream, or if a part of an
	// event was already sent.
	Comment(text string) []byte
}
