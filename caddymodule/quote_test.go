package caddymodule_test

import (
	"fmt"
	"net/http"
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
