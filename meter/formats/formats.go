// Package formats recognises the wire format of a request: OpenAI's, Anthropic's, Gemini's, Bedrock's, Cohere's, Ollama's, MCP's,
// and what is compatible with them. To add a format, write a package like anthropic and add its line to the list.
package formats

import (
	"net/http"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/anthropic"
	"github.com/tallygate/tallygate/meter/bedrock"
	"github.com/tallygate/tallygate/meter/cohere"
	"github.com/tallygate/tallygate/meter/gemini"
	"github.com/tallygate/tallygate/meter/mcp"
	"github.com/tallygate/tallygate/meter/ollama"
	"github.com/tallygate/tallygate/meter/openai"
	"github.com/tallygate/tallygate/meter/textgen"
	"github.com/tallygate/tallygate/meter/wire"
)

// formats are asked in this order. The first that recognises the request gets it.
var formats = []func(*wire.Request) (*meter.Call, error){
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

// Inspect tells what a request asks for. It recognises the format by the path and the body, never by the host. A request that
// no format knows becomes a call with an empty API, whose counter counts calls, events and bytes.
//
// The error is [meter.ErrEncoded], [meter.ErrRepeated], [meter.ErrTooManyKeys], [meter.ErrUnanswered] or [meter.ErrBackground]:
// the request can't be metered and should be refused.
func Inspect(h meter.Head, body []byte) (*meter.Call, error) {
	if h.Header == nil {
		h.Header = http.Header{}
	}
	r := wire.NewRequest(h, body)
	for _, inspect := range formats {
		call, err := inspect(r)
		if err != nil {
			return nil, err
		}
		if call == nil {
			continue
		}
		if coding := h.Header.Get("Content-Encoding"); coding != "" && coding != "identity" && len(body) > 0 {
			return nil, meter.ErrEncoded
		}
		return call, nil
	}
	return &meter.Call{Body: body, Free: asksNothing(h.Method, body), InputTokens: int64(len(body)), Format: wire.Generic}, nil
}

// asksNothing reports whether a request only reads (a list of models, an answer that was paid for when it was made) or deletes.
// A GET with a body asks for something: a provider may answer it as it would a POST.
func asksNothing(method string, body []byte) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return len(body) == 0
	default:
		return false
	}
}
