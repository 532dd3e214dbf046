package caddymodule_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// chatPrices is a tariff whose four classes have so different prices that each can be recognised in a sum.
const chatPrices = `
		tariff chat {
			model free* {
				input 0 per 1M tokens
				output 0 per 1M tokens
			}
			model test-* {
				input 3 per 1M tokens
				cached 0.30 per 1M tokens
				cache_write 3.75 per 1M tokens
				output 15 per 1M tokens
			}
		}`

const chatSite = `handle /v1/* {
		meter llm {
			tariff chat
		}
		reverse_proxy UPSTREAM
	}`

// chat is an upstream that speaks OpenAI's chat completions: its answer states 1000 prompt tokens, of which 400 are from the
// cache, and 200 completion tokens.
type chat struct {
	gzip     bool                               // answers are compressed, if the request takes that
	during   func(w http.ResponseWriter, n int) // called after each event of a stream
	got      *http.Request                      // the last request
	gotBody  string
	noUsage  bool
	truncate bool
}

const chatUsage = `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":400}}`

// chatCharge is what that usage costs: 600 x 3 + 400 x 0.30 + 200 x 15, per million.
const chatCharge = "0.00492"

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.got, c.gotBody = r, string(body)
	var out io.Writer = w
	if c.gzip && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		out = z
	}
	if !strings.Contains(c.gotBody, `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(out, `{"id":"c1","object":"chat.completion","model":"test-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello there"},"finish_reason":"stop"}],"usage":%s}`, chatUsage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	asked := strings.Contains(c.gotBody, `"include_usage":true`)
	null := ""
	if asked {
		null = `,"usage":null`
	}
	event := func(n int, format string, args ...any) {
		_, _ = fmt.Fprintf(out, "data: "+format+"\n\n", args...)
		if z, ok := out.(*gzip.Writer); ok {
			_ = z.Flush()
		}
		w.(http.Flusher).Flush()
		if c.during != nil {
			c.during(w, n)
		}
	}
	for i, word := range []string{"hello", " there", " friend"} {
		event(i, `{"id":"c1","object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]%s}`, word, null)
	}
	if c.truncate {
		panic(http.ErrAbortHandler)
	}
	event(3, `{"id":"c1","object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]%s}`, null)
	if asked && !c.noUsage {
		event(4, `{"id":"c1","object":"chat.completion.chunk","model":"test-1","choices":[],"usage":%s}`, chatUsage)
	}
	event(5, "[DONE]")
}

const (
	chatBody         = `{"model":"test-1","messages":[{"role":"user","content":"hi"}]}`
	chatStream       = `{"model":"test-1","messages":[{"role":"user","content":"hi"}],"stream":true}`
	chatStreamUsage  = `{"model":"test-1","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`
	chatCompletions  = "/v1/chat/completions"
	perCallSite      = "handle /search* {\n\t\tmeter acme 0.001 per call\n\t\treverse_proxy UPSTREAM\n\t}"
	tallygateComment = ": tallygate request="
)

// text answers every request with a text.
func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, body) }
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func wantProblem(t *testing.T, a answer, status int, code string) {
	t.Helper()
	if a.err != nil || a.status != status || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.body, `"code":"`+code+`"`) {
		t.Errorf("got %d %s %s %v, want %d problem %s", a.status, a.header.Get("Content-Type"), a.body, a.err, status, code)
	}
}

func TestPayPerCall(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", perCallSite, text("ten results"))
	key := s.agent("alice", "1")
	a := s.do("GET", "/search?q=x", key, "")
	want(t, "body", a.body, "ten results")
	want(t, "charge", a.header.Get("Tallygate-Charge"), "0.001")
	want(t, "units", a.header.Get("Tallygate-Units"), "call=1")
	want(t, "balance", a.header.Get("Tallygate-Balance"), "0.999")
	want(t, "payer's wallet", s.balance(key), "0.999")
	want(t, "payee's wallet", s.balanceOf("acme"), "0.001")
	charge := s.charge(key, a.header.Get("Tallygate-Request"))
	want(t, "charge on record", charge["amount"].(string), "0.001")
	want(t, "payee on record", charge["payee"].(string), "acme")
}

func TestPayPerToken(t *testing.T) {
	t.Parallel()
	for _, zip := range []bool{false, true} {
		for _, test := range []struct{ name, body string }{
			{"whole", chatBody}, {"streamed", chatStream}, {"streamed with usage", chatStreamUsage},
		} {
			t.Run(fmt.Sprintf("%s gzip=%v", test.name, zip), func(t *testing.T) {
				up := &chat{gzip: zip}
				s := openShop(t, chatPrices, chatSite, up)
				key := s.agent("alice", "1")
				a := s.do("POST", chatCompletions, key, test.body)
				if a.status != 200 || a.err != nil {
					t.Fatalf("%d %s %v", a.status, a.body, a.err)
				}
				want(t, "payer's wallet", s.balance(key), "0.99508")
				want(t, "payee's wallet", s.balanceOf("llm"), chatCharge)
				charge := s.charge(key, a.header.Get("Tallygate-Request"))
				want(t, "charge on record", charge["amount"].(string), chatCharge)
				want(t, "source", charge["source"].(string), "stated")
				want(t, "key at the provider", up.got.Header.Get("Authorization"), "")
				from := a.header
				if test.name != "whole" {
					from = a.trailer
					wantStream(t, a, test.name == "streamed with usage")
				}
				want(t, "stated charge", from.Get("Tallygate-Charge"), chatCharge)
				want(t, "stated units", from.Get("Tallygate-Units"), "cached=400,input=600,output=200")
				want(t, "stated balance", from.Get("Tallygate-Balance"), "0.99508")
			})
		}
	}
}

// wantStream checks that a client sees the same stream as without a meter, except for the comment.
func wantStream(t *testing.T, a answer, usage bool) {
	t.Helper()
	if strings.Contains(a.body, "usage\":") != usage {
		t.Errorf("usage in the stream: %v, want %v:\n%s", !usage, usage, a.body)
	}
	comment := strings.Index(a.body, tallygateComment+a.header.Get("Tallygate-Request")+" charge="+chatCharge+" units=cached=400,input=600,output=200 balance=0.99508\n\n")
	done := strings.Index(a.body, "data: [DONE]\n\n")
	if comment < 2 || done < comment || a.body[comment-2:comment] != "\n\n" {
		t.Errorf("no comment, as a block of its own, before the terminal event:\n%s", a.body)
	}
}

func TestStreamIsPassedOnAtOnceAndItsEndHeldBack(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := &chat{during: func(http.ResponseWriter, int) { <-next }}
	s := openShop(t, chatPrices, chatSite, up)
	key := s.agent("alice", "1")
	response, err := http.DefaultClient.Do(s.request("POST", chatCompletions, key, chatStream))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	buf := make([]byte, 4096)
	for _, word := range []string{"hello", " there", " friend", "stop"} {
		// Each event arrives while the upstream waits for the test before it sends the next one.
		var got string
		for !strings.Contains(got, word) {
			n, err := response.Body.Read(buf)
			if got += string(buf[:n]); err != nil {
				t.Fatalf("waiting for %q: %v after %q", word, err, got)
			}
		}
		next <- struct{}{}
	}
	next <- struct{}{} // the usage
	next <- struct{}{} // [DONE]
	rest, err := io.ReadAll(response.Body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Fatalf("end of the stream: %q %v", rest, err)
	}
}

func TestLongBodyIsChargedBeforeItsLastByte(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 300_000)
	for _, length := range []bool{true, false} {
		s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if length {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			}
			_, _ = io.WriteString(w, body)
		}))
		key := s.agent("alice", "1")
		a := s.do("GET", "/search", key, "")
		if a.body != body || a.err != nil {
			t.Fatalf("body of %d bytes, %v", len(a.body), a.err)
		}
		want(t, "promised charge", a.header.Get("Tallygate-Charge"), "0.001")
		want(t, "promised balance", a.header.Get("Tallygate-Balance"), "0.999")
		want(t, "wallet", s.balance(key), "0.999")
	}
}

const escrowSite = `handle /v1/* {
		meter {
			payee llm
			tariff chat
			charge escrow {
				batch 50 tokens
				%s
			}
		}
		reverse_proxy UPSTREAM
	}`

func TestPayFromEscrow(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, fmt.Sprintf(escrowSite, "open 0.50 for 1h"), &chat{})
	key := s.agent("alice", "2")

	a := s.do("POST", chatCompletions, key, chatBody)
	id := a.header.Get("Tallygate-Escrow")
	want(t, "charge", a.header.Get("Tallygate-Charge"), chatCharge)
	want(t, "remaining", a.header.Get("Tallygate-Balance"), "0.49508")
	want(t, "wallet", s.balance(key), "1.5")

	b := s.do("POST", chatCompletions, key, chatStream)
	want(t, "escrow of the second call", b.trailer.Get("Tallygate-Escrow"), id)
	want(t, "remaining after two", b.trailer.Get("Tallygate-Balance"), "0.49016")

	e := s.api("GET", "/escrow/"+id, key, nil, 200)
	want(t, "released", e["released"].(string), "0.00984")
	want(t, "remaining", e["remaining"].(string), "0.49016")
	want(t, "on_expiry", e["on_expiry"].(string), "refund")
	want(t, "payee's wallet", s.balanceOf("llm"), "0.00984")
}

func TestEscrowRequired(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, fmt.Sprintf(escrowSite, ""), &chat{})
	key := s.agent("alice", "20")
	wantProblem(t, s.do("POST", chatCompletions, key, chatBody), 402, "escrow_required")

	e := s.api("POST", "/escrow", key, map[string]any{"to_agent_id": "llm", "amount": "10.00"}, 201)
	a := s.do("POST", chatCompletions, key, chatBody, "Tallygate-Escrow", e["escrow_id"].(string))
	want(t, "charge", a.header.Get("Tallygate-Charge"), chatCharge)
	want(t, "remaining", a.header.Get("Tallygate-Balance"), "9.99508")
}

func TestEscrowIsReleasedBatchByBatchWhileTheStreamRuns(t *testing.T) {
	t.Parallel()
	words := make(chan string)
	end := sync.OnceFunc(func() { close(words) })
	defer end()
	s := openShop(t, "", `handle /live* {
		meter {
			payee live
			price 0.0002 per event
			charge escrow {
				batch 5 events
				open 1.00 for 1h
			}
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for word := range words {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", word)
			w.(http.Flusher).Flush()
		}
	}))
	key := s.agent("alice", "2")
	response, err := http.DefaultClient.Do(s.request("GET", "/live", key, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for range 12 {
		words <- "tick"
	}
	// If events arrive together, those after a full batch may be released with it.
	eventually(t, "two batches of five events are released while the stream runs", func() bool {
		return slices.Contains([]string{"0.002", "0.0022", "0.0024"}, s.balanceOf("live"))
	})
	end()
	body, err := io.ReadAll(response.Body)
	if end := stated(answer{trailer: response.Trailer}); err != nil || end != "0.0024 event=12" {
		t.Errorf("end of the stream: %s %s %v", body, end, err)
	}
	want(t, "payee's wallet", s.balanceOf("live"), "0.0024")
	if n := len(s.charges(key)); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
}

func TestInnermostMeterAloneCharges(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `meter outer 0.5 per call
	handle /search* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle {
		reverse_proxy UPSTREAM
	}`, text("hello"))
	key := s.agent("alice", "1")
	want(t, "inner charge", s.do("GET", "/search", key, "").header.Get("Tallygate-Charge"), "0.001")
	want(t, "after the inner meter", s.balance(key), "0.999")
	want(t, "outer charge", s.do("GET", "/other", key, "").header.Get("Tallygate-Charge"), "0.5")
	want(t, "after the outer meter", s.balance(key), "0.499")
	wantProblem(t, s.do("GET", "/search", "", ""), 401, "unauthorized")
}

func TestKeysAreTakenFromWhereClientsPutThem(t *testing.T) {
	t.Parallel()
	var got *http.Request
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r }))
	key := s.agent("alice", "1")
	for _, test := range []struct {
		name, path string
		headers    []string
		upstream   map[string]string
	}{
		{"bearer", "/search", []string{"Authorization", "Bearer " + key}, nil},
		{"anthropic", "/search", []string{"X-Api-Key", key}, nil},
		{"gemini", "/search", []string{"X-Goog-Api-Key", key}, nil},
		{"azure", "/search", []string{"Api-Key", key}, nil},
		{"query", "/search?q=a%20b&key=" + key + "&z=1", nil, nil},
		{"own, with the provider's", "/search", []string{"Tallygate-Key", key, "Authorization", "Bearer provider"}, map[string]string{"Authorization": "Bearer provider"}},
		{"own twice", "/search", []string{"Tallygate-Key", key, "Authorization", "Bearer " + key, "X-Api-Key", key}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := s.do("GET", test.path, "", "", test.headers...)
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			for _, name := range []string{"Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key", "Tallygate-Key"} {
				want(t, name+" at the provider", got.Header.Get(name), test.upstream[name])
			}
			if strings.Contains(got.RequestURI, key) || strings.Contains(test.path, "q=") && got.URL.RawQuery != "q=a%20b&z=1" {
				t.Errorf("query at the provider: %s", got.RequestURI)
			}
		})
	}
}
