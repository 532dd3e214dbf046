package stripe_test

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

	"github.com/tallygate/tallygate/internal/rounds"
)

// asCommand makes this test binary behave as the command tallygate, so that a test can kill a real process.
const asCommand = "TALLYGATE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		caddycmd.Main()
		return
	}
	rounds.Checks(10, 40)
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

// TestKilledBetweenPaymentAndBooking: a person has paid, Stripe tells of it, and the process dies before it has booked that. The comparison with
// Stripe's balance shows it, and the message, which Stripe sends again, books it, once.
func TestKilledBetweenPaymentAndBooking(t *testing.T) {
	s := newShop(t, "usd")
	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := s.start(t, config)
	_, key := s.agent()
	page := s.do("POST", "/checkout", key, `{"amount":"5"}`).object["checkout_id"].(string)
	intent, event := s.stripe.pay(page)
	s.stripe.mu.Lock()
	s.stripe.fault, s.stripe.kill = "kill", func() { running.end(os.Kill) }
	s.stripe.mu.Unlock()
	body, header := signed(t, event, webhookSecret, time.Now())
	r, err := http.NewRequest(http.MethodPost, s.url+"/api/v1/checkout/events", bytes.NewReader(body))
	must(t, err)
	r.Header.Set("Stripe-Signature", header)
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		t.Fatalf("the process is dead, and answers %s", response.Status)
	}

	report := filepath.Join(dir, "balance.csv")
	must(t, os.WriteFile(report, fmt.Appendf(nil, "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC)\ntxn_1,charge,%s,5.00,0.45,4.55,usd,%s\n",
		intent["latest_charge"], time.Now().UTC().Format("2006-01-02 15:04")), 0o600))
	reconcile := func(expected string) {
		t.Helper()
		out, err := command(t, "ledger", "reconcile", "--rail", "stripe", report, "--config", config).Output()
		if !strings.Contains(string(out), expected) || (err == nil) != strings.Contains(expected, "0 differ") {
			t.Errorf("reconcile: %v, want %q in\n%s", err, expected, out)
		}
	}
	reconcile("in the report, and not booked")

	running = s.start(t, config)
	s.stripe.set("")
	want(t, "before the message comes again", s.wallet(key), "0 held 0")
	for range 2 {
		s.delivered(event)
	}
	want(t, "the wallet", s.wallet(key), "5 held 0")
	running.end(syscall.SIGTERM)
	reconcile("1 are the same, 0 differ")
	if out, err := command(t, "ledger", "verify", "--config", config).CombinedOutput(); err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
	s.checkLog()
}
