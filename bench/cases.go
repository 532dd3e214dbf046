package main

import "fmt"

// load says how a case loads a server.
type load struct {
	name, about string
	path        string  // of the route
	body        string  // of the request; empty: GET
	connections int     // that are busy at once
	rate        float64 // requests a second, each begun when it is due; 0: each connection begins the next when it has an answer
	payers      int     // agents that call in turn; 0: one
	events      bool    // the answer is a stream: events are counted, and the delay of each
	http2       bool    // all requests go over HTTP/2, without TLS, in streams of one connection
}

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
	{name: "escrow/64", about: "4 KB of JSON, paid from an escrow, 64 connections", path: "/escrow/json4k", connections: 64},
	{name: "escrow/64/payers", about: "the same, of 1,000 payers", path: "/escrow/json4k", connections: 64, payers: 1000},
	{name: "tokens/64", about: "30 KB of a chat's JSON, a price per token, 64 connections", path: "/tokens/chat30k/v1/chat/completions", body: chat(false, ""), connections: 64},
	{name: "wallet/rate", about: "4 KB of JSON, 500 requests a second", path: "/wallet/json4k", connections: 256, rate: 500},
	{name: "stream/1", about: "one stream of 50 events a second", path: "/tokens/events50/v1/chat/completions", body: chat(true, ""), connections: 1, events: true},
	{name: "stream/100", about: "100 streams of 50 events a second", path: "/tokens/events50/v1/chat/completions", body: chat(true, ""), connections: 100, events: true},
	{name: "stream/1000", about: "1,000 streams of 5 events a second", path: "/tokens/events5/v1/chat/completions", body: chat(true, ""), connections: 1000, events: true},
	{name: "download", about: "10 MB, a price per call, 4 connections", path: "/wallet/bytes10m", connections: 4},
	{name: "mcp/16", about: "calls of an MCP tool, 16 connections", path: "/tools/mcp", body: mcpCall, connections: 16},
}
