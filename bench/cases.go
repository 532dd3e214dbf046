package main

import (
	"fmt"
	"strings"
)

// load says how a case loads a server.
type load struct {
	name, about string
	path        string  // of the route; PAYEE stands for the number of a payee
	body        string  // of the request; empty: GET
	connections int     // that are busy at once
	rate        float64 // requests a second, each begun when it is due; 0: each connection begins the next when it has an answer
	payers      int     // agents that call in turn; 0: one
	events      bool    // the answer is a stream: events are counted, and the delay of each
	idle        bool    // of events: memory is measured while all streams are open and nothing comes
	http2       bool    // all requests go over HTTP/2, without TLS, in streams of one connection
	echo        bool    // each connection becomes a WebSocket, whose messages come back: messages are counted
}

// payees is how many payees the routes /payee-N have.
const payees = 100

// pathOf is the path of a call. Calls go to the payees in turn.
func (c load) pathOf(call int) string {
	return strings.Replace(c.path, "PAYEE", fmt.Sprint(call%payees), 1)
}

// chatPath is the end of the paths of chats.
const chatPath = "/v1/chat/completions"

func chat(stream bool, more string) string {
	return fmt.Sprintf(`{"model":"gpt-4o-mini","stream":%t,"max_tokens":2000,"messages":[{"role":"user","content":"What is the answer?"}]%s}`, stream, more)
}

var mcpCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"q":"ledger"}}}`

// cases are all cases. The first part of a path names the route, the second what the upstream answers.
var cases = []load{
	{name: "wallet/1", about: "4 KB of JSON, a price per call, one connection", path: "/wallet/json4k", connections: 1},
	{name: "wallet/16", about: "the same, 16 connections", path: "/wallet/json4k", connections: 16},
	{name: "wallet/64", about: "the same, 64 connections", path: "/wallet/json4k", connections: 64},
	{name: "wallet/256", about: "the same, 256 connections", path: "/wallet/json4k", connections: 256},
	{name: "wallet/64/payers", about: "the same, 64 connections of 1,000 payers", path: "/wallet/json4k", connections: 64, payers: 1000},
	{name: "wallet/64/http2", about: "the same, in 64 streams of one connection of HTTP/2", path: "/wallet/json4k", connections: 64, http2: true},
	{name: "wallet/64/payees", about: "the same, 64 connections of 1,000 payers to 100 payees", path: "/payee-PAYEE/json4k", connections: 64, payers: 1000},
	{name: "escrow/64", about: "4 KB of JSON, paid from an escrow, 64 connections", path: "/escrow/json4k", connections: 64},
	{name: "escrow/64/payers", about: "the same, of 1,000 payers", path: "/escrow/json4k", connections: 64, payers: 1000},
	{name: "tokens/64", about: "30 KB of a chat's JSON, a price per token, 64 connections", path: "/tokens/chat30k/v1/chat/completions", body: chat(false, ""), connections: 64},
	{name: "wallet/rate", about: "4 KB of JSON, 500 requests a second", path: "/wallet/json4k", connections: 256, rate: 500},
	{name: "wallet/rate/2000", about: "the same, 2,000 requests a second", path: "/wallet/json4k", connections: 256, rate: 2000},
	{name: "escrow/rate", about: "4 KB of JSON, paid from an escrow, 500 requests a second", path: "/escrow/json4k", connections: 256, rate: 500},
	{name: "tokens/rate", about: "30 KB of a chat's JSON, 500 requests a second", path: "/tokens/chat30k/v1/chat/completions", body: chat(false, ""), connections: 256, rate: 500},
	{name: "stream/1", about: "one stream of 50 events a second", path: "/tokens/events50/v1/chat/completions", body: chat(true, ""), connections: 1, events: true},
	{name: "stream/100", about: "100 streams of 50 events a second", path: "/tokens/events50/v1/chat/completions", body: chat(true, ""), connections: 100, events: true},
	{name: "stream/1000", about: "1,000 streams of 5 events a second", path: "/tokens/events5/v1/chat/completions", body: chat(true, ""), connections: 1000, events: true},
	{name: "stream/idle", about: "500 streams in which nothing comes for 8 s after the first event", path: "/tokens/idle/v1/chat/completions", body: chat(true, ""), connections: 500, events: true, idle: true},
	{name: "download", about: "10 MB, a price per call, 4 connections", path: "/wallet/bytes10m", connections: 4},
	{name: "mcp/16", about: "calls of an MCP tool, 16 connections", path: "/tools/mcp", body: mcpCall, connections: 16},
	{name: "websocket/16", about: "messages of 1 KB that come back over 16 WebSockets, a price per connection", path: "/wallet/echo", connections: 16, echo: true},
}
