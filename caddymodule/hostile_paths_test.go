package caddymodule_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shopspring/decimal"
)

// witness is an upstream that records its requests exactly as they came.
type witness struct {
	mu  sync.Mutex
	got []*http.Request
}

func (u *witness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	u.mu.Lock()
	u.got = append(u.got, r)
	u.mu.Unlock()
	_, _ = io.WriteString(w, `{"choices":[{"message":{"content":"served"}}]}`)
}

// take returns the requests since the last call of take.
func (u *witness) take() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	got := u.got
	u.got = nil
	return got
}

// asUpstreamsReadIt returns a request's path as the most lenient upstream reads it: decoded, with dot segments and repeated slashes resolved, and
// in lower case.
func asUpstreamsReadIt(r *http.Request) string {
	target, _, _ := strings.Cut(r.RequestURI, "?")
	if u, err := url.Parse(target); err == nil && u.Scheme != "" { // absolute form
		target = u.EscapedPath()
	}
	if decoded, err := url.PathUnescape(target); err == nil {
		target = decoded
	}
	return strings.ToLower(path.Clean("/" + target))
}

// targets are ways to write a path below /v1, and near misses.
var targets = []string{
	"/v1/models", "/v1/", "/v1//models", "//v1/models", "///v1///models", "/V1/models", "/v1/MODELS",
	"/./v1/models", "/v1/./models", "/x/../v1/models", "/v1/../v1/models", "/v1/x/../models", "/v1/..", "/v1/../search", "/..//v1/models", "/../v1/models", "/../../v1/models",
	"/%76%31/models", "/%76%31%2fmodels", "/v1%2fmodels", "/v1%2Fmodels", "/%2fv1/models", "/%2Fv1%2Fmodels", "/v%31/models",
	"/%2e/v1/models", "/x/%2e%2e/v1/models", "/x/%2e./v1/models", "/x/.%2E/v1/models", "/x%2f..%2fv1/models", "/x%2f%2e%2e%2fv1%2fmodels", "/%2e%2e/v1/models", "/v1/%2e%2e/v1/models",
	"/%2576%2531/models", "/%252fv1/models", "/v1%252fmodels", "/v1%00/models", "/v1/%00", "/%00/../v1/models",
	"/v1;/models", "/v1;x=y/models", "/;/v1/models", "/v1/;/models", "/v1\\models", "/\\v1\\models", "/%5cv1%5cmodels", "/v1%5cmodels",
	"/v1?", "/v1?/../search", "/v1/models?x=/search", "/?/v1/models", "/search?/../v1/models", "/search#/../v1/models", "/#/../v1/models", "/v1/models#x",
	"/v1.", "/v1./models", "/v1%20/models", "/%20v1/models", "/v1%0a/models", "/v1%0d%0aX:%20y/models", "/v1%c0%afmodels", "/%c0%aev1", "/%ef%bc%8fv1/models", "/ｖ1/models",
	"/v1/%e2%80%8b", "/%u0076%u0031/models", "/v1%", "/%", "/v1/%zz", "/v1:443/models", "/v1@x/models", "/v1,/models", "/v1%2e%2e/models", "/~/v1/models", "/.v1/models",
	"v1/models", "*", "http://127.0.0.1:PORT/v1/models", "HTTP://127.0.0.1:PORT/v1/models", "http://127.0.0.1:PORT//v1/models", "http://127.0.0.1:PORT/x/../v1/models",
	"http://127.0.0.1:PORT/%76%31/models", "http://127.0.0.1:PORT", "http://user:pass@127.0.0.1:PORT/v1/models", "http://127.0.0.1:PORT?/v1/models", "http:/v1/models", "http:///v1/models", "file:///v1/models", "//127.0.0.1:PORT/v1/models",
}

// pathSite has a metered route, and the same upstream unmetered beside it.
const pathSite = `handle /v1/* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle {
		reverse_proxy UPSTREAM
	}`

// TestNoPathGetsPastTheMeter sends requests with every spelling of a path, with and without a key. If a request reaches the upstream and any
// upstream could read it as a path below /v1, it was charged. Without a key no such request reaches the upstream.
func TestNoPathGetsPastTheMeter(t *testing.T) {
	t.Parallel()
	up := &witness{}
	p := newProcess(t, "1s", "", pathSite, up)
	p.start()
	key := p.agent("alice", "10")
	metered := func(r *http.Request) bool {
		at := asUpstreamsReadIt(r)
		return strings.HasPrefix(at, "/v1/") || at == "/v1" && strings.HasSuffix(r.URL.Path, "/")
	}
	reached := 0
	try := func(request string) {
		t.Helper()
		for _, auth := range []string{"", "Authorization: Bearer " + key + "\r\n"} {
			before := len(p.charges(key))
			p.speak(strings.ReplaceAll(strings.ReplaceAll(request, "AUTH", auth), "PORT", p.port))
			var below int
			for _, r := range up.take() {
				if metered(r) {
					below++
				}
			}
			if auth == "" && below > 0 {
				t.Errorf("%q reached the upstream without a key", request)
			}
			if charged := len(p.charges(key)) - before; auth != "" && charged < below {
				t.Errorf("%q reached the upstream %d times and was charged %d times", request, below, charged)
			}
			reached += below
		}
	}
	for _, target := range targets {
		for _, method := range []string{"GET", "POST"} {
			try(method + " " + target + " HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	}
	const rest = " /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n"
	for _, method := range []string{"HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PRI", "get", "PROPFIND", "QUERY", "X-Y", "BREW"} {
		try(method + rest + "\r\n")
	}
	for _, lines := range []string{
		"X-HTTP-Method-Override: OPTIONS", "X-Original-URL: /search", "X-Rewrite-URL: /search", "X-Forwarded-Prefix: /search", "X-Forwarded-Host: other", "Forwarded: host=other;proto=https",
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Expect: 100-continue", "Transfer-Encoding: identity", "Range: bytes=0-0", "If-None-Match: *", "Connection: Authorization", "Connection: Host",
		"Tallygate-Request: req_x", "Tallygate-Charge: 0", "Tallygate-Max-Charge: 1000", "Host: other",
	} {
		try("GET" + rest + lines + "\r\n\r\n")
	}
	for _, host := range []string{"127.0.0.1:PORT.", "127.0.0.1.:PORT", "localhost:PORT", "x@127.0.0.1:PORT", "127.0.0.1", "[::1]:PORT", "", "127.0.0.1:PORT/v1", "127.0.0.1:0PORT", "LOCALHOST"} {
		try("GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\nAUTHConnection: close\r\n\r\n")
	}
	for _, request := range []string{
		"GET /v1/models HTTP/1.0\r\nAUTH\r\n", "GET /v1/models\r\nAUTH\r\n", "GET  /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTH\r\n",
		// a second request in what might be the body of the first request, or after it
		"GET /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n\r\n",
		"POST /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n\r\n",
		"POST /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n\r\n",
		"POST /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding : chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n\r\n",
		"GET /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n X: y\r\nContent-Length: 0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAUTHConnection: close\r\n\r\n",
		"GET /search HTTP/1.1\nHost: 127.0.0.1:PORT\n\nGET /v1/models HTTP/1.1\nHost: 127.0.0.1:PORT\nAUTHConnection: close\n\n",
		"GET /search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nX: a\rGET /v1/models HTTP/1.1\r\nAUTH\r\n",
	} {
		try(request)
	}
	if reached < 40 {
		t.Errorf("only %d requests got through: nothing was tested", reached)
	}
	p.wantBooks(key, "10", decimal.New(int64(len(p.charges(key))), -3))
	p.verify()
	p.wantNoPanic()
}

// speak sends bytes to the server, followed by a last request that makes the server close the connection, and reads all answers. A client that
// hung up itself would not be charged.
func (s *shop) speak(request string) string {
	s.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, request+"GET /end HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// TestNoPathGetsPastAMeterOfTheSite: with the meter before all routes, which is safest, no request reaches the upstream without a charge.
func TestNoPathGetsPastAMeterOfTheSite(t *testing.T) {
	t.Parallel()
	up := &witness{}
	p := newProcess(t, "1s", "", "meter acme 0.001 per call\n\t"+strings.Replace(pathSite, "meter acme 0.001 per call", "", 1), up)
	p.start()
	key := p.agent("alice", "10")
	served := 0
	for _, target := range targets {
		target = strings.ReplaceAll(target, "PORT", p.port)
		for _, auth := range []string{"", "Authorization: Bearer " + key + "\r\n"} {
			p.speak("POST " + target + " HTTP/1.1\r\nHost: 127.0.0.1:" + p.port + "\r\n" + auth + "Content-Length: 0\r\nConnection: close\r\n\r\n")
			got := len(up.take())
			if auth == "" && got > 0 {
				t.Errorf("%s reached the upstream without a key", target)
			}
			served += got
		}
	}
	if n := len(p.charges(key)); n != served || served < len(targets)/2 {
		t.Errorf("%d requests were served, %d charged", served, n)
	}
	p.stop(syscall.SIGTERM)
}

// TestPathsOfHTTP2 does the same with HTTP/2, whose pseudo headers may contain anything.
func TestPathsOfHTTP2(t *testing.T) {
	t.Parallel()
	up := &witness{}
	p := newProcess(t, "1s", "", pathSite, up)
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	h2c := strings.Replace(string(text), "auto_https off", "auto_https off\n\tservers {\n\t\tprotocols h1 h2c\n\t}", 1)
	if err := os.WriteFile(p.config, []byte(h2c), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	key := p.agent("alice", "10")
	authority := "127.0.0.1:" + p.port
	ask := func(fields ...string) (below int) {
		p.speakHTTP2(fields)
		for _, r := range up.take() {
			if strings.HasPrefix(asUpstreamsReadIt(r), "/v1/") {
				below++
			}
		}
		return below
	}
	reached := 0
	cases := [][]string{
		{":method", "GET", ":scheme", "http", ":path", "/v1/models", ":authority", authority, "host", "other"},
		{":method", "GET", ":scheme", "http", ":path", "/v1/models", ":authority", "", "host", authority},
		{":method", "GET", ":scheme", "https", ":path", "/v1/models", ":authority", authority},
		{":method", "GET", ":scheme", "http", ":path", "/search", ":path", "/v1/models", ":authority", authority},
		{":method", "GET", ":scheme", "http", ":path", "/search", ":authority", authority, ":path", "/v1/models"},
		{":method", "GET", ":scheme", "http", ":authority", authority},
		{":method", "GET", ":scheme", "http", ":path", "", ":authority", authority},
		{":method", "GET", ":scheme", "http", ":path", "/search HTTP/1.1\r\n\r\nGET /v1/models", ":authority", authority},
		{":method", "GET /v1/models HTTP/1.1\r\nX: ", ":scheme", "http", ":path", "/search", ":authority", authority},
		{":method", "GET", ":scheme", "http", ":path", "/search", ":authority", authority + "/v1/models"},
		{":method", "GET", ":scheme", "http", ":path", "/search", ":authority", authority, "x", "y\r\n\r\nGET /v1/models HTTP/1.1"},
		{":method", "GET", ":scheme", "http", ":path", "/search", ":authority", authority, "content-length", "50"},
		{":method", "CONNECT", ":authority", authority},
		{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/v1/models", ":authority", authority},
		{":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", authority},
	}
	for _, target := range targets {
		cases = append(cases, []string{":method", "GET", ":scheme", "http", ":path", strings.ReplaceAll(target, "PORT", p.port), ":authority", authority})
	}
	for _, fields := range cases {
		if n := ask(fields...); n > 0 {
			t.Errorf("%q reached the upstream without a key", fields)
		}
		before := len(p.charges(key))
		n := ask(append(fields, "authorization", "Bearer "+key)...)
		if charged := len(p.charges(key)) - before; charged < n {
			t.Errorf("%q reached the upstream %d times and was charged %d times", fields, n, charged)
		}
		reached += n
	}
	if reached < 20 {
		t.Errorf("only %d requests got through: nothing was tested", reached)
	}
	p.wantNoPanic()
}

// speakHTTP2 sends one request with these header fields and waits for the end of the stream, or of the connection.
func (s *shop) speakHTTP2(fields []string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		return append(binary.BigEndian.AppendUint32(head, stream), payload...)
	}
	const settings, headers, reset, goAway, ack, endStream, endHeaders = 4, 1, 3, 7, 1, 1, 4
	var block []byte // HPACK literals, neither indexed nor compressed
	for i := 0; i+1 < len(fields); i += 2 {
		block = append(block, 0)
		for _, text := range fields[i : i+2] {
			block = append(appendHPACK(block, len(text)), text...)
		}
	}
	_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	_, _ = conn.Write(frame(settings, 0, 0, nil))
	_, _ = conn.Write(frame(headers, endStream|endHeaders, 1, block))
	in := bufio.NewReader(conn)
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		if _, err := io.CopyN(io.Discard, in, int64(size)); err != nil {
			return
		}
		switch {
		case kind == settings && flags&ack == 0:
			_, _ = conn.Write(frame(settings, ack, 0, nil))
		case kind == goAway, kind == reset && stream == 1:
			return
		case (kind == headers || kind == 0) && stream == 1 && flags&endStream != 0:
			return
		}
	}
}

// appendHPACK appends a length as HPACK writes it, with a prefix of seven bits.
func appendHPACK(dst []byte, n int) []byte {
	if n < 127 {
		return append(dst, byte(n))
	}
	dst = append(dst, 127)
	for n -= 127; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|128)
	}
	return append(dst, byte(n))
}

// TestFreeLooksFree: on a route with a tariff, where some calls are free, no call is free because of a path or method that the provider may read
// differently from the meter.
func TestFreeLooksFree(t *testing.T) {
	t.Parallel()
	up := &witness{}
	p := newProcess(t, "1s", chatPrices, strings.Replace(chatSite, "tariff chat", "tariff chat\n\t\t\tshared x r", 1), up)
	p.start()
	key := p.agent("alice", "1")
	for _, test := range []struct {
		method, path string
		headers      string
		body         string
		served       bool
	}{
		{"GET", "/v1/models", "", "", true},
		{"HEAD", "/v1/models", "", "", true},
		{"OPTIONS", "/v1/models", "", "", true},
		{"DELETE", "/v1/files/x", "", "", true},
		{"POST", "/v1/responses/r/cancel", "", "{}", true},
		{"POST", "/v1/responses/r/cancel/", "", "{}", true},

		{"GET", "/v1/chat/completions", "", chatBody, false},
		{"HEAD", "/v1/chat/completions", "", chatBody, false},
		{"OPTIONS", "/v1/chat/completions", "", chatBody, false},
		{"PUT", "/v1/chat/completions", "", chatBody, false},
		{"PATCH", "/v1/chat/completions", "", "", false},
		{"post", "/v1/chat/completions", "", chatBody, false},
		{"POST", "/v1/chat/completions%3F/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions%23/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions%00/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions;/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions;x=/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions%253F/responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions%5c..%5cresponses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions/../../responses/x/cancel", "", chatBody, false},
		{"POST", "/v1/chat/completions/..%2f..%2fresponses/x/cancel", "", chatBody, false},
		{"POST", "/v1/responses/x/cancel/../../../chat/completions", "", chatBody, false},
		{"GET", "/v1/chat/completions%0a", "", "", false},
	} {
		length := fmt.Sprintf("Content-Length: %d\r\n", len(test.body))
		target := test.method + " " + test.path + " HTTP/1.1\r\nHost: 127.0.0.1:" + p.port + "\r\nConnection: close\r\nContent-Type: application/json\r\n"
		p.speak(target + length + test.headers + "\r\n" + test.body)
		if len(up.take()) > 0 {
			t.Errorf("%s %s reached the upstream without a key", test.method, test.path)
		}
		p.speak(target + length + test.headers + "Authorization: Bearer " + key + "\r\n\r\n" + test.body)
		if served := len(up.take()) > 0; served != test.served {
			t.Errorf("%s %s %s: served %v for nothing, want %v", test.method, test.path, test.headers, served, test.served)
		}
	}
	// A method or a path that is hidden in a header never reaches the provider.
	for _, name := range []string{
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-method-override", "X-Original-URL", "x_original_url", "X-Rewrite-URL", "X-Override-URL",
	} {
		p.speak("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:" + p.port + "\r\nConnection: close\r\nAuthorization: Bearer " + key + "\r\n" + name + ": POST\r\n\r\n")
		for _, r := range up.take() {
			if len(r.Header[http.CanonicalHeaderKey(name)]) > 0 {
				t.Errorf("%s reached the upstream", name)
			}
		}
	}
	if n := len(p.charges(key)); n != 0 {
		t.Errorf("%d charges", n)
	}
	p.wantNoPanic()
}
