package caddymodule_test

import (
	"strings"
	"syscall"
	"testing"
)

const jobsSite = `handle /gpu* {
		meter {
			payee gpu
			price 0.06 per minute
		}
		reverse_proxy UPSTREAM
	}
	handle /chat* {
		meter {
			payee gpu
			tariff {
				model m {
					input 1 per 1k tokens
				}
			}
		}
		reverse_proxy UPSTREAM
	}
	handle /plan* {
		meter {
			payee gpu
			subscription base 5.00 per 168h {
				included 10 calls
				overage 0.5 per call
			}
		}
		reverse_proxy UPSTREAM
	}`

// TestWorkOutsideTheGateway: a payee charges for work by the routes and plans of the configuration, and captures holds; the commands show both.
func TestWorkOutsideTheGateway(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", jobsSite, text("results"))
	p.start()
	must := func(args ...string) string {
		t.Helper()
		code, out := run(t, append(args, "--config", p.config)...)
		if code != 0 {
			t.Fatalf("tallygate %s: exit %d\n%s", strings.Join(args, " "), code, out)
		}
		return out
	}
	alice, gpu := p.agent("alice", "100"), strings.TrimSpace(must("agents", "key", "gpu"))
	neverLog(gpu)
	hold := p.api("POST", "/holds", alice, map[string]any{"to_agent_id": "gpu", "amount": "20", "memo": "a night\x1b[31m"}, 201)["hold_id"].(string)
	report := func(more map[string]any, status int) map[string]any {
		t.Helper()
		body := map[string]any{"payer": "alice", "reference": "job"}
		for name, value := range more {
			body[name] = value
		}
		return p.api("POST", "/charges", gpu, body, status)
	}
	charge := report(map[string]any{"route": "/gpu*", "hold_id": hold, "units": map[string]any{"minute": 90}}, 201)
	want(t, "90 minutes", charge["amount"].(string), "5.4")
	want(t, "a route of a tariff", report(map[string]any{"route": "/chat*", "model": "m", "hold_id": hold, "reference": "chat", "units": map[string]any{"input": 500}}, 201)["amount"].(string), "0.5")
	for _, wrong := range []map[string]any{
		{"route": "/none", "units": map[string]any{"minute": 1}},
		{"plan": "none", "units": map[string]any{"call": 1}},
		{"route": "/gpu*", "units": map[string]any{"input": 1}},
		{"route": "/chat*", "model": "n", "units": map[string]any{"input": 1}},
	} {
		wrong["hold_id"], wrong["reference"] = hold, "wrong"
		report(wrong, 422)
	}
	report(map[string]any{"route": "/gpu*", "reference": "no consent", "units": map[string]any{"minute": 1}}, 403)
	report(map[string]any{"plan": "base", "reference": "no plan", "units": map[string]any{"call": 1}}, 402)
	p.api("POST", "/subscriptions", alice, map[string]any{"payee": "gpu", "plan": "base"}, 201)
	want(t, "beyond the quota", report(map[string]any{"plan": "base", "reference": "calls", "units": map[string]any{"call": 12}}, 201)["amount"].(string), "1")
	p.api("POST", "/holds/"+hold+"/capture", gpu, map[string]any{"amount": "2.5", "reference": "=storage"}, 200)
	request := p.charges(alice)[0]["request_id"].(string)

	if out := must("holds", "list", "--agent", "alice"); !strings.Contains(out, hold+"  open") || !strings.Contains(out, `a night\x1b[31m`) {
		t.Errorf("holds list: %q", out)
	}
	if out := must("explain", request); !strings.Contains(out, "with the reference =storage") || strings.Contains(out, "sum") {
		t.Errorf("explain: %s", out)
	}
	if out := must("explain", charge["request_id"].(string)); !strings.Contains(out, "5400") || !strings.Contains(out, "0.06 per minute") {
		t.Errorf("explain: %s", out)
	}
	if out := must("ledger", "export"); !strings.Contains(out, "'=storage") {
		t.Errorf("a reference that a spreadsheet takes for a formula: %s", out)
	}
	if out := must("holds", "void", hold); !strings.Contains(out, "8.4 was captured, 11.6 went back to alice") {
		t.Errorf("holds void: %s", out)
	}
	want(t, "wallet", p.balance(alice), "85.6")
	p.stop(syscall.SIGTERM)
	if out := must("ledger", "verify"); !strings.Contains(out, "the books are good") {
		t.Error(out)
	}
}

// TestStandingByCommand: the operator suspends, resumes and closes agents and rotates keys by commands, beside a running server and on its file.
func TestStandingByCommand(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", perCallSite, text("results"))
	p.start()
	alice := p.agent("alice", "10")
	command := func(code int, says string, args ...string) string {
		t.Helper()
		got, out := run(t, append(args, "--config", p.config)...)
		if got != code || !strings.Contains(out, says) {
			t.Fatalf("tallygate %s: exit %d, want %d and %q in\n%s", strings.Join(args, " "), got, code, says, out)
		}
		return out
	}
	command(0, "alice is suspended", "agents", "suspend", "alice", "--reason", "unpaid")
	command(1, `"the agent is suspended already"`, "agents", "suspend", "alice") // the text of the refusal, and nothing around it
	wantProblem(t, p.do("GET", "/search", alice, ""), 403, "forbidden")
	command(0, "alice is active", "agents", "resume", "alice")
	_, keys, _ := strings.Cut(command(0, "valid", "keys", "list", "alice"), "\n") // below the names of the columns
	id := strings.Fields(keys)[0]
	rotated := strings.TrimSpace(command(0, "tg_"+id, "keys", "rotate", "alice", id, "--overlap", "0s"))
	neverLog(rotated)
	if status := p.do("GET", "/search", alice, "").status; status != 401 {
		t.Errorf("the secret that was replaced gets %d", status)
	}
	if status := p.do("GET", "/search", rotated, "").status; status != 200 {
		t.Errorf("the new secret gets %d", status)
	}
	p.stop(syscall.SIGTERM)
	command(0, "alice is closed\n9.999 USDC was withdrawn", "agents", "close", "alice", "--reference", "iban-1")
	command(1, "the agent was closed", "agents", "close", "alice")
	for _, wrong := range [][]string{{"agents", "close"}, {"agents", "close", "a", "b", "c"}, {"keys", "rotate", "alice"}, {"deposit", "alice"}, {"explain"}, {"wallet", "--limt", "3"}} {
		command(2, "expected 'tallygate "+wrong[0], wrong...)
	}
	command(2, "expected one of", "ledger", "verfy")
}
