package caddymodule_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestWhoCallsUpstream: handlers below a meter, and the provider, can tell who calls.
func TestWhoCallsUpstream(t *testing.T) {
	t.Parallel()
	var last http.Header
	s := openShop(t, "identify upstream", `
	route /told/* {
		meter {
			payee acme
			price 0.001 per call
		}
		@vip vars {tallygate.payer} alice
		header @vip X-Vip yes
		header X-About "{tallygate.payer} {tallygate.payee} {tallygate.key} {tallygate.plan} {tallygate.tags} {tallygate.tags.team}"
		reverse_proxy UPSTREAM {
			header_up X-Request {tallygate.request}
		}
	}
	handle /signed/* {
		meter {
			payee acme
			price 0.001 per call
			identify upstream signed
		}
		reverse_proxy UPSTREAM
	}
	handle /nothing/* {
		meter {
			payee acme
			price 0.001 per call
			identify none
		}
		reverse_proxy UPSTREAM
	}
	route /plan/* {
		meter flat {
			subscription weekly 1 per 168h
		}
		header X-About "{tallygate.plan}"
		reverse_proxy UPSTREAM
	}
	handle /shadow/* {
		meter {
			payee acme
			price 0.001 per call
			enforce off
		}
		reverse_proxy UPSTREAM
	}
	handle /nested/* {
		meter outer 0.001 per call
		route {
			meter inner 0.001 per call
			header X-About "{tallygate.payee} {tallygate.request}"
			reverse_proxy UPSTREAM
		}
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { last = r.Header }))
	key := s.agent("alice", "10")
	id := s.api("GET", "/agents/me", key, nil, 200)["key_id"].(string)
	forged := []string{"Tallygate-Payer", "mallory", "Tallygate-Request", "req_forged", "Tallygate-Tag", "team=x, run=7"}

	a := s.do("GET", "/told/x", key, "", forged...)
	request := a.header.Get("Tallygate-Request")
	want(t, "about", a.header.Get("X-About"), "alice acme "+id+"  run=7,team=x x")
	want(t, "a matcher", a.header.Get("X-Vip"), "yes")
	want(t, "headers", fmt.Sprint(last["Tallygate-Payer"], last["Tallygate-Request"], last["X-Request"], last["Webhook-Signature"]), fmt.Sprintf("[alice] [%s] [%s] []", request, request))

	a = s.do("GET", "/signed/x", key, "", append(forged, "Webhook-Id", "1", "Webhook-Signature", "v1,x")...)
	want(t, "signed", fmt.Sprint(last["Tallygate-Payer"], last["Webhook-Id"]), fmt.Sprintf("[alice] [%s]", a.header.Get("Tallygate-Request")))
	secret := s.api("GET", "/identity-secret?agent_id=acme", operatorKey, nil, 200)["secret"].(string)
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify([]byte("alice"), last); err != nil {
		t.Error(err)
	}
	if err := verifier.Verify([]byte("mallory"), last); err == nil {
		t.Error("the signature is good for another payer")
	}
	if own := s.api("GET", "/identity-secret", key, nil, 200)["secret"]; own == secret {
		t.Error("alice sees the secret of acme")
	}

	s.do("GET", "/nothing/x", key, "", forged...)
	want(t, "nothing", fmt.Sprint(last["Tallygate-Payer"], last["Tallygate-Request"]), "[] []")
	s.api("POST", "/subscriptions", key, map[string]any{"payee": "flat", "plan": "weekly"}, 201)
	want(t, "plan", s.do("GET", "/plan/x", key, "").header.Get("X-About"), "weekly")
	a = s.do("GET", "/shadow/x", key, "", forged...)
	want(t, "in shadow", fmt.Sprint(last["Tallygate-Payer"], last["Tallygate-Request"]), fmt.Sprintf("[alice] [%s]", a.header.Get("Tallygate-Request")))
	s.do("GET", "/shadow/x", "", "", forged...)
	want(t, "in shadow, unknown", fmt.Sprint(last["Tallygate-Payer"]), "[]")
	a = s.do("GET", "/nested/x", key, "")
	want(t, "nested", a.header.Get("X-About"), "inner "+a.header.Get("Tallygate-Request"))
	want(t, "nested upstream", fmt.Sprint(last["Tallygate-Request"]), "["+a.header.Get("Tallygate-Request")+"]")

	logged, err := os.ReadFile(s.log)
	if err != nil || strings.Contains(string(logged), secret) {
		t.Errorf("the secret was logged, or %v", err)
	}
}
