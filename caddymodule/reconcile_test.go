package caddymodule_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReconcile compares reports with charges, on a running server and on the file of a stopped one.
func TestReconcile(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", chatPrices, chatSite, &chat{})
	p.start()
	key := p.agent("alice", "10")
	p.do("POST", chatCompletions, key, chatBody)
	p.do("POST", chatCompletions, key, chatBody)
	day := p.charges(key)[0]["created_at"].(string)[:len("2006-01-02")]
	report := func(lines ...string) string {
		file := filepath.Join(t.TempDir(), "report.csv")
		text := "day,model,requests,input_tokens,output_tokens,amount\n" + strings.ReplaceAll(strings.Join(lines, "\n"), "DAY", day) + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const same = "DAY,test-1,2,2000,400,0.001"
	check := func(state string) {
		for _, test := range []struct {
			report string
			exit   int
			want   string
		}{
			{report(same), 0, "0 of 1 differ"},
			{report("DAY,other/Test-1-2026-01-01,2,2000,400,"), 0, "0 of 1 differ"},
			{report("DAY,test-1,3,2000,400,"), 1, "requests: the provider has 3, the ledger 2"},
			{report("DAY,test-1,,2001,,"), 1, "input tokens: the provider has 2001, the ledger 2000"},
			{report("DAY,test-1,,,399,"), 1, "output tokens: the provider has 399, the ledger 400"},
			{report("DAY,test-1,,,,5"), 1, "amount: the provider bills 5, 0.00984 was charged"},
			{report(same, "DAY,test-2,1,1,1,"), 1, "in the provider's report, but no charge in the ledger"},
			{report("DAY,test-2,1,1,1,"), 1, "charges in the ledger, but not in the provider's report"},
			{report("yesterday,test-1,1,1,1,"), 2, "expected a date"},
			{filepath.Join(t.TempDir(), "none.csv"), 2, "there is no file"},
		} {
			code, out := run(t, "reconcile", "--provider", "openai", test.report, "--config", p.config)
			if code != test.exit || !strings.Contains(out, test.want) {
				t.Errorf("%s: exit %d, want %d and %q in\n%s", state, code, test.exit, test.want, out)
			}
		}
		if code, out := run(t, "reconcile", "--provider", "openai", "--payee", "nobody", report(same), "--config", p.config); code != 1 || !strings.Contains(out, "no charge") {
			t.Errorf("%s, of nobody: exit %d\n%s", state, code, out)
		}
	}
	check("running")
	p.stop(syscall.SIGTERM)
	check("stopped")
	p.wantNoPanic()
}
