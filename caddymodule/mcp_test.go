//lint:file-ignore SA1019 MCP servers of the protocol before 2026-07-28 ask their clients in these ways, and are metered too.

package caddymodule_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const toolSite = `handle /mcp-tools* {
		meter {
			payee tools
			tariff {
				tool ask 0.01 per call
			}
		}
		reverse_proxy UPSTREAM {
			flush_interval -1
		}
	}`

// bearer sends a key with each request.
type bearer string

func (k bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(k))
	return http.DefaultTransport.RoundTrip(r)
}

// TestAToolAsksItsClient: during a call a server samples, elicits, lists roots and pings, through the meter. The client's responses pass and are
// free; the call is charged once.
func TestAToolAsksItsClient(t *testing.T) {
	t.Parallel()
	server := mcp.NewServer(&mcp.Implementation{Name: "tools", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "ask"}, func(ctx context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		sampled, err := r.Session.CreateMessage(ctx, &mcp.CreateMessageParams{MaxTokens: 10, Messages: []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: "hi"}}}})
		if err != nil {
			return nil, nil, err
		}
		elicited, err := r.Session.Elicit(ctx, &mcp.ElicitParams{Message: "sure?", RequestedSchema: map[string]any{"type": "object", "properties": map[string]any{"sure": map[string]any{"type": "boolean"}}}})
		if err != nil {
			return nil, nil, err
		}
		roots, err := r.Session.ListRoots(ctx, nil)
		if err != nil {
			return nil, nil, err
		}
		if err := r.Session.Ping(ctx, nil); err != nil {
			return nil, nil, err
		}
		told := sampled.Content.(*mcp.TextContent).Text + " " + elicited.Action + " " + roots.Roots[0].Name
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: told}}}, nil, nil
	})
	s := openShop(t, "", toolSite, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	key := s.agent("alice", "1")

	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		CreateMessageHandler: func(context.Context, *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			return &mcp.CreateMessageResult{Model: "m", Role: "assistant", Content: &mcp.TextContent{Text: "hello"}}, nil
		},
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"sure": true}}, nil
		},
	})
	client.AddRoots(&mcp.Root{URI: "file:///home", Name: "home"})
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: s.url + "/mcp-tools", HTTPClient: &http.Client{Transport: bearer(key)}},
		&mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "ask"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "result", result.Content[0].(*mcp.TextContent).Text, "hello accept home")
	if err := session.Ping(t.Context(), nil); err != nil {
		t.Error(err)
	}
	charges := s.charges(key)
	if len(charges) != 1 {
		t.Fatalf("%d charges", len(charges))
	}
	want(t, "charge", charges[0]["amount"].(string), "0.01")
	want(t, "wallet", s.balance(key), "0.99")
}

// TestWhatOnlyLooksLikeAResponseIsNotFree: a body that looks like a response, but that another reader may take for a call, is priced or refused.
func TestWhatOnlyLooksLikeAResponseIsNotFree(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", toolSite, text("{}"))
	key := s.agent("alice", "1")
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"result":{},"method":5}`,
		`{"jsonrpc":"2.0","id":1,"result":{},"params":{"name":"ask"}}`,
		`{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`,
		`{"jsonrpc":"2.0","id":1,"result":{},"model":"m"}`,
		`{"jsonrpc":"1.0","id":1,"result":{}}`,
		`{"jsonrpc":"2.0","result":{}}`,
		`{"jsonrpc":"2.0","id":1}`,
	} {
		if a := s.do("POST", "/mcp-tools", key, body); a.status != 422 || !strings.Contains(a.body, "no_price") {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"result":{}}`,
		`{"jsonrpc":"2.0","id":"s1","error":{"code":-1,"message":"declined"}}`,
		`[{"jsonrpc":"2.0","id":1,"result":{"model":"m"}},{"jsonrpc":"2.0","id":2,"result":{}}]`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","id":7,"method":"ping"}`,
	} {
		if a := s.do("POST", "/mcp-tools", key, body); a.status != 200 || a.header.Get("Tallygate-Charge") != "0" {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

// TestDocumentsCarryTheirCharge: an answer that is a document has its charge in its headers, even if a stream was asked for or possible.
func TestDocumentsCarryTheirCharge(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, toolSite+"\n"+chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/mcp-tools" {
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"content":[]}}`)
			return
		}
		_, _ = io.WriteString(w, `{"id":"c1","object":"chat.completion","model":"test-1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}],"usage":`+chatUsage+`}`)
	}))
	key := s.agent("alice", "1")
	for _, test := range []struct{ path, body, charge string }{
		{"/mcp-tools", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask"}}`, "0.01"},
		{chatCompletions, chatStream, chatCharge},
	} {
		a := s.do("POST", test.path, key, test.body)
		want(t, test.path, a.header.Get("Tallygate-Charge"), test.charge)
		if a.status != 200 || a.err != nil || len(a.trailer) > 0 || !strings.HasSuffix(a.body, "}") {
			t.Errorf("%s: %d %s %v %v", test.path, a.status, a.body, a.trailer, a.err)
		}
	}
}
