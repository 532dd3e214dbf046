package caddymodule_test

//lint:file-ignore SA1019 net/http's own HTTP/2 client does not send the pseudo header :protocol, which a WebSocket needs

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestNestedMetersAndErrors: an outer meter, which does not charge, does not disturb the answers either.
func TestNestedMetersAndErrors(t *testing.T) {
	t.Parallel()
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

// TestConnectionAfterAnAbort: a connection on which an answer was cut serves the next request, or is closed.
func TestConnectionAfterAnAbort(t *testing.T) {
	t.Parallel()
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

// TestNoTunnelGoesByUnpriced: no upgrade opens a way past the meter.
func TestNoTunnelGoesByUnpriced(t *testing.T) {
	t.Parallel()
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

// TestKeysAreTakenFromWhereverTheyStand: neither a key nor a Tallygate header reaches the provider in an unusual place.
func TestKeysAreTakenFromWhereverTheyStand(t *testing.T) {
	t.Parallel()
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

// TestUpstreamCompressesUnasked: an answer that the meter can't read is neither free nor garbled.
func TestUpstreamCompressesUnasked(t *testing.T) {
	t.Parallel()
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

// TestUploadIsNotBuffered sends the second half of a body when the first half has arrived at the upstream.
func TestUploadIsNotBuffered(t *testing.T) {
	t.Parallel()
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
	<-half // the first half must not be held back
	_, _ = io.WriteString(upload, "second")
	upload.Close()
	want(t, "answer", (<-ended).body, "second <nil>")
	s.wantPaid(t, key, "0.001")
}

// TestWebSocketOverHTTP2 opens a WebSocket by CONNECT (RFC 8441). Go serves that only if the environment of the process asks for it, so the test
// runs in a process of its own.
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
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
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, out := io.Pipe()
		defer context.AfterFunc(ctx, func() { out.Close() })()
		r := c.request(t, http.MethodConnect, in).WithContext(ctx)
		r.Header[":protocol"] = []string{"websocket"}
		r.Header.Set("Sec-WebSocket-Version", "13")
		// The client of net/http does not accept the name of the pseudo header.
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

// TestAScoreIsReadOfACompressedAnswer: the score in a compressed answer is read, on a route with a fixed price.
func TestAScoreIsReadOfACompressedAnswer(t *testing.T) {
	t.Parallel()
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
