package caddymodule_test

//lint:file-ignore SA1019 net/http's own HTTP/2 client does not send the pseudo header :protocol, which a WebSocket needs

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/shopspring/decimal"
	"golang.org/x/net/http2"

	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

func init() {
	caddy.RegisterModule(misbehave{})
	httpcaddyfile.RegisterHandlerDirective("misbehave", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		m := new(misbehave)
		h.Args(&m.Name)
		return m, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("misbehave", httpcaddyfile.Before, "respond")
}

// misbehave is a handler behind a meter that does what a provider's handler should not do.
type misbehave struct {
	Name string `json:"name"`
}

func (misbehave) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.misbehave", New: func() caddy.Module { return new(misbehave) }}
}

func (m misbehave) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return misdeeds[m.Name](w, r)
}

var misdeeds = map[string]func(http.ResponseWriter, *http.Request) error{
	"panics before the header": func(http.ResponseWriter, *http.Request) error { panic("oh") },
	"panics after the header": func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(200)
		panic("oh")
	},
	"panics in a small body": func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "some")
		panic("oh")
	},
	"panics in a stream": func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		panic("oh")
	},
	"aborts a stream": func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"fails after a header": func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-Stale", "1")
		w.Header().Set("Content-Length", "4")
		w.Header().Set("Content-Encoding", "x")
		w.Header().Set("Tallygate-Charge", "0")
		_, _ = io.WriteString(w, "some")
		return caddyhttp.Error(418, errors.New("no"))
	},
	"fails in a stream": func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		return errors.New("no")
	},
	"announces more than it sends": func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "some")
		return nil
	},
	"announces much more than it sends": func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, long[:99_999])
		return nil
	},
	"announces less than it sends": func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "3")
		_, _ = io.WriteString(w, "some")
		return nil
	},
}

// TestHandlersThatMisbehave checks that what does not arrive whole is not taken for whole, and not charged.
func TestHandlersThatMisbehave(t *testing.T) {
	var site strings.Builder
	i := 0
	paths := make(map[string]string)
	for name := range misdeeds {
		i++
		paths[name] = fmt.Sprintf("/%d", i)
		fmt.Fprintf(&site, "handle /%d {\n\t\tmeter acme 0.001 per call\n\t\tmisbehave %q\n\t}\n\t", i, name)
	}
	site.WriteString("handle_errors {\n\t\trespond \"sorry, {err.status_code}\"\n\t}")
	s := openShop(t, "", site.String(), text(""))
	key := s.agent("alice", "1")
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			a := s.do("GET", path, key, "")
			if a.err == nil && a.status == 200 {
				t.Errorf("the client takes it for complete: %q", a.body)
			}
			if name == "fails after a header" {
				want(t, "answer", fmt.Sprint(a.status, a.body, a.header["X-Stale"], a.header["Content-Encoding"], a.header["Tallygate-Charge"], a.err), "418sorry, 418[] [] [] <nil>")
			}
			s.wantPaid(t, key, "0")
		})
	}
}

// wantPaid waits until nothing is held any more, and checks what has been paid of the 1 that there was.
func (s *shop) wantPaid(t *testing.T, key, paid string) {
	t.Helper()
	s.t = t
	s.wantNothingHeld(t, key)
	sum := decimal.Zero
	for _, c := range s.charges(key) {
		sum = sum.Add(decimal.RequireFromString(c["amount"].(string)))
	}
	want(t, "sum of the charges", sum.String(), paid)
	want(t, "wallet", s.balance(key), decimal.NewFromInt(1).Sub(decimal.RequireFromString(paid)).String())
}

// cutUpstream is an upstream that sends the beginning of a response and hangs up: the path says which and how much.
type cutUpstream struct {
	net.Listener
	responses map[string]string
}

func newCutUpstream(t *testing.T, responses map[string]string) *cutUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &cutUpstream{l, responses}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go u.serve(conn)
		}
	}()
	return u
}

func (u *cutUpstream) serve(conn net.Conn) {
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	var n int
	_, _ = fmt.Sscan(r.Header.Get("X-Cut"), &n)
	_, _ = io.WriteString(conn, u.responses[r.Header.Get("X-Shape")][:n])
}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const chatEvents = `data: {"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":"hello"}}]}` + "\n\n" +
	`data: {"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":" there"}}]}` + "\n\n" +
	`data: {"object":"chat.completion.chunk","model":"test-1","choices":[],"usage":` + chatUsage + `}` + "\n\n" + "data: [DONE]\n\n"

const chatWhole = `{"object":"chat.completion","model":"test-1","choices":[{"index":0,"message":{"content":"hello there"}}],"usage":` + chatUsage + `}`

// TestUpstreamHangsUpAtAnyByte checks for each shape of response and each place where the upstream may hang up that only what
// is complete is taken for complete, that a call is charged if and only if it is, and that no hold stays.
func TestUpstreamHangsUpAtAnyByte(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
	small, big := "ten results", long[:70_000]
	shapes := map[string]string{
		"small":     ok + fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(small), small),
		"chunks":    ok + "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("ten ") + chunk("results") + "0\r\n\r\n",
		"json":      ok + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(`{"a":`) + chunk("1}") + "0\r\n\r\n",
		"events":    ok + "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("data: 1\n\n") + chunk("data: [DONE]\n\n") + "0\r\n\r\n",
		"long":      ok + fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(big), big),
		"long json": ok + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(big) + "0\r\n\r\n",
		"trailers":  ok + "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunk("ten") + "0\r\nX-Sum: 1\r\n\r\n",
		"none":      ok + "Content-Length: 0\r\n\r\n",
	}
	chats := map[string]string{
		"chat":   ok + fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(chatWhole), chatWhole),
		"stream": ok + "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(chatEvents[:300]) + chunk(chatEvents[300:]) + "0\r\n\r\n",
	}
	zipped, zippedStream := zip(t, chatWhole), zip(t, chatEvents)
	chats["gzip"] = ok + fmt.Sprintf("Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(zipped), zipped)
	chats["gzip stream"] = ok + "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(zippedStream[:100]) + chunk(zippedStream[100:]) + "0\r\n\r\n"
	all := make(map[string]string)
	for _, some := range []map[string]string{shapes, chats} {
		for name, response := range some {
			all[name] = response
		}
	}
	up := newCutUpstream(t, all)
	site := strings.ReplaceAll(perCallSite+"\n\t"+chatSite, "UPSTREAM", up.Addr().String()+" {\n\t\t\ttransport http {\n\t\t\t\tcompression off\n\t\t\t}\n\t\t}")
	s := openShop(t, chatPrices, site, text(""))
	for name, response := range all {
		t.Run(name, func(t *testing.T) {
			s.t = t
			key := s.agent("agent-"+strings.ReplaceAll(name, " ", "-"), "1")
			method, path, body, price := "GET", "/search", "", "0.001"
			if _, is := chats[name]; is {
				method, path, body, price = "POST", chatCompletions, chatBody, chatCharge
			}
			if strings.HasSuffix(name, "stream") {
				body = chatStreamUsage
			}
			for _, n := range cuts(len(response)) {
				before := s.charges(key)
				a := s.do(method, path, key, body, "X-Shape", name, "X-Cut", fmt.Sprint(n))
				complete := a.err == nil && a.status == 200
				if complete != (n == len(response)) {
					t.Errorf("cut at byte %d of %d: complete=%v %d %v", n, len(response), complete, a.status, a.err)
				}
				s.wantNothingHeld(t, key)
				after := s.charges(key)
				if len(after) > len(before)+1 {
					t.Errorf("cut at byte %d: %d charges", n, len(after)-len(before))
				}
				if len(after) > len(before) {
					amount, cut := after[0]["amount"].(string), after[0]["cut"].(string)
					if complete && (amount != price || cut != "none") || !complete && (cut != "upstream" || price == "0.001" && amount != "0") {
						t.Errorf("cut at byte %d of %d: charged %s, cut %s", n, len(response), amount, cut)
					}
				} else if complete {
					t.Errorf("cut at byte %d of %d: free", n, len(response))
				}
			}
		})
	}
}

func zip(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// cuts are places to cut a response of n bytes at: each of a short one; of a long one those at its ends and some between.
func cuts(n int) (at []int) {
	for i := range n + 1 {
		if n < 300 && i%3 == 0 || i < 3 || i > n-12 || i == 150 || i == n/2 || n < 2000 && i%97 == 0 {
			at = append(at, i)
		}
	}
	return at
}

// TestClientHangsUpAtAnyByte checks that a client that leaves pays once at most, for no more than was sent, and that no hold
// stays.
func TestClientHangsUpAtAnyByte(t *testing.T) {
	arrived, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	s := openShop(t, "", `handle /live* {
		meter live 0.001 per event
		reverse_proxy UPSTREAM
	}
	handle /search* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		defer func() { gone <- struct{}{} }()
		if strings.HasSuffix(r.URL.Path, "short") {
			_, _ = io.WriteString(w, "short")
			return
		}
		if strings.HasPrefix(r.URL.Path, "/live") {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		for i := 0; r.Context().Err() == nil; i++ {
			if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
				return
			}
			if i < 10 {
				w.(http.Flusher).Flush()
			}
		}
	}))
	for _, test := range []struct {
		path string
		at   []int
	}{
		{"/live", []int{0, 1, 100, 400, 405, 410, 450, 1000, 100_000}},
		{"/search", []int{0, 1, 100, 400, 405, 410, 450, 1000, 100_000}},
		{"/search/short", []int{0, 1, 50, 150, 250}},
	} {
		for _, n := range test.at {
			t.Run(fmt.Sprint(test.path, " after ", n), func(t *testing.T) {
				s.t = t
				key := s.agent(fmt.Sprintf("agent-%s-%d", strings.ReplaceAll(test.path[1:], "/", "-"), n), "1000")
				conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: %s\r\n\r\n", test.path, key)
				got, err := io.ReadFull(conn, make([]byte, n))
				if err != nil {
					t.Fatalf("%d bytes of %d: %v", got, n, err)
				}
				<-arrived
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
				<-gone
				s.wantNothingHeld(t, key)
				charges := s.charges(key)
				if len(charges) > 1 {
					t.Fatalf("%d charges", len(charges))
				}
				if n > 410 && len(charges) == 0 {
					t.Error("what was sent is free")
				}
				paid := decimal.Zero
				for _, c := range charges {
					paid = decimal.RequireFromString(c["amount"].(string))
					if strings.HasPrefix(test.path, "/search") && paid.String() != "0.001" {
						t.Errorf("charged %s for a call", paid)
					}
				}
				want(t, "wallet", s.balance(key), decimal.NewFromInt(1000).Sub(paid).String())
			})
		}
	}
}

// TestAChargeThatFailsIsNeverCompleteAtTheClient breaks the disk while responses of all kinds are on their way.
func TestAChargeThatFailsIsNeverCompleteAtTheClient(t *testing.T) {
	failing.Store(bolt.Step(""))
	var begun sync.WaitGroup
	broken := make(chan struct{})
	upstream := map[string]http.HandlerFunc{
		"small":             answers(200, "small"),
		"empty":             answers(200, ""),
		"no-content":        answers(204, ""),
		"head":              answers(200, long),
		"long":              answers(200, long),
		"long-in-chunks":    flushes("text/plain", long),
		"events":            flushes("text/event-stream", "data: 1\n\n", "data: [DONE]\n\n"),
		"events-length":     answers(200, events, "Content-Type", "text/event-stream"),
		"lines":             answers(200, strings.Repeat("{}\n", 30_000), "Content-Type", "application/x-ndjson"),
		"amazon":            answers(200, strings.Repeat("\x00", 70_000), "Content-Type", "application/vnd.amazon.eventstream"),
		"trailers":          trailers(true),
		"late-trailers":     trailers(false),
		"byte/long":         answers(200, long),
		"byte/lines":        answers(200, strings.Repeat("{}\n", 30_000), "Content-Type", "application/x-ndjson"),
		"byte/small-gzip":   gzipped(true, "text/plain", "small"),
		"escrow/small":      answers(200, "small"),
		"escrow/long":       answers(200, long),
		"escrow/long-lines": answers(200, strings.Repeat("{}\n", 30_000), "Content-Type", "application/x-ndjson"),
		"upgrade":           upgradeAndEcho,
	}
	s := &shop{t: t, store: "faulty"}
	s.open("", `handle /byte* {
		meter acme 1 per MB
		reverse_proxy UPSTREAM
	}
	handle /escrow* {
		meter {
			payee acme
			price 0.001 per call
			charge escrow {
				open 5 for 1h
			}
		}
		reverse_proxy UPSTREAM
	}
	handle {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun.Done()
		<-broken
		upstream[strings.TrimPrefix(r.URL.Path, "/")](w, r)
	}))
	key := s.agent("alice", "1000")
	s.api("POST", "/escrow", key, map[string]any{"to_agent_id": "acme", "amount": "10"}, 201)

	type seen struct{ name, proto, text string }
	results := make(chan seen)
	asked := 0
	for name := range upstream {
		for _, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
			if name == "upgrade" && proto == "HTTP/1.0" {
				continue
			}
			asked++
			begun.Add(1)
			go func() { results <- seen{name, proto, s.rawAnswer(t, proto, name, key)} }()
		}
	}
	begun.Wait()
	failing.Store(bolt.StepCommit)
	close(broken)
	for range asked {
		r := <-results
		if complete, how := completeAnswer(r.proto, r.name, r.text); complete {
			t.Errorf("%s %s: an answer that could not be charged is complete (%s): %.300q", r.proto, r.name, how, r.text)
		}
	}
	failing.Store(bolt.Step(""))
	eventually(t, "what never went out is paid back", func() bool { return s.balance(key) == "990" })
	want(t, "payee's wallet", s.balanceOf("acme"), "0")
	s.wantNothingHeld(t, key)
	if a := s.do("GET", "/small", "", ""); a.status != 401 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// rawAnswer asks in HTTP/1.0 or 1.1 and returns all bytes that come until the connection ends.
func (s *shop) rawAnswer(t *testing.T, proto, name, key string) string {
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	method, more := "GET", "Connection: close\r\n"
	switch name {
	case "head":
		method = "HEAD"
	case "upgrade":
		more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	_, _ = fmt.Fprintf(conn, "%s /%s %s\r\nHost: 127.0.0.1\r\nTallygate-Key: %s\r\n%s\r\n", method, name, proto, key, more)
	all, _ := io.ReadAll(conn)
	return string(all)
}

// completeAnswer reports whether a client may take the bytes for the whole of an answer that was given.
func completeAnswer(proto, name, text string) (complete bool, how string) {
	method := "GET"
	if name == "head" {
		method = "HEAD"
	}
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), &http.Request{Method: method})
	if err != nil {
		return false, "no answer"
	}
	body, err := io.ReadAll(response.Body)
	switch {
	case response.StatusCode == 503 && response.Header.Get("Content-Type") == "application/problem+json":
		return false, "refused"
	case response.StatusCode == 101:
		return true, "upgraded"
	case strings.Contains(string(body), "[DONE]"):
		return true, "terminal event"
	case err != nil:
		return false, "cut"
	case proto == "HTTP/1.0" && response.ContentLength < 0:
		// Only the end of the connection tells: the last byte must be missing.
		whole := map[string]int{"long-in-chunks": len(long), "trailers": len("body"), "late-trailers": len("body"), "small": 5}
		return len(body) >= whole[name] && whole[name] > 0, "all bytes"
	}
	return true, fmt.Sprint(response.Status, " ", len(body))
}

// TestNestedMetersAndErrors checks that an outer meter, which has given way, stands in the way of nothing.
func TestNestedMetersAndErrors(t *testing.T) {
	s := openShop(t, "", `meter outer 0.5 per call
	handle /down {
		meter acme 0.001 per call
		reverse_proxy 127.0.0.1:1
	}
	handle /dies {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /dies/late {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /dear {
		meter acme 100 per call
		reverse_proxy UPSTREAM
	}
	handle_errors {
		respond "sorry, {err.status_code}"
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		if strings.HasSuffix(r.URL.Path, "late") {
			_, _ = io.WriteString(w, long[:90_000])
			return
		}
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "not a hundred")
	}))
	key := s.agent("alice", "1")
	for _, test := range []struct{ path, want string }{
		{"/down", `502 "sorry, 502" <nil>`},
		{"/dies", `502 "sorry, 502" <nil>`},
		{"/dies/late", `200`},
		{"/dear", `402`},
	} {
		a := s.do("GET", test.path, key, "")
		if got := fmt.Sprintf("%d %q %v", a.status, a.body, a.err); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s, want %s", test.path, got, test.want)
		}
		if test.path == "/dies/late" && a.err == nil {
			t.Error("a cut answer looks complete")
		}
	}
	s.wantPaid(t, key, "0")
}

// TestNestedMetersShareTheCallersTerms checks that what a caller asks of its charge holds for the meter that charges.
func TestNestedMetersShareTheCallersTerms(t *testing.T) {
	s := openShop(t, "", "meter outer 0.0001 per call\n\t"+perCallSite, text("results"))
	key := s.agent("alice", "1")
	wantProblem(t, s.do("GET", "/search", key, "", "Tallygate-Max-Charge", "0.0005"), 402, "limit_exceeded")
	a := s.do("GET", "/search", key, "", "Tallygate-Tag", "team=x")
	tags, _ := s.charge(key, a.header.Get("Tallygate-Request"))["tags"].(map[string]any)
	want(t, "tag", fmt.Sprint(tags["team"]), "x")
}

// TestMoneyForThePartOfAKeptAnswer checks that a small answer that is here whole, and costs more than there is, goes out for all that
// there is, and is marked.
func TestMoneyForThePartOfAKeptAnswer(t *testing.T) {
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
		if a.err != nil || a.body != answer {
			t.Errorf("length %v: %d of %d bytes, %d %v", length, len(a.body), len(answer), a.status, a.err)
		}
		want(t, "charge", a.header.Get("Tallygate-Charge"), "0.016")
		charge := s.charges(key)[0]
		want(t, "cut", charge["cut"].(string), "none")
		want(t, "suspect", fmt.Sprint(charge["suspect"]), "true")
		want(t, "wallet", s.balance(key), "0")
		s.wantNothingHeld(t, key)
	}
}

// TestNothingGoesOutOnceTheMoneyHasRunOut has a handler that does not look at the errors of its writes.
func TestNothingGoesOutOnceTheMoneyHasRunOut(t *testing.T) {
	misdeeds["ignores errors"] = func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 500 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
		return nil
	}
	misdeeds["ignores errors of bytes"] = func(w http.ResponseWriter, r *http.Request) error {
		for range 500 {
			_, _ = io.WriteString(w, long[:1000])
			_ = http.NewResponseController(w).Flush()
		}
		return nil
	}
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

// TestClientGoneBeforeASmallAnswer checks that an answer which is here whole, but whose client has left, is free.
func TestClientGoneBeforeASmallAnswer(t *testing.T) {
	gone := make(chan struct{})
	misdeeds["waits for the client to leave"] = func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, "whole")
		close(gone)
		<-r.Context().Done()
		return nil
	}
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

// TestConnectionAfterAnAbort checks that a connection on which an answer was cut serves the next request, or is closed.
func TestConnectionAfterAnAbort(t *testing.T) {
	sites := openCompared(t, newRecorded(), []comparison{
		{name: "dies", upstream: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, long[:100_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}},
		{name: "lives"},
	})
	key := sites.agent("alice", "1")
	for _, wire := range []string{"HTTP/1.1", "h2c"} {
		client, closeAll := newClient(wire)
		for range 5 {
			for _, path := range []string{"/dies", "/lives"} {
				r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+sites.addr["call"]+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Tallygate-Key", key)
				response, err := client.Do(r)
				if err != nil {
					t.Fatalf("%s %s: %v", wire, path, err)
				}
				_, err = io.ReadAll(response.Body)
				response.Body.Close()
				if (err == nil) != (path == "/lives") {
					t.Errorf("%s %s: %v", wire, path, err)
				}
			}
		}
		closeAll()
	}
	sites.wantPaid(t, key, "0.01")
}

// TestNoTunnelGoesByUnpriced checks that no upgrade opens a way past the meter.
func TestNoTunnelGoesByUnpriced(t *testing.T) {
	upgrades := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				_, _ = io.WriteString(w, "no upgrade")
				return
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+to+"\r\n\r\nfree")
		}
	}
	for _, test := range []struct {
		name, site, path, to string
		status               int
	}{
		{"HTTP/2 behind a price per call", perCallSite, "/search", "h2c", 200},
		{"HTTP/2 behind a tariff", chatSite, "/v1/models", "h2c", 200},
		{"WebSocket behind a tariff, on a path that is free", chatSite, "/v1/models", "websocket", 422},
		{"anything behind a tariff, on a path that nobody knows", chatSite, "/v1/other", "foo", 422},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openShop(t, chatPrices, test.site, upgrades(test.to))
			key := s.agent("alice", "1")
			a := s.do("GET", test.path, key, "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", test.to, "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
			if a.status != test.status {
				t.Errorf("%d %s %v, want %d", a.status, a.body, a.err, test.status)
			}
		})
	}
}

// TestKeysAreTakenFromWhereverTheyStand checks that neither a key nor what is meant for us reaches the provider by a detour.
func TestKeysAreTakenFromWhereverTheyStand(t *testing.T) {
	var got *http.Request
	done := make(chan struct{}, 1)
	s := openShop(t, chatPrices, perCallSite+"\n\t"+chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got = r
		_, _ = io.WriteString(w, chatWhole)
		done <- struct{}{}
	}))
	key := s.agent("alice", "1")
	for _, test := range []struct{ name, request string }{
		{"repeated header", "GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: provider\r\nX-Api-Key: KEY\r\nTallygate-Key: KEY\r\n\r\n"},
		{"repeated authorization", "GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic eDp5\r\nAuthorization: Bearer KEY\r\n\r\n"},
		{"repeated query", "GET /search?key=KEY&key=KEY&a=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
		{"odd case", "GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\ntALLYGATE-kEY: KEY\r\ntallygate-FORGED: 1\r\nx-API-kEY: KEY\r\n\r\n"},
		{"underscores", "GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: KEY\r\nX_Api_Key: KEY\r\n\r\n"},
		{"trailers", "POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: KEY\r\nTrailer: Tallygate-Forged, X-Api-Key, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("body") + "0\r\nTallygate-Forged: 1\r\nX-Api-Key: KEY\r\nAuthorization: Bearer KEY\r\nX-Sum: 42\r\n\r\n"},
		{"unannounced trailers", "POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: KEY\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("body") + "0\r\nTallygate-Forged: 1\r\nX-Api-Key: KEY\r\n\r\n"},
		{"trailers of a read body", "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: KEY\r\nTrailer: Tallygate-Forged, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(chatBody) + "0\r\nTallygate-Forged: 1\r\nX-Api-Key: KEY\r\nX-Sum: 42\r\n\r\n"},
		{"hop by hop", "GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Tallygate-Key, Tallygate-Tag\r\nTallygate-Key: KEY\r\nTallygate-Tag: a=b\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, strings.ReplaceAll(test.request, "KEY", key))
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || response.StatusCode != 200 {
				t.Fatalf("%v %v", response, err)
			}
			<-done
			for where, h := range map[string]http.Header{"header": got.Header, "trailer": got.Trailer} {
				for name, values := range h {
					if strings.HasPrefix(name, "Tallygate-") || strings.Contains(fmt.Sprint(values), key) {
						t.Errorf("the provider sees the %s %s: %q", where, name, values)
					}
				}
			}
			if strings.Contains(got.RequestURI, key) {
				t.Errorf("the provider sees %s", got.RequestURI)
			}
			if strings.Contains(test.request, "Trailer:") && got.Trailer.Get("X-Sum") != "42" {
				t.Errorf("the provider's own trailer is lost: %v", got.Trailer)
			}
		})
	}
}

// TestUpstreamCompressesUnasked checks that what can't be read is neither free nor garbled.
func TestUpstreamCompressesUnasked(t *testing.T) {
	s := openShop(t, chatPrices, `handle /v1/* {
		meter llm {
			tariff chat
		}
		reverse_proxy UPSTREAM {
			transport http {
				compression off
			}
		}
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		coding := r.Header.Get("X-Coding")
		body, kind := chatWhole, "application/json"
		if r.Header.Get("X-Kind") == "stream" {
			body, kind = chatEvents, "text/event-stream"
		}
		if coding == "gzip" {
			gzipped(true, kind, body)(w, r)
			return
		}
		answers(200, body, "Content-Type", kind, "Content-Encoding", coding)(w, r)
	}))
	key := s.agent("alice", "1")
	a := s.do("POST", chatCompletions, key, chatBody, "X-Coding", "gzip", "Accept-Encoding", "gzip, br")
	want(t, "gzip", fmt.Sprint(a.status, a.body, a.header["Content-Encoding"], a.header.Get("Tallygate-Charge")), "200"+chatWhole+"[]"+chatCharge)
	a = s.do("POST", chatCompletions, key, chatStreamUsage, "X-Coding", "gzip", "X-Kind", "stream")
	want(t, "gzip stream", fmt.Sprint(a.status, a.err, a.trailer.Get("Tallygate-Charge"))+string(withoutComment([]byte(a.body))), "200 <nil>"+chatCharge+chatEvents)
	s.wantPaid(t, key, "0.00984")
	for _, coding := range []string{"br", "zstd", "gzip, gzip", "nonsense"} {
		a := s.do("POST", chatCompletions, key, chatBody, "X-Coding", coding)
		wantProblem(t, a, 502, "upstream_failed")
		want(t, "Content-Encoding of "+coding, a.header.Get("Content-Encoding"), "")
	}
	s.wantPaid(t, key, "0.00984")
}

// TestManyHostileClients has clients and upstreams hang up, stall and fail at random, all at once, and checks the books.
func TestManyHostileClients(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(randomUpstream))
	t.Cleanup(up.Close)
	s := openShop(t, chatPrices, strings.ReplaceAll(`handle /event* {
		meter acme 0.0001 per event
		reverse_proxy UPSTREAM {
			flush_interval 1ms
		}
	}
	handle /byte* {
		meter {
			payee acme
			price 0.01 per MB
			charge escrow {
				batch 10 KB
				open 1 for 1h
			}
		}
		reverse_proxy UPSTREAM
	}
	handle {
		meter outer 0.5 per call
		handle {
			meter acme 0.001 per call
			reverse_proxy UPSTREAM
		}
	}`, "UPSTREAM", up.Listener.Addr().String()), text(""))
	keys := []string{s.agent("alice", "5"), s.agent("bob", "0.03"), s.agent("carol", "5")}
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range each {
				hostileRequest(t, s, keys[random.IntN(len(keys))], random)
			}
		})
	}
	wg.Wait()
	paid := decimal.Zero
	for _, key := range keys {
		s.wantNothingHeld(t, key)
		requests := make(map[string]bool)
		for _, c := range s.charges(key) {
			if requests[c["request_id"].(string)] {
				t.Errorf("%s is charged twice", c["request_id"])
			}
			requests[c["request_id"].(string)] = true
			paid = paid.Add(decimal.RequireFromString(c["amount"].(string)))
		}
	}
	want(t, "payee's wallet", s.balanceOf("acme"), paid.String())
	want(t, "outer payee's wallet", s.balanceOf("outer"), "0")
}

// randomUpstream answers as its query says.
func randomUpstream(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	q := r.URL.Query()
	switch q.Get("kind") {
	case "early":
		w.Header().Set("Link", "</x>")
		w.WriteHeader(103)
	case "error":
		http.Error(w, "broken", 500)
		return
	case "events":
		w.Header().Set("Content-Type", "text/event-stream")
	case "length":
		w.Header().Set("Content-Length", "200000")
	case "dead":
		panic(http.ErrAbortHandler)
	}
	for i := range 100 {
		if _, err := fmt.Fprintf(w, "data: %01990d\n\n", i); err != nil {
			return
		}
		if i%7 == 0 && q.Get("kind") != "length" {
			w.(http.Flusher).Flush()
		}
		if q.Get("cut") == fmt.Sprint(i) {
			panic(http.ErrAbortHandler)
		}
	}
}

func hostileRequest(t *testing.T, s *shop, key string, random *rand.Rand) {
	kinds := []string{"early", "error", "events", "length", "dead", "plain"}
	path := []string{"/event", "/byte", "/call"}[random.IntN(3)]
	path += fmt.Sprintf("?kind=%s&cut=%d", kinds[random.IntN(len(kinds))], random.IntN(300))
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	r := s.request("GET", path, key, "").WithContext(ctx)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer response.Body.Close()
	if random.IntN(2) == 0 {
		_, _ = io.CopyN(io.Discard, response.Body, random.Int64N(200_000))
		hangUp()
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
}

// TestUploadIsNotBuffered sends the second half of a body when the first has arrived at the upstream.
func TestUploadIsNotBuffered(t *testing.T) {
	half := make(chan struct{})
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 5))
		half <- struct{}{}
		rest, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %v", rest, err)
	}))
	key := s.agent("alice", "1")
	body, upload := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/search", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Tallygate-Key", key)
	ended := make(chan answer)
	go func() { ended <- send(t, r) }()
	_, _ = io.WriteString(upload, "first")
	select {
	case <-half:
	case <-time.After(10 * time.Second):
		t.Fatal("the first half is kept back")
	}
	_, _ = io.WriteString(upload, "second")
	upload.Close()
	want(t, "answer", (<-ended).body, "second <nil>")
	s.wantPaid(t, key, "0.001")
}

// TestAStreamStopsAtTheCallersLimit checks that a stream goes as far as the caller's limit reaches, and no further.
func TestAStreamStopsAtTheCallersLimit(t *testing.T) {
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

// TestWebSocketOverHTTP2 opens a WebSocket by CONNECT (RFC 8441). Go serves that only where the environment of the process
// asks for it, so that the test runs in a process of its own.
func TestWebSocketOverHTTP2(t *testing.T) {
	const setting = "http2xconnect=1"
	if !strings.Contains(os.Getenv("GODEBUG"), setting) {
		self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWebSocketOverHTTP2$", "-test.v")
		self.Env = append(os.Environ(), "GODEBUG="+setting)
		if out, err := self.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestWebSocketOverHTTP2") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	overHTTP2 := func(t *testing.T, c *caller) string {
		if c.wire != "h2c" {
			return webSocket(t, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		in, out := io.Pipe()
		defer context.AfterFunc(ctx, func() { out.Close() })()
		r := c.request(t, http.MethodConnect, in).WithContext(ctx)
		r.Header[":protocol"] = []string{"websocket"}
		r.Header.Set("Sec-WebSocket-Version", "13")
		// The client of net/http does not take the name of the pseudo header.
		transport := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
		defer transport.CloseIdleConnections()
		response, err := transport.RoundTrip(r)
		if err != nil {
			return "failed: " + err.Error()
		}
		defer response.Body.Close()
		got := response.Status + "\n" + headerText(response.Header, "Date")
		for _, message := range []string{"\x81\x05hello", "\x81\x05there"} {
			_, _ = io.WriteString(out, message)
			buf := make([]byte, len(message))
			_, err := io.ReadFull(response.Body, buf)
			got += fmt.Sprintf("%q %v\n", buf, err)
		}
		out.Close()
		rest, err := io.ReadAll(response.Body)
		return got + fmt.Sprintf("then %q %v", rest, err)
	}
	test := comparison{name: "websocket", upstream: upgradeAndEcho, client: overHTTP2, charged: 1}
	up := newRecorded()
	sites := openCompared(t, up, []comparison{test})
	key := sites.agent("alice", "1")
	compareSites(t, sites, up, key, test, "h2c")
	sites.wantNothingHeld(t, key)
}

// TestAScoreIsReadOfACompressedAnswer has a client that takes gzip, behind a fixed price, and a score in the answer.
func TestAScoreIsReadOfACompressedAnswer(t *testing.T) {
	for _, always := range []bool{false, true} {
		s := openShop(t, "", `meter {
		payee acme
		price 0.05 per call
		quality json $.score {
			>= 0.9 100%
			else 0%
		}
	}
	reverse_proxy UPSTREAM {
		transport http {
			compression off
		}
	}`, gzipped(always, "application/json", `{"score":0.95}`))
		key := s.agent("alice", "1")
		a := s.do("GET", "/", key, "", "Accept-Encoding", "gzip")
		want(t, "answer", fmt.Sprint(a.status, a.body, a.header["Content-Encoding"]), `200{"score":0.95}[]`)
		s.wantPaid(t, key, "0.05")
	}
}

// TestAnAnswerIsCutToTheMoney checks what a provider is told of how long its answer may get.
func TestAnAnswerIsCutToTheMoney(t *testing.T) {
	up := &chat{}
	s := openShop(t, chatPrices, chatSite, up)
	rich, poor := s.agent("rich", "1"), s.agent("poor", "0.021")
	ask := func(rest string) string {
		return `{"model":"test-1","messages":[{"role":"user","content":"hi"}]` + rest + `}`
	}
	for _, test := range []struct {
		name, key, body, limit string
		least, most            int64 // 0: nothing is said
	}{
		{"enough money, no bound", rich, ask(""), "", 0, 0},
		{"enough money, a bound", rich, ask(`,"max_tokens":16000`), "", 16000, 16000},
		{"a limit that no answer reaches", rich, ask(""), "0.9", 0, 0},
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
