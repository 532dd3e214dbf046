package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filteredLog is the filter in docs/security.md, with which an access log contains no keys.
const filteredLog = `log {
		output file LOGFILE
		format filter {
			request>headers>X-Api-Key delete
			request>headers>X-Goog-Api-Key delete
			request>headers>Api-Key delete
			request>headers>Tallygate-Key delete
			request>uri query {
				replace key REDACTED
			}
		}
	}`

func TestAccessLogTellsTheChargeAndNoKey(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "access.log")
	s := openShop(t, "", strings.Replace(filteredLog, "LOGFILE", file, 1)+"\n\tlog_append cost {tallygate.charge}\n\t"+perCallSite, text("results"))
	key := s.agent("alice", "1")
	for _, headers := range [][]string{
		{"Authorization", "Bearer " + key}, {"X-Api-Key", key}, {"X-Goog-Api-Key", key}, {"Api-Key", key}, {"Tallygate-Key", key},
	} {
		s.do("GET", "/search", "", "", headers...)
	}
	last := s.do("GET", "/search?q=x&key="+key, "", "")
	var logged string
	eventually(t, "all requests are logged", func() bool {
		raw, err := os.ReadFile(file)
		logged = string(raw)
		return err == nil && strings.Count(logged, `"uri":"/search`) == 6
	})
	if strings.Contains(logged, key) {
		t.Errorf("the key is in the access log:\n%s", logged)
	}
	for _, field := range []string{
		`"tallygate_request":"` + last.header.Get("Tallygate-Request") + `"`, `"tallygate_payer":"alice"`, `"tallygate_payee":"acme"`,
		`"tallygate_charge":"0.001"`, `"tallygate_units":"call=1"`, `"cost":"0.001"`,
	} {
		if !strings.Contains(logged, field) {
			t.Errorf("no %s in the access log:\n%s", field, logged)
		}
	}
}

func TestMetricsSurviveAReload(t *testing.T) {
	site := perCallSite + "\n\thandle /metrics {\n\t\tmetrics\n\t}"
	s := openShop(t, "", site, text("results"))
	key := s.agent("metered", "1")
	s.do("GET", "/search", key, "")
	s.do("GET", "/search", "nonsense", "")
	check := func(when string) {
		t.Helper()
		a := s.do("GET", "/metrics", "", "")
		if a.err != nil || a.status != 200 {
			t.Fatalf("%s: %d %v", when, a.status, a.err)
		}
		for _, name := range []string{`tallygate_calls_total{cut="none",model="",payee="acme",payer="",route=`, `tallygate_units_total{class="call",model="",payee="acme",route=`, `tallygate_refused_total{code="unauthorized",payee="acme"}`, "tallygate_settle_seconds_count", "tallygate_live_calls 0", "tallygate_ready 1", "tallygate_due_behind_seconds 0", "tallygate_disk_free_bytes"} {
			if !strings.Contains(a.body, name) {
				t.Errorf("%s: no %s in\n%s", when, name, a.body)
			}
		}
	}
	check("before")
	s.load("", strings.Replace(site, "0.001", "0.002", 1))
	check("after the reload")
}

func TestNoKeyIsLoggedWhenTheProviderFails(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "handle /search* {\n\t\tmeter acme 0.001 per call\n\t\treverse_proxy 127.0.0.1:1\n\t}", text(""))
	key := s.agent("alice", "1")
	for _, headers := range [][]string{
		{"Authorization", "Bearer " + key}, {"X-Api-Key", key}, {"X-Goog-Api-Key", key}, {"Api-Key", key}, {"Tallygate-Key", key},
	} {
		a := s.do("GET", "/search?key="+key, "", "", headers...)
		wantProblem(t, a, 502, "upstream_failed")
	}
	// The shop's log, errors and debug messages included, is searched for the key when the test ends.
}

func TestTheStartWarnsOfLogsThatShowKeys(t *testing.T) {
	t.Parallel()
	filtered := strings.Replace(filteredLog, "LOGFILE", filepath.Join(t.TempDir(), "access.log"), 1)
	plain := "log {\n\t\toutput file " + filepath.Join(t.TempDir(), "access.log") + "\n\t}"
	for _, test := range []struct {
		name, site, logger string
		global             bool // the default log is filtered
	}{
		{"no access log", perCallSite, "", false},
		{"filtered", "log {\n\t\thostnames 127.0.0.1\n" + strings.TrimPrefix(filtered, "log {") + "\n\t" + perCallSite, "", true},
		{"not filtered", plain + "\n\t" + perCallSite, `"logger":"http.log.access.log0"`, true},
		{"on the default log", "log\n\t" + perCallSite, `"logger":"http.log.access`, false},
		{"on the default log, filtered", "log\n\t" + perCallSite, "", true},
		{"not metered", plain + "\n\trespond hello", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &shop{t: t, filtered: test.global}
			s.open("", test.site, text("results"))
			logged, err := os.ReadFile(s.log)
			if err != nil {
				t.Fatal(err)
			}
			warned := strings.Contains(string(logged), "an access log shows keys")
			if warned != (test.logger != "") || !strings.Contains(string(logged), test.logger) {
				t.Errorf("warned: %v, want %q in\n%s", warned, test.logger, logged)
			}
		})
	}
}

func TestShadowModeCountsWhatItWouldRefuse(t *testing.T) {
	t.Parallel()
	site := "handle /search* {\n\t\tmeter acme-shadow {\n\t\t\tprice 0.001 per call\n\t\t\tenforce off\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}\n\thandle /metrics {\n\t\tmetrics\n\t}"
	s := openShop(t, "", site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tallygate-Charge", "7") // forged
		_, _ = io.WriteString(w, "results")
	}))
	key := s.agent("alice", "1")
	passed := func() (n int) { // since the process started
		_, rest, _ := strings.Cut(s.do("GET", "/metrics", "", "").body, `tallygate_shadow_passed_total{code="unauthorized",payee="acme-shadow"} `)
		_, _ = fmt.Sscan(rest, &n)
		return n
	}
	before := passed()
	for _, with := range []string{"", "nonsense", key} {
		a := s.do("GET", "/search", with, "")
		want(t, "answer", fmt.Sprint(a.status, " ", a.body), "200 results")
		want(t, "charge", a.header.Get("Tallygate-Charge"), "0")
		if a.header.Get("Tallygate-Request") == "" {
			t.Error("the call has no id")
		}
	}
	want(t, "shadow charges", fmt.Sprint(len(s.charges(key))), "1")
	want(t, "passed", fmt.Sprint(passed()-before), "2")
	logged, err := os.ReadFile(s.log)
	if n := strings.Count(string(logged), "shadow mode lets a call pass that would be refused"); err != nil || n != 2 {
		t.Errorf("logged %d times, %v", n, err)
	}
}
