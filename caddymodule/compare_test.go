package caddymodule_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

// comparison is a request, or a few on one connection, that Caddy must answer in the same way with and without a meter.
type comparison struct {
	name string

	// route are the Caddyfile's lines behind the meter. Default: reverse_proxy UPSTREAM. UPSTREAM is an HTTP/1.1 server, UPSTREAM2 the
	// same server with h2c, REFUSING a port at which nobody listens, DYING a server that hangs up on every request, FILES a folder.
	route    string
	upstream http.HandlerFunc // default: answers "hello"

	// The request. Default: GET of the case's own path.
	method string
	path   string // appended to the case's own
	header http.Header
	body   func() io.Reader
	// client, if set, makes the request itself and returns what it saw.
	client func(t *testing.T, c *caller) string

	charged  int  // how many calls are charged
	decodes  bool // the content coding may differ: a meter that counts bytes asks for one that it can read
	chunks   bool // a Content-Length may be replaced by chunks, as documented for event streams
	onlyCall bool // the route can only be charged by the call
}

// meterings are the ways in which a route is metered here, by the site's name.
//
// In shadow mode (exact) nothing at all may differ, except for headers of our own, however much of the request the price depends on.
var meterings = []struct {
	name, inside, outside string
	exact                 bool
}{
	{name: "bare"},
	{name: "call", inside: "meter acme 0.001 per call"},
	{name: "site", outside: "meter acme-site 0.001 per call"},
	{name: "byte", inside: "meter acme-byte {\n\t\t\tprice 0.001 per call\n\t\t\tprice 0.001 per MB\n\t\t}"},
	{name: "event", inside: "meter acme-event {\n\t\t\tprice 0.001 per call\n\t\t\tprice 0.000001 per event\n\t\t}"},
	{name: "bare-again", exact: true},
	{name: "shadow", inside: "meter acme-shadow {\n\t\t\tprice 0.001 per call\n\t\t\tprice 0.001 per MB\n\t\t\tprice 0.000001 per event\n\t\t\tenforce off\n\t\t}", exact: true},
	{name: "shadow-tariff", outside: "meter acme-shadow {\n\t\ttariff {\n\t\t\tmodel * {\n\t\t\t\tinput 1 per 1M tokens\n\t\t\t\toutput 1 per 1M tokens\n\t\t\t}\n\t\t}\n\t\tenforce off\n\t}", exact: true},
}

// caller sends requests to one of the sites, with one protocol.
type caller struct {
	case_  comparison
	site   string
	addr   string // of the site
	path   string // of the case
	key    string
	client *http.Client
	exact  bool   // nothing may differ
	wire   string // "HTTP/1.1" or "h2c"
}

func TestAnswersAreCaddysOwn(t *testing.T) {
	t.Parallel()
	up := newRecorded()
	sites := openCompared(t, up, comparisons())
	for _, test := range comparisons() {
		t.Run(test.name, func(t *testing.T) {
			sites.t = t
			key := sites.agent("agent-"+caseFolder(test), "10")
			wires := []string{"HTTP/1.1", "h2c"}
			if !rounds.Full() { // one of them, another time the other
				wires = wires[rand.IntN(2):][:1]
			}
			for _, wire := range wires {
				compareSites(t, sites, up, key, test, wire)
			}
			sites.wantNothingHeld(t, key)
		})
	}
}

// compareSites sends the same requests to each site, and compares what client and upstream saw, and what was charged.
func compareSites(t *testing.T, sites *compared, up *recorded, key string, test comparison, wire string) {
	t.Helper()
	client, closeAll := newClient(wire)
	defer closeAll()
	var bareSaw, bareGot string
	for _, m := range meterings {
		bare := strings.HasPrefix(m.name, "bare")
		if test.onlyCall && !m.exact && m.name != "bare" && m.name != "call" && m.name != "site" {
			continue
		}
		c := &caller{case_: test, site: m.name, addr: sites.addr[m.name], path: "/" + caseFolder(test), key: key, client: client, wire: wire, exact: m.exact}
		before := sites.paid(key)
		ask := askOnce
		if test.client != nil {
			ask = test.client
		}
		saw := ask(t, c)
		got := up.seen(c.addr, m.exact)
		if bare {
			bareSaw, bareGot = saw, got
			continue
		}
		if saw != bareSaw {
			t.Errorf("%s, %s: the client sees\n%s\nand of bare Caddy\n%s", wire, m.name, saw, bareSaw)
		}
		if got != bareGot {
			t.Errorf("%s, %s: the upstream sees\n%s\nand of bare Caddy\n%s", wire, m.name, got, bareGot)
		}
		if m.exact {
			continue // some calls are not recorded
		}
		eventually(t, "the charges are in the books", func() bool { return sites.paid(key) >= before+test.charged })
		if n := sites.paid(key) - before; n != test.charged {
			t.Errorf("%s, %s: %d charges, want %d", wire, m.name, n, test.charged)
		}
	}
}

// paid returns how many calls were charged. Those of shadow mode, whose records may come later, are not.
func (c *compared) paid(key string) (n int) {
	for _, charge := range c.charges(key) {
		if charge["status"] != "shadow" {
			n++
		}
	}
	return n
}

func caseFolder(test comparison) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(test.name))
}

// compared is a Caddy with one site for each metering, all with the same routes.
type compared struct {
	*shop
	addr map[string]string // by the metering's name
}

func openCompared(t *testing.T, up *recorded, tests []comparison) *compared {
	t.Helper()
	files := t.TempDir()
	backend := httptest.NewServer(up)
	t.Cleanup(backend.Close)
	backend2 := httptest.NewUnstartedServer(up)
	backend2.Config.Protocols = new(http.Protocols)
	backend2.Config.Protocols.SetUnencryptedHTTP2(true)
	backend2.Start()
	t.Cleanup(backend2.Close)

	names := strings.NewReplacer("UPSTREAM2", "h2c://"+backend2.Listener.Addr().String(), "UPSTREAM", backend.Listener.Addr().String(),
		"FILES", files)
	c := &compared{addr: make(map[string]string)}
	var b strings.Builder
	fmt.Fprintf(&b, "{\n\tadmin off\n\tauto_https off\n\tgrace_period 10s\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n\tlog {\n\t\toutput discard\n\t}\n")
	fmt.Fprintf(&b, "\ttallygate {\n\t\tledger bolt %s\n\t\toperator_key %s\n\t\tregistration open\n\t}\n}\n", filepath.Join(t.TempDir(), "ledger.db"), operatorKey)
	for _, m := range meterings {
		c.addr[m.name] = commandtest.FreeAddress(t)
		directive := "tallygate" // answers what nothing else does, and so is not for bare Caddy
		if strings.HasPrefix(m.name, "bare") {
			directive = ""
		}
		fmt.Fprintf(&b, "http://%s {\n\t%s\n\t%s\n", c.addr[m.name], directive, m.outside)
		for _, test := range tests {
			route := test.route
			if route == "" {
				route = "reverse_proxy UPSTREAM"
			}
			writeFiles(t, filepath.Join(files, caseFolder(test)))
			fmt.Fprintf(&b, "\thandle /%s* {\n\t\t%s\n\t\t%s\n\t}\n", caseFolder(test), m.inside, names.Replace(broken(t, route)))
			up.serve(caseFolder(test), test.upstream)
		}
		fmt.Fprintf(&b, "\thandle_errors {\n\t\trespond \"sorry, {err.status_code}\"\n\t}\n}\n")
	}
	config, err := adapt(b.String())
	if err != nil {
		t.Fatal(err)
	}
	stop, err := startConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stopping caddy: %v", err)
		}
	})
	c.shop = &shop{t: t, url: "http://" + c.addr["call"]}
	return c
}

// broken fills in upstreams that fail. Caddy remembers failed upstreams by their addresses, so each site has its own.
func broken(t *testing.T, route string) string {
	for strings.Contains(route, "REFUSING") {
		route = strings.Replace(route, "REFUSING", refusing(t), 1)
	}
	for strings.Contains(route, "DYING") {
		dying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}))
		t.Cleanup(dying.Close)
		route = strings.Replace(route, "DYING", dying.Listener.Addr().String(), 1)
	}
	return route
}

// refusing returns an address at which nobody can listen, since the client's end of a connection has it. A port that is merely free may be
// given to a site, which would answer.
func refusing(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

func writeFiles(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"big.txt": strings.Repeat("0123456789", 10_000), "small.txt": "small\n", "page.html": "{{.Req.Method}} {{1}} is one\n",
	} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// wantNothingHeld waits until all calls of an agent have ended, and fails if one has left a hold behind. A call that is charged by an escrow
// holds money in the escrow, not in the wallet.
func (s *shop) wantNothingHeld(t *testing.T, key string) {
	t.Helper()
	eventually(t, "all holds have gone back", func() bool {
		holders := append(s.api("GET", "/escrow?role=payer&limit=500", key, nil, 200)["escrows"].([]any), s.api("GET", "/wallet", key, nil, 200))
		return !slices.ContainsFunc(holders, func(holder any) bool { return holder.(map[string]any)["held"] != "0" })
	})
}

// recorded is an upstream that records its requests.
type recorded struct {
	mu     sync.Mutex
	cases  map[string]http.HandlerFunc
	asked  []string
	exact  []string // what else a meter may change, except in shadow mode
	active sync.WaitGroup
}

func newRecorded() *recorded { return &recorded{cases: make(map[string]http.HandlerFunc)} }

func (u *recorded) serve(folder string, h http.HandlerFunc) {
	if h == nil {
		h = text("hello\n")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cases[folder] = h
}

func (u *recorded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.active.Add(1)
	defer u.active.Done()
	sum := sha256.New()
	r.Body = &hashed{r.Body, sum}
	folder, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	u.mu.Lock()
	h := u.cases[folder]
	u.mu.Unlock()
	defer func() {
		_, _ = io.Copy(io.Discard, r.Body) // the trailers come after the body
		u.mu.Lock()
		defer u.mu.Unlock()
		u.asked = append(u.asked, fmt.Sprintf("%s %s %s length=%d body=%x\n%strailers:\n%s", r.Method, r.RequestURI, r.Proto,
			r.ContentLength, sum.Sum(nil)[:8], headerText(r.Header, "Accept-Encoding", "Sec-Websocket-Key"), headerText(r.Trailer)))
		u.exact = append(u.exact, fmt.Sprintf("%v %q", r.TransferEncoding, r.Header.Values("Accept-Encoding")))
	}()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

// seen returns the requests since the last call of seen, without the site's address.
func (u *recorded) seen(addr string, exact bool) string {
	u.active.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	all := strings.ReplaceAll(strings.Join(u.asked, "\n"), addr, "SITE")
	if exact {
		all += strings.Join(u.exact, "\n")
	}
	u.asked, u.exact = nil, nil
	return all
}

type hashed struct {
	io.ReadCloser
	sum io.Writer
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	_, _ = h.sum.Write(p[:n])
	return n, err
}

// newClient speaks HTTP/1.1 or h2c, does not change answers, and has a deadline so that a deadlock fails the test.
func newClient(wire string) (client *http.Client, closeAll func()) {
	transport := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), MaxResponseHeaderBytes: 4 << 20}
	transport.Protocols.SetHTTP1(wire == "HTTP/1.1")
	transport.Protocols.SetUnencryptedHTTP2(wire == "h2c")
	return &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, transport.CloseIdleConnections
}

// request makes the case's request, with the key that metered sites want.
func (c *caller) request(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.addr+c.path+c.case_.path, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.case_.header {
		r.Header[name] = slices.Clone(values)
	}
	r.Header.Set("User-Agent", "comparison")
	if !c.bare() {
		r.Header.Set("Tallygate-Key", c.key)
	}
	return r
}

// askOnce makes the case's request and returns everything that a client can see of the answer.
func askOnce(t *testing.T, c *caller) string {
	t.Helper()
	method := c.case_.method
	if method == "" {
		method = "GET"
	}
	var body io.Reader
	if c.case_.body != nil {
		body = c.case_.body()
	}
	r := c.request(t, method, body)
	if trailer, ok := body.(*withTrailer); ok {
		r.Trailer = trailer.trailer
	}
	var early strings.Builder
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code != http.StatusContinue { // it comes once or twice: when Caddy itself reads the body, and from the upstream
				fmt.Fprintf(&early, "%d\n%s%s", code, headerText(http.Header(h)), c.forged(http.Header(h)))
			}
			return nil
		},
	}))
	response, err := c.client.Do(r)
	if err != nil {
		return early.String() + "failed: " + strings.ReplaceAll(err.Error(), c.addr, "SITE")
	}
	return early.String() + c.answerText(response)
}

// answerText returns everything that a client can see of an answer, except for documented changes by the meter.
func (c *caller) answerText(response *http.Response) string {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	h := response.Header
	skip := []string{"Date"}
	if c.exact {
		if c.case_.decodes && h.Get("Content-Encoding") == "gzip" { // where its encoder flushes depends on when the pieces come
			if z, zerr := gzip.NewReader(bytes.NewReader(body)); zerr == nil {
				body, _ = io.ReadAll(z)
			}
		}
		return c.exactText(response, body, err)
	}
	if c.case_.chunks {
		skip = append(skip, "Content-Length")
	}
	if h.Get("Content-Length") == fmt.Sprint(len(body)) && response.Request != nil && response.Request.Method != http.MethodHead {
		skip = append(skip, "Content-Length") // whether it is stated may differ; the body is compared itself
	}
	if c.case_.decodes {
		skip = append(skip, "Content-Encoding", "Content-Length")
		if h.Get("Content-Encoding") == "gzip" {
			z, zerr := gzip.NewReader(bytes.NewReader(body))
			if zerr == nil {
				body, zerr = io.ReadAll(z)
			}
			if zerr != nil {
				err = zerr
			}
		}
	}
	if strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		body = withoutComment(body)
	}
	content := string(body)
	if len(content) > 300 {
		content = fmt.Sprintf("%d bytes, sha256 %x", len(body), sha256.Sum256(body))
	}
	failed := ""
	if err != nil {
		failed = "cut: " + err.Error() + "\n"
	}
	return fmt.Sprintf("%s %s\n%s%s\n%q\n%strailers:\n%s%s", response.Proto, response.Status, headerText(h, skip...), c.forged(h),
		content, failed, headerText(response.Trailer), c.forged(response.Trailer))
}

// exactText returns everything that a client can see of an answer, but for the date and our own headers.
func (c *caller) exactText(response *http.Response, body []byte, err error) string {
	h := response.Header.Clone()
	h.Del("Date")
	h.Del("Tallygate-Request")
	h.Del("Tallygate-Charge")
	length, coding := response.ContentLength, response.TransferEncoding
	if len(body) == 0 && response.Request != nil && response.Request.Method != http.MethodHead { // Caddy's proxy flushes in the background: before an empty answer ends, or not
		h.Del("Content-Length")
		length, coding = -1, nil
	}
	return fmt.Sprintf("%s %s %d %v\n%v %s\n%v %v", response.Proto, response.Status, length, coding,
		slices.Sorted(maps.Keys(h)), headerText(h), fmt.Sprintf("%d bytes, sha256 %x %.300q", len(body), sha256.Sum256(body), body), err) + headerText(response.Trailer)
}

func (c *caller) bare() bool { return strings.HasPrefix(c.site, "bare") }

// forged returns what an upstream has sent in Tallygate's name, and a meter has passed on.
func (c *caller) forged(h http.Header) string {
	for name, values := range h {
		if !c.bare() && strings.HasPrefix(name, "Tallygate-") && slices.Contains(values, "forged") {
			return "\tforged " + name + "\n"
		}
	}
	return ""
}

// withoutComment removes the block that states the charge of an event stream.
func withoutComment(body []byte) []byte {
	begin := bytes.Index(body, []byte(": tallygate "))
	if begin < 0 {
		return body
	}
	_, rest, _ := bytes.Cut(body[begin:], []byte("\n\n"))
	return slices.Concat(body[:begin], rest)
}

// headerText writes a header in the order of its names, without the names to skip and those that the meter sets, such as Cache-Control.
func headerText(h http.Header, skip ...string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(name, "Tallygate-") || name == "Cache-Control" || slices.Contains(skip, name) {
			continue
		}
		fmt.Fprintf(&b, "\t%s: %.200q\n", name, h[name])
	}
	return b.String()
}

// raw writes requests on a connection of its own and reads the answers to them. SITE, PATH and KEY in them are filled in.
func raw(methods []string, requests string) func(*testing.T, *caller) string {
	return func(t *testing.T, c *caller) string {
		t.Helper()
		conn := c.dial(t)
		defer conn.Close()
		key := ""
		if !c.bare() {
			key = "Tallygate-Key: " + c.key + "\r\n"
		}
		requests := strings.NewReplacer("\n", "\r\n", "SITE", c.addr, "PATH", c.path, "KEY\n", key).Replace(requests)
		if _, err := io.WriteString(conn, requests); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		var out strings.Builder
		for _, method := range methods {
			response, err := http.ReadResponse(r, &http.Request{Method: method})
			for err == nil && response.StatusCode == http.StatusContinue {
				response, err = http.ReadResponse(r, &http.Request{Method: method})
			}
			if err != nil {
				fmt.Fprintf(&out, "failed: %v\n", err)
				break
			}
			fmt.Fprintf(&out, "close=%v\n%s", response.Close, c.answerText(response))
		}
		rest, err := io.ReadAll(r)
		fmt.Fprintf(&out, "then %q %v", rest, err)
		return out.String()
	}
}

func (c *caller) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// withTrailer is a request body with a trailer that is known at its end.
type withTrailer struct {
	io.Reader
	trailer http.Header
	late    http.Header
}

func (b *withTrailer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		maps.Copy(b.trailer, b.late)
	}
	return n, err
}

// turns is an upstream that sends a piece only when the client has the piece before it, together with that client. They come to an end only if
// each piece is passed on at once.
func turns(route, contentType string, pieces ...string) comparison {
	next := make(chan struct{})
	return comparison{
		route: route,
		upstream: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			for _, piece := range pieces {
				_, _ = io.WriteString(w, piece)
				w.(http.Flusher).Flush()
				select {
				case <-next:
				case <-r.Context().Done():
					return
				}
			}
		},
		client: func(t *testing.T, c *caller) string {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			response, err := c.client.Do(c.request(t, "GET", nil).WithContext(ctx))
			if err != nil {
				return "failed: " + err.Error()
			}
			defer response.Body.Close()
			var got []byte
			for _, piece := range pieces {
				for !strings.HasSuffix(string(withoutComment(got)), piece) {
					buf := make([]byte, 100)
					n, err := response.Body.Read(buf)
					if got = append(got, buf[:n]...); err != nil && (err != io.EOF || n == 0) {
						return fmt.Sprintf("waiting for %q: %v after %q", piece, err, got)
					}
				}
				select {
				case next <- struct{}{}:
				case <-ctx.Done():
					return "the upstream has gone"
				}
			}
			rest, err := io.ReadAll(response.Body)
			return fmt.Sprintf("%s\n%q then %v", response.Status, withoutComment(append(got, rest...)), err)
		},
		charged: 1,
	}
}

// conversation sends a piece whenever the piece before it has come back. HTTP/1.1 can't do that.
func conversation(pieces ...string) func(*testing.T, *caller) string {
	return func(t *testing.T, c *caller) string {
		if c.wire != "h2c" {
			return askOnce(t, c)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		pr, pw := io.Pipe()
		defer context.AfterFunc(ctx, func() { pw.Close() })()
		go func() { _, _ = io.WriteString(pw, pieces[0]) }()
		response, err := c.client.Do(c.request(t, "POST", pr).WithContext(ctx))
		if err != nil {
			return "failed: " + err.Error()
		}
		defer response.Body.Close()
		var got strings.Builder
		for i, piece := range pieces {
			if i > 0 {
				if _, err := io.WriteString(pw, piece); err != nil {
					return fmt.Sprintf("sending piece %d: %v", i, err)
				}
			}
			buf := make([]byte, len(piece))
			if _, err := io.ReadFull(response.Body, buf); err != nil {
				return fmt.Sprintf("piece %d: %v after %q", i, err, got.String())
			}
			got.Write(buf)
		}
		pw.Close()
		rest, err := io.ReadAll(response.Body)
		return fmt.Sprintf("%s\n%q then %q %v", response.Status, got.String(), rest, err)
	}
}

// echo sends back what it reads, piece by piece.
func echo(contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 4096)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	}
}

// webSocket upgrades and echoes a message, then ends the connection from the client's side.
func webSocket(t *testing.T, c *caller) string {
	t.Helper()
	conn := c.dial(t)
	defer conn.Close()
	key := ""
	if !c.bare() {
		key = "Tallygate-Key: " + c.key + "\r\n"
	}
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", c.path, c.addr, key)
	r := bufio.NewReader(conn)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return "failed: " + err.Error()
	}
	out := fmt.Sprintf("%s\n%s", response.Status, headerText(response.Header, "Date"))
	for _, message := range []string{"\x81\x05hello", "\x81\x05there"} {
		_, _ = io.WriteString(conn, message)
		buf := make([]byte, len(message))
		_, err := io.ReadFull(r, buf)
		out += fmt.Sprintf("%q %v\n", buf, err)
	}
	return out
}

func upgradeAndEcho(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	buf := make([]byte, 7)
	for {
		if _, err := io.ReadFull(buffered, buf); err != nil {
			return
		}
		_, _ = conn.Write(buf)
	}
}
