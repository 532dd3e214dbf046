package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const quoteSite = `
	handle /search* {
		meter acme 0.5 per call
		reverse_proxy UPSTREAM
	}
	handle /judged* {
		meter acme {
			price 0.5 per call
			quality header X-Score {
				>= 0.5 100%
			}
		}
		reverse_proxy UPSTREAM
	}
	handle /locked* {
		meter locked {
			price 0.5 per call
			charge escrow
		}
		reverse_proxy UPSTREAM
	}
	handle /opened* {
		meter opened {
			price 0.5 per call
			charge escrow {
				open 5 for 1h
			}
		}
		reverse_proxy UPSTREAM
	}
	handle /flat* {
		meter flat {
			subscription weekly 1 per 168h
		}
		reverse_proxy UPSTREAM
	}
	handle /quota* {
		meter quota {
			subscription base 1 per 168h {
				included 1 call
				overage 0.3 per call from 0.5
			}
		}
		reverse_proxy UPSTREAM
	}`

// A quote is affordable if the call would be accepted. A quote moves no money.
func TestQuotesTellWhatIsAffordable(t *testing.T) {
	t.Parallel()
	served := 0
	s := openShop(t, "min_escrow 0.1", quoteSite, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served++
		w.Header().Set("X-Score", "1")
	}))
	alice, poor := s.agent("alice", "10"), s.agent("poor", "0")
	quote := func(key, path string) string {
		t.Helper()
		q := s.api("POST", "/quote", key, map[string]any{"method": "GET", "path": path}, 200)
		return fmt.Sprint(q["most"], " ", q["affordable"])
	}
	want(t, "rich", quote(alice, "/search?q=x"), "0.5 true")
	want(t, "poor", quote(poor, "/search"), "0.5 false")
	want(t, "without a key", quote("", "/search"), "0.5 false")
	want(t, "judged", quote(alice, "/judged"), "0.5 true")
	want(t, "without an escrow", quote(alice, "/locked"), "0.5 false")
	want(t, "an escrow would be opened", quote(alice, "/opened"), "0.5 true")
	want(t, "none can be opened", quote(poor, "/opened"), "0.5 false")
	want(t, "without a subscription", quote(alice, "/flat"), "0 false")
	want(t, "nothing was moved", s.balance(alice), "10")

	s.api("POST", "/escrow", alice, map[string]any{"to_agent_id": "locked", "amount": "0.5"}, 201)
	want(t, "with an escrow", quote(alice, "/locked"), "0.5 true")
	want(t, "the escrow pays", fmt.Sprint(s.do("GET", "/locked", alice, "").status), "200")
	want(t, "the escrow is used up", quote(alice, "/locked"), "0.5 false")

	s.api("POST", "/subscriptions", alice, map[string]any{"payee": "flat", "plan": "weekly"}, 201)
	want(t, "with a subscription", quote(alice, "/flat"), "0 true")
	s.api("POST", "/subscriptions", alice, map[string]any{"payee": "quota", "plan": "base"}, 201)
	for i, affordable := range []string{"true", "true", "false"} { // the quota, the pool, nothing
		want(t, fmt.Sprint("call ", i), quote(alice, "/quota"), "0.3 "+affordable)
		want(t, fmt.Sprint("call ", i), fmt.Sprint(s.do("GET", "/quota", alice, "").status == 200), affordable)
	}
	if served != 3 {
		t.Errorf("the provider was asked %d times, want 3: quotes ask nobody", served)
	}
}

// TestQuotesAskAsTheCallerWould: the quoted request passes the same handlers as the call: those that select a host, set placeholders, or find
// out who calls.
func TestQuotesAskAsTheCallerWould(t *testing.T) {
	t.Parallel()
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "good" {
			w.WriteHeader(403)
			return
		}
		w.Header().Set("X-Agent", "bob")
	}))
	t.Cleanup(auth.Close)
	s := &shop{t: t, directive: " "}
	s.open("", `
	}
	http://*.shop.test:PORT, http://shop.test:PORT {
		tallygate
		@a host a.shop.test
		handle @a {
			meter a 0.05 per call
			reverse_proxy UPSTREAM
		}
		@b host b.shop.test
		handle @b {
			meter b 0.5 per call
			reverse_proxy UPSTREAM
		}
		@placed vars {http.request.host} c.shop.test
		handle @placed {
			meter c 0.25 per call
			reverse_proxy UPSTREAM
		}
		@version header X-Version 2
		handle @version {
			meter d 0.75 per call
			reverse_proxy UPSTREAM
		}
		handle /auth/* {
			forward_auth `+auth.Listener.Addr().String()+` {
				uri /
				copy_headers X-Agent
			}
			meter {
				payee e
				price 0.125 per call
				agent {http.request.header.X-Agent}
			}
			reverse_proxy UPSTREAM
		}
		handle /free/* {
			reverse_proxy UPSTREAM
		}
		handle /no/* {
			error 403
		}
	}
	http://other.test:PORT {
		meter f 0.375 per call
		reverse_proxy UPSTREAM
	`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("the upstream got %s", r.URL) }))
	api := func(host, order string, header ...string) answer {
		r := s.request("POST", "/api/v1/quote", "", order, header...)
		r.Host = host + ":" + s.port
		return send(t, r)
	}
	for _, test := range []struct {
		host, order string
		header      []string
		estimate    string
	}{
		{"a.shop.test", `{"path":"/x"}`, nil, "0.05"},
		{"b.shop.test", `{"path":"/x"}`, nil, "0.5"},
		{"c.shop.test", `{"path":"/x"}`, nil, "0.25"},
		{"shop.test", `{"path":"/x","headers":{"X-Version":"2"}}`, nil, "0.75"},
		{"shop.test", `{"path":"/x"}`, []string{"X-Version", "2"}, "0.75"},
		{"shop.test", `{"path":"http://b.shop.test/x"}`, nil, "0.5"},
		{"shop.test", `{"path":"https://other.test/x?y"}`, nil, "0.375"},
		{"shop.test", `{"path":"/auth/x"}`, []string{"X-Token", "good"}, "0.125"},
		{"shop.test", `{"path":"/x","headers":{"X-Version":"2"}}`, []string{"Authorization", "Basic YTpi"}, "0.75"},
	} {
		a := api(test.host, test.order, test.header...)
		var quote struct{ Estimate string }
		_ = json.Unmarshal([]byte(a.body), &quote)
		if a.status != 200 || quote.Estimate != test.estimate {
			t.Errorf("%s %s: %d %s, want %s", test.host, test.order, a.status, a.body, test.estimate)
		}
	}
	for _, test := range []struct {
		path   string
		status int
		says   string
	}{
		{"/free/x", 404, "passes no meter"}, {"/nowhere", 404, "passes no meter"}, {"/api/v1/wallet", 404, "passes no meter"},
		{"/no/x", 422, "can't be quoted: before a meter, this server answers it with 403"},
		{"/auth/x", 422, "can't be quoted: before a meter, this server answers it with 403"},
	} {
		a := api("shop.test", `{"path":"`+test.path+`"}`)
		if a.status != test.status || !strings.Contains(a.body, test.says) {
			t.Errorf("%s: %d %s", test.path, a.status, a.body)
		}
	}
}
