//go:build unix

package postgres_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
)

// gateway is a gateway in a process of its own, with a connection to the database that the test can break.
type gateway struct {
	t       *testing.T
	dir     string
	base    string
	line    *line
	process *exec.Cmd
	log     *os.File
}

const gatewaySite = `{
	admin off
	persist_config off
	auto_https off
	grace_period 2s
	log {
		level WARN
	}
	tallygate {
		ledger postgres {env.TALLYGATE_DSN} {
			lifetime %s
			mode %s
		}
		operator_key {env.TALLYGATE_OPERATOR}
		registration open
		webhooks private
	}
}
http://%s {
	tallygate
	handle /search* {
		meter acme 0.01 per call
		reverse_proxy %s
	}
	handle /news* {
		meter {
			payee paper
			subscription basic 0.05 per 2s {
				included 8 calls
			}
		}
		reverse_proxy %s
	}
	handle /live* {
		meter {
			payee live
			price 0.001 per event
			charge escrow {
				batch 10 events
				open 5 for 168h
			}
		}
		reverse_proxy %s
	}
}
`

func startGateway(t *testing.T, server *pgtest.Server, dsn, upstream string, lifetime time.Duration) *gateway {
	t.Helper()
	return startGatewayOf(t, server, dsn, upstream, gatewaySite, lifetime)
}

// startGatewayOf starts a gateway with another Caddyfile, which has the same verbs as [gatewaySite].
func startGatewayOf(t *testing.T, server *pgtest.Server, dsn, upstream, site string, lifetime time.Duration) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), line: newLine(t, server.Socket())}
	address := commandtest.FreeAddress(t)
	g.base = "http://" + address
	text := fmt.Appendf(nil, site, lifetime, gatewayMode(), address, upstream, upstream, upstream)
	must(t, os.WriteFile(filepath.Join(g.dir, "Caddyfile"), text, 0o600))
	var err error
	g.log, err = os.Create(filepath.Join(g.dir, "log"))
	must(t, err)
	g.dsn(dsn)
	g.start()
	t.Cleanup(func() {
		g.kill()
		g.log.Close()
		printed, err := os.ReadFile(g.log.Name())
		must(t, err)
		commandtest.NoRace(t, string(printed))
		if t.Failed() {
			t.Logf("the log of the gateway at %s:\n%.20000s", g.base, printed)
		}
	})
	return g
}

// dsn makes the gateway reach the database by its own line.
func (g *gateway) dsn(dsn string) {
	before, after, _ := strings.Cut(dsn, "host=")
	_, rest, _ := strings.Cut(after, "&")
	must(g.t, os.WriteFile(filepath.Join(g.dir, "dsn"), []byte(before+"host="+g.line.dir+"&"+rest), 0o600))
}

func (g *gateway) start() {
	g.t.Helper()
	dsn, err := os.ReadFile(filepath.Join(g.dir, "dsn"))
	must(g.t, err)
	g.process = commandtest.Command(g.t, "run", "--config", filepath.Join(g.dir, "Caddyfile"))
	g.process.Env = append(g.process.Env, "TALLYGATE_DSN="+string(dsn), "TALLYGATE_OPERATOR="+operatorKey)
	g.process.Stdout, g.process.Stderr = g.log, g.log
	must(g.t, g.process.Start())
	g.await()
}

// await waits until the gateway serves calls that cost money.
func (g *gateway) await() {
	g.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		response, err := http.Get(g.base + "/api/v1/ready")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(g.log.Name())
			g.t.Fatalf("the gateway does not serve: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (g *gateway) kill() {
	_ = g.process.Process.Signal(syscall.SIGKILL)
	_ = g.process.Wait()
}

func (g *gateway) request(ctx context.Context, method, path, key, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, g.base+path, strings.NewReader(body))
	must(g.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

// line is a socket through which one gateway reaches the database.
type line struct {
	dir, to string

	mu    sync.Mutex
	conns map[net.Conn]bool
	mute  bool // the answers of the database are lost
	delay time.Duration
}

func newLine(t *testing.T, to string) *line {
	dir, err := os.MkdirTemp("", "line") // the path of a socket must be short
	must(t, err)
	l := &line{dir: dir, to: to, conns: map[net.Conn]bool{}}
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	must(t, err)
	t.Cleanup(func() { listener.Close(); l.cut(); os.RemoveAll(dir) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	return l
}

func (l *line) serve(here net.Conn) {
	there, err := net.Dial("unix", l.to)
	if err != nil {
		here.Close()
		return
	}
	l.mu.Lock()
	l.conns[here], l.conns[there] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.copy(there, here, false) })
	both.Go(func() { l.copy(here, there, true) })
	both.Wait()
	l.mu.Lock()
	delete(l.conns, here)
	delete(l.conns, there)
	l.mu.Unlock()
}

func (l *line) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		lost, delay := l.mute && answers, l.delay
		l.mu.Unlock()
		time.Sleep(delay)
		if lost || err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut breaks all connections.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.Close()
	}
}

func (l *line) set(mute bool, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute, l.delay = mute, delay
}

func (g *gateway) pause(d time.Duration) {
	_ = g.process.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	_ = g.process.Process.Signal(syscall.SIGCONT)
}

// gatewayMode returns the mode in which the gateways write: TALLYGATE_GATEWAY_MODE, by default the store's default.
func gatewayMode() string { return cmp.Or(os.Getenv("TALLYGATE_GATEWAY_MODE"), string(postgres.Log)) }
