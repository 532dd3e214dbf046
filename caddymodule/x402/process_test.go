package x402_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// asCommand makes this test binary behave as the command tallygate, so that a test can kill a real process.
const asCommand = "TALLYGATE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		caddycmd.Main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "HOME="+t.TempDir(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	return cmd
}

// child is a running `tallygate run`.
type child struct {
	*exec.Cmd
	ended chan struct{}
}

// end sends a signal, and waits for the end.
func (c child) end(signal os.Signal) {
	_ = c.Process.Signal(signal)
	<-c.ended
}

// start runs the shop in a process of its own.
func (s *shop) start(t *testing.T, config string) child {
	t.Helper()
	run := child{command(t, "run", "--config", config), make(chan struct{})}
	var log bytes.Buffer
	run.Stdout, run.Stderr = &log, &log
	must(t, run.Start())
	go func() {
		_ = run.Wait()
		close(run.ended)
	}()
	t.Cleanup(func() { run.end(os.Kill) })
	for {
		select {
		case <-run.ended:
			t.Fatalf("the server has ended\n%s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if response, err := http.Get(s.url + "/api/v1/health"); err == nil {
			response.Body.Close()
			return run
		}
	}
}

// TestKilledBetweenSettlingAndBooking: the process dies when the chain has moved the money and before it is booked. The comparison with the
// chain shows it, and the same request books it, once, and is served.
func TestKilledBetweenSettlingAndBooking(t *testing.T) {
	s := newShop(t, asksTheChain)
	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := s.start(t, config)
	payer := newPayer(t)
	payment := pay(t, payer, s.offer("/"), nil)
	s.chain.mu.Lock()
	s.chain.fault, s.chain.kill = "kill", func() { running.end(os.Kill) }
	s.chain.mu.Unlock()
	r, err := http.NewRequest(http.MethodGet, s.url+"/", nil)
	must(t, err)
	r.Header.Set("Payment-Signature", payment)
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		t.Fatalf("the process is dead, and answers %s", response.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	want(t, "the chain has moved", s.chain.paid(), 100_000)

	report := filepath.Join(dir, "transfers.csv")
	must(t, os.WriteFile(report, fmt.Appendf(nil, "Transaction Hash,UnixTimestamp,From,To,TokenValue\n%s,%d,%s,%s,0.1\n",
		transactionOf(s.chain.sent[0]), time.Now().Unix(), address(payer.PubKey()), payTo), 0o600))
	reconcile := func(expected string) {
		t.Helper()
		out, err := command(t, "ledger", "reconcile", "--rail", "x402", "--pay-to", payTo, report, "--config", config).Output()
		if !strings.Contains(string(out), expected) || (err == nil) != strings.Contains(expected, "0 differ") {
			t.Errorf("reconcile: %v, want %q in\n%s", err, expected, out)
		}
	}
	reconcile("in the report, and not booked")

	running = s.start(t, config)
	s.chain.set("")
	want(t, "the same request", s.get("/", "Payment-Signature", payment).code(), "200")
	again := s.get("/", "Payment-Signature", payment)
	want(t, "once more", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed")), "200true")
	want(t, "moved, booked, and left", fmt.Sprint(s.chain.paid(), s.booked(payer), " ", s.balance(payer)), "100000 100000 0.06")
	running.end(syscall.SIGTERM)
	reconcile("1 are the same, 0 differ")
	out, err := command(t, "ledger", "verify", "--config", config).CombinedOutput()
	if err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
}
