package caddymodule_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/internal/commandtest"
)

// liar is an upstream that answers with what the test has set, whatever the request is.
type liar struct {
	answer http.HandlerFunc
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	l.answer(w, r)
}

// exactly hijacks the connection, writes the given bytes, and hangs up.
func exactly(response string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, response)
	}
}

// document is a chat completion that states a usage.
func document(usage string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","model":"test-1","choices":[{"index":0,"message":{"content":"hello there"}}]`+usage+`}`)
	}
}

// eventStream returns a stream of the given chat completion chunks.
func eventStream(data ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, d := range data {
			_, _ = io.WriteString(w, "data: "+d+"\n\n")
			w.(http.Flusher).Flush()
		}
	}
}

const (
	hello      = `{"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":"hello there"}}]}`
	usageChunk = `{"object":"chat.completion.chunk","model":"test-1","choices":[],"usage":%s}`
)

// TestAbsurdUsage: the provider states impossible usage. It is cut and flagged, but is never less than what the held balance covers, and no wallet
// goes below zero.
func TestAbsurdUsage(t *testing.T) {
	t.Parallel()
	up := &liar{}
	p := newProcess(t, "1s", chatPrices, chatSite, up)
	p.start()
	key := p.agent("alice", "1")
	usage := func(u string) string { return `,"usage":` + u }
	const estimated = "an estimate"
	const nothing = "nothing: it does not go out" // the answer says nothing of what it costs
	const held = "what the balance held covers"   // of what is stated beyond reason
	for i, test := range []struct {
		name    string
		stream  bool
		answer  http.HandlerFunc
		charge  string // empty: a small charge
		source  string
		suspect bool
	}{
		{"as it should be", false, document(usage(chatUsage)), chatCharge, "stated", false},
		{"negative", false, document(usage(`{"prompt_tokens":-1000,"completion_tokens":-5,"total_tokens":-1005}`)), "0", "stated", true},
		{"negative in part", false, document(usage(`{"prompt_tokens":1000,"completion_tokens":-5}`)), "0.003", "stated", true},
		{"10^30", false, document(usage(`{"prompt_tokens":10,"completion_tokens":1e30}`)), held, "stated", true},
		{"-10^30", false, document(usage(`{"prompt_tokens":10,"completion_tokens":-1e30}`)), "0.00003", "stated", true},
		{"int64 overflows", false, document(usage(`{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807,"total_tokens":-2}`)), held, "stated", true},
		{"strings", false, document(usage(`{"prompt_tokens":"1000","completion_tokens":"200"}`)), "0.006", "stated", true},
		{"words", false, document(usage(`{"prompt_tokens":"many","completion_tokens":"few"}`)), "0", "stated", true},
		{"fractions", false, document(usage(`{"prompt_tokens":0.5,"completion_tokens":0.1}`)), "0.000018", "stated", true},
		{"NaN", false, document(usage(`{"prompt_tokens":NaN,"completion_tokens":NaN}`)), "0", "stated", true},
		{"null", false, document(usage(`null`)), "", estimated, false},
		{"null counts", false, document(usage(`{"prompt_tokens":null,"completion_tokens":null}`)), "", estimated, false},
		{"a list", false, document(usage(`[1000,200]`)), "", estimated, false},
		{"none", false, document(""), "", estimated, false},
		{"beyond the bound of the request", false, document(usage(`{"prompt_tokens":50000000,"completion_tokens":1}`)), held, "stated", true},
		{"parts beyond their total", false, document(usage(`{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":1000}}`)), "0.000018", "stated", true},
		{"a total that contradicts", false, document(usage(`{"prompt_tokens":10,"completion_tokens":1,"total_tokens":99999999999}`)), "0.000045", "stated", true},
		{"twice in a document: one of them counts, not both", false, document(usage(chatUsage) + usage(chatUsage)), chatCharge, "stated", false},
		{"twice in a stream: the last counts, not both", true, eventStream(hello, fmt.Sprintf(usageChunk, chatUsage), fmt.Sprintf(usageChunk, chatUsage), "[DONE]"), chatCharge, "stated", false},
		{"running in a stream", true, eventStream(fmt.Sprintf(usageChunk, `{"prompt_tokens":10,"completion_tokens":1}`), hello, fmt.Sprintf(usageChunk, chatUsage), "[DONE]"), chatCharge, "stated", false},
		{"falling in a stream", true, eventStream(hello, fmt.Sprintf(usageChunk, `{"prompt_tokens":50000,"completion_tokens":10000}`), fmt.Sprintf(usageChunk, `{"prompt_tokens":10,"completion_tokens":1}`), "[DONE]"), "0.000045", "stated", false},
		{"10^30 in a stream", true, eventStream(hello, fmt.Sprintf(usageChunk, `{"prompt_tokens":10,"completion_tokens":1e30}`), "[DONE]"), held, "stated", true},
		{"more than there is, in a stream", true, eventStream(hello, fmt.Sprintf(usageChunk, `{"prompt_tokens":10,"completion_tokens":100000}`), "[DONE]"), "1", "stated", true},
		{"after the end of a stream, in one piece with it", true, eventStream(hello, "[DONE]\n\ndata: "+fmt.Sprintf(usageChunk, chatUsage)), chatCharge, "stated", false},
		{"an error in the middle of a stream", true, eventStream(hello, `{"error":{"message":"overloaded","type":"server_error"}}`, "[DONE]"), "", estimated, false},
		{"an error alone is not billed as an answer", true, eventStream(`{"error":{"message":"overloaded, and a long text about it","type":"server_error"}}`, "[DONE]"), "0", "stated", false},
		{"an empty 200", false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }, nothing, "", false},
		{"a 204", false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, nothing, "", false},
		{"a ticket", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Operation-Location", "https://a.example/1")
			w.WriteHeader(202)
		}, nothing, "", false},
		{"an empty stream", true, eventStream(), "", estimated, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.shop.t = t
			key := p.agent(fmt.Sprintf("agent-%d", i), "1")
			up.answer = test.answer
			body := chatBody
			if test.stream {
				body = chatStream
			}
			a := p.do("POST", chatCompletions, key, body)
			if test.charge == nothing {
				wantProblem(t, a, 502, "usage_unknown")
				if location := a.header.Get("Operation-Location"); location != "" {
					t.Errorf("it tells where the answer will be: %s", location)
				}
				p.wantBooks(key, "1", decimal.Zero)
				return
			}
			if a.err != nil || a.status != 200 && a.status != 204 {
				t.Fatalf("%d %s %v", a.status, a.body, a.err)
			}
			c := p.only(key)
			amount := decimal.RequireFromString(c["amount"].(string))
			p.wantBooks(key, "1", amount)
			switch test.charge {
			case held:
				if amount.LessThan(decimal.RequireFromString("0.001")) {
					t.Errorf("charged %s, as if little were stated", amount)
				}
			case "": // what the prompt and two words cost, at most
				if amount.GreaterThan(decimal.RequireFromString("0.0005")) {
					t.Errorf("charged %s", amount)
				}
			default:
				want(t, "charge", amount.String(), test.charge)
			}
			if source := c["source"]; source != test.source && test.source != estimated {
				t.Errorf("source %v, want %s", source, test.source)
			}
			if suspect := c["suspect"] == true; suspect != test.suspect {
				t.Errorf("suspect: %v, want %v: %v", suspect, test.suspect, c)
			}
		})
	}
	p.shop.t = t
	want(t, "alice's wallet", p.balance(key), "1")
	p.verify()
	p.stop(syscall.SIGTERM)
	p.wantNoPanic()
}

// TestLengthsThatLie: the provider announces a longer or shorter length than it sends, in all framings.
func TestLengthsThatLie(t *testing.T) {
	t.Parallel()
	up := &liar{}
	p := newProcess(t, "1s", chatPrices, chatSite+"\n\t"+perCallSite, up)
	p.start()
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: "
	for i, test := range []struct {
		name, path, response string
		complete             bool
		charge               string // empty: none
	}{
		{"longer than it is", "/search", ok + "text/plain\r\nContent-Length: 100\r\n\r\nten results", false, ""},
		{"shorter than it is", "/search", ok + "text/plain\r\nContent-Length: 3\r\n\r\nten results", true, "0.001"},
		{"shorter, and another response in the rest", "/search", ok + "text/plain\r\nContent-Length: 3\r\n\r\ntenHTTP/1.1 200 OK\r\nTallygate-Charge: 0\r\nContent-Length: 0\r\n\r\n", true, "0.001"},
		{"two lengths", "/search", ok + "text/plain\r\nContent-Length: 3\r\nContent-Length: 11\r\n\r\nten results", false, ""},
		{"length and chunks", "/search", ok + "text/plain\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nten results\r\n0\r\n\r\n", true, "0.001"},
		{"a negative length", "/search", ok + "text/plain\r\nContent-Length: -1\r\n\r\nten results", false, ""},
		{"a length beyond any number", "/search", ok + "text/plain\r\nContent-Length: 99999999999999999999\r\n\r\nten results", false, ""},
		{"a chunk that is longer than it is", "/search", ok + "text/plain\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nten results", false, ""},
		{"chunks without an end", "/search", ok + "text/plain\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nten results\r\n", false, ""},
		{"no length at all", "/search", ok + "text/plain\r\n\r\nten results", true, "0.001"},
		{"usage, and longer than it is", chatCompletions, ok + "application/json\r\nContent-Length: 1000\r\n\r\n" + `{"choices":[{"message":{"content":"hello there"}}],"usage":` + chatUsage + "}", false, ""},
		{"no HTTP", "/search", "220 smtp.example.com ready\r\n", false, ""},
		{"nothing", "/search", "", false, ""},
		{"a header without end", "/search", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 4<<20), false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.shop.t = t
			key := p.agent(fmt.Sprintf("agent-%d", i), "1")
			up.answer = exactly(test.response)
			method, body := "GET", ""
			if test.path == chatCompletions {
				method, body = "POST", chatBody
			}
			a := p.do(method, test.path, key, body)
			if complete := a.err == nil && a.status == 200; complete != test.complete {
				t.Errorf("complete: %v, want %v: %d %q %v", complete, test.complete, a.status, a.body, a.err)
			}
			paid := decimal.Zero
			if test.charge != "" {
				paid = decimal.RequireFromString(p.only(key)["amount"].(string))
				want(t, "charge", paid.String(), test.charge)
			} else {
				for _, c := range p.charges(key) { // a stream that was cut has a record, at no cost
					want(t, "cut", c["cut"].(string), "upstream")
					want(t, "charge", c["amount"].(string), "0")
				}
			}
			p.wantBooks(key, "1", paid)
		})
	}
	p.shop.t = t
	p.verify()
	p.wantNoPanic()
}

// TestBombs: the provider sends data that unpacks to a thousand times its size. It is counted while it is unpacked, and ends when the money runs out.
func TestBombs(t *testing.T) {
	t.Parallel()
	bomb := func(kind string, plain io.Reader) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.Copy(z, plain)
			_ = z.Close()
		}
	}
	const size = 16 << 20
	up := &liar{}
	p := newProcess(t, "1s", chatPrices, chatSite+`
	handle /bytes* {
		meter {
			payee acme
			price 0.004 per MB
			charge wallet {
				batch 100 KB
			}
		}
		reverse_proxy UPSTREAM
	}`, up)
	p.start()
	for i, test := range []struct {
		name, path string
		plain      io.Reader
		kind       string
		complete   bool
		least      string
	}{
		{"bytes, beyond the money", "/bytes", io.LimitReader(endless{'x'}, 2*size), "text/plain", false, "0.09"},
		{"bytes, within the money", "/bytes", io.LimitReader(endless{'x'}, size), "text/plain", true, "0.067"},
		{"one line of an answer, beyond the money", chatCompletions, io.MultiReader(strings.NewReader(`{"choices":[{"message":{"content":"`), io.LimitReader(endless{' '}, size), strings.NewReader(`"}}]}`)), "application/json", false, "0.09"},
		{"one event", chatCompletions, io.LimitReader(endless{'x'}, size), "text/event-stream", true, "0"},
		{"an answer that goes ever deeper", chatCompletions, io.LimitReader(endless{'{'}, size), "application/json", false, "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.shop.t = t
			key := p.agent(fmt.Sprintf("agent-%d", i), "0.1")
			up.answer = bomb(test.kind, test.plain)
			method, body := "GET", ""
			if test.path == chatCompletions {
				method, body = "POST", chatBody
			}
			request := p.request(method, test.path, key, body)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			n, err := io.Copy(io.Discard, response.Body)
			if complete := err == nil; complete != test.complete {
				t.Errorf("complete: %v after %d bytes (%v), want %v", complete, n, err, test.complete)
			}
			paid := decimal.RequireFromString(p.only(key)["amount"].(string))
			if paid.LessThan(decimal.RequireFromString(test.least)) {
				t.Errorf("paid %s for %d bytes", paid, n)
			}
			p.wantBooks(key, "0.1", paid)
		})
	}
	p.shop.t = t
	p.verify()
	p.wantNoPanic()
}

// endless is a reader that returns the same byte forever.
type endless [1]byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[0]
	}
	return len(p), nil
}

// only returns the only charge of an agent.
func (s *shop) only(key string) map[string]any {
	s.t.Helper()
	all := s.charges(key)
	if len(all) != 1 {
		s.t.Fatalf("%d charges, want one: %v", len(all), all)
	}
	return all[0]
}

// wantBooks waits until nothing is held, and checks that the wallet has what it had before minus the charges.
func (s *shop) wantBooks(key, had string, paid decimal.Decimal) {
	s.t.Helper()
	var wallet map[string]any
	eventually(s.t, "nothing is held any more", func() bool {
		wallet = s.api("GET", "/wallet", key, nil, 200)
		return wallet["held"] == "0"
	})
	left := decimal.RequireFromString(had).Sub(paid)
	if left.IsNegative() {
		s.t.Errorf("overdrawn: %s", left)
	}
	want(s.t, "wallet", wallet["available"].(string), left.String())
}

// wantNoPanic looks for panics in what the process has printed.
func (p *process) wantNoPanic() {
	p.t.Helper()
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "panic") {
			p.t.Errorf("the server panicked: %.2000s", line)
		}
	}
	commandtest.NoRace(p.t, p.log.String())
}
