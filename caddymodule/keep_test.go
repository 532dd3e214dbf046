package caddymodule_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
)

const keepSite = `handle /search* {
		meter acme {
			price 0.001 per call
			keep_responses 256KiB for 24h
		}
		reverse_proxy UPSTREAM
	}
	handle /v1/* {
		meter {
			payee llm
			tariff chat
			keep_responses 256KiB for 24h
		}
		reverse_proxy UPSTREAM
	}`

// TestAnAnswerIsGivenAgain: a call that is repeated with its idempotency key gets the stored answer, at no charge.
func TestAnAnswerIsGivenAgain(t *testing.T) {
	t.Parallel()
	served := 0
	s := openShop(t, chatPrices, keepSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		served++
		q := r.URL.Query()
		w.Header().Add("X-Twice", "a")
		w.Header().Add("X-Twice", fmt.Sprint(served))
		w.Header().Set("Tallygate-Charge", "forged")
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1"):
			answers(200, chatWhole, "Content-Type", "application/json")(w, r)
		case q.Has("empty"):
			w.WriteHeader(204)
		case q.Has("long"):
			_, _ = io.WriteString(w, strings.Repeat("long ", 40_000)) // 200 kB, of no announced length
		case q.Has("longer"):
			_, _ = io.WriteString(w, strings.Repeat("long ", 60_000))
		case q.Has("failed"):
			http.Error(w, "no", 500)
		case q.Has("stream"):
			eventStream("one", "[DONE]")(w, r)
		default:
			w.WriteHeader(201)
			_, _ = fmt.Fprintf(w, "ten results, the secret %d", served)
		}
	}))
	key := s.agent("alice", "1")
	for _, test := range []struct {
		target string
		status int // the status of the repeated call
	}{
		{"/search", 201}, {"/search?empty", 204}, {"/search?long", 200}, {chatCompletions, 200},
		{"/search?longer", 409}, {"/search?stream", 409}, {"/search?failed", 500},
	} {
		t.Run(test.target, func(t *testing.T) {
			s.t = t
			before := served
			body := ""
			if test.target == chatCompletions {
				body = chatBody
			}
			first := s.do("POST", test.target, key, body, "Idempotency-Key", test.target)
			balance := s.balance(key)
			again := s.do("POST", test.target, key, body, "Idempotency-Key", test.target)
			want(t, "wallet", s.balance(key), balance)
			want(t, "status", fmt.Sprint(again.status), fmt.Sprint(test.status))
			if test.status == 500 {
				want(t, "served", fmt.Sprint(served-before), "2") // it was not charged, and may be tried again
				return
			}
			want(t, "served", fmt.Sprint(served-before), "1")
			if test.status == 409 {
				wantProblem(t, again, 409, "idempotency_conflict")
				return
			}
			if again.body != first.body {
				t.Errorf("the answer is another one: %.100q, first %.100q", again.body, first.body)
			}
			want(t, "replayed", again.header.Get("Idempotency-Replayed"), "true")
			want(t, "replayed at first", first.header.Get("Idempotency-Replayed"), "")
			for _, name := range []string{"X-Twice", "Content-Type", "Tallygate-Request", "Tallygate-Units"} {
				want(t, name, fmt.Sprint(again.header.Values(name)), fmt.Sprint(first.header.Values(name)))
			}
			if charge := first.header.Get("Tallygate-Charge"); charge != "" {
				want(t, "Tallygate-Charge", again.header.Get("Tallygate-Charge"), charge)
			}
		})
	}
	s.t = t
	charge := s.do("POST", "/search", key, "", "Idempotency-Key", "/search").header.Get("Tallygate-Request")
	want(t, "charge on record", s.charge(key, charge)["amount"].(string), "0.001")

	// Another key of the same agent can't decrypt the answer, another agent does not get it, and another request is refused.
	second := s.api("POST", "/agents/me/keys", key, map[string]any{"name": "second"}, 201)["api_key"].(string)
	neverLog(second)
	wantProblem(t, s.do("POST", "/search", second, "", "Idempotency-Key", "/search"), 409, "idempotency_conflict")
	wantProblem(t, s.do("POST", "/search?other", key, "", "Idempotency-Key", "/search"), 409, "idempotency_conflict")
	wantProblem(t, s.do("POST", "/search", "nonsense", "", "Idempotency-Key", "/search"), 401, "unauthorized")
	other := s.agent("bob", "1")
	if a := s.do("POST", "/search", other, "", "Idempotency-Key", "/search"); a.header.Get("Idempotency-Replayed") != "" || strings.Contains(a.body, "secret 1") {
		t.Errorf("another agent has it: %s", a.body)
	}
	s.wantBooks(key, "1", decimal.RequireFromString("0.001").Mul(decimal.NewFromInt(5)).Add(decimal.RequireFromString(chatCharge)))

	raw, err := os.ReadFile(s.db)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"ten results", "hello there", key} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%q stands in the ledger's file in clear", secret)
		}
	}
}

// TestAnAnswerThatWasLost kills the server after it has charged an answer, when nobody knows whether the answer has arrived. After the next start
// the answer is available.
func TestAnAnswerThatWasLost(t *testing.T) {
	t.Parallel()
	served := 0
	p := newProcess(t, "1s", chatPrices, keepSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		_, _ = io.WriteString(w, "ten results")
	}))
	p.start()
	key := p.agent("alice", "1")
	want(t, "first", p.do("POST", "/search", key, "{}", "Idempotency-Key", "k").body, "ten results")
	p.stop(os.Kill)
	p.start()
	again := p.do("POST", "/search", key, "{}", "Idempotency-Key", "k")
	want(t, "again", again.body, "ten results")
	want(t, "replayed", again.header.Get("Idempotency-Replayed"), "true")
	want(t, "served", fmt.Sprint(served), "1")
	want(t, "wallet", p.balance(key), "0.999")
	p.verify()
}

// TestAnAnswerIsGivenAgainForATime: a stored answer is not used for longer than its time.
func TestAnAnswerIsGivenAgainForATime(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", strings.Replace(keepSite[:strings.Index(keepSite, "handle /v1")], "for 24h", "for 50ms", 1), text("results"))
	key := s.agent("alice", "1")
	s.do("POST", "/search", key, "", "Idempotency-Key", "k")
	eventually(t, "the answer is no longer given", func() bool {
		return s.do("POST", "/search", key, "", "Idempotency-Key", "k").status == 409
	})
	want(t, "wallet", s.balance(key), "0.999")
}
