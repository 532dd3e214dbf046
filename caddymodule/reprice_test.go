package caddymodule_test

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

// newPrices are two tariffs beside that of chatPrices: another one, and the same one again.
const newPrices = `
		tariff next {
			model test-* {
				input 1 per 1M tokens
				output 10 per 1M tokens
			}
		}
		tariff again {
			model * {
				input 3 per 1M tokens
				cached 0.30 per 1M tokens
				output 15 per 1M tokens
			}
		}
		tariff other {
			model other-* {
				output 10 per 1M tokens
			}
		}
		tariff climbing {
			model test-* {
				input 0 per 1M tokens
				output 10 per 1M tokens {
					after 200 1
				}
			}
		}`

// TestReprice: the recorded usage of calls under other tariffs, on a live ledger and on a closed file; and the statement of the wallet that paid.
func TestReprice(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", chatPrices+newPrices, chatSite, new(chat))
	p.start()
	alice, bob := p.agent("alice", "1"), p.agent("bob", "1")
	for _, key := range []string{alice, alice, bob} {
		if a := p.do("POST", "/v1/chat/completions", key, chatOf("test-1")); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	today := time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	check := func(state string) {
		for tariff, want := range map[string][3]string{ // each call: 600 input, 400 cached, 200 output
			"next":     {"0.01476", "0.009", "-0.00576"},
			"chat":     {"0.01476", "0.01476", "0"},
			"again":    {"0.01476", "0.01476", "0"},
			"climbing": {"0.01476", "0.0042", "-0.01056"}, // 200 of each payer at 10, and 200 of alice's at 1
		} {
			code, out := run(t, "reprice", "--tariff", tariff, "--from", today, "--json", "--config", p.config)
			var r struct {
				Rows                          []struct{ Payer, Charged, Repriced, Difference string }
				Calls                         int
				Charged, Repriced, Difference string
			}
			if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
				t.Fatalf("%s %s: exit %d, %v\n%s", tariff, state, code, err, out)
			}
			if got := [3]string{r.Charged, r.Repriced, r.Difference}; got != want || r.Calls != 3 || len(r.Rows) != 2 {
				t.Errorf("%s %s: %s", tariff, state, out)
			}
			sum := decimal.Zero
			for _, row := range r.Rows {
				sum = sum.Add(decimal.RequireFromString(row.Difference))
			}
			if sum.String() != r.Difference {
				t.Errorf("%s %s: the rows add up to %s\n%s", tariff, state, sum, out)
			}
		}
		code, out := run(t, "reprice", "--tariff", "next", "--from", today, "--payee", "llm", "--config", p.config)
		if fields := strings.Join(strings.Fields(out), " "); code != 0 || !strings.Contains(fields, "total 3 0.01476 0.009 -0.00576") {
			t.Errorf("as a table %s: exit %d\n%s", state, code, out)
		}
	}
	check("live")
	p.stop(syscall.SIGTERM)
	check("closed")
	p.start()
	if code, out := run(t, "reprice", "--tariff", "other", "--from", today, "--config", p.config); code != 1 || !strings.Contains(out, "no price") {
		t.Errorf("a model without a price: exit %d\n%s", code, out)
	}
	if code, out := run(t, "reprice", "--tariff", "none", "--from", today, "--config", p.config); code != 2 || !strings.Contains(out, `no tariff \"none\"`) {
		t.Errorf("a tariff that is not there: exit %d\n%s", code, out)
	}
	if code, out := run(t, "reprice", "--tariff", "next", "--config", p.config); code != 2 || !strings.Contains(out, "--from is missing") {
		t.Errorf("without a time: exit %d\n%s", code, out)
	}
	p.stop(syscall.SIGTERM)
	statementOf(t, p)
}

// statementOf reads alice's statement as a table: what came in and went out makes the closing balance.
func statementOf(t *testing.T, p *process) {
	t.Helper()
	month := time.Now().UTC().Format("2006-01")
	code, out := run(t, "statement", month, "alice", "--config", p.config)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 || len(rows) != 5 {
		t.Fatalf("statement: exit %d, %v\n%s", code, err, out)
	}
	balance := decimal.RequireFromString(rows[1][4])
	for _, row := range rows[2:4] {
		balance = balance.Add(decimal.RequireFromString(row[2])).Sub(decimal.RequireFromString(row[3]))
	}
	want(t, "the closing balance", rows[4][4], "0.99016")
	want(t, "what the lines add up to", balance.String(), "0.99016")
	if code, out := run(t, "statement", month, "alice", "--format", "html", "--config", p.config); code != 0 || !strings.Contains(out, "@media print") {
		t.Errorf("a page to print: exit %d\n%s", code, out)
	}
	if code, out := run(t, "statement", month, "nobody", "--config", p.config); code != 1 {
		t.Errorf("of an agent that is not there: exit %d\n%s", code, out)
	}
}
