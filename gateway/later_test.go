package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// later is a provider's way to give an answer that is asked for first and fetched later.
type later struct {
	name, ask, request string // path and body
	ticket             string // what the asking is answered with
	fetch              string // method and path
	waiting            string // what the fetch is answered with until the answer is there; empty: 202 without a body
	answer             string // of ten tokens of output
	partial            string // an unfinished answer that has some output already; empty where there is none
	again              string // a request that builds on the answer; empty where none can
}

var laters = []later{
	{name: "xAI, deferred", ask: "/v1/chat/completions", request: `{"model":"m","messages":[],"max_tokens":10,"deferred":true}`,
		ticket: `{"request_id":"f15c114e"}`, fetch: "GET /v1/chat/deferred-completion/f15c114e",
		answer: `{"id":"x","model":"m","choices":[{"message":{"content":"w w w w w w w w w w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`},
	{name: "OpenAI, background", ask: "/v1/responses", request: `{"model":"m","input":"","max_output_tokens":16,"background":true}`,
		ticket: `{"id":"resp_A","object":"response","status":"queued","output":[],"usage":null}`, fetch: "GET /v1/responses/resp_A",
		waiting: `{"id":"resp_A","status":"in_progress","output":[],"usage":null}`,
		partial: `{"id":"resp_A","status":"in_progress","output":[{"type":"message","content":[{"type":"output_text","text":"w w w w w"}]}],"usage":null}`,
		answer:  `{"id":"resp_A","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w w w w w w w w w w"}]}],"usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}`,
		again:   `{"model":"m","input":"go on","max_output_tokens":16,"previous_response_id":"resp_A"}`},
	{name: "OpenAI, cancelled when it was finished", ask: "/v1/responses", request: `{"model":"m","input":"","max_output_tokens":16,"background":true}`,
		ticket: `{"id":"resp_B","status":"queued"}`, fetch: "POST /v1/responses/resp_B/cancel", waiting: `{"id":"resp_B","status":"queued"}`,
		answer: `{"id":"resp_B","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}],"usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}`},
	{name: "Gemini, background", ask: "/v1beta/interactions", request: `{"model":"m","input":"","generation_config":{"max_output_tokens":10},"background":true}`,
		ticket: `{"id":"v1_Chd","status":"in_progress"}`, fetch: "GET /v1beta/interactions/v1_Chd", waiting: `{"id":"v1_Chd","status":"in_progress"}`,
		answer: `{"id":"v1_Chd","model":"m","status":"completed","outputs":[{"type":"text","text":"w w w w w w w w w w"}],"usage":{"total_input_tokens":0,"total_output_tokens":10,"total_tokens":10}}`,
		again:  `{"model":"m","input":"go on","previous_interaction_id":"v1_Chd"}`},
	{name: "Perplexity, async", ask: "/async/chat/completions", request: `{"request":{"model":"m","messages":[],"max_tokens":10}}`,
		ticket: `{"id":"a-1","model":"m","status":"CREATED","response":null}`, fetch: "GET /async/chat/completions/a-1",
		waiting: `{"id":"a-1","model":"m","status":"IN_PROGRESS","response":null}`,
		answer:  `{"id":"a-1","model":"m","status":"COMPLETED","response":{"model":"m","choices":[{"message":{"content":"w w w w w w w w w w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}}`},
	{name: "Z.ai, async", ask: "/api/paas/v4/async/chat/completions", request: `{"model":"m","messages":[],"max_tokens":10}`,
		ticket: `{"id":"z1","request_id":"r1","model":"m","task_status":"PROCESSING"}`, fetch: "GET /api/paas/v4/async-result/z1",
		waiting: `{"id":"z1","request_id":"r1","task_status":"PROCESSING"}`,
		answer:  `{"id":"z1","request_id":"r1","model":"m","task_status":"SUCCESS","choices":[{"message":{"content":"w w w w w w w w w w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`},
}

// bureau is a provider that gives answers later.
type bureau struct {
	mu   sync.Mutex
	with string // what the next fetch is answered with
	of   later
}

func (b *bureau) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == b.of.ask:
		_, _ = io.WriteString(w, b.of.ticket)
	case b.with == "":
		w.WriteHeader(http.StatusAccepted)
	default:
		_, _ = io.WriteString(w, b.with)
	}
}

func (b *bureau) gives(answer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.with = answer
}

// call makes a call with a key.
func (s *shop) call(key, method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	must(s.t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	must(s.t, err)
	return answer, string(got)
}

// another is the key of another agent, with as much money.
func (s *shop) another(id string) (key string) {
	s.t.Helper()
	must(s.t, s.do(func(tx *escrow.Tx) (err error) {
		if _, _, key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: id}); err != nil {
			return err
		}
		_, err = tx.Deposit(operator, escrow.PaymentOrder{To: id, Amount: amount("1")})
		return err
	}))
	return key
}

func tokenRoute(t *testing.T) gateway.Route {
	tariff := &pricing.Tariff{Models: perToken(t, "0.01")}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// TestAnswersThatComeLater: an answer that is asked for first and fetched later is charged once, when its payer fetches it.
func TestAnswersThatComeLater(t *testing.T) {
	t.Parallel()
	for _, l := range laters {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			b := &bureau{of: l}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), b.ServeHTTP)
			bob := s.another("bob")
			method, path, _ := strings.Cut(l.fetch, " ")
			step := func(what, key string, status int, charge, body string) {
				t.Helper()
				answer, got := s.call(key, method, path, "")
				want(t, what+": status", answer.StatusCode, status)
				if status < 300 {
					want(t, what+": charge", answer.Header.Get("Tallygate-Charge"), charge)
					want(t, what+": body", got, body)
				} else if strings.Contains(got, "w w") {
					t.Errorf("%s: it brings the answer: %s", what, got)
				}
			}

			asked, ticket := s.call(s.key, http.MethodPost, l.ask, l.request)
			want(t, "asked", fmt.Sprint(asked.StatusCode, " ", asked.Header.Get("Tallygate-Charge"), " ", ticket), "200 0 "+l.ticket)
			status := http.StatusOK
			if b.gives(l.waiting); l.waiting == "" {
				status = http.StatusAccepted
			}
			step("not there yet", s.key, status, "0", l.waiting)
			want(t, "balance", s.balance("alice"), "1")

			b.gives(l.answer)
			step("another agent's fetch", bob, http.StatusNotFound, "", "")
			if l.again != "" {
				answer, _ := s.call(s.key, http.MethodPost, l.ask, l.again)
				want(t, "built on before it is paid", answer.StatusCode, http.StatusConflict)
				answer, _ = s.call(bob, http.MethodPost, l.ask, l.again)
				want(t, "built on by another agent", answer.StatusCode, http.StatusNotFound)
			}
			if l.partial != "" {
				b.gives(l.partial)
				step("a part", s.key, http.StatusOK, "0.05", l.partial)
				want(t, "balance", s.balance("alice"), "0.95")
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("0.05")})
					return err
				}))
				b.gives(l.answer)
			}
			var both sync.WaitGroup
			for range 2 { // at once: whichever comes first is charged
				both.Go(func() {
					_, got := s.call(s.key, method, path, "")
					want(t, "the answer", got, l.answer)
				})
			}
			both.Wait()
			want(t, "balance", s.balance("alice"), "0.9")
			step("once more", s.key, http.StatusOK, "0", l.answer)
			want(t, "balance", s.balance("alice"), "0.9")
			step("another agent's fetch of what is paid", bob, http.StatusNotFound, "", "")
			if l.again != "" {
				if answer, _ := s.call(s.key, http.MethodPost, l.ask, l.again); answer.StatusCode == http.StatusConflict {
					t.Errorf("built on when it is paid: %s", answer.Status)
				}
			}
		})
	}
}

// TestAnswersThatComeLaterAreWithheldFromThePoor: without enough money an answer is not passed on. It can be fetched when there is enough.
func TestAnswersThatComeLaterAreWithheldFromThePoor(t *testing.T) {
	t.Parallel()
	for _, l := range laters {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			b := &bureau{of: l, with: l.answer}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), b.ServeHTTP)
			method, path, _ := strings.Cut(l.fetch, " ")
			asked, _ := s.call(s.key, http.MethodPost, l.ask, l.request)
			want(t, "asked", asked.StatusCode, http.StatusOK)
			pay := func(from, to, much string) {
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Transfer(escrow.Actor{Agent: from}, escrow.PaymentOrder{To: to, Amount: amount(much)})
					return err
				}))
			}
			s.another("bob")
			pay("alice", "bob", "0.95")
			answer, got := s.call(s.key, method, path, "")
			if answer.StatusCode != http.StatusPaymentRequired || strings.Contains(got, `"usage"`) {
				t.Errorf("without money: %s %s", answer.Status, got)
			}
			want(t, "balance", s.balance("alice"), "0.05")
			pay("bob", "alice", "0.95")
			answer, _ = s.call(s.key, method, path, "")
			want(t, "with money", answer.Header.Get("Tallygate-Charge"), "0.1")
		})
	}
}

// TestAnAnswerThatWasCutIsNotFetchedForNothing: when the money for a stream has run out, the provider may still store the whole answer,
// which is then not free.
func TestAnAnswerThatWasCutIsNotFetchedForNothing(t *testing.T) {
	t.Parallel()
	const (
		openAI = `{"id":"resp_A","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}],"usage":{"input_tokens":0,"output_tokens":200,"total_tokens":200}}`
		gemini = `{"id":"i1","model":"m","status":"completed","outputs":[{"type":"text","text":"w"}],"usage":{"total_input_tokens":0,"total_output_tokens":200,"total_tokens":200}}`
	)
	for _, test := range []struct{ path, request, first, piece, last, fetch, whole string }{
		{"/v1/responses", `{"model":"m","input":"","stream":true}`, `{"type":"response.created","response":{"id":"resp_A","status":"in_progress"}}`,
			`{"type":"response.output_text.delta","delta":" w"}`, `{"type":"response.completed","response":` + openAI + `}`, "/v1/responses/resp_A", openAI},
		{"/v1beta/interactions", `{"model":"m","input":"","stream":true}`, `{"event_type":"interaction.start","interaction":{"id":"i1","status":"in_progress"}}`,
			`{"event_type":"content.delta","delta":{"text":" w"}}`, `{"event_type":"interaction.complete","interaction":` + gemini + `}`, "/v1beta/interactions/i1", gemini},
	} {
		route := tokenRoute(t)
		route.Batch = pricing.Measure{N: 10, Unit: "token"}
		s := openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, test.whole)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: %s\n\n", test.first)
			for range 200 { // there is money for half of it
				fmt.Fprintf(w, "data: %s\n\n", test.piece)
			}
			fmt.Fprintf(w, "data: %s\n\n", test.last)
		})
		_, body := s.call(s.key, http.MethodPost, test.path, test.request)
		if strings.Contains(body, "200") {
			t.Fatalf("it was not cut: %s", body)
		}
		if answer, got := s.call(s.key, http.MethodGet, test.fetch, ""); answer.StatusCode != http.StatusPaymentRequired || strings.Contains(got, "200") {
			t.Errorf("without money: %s %s", answer.Status, got)
		}
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("50")})
			return err
		}))
		answer, got := s.call(s.key, http.MethodGet, test.fetch, "")
		want(t, "with money", answer.Header.Get("Tallygate-Charge"), "2")
		want(t, "the answer", got, test.whole)
	}
}

// TestAnswersThatNobodyAskedFor: paths that only lead to answers of this kind are not free; other stored answers are.
func TestAnswersThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	route := tokenRoute(t)
	route.Shared = shared(t, "*")
	s := openShop(t, escrow.Rules{}, gateway.Options{}, route, document("Content-Type", "application/json", `{"status":"completed"}`))
	for path, status := range map[string]int{
		"/v1/chat/deferred-completion/x": 404, "/async/chat/completions/x": 404, "/v1/async/sonar/x": 404, "/api/paas/v4/async-result/x": 404,
		"/v1/responses/x": 200, "/v1beta/interactions/x": 200, "/v1/responses/x/input_items": 200,
	} {
		answer, _ := s.call(s.key, http.MethodGet, path, "")
		want(t, path, answer.StatusCode, status)
	}
}

// TestAnswersThatGoElsewhere: an answer that would not come through the meter, or that could not be charged, is refused before the provider
// works.
func TestAnswersThatGoElsewhere(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached the provider", r.Method, r.URL)
	})
	const chat = "/v1/chat/completions"
	for _, test := range []struct{ path, body, header, value, field string }{
		{path: chat, body: `{"model":"m","messages":[],"webhook":"https://a.example"}`, field: "webhook"},
		{path: chat, body: `{"model":"m","messages":[],"callback_url":"https://a.example"}`, field: "callback_url"},
		{path: chat, body: `{"model":"m","messages":[],"webhookConfig":{"uris":["https://a.example"]}}`, field: "webhookConfig"},
		{path: "/v1/chat", body: `{"model":"m","messages":[{"role":"user","content":"a"}],"callback":"https://a.example"}`, field: "callback"},
		{path: chat + "?fal_webhook=https://a.example", body: `{"model":"m","messages":[]}`, field: "fal_webhook"},
		{path: chat, body: `{"model":"m","messages":[]}`, header: "X-DashScope-Async", value: "enable", field: "X-DashScope-Async"},
		{path: chat, body: `{"model":"m","messages":[]}`, header: "Prefer", value: "respond-async, wait=10", field: "Prefer"},
		{path: chat, body: `{"model":"m","messages":[],"deferred":true,"stream":true}`, field: "stream"},
		{path: "/v1/responses", body: `{"model":"m","input":"a","background":true,"stream":true}`, field: "stream"},
		{path: "/v1/responses", body: `{"model":"m","input":"a","background":true,"conversation":"conv_1"}`, field: "conversation"},
		{path: "/v1beta/interactions", body: `{"model":"m","input":"a","background":true,"stream":true}`, field: "stream"},
		{path: "/async/chat/completions", body: `{"request":{"model":"m","messages":[],"webhook":"https://a.example"}}`, field: "webhook"},
		{path: chat, body: `{"model":"m","messages":[],"deferred":true}`, header: "Tallygate-Milestone", value: "1", field: "Tallygate-Milestone"},
	} {
		var headers []string
		if test.header != "" {
			headers = []string{test.header, test.value}
		}
		if test.header == "Tallygate-Milestone" {
			headers = append(headers, "Tallygate-Escrow", "esc_1")
		}
		answer, body := s.call(s.key, http.MethodPost, test.path, test.body, headers...)
		if answer.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, `"field":"`+test.field+`"`) {
			t.Errorf("%s %s: %s %s", test.path, test.body, answer.Status, body)
		}
	}
	want(t, "balance", s.balance("alice"), "1")
}

// TestAnswersOfUnknownUsage: if tokens have a price, an answer without output, usage and error is not passed on.
func TestAnswersOfUnknownUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, request, answer string }{
		{"/v1/chat/completions", `{"model":"m","messages":[]}`, `{"ticket":"a"}`},
		{"/v1/chat/completions", `{"model":"m","messages":[]}`, `{"request_id":"a"}`}, // it was not asked to defer
		{"/v1/chat/completions", `{"model":"m","messages":[],"deferred":true}`, `{"queue":7}`},
		{"/v1/chat/completions", `{"model":"m","messages":[],"stream":true}`, `{"id":"a","status":"queued"}`},
		{"/v1/chat/completions", `{"model":"m","messages":[],"deferred":true}`, `{"request_id":"a/../b"}`},
		{"/v1/chat/completions", `{"model":"m","messages":[]}`, `{"usage":{},"choices":[]}`},
		{"/v1/chat/completions", `{"model":"m","messages":[]}`, `[]`},
		{"/v1/chat", `{"model":"m","messages":[{"role":"user"}]}`, `{"output_url":"https://a.example"}`},
		{"/v1/chat", `{"model":"m","messages":[{"role":"user"}]}`, `{"output":{"text":"an answer"}}`},
		{"/v1/chat", `{"model":"m","messages":[{"role":"user"}]}`, `[{"generated_text":"an answer"}]`},
		{"/v1/responses", `{"model":"m","input":"a"}`, `{"id":"resp_1","status":"queued","output":[]}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[]}`, `{"id":"msg_1","type":"message","content":[]}`},
		{"/v1beta/models/m:generateContent", `{"contents":[]}`, `{"name":"operations/a"}`},
		{"/v1beta/interactions", `{"model":"m","input":"a"}`, `{"id":"a","status":"in_progress"}`},
		{"/v1/images/generations", `{"model":"m","prompt":"a"}`, `{"data":[{"b64_json":"aaaa"}]}`},
		{"/v1/images/generations", `{"model":"m","prompt":"a"}`, `{"data":[{"b64_json":"aaaa"}],"usage":{}}`},
		{"/v1/images/generations", `{"model":"m","prompt":"a"}`, "\x89PNG aaaa"},
		{"/v1/audio/speech", `{"model":"m","input":"a","stream_format":"sse"}`, "\xFF\xF3 sound"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(test.answer)))
			_, _ = io.WriteString(w, test.answer)
		})
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("99")})
			return err
		}))
		answer, body := s.call(s.key, http.MethodPost, test.path, test.request)
		if answer.StatusCode != http.StatusBadGateway || !strings.Contains(body, "usage_unknown") || strings.Contains(body, test.answer) {
			t.Errorf("%s: %s: %s %s", test.path, test.answer, answer.Status, body)
		}
		want(t, "balance", s.balance("alice"), "100")
	}
}
