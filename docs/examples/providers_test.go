package examples

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// providerKey is the provider's own key. A provider that has keys wants it, and never sees another one.
const providerKey = "the-key-of-the-provider"

// provider is what stands behind a gateway in a guide: its address in the guide's Caddyfile, and what answers instead of it in the test.
type provider struct {
	address string
	answer  http.Handler
}

// providers are the providers of each guide.
var providers = map[string]provider{
	"anthropic":         {"https://api.anthropic.com", http.HandlerFunc(messages)},
	"feed":              {"127.0.0.1:3000", http.HandlerFunc(prices)},
	"grpc":              {"127.0.0.1:50051", http.HandlerFunc(greeter)},
	"mcp-server":        {"127.0.0.1:3001", tools()},
	"openai-compatible": {"127.0.0.1:11434", http.HandlerFunc(local)},
	"openrouter":        {"https://openrouter.ai", http.HandlerFunc(router)},
	"rest":              {"127.0.0.1:3000", http.HandlerFunc(weather)},
}

// weather is a REST API. It knows one place.
func weather(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/weather/oslo" {
		answer(w, http.StatusNotFound, `{"error":"no such place"}`)
		return
	}
	answer(w, http.StatusOK, `{"place":"oslo","celsius":-3}`)
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintln(w, body)
}

// local is a server on the provider's own machine that has OpenAI's API, and no keys.
func local(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Stream        bool
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	err := json.NewDecoder(r.Body).Decode(&asked)
	const usage = `"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}`
	switch {
	case err != nil || r.URL.Path != "/v1/chat/completions" || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer tg_"):
		answer(w, http.StatusBadRequest, `{"error":{"message":"not understood"}}`)
	case !asked.Stream:
		answer(w, http.StatusOK, `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"qwen3:8b","choices":[{"index":0,`+
			`"message":{"role":"assistant","content":"Hello, Ada."},"finish_reason":"stop"}],`+usage+`}`)
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		const chunk = `data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":1700000000,"model":"qwen3:8b",`
		for _, word := range []string{"Hello", ", Ada", "."} {
			fmt.Fprintf(w, chunk+`"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", word)
		}
		fmt.Fprint(w, chunk+`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n")
		if asked.StreamOptions.IncludeUsage {
			fmt.Fprint(w, chunk+`"choices":[],`+usage+"}\n\n")
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}
}

// messages is Anthropic's API. Part of the prompt was read from the cache.
func messages(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") != providerKey || r.Header.Get("Authorization") != "" {
		answer(w, http.StatusUnauthorized, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`)
		return
	}
	answer(w, http.StatusOK, `{"id":"msg_01","type":"message","role":"assistant","model":"claude-haiku-4-5-20251001",`+
		`"content":[{"type":"text","text":"Hello, Ada."}],"stop_reason":"end_turn","stop_sequence":null,`+
		`"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":2000,"output_tokens":8}}`)
}

// router is OpenRouter, which states what a call cost its customer.
func router(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+providerKey || r.URL.Path != "/api/v1/chat/completions" {
		answer(w, http.StatusUnauthorized, `{"error":{"message":"No auth credentials found","code":401}}`)
		return
	}
	answer(w, http.StatusOK, `{"id":"gen-1","provider":"OpenAI","model":"openai/gpt-4o-mini","object":"chat.completion","created":1700000000,`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":"Hello, Ada."},"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":12,"completion_tokens":4,"total_tokens":16,"cost":0.0000042}}`)
}

// tools is an MCP server with a tool that works, unless it is asked for nothing.
func tools() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "owls", Version: "1"}, nil)
	type query struct {
		About string `json:"about"`
	}
	mcp.AddTool(server, &mcp.Tool{Name: "search", Description: "search for owls"},
		func(_ context.Context, _ *mcp.CallToolRequest, q query) (*mcp.CallToolResult, any, error) {
			text := "An owl turns its head, not its eyes."
			if q.About == "" {
				text = "about what?"
			}
			return &mcp.CallToolResult{IsError: q.About == "", Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
		})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
}

// prices is a feed of three prices, as an event stream and over a WebSocket.
func prices(w http.ResponseWriter, r *http.Request) {
	quotes := []string{`{"tulips":"10.57"}`, `{"tulips":"10.58"}`, `{"tulips":"10.56"}`}
	if r.Header.Get("Upgrade") != "websocket" {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, quote := range quotes {
			fmt.Fprintf(w, "data: %s\n\n", quote)
		}
		return
	}
	accept := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(accept[:]))
	for _, quote := range quotes {
		fmt.Fprintf(connection, "\x81%c%s", len(quote), quote) // a whole text message
	}
	fmt.Fprint(connection, "\x88\x02\x03\xe8") // the end
}

// greeter is a gRPC service with one method, whose answer is a message without fields. Another method it does not have.
func greeter(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if r.ProtoMajor != 2 || r.URL.Path != "/owls.Greeter/Hello" {
		h.Set("Grpc-Status", "12") // unimplemented
		h.Set("Grpc-Message", "unknown method")
		return
	}
	_, _ = w.Write(make([]byte, 5)) // the frame of an empty message
	w.(http.Flusher).Flush()        // trailers follow only a body of unknown length
	h.Set(http.TrailerPrefix+"Grpc-Status", "0")
}
