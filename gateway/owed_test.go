package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// memory is a provider that keeps what was said, of which 1500 tokens are older than the first call. Each answer has 100 tokens.
type memory struct {
	mu     sync.Mutex
	prompt int
	worked int
}

const secret = "what was answered"

func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/chat/completions"):
		fmt.Fprintf(w, `{"object":"list","data":[{"id":"a","content":%q}]}`, secret)
		return
	case r.Method != http.MethodPost:
		fmt.Fprintf(w, `{"id":"a","content":%q}`, secret)
		return
	}
	body, _ := io.ReadAll(r.Body)
	m.worked++
	usage := fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":100,"total_tokens":%d}`, m.prompt, m.prompt+100)
	m.prompt += 100
	words := strings.Repeat("w ", 100)
	if !strings.Contains(string(body), `"stream":true`) {
		fmt.Fprintf(w, `{"id":"a","status":"completed","model":"m",%s,"outputs":[{"content":%q}],"choices":[{"message":{"content":%q}}],"output":[{"content":[{"text":%q}]}]}`, usage, words, words, words)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	switch {
	case strings.HasSuffix(r.URL.Path, "/responses"):
		fmt.Fprintf(w, "data: {\"type\":\"response.output_text.delta\",\"delta\":%q}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"a\",\"status\":\"completed\",%s}}\n\n", words, usage)
	case strings.Contains(r.URL.Path, "/conversations"):
		fmt.Fprintf(w, "data: {\"type\":\"message.output.delta\",\"content\":%q}\n\ndata: {\"type\":\"conversation.response.done\",%s}\n\n", words, usage)
	default:
		fmt.Fprintf(w, "data: {\"id\":\"a\",\"object\":\"thread.run\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":%q}}]}\n\ndata: {\"id\":\"a\",\"object\":\"thread.run\",\"model\":\"m\",\"choices\":[],%s}\n\ndata: [DONE]\n\n", words, usage)
	}
}

// TestWhatIsOwedIsPaidFirst: an answer that its caller could not pay in full, and that the provider keeps, is not had by reading it: what is missing
// is paid first. The next call is held for in full, though most of its input is not in its request.
func TestWhatIsOwedIsPaidFirst(t *testing.T) {
	t.Parallel()
	reads := map[string]string{
		"a conversation": "/v1/conversations/conv_1/items", "a conversation, by an object": "/v1/conversations/conv_1", "a conversation of Mistral's": "/v1/conversations/conv_1/history",
		"a stored completion": "/v1/chat/completions/a", "a thread": "/v1/threads/thread_1/messages",
	}
	for _, k := range keepers {
		for _, stream := range []bool{false, true} {
			for _, payment := range []gateway.Payment{gateway.Wallet{}, gateway.Escrow{Open: amount("1")}} {
				if !stream && k.name == "a thread" {
					continue // without a stream it has no price
				}
				t.Run(fmt.Sprintf("%s, stream %t, %T", k.name, stream, payment), func(t *testing.T) {
					t.Parallel()
					provider := &memory{prompt: 1500}
					s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: inAndOut(t), Payment: payment, Shared: shared(t, "conversations/*", "threads/*", "assistants/*")}, provider.ServeHTTP)
					bob := s.another("bob")
					request := fmt.Sprintf(`%s,"stream":%t}`, k.request, stream)
					read := reads[k.name]
					fund := func(much string) {
						t.Helper()
						must(t, s.do(func(tx *escrow.Tx) error {
							_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount(much)})
							return err
						}))
					}

					_, answer := s.call(s.key, http.MethodPost, k.path, request)
					if strings.Contains(answer, `"usage"`) || !strings.Contains(answer, "insufficient_funds") {
						t.Errorf("without the money: %s", answer)
					}
					want(t, "balance", s.balance("alice"), "0")
					want(t, "owed", s.charges()[0].Owed, "0.6")
					if !stream {
						want(t, "told", gjson.Get(answer, "owed").String(), "0.6")
					}

					refused := func(what, key string, status int, headers ...string) {
						t.Helper()
						r, body := s.call(key, http.MethodGet, read, "", headers...)
						want(t, what, r.StatusCode, status)
						if strings.Contains(body, secret) {
							t.Errorf("%s: it is read: %s", what, body)
						}
						if status == http.StatusPaymentRequired && headers == nil {
							want(t, what+": owed", gjson.Get(body, "owed").String(), "0.6")
						}
					}
					refused("read without money", s.key, http.StatusPaymentRequired)
					other := http.StatusConflict
					if k.name == "a stored completion" {
						other = http.StatusNotFound
						_, list := s.call(s.key, http.MethodGet, k.path, "")
						want(t, "listed", gjson.Get(list, "data.#").Int(), 0)
					}
					refused("read by another", bob, other)
					fund("0.59")
					refused("read with too little", s.key, http.StatusPaymentRequired)
					fund("0.01")
					refused("read with too low a limit", s.key, http.StatusPaymentRequired, "Tallygate-Max-Charge", "0.5")
					want(t, "balance", s.balance("alice"), "0.6")

					for i, owed := range []string{"0.6", ""} {
						r, body := s.call(s.key, http.MethodGet, read, "")
						if !strings.Contains(body, secret) {
							t.Errorf("read when paid: %s %s", r.Status, body)
						}
						want(t, fmt.Sprint("owed at read ", i), r.Header.Get("Tallygate-Owed"), owed)
						want(t, fmt.Sprint("charge of read ", i), r.Header.Get("Tallygate-Charge"), "0")
						want(t, fmt.Sprint("balance at read ", i), s.balance("alice"), "0")
					}
					charges := s.charges()
					want(t, "charges", len(charges), 2)
					want(t, "paid", charges[0].Amount+charges[1].Amount, "1.6")
					want(t, "paid by", charges[0].RequestID+" "+charges[1].RequestID, charges[1].RequestID+"_owed "+charges[1].RequestID)
					if k.name == "a stored completion" {
						return // it has no earlier parts
					}
					fund("1.5")
					r, answer := s.call(s.key, http.MethodPost, k.path, request)
					want(t, "continued without the money: "+answer, r.StatusCode, http.StatusPaymentRequired)
					want(t, "the provider has worked", provider.worked, 1)
					want(t, "balance", s.balance("alice"), "1.5")
					fund("2")
					r, answer = s.call(s.key, http.MethodPost, k.path, request)
					want(t, "continued: "+answer, r.StatusCode, http.StatusOK)
					want(t, "charge", s.charges()[0].Amount, "1.7")
					s.sound()
				})
			}
		}
	}
}

// inAndOut prices each token of the input and of the output.
func inAndOut(t *testing.T) *pricing.Tariff {
	t.Helper()
	var prices []pricing.Price
	for _, class := range []string{"input", "output"} {
		price, err := pricing.ParseClassPrice(class, strings.Fields("0.001 per token"))
		must(t, err)
		prices = append(prices, price)
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: prices}}}
	must(t, tariff.Compile(nil))
	return tariff
}

// TestWhatIsOwedToAQuota: what a plan's quota does not cover is taken from the next period's, or from the wallet where beyond it is for sale.
func TestWhatIsOwedToAQuota(t *testing.T) {
	t.Parallel()
	for _, overage := range []bool{false, true} {
		t.Run(fmt.Sprintf("overage %t", overage), func(t *testing.T) {
			t.Parallel()
			var hour atomic.Int64
			clock := func() time.Time { return time.Date(2026, 11, 24, int(hour.Load()), 0, 0, 0, time.UTC) }
			included := pricing.Measure{N: 1000, Unit: "token"}
			plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Included: 1000 * escrow.Micro, Unit: "token", Overage: overage}
			sub := &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0.001 per token")}
			provider := &memory{prompt: 1500}
			s := openShopAt(t, clock, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, gateway.Route{Tariff: inAndOut(t), Payment: sub, Shared: shared(t, "conversations/*")}, provider.ServeHTTP)
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
				return err
			}))
			s.another("bob")
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "bob", Amount: amount("0.4")})
				return err
			}))
			r, answer := s.call(s.key, http.MethodPost, "/v1/responses", keepers[0].request+"}")
			want(t, "without the quota: "+answer, r.StatusCode, http.StatusPaymentRequired)
			const read = "/v1/conversations/conv_1/items"
			r, answer = s.call(s.key, http.MethodGet, read, "")
			if r.StatusCode != http.StatusPaymentRequired || strings.Contains(answer, secret) {
				t.Errorf("read: %s %s", r.Status, answer)
			}
			if overage {
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("0.2")})
					return err
				}))
			} else {
				hour.Add(1)
				_, err := s.book.RunDue(t.Context())
				must(t, err)
			}
			r, answer = s.call(s.key, http.MethodGet, read, "")
			want(t, "read: "+answer, r.StatusCode, http.StatusOK)
			charge := s.charges()[0]
			if overage {
				want(t, "paid", charge.Amount, "0.1")
				return
			}
			want(t, "taken from the quota", escrow.Units(charge.QuotaUsed), "600")
		})
	}
}

// TestStoredInputIsHeldFor: what a request names at the provider is a part of its input. When its length is known it is held for, so that a call
// that costs more than its payer has is refused before the provider works.
func TestStoredInputIsHeldFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, make, first, made string // path and body of what makes it, and its answer
		path, use, answer       string // what names it; empty: what makes it
		uses                    int    // after how many uses its length is known
	}{
		{name: "a conversation that begins long", make: "/v1/conversations", first: `{"items":[{"content":"` + strings.Repeat("w ", 1000) + `"}]}`, made: `{"id":"conv_1"}`,
			path: "/v1/responses", use: `{"model":"m","input":"","conversation":"conv_1","max_output_tokens":100}`},
		{name: "a conversation", make: "/v1/conversations", first: `{}`, made: `{"id":"conv_1"}`, uses: 1, path: "/v1/responses", use: `{"model":"m","input":"","conversation":"conv_1","max_output_tokens":100}`,
			answer: `{"id":"a","model":"m","status":"completed","output":[],"usage":{"input_tokens":1400,"output_tokens":100}}`},
		{name: "a response", make: "/v1/responses", first: `{"model":"m","input":"","max_output_tokens":100}`, made: `{"id":"resp_1","model":"m","status":"completed","output":[],"usage":{"input_tokens":1400,"output_tokens":100}}`,
			path: "/v1/responses", use: `{"model":"m","input":"","previous_response_id":"resp_1","max_output_tokens":100}`},
		{name: "an interaction", make: "/v1beta/interactions", first: `{"model":"m","input":"x"}`, made: `{"id":"in-1","model":"m","usage":{"total_input_tokens":1400,"total_output_tokens":100}}`,
			path: "/v1beta/interactions", use: `{"model":"m","input":"x","previous_interaction_id":"in-1"}`},
		{name: "a cache", make: "/v1beta/cachedContents", first: `{"model":"m","contents":[{"parts":[{"text":"` + strings.Repeat("w ", 1000) + `"}]}]}`, made: `{"name":"cachedContents/c1"}`,
			path: "/v1beta/models/m:generateContent", use: `{"contents":[],"cachedContent":"cachedContents/c1","generationConfig":{"maxOutputTokens":100}}`},
		{name: "a cache of files", make: "/v1beta/cachedContents", first: `{"model":"m"}`, made: `{"name":"cachedContents/c1"}`, uses: 1,
			path: "/v1beta/models/m:generateContent", use: `{"contents":[],"cachedContent":"cachedContents/c1","generationConfig":{"maxOutputTokens":100}}`,
			answer: `{"candidates":[{"content":{"parts":[{"text":"w"}]}}],"usageMetadata":{"promptTokenCount":1500,"cachedContentTokenCount":1500,"candidatesTokenCount":1,"totalTokenCount":1501}}`},
		{name: "a file", make: "/v1/files", first: `{"purpose":"x"}`, made: `{"id":"file-1"}`, uses: 1,
			path: "/v1/responses", use: `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}],"max_output_tokens":100}`,
			answer: `{"id":"a","model":"m","status":"completed","output":[],"usage":{"input_tokens":2000,"output_tokens":100}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tariff := inAndOut(t)
			call, err := pricing.ParsePrice(strings.Fields("0.0001 per call"))
			must(t, err)
			tariff = &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: append(tariff.Models[0].Prices, call)}}, MaxOutput: 100}
			must(t, tariff.Compile(nil))
			made := false
			s := openStorehouse(t, gateway.Route{Tariff: tariff}, collection{path: "/"})
			s.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				if !made {
					_, _ = io.WriteString(w, test.made)
				} else {
					_, _ = io.WriteString(w, test.answer)
				}
				made = true
				return true
			}
			fund := func(much string) {
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount(much)})
					return err
				}))
			}
			fund("9")
			status, answer, _ := s.ask("alice", http.MethodPost, test.make, test.first)
			want(t, "made: "+answer, status, http.StatusOK)
			for range test.uses {
				status, answer, _ = s.ask("alice", http.MethodPost, test.path, test.use)
				want(t, "used: "+answer, status, http.StatusOK)
			}
			left := amount(s.balance("alice"))
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "bob", Amount: left - amount("1.3")})
				return err
			}))
			status, answer, forwarded := s.ask("alice", http.MethodPost, test.path, test.use)
			if status != http.StatusPaymentRequired || forwarded {
				t.Errorf("with too little: %d, forwarded %t: %s", status, forwarded, answer)
			}
			want(t, "balance", s.balance("alice"), "1.3")
		})
	}
}
