package caddymodule_test

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestWatchedMetricsExist: each metric that the dashboard and the alerts ask for is one that a server has, with the labels that they use.
func TestWatchedMetricsExist(t *testing.T) {
	p := newProcess(t, "1s", chatPrices, chatSite, answers(200, `{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2},"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"a"}}]}`, "Content-Type", "application/json"))
	p.start()
	defer p.stop(syscall.SIGTERM)
	if a := p.do("POST", "/v1/chat/completions", p.agent("alice", "10"), chatOf("test-1")); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := p.do("POST", "/v1/chat/completions", p.agent("bob", "0"), chatOf("test-1")); a.status != 402 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.url = "http://" + p.admin
	metrics := p.do("GET", "/metrics", "", "").body
	for _, file := range []string{"grafana.json", "alerts.yaml", "alerts_test.yaml"} {
		text, err := os.ReadFile("../docs/observability/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`tallygate_\w+(?:\{[^}]*\})?`).FindAllString(strings.ReplaceAll(string(text), `\"`, `"`), -1)
		if len(names) < 4 {
			t.Fatalf("%s asks for %v only", file, names)
		}
		for _, asked := range names {
			name, labels, _ := strings.Cut(asked, "{")
			if strings.HasPrefix(name, "tallygate_withheld_total") { // nothing was withheld, so it is not shown
				continue
			}
			line := regexp.MustCompile(`(?m)^` + name + `(?:\{.*\})? .*$`).FindString(metrics)
			if line == "" {
				t.Errorf("%s asks for %s, which the server does not have", file, name)
			}
			for _, label := range regexp.MustCompile(`(\w+)\s*(?:=|!=)~?"`).FindAllStringSubmatch(labels, -1) {
				if label[1] != "instance" && !strings.Contains(line, label[1]+`="`) {
					t.Errorf("%s: %s has no label %s: %s", file, name, label[1], line)
				}
			}
		}
	}
}
