//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

// scaleOut is the page whose load balancer is tried.
const scaleOut = "../../docs/scale-out.md"

// fromPage returns a block of the page that begins with a line, as far as the end of its code.
func fromPage(t *testing.T, begin string) string {
	t.Helper()
	page, err := os.ReadFile(scaleOut)
	must(t, err)
	_, block, found := strings.Cut(string(page), "\n"+begin+"\n")
	block, _, ended := strings.Cut(block, "\n```")
	if !found || !ended {
		t.Fatalf("%s has no block that begins with %q", scaleOut, begin)
	}
	return begin + "\n" + block + "\n"
}

// shutdownWords returns the global options of the page's gateways that say how they shut down.
func shutdownWords(t *testing.T) string {
	t.Helper()
	var words []string
	for line := range strings.Lines(fromPage(t, "{\n\tgrace_period 30s")) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "grace_period") || strings.HasPrefix(line, "shutdown_delay") {
			words = append(words, line)
		}
	}
	if len(words) != 2 {
		t.Fatalf("the gateways of %s shut down by %q", scaleOut, words)
	}
	return strings.Join(words, "\n\t")
}

// startBalancer runs the load balancer of the page in front of gateways, and returns its address.
func startBalancer(t *testing.T, gateways []*gateway) string {
	t.Helper()
	site := fromPage(t, "api.example.com {")
	var behind []string
	for _, g := range gateways {
		behind = append(behind, strings.TrimPrefix(g.base, "http://"))
	}
	const named = "10.0.0.11:8402 10.0.0.12:8402 10.0.0.13:8402"
	if !strings.Contains(site, named) {
		t.Fatalf("the load balancer of %s does not name %s", scaleOut, named)
	}
	address := commandtest.FreeAddress(t)
	site = strings.NewReplacer(named, strings.Join(behind, " "), "api.example.com", "http://"+address).Replace(site)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte("{\n\tadmin off\n\tauto_https off\n}\n"+site), 0o600))
	process := commandtest.Command(t, "run", "--config", filepath.Join(dir, "Caddyfile"))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	process.Stdout, process.Stderr = log, log
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the log of the load balancer:\n%.20000s", text)
		}
	})
	(&gateway{t: t, base: "http://" + address, log: log}).await()
	return "http://" + address
}

// restart stops a gateway as systemd does, and starts it again. It returns when the gateway is ready.
func (g *gateway) restart() {
	g.t.Helper()
	must(g.t, g.process.Process.Signal(syscall.SIGTERM))
	if err := g.process.Wait(); err != nil {
		text, _ := os.ReadFile(g.log.Name())
		g.t.Errorf("a gateway that was to stop: %v\n%s", err, text)
	}
	g.start()
}

// mustAnswer makes one call, which must succeed, and notes it as complete.
func (l *load) mustAnswer(method, path, key string) {
	response, err := http.DefaultClient.Do(l.gateways[0].request(context.Background(), method, path, key, ""))
	if err != nil {
		l.t.Errorf("%s %s: %v", method, path, err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(bufio.NewReader(response.Body))
	whole := string(body) == "results" || strings.Contains(string(body), "data: [DONE]")
	id := response.Header.Get("Tallygate-Request")
	if err != nil || response.StatusCode != http.StatusOK || !whole {
		l.t.Errorf("%s %s, %s: status %d, %v, %.500q", method, path, id, response.StatusCode, err, body)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete[id] = response.Header.Get("Tallygate-Charge")
}

// charged returns how many charges the books have.
func (l *load) charged() (n int) {
	var usage struct {
		Usage []struct {
			Calls int `json:"calls"`
		} `json:"usage"`
	}
	shop{l.t, l.gateways[0].base}.ask("GET", "/api/v1/usage?group_by=payee", operatorKey, "", http.StatusOK, &usage)
	for _, row := range usage.Usage {
		n += row.Calls
	}
	return n
}

// TestRollingRestart: two gateways behind the load balancer of docs/scale-out.md are restarted, one after the other, under load. Not one request
// fails, and each response is charged once.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	dsn := server.New(t)
	// The delays of the page are long. Clients that get their answers at once would ask thousands of times meanwhile.
	pace, provider := time.Duration(rounds.Of(20, 0))*time.Millisecond, commandtest.Provider(5*time.Millisecond)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(pace) // that of a provider, not a wait for anything
		provider.ServeHTTP(w, r)
	}))
	defer upstream.Close()
	site := strings.Replace(gatewaySite, "grace_period 2s", shutdownWords(t), 1)
	var gateways []*gateway
	for range 2 {
		gateways = append(gateways, startGatewayOf(t, server, dsn, upstream.URL, site, 20*lifetime)) // a busy machine ends no session
	}
	front := &gateway{t: t, base: startBalancer(t, gateways)}
	l := &load{t: t, gateways: []*gateway{front}, complete: map[string]string{}, cut: map[string]int{}, statuses: map[int]int{}}
	for i := range 2 {
		l.keys = append(l.keys, l.agent(fmt.Sprintf("agent-%d", i), "100000"))
	}
	l.agent("sink", "0.01") // l.check looks at it

	var over atomic.Bool
	var clients sync.WaitGroup
	for _, key := range l.keys {
		for _, call := range []struct{ method, path string }{{"GET", "/search"}, {"POST", "/search"}, {"GET", "/live"}} {
			clients.Go(func() {
				for !over.Load() {
					l.mustAnswer(call.method, call.path, key)
				}
			})
		}
	}
	since := time.Now()
	for _, g := range gateways {
		g.restart()
	}
	over.Store(true)
	clients.Wait()
	answers := len(l.complete)
	if charges := l.charged(); charges != answers {
		t.Errorf("%d responses have %d charges", answers, charges)
	}
	l.check(dsn)
	t.Logf("two restarts in %s: %d responses, none failed", time.Since(since).Round(time.Second), answers)
}
