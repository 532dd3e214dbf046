package caddymodule_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPayoutsByCommand: the operator sees, exports, books and refuses payouts, on a running server and on the file of a stopped one.
func TestPayoutsByCommand(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", chatPrices, chatSite, &chat{})
	p.start()
	p.agent("alice", "10")
	command := func(exit int, want string, args ...string) string {
		t.Helper()
		code, out := run(t, append(append([]string{"payouts"}, args...), "--config", p.config)...)
		if code != exit || !strings.Contains(out, want) {
			t.Errorf("payouts %v: exit %d, want %d and %q in\n%s", args, code, exit, want, out)
		}
		return out
	}
	ask := func(amount string) string {
		t.Helper()
		var made struct {
			ID string `json:"payout_id"`
		}
		if err := json.Unmarshal([]byte(command(0, `"status": "requested"`, "request", "alice", amount, "=bank", "--json")), &made); err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	one, two := ask("4"), ask("2.5")
	command(1, "3.5", "request", "alice", "5", "bank")
	command(0, one, "list", "--status", "requested")
	export := command(0, "payout_id,agent_id,amount,currency,to,memo,status,reference,created_at\n"+one+",alice,4,USDC,'=bank,", "export", "--format", "csv")
	if strings.Count(export, "\n") != 3 {
		t.Errorf("the export is\n%s", export)
	}
	command(1, "expected csv", "export", "--format", "xml")
	command(0, "paid bank-1", "book", one, "bank-1")
	command(0, "paid bank-1", "book", one, "bank-1")
	command(1, "a running server with a cashier", "send", two)
	p.stop(syscall.SIGTERM)
	command(1, "was booked on", "book", two, "bank-1")
	command(0, "refused", "refuse", two, "--reason", "closed")
	command(1, "is refused", "book", two, "bank-2")
	command(0, "alice", "list", "--status", "paid")
	if code, out := run(t, "wallet", "alice", "--config", p.config); code != 0 || !strings.Contains(out, "alice has 6 USDC: 6 available, 0 held") {
		t.Errorf("the wallet: exit %d\n%s", code, out)
	}
	if code, out := run(t, "ledger", "verify", "--config", p.config); code != 0 {
		t.Errorf("the books: exit %d\n%s", code, out)
	}
	p.wantNoPanic()
}

// TestLedgerReconcile: exports of an outside balance are compared with deposits, by the ids in their memos.
func TestLedgerReconcile(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", chatPrices, chatSite, &chat{})
	p.start()
	p.agent("alice", "1")
	for _, booked := range [][]string{{"deposit", "10", "stripe ch_1"}, {"deposit", "5.25", "stripe ch_2"}, {"withdraw", "2", "stripe re_1"}, {"deposit", "0.1", "x402 0xabc"}, {"deposit", "0.2", "x402 0xabc"}} {
		if code, out := run(t, booked[0], "alice", booked[1], "--memo", booked[2], "--config", p.config); code != 0 {
			t.Fatalf("%v: exit %d\n%s", booked, code, out)
		}
	}
	const stripeHead = "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC)\n"
	lines := func(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
	first, last := `txn_1,charge,ch_1,10.00,0.59,9.41,usd,2020-01-01 08:00`, `txn_2,charge,ch_2,5.25,0.45,4.80,usd,2099-01-01 08:00`
	refund, fee, bank := `txn_3,refund,re_1,-2.00,0,-2.00,usd,2098-01-01 08:00`, `txn_4,stripe_fee,,-1.00,0,-1.00,usd,2026-01-01 08:00`, `txn_5,payout,po_1,"-1,000.00",0,"-1,000.00",usd,2026-01-01 08:00`
	const chainHead = "Transaction Hash,UnixTimestamp,From,To,TokenValue\n"
	check := func(state string) {
		for _, test := range []struct {
			rail, report string
			exit         int
			want         string
		}{
			{"stripe", stripeHead + lines(first, last, refund, fee, bank), 0, "outside 13.25, in the ledger 13.25; 3 are the same, 0 differ"},
			{"stripe", stripeHead + lines(first, last), 1, "booked, and not in the report"},
			{"stripe", stripeHead + lines(first, last, refund, `txn_6,charge,ch_9,1.00,0,1,usd,2026-01-01 08:00`), 1, "in the report, and not booked"},
			{"stripe", stripeHead + lines(first, last, strings.Replace(refund, "-2.00", "-1.99", 1)), 1, "booked with another amount"},
			{"stripe", stripeHead + lines(first, refund), 1, "booked, and not in the report"},
			{"stripe", stripeHead + lines(fee), 2, "no payment that could be compared"},
			{"stripe", stripeHead + lines(`txn_7,charge,ch_1,ten,0,1,usd,2026-01-01 08:00`), 2, "line 2 of the report"},
			{"stripe", "", 2, "reading the report"},
			{"paypal", stripeHead + lines(first), 2, "expected stripe or x402"},
			{"x402", chainHead + lines("0xABC,1577836800,0x1,0xME,0.1", "0xABC,4070908800,0x2,0xme,0.2", "0xdef,1577836800,0x1,0x3,7"), 0, "1 are the same, 0 differ"},
			{"x402", chainHead + lines("0xABC,1577836800,0x1,0xME,0.3", "0xABD,4070908800,0xME,0x9,0.2"), 1, "-0.2"},
		} {
			file := filepath.Join(t.TempDir(), "report.csv")
			if err := os.WriteFile(file, []byte(test.report), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out := run(t, "ledger", "reconcile", "--rail", test.rail, "--pay-to", "0xme", file, "--config", p.config)
			if code != test.exit || !strings.Contains(out, test.want) {
				t.Errorf("%s, %s: exit %d, want %d and %q in\n%s", state, test.report, code, test.exit, test.want, out)
			}
		}
	}
	check("running")
	p.stop(syscall.SIGTERM)
	check("stopped")
	p.wantNoPanic()
}
