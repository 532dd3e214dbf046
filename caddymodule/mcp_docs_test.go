package caddymodule_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// TestConfigsOfMCPClientsReachTheWallet: each configuration in docs/mcp.md names a URL and a header by which the wallet answers.
func TestConfigsOfMCPClientsReachTheWallet(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/mcp.md")
	if err != nil {
		t.Fatal(err)
	}
	s := openShop(t, "", perCallSite, text("results"))
	key := s.agent("alice", "7")
	variable := regexp.MustCompile(`\$\{(?:env:|input:)?([\w-]+)\}|\$(\w+)`)
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 8 {
		t.Fatalf("docs/mcp.md has %d configurations", len(blocks))
	}
	for _, block := range blocks {
		filled := strings.NewReplacer("http://localhost:8402", s.url, "tg_YOUR_KEY", key).Replace(block[1])
		type entry struct {
			URL, ServerURL, HTTPURL string
			Args                    []string
			Headers, Env            map[string]string
		}
		var config struct{ MCPServers, Servers map[string]entry }
		if err := json.Unmarshal([]byte(filled), &config); err != nil {
			t.Errorf("%v in %s", err, block[1])
			continue
		}
		e, ok := config.MCPServers["tallygate"]
		if !ok {
			e = config.Servers["tallygate"]
		}
		authorization := e.Headers["Authorization"]
		for i, arg := range e.Args { // of mcp-remote
			if strings.HasPrefix(arg, "http://") {
				e.URL = arg
			} else if header, ok := strings.CutPrefix(arg, "Authorization:"); ok && e.Args[i-1] == "--header" {
				authorization = header
			}
		}
		authorization = variable.ReplaceAllStringFunc(authorization, func(name string) string {
			if value := e.Env[strings.Trim(name, "${}")]; value != "" {
				return value
			}
			return key
		})
		client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
		session, err := client.Connect(context.Background(), &mcp.StreamableClientTransport{
			Endpoint: e.URL + e.ServerURL + e.HTTPURL, HTTPClient: &http.Client{Transport: withAuthorization(authorization)},
		}, nil)
		if err != nil {
			t.Errorf("%v: %s", err, block[1])
			continue
		}
		result, err := session.CallTool(context.Background(), &mcp.CallToolParams{Name: "wallet_balance"})
		if err != nil || result.IsError || !strings.Contains(result.Content[0].(*mcp.TextContent).Text, `"balance":"7"`) {
			t.Errorf("%v %+v: %s", err, result, block[1])
		}
		session.Close()
	}
}

// withAuthorization sends a header with each request, if it is not empty.
type withAuthorization string

func (h withAuthorization) RoundTrip(r *http.Request) (*http.Response, error) {
	if h != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", string(h))
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestMetadataOfMCP: clients find the metadata of /mcp (RFC 9728) at its well-known path, and those of a site's own resources are the site's.
func TestMetadataOfMCP(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "respond /.well-known/* `the site's own`", text(""))
	for prefix, directive := range map[string]string{"": "tallygate", "/pay": "tallygate /pay"} {
		s.directive = directive
		s.load("", "respond /.well-known/* `the site's own`")
		a := s.do("GET", "/.well-known/oauth-protected-resource"+prefix+"/mcp", "", "")
		var metadata struct {
			Resource string
			Methods  []string `json:"bearer_methods_supported"`
			Servers  []string `json:"authorization_servers"`
		}
		if err := json.Unmarshal([]byte(a.body), &metadata); err != nil || a.status != 200 {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		want(t, "resource", metadata.Resource, s.url+prefix+"/mcp")
		if len(metadata.Methods) != 1 || metadata.Methods[0] != "header" || metadata.Servers != nil {
			t.Errorf("%s", a.body)
		}
		want(t, "CORS", a.header.Get("Access-Control-Allow-Origin"), "*")
		want(t, "another resource's metadata", s.do("GET", "/.well-known/oauth-protected-resource", "", "").body, "the site's own")
		refused := s.do("POST", prefix+"/mcp", "tg_wrong", "{}")
		if challenge := refused.header.Get("WWW-Authenticate"); refused.status != 401 || !strings.Contains(challenge, `resource_metadata="`+s.url+"/.well-known/oauth-protected-resource"+prefix+`/mcp"`) {
			t.Errorf("%d %s", refused.status, challenge)
		}
	}
}
