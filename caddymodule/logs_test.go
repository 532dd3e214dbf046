package caddymodule_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// filteredLog is what docs/security.md tells to write: an access log that has no key in it.
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
		body := s.do("GET", "/metrics", "", "").body
		for _, name := range []string{`tallygate_calls_total{cut="none",payee="acme"}`, `tallygate_refused_total{code="unauthorized",payee="acme"}`, "tallygate_settle_seconds_count", "tallygate_live_calls 0"} {
			if !strings.Contains(body, name) {
				t.Errorf("%s: no %s in\n%s", when, name, body)
			}
		}
	}
	check("before")
	s.load("", strings.Replace(site, "0.001", "0.002", 1))
	check("after the reload")
}

func TestNoKeyIsLoggedWhenTheProviderFails(t *testing.T) {
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
