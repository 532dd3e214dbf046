package caddymodule_test

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOperationsOnALiveLedgerAndOnAClosedFile(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", perCallSite, text("results"))
	p.start()
	key := p.agent("alice", "1")
	for range 5 {
		p.do("GET", "/search", key, "")
	}
	must := func(args ...string) string {
		t.Helper()
		code, out := run(t, append(args, "--config", p.config)...)
		if code != 0 {
			t.Fatalf("tallygate %s: exit %d\n%s", strings.Join(args, " "), code, out)
		}
		return out
	}
	dir := t.TempDir()
	var head struct {
		Head struct {
			Transfer uint64
			Hash     string
		}
	}
	check := func(state string) {
		stat := must("ledger", "stat")
		if !strings.Contains(stat, "6 transfers in USDC") {
			t.Errorf("stat %s: %s", state, stat)
		}
		backup := filepath.Join(dir, state+".db")
		if out := must("ledger", "backup", backup); !strings.Contains(out, "the books are good") {
			t.Errorf("backup %s: %s", state, out)
		}
		if out := must("ledger", "verify", backup); !strings.Contains(out, "6 transfers") {
			t.Errorf("verify of the backup %s: %s", state, out)
		}
		rows, err := csv.NewReader(strings.NewReader(must("ledger", "export"))).ReadAll()
		if err != nil || len(rows) != 7 || rows[6][4] != "0.001" || rows[6][5] != "charge" {
			t.Errorf("export as csv %s: %v %v", state, rows, err)
		}
		lines := strings.Split(strings.TrimSpace(must("ledger", "export", "--format", "cloudevents")), "\n")
		var event struct {
			Type, Subject string
			Data          struct{ Amount, Payee string }
		}
		if err := json.Unmarshal([]byte(lines[0]), &event); err != nil || len(lines) != 5 || event.Type != "tallygate.charge" || event.Subject != "alice" || event.Data.Amount != "0.001" {
			t.Errorf("export as cloudevents %s: %d lines, %s %v", state, len(lines), lines[0], err)
		}
		if out := must("ledger", "export", "--format", "jsonl", "--to", "2020-01-01"); out != "" {
			t.Errorf("export of a time when there was nothing: %s", out)
		}
		last := rows[6][1]
		if out := must("ledger", "export", "--format", "jsonl", "--from", last); !strings.Contains(out, `{"transfer":6,`) || strings.Contains(out, `{"transfer":1,`) {
			t.Errorf("export from %s, the time of the last transfer: %s", last, out)
		}
	}
	if out := must("health"); out != "ready\n" {
		t.Errorf("health: %q", out)
	}
	if out := must("health", "--wait", "1m"); out != "ready\n" {
		t.Errorf("health --wait: %q", out)
	}
	check("live")
	if err := json.Unmarshal([]byte(must("ledger", "verify", "--json")), &head); err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGTERM)
	if code, out := run(t, "health", "--config", p.config); code != 1 {
		t.Errorf("health of a server that does not run: exit %d, %s", code, out)
	}
	if code, _ := run(t, "health", "--wait", "1ms", "--config", p.config); code != 1 {
		t.Errorf("waiting for a server that does not run: exit %d", code)
	}
	check("closed")

	kept := fmtHead(head.Head.Transfer, head.Head.Hash)
	must("ledger", "verify", "--head", kept)
	if code, _ := run(t, "ledger", "verify", "--head", fmtHead(head.Head.Transfer, strings.Repeat("00", 32)), "--config", p.config); code != 1 {
		t.Errorf("verify against the head of another history: exit %d, want 1", code)
	}

	// The ledger is lost, and restored from the backup.
	if code, _ := run(t, "ledger", "restore", filepath.Join(dir, "live.db"), "--config", p.config); code == 0 {
		t.Error("restore over a ledger that is there")
	}
	if err := os.Rename(p.db, p.db+".broken"); err != nil {
		t.Fatal(err)
	}
	must("ledger", "restore", filepath.Join(dir, "live.db"))
	p.start()
	want(t, "wallet after the restore", p.balance(key), "0.995")
	p.stop(syscall.SIGTERM)
}

func fmtHead(transfer uint64, hash string) string {
	raw, _ := json.Marshal(transfer)
	return string(raw) + ":" + hash
}

// TestWebhooksDoNotReachThisServer: a webhook on this machine is delivered, but not at a port at which this Caddy listens: neither at its admin
// endpoint, which would stop the server without a key, nor at its sites.
func TestWebhooksDoNotReachThisServer(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "webhooks private", perCallSite, text("results"))
	p.start()
	told := make(chan struct{}, 100)
	sink := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told <- struct{}{} }))
	defer sink.Close()
	key := p.agent("alice", "10")
	_, port, _ := strings.Cut(p.admin, ":")
	for _, url := range []string{"http://" + p.admin + "/stop", "http://localhost:" + port + "/stop", "http://[::ffff:127.0.0.1]:" + port + "/stop", "http://0.0.0.0:" + port + "/stop", "http://[::]:" + port + "/stop", "http://[::1]:" + port + "/stop", p.url + "/search", sink.URL} {
		p.api("POST", "/webhooks", key, map[string]any{"url": url, "events": []string{"escrow.created"}}, 201)
	}
	p.api("POST", "/escrow", key, map[string]any{"to_agent_id": "acme", "amount": "1"}, 201)
	<-told
	eventually(t, "the deliveries to the server itself have failed", func() bool {
		return strings.Count(p.log.String(), "this server's own ports") >= 7
	})
	if a := p.do("GET", "/search", key, ""); a.status != http.StatusOK {
		t.Errorf("after that a call is answered with %d %v", a.status, a.err)
	}
}
