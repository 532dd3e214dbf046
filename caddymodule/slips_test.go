package caddymodule_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/internal/commandtest"
)

// TestValidateWarnsOfLikelySlips: what is allowed and is probably a mistake is logged, also by `validate`. A good configuration is not warned of.
func TestValidateWarnsOfLikelySlips(t *testing.T) {
	t.Parallel()
	const meter = "meter acme 0.001 per call"
	const answer = "\n\treverse_proxy 127.0.0.1:9001"
	for _, test := range []struct{ name, options, site, warns string }{
		{"price", "", "meter acme 2.50 per token" + answer, "token costs more than 1 per token"},
		{"price of a tariff", "tariff t {\n\t\t\tmodel * {\n\t\t\t\tinput 2.50 per token\n\t\t\t\toutput 0.1 per token\n\t\t\t}\n\t\t}", "meter {\n\t\tpayee acme\n\t\ttariff t\n\t}" + answer, "input costs more than 1 per token"},
		{"commission", "commission 1", meter + answer, "write 'commission 1%'"},
		{"two meters", "", "handle {\n\t\t" + meter + "\n\t\tmeter other 0.002 per call" + answer + "\n\t}", "two meters for the same requests"},
		{"never reached", "", "route {\n\t\treverse_proxy 127.0.0.1:9001\n\t\t" + meter + "\n\t}", "it is never reached"},
		{"never reached, behind a file server", "", "route {\n\t\tfile_server\n\t\t" + meter + answer + "\n\t}", "it is never reached"},
		{"nobody answers", "", "handle /x* {\n\t\t" + meter + "\n\t}", "no handler after it answers"},
		{"nobody answers in a named route", "", "handle /x* {\n\t\tinvoke paid\n\t}", "into a 'route' block"},
		{"batch", "", "meter {\n\t\tpayee acme\n\t\tprice 0.001 per token\n\t\tcharge escrow {\n\t\t\tbatch 50 events\n\t\t}\n\t}" + answer, "the batch is in a unit that has no price"},
		{"no api", "", "no-api\n\t" + meter + answer, "no site has the directive 'tallygate'"},
		{"prefix", "", "prefix\n\t" + meter + answer, "is a prefix, not a matcher"},

		{"good", "commission 1%", meter + answer, ""},
		{"good, several", "", "handle {\n\t\t@a path /a\n\t\tmeter @a acme 0.001 per call\n\t\tmeter other 0.002 per call" + answer + "\n\t}", ""},
		{"good, nested", "", "meter outer 0.1 per call\n\thandle /a {\n\t\t" + meter + "\n\t\trespond hello\n\t}\n\thandle {\n\t\trespond there\n\t}", ""},
		{"good, a batch", "", "meter {\n\t\tpayee acme\n\t\tprice 0.001 per event\n\t\tcharge escrow {\n\t\t\tbatch 50 events\n\t\t}\n\t}" + answer, ""},
		{"good, millions", "", "meter acme 2.50 per 1M tokens" + answer, ""},
		{"good, invoked", "", "handle /x* {\n\t\tinvoke paid\n\t\trespond hello\n\t}", ""},
		{"good, passing", "", "route {\n\t\tfile_server {\n\t\t\tpass_thru\n\t\t}\n\t\t" + meter + answer + "\n\t}", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			site, api := test.site, "tallygate"
			if rest, ok := strings.CutPrefix(site, "no-api\n"); ok {
				site, api = rest, ""
			} else if rest, ok := strings.CutPrefix(site, "prefix\n"); ok {
				site, api = rest, "tallygate /api/*"
			}
			named := ""
			if strings.Contains(site, "invoke") {
				named = "&(paid) {\n\t" + meter + "\n}\n"
			}
			file := filepath.Join(dir, "Caddyfile")
			config := fmt.Sprintf("{\n\tauto_https off\n\ttallygate {\n\t\tledger bolt %s\n\t\t%s\n\t}\n}\n%shttp://127.0.0.1:1 {\n\t%s\n\t%s\n}\n", filepath.Join(dir, "ledger.db"), test.options, named, api, site)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := commandtest.Command(t, "validate", "--config", file)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var warnings []string
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, `"warn"`) && !strings.Contains(line, "not formatted") && !strings.Contains(line, "file_server") || strings.Contains(line, "\tWARN\t") && !strings.Contains(line, "not formatted") {
					warnings = append(warnings, line)
				}
			}
			told := strings.Join(warnings, "")
			if test.warns == "" && told != "" || !strings.Contains(told, test.warns) || len(warnings) > 1 {
				t.Errorf("expected %q:\n%s", test.warns, told)
			}
		})
	}
}

// TestAnotherLedgerAtThePort: a server does not start beside another one that serves another ledger at the same port, since the system would
// divide the requests between the two.
func TestAnotherLedgerAtThePort(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", "meter acme 0.001 per call\n\trespond hello", http.NotFoundHandler())
	p.start()
	key := p.agent("alice", "1")
	second := func(port string) (int, string) {
		dir := t.TempDir()
		file := filepath.Join(dir, "Caddyfile")
		config := fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\ttallygate {\n\t\tledger bolt %s\n\t}\n}\nhttp://127.0.0.1:%s {\n\ttallygate\n\tmeter acme 0.001 per call\n\trespond hello\n}\n", filepath.Join(dir, "ledger.db"), port)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		return run(t, "run", "--config", file)
	}
	code, out := second(p.port)
	if code == 0 || !strings.Contains(out, "another Tallygate with another ledger") || !strings.Contains(out, "listen at another port") {
		t.Errorf("%d %s", code, out)
	}
	for range 20 {
		want(t, "the first server", p.balance(key), "1")
	}
	if who := p.do("GET", "/api/v1", "", ""); who.status != 200 || !strings.Contains(who.body, `"name":"tallygate"`) {
		t.Errorf("%d %s", who.status, who.body)
	}
}

// TestASiteThatSharesThePathOfTheAPI: what the API does not serve below /api/v1 goes on to the site, as for clients whose base is that path.
func TestASiteThatSharesThePathOfTheAPI(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `
	handle /api/v1/chat/* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /api/v1/models {
		reverse_proxy UPSTREAM
	}
	handle /api/v1/empty {
		respond "" 200
	}`, http.HandlerFunc(told))
	key := s.agent("alice", "1")
	for path, wants := range map[string]string{"/api/v1/chat/completions": "POST /api/v1/chat/completions", "/api/v1/models": "POST /api/v1/models"} {
		if a := s.do("POST", path, key, "{}"); a.status != 200 || !strings.Contains(a.body, wants) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	want(t, "charged", s.balance(key), "0.999")
	want(t, "empty", fmt.Sprint(s.do("GET", "/api/v1/empty", "", "").status), "200")
	for _, path := range []string{"/api/v1/walet", "/api/v1/", "/api/v1/agents/me/x"} {
		wantProblem(t, s.do("GET", path, key, ""), 404, "not_found")
	}
	wantProblem(t, s.do("DELETE", "/api/v1/wallet", key, ""), 405, "method_not_allowed")
}

// TestRoutesHaveNames: charges and tariffs tell apart named routes, and routes of several hosts with the same paths.
func TestRoutesHaveNames(t *testing.T) {
	t.Parallel()
	s := &shop{t: t, directive: "tallygate"}
	s.open("", `
		handle /alone/* {
			meter alone 0.1 per call
			respond alone
		}
	}
	&(paid) {
		route {
			meter c 0.25 per call
			respond c
		}
	}
	http://*.shop.test:PORT {
		tallygate
		@a host a.shop.test
		handle @a {
			handle /v1/* {
				meter a 0.05 per call
				respond a
			}
		}
		@b host b.shop.test
		handle @b {
			handle /v1/* {
				meter b 0.5 per call
				respond b
			}
		}
		handle /paid/* {
			invoke paid
		}
	`, http.NotFoundHandler())
	key := s.agent("alice", "10")
	call := func(host, path string) string {
		r := s.request("GET", path, key, "")
		r.Host = net.JoinHostPort(host, s.port)
		a := send(t, r)
		return fmt.Sprint(s.charge(key, a.header.Get("Tallygate-Request"))["route"])
	}
	names := make(map[string]bool)
	for _, tariff := range s.api("GET", "/tariffs", "", nil, 200)["tariffs"].([]any) {
		names[fmt.Sprint(tariff.(map[string]any)["route"])] = true
	}
	for _, test := range []struct{ host, path, name string }{
		{"a.shop.test", "/v1/x", "a.shop.test/v1/*"}, {"b.shop.test", "/v1/x", "b.shop.test/v1/*"}, {"c.shop.test", "/paid/x", "paid"},
		{"127.0.0.1", "/alone/x", "/alone/*"},
	} {
		want(t, test.host+test.path, call(test.host, test.path), test.name)
		if !names[test.name] {
			t.Errorf("no tariff of %s: %v", test.name, names)
		}
	}
}
