package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
	"golang.org/x/net/websocket"
)

// serveUpstream serves the upstream. The second segment of a path says what it answers; the first is the route's.
func serveUpstream(address string) error {
	answers := map[string]fasthttp.RequestHandler{
		"json4k":   whole("application/json", `{"results":["`+strings.Repeat("result ", 580)+`"]}`),
		"chat30k":  whole("application/json", `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"`+strings.Repeat("word ", 6000)+`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1800,"total_tokens":1812}}`),
		"bytes10m": whole("application/octet-stream", strings.Repeat("0123456789abcdef", 10<<20/16)),
		"mcp":      whole("application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"3 results"}]}}`),
		"events50": events(time.Second/50, 100),
		"events5":  events(time.Second/5, 15),
		"idle":     events(8*time.Second, 1),
		// Of a facilitator of x402, /x402/...: it takes any payment at once, and looks at none.
		"supported": whole("application/json", `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:8453"}],"extensions":[],"signers":{}}`),
		"verify":    whole("application/json", `{"isValid":true,"payer":"0x2222222222222222222222222222222222222222"}`),
		"settle":    whole("application/json", `{"success":true,"payer":"0x2222222222222222222222222222222222222222","transaction":"0x`+strings.Repeat("33", 32)+`","network":"eip155:8453"}`),
		"echo":      fasthttpadaptor.NewFastHTTPHandler(websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) })),
	}
	server := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(c *fasthttp.RequestCtx) {
		parts := strings.Split(string(c.Path()), "/")
		if answer := answers[parts[min(2, len(parts)-1)]]; answer != nil {
			answer(c)
		} else {
			c.SetStatusCode(fasthttp.StatusNotFound)
		}
	}}
	return server.ListenAndServe(address)
}

func whole(contentType, body string) fasthttp.RequestHandler {
	raw := []byte(body)
	return func(c *fasthttp.RequestCtx) {
		c.SetContentType(contentType)
		c.Response.SetBodyRaw(raw)
	}
}

// events streams a chat: count events, one every so often, each with the time at which it was sent, and the usage at the end.
func events(every time.Duration, count int) fasthttp.RequestHandler {
	return func(c *fasthttp.RequestCtx) {
		c.SetContentType("text/event-stream")
		c.SetBodyStreamWriter(func(w *bufio.Writer) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for range count {
				fmt.Fprintf(w, `data: {"id":"%d","object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" word"}}]}`+"\n\n", time.Now().UnixNano())
				if w.Flush() != nil {
					return
				}
				<-tick.C
			}
			fmt.Fprintf(w, `data: {"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n")
			fmt.Fprintf(w, `data: {"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":%d,"total_tokens":%d}}`+"\n\ndata: [DONE]\n\n", count, count+12)
			_ = w.Flush()
		})
	}
}
