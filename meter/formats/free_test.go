package formats_test

import (
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

func TestFree(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		free         bool
	}{
		{"GET", "/v1/models", true}, {"GET", "/v1/responses/resp_1", true}, {"POST", "/v1/responses/input_tokens", true},
		{"POST", "/v1/responses/resp_1/cancel", true}, {"POST", "/v1beta/models/g:countTokens", true}, {"POST", "/v1/responses", false},
		{"DELETE", "/mcp", true}, {"GET", "/mcp", true}, {"GET", "/v1/files/f/content", false}, {"GET", "/v1/messages/batches/b/results", false},
		{"POST", "/v1/files", false}, {"POST", "/search", false},
		{"GET", "/v1/models/org/name", true}, {"GET", "/llm/v1/models", true}, {"GET", "/openai/v1/files", true}, {"GET", "/api/tags", true},
		{"GET", "/v1beta/files/f", true}, {"HEAD", "/v1/models", true}, {"DELETE", "/v1/files/f", true}, {"DELETE", "/v1/threads/t", true},
		{"GET", "/search", false}, {"GET", "/v1/search", false}, {"GET", "/v1/search/models", false}, {"HEAD", "/v1/search", false},
		{"GET", "/", false}, {"GET", "/v1", false}, {"GET", "/v1/organization/usage/completions", false}, {"GET", "/api/v1/credits", false},
		{"GET", "/v1beta/models/m:generateContent", false}, {"HEAD", "/v1/models/m:Predict/", false}, {"GET", "/v1/vector_stores/v/search", false},
		{"GET", "/v1/models/ft:gpt-4o:org::id", true}, {"GET", "/v1/vector_stores/v/files", true}, {"GET", "/v1/threads/t/runs", true},
		{"DELETE", "/v1/models/m", false}, {"DELETE", "/v1/search/files", false}, {"GET", "/v1/chat", false},
	} {
		var body []byte
		if tt.method == "POST" {
			body = []byte(`{}`)
		}
		c, err := formats.Inspect(meter.Head{Method: tt.method, Path: tt.path}, body)
		if err != nil || c.Free != tt.free {
			t.Errorf("%s %s: free %v, %v", tt.method, tt.path, c.Free, err)
		}
	}
}

// TestNothingIsFreeByItsMethod: a provider may take another method, or a body where there should be none, for a POST.
func TestNothingIsFreeByItsMethod(t *testing.T) {
	for _, method := range []string{"PUT", "PATCH", "QUERY", "get", "post", "TRACE", "PROPFIND", ""} {
		if c, err := formats.Inspect(meter.Head{Method: method, Path: "/v1/chat/completions"}, nil); err != nil || c.Free {
			t.Errorf("%q: free %v, %v", method, c.Free, err)
		}
	}
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS"} {
		if c, err := formats.Inspect(meter.Head{Method: method, Path: "/v1/chat/completions"}, []byte(`{"model":"m"}`)); err != nil || c.Free {
			t.Errorf("%s with a body: free %v, %v", method, c.Free, err)
		}
	}
}
