package caddymodule_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func TestFlatSubscription(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "handle /feed* {\n\t\tmeter {\n\t\t\tpayee feed\n\t\t\tsubscription weekly 10.00 per 168h\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", text("news"))
	key := s.agent("alice", "15")
	bare := s.do("GET", "/feed", key, "")
	wantProblem(t, bare, 402, "subscription_required")
	for _, part := range []string{`"plan":"weekly"`, `"price":"10"`, `"period":"168h"`} {
		if !strings.Contains(bare.body, part) {
			t.Errorf("no %s in %s", part, bare.body)
		}
	}
	sub := s.api("POST", "/subscriptions", key, map[string]any{"payee": "feed", "plan": "weekly"}, 201)
	want(t, "wallet", s.balance(key), "5")
	for range 3 {
		a := s.do("GET", "/feed", key, "")
		want(t, "body", a.body, "news")
		want(t, "charge", a.header.Get("Tallygate-Charge"), "0")
		if terms := a.header.Get("Tallygate-Subscription"); !strings.HasPrefix(terms, "weekly; renews=") || !strings.HasSuffix(terms, "; renewal=unfunded") {
			t.Errorf("terms: %q", terms)
		}
	}
	want(t, "wallet after three calls", s.balance(key), "5")
	want(t, "charges", fmt.Sprint(len(s.charges(key))), "3")
	if id, _ := sub["subscription_id"].(string); id == "" {
		t.Errorf("no subscription_id in %v", sub)
	}
}

const hybridSite = `handle /saas* {
		meter {
			payee saas
			subscription base 5.00 per 168h {
				included 10 calls
				overage 0.01 per call from 0.05
			}
		}
		reverse_proxy UPSTREAM
	}`

func TestQuotaAndOverage(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", hybridSite, text("done"))
	key := s.agent("alice", "20")
	s.api("POST", "/subscriptions", key, map[string]any{"payee": "saas", "plan": "base"}, 201)
	want(t, "wallet after consent", s.balance(key), "14.95")
	for i := 1; i <= 15; i++ {
		a := s.do("GET", "/saas", key, "")
		charge := "0"
		if i > 10 {
			charge = "0.01"
		}
		want(t, fmt.Sprintf("charge of call %d", i), a.header.Get("Tallygate-Charge"), charge)
		if left := fmt.Sprintf("left=%d", max(0, 10-i)); !strings.Contains(a.header.Get("Tallygate-Subscription"), left) {
			t.Errorf("call %d: %q, want %s", i, a.header.Get("Tallygate-Subscription"), left)
		}
	}
	wantProblem(t, s.do("GET", "/saas", key, ""), 402, "insufficient_funds")
	want(t, "payee's wallet: the overage; the base comes at the period's end", s.balanceOf("saas"), "0.05")
	want(t, "payer's wallet", s.balance(key), "14.95")
}

func TestAFailedCallTakesNothingOfTheQuota(t *testing.T) {
	t.Parallel()
	fail := true
	s := openShop(t, "", hybridSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail {
			w.WriteHeader(500)
		}
	}))
	key := s.agent("alice", "20")
	s.api("POST", "/subscriptions", key, map[string]any{"payee": "saas", "plan": "base"}, 201)
	s.do("GET", "/saas", key, "")
	fail = false
	if terms := s.do("GET", "/saas", key, "").header.Get("Tallygate-Subscription"); !strings.Contains(terms, "left=9") {
		t.Errorf("after a failed and a good call: %q", terms)
	}
}

func TestAQuotaUnitIsTakenOnceUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", strings.ReplaceAll(hybridSite, "\t\t\t\toverage 0.01 per call from 0.05\n", ""), text("done"))
	key := s.agent("alice", "20")
	s.api("POST", "/subscriptions", key, map[string]any{"payee": "saas", "plan": "base"}, 201)
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			a := s.do("GET", "/saas", key, "")
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	wg.Wait()
	if statuses[200] != 10 || statuses[402] != 20 {
		t.Errorf("of 30 calls at once on a quota of 10: %v", statuses)
	}
}

// A quota without overage is also counted in its own unit.
func TestAQuotaWithoutOverageIsUsedUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		included, path, body string
		upstream             http.Handler
		served               int
	}{
		{"2 calls", "/v1/search", "", text("results"), 2},
		{"2400 tokens", chatCompletions, chatBody, &chat{}, 2},
		{"20 bytes", "/v1/search", "", text("0123456789"), 2},
		{"4 asked_images", "/v1/images/generations", `{"model":"m","n":2}`, text("{}"), 2},
		{"10 input_characters", "/v1/audio/speech", `{"model":"m","input":"hello"}`, text("sound"), 2},
		{"24 input_bytes", "/v1/upload", "0123456789ab", text("stored"), 2},
	} {
		t.Run(test.included, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, "", "handle /v1/* {\n\t\tmeter {\n\t\t\tpayee llm\n\t\t\tsubscription base 5.00 per 168h {\n\t\t\t\tincluded "+test.included+"\n\t\t\t}\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", test.upstream)
			key := s.agent("alice", "20")
			s.api("POST", "/subscriptions", key, map[string]any{"payee": "llm", "plan": "base"}, 201)
			method, served := "GET", 0
			if test.body != "" {
				method = "POST"
			}
			for range test.served + 1 {
				if a := s.do(method, test.path, key, test.body); a.err == nil && a.status == 200 {
					served++
				}
			}
			if served != test.served {
				t.Errorf("%d calls were served, want %d: %v", served, test.served, s.charges(key))
			}
			want(t, "wallet", s.balance(key), "15")
		})
	}
}

func TestTokensOfAQuota(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `handle /v1/* {
		meter {
			payee llm
			subscription base 5.00 per 168h {
				included 2000 tokens
				overage 0.001 per token
			}
		}
		reverse_proxy UPSTREAM
	}`, &chat{})
	key := s.agent("alice", "20")
	s.api("POST", "/subscriptions", key, map[string]any{"payee": "llm", "plan": "base"}, 201)
	first := s.do("POST", chatCompletions, key, chatStream) // 1200 tokens
	want(t, "charge of the first", first.trailer.Get("Tallygate-Charge"), "0")
	second := s.do("POST", chatCompletions, key, chatBody)
	want(t, "charge of the second: 400 tokens beyond", second.header.Get("Tallygate-Charge"), "0.4")
	want(t, "wallet", s.balance(key), "14.6")
}
