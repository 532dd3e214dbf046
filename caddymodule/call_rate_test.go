package caddymodule_test

import (
	"encoding/json"
	"net/http"
	"testing"
)

func ok(t *testing.T, what string, a answer) {
	t.Helper()
	if a.err != nil || a.status != 200 {
		t.Errorf("%s: %d %s %v", what, a.status, a.body, a.err)
	}
}

// secret returns a key that must not be logged.
func secret(key string) string {
	neverLog(key)
	return key
}

// fieldOf is a text field of an answer in JSON.
func fieldOf(a answer, name string) string {
	var fields map[string]any
	_ = json.Unmarshal([]byte(a.body), &fields)
	text, _ := fields[name].(string)
	return text
}

// ratedSite has routes with rates by model, by tokens and by plan.
const ratedSite = `handle /search* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /v1/* {
		meter {
			payee llm
			tariff {
				model small* {
					input 1 per 1M tokens
					output 1 per 1M tokens
				}
				model big {
					input 2 per 1M tokens
					output 2 per 1M tokens
				}
			}
			rate 2 requests per 1h model big
		}
		reverse_proxy UPSTREAM
	}
	handle /flat/* {
		meter {
			payee llm
			price 0.01 per call
			rate 46 tokens per 1h
		}
		uri strip_prefix /flat
		reverse_proxy UPSTREAM
	}
	handle /plan* {
		meter {
			payee acme
			subscription base 1.00 per 168h {
				rate 1 request per 1h
			}
		}
		reverse_proxy UPSTREAM
	}`

// chatModel answers with 12 tokens of input and 34 of output.
var chatModel = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"object":"chat.completion","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":12,"completion_tokens":34}}`))
})

func chatOf(model string) string {
	return `{"model":"` + model + `","max_tokens":50,"messages":[{"role":"user","content":"hello"}]}`
}

func TestRates(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", ratedSite, chatModel)
	alice, bob := s.agent("alice", "20"), s.agent("bob", "20")
	chat := func(path, key, model string) answer {
		return s.do("POST", path+"/v1/chat/completions", key, chatOf(model))
	}
	limited := func(a answer, of string) {
		t.Helper()
		wantProblem(t, a, 429, "rate_limited")
		if a.header.Get("Retry-After") == "" || fieldOf(a, "rate_of") != of {
			t.Errorf("Retry-After %q, rate_of %q, want %q", a.header.Get("Retry-After"), fieldOf(a, "rate_of"), of)
		}
	}
	// by model, for each agent, in any case of the letters
	for range 2 {
		ok(t, "big", chat("", alice, "big"))
	}
	limited(chat("", alice, "BIG"), "model")
	ok(t, "another model", chat("", alice, "small-1"))
	ok(t, "another agent", chat("", bob, "big"))
	before := s.balance(alice)
	limited(chat("", alice, "big"), "model")
	want(t, "the wallet after a call that was refused", s.balance(alice), before)

	// by tokens, where the price does not depend on them
	ok(t, "the first of 46 tokens", chat("/flat", alice, "x"))
	limited(chat("/flat", alice, "x"), "route")

	// by plan
	s.api("POST", "/subscriptions", alice, map[string]any{"payee": "acme", "plan": "base"}, 201)
	ok(t, "plan", s.do("GET", "/plan", alice, ""))
	limited(s.do("GET", "/plan", alice, ""), "plan")

	// by key; the agent's other keys go on
	made := s.api("POST", "/agents/me/keys", alice, map[string]any{"rate": map[string]any{"requests_per_minute": 1}}, 201)
	key := secret(made["api_key"].(string))
	ok(t, "key", s.do("GET", "/search", key, ""))
	limited(s.do("GET", "/search", key, ""), "key")
	ok(t, "another key", s.do("GET", "/search", alice, ""))
	made = s.api("POST", "/agents/me/keys", alice, map[string]any{"rate": map[string]any{"tokens_per_minute": 46}}, 201)
	key = secret(made["api_key"].(string))
	ok(t, "key by tokens", chat("", key, "small-1"))
	limited(chat("", key, "small-1"), "key")

	// by agent, as the operator has set it
	s.api("PUT", "/agents/bob/limits", operatorKey, map[string]any{"rate": map[string]any{"requests_per_minute": 1}}, 200)
	ok(t, "agent", s.do("GET", "/search", bob, ""))
	limited(s.do("GET", "/search", bob, ""), "agent")
	s.api("PUT", "/agents/bob/limits", operatorKey, map[string]any{"rate": map[string]any{}}, 200)
	ok(t, "agent without a rate", s.do("GET", "/search", bob, ""))
}

func TestWhatAKeyMayCall(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", ratedSite, chatModel)
	alice := s.agent("alice", "20")
	newKey := func(o map[string]any) string {
		return secret(s.api("POST", "/agents/me/keys", alice, o, 201)["api_key"].(string))
	}
	chat := func(path, key, model string) answer {
		return s.do("POST", path+"/v1/chat/completions", key, chatOf(model))
	}
	small := newKey(map[string]any{"models": []string{"small*"}})
	ok(t, "small", chat("", small, "Small-1"))
	wantProblem(t, chat("", small, "big"), 403, "forbidden")
	ok(t, "small at one price", chat("/flat", small, "small-1"))
	wantProblem(t, chat("/flat", small, "big"), 403, "forbidden")
	wantProblem(t, s.do("GET", "/search", small, ""), 403, "forbidden")
	wantProblem(t, s.do("POST", "/flat/odd", small, chatOf("big")), 403, "forbidden")

	search := newKey(map[string]any{"routes": []string{"/search*"}})
	ok(t, "search", s.do("GET", "/search", search, ""))
	wantProblem(t, chat("", search, "small-1"), 403, "forbidden")
	both := newKey(map[string]any{"routes": []string{"/search*", "/v1/*"}, "models": []string{"big"}})
	ok(t, "search by both", s.do("GET", "/search", both, ""))
	ok(t, "big by both", chat("", both, "big"))
	wantProblem(t, chat("", both, "small-1"), 403, "forbidden")

	// A suspended agent makes no calls, whether they cost something or not, and reads.
	s.api("POST", "/agents/alice/suspend", operatorKey, map[string]any{"reason": "chargeback"}, 200)
	a := s.do("GET", "/search", alice, "")
	wantProblem(t, a, 403, "forbidden")
	want(t, "reason", fieldOf(a, "reason"), "chargeback")
	wantProblem(t, s.do("GET", "/v1/models", alice, ""), 403, "forbidden")
	s.api("GET", "/wallet", alice, nil, 200)
	s.api("POST", "/wallet/transfer", alice, map[string]any{"to_agent_id": "acme", "amount": 1}, 403)
	s.api("POST", "/agents/alice/resume", operatorKey, nil, 200)
	ok(t, "after it is resumed", s.do("GET", "/search", alice, ""))
}
