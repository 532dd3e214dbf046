package caddymodule_test

//lint:file-ignore SA1019 net/http's own HTTP/2 client does not send the pseudo header :protocol, which a WebSocket needs

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/internal/rounds"
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
	if fail, ok := failures[m.Name]; ok {
		return fail(w, r)
	}
	misdeed, ok := misdeeds.Load(m.Name)
	if !ok {
		return fmt.Errorf("no misdeed %q", m.Name)
	}
	return misdeed.(func(http.ResponseWriter, *http.Request) error)(w, r)
}

// misdeeds are misbehaving handlers by their names. A test adds its own before it opens its shop.
var misdeeds sync.Map

// failures never send a whole response.
var failures = map[string]func(http.ResponseWriter, *http.Request) error{
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

// TestHandlersThatMisbehave: an answer that does not arrive completely is not taken for complete, and not charged.
func TestHandlersThatMisbehave(t *testing.T) {
	t.Parallel()
	var site strings.Builder
	i := 0
	paths := make(map[string]string)
	for name := range failures {
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

// wantPaid waits until nothing is held any more, and checks how much of the wallet's 1 has been paid.
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

// TestUpstreamHangsUpAtAnyByte lets the upstream hang up at each place of each kind of response. Only a complete response is taken for complete, a
// call is charged if and only if it is complete, and no hold is left.
func TestUpstreamHangsUpAtAnyByte(t *testing.T) {
	t.Parallel()
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
				whole := n == len(response)
				if _, after, ends := strings.Cut(response, "[DONE]\n\n"); ends {
					whole = n >= len(response)-len(after) // with that event the client has all
				}
				if complete != whole {
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

// cuts are places to cut a response of n bytes at: those at its ends and some between, closer together in a short one.
func cuts(n int) (at []int) {
	by := rounds.Of(15, 3)
	first := rand.IntN(by)
	for i := range n + 1 {
		if n < 300 && i%by == first || i < 3 || i > n-12 || i == 150 || i == n/2 || n < 2000 && i%97 == 0 {
			at = append(at, i)
		}
	}
	return at
}

// tirelessUpstream sends until its client has gone, but for paths that end in "short".
type tirelessUpstream struct{ arrived, gone chan struct{} }

func (u *tirelessUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.arrived <- struct{}{}
	defer func() { u.gone <- struct{}{} }()
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
}

// TestClientHangsUpAtAnyByte: a client that hangs up pays at most once, for no more than was sent, and no hold is left.
func TestClientHangsUpAtAnyByte(t *testing.T) {
	t.Parallel()
	up := &tirelessUpstream{arrived: make(chan struct{}, 1), gone: make(chan struct{}, 1)}
	s := openShop(t, "", `handle /live* {
		meter live 0.001 per event
		reverse_proxy UPSTREAM
	}
	handle /search* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}`, up)
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
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: %s\r\n\r\n", test.path, key)
				got, err := io.ReadFull(conn, make([]byte, n))
				if err != nil {
					t.Fatalf("%d bytes of %d: %v", got, n, err)
				}
				<-up.arrived
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
				<-up.gone
				// Between a draw and the next hold nothing is held either. The call is over when its charge agrees with the wallet.
				var charges []map[string]any
				eventually(t, "the call is settled", func() bool {
					s.wantNothingHeld(t, key)
					charges = s.charges(key)
					if len(charges) > 1 {
						t.Fatalf("%d charges", len(charges))
					}
					return s.balance(key) == decimal.NewFromInt(1000).Sub(paidBy(charges)).String()
				})
				if n > 410 && len(charges) == 0 {
					t.Error("what was sent is free")
				}
				if paid := paidBy(charges); len(charges) > 0 && strings.HasPrefix(test.path, "/search") && paid.String() != "0.001" {
					t.Errorf("charged %s for a call", paid)
				}
			})
		}
	}
}

// paidBy returns the sum of charges.
func paidBy(charges []map[string]any) (paid decimal.Decimal) {
	for _, c := range charges {
		paid = paid.Add(decimal.RequireFromString(c["amount"].(string)))
	}
	return paid
}

// ofAllKinds are upstreams whose responses reach the client in all possible ways.
var ofAllKinds = map[string]http.HandlerFunc{
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

// TestAChargeThatFailsIsNeverCompleteAtTheClient breaks the disk while responses of all kinds are on their way.
func TestAChargeThatFailsIsNeverCompleteAtTheClient(t *testing.T) {
	t.Parallel()
	var begun sync.WaitGroup
	broken := make(chan struct{})
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
		ofAllKinds[strings.TrimPrefix(r.URL.Path, "/")](w, r)
	}))
	key := s.agent("alice", "1000")
	s.api("POST", "/escrow", key, map[string]any{"to_agent_id": "acme", "amount": "10"}, 201)

	type seen struct{ name, proto, text string }
	results := make(chan seen)
	asked := 0
	for name := range ofAllKinds {
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
	s.fail(bolt.StepCommit)
	close(broken)
	for range asked {
		r := <-results
		if complete, how := completeAnswer(r.proto, r.name, r.text); complete {
			t.Errorf("%s %s: an answer that could not be charged is complete (%s): %.300q", r.proto, r.name, how, r.text)
		}
	}
	s.fail("")
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

// TestManyHostileClients: clients and upstreams hang up, stall and fail at random, all at the same time. The books must be right afterwards.
func TestManyHostileClients(t *testing.T) {
	t.Parallel()
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
