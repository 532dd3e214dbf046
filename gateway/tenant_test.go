package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// TestIdempotencyKeysAreThePayersOwn: the provider always gets the same key for one key of one payer, and different keys for different
// payers, whatever header the key is in.
func TestIdempotencyKeysAreThePayersOwn(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.001 per call")}, func(_ http.ResponseWriter, r *http.Request) {
		seen <- fmt.Sprint(r.Header["Idempotency-Key"], r.Header["X-Idempotency-Key"], r.Header["Idempotency_key"])
	})
	bob := s.agent("bob", "1")
	send := func(key, name, value string) string {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, s.url, nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+key)
		request.Header[name] = []string{value}
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		_ = response.Body.Close()
		return <-seen
	}
	for _, name := range []string{"X-Idempotency-Key", "Idempotency_key"} { // those that we take for no key ourselves
		first := send(s.key, name, "k")
		if again := send(s.key, name, "k"); again != first {
			t.Errorf("%s: the same key of the same payer went on as %s and %s", name, first, again)
		}
		if other := send(s.key, name, "l"); other == first {
			t.Errorf("%s: another key went on as the same", name)
		}
		if others := send(bob, name, "k"); others == first {
			t.Errorf("%s: the same key of another payer went on as the same: %s", name, others)
		}
	}
	if alices, bobs := send(s.key, "Idempotency-Key", "k"), send(bob, "Idempotency-Key", "k"); alices == bobs {
		t.Errorf("two payers' keys went on as %s", alices)
	}
}

// TestAnswersAreNobodyElses: no cache in front of the server gives an answer that was paid for, or the payer's balance, to others.
func TestAnswersAreNobodyElses(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]http.HandlerFunc{
		"whole": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=3600")
			_, _ = io.WriteString(w, "answer")
		},
		"streamed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=3600")
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
		},
		"failed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=3600")
			w.WriteHeader(http.StatusNotFound)
		},
	} {
		for price, what := range map[string]string{"0.001 per call": "known before", "0.000001 per byte": "known after"} {
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, price)}, provider)
			request, err := http.NewRequest(http.MethodGet, s.url, nil)
			must(t, err)
			request.Header.Set("Tallygate-Key", s.key)
			response, err := http.DefaultClient.Do(request)
			must(t, err)
			_, err = io.ReadAll(response.Body)
			must(t, err)
			_ = response.Body.Close()
			want := "private, max-age=3600"
			if response.Header.Get("Tallygate-Balance") != "" {
				want = "no-store"
			}
			if got := response.Header.Get("Cache-Control"); got != want {
				t.Errorf("%s, a price %s: Cache-Control %q, want %q", name, what, got, want)
			}
		}
	}
}

// TestAnswersGivenAgainAreNobodyElses: a stored answer that is given again has the same cache headers as the first time.
func TestAnswersGivenAgainAreNobodyElses(t *testing.T) {
	t.Parallel()
	for _, price := range []string{"0.001 per call", "0.000001 per byte"} {
		route := gateway.Route{Rates: rates(t, price), Keep: &gateway.Keep{Size: 1 << 10, For: time.Hour}}
		s := openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=3600")
			_, _ = io.WriteString(w, "answer")
		})
		for _, replayed := range []string{"", "true"} {
			answer, body := s.get("Idempotency-Key", "k")
			if body != "answer" || answer.Header.Get("Idempotency-Replayed") != replayed {
				t.Errorf("%d %s, replayed %q", answer.StatusCode, body, answer.Header.Get("Idempotency-Replayed"))
			}
			if told := answer.Header.Get("Cache-Control"); told != "no-store" && told != "private, max-age=3600" {
				t.Errorf("%s, replayed %q: Cache-Control %q", price, replayed, told)
			}
		}
	}
}
