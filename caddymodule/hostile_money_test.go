package caddymodule_test

//lint:file-ignore SA1019 net/http's own HTTP/2 client does not send the pseudo header :protocol, which a WebSocket needs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestNestedMetersShareTheCallersTerms: the limits and tags in a caller's headers apply to the meter that charges.
func TestNestedMetersShareTheCallersTerms(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "meter outer 0.0001 per call\n\t"+perCallSite, text("results"))
	key := s.agent("alice", "1")
	wantProblem(t, s.do("GET", "/search", key, "", "Tallygate-Max-Charge", "0.0005"), 402, "limit_exceeded")
	a := s.do("GET", "/search", key, "", "Tallygate-Tag", "team=x")
	tags, _ := s.charge(key, a.header.Get("Tallygate-Request"))["tags"].(map[string]any)
	want(t, "tag", fmt.Sprint(tags["team"]), "x")
}

func TestAnAnswerThatTheMoneyDoesNotReachForIsWithheld(t *testing.T) {
	t.Parallel()
	answer := fmt.Sprintf(`{"object":"chat.completion","model":"test-1","choices":[{"index":0,"message":{"content":%q}}]}`, strings.Repeat(" word", 4000))
	for _, length := range []bool{true, false} {
		s := openShop(t, chatPrices, chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if length {
				w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
			}
			_, _ = io.WriteString(w, answer)
		}))
		// The answer has 4,000 tokens, and there is money for a good 1,000.
		key := s.agent("alice", "0.016")
		a := s.do("POST", chatCompletions, key, chatBody)
		wantProblem(t, a, 402, "insufficient_funds")
		if !strings.Contains(a.body, `"withheld":true`) || !strings.Contains(a.body, `"charge":"0"`) {
			t.Errorf("length %v: %s", length, a.body)
		}
		want(t, "charges", fmt.Sprint(len(s.charges(key))), "0")
		want(t, "wallet", s.balance(key), "0.016")
		s.wantNothingHeld(t, key)
	}
}

// TestTermsGivenTwice: of two values of a term nobody knows which one the caller means, so the call is refused.
func TestTermsGivenTwice(t *testing.T) {
	t.Parallel()
	up := &witness{}
	s := openShop(t, "", perCallSite, up)
	key := s.agent("alice", "1")
	for _, term := range []string{"Tallygate-Max-Charge", "Tallygate-Escrow", "Tallygate-Milestone", "Idempotency-Key"} {
		r := s.request("GET", "/search", key, "", term, "1")
		r.Header.Add(term, "0.0001")
		wantProblem(t, send(t, r), 422, "invalid_request")
	}
	want(t, "calls that reached the provider", fmt.Sprint(len(up.take())), "0")
}

// TestNothingGoesOutOnceTheMoneyHasRunOut uses a handler that ignores the errors of its writes.
func TestNothingGoesOutOnceTheMoneyHasRunOut(t *testing.T) {
	t.Parallel()
	misdeeds.Store("ignores errors", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 500 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
		return nil
	})
	misdeeds.Store("ignores errors of bytes", func(w http.ResponseWriter, r *http.Request) error {
		for range 500 {
			_, _ = io.WriteString(w, long[:1000])
			_ = http.NewResponseController(w).Flush()
		}
		return nil
	})
	s := openShop(t, "", `handle /events {
		meter {
			payee acme
			price 0.01 per event
			charge wallet {
				batch 5 events
			}
		}
		misbehave "ignores errors"
	}
	handle /bytes {
		meter {
			payee acme
			price 0.01 per KB
			charge wallet {
				batch 5 KB
			}
		}
		misbehave "ignores errors of bytes"
	}`, text(""))
	for path, unit := range map[string]string{"/events": "data: ", "/bytes": long[:1000]} {
		key := s.agent("agent-"+path[1:], "1")
		a := s.do("GET", path, key, "")
		// The error event is one more.
		if n := strings.Count(a.body, unit); n < 98 || n > 101 || unit != "data: " && n > 100 {
			t.Errorf("%s: %d units for money for 100", path, n)
		}
		if path == "/bytes" && a.err == nil {
			t.Error("the client takes what it could pay for complete")
		}
		s.wantNothingHeld(t, key)
		if n := len(s.charges(key)); n != 1 {
			t.Errorf("%s: %d charges", path, n)
		}
	}
}

func TestOnCancelFinish(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	s := openShop(t, "", `handle /search* {
		meter {
			payee acme
			price 0.001 per call
			on_cancel finish
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "stream") || strings.HasSuffix(r.URL.Path, "dies") {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-proceed
		if strings.HasSuffix(r.URL.Path, "dies") {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "data: 2\n\ndata: [DONE]\n\n")
	}))
	for path, paid := range map[string]string{"/search": "0.001", "/search/stream": "0.001", "/search/dies": "0"} {
		t.Run(path, func(t *testing.T) {
			s.t = t
			key := s.agent("agent"+strings.ReplaceAll(path, "/", "-"), "1")
			ctx, hangUp := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				a := send(t, s.request("GET", path, key, "").WithContext(ctx))
				ended <- a.err
			}()
			<-arrived
			hangUp()
			if <-ended == nil {
				t.Error("the client was not gone")
			}
			proceed <- struct{}{}
			eventually(t, "the call has ended", func() bool { return s.api("GET", "/wallet", key, nil, 200)["held"] == "0" })
			s.wantPaid(t, key, paid)
		})
	}
}

// TestClientGoneBeforeASmallAnswer: a complete small answer is free if its client has left before it goes out.
func TestClientGoneBeforeASmallAnswer(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	misdeeds.Store("waits for the client to leave", func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, "whole")
		close(gone)
		<-r.Context().Done()
		return nil
	})
	s := openShop(t, "", "meter acme 0.001 per call\n\tmisbehave \"waits for the client to leave\"", text(""))
	key := s.agent("alice", "1")
	ctx, hangUp := context.WithCancel(t.Context())
	go func() { <-gone; hangUp() }()
	if a := send(t, s.request("GET", "/", key, "").WithContext(ctx)); a.err == nil {
		t.Error("the client was not gone")
	}
	s.wantPaid(t, key, "0")
}

func TestChargeOnOddStatuses(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `meter {
		payee acme
		price 0.001 per call
		charge_on 204 304 4xx 503
	}
	reverse_proxy UPSTREAM`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("ETag", `"1"`)
		w.WriteHeader(status)
	}))
	key := s.agent("alice", "1")
	for _, test := range []struct {
		status int
		charge string
	}{{200, "0"}, {201, "0"}, {204, "0.001"}, {302, "0"}, {304, "0.001"}, {404, "0.001"}, {429, "0.001"}, {500, "0"}, {503, "0.001"}} {
		a := s.do("GET", fmt.Sprintf("/%d", test.status), key, "", "If-None-Match", `"1"`)
		want(t, fmt.Sprint(test.status), fmt.Sprint(a.status, " ", a.header.Get("Tallygate-Charge")), fmt.Sprint(test.status, " ", test.charge))
	}
	s.wantPaid(t, key, "0.005")
}

// TestAStreamStopsAtTheCallersLimit: a stream goes as far as the caller's limit pays for, and no further.
func TestAStreamStopsAtTheCallersLimit(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "meter acme 0.01 per event\n\treverse_proxy UPSTREAM", flushes("text/event-stream",
		"data: 1\n\n", "data: 2\n\n", "data: 3\n\n", "data: 4\n\n", "data: [DONE]\n\n"))
	key := s.agent("alice", "1")
	a := s.do("GET", "/", key, "", "Tallygate-Max-Charge", "0.02")
	if got := string(withoutComment([]byte(a.body))); !strings.HasPrefix(got, "data: 1\n\ndata: 2\n\nevent: error\n") || !strings.Contains(got, "limit_exceeded") || a.err != nil {
		t.Errorf("%q %v", a.body, a.err)
	}
	a = s.do("GET", "/", key, "", "Tallygate-Max-Charge", "0.04")
	want(t, "all of it", string(withoutComment([]byte(a.body))), "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: [DONE]\n\n")
	s.wantPaid(t, key, "0.06")
}

// TestAnAnswerIsCutToTheMoney checks the output limit that the provider gets.
func TestAnAnswerIsCutToTheMoney(t *testing.T) {
	t.Parallel()
	up := &chat{}
	s := openShop(t, chatPrices, chatSite, up)
	rich, poor := s.agent("rich", "1"), s.agent("poor", "0.021")
	ask := func(rest string) string {
		return `{"model":"test-1","messages":[{"role":"user","content":"hi"}]` + rest + `}`
	}
	for _, test := range []struct {
		name, key, body, limit string
		least, most            int64
	}{
		{"enough money, no bound", rich, ask(""), "", 4096, 4096},
		{"enough money, a bound", rich, ask(`,"max_tokens":16000`), "", 16000, 16000},
		{"a limit that no answer reaches", rich, ask(""), "0.9", 4096, 4096},
		{"a low limit", rich, ask(""), "0.01", 500, 700},
		{"a low limit, a higher bound", rich, ask(`,"max_tokens":16000`), "0.1", 6000, 7000},
		{"little money, a higher bound", poor, ask(`,"max_tokens":16000`), "", 1000, 1400},
		{"little money left, no bound", poor, ask(""), "", 700, 1200},
	} {
		t.Run(test.name, func(t *testing.T) {
			var terms []string
			if test.limit != "" {
				terms = []string{"Tallygate-Max-Charge", test.limit}
			}
			if a := s.do("POST", chatCompletions, test.key, test.body, terms...); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			var got struct {
				Old int64 `json:"max_tokens"`
				New int64 `json:"max_completion_tokens"`
			}
			if err := json.Unmarshal([]byte(up.gotBody), &got); err != nil {
				t.Fatal(err)
			}
			if n := max(got.Old, got.New); n < test.least || n > test.most {
				t.Errorf("the provider is told %d, want %d to %d: %s", n, test.least, test.most, up.gotBody)
			}
		})
	}
}
