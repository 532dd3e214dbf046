package caddymodule_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/tallygate/tallygate/caddymodule"
	"github.com/tallygate/tallygate/internal/commandtest"
	_ "github.com/tallygate/tallygate/internal/steady"
)

// operatorKey is the operator's key in all tests.
const operatorKey = "operator-key-of-the-tests"

// shop is a real Caddy in this process with a metered site, and what a test needs to talk to it.
type shop struct {
	t    testing.TB
	url  string // of the site
	db   string // the ledger's file
	port string
	stop func() error
	// store is the module of the ledger's store; default bolt.
	store string
	log   string
	level string // of the log; default DEBUG
	// filtered is true if the log hides keys in requests.
	filtered bool
	// directive serves the API; default: tallygate.
	directive string
}

// openShop runs a Caddyfile: the global option's lines, then the site's. UPSTREAM in them stands for the upstream's address. Shops run
// beside each other (startConfig), so that tests that open one run in parallel.
func openShop(t testing.TB, options, site string, upstream http.Handler) *shop {
	t.Helper()
	s := &shop{t: t}
	s.open(options, site, upstream)
	return s
}

func (s *shop) open(options, site string, upstream http.Handler) {
	t := s.t
	t.Helper()
	dir := t.TempDir()
	s.db, s.log, s.port = filepath.Join(dir, "ledger.db"), filepath.Join(dir, "caddy.log"), commandtest.FreePort(t)
	s.url = "http://127.0.0.1:" + s.port
	backend := httptest.NewServer(upstream)
	t.Cleanup(backend.Close)
	s.load(options, strings.ReplaceAll(withUpstream(site, backend), "PORT", s.port))
	t.Cleanup(func() {
		if s.stop != nil {
			if err := s.stop(); err != nil {
				t.Errorf("stopping caddy: %v", err)
			}
		}
		// All that Caddy and its modules have logged, debug messages included.
		if err := checkForKeys(s.log); err != nil {
			t.Error(err)
		}
	})
}

// caddyfile writes the whole Caddyfile of a shop.
func (s *shop) caddyfile(options, site string) string {
	store := s.store
	if store == "" {
		store = "bolt"
	}
	return fmt.Sprintf(`{
	admin off
	auto_https off
	grace_period 10s
	%s
	tallygate {
		ledger %s %s
		operator_key %s
		registration open
		faucet 100.00
		%s
	}
}
http://127.0.0.1:%s {
	%s
	%s
}
`, s.logging(), store, s.db, operatorKey, options, s.port, cmp.Or(s.directive, "tallygate"), site)
}

// logging sends the log of a shop in this process to a file.
func (s *shop) logging() string {
	if s.log == "" {
		return ""
	}
	filter := ""
	if s.filtered {
		filter = "\n\t\tformat filter {\n\t\t\trequest>headers>X-Api-Key delete\n\t\t}"
	}
	return fmt.Sprintf("log {\n\t\toutput file %s\n\t\tlevel %s%s\n\t}", s.log, cmp.Or(s.level, "DEBUG"), filter)
}

// bareProxy is a reverse_proxy for which a site sets nothing.
var bareProxy = regexp.MustCompile(`(?m)reverse_proxy UPSTREAM$`)

// withUpstream puts the address of the upstream into a site. Caddy gives up on a new connection to an upstream after three seconds, which is too
// short for hundreds of them at the same time on a busy machine. So a proxy for which the site sets nothing waits.
func withUpstream(site string, backend *httptest.Server) string {
	site = bareProxy.ReplaceAllString(site, "reverse_proxy UPSTREAM {\n\t\t\ttransport http {\n\t\t\t\tdial_timeout 1h\n\t\t\t}\n\t\t}")
	return strings.ReplaceAll(site, "UPSTREAM", backend.Listener.Addr().String())
}

// load starts a config, and then ends the one before it, if any: a reload.
func (s *shop) load(options, site string) {
	s.t.Helper()
	config, err := adapt(s.caddyfile(options, site))
	if err != nil {
		s.t.Fatal(err)
	}
	stop, err := startConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	before := s.stop
	s.stop = stop
	if before != nil {
		if err := before(); err != nil {
			s.t.Errorf("stopping the config before: %v", err)
		}
		// Each config has a socket of its own on the port (SO_REUSEPORT). Caddy closes that of the old one in the background, and a connection that
		// waits in its queue is reset then.
		eventually(s.t, "the old config's socket is closed", func() bool { return sockets(s.port) <= 1 })
	}
}

// sockets counts the sockets that listen on a port, if the system tells.
func sockets(port string) (n int) {
	number, _ := strconv.Atoi(port)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			const listens = "0A"
			if f := strings.Fields(line); len(f) > 3 && f[3] == listens && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				n++
			}
		}
	}
	return n
}

func adapt(caddyfile string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// answer is a response, read to its end.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // the response ended too early
}

// do sends a request with a key.
func (s *shop) do(method, path, key, body string, headers ...string) answer {
	s.t.Helper()
	return send(s.t, s.request(method, path, key, body, headers...))
}

func (s *shop) request(method, path, key, body string, headers ...string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func send(t testing.TB, r *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: string(body), err: err}
}

// api calls a route of the API and decodes its answer.
func (s *shop) api(method, path, key string, in any, want int) map[string]any {
	s.t.Helper()
	var body string
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			s.t.Fatal(err)
		}
		body = string(raw)
	}
	a := s.do(method, "/api/v1"+path, key, body)
	if a.status != want {
		s.t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, want)
	}
	var out map[string]any
	if len(a.body) > 0 {
		if err := json.Unmarshal([]byte(a.body), &out); err != nil {
			s.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	return out
}

// agent makes an agent with an amount in its wallet and returns its key.
func (s *shop) agent(id, amount string) string {
	s.t.Helper()
	key := s.api("POST", "/agents", "", map[string]any{"agent_id": id}, 201)["api_key"].(string)
	neverLog(key)
	if amount != "0" {
		s.api("POST", "/wallet/deposit", operatorKey, map[string]any{"agent_id": id, "amount": amount, "reference": "for " + id}, 200)
	}
	return key
}

// balance returns what is available to the holder of a key.
func (s *shop) balance(key string) string {
	s.t.Helper()
	return s.api("GET", "/wallet", key, nil, 200)["available"].(string)
}

// balanceOf returns what is available to an agent, as the operator sees it.
func (s *shop) balanceOf(agent string) string {
	s.t.Helper()
	return s.api("GET", "/wallet?agent_id="+agent, operatorKey, nil, 200)["available"].(string)
}

// charge returns the charge of a request, as its payer sees it.
func (s *shop) charge(key, request string) map[string]any {
	s.t.Helper()
	return s.api("GET", "/charges/"+request, key, nil, 200)
}

// charges returns all charges of an agent, newest first.
func (s *shop) charges(key string) []map[string]any {
	s.t.Helper()
	var out []map[string]any
	for _, c := range s.api("GET", "/charges?limit=500", key, nil, 200)["charges"].([]any) {
		out = append(out, c.(map[string]any))
	}
	return out
}

// eventually polls until ok returns true. It has no time limit of its own. Shortly before the test binary's timeout it fails, so that the test
// can say what it waits for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	var end time.Time
	if limited, is := t.(interface{ Deadline() (time.Time, bool) }); is {
		if deadline, has := limited.Deadline(); has {
			end = deadline.Add(-10 * time.Second)
		}
	}
	for !ok() {
		if !end.IsZero() && time.Now().After(end) {
			t.Fatalf("%s: not within the time of the tests", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// recordings is the folder of recorded provider responses, which are not part of this repository.
func recordings(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("TALLYGATE_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "recordings")
	}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		if os.Getenv("TALLYGATE_REQUIRE_RECORDINGS") != "" {
			t.Fatalf("no recordings, but TALLYGATE_REQUIRE_RECORDINGS is set: %v", err)
		}
		t.Skipf("SKIPPED: no recordings in %s; set TALLYGATE_RECORDINGS to test against real provider responses", dir)
	}
	return dir
}

func compact(body string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(body)) != nil {
		return body
	}
	return b.String()
}
