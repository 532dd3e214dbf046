package caddymodule_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/tallygate/tallygate/internal/commandtest"
)

// shop3 is a shop that also serves HTTP/3, with Caddy's defaults.
type shop3 struct {
	*shop
	addr   string
	tls    *tls.Config // of clients
	access string      // its access log
	tickets
}

func openShop3(t *testing.T, options, site string, upstream http.Handler) *shop3 {
	t.Helper()
	dir := t.TempDir()
	s := &shop3{addr: commandtest.FreeAddress(t), access: filepath.Join(dir, "access.log")}
	s.tickets = tickets{tls.NewLRUClientSessionCache(1), make(chan struct{}), new(sync.Once)}
	cert, key, roots := certificate(t, dir)
	s.tls = &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}, ClientSessionCache: s.tickets}
	// Caddy reads its TLS app for the log of each handshake while the app starts: this is a data race in Caddy.
	s.shop = &shop{t: t, level: "INFO"}
	s.open(options, fmt.Sprintf("%s\n}\nhttps://%s {\n\ttls %s %s\n\tlog {\n\t\toutput file %s\n\t}\n\ttallygate\n\t%s", site, s.addr, cert, key, s.access, site), upstream)
	return s
}

// certificate writes the certificate of httptest, which is valid for 127.0.0.1.
func certificate(t *testing.T, dir string) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return cert, key, roots
}

// tickets tells when the server has sent a session ticket. With a ticket a client can send early data in its next connection.
type tickets struct {
	tls.ClientSessionCache
	given chan struct{} // closed when there is one
	first *sync.Once
}

func (c tickets) Put(server string, session *tls.ClientSessionState) {
	c.ClientSessionCache.Put(server, session)
	if session != nil {
		c.first.Do(func() { close(c.given) })
	}
}

// client3 is one HTTP/3 connection.
type client3 struct {
	*http3.ClientConn
	t    *testing.T
	quic *quic.Conn
	hear chan struct{} // closed when it begins to receive what the server sends
	next quic.StreamID // of a stream opened next, if nobody else opens one
}

// deaf receives nothing until it is told to, so that its handshake can't be completed.
type deaf struct {
	net.PacketConn
	hear chan struct{}
}

func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	<-d.hear
	return d.PacketConn.ReadFrom(p)
}

// dial3 connects, deaf at first.
func (s *shop3) dial3(t *testing.T) *client3 {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := net.ResolveUDPAddr("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	hear := make(chan struct{})
	transport := &quic.Transport{Conn: deaf{udp, hear}}
	select {
	case <-s.given:
	default: // without a ticket there is no early data, and dialling waits for the server
		close(hear)
	}
	conn, err := transport.DialEarly(t.Context(), addr, s.tls, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := &client3{new(http3.Transport).NewClientConn(conn), t, conn, hear, 2}
	t.Cleanup(func() {
		c.listen()
		_ = conn.CloseWithError(0, "")
		_ = transport.Close()
		_ = udp.Close()
	})
	return c
}

func (c *client3) listen() {
	select {
	case <-c.hear:
	default:
		close(c.hear)
	}
}

func (c *client3) read(response *http.Response, err error) answer {
	c.t.Helper()
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: string(body), err: err}
}

func (s *shop3) request3(method, path, key, body string) *http.Request {
	r := s.request(method, path, key, body)
	r.URL.Scheme, r.URL.Host, r.Host = "https", s.addr, s.addr
	if body == "" {
		r.Body = nil
	}
	return r
}

// ask sends a request when the handshake is complete.
func (c *client3) ask(r *http.Request) answer {
	c.t.Helper()
	return c.read(c.RoundTrip(r))
}

// early sends a request as early data. The client receives nothing from the server until the access log shows that the request was answered with
// the status.
func (s *shop3) early(t *testing.T, r *http.Request, status int) (*client3, answer) {
	t.Helper()
	before := s.logged(status)
	c := s.dial3(t)
	stream, err := c.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendRequestHeader(r); err != nil {
		t.Fatal(err)
	}
	_ = stream.Close()
	eventually(t, "the early request is answered", func() bool { return s.logged(status) > before })
	eventually(t, "the control stream is open", c.controls)
	c.listen()
	a := c.read(stream.ReadResponse())
	if !c.quic.ConnectionState().Used0RTT {
		t.Fatal("that was no early data")
	}
	return c, a
}

// controls reports whether the connection has opened its control stream, which it does in a goroutine. quic-go does not expect to hear the
// server's parameters meanwhile: the first stream opened here would have the number that is the control stream's, 2.
func (c *client3) controls() bool {
	stream, err := c.quic.OpenUniStream()
	if err != nil {
		c.t.Fatal(err)
	}
	gap := stream.StreamID() != c.next
	c.next = stream.StreamID() + 4
	return gap
}

// logged returns how many answers with a status are in the access log.
func (s *shop3) logged(status int) int {
	raw, _ := os.ReadFile(s.access)
	return strings.Count(string(raw), fmt.Sprintf(`"status":%d,`, status))
}

func TestEarlyDataIsRefused(t *testing.T) {
	var served atomic.Int32
	s := openShop3(t, "", perCallSite+"\n\thandle /free {\n\t\treverse_proxy UPSTREAM\n\t}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		_, _ = io.WriteString(w, "early data: "+r.Header.Get("Early-Data"))
	}))
	key := s.agent("alice", "1")
	a := s.dial3(t).ask(s.request3("GET", "/search", key, ""))
	want(t, "charge over HTTP/3", a.header.Get("Tallygate-Charge"), "0.001")
	<-s.given

	// Caddy accepts early data: requests that are not metered are served at once, and marked for the upstream.
	_, a = s.early(t, s.request3("GET", "/free", "", ""), 200)
	want(t, "free", a.body, "early data: 1")

	c, a := s.early(t, s.request3("GET", "/search", key, ""), 425)
	wantProblem(t, a, 425, "too_early")
	if served.Load() != 2 {
		t.Errorf("the provider has served %d requests, want 2", served.Load())
	}
	want(t, "charges", fmt.Sprint(len(s.charges(key))), "1")
	a = c.ask(s.request3("GET", "/search", key, "")) // on the same connection, which is no longer early
	want(t, "charge after the handshake", a.header.Get("Tallygate-Charge"), "0.001")
	want(t, "wallet", s.balance(key), "0.998")

	// Requests that move money through the API.
	_, a = s.early(t, s.request3("POST", "/api/v1/faucet", key, ""), 425)
	wantProblem(t, a, 425, "too_early")
	want(t, "wallet", s.balance(key), "0.998")
	_, a = s.early(t, s.request3("GET", "/api/v1/wallet", key, ""), 200)
	want(t, "looking at it", fmt.Sprint(a.status), "200")

	// The header by which a proxy in front of Caddy marks such a request, with any value.
	for _, value := range []string{"1", "0", ""} {
		wantProblem(t, s.do("GET", "/search", key, "", "Early-Data", value), 425, "too_early")
		wantProblem(t, s.do("POST", "/api/v1/faucet", key, "", "Early-Data", value), 425, "too_early")
	}
	want(t, "wallet", s.balance(key), "0.998")
}

func TestHTTP3IsMetered(t *testing.T) {
	up, cut := &chat{}, &chat{truncate: true}
	s := openShop3(t, chatPrices, perCallSite+"\n\t"+chatSite+"\n\thandle /bytes {\n\t\tmeter acme 0.001 per byte\n\t\treverse_proxy UPSTREAM\n\t}",
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/bytes":
				w.(http.Flusher).Flush() // so its length is not known
				_, _ = io.WriteString(w, "ten bytes!")
			case r.URL.Path == "/search" && r.URL.RawQuery == "":
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: 1\n\ndata: [DONE]\n\n")
			case r.URL.Path == "/search":
				w.WriteHeader(404)
			case r.URL.RawQuery == "cut":
				cut.ServeHTTP(w, r)
			default:
				up.ServeHTTP(w, r)
			}
		}))
	key := s.agent("alice", "1")
	c := s.dial3(t)

	small := c.ask(s.request3("POST", chatCompletions, key, chatBody))
	want(t, "charge of a small answer, in its header", small.header.Get("Tallygate-Charge"), "0.00492")
	long := c.ask(s.request3("GET", "/bytes", key, ""))
	want(t, "charge of a long answer, in its trailer", long.trailer.Get("Tallygate-Charge"), "0.01")
	want(t, "units", long.trailer.Get("Tallygate-Units"), "byte=10")
	stream := c.ask(s.request3("POST", chatCompletions, key, chatStream))
	want(t, "charge of a stream, in its trailer", stream.trailer.Get("Tallygate-Charge"), "0.00492")
	if !strings.Contains(stream.body, tallygateComment) || !strings.HasSuffix(stream.body, "data: [DONE]\n\n") {
		t.Errorf("the stream is %s", stream.body)
	}
	for _, a := range []answer{small, long, stream} {
		if a.err != nil {
			t.Fatal(a.err)
		}
		if charge := s.charge(key, a.header.Get("Tallygate-Request")); charge["cut"] != "none" {
			t.Errorf("%v", charge)
		}
	}
	want(t, "charges", fmt.Sprint(len(s.charges(key))), "3")

	// Short answers, whose headers are still held back when they end.
	for path, charge := range map[string]string{"/search": "0.001", "/search?fails": "0"} {
		a := c.ask(s.request3("GET", path, key, ""))
		if a.header.Get("Tallygate-Charge") != charge || a.header.Get("Tallygate-Request") == "" {
			t.Errorf("%s: %v %q %v", path, a.header, a.body, a.err)
		}
	}

	// An answer that the upstream cuts does not look complete.
	if a := c.ask(s.request3("POST", chatCompletions+"?cut", key, chatStream)); a.err == nil {
		t.Errorf("a stream that was cut: %d %q", a.status, a.body)
	}
	eventually(t, "it is charged", func() bool { return s.charges(key)[0]["cut"] == "upstream" })
}
