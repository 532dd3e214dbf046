package stripe_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

func TestMain(m *testing.M) {
	if commandtest.Ran() {
		return
	}
	rounds.Checks(10, 100)
	os.Exit(m.Run())
}

// TestKilledBetweenPaymentAndBooking: a person has paid, Stripe tells of it, and the process dies before it has booked that. The comparison with
// Stripe's balance shows it, and the message, which Stripe sends again, books it, once.
func TestKilledBetweenPaymentAndBooking(t *testing.T) {
	s := newShop(t, "usd")
	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	must(t, os.WriteFile(config, []byte(s.file), 0o600))
	running := commandtest.Serve(t, config, s.url+"/api/v1/health")
	_, key := s.agent()
	page := s.do("POST", "/checkout", key, `{"amount":"5"}`).object["checkout_id"].(string)
	intent, event := s.stripe.pay(page)
	s.stripe.mu.Lock()
	s.stripe.fault, s.stripe.kill = "kill", func() { running.End(os.Kill) }
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
		out, err := commandtest.Command(t, "ledger", "reconcile", "--rail", "stripe", report, "--config", config).Output()
		if !strings.Contains(string(out), expected) || (err == nil) != strings.Contains(expected, "0 differ") {
			t.Errorf("reconcile: %v, want %q in\n%s", err, expected, out)
		}
	}
	reconcile("in the report, and not booked")

	running = commandtest.Serve(t, config, s.url+"/api/v1/health")
	s.stripe.set("")
	want(t, "before the message comes again", s.wallet(key), "0 held 0")
	for range 2 {
		s.delivered(event)
	}
	want(t, "the wallet", s.wallet(key), "5 held 0")
	running.End(syscall.SIGTERM)
	reconcile("1 are the same, 0 differ")
	if out, err := commandtest.Command(t, "ledger", "verify", "--config", config).CombinedOutput(); err != nil {
		t.Errorf("the books: %v\n%s", err, out)
	}
	s.checkLog()
}
