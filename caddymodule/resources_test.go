package caddymodule_test

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

// TestResourcesOfAProvider: through a real proxy two agents upload files at one meter and use them at another of the same payee, within one
// meter more, below a path that is stripped, and one that is rewritten.
func TestResourcesOfAProvider(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var files, seen []string
	up := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/v1/files" && r.Method == http.MethodPost:
			files = append(files, fmt.Sprintf("file-%d", len(files)))
			fmt.Fprintf(w, `{"id":%q}`, files[len(files)-1])
		case r.URL.Path == "/v1/files":
			var list strings.Builder
			for _, id := range files {
				fmt.Fprintf(&list, `,{"id":%q}`, id)
			}
			body := `{"data":[` + strings.TrimPrefix(list.String(), ",") + `]}`
			if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				fmt.Fprint(w, body)
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, body)
			_ = z.Close()
		case r.Method == http.MethodPost:
			fmt.Fprintf(w, `{"id":"resp_%d","output":[],"usage":%s}`, len(seen), `{"input_tokens":1,"output_tokens":1,"total_tokens":2}`)
		default:
			fmt.Fprint(w, `{"secret":"content"}`)
		}
	})
	site := `meter {
		payee llm
		price 0.001 per call
		shared file-old
	}
	handle /v1/files* {
		reverse_proxy UPSTREAM
	}
	handle_path /llm/* {
		reverse_proxy UPSTREAM
	}
	handle /mine/* {
		rewrite * /v1/files/file-1
		reverse_proxy UPSTREAM
	}
	handle {
		meter llm {
			tariff chat
		}
		reverse_proxy UPSTREAM
	}`
	s := openShop(t, chatPrices, site, up)
	alice, bob := s.agent("alice", "1"), s.agent("bob", "1")
	for _, key := range []string{alice, bob} {
		if a := s.do("POST", "/v1/files", key, `{"purpose":"x"}`); a.status != 200 || a.header.Get("Tallygate-Charge") != "0.001" {
			t.Fatalf("%d %s %v", a.status, a.body, a.header)
		}
	}
	uses := `{"model":"test-1","max_output_tokens":16,"input":[{"role":"user","content":[{"type":"input_file","file_id":"%s"}]}]}`
	first := s.do("POST", "/v1/responses", alice, fmt.Sprintf(uses, "file-0"))
	if first.status != 200 {
		t.Fatalf("%d %s", first.status, first.body)
	}
	response := gjson.Get(first.body, "id").String()
	for _, test := range []struct {
		method, path, body string
		served             bool
	}{
		{"GET", "/v1/files/file-0", "", true},
		{"GET", "/v1/files/file-1", "", false},
		{"GET", "/v1/files/file-old", "", true},
		{"POST", "/v1/responses", fmt.Sprintf(uses, "file-0"), true},
		{"POST", "/llm/v1/responses", fmt.Sprintf(uses, "file-0"), true},
		{"POST", "/v1/responses", fmt.Sprintf(uses, "file-1"), false},
		{"POST", "/llm/v1/responses", fmt.Sprintf(uses, "file-1"), false},
		{"POST", "/v1/responses", fmt.Sprintf(uses, "file-old"), false}, // the inner meter shares nothing
		{"POST", "/v1/responses", `{"model":"test-1","max_output_tokens":16,"input":"x","previous_response_id":"` + response + `"}`, true}, // made by both meters
		{"GET", "/llm/v1/files/file-0", "", true},
		{"GET", "/llm/v1/files/file-1", "", false},
		{"GET", "/mine/models", "", false},
		{"GET", "/v1/models", "", true},
	} {
		a := s.do(test.method, test.path, alice, test.body)
		if (a.status == 200) != test.served || !test.served && (a.status != 404 && a.status != 422 || strings.Contains(a.body, "secret")) {
			t.Errorf("%s %s %s: %d %s", test.method, test.path, test.body, a.status, a.body)
		}
	}
	for _, path := range []string{"/v1/files", "/llm/v1/files"} {
		for key, want := range map[string]string{alice: `{"data":[{"id":"file-0"}]}`, bob: `{"data":[{"id":"file-1"}]}`} {
			if a := s.do("GET", path, key, "", "Accept-Encoding", "gzip"); a.status != 200 || a.body != want {
				t.Errorf("GET %s: %d %s %v, want %s", path, a.status, a.body, a.header, want)
			}
		}
	}
	wantProblem(t, s.do("DELETE", "/v1/files/file-1", alice, ""), 404, "unknown_resource")
}

// TestResourcesOfNestedMeters: what is made below two meters of two payees is known at both.
func TestResourcesOfNestedMeters(t *testing.T) {
	t.Parallel()
	up := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"resp_1","output":[],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}`)
	})
	s := openShop(t, chatPrices, "meter door 0.001 per call {\n\t\tshared none\n\t}\n\thandle {\n\t\tmeter llm {\n\t\t\ttariff chat\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", up)
	alice, bob := s.agent("alice", "1"), s.agent("bob", "1")
	const first = `{"model":"test-1","max_output_tokens":16,"input":"x"}`
	const next = `{"model":"test-1","max_output_tokens":16,"input":"x","previous_response_id":"resp_1"}`
	wantProblem(t, s.do("POST", "/v1/responses", alice, next), 404, "unknown_resource")
	for _, body := range []string{first, next} {
		if a := s.do("POST", "/v1/responses", alice, body); a.status != 200 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	wantProblem(t, s.do("POST", "/v1/responses", bob, next), 404, "unknown_resource")
	if a := s.do("DELETE", "/v1/responses/resp_1", alice, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantProblem(t, s.do("POST", "/v1/responses", alice, next), 404, "unknown_resource")
}

// TestAPageOfOthersIsSkipped: the next page of a list is asked for through the same blocks and rewrites as the first.
func TestAPageOfOthersIsSkipped(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	up := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			fmt.Fprint(w, `{"id":"own"}`)
			return
		}
		asked = append(asked, r.URL.RequestURI())
		if r.URL.Query().Get("after") == "" {
			fmt.Fprint(w, `{"data":[{"id":"other"}],"has_more":true}`)
			return
		}
		fmt.Fprint(w, `{"data":[{"id":"own"}],"has_more":false}`)
	})
	s := openShop(t, "", `meter {
		payee llm
		price 0.001 per call
		shared none
	}
	handle_path /llm/* {
		uri replace /v1/ /api/v1/
		reverse_proxy UPSTREAM
	}
	handle /v1/* {
		reverse_proxy UPSTREAM {
			rewrite /own{uri}
		}
	}
	handle {
		respond "nothing is here" 404
	}`, up)
	key := s.agent("alice", "1")
	s.do("POST", "/llm/v1/files", key, "{}")
	for path, want := range map[string]string{
		"/llm/v1/files?order=asc": "/api/v1/files?order=asc /api/v1/files?after=other&limit=100&order=asc",
		"/v1/files":               "/own/v1/files /own/v1/files?after=other&limit=100",
	} {
		asked = nil
		a := s.do("GET", path, key, "")
		if got := gjson.Get(a.body, "data.#.id").Raw; a.status != 200 || got != `["own"]` || strings.Join(asked, " ") != want {
			t.Errorf("%s: %d %s, the provider was asked %q", path, a.status, a.body, asked)
		}
	}
}
