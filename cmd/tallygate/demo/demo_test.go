package demo

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/tallygate/tallygate/internal/steady"
)

// open starts one provider without any delay.
func open(t *testing.T, name string) string {
	t.Helper()
	return openPaced(t, name, 0)
}

func openPaced(t *testing.T, name string, delay time.Duration) string {
	t.Helper()
	h := &Handler{Provider: name, Delay: new(caddy.Duration(delay))}
	if err := h.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

type response struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, url string) response {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, r)
}

func post(t *testing.T, url, body string) response {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, r)
}

func read(t *testing.T, r *http.Response) response {
	t.Helper()
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{r.StatusCode, r.Header, string(body)}
}

func (r response) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), into); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
}

func TestCaddyfile(t *testing.T) {
	tests := []struct {
		input string
		want  Handler
		fails string // part of the error
	}{
		{input: "demo search", want: Handler{Provider: "search"}},
		{input: "demo llm {\n\tdelay 5ms\n}", want: Handler{Provider: "llm", Delay: new(caddy.Duration(5 * time.Millisecond))}},
		{input: "demo live {\n\tdelay 0\n}", want: Handler{Provider: "live", Delay: new(caddy.Duration(0))}},
		{input: "demo", fails: "the provider is missing: expected one of feed, judge, live, llm, predict, rows, saas, search"},
		{input: "demo bank", fails: `unknown demo provider "bank": expected one of feed`},
		{input: "demo search llm", fails: "argument"},
		{input: "demo llm {\n\tdelay\n}", fails: "argument"},
		{input: "demo llm {\n\tdelay soon\n}", fails: `delay "soon" is not a duration`},
		{input: "demo llm {\n\tdelay 1s 2s\n}", fails: "argument"},
		{input: "demo llm {\n\tspeed 3\n}", fails: `unknown word "speed" in a demo block: expected delay`},
	}
	for _, test := range tests {
		t.Run(test.input, func(t *testing.T) {
			var got Handler
			err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(test.input))
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if g, w := encode(&got), encode(&test.want); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
}

func TestEachProviderCanBeProvisioned(t *testing.T) {
	for name := range providers {
		if err := (&Handler{Provider: name}).Provision(caddy.Context{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := (&Handler{Provider: "bank"}).Provision(caddy.Context{})
	if err == nil || !strings.Contains(err.Error(), "expected one of feed") {
		t.Errorf("unknown provider: error %v, want one that names the known ones", err)
	}
}

func TestSearch(t *testing.T) {
	url := open(t, "search")
	tests := []struct {
		query  string
		status int
		titles []string
	}{
		{"?q=owls", 200, []string{"Owls that see in the dark"}},
		{"?q=OWLS+ledgers", 200, []string{"Owls that see in the dark", "Why ledgers have two sides"}},
		{"?q=counted+coins+side", 200, []string{"A short history of coins", "Why ledgers have two sides", "Tally sticks"}},
		{"?q=the&limit=1", 200, []string{"Owls that see in the dark"}},
		{"?q=zeppelin", 200, nil},
		{"", 400, nil},
		{"?q=+", 400, nil},
		{"?q=owls&limit=0", 400, nil},
		{"?q=owls&limit=9", 400, nil},
		{"?q=owls&limit=x", 400, nil},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			r := get(t, url+"/search"+test.query)
			if r.status != test.status {
				t.Fatalf("status %d, want %d: %s", r.status, test.status, r.body)
			}
			var got struct {
				Results []page
				Error   string
			}
			r.decode(t, &got)
			if (got.Error == "") != (test.status == 200) {
				t.Errorf("error %q with status %d", got.Error, r.status)
			}
			var titles []string
			for _, p := range got.Results {
				titles = append(titles, p.Title)
			}
			if strings.Join(titles, "|") != strings.Join(test.titles, "|") {
				t.Errorf("got %q, want %q", titles, test.titles)
			}
		})
	}
	if r := get(t, url+"/other"); r.status != 404 {
		t.Errorf("another path: status %d, want 404", r.status)
	}
}
