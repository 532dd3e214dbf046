package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestWhatIsSoldIsFound: programs find the metered routes of a host, what they cost, and how they are paid, where the site has nothing itself.
func TestWhatIsSoldIsFound(t *testing.T) {
	t.Parallel()
	metered := `
	handle /search {
		meter acme 0.4 per call
		reverse_proxy UPSTREAM
	}
	handle /v1/* {
		meter llm {
			tariff {
				model * {
					input 3 per 1M tokens
				}
			}
		}
		reverse_proxy UPSTREAM
	}
	@there host there.example
	handle @there {
		handle /elsewhere {
			meter acme 0.5 per call
			reverse_proxy UPSTREAM
		}
	}
	handle /seen {
		meter acme {
			price 0.6 per call
			enforce off
		}
		reverse_proxy UPSTREAM
	}`
	rail := "rail coins {\n\t\t\tunit pieces\n\t\t}"
	s := openShop(t, rail, metered, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the provider's "+r.URL.Path) }))
	s.agent("somebody-with-money", "1")
	a := s.do("GET", "/openapi.json", "", "")
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatal(err, a.body)
	}
	for path, expected := range map[string]struct{ methods, has string }{
		"/search":     {"get post", `"x-payment-info":{"offers":[{"amount":"1","currency":"pieces","intent":"charge","method":"coins"}]}`},
		"/v1/{path}":  {"post", `"class":"input","amount":"3","per":1000000,"unit":"input"`},
		"/elsewhere":  {"", ""},
		"/seen":       {"", ""},
		"/agents":     {"get post", ""},
		"/{path}":     {"", ""},
		"/not/at/all": {"", ""},
	} {
		var methods []string
		for _, method := range []string{"get", "post"} {
			if operation, has := doc.Paths[path][method]; has {
				methods = append(methods, method)
				if !strings.Contains(string(operation), expected.has) {
					t.Errorf("%s %s has no %s: %s", method, path, expected.has, operation)
				}
			}
		}
		want(t, path, strings.Join(methods, " "), expected.methods)
	}
	text := s.do("GET", "/llms.txt", "", "")
	if !strings.Contains(text.body, "method coins, intent charge, 1 of the smallest units of pieces") || strings.Contains(text.body+a.body, "somebody") {
		t.Errorf("the text is %s", text.body)
	}
	wantProblem(t, s.do("GET", "/.well-known/x402", "", ""), 404, "not_found")
	for _, other := range []struct {
		what, global, site string
		served             []string // what the gateway serves itself, in the order of the paths below
	}{
		{"the site's own", "", "respond /openapi.json own\nrespond /llms.txt own", []string{"/api/v1/openapi.json"}},
		{"a metered site that answers everything", "", "meter acme 0.4 per call\nreverse_proxy UPSTREAM", []string{"/api/v1/openapi.json"}},
		{"the gateway first", "discovery first", "respond /openapi.json own\nrespond /llms.txt own", []string{"/openapi.json", "/llms.txt", "/api/v1/openapi.json"}},
	} {
		s.load(other.global, other.site)
		var served []string
		for _, path := range []string{"/openapi.json", "/llms.txt", "/api/v1/openapi.json"} {
			if a := s.do("GET", path, "", ""); a.status == 200 && a.body != "own" {
				served = append(served, path)
			}
		}
		want(t, other.what, fmt.Sprint(served), fmt.Sprint(other.served))
		if !slices.Contains(served, "/api/v1/openapi.json") {
			t.Errorf("%s: the API has no description", other.what)
		}
	}
}
