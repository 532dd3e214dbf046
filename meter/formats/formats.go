// Package formats recognises the wire format of a request: OpenAI's, Anthropic's, Gemini's, Bedrock's, Cohere's, Ollama's, MCP's, and
// formats that are compatible with them. Begin with [Inspect]. To add a format, write a package like anthropic and add its line to the
// list.
package formats

import (
	"errors"
	"net/http"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/anthropic"
	"github.com/tallygate/tallygate/meter/batch"
	"github.com/tallygate/tallygate/meter/bedrock"
	"github.com/tallygate/tallygate/meter/cohere"
	"github.com/tallygate/tallygate/meter/gemini"
	"github.com/tallygate/tallygate/meter/jobs"
	"github.com/tallygate/tallygate/meter/mcp"
	"github.com/tallygate/tallygate/meter/ollama"
	"github.com/tallygate/tallygate/meter/openai"
	"github.com/tallygate/tallygate/meter/textgen"
	"github.com/tallygate/tallygate/meter/wire"
)

// formats are tried in this order. The first that recognises the request handles it.
var formats = []func(*wire.Request) (*meter.Call, error){
	batch.Inspect,
	jobs.Inspect,
	anthropic.Inspect,
	gemini.Inspect,
	bedrock.Inspect,
	cohere.Inspect,
	ollama.Inspect,
	textgen.Inspect,
	openai.Inspect,
	mcp.Inspect,
	openai.InspectShape,
}

// Inspect recognises a request by its path and by the form of its body, never by its host, and returns what the request asks for. If no
// format knows the request, the call has an empty API, and its counter counts calls, events and bytes. An error is a
// [*meter.AmbiguousError], [meter.ErrEncoded], [meter.ErrTooManyKeys], [meter.ErrUnanswered], [meter.ErrMakesKey] or a [*meter.LaterError]: the request can't be
// metered and should be refused. If [meter.Call.Malformed] is set, the other fields say little.
func Inspect(h meter.Head, body []byte) (*meter.Call, error) {
	r := wire.NewRequest(h, body)
	if makesCredentials(r.Clean) && r.Method != http.MethodOptions {
		return nil, meter.ErrMakesKey
	}
	call, err := recognise(r, body)
	if err != nil {
		return nil, err
	}
	keep(r, call)
	return call, nil
}

// recognise asks the formats one after the other.
func recognise(r *wire.Request, body []byte) (*meter.Call, error) {
	h := r.Head
	for _, inspect := range formats {
		call, err := inspect(r)
		if err != nil {
			return nil, err
		}
		if call == nil {
			continue
		}
		if len(body) > 0 && isEncoded(h.Header) {
			return nil, meter.ErrEncoded
		}
		if err := r.Err(); err != nil && !call.Malformed {
			return nil, err
		}
		return call, nil
	}
	if ambiguous := (*meter.AmbiguousError)(nil); errors.As(r.Err(), &ambiguous) {
		return nil, ambiguous
	}
	return &meter.Call{Body: body, Free: asksNothing(h.Method, h.Path, body), InputTokens: int64(len(body)), Elsewhere: r.Elsewhere(), Format: wire.Generic}, nil
}

// isEncoded reports whether a body is compressed.
func isEncoded(h http.Header) bool {
	for _, coding := range h.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return true
		}
	}
	return false
}

// PricedHeaders returns those of a request's headers on which its price may depend, as one text. Two requests that differ only in other
// headers have the same text.
func PricedHeaders(h http.Header) string { return wire.PricedHeaders(h) }

// IsPricedHeader reports whether the price of a request may depend on a header.
func IsPricedHeader(name string) bool { return wire.IsPricedHeader(name) }

// IsRouterHeader reports whether a header configures a router behind the meter. The provider alone may set it.
func IsRouterHeader(name string) bool { return wire.IsRouterHeader(name) }
