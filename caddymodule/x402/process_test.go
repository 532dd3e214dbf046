package x402_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
)

func TestMain(m *testing.M) {
	if commandtest.Ran() {
		return
	}
	os.Exit(m.Run())
}

// TestKilledBetweenSettlingAndBooking: the process dies when the chain has moved the money and before it is booked. The comparison with the
// chain shows it, and the same request books it, once, and is served.
func TestKilledBetweenSettlingAndBooking(t *testing.T) {
	s := newShop(t, asksTheChain)
	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := commandtest.Serve(t, config, s.url+"/api/v1/health")
	payer := newPayer(t)
	payment := pay(t, payer, s.offer("/"), nil)
	s.chain.mu.Lock()
	s.chain.fault, s.chain.kill = "kill", func() { running.End(os.Kill) }
	s.chain.mu.Unlock()
	r, err := http.NewRequest(http.MethodGet, s.url+"/", nil)
	must(t, err)
	r.Header.Set("Payment-Signature", payment)
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		t.Fatalf("the process is dead, and answers %s", response.Status)
	}
	want(t, "the chain has moved", s.chain.paid(), 100_000)

	report := filepath.Join(dir, "transfers.csv")
	must(t, os.WriteFile(report, fmt.Appendf(nil, "Transaction Hash,UnixTimestamp,From,To,TokenValue\n%s,%d,%s,%s,0.1\n",
		transactionOf(s.chain.sent[0]), time.Now().Unix(), address(payer.PubKey()), payTo), 0o600))
	reconcile := func(expected string) {
		t.Helper()
		out, err := commandtest.Command(t, "ledger", "reconcile", "--rail", "x402", "--pay-to", payTo, report, "--config", config).Output()
		if !strings.Contains(string(out), expected) || (err == nil) != strings.Contains(expected, "0 differ") {
			t.Errorf("reconcile: %v, want %q in\n%s", err, expected, out)
		}
	}
	reconcile("in the report, and not booked")

	running = commandtest.Serve(t, config, s.url+"/api/v1/health")
	s.chain.set("")
	want(t, "the same request", s.get("/", "Payment-Signature", payment).code(), "200")
	again := s.get("/", "Payment-Signature", payment)
	want(t, "once more", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed")), "200true")
	want(t, "moved, booked, and left", fmt.Sprint(s.chain.paid(), s.booked(payer), " ", s.balance(payer)), "100000 100000 0.06")
	running.End(syscall.SIGTERM)
	reconcile("1 are the same, 0 differ")
	out, err := commandtest.Command(t, "ledger", "verify", "--config", config).CombinedOutput()
	if err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
}

// TestKilledBetweenSettlingAndBookingAPermit: the process dies when a metered amount is settled and before it is booked. What was settled
// is credit of its payer when the same request comes again, and is booked once.
func TestKilledBetweenSettlingAndBookingAPermit(t *testing.T) {
	s, c := newPermits(t, false, asksTheChain)
	config := filepath.Join(t.TempDir(), "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := commandtest.Serve(t, config, s.url+"/api/v1/health")
	payer := newPayer(t)
	payment := promise(t, payer, s.offerUpTo(), nil)
	c.mu.Lock()
	c.fault, c.kill = "kill", func() { running.End(os.Kill) }
	c.mu.Unlock()
	r, err := http.NewRequest(http.MethodPost, s.url+chatPath, strings.NewReader(chatBody))
	must(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Payment-Signature", payment)
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		t.Fatalf("the process is dead, and answers %s", response.Status)
	}
	want(t, "the chain has moved", c.moved(), "6000")

	running = commandtest.Serve(t, config, s.url+"/api/v1/health")
	c.set("")
	for range 2 {
		want(t, "the same request", s.chat(chatPath, chatBody, "Payment-Signature", payment).code(), "402 insufficient_funds")
		want(t, "moved, and credit", c.moved()+" "+s.balance(payer), "6000 0.006")
	}
	running.End(syscall.SIGTERM)
	if out, err := commandtest.Command(t, "ledger", "verify", "--config", config).CombinedOutput(); err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
}
