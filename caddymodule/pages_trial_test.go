package caddymodule_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// trialTold is what a page was told about a trial.
type trialTold struct {
	status   int // of the page's own request
	statuses []int
	answers  []string // one for each status
	charge   string
	text     string
	frames   []map[string]any
}

// try makes a trial as a page does.
func (b *browser) try(path string, trial map[string]any, headers ...string) (out trialTold) {
	b.t.Helper()
	in, err := json.Marshal(trial)
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := b.client.Do(b.s.request("POST", b.base+path, "", string(in), append([]string{"Content-Type", "application/json", "Origin", b.s.url, "Sec-Fetch-Site", "same-origin"}, headers...)...))
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if out.status, out.text = a.StatusCode, string(text); !strings.Contains(a.Header.Get("Content-Type"), "ndjson") {
		return out
	}
	for line := range strings.Lines(out.text) {
		var frame map[string]any
		if err := json.Unmarshal([]byte(line), &frame); err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		out.frames = append(out.frames, frame)
		if status, is := frame["status"].(float64); is {
			out.statuses, out.answers = append(out.statuses, int(status)), append(out.answers, "")
		}
		if body, is := frame["body"].(string); is {
			piece, err := base64.StdEncoding.DecodeString(body)
			if err != nil {
				b.t.Fatal(err)
			}
			out.answers[len(out.answers)-1] += string(piece)
		}
		if charge, is := frame["charge"].(string); is {
			out.charge = charge
		}
	}
	return out
}

const trialSite = `encode gzip
	handle /search* {
		meter acme 0.001 per call
		respond "<script>alert(1)</script>" 200
	}
	handle /stream* {
		meter acme 0.002 per event
		reverse_proxy UPSTREAM
	}
	handle /open* {
		respond open
	}`

// TestTryIt: a page makes a call with the session's key, as a client would: it passes the meter, costs the same, and is in the access log. No
// other site can have a page make one, and what a provider answers is never a document of the pages.
func TestTryIt(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", trialSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
			t.Error("the provider gets", r.Header)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	alice := s.agent("alice", "1")
	b := s.browser(t, "/dashboard")
	search := map[string]any{"method": "GET", "path": "/search?q=a"}
	if got := b.try("/call", search); got.charge != "" || strings.Contains(got.text, "alert") {
		t.Errorf("a call without a session: %+v", got)
	}
	b.login(alice)
	b.open("/shop").wants(200, `data-send="/dashboard/call"`, "curl -i "+s.url+"/search")
	b.open("/shop?route=%2Fstream*&method=POST&path=%2Fstream%2Fa&body=%7B%22a%22%3A+true%7D").wants(200, `json.dumps({&#34;a&#34;: True})`, s.url+"/stream/a", `<option value="/stream*" selected>`)
	got := b.try("/call", search)
	if fmt.Sprint(got.statuses) != "[200]" || got.answers[0] != "<script>alert(1)</script>" || got.charge == "" || strings.Contains(got.text, alice) {
		t.Fatalf("%+v", got)
	}
	b.open("/charges/"+got.charge).wants(200, "0.001 per call", "Transfers", "alice")
	got = b.try("/call", map[string]any{"method": "POST", "path": "/stream", "body": "{}"})
	if fmt.Sprint(got.statuses) != "[200]" || !strings.Contains(got.answers[0], "data: 2") || !strings.Contains(got.text, `"Tallygate-Charge":"0.006"`) {
		t.Errorf("a stream: %+v", got)
	}
	for what, want := range map[string]struct {
		trial   map[string]any
		headers []string
		status  int
	}{
		"of another site":        {search, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"by a form":              {search, []string{"Content-Type", "text/plain"}, 415},
		"of what is not sold":    {map[string]any{"method": "GET", "path": "/open"}, nil, 422},
		"of the pages":           {map[string]any{"method": "POST", "path": "/dashboard/call"}, nil, 422},
		"of another host":        {map[string]any{"method": "GET", "path": "http://other.example/search"}, nil, 422},
		"with an odd method":     {map[string]any{"method": "CONNECT", "path": "/search"}, nil, 422},
		"with a body of no JSON": {map[string]any{"method": "POST", "path": "/search", "body": "{"}, nil, 422},
	} {
		if got := b.try("/call", want.trial, want.headers...); got.status != want.status || got.charge != "" {
			t.Errorf("%s: %+v", what, got)
		}
	}
	if charges := s.api("GET", "/charges", alice, nil, 200)["charges"].([]any); len(charges) != 2 {
		t.Errorf("%d charges, want 2", len(charges))
	}
}

// TestTestCall: a provider sees what a customer sees, and what is left of the money it lends comes back.
func TestTestCall(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", trialSite, text("results"))
	key := s.api("POST", "/agents/me/keys", operatorKey, map[string]any{"agent_id": "acme"}, 201)["api_key"].(string)
	b := s.browser(t, "/dashboard")
	b.login(key)
	b.open("/earnings").wants(200, `data-send="/dashboard/rehearse"`, "Test call")
	search := map[string]any{"method": "GET", "path": "/search", "most": "1"}
	if got := b.try("/rehearse", search); fmt.Sprint(got.statuses) != "[402]" || !strings.Contains(got.text, `"problem"`) || got.charge != "" {
		t.Errorf("without money to lend: %+v", got)
	}
	s.api("POST", "/wallet/deposit", operatorKey, map[string]any{"agent_id": "acme", "amount": "1", "reference": "first"}, 200)
	for range 2 {
		got := b.try("/rehearse", search)
		if fmt.Sprint(got.statuses) != "[402 200]" || !strings.Contains(got.answers[0], "insufficient_funds") || got.charge == "" {
			t.Fatalf("%+v", got)
		}
		b.open("/charges/"+got.charge).wants(200, "0.001 per call", "acme")
	}
	if wallet := s.api("GET", "/wallet", key, nil, 200); wallet["balance"] != "1" {
		t.Errorf("after two calls to itself the provider has %v", wallet["balance"])
	}
	if got := b.try("/rehearse", map[string]any{"path": "/search", "most": "0.0001"}); fmt.Sprint(got.statuses) != "[402]" || got.charge != "" {
		t.Errorf("a call that needs more than the provider lends: %+v", got)
	}
	other := s.agent("other", "1")
	got := b.try("/rehearse", map[string]any{"path": "/search", "key": other})
	if fmt.Sprint(got.statuses) != "[402 200]" || got.charge == "" || strings.Contains(got.text, other) {
		t.Errorf("with a customer's key: %+v", got)
	}
}
