package caddymodule_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestFreeIsJudgedUpstream: a call is not free if only the caller's path is free, and the rewritten path that goes to the provider is not. A
// rewrite that keeps the meaning changes nothing.
func TestFreeIsJudgedUpstream(t *testing.T) {
	t.Parallel()
	up := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"path":"` + r.Method + " " + r.URL.Path + `","secret":"answer"}`))
	})
	site := "meter {\n\t\tpayee llm\n\t\ttariff chat\n\t}\n" + `
	handle /ask/messages/count_tokens {
		rewrite * /v1/messages
		reverse_proxy UPSTREAM
	}
	handle /strip/* {
		uri strip_suffix /count_tokens
		reverse_proxy UPSTREAM
	}
	handle /replace/* {
		uri replace models search
		reverse_proxy UPSTREAM
	}
	handle /post/* {
		method POST
		reverse_proxy UPSTREAM
	}
	handle_path /llm/* {
		reverse_proxy UPSTREAM
	}
	handle {
		reverse_proxy UPSTREAM
	}`
	s := openShop(t, chatPrices, site, up)
	key := s.agent("alice", "1")
	body := `{"model":"test-1","messages":[{"role":"user","content":"hi"}],"max_tokens":5}`
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/ask/messages/count_tokens", body, 422},
		{"POST", "/strip/v1/messages/count_tokens", body, 422},
		{"GET", "/replace/v1/models", "", 422},
		{"GET", "/post/v1/models", "", 422},
		{"GET", "/llm/v1/models", "", 200},
		{"POST", "/llm/v1/messages/count_tokens", body, 200},
		{"GET", "/v1/models", "", 200},
		{"POST", "/v1/messages/count_tokens", body, 200},
	} {
		a := s.do(test.method, test.path, key, test.body)
		if a.status != test.status || a.status != 200 && strings.Contains(a.body, "secret") {
			t.Errorf("%s %s: %d %s %v, want %d", test.method, test.path, a.status, a.body, a.err, test.status)
		}
	}
	want(t, "wallet", s.balance(key), "1")
}

// TestAProxyDoesNotRewriteBehindTheMeter: the meter can't see what a proxy itself rewrites, so such a config does not start.
func TestAProxyDoesNotRewriteBehindTheMeter(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", perCallSite, text("results"))
	config, err := adapt(strings.Replace(s.caddyfile(chatPrices, strings.ReplaceAll(chatSite, "reverse_proxy UPSTREAM", "reverse_proxy 127.0.0.1:9 {\n\t\trewrite /v1/messages\n\t}")), s.db, s.db+".other", 1))
	if err != nil {
		t.Fatal(err)
	}
	stop, err := startConfig(config)
	if err == nil {
		_ = stop()
		t.Fatal("the config starts")
	}
	if !strings.Contains(err.Error(), "reverse_proxy rewrites") {
		t.Error(err)
	}
}
