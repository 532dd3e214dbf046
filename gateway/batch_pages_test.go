package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// The results of a batch as pages: xAI's, https://docs.x.ai/docs/guides/batch-api, and OpenRouter's,
// https://openrouter.ai/docs/api/api-reference/batch/get-batch-results. Each result has ten tokens of output, at 0.01 a token.
func xaiResult(id string) string {
	return `{"batch_request_id":"r` + id + `","batch_result":{"response":{"chat_get_completion":{"id":"` + id + `","model":"cheap","choices":[{"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}}}}`
}

func openRouterResult(id string) string {
	return `{"id":"res-` + id + `","custom_id":"c` + id + `","error":null,"response":{"request_id":"q` + id + `","status_code":200,"body":{"id":"` + id + `","object":"response","model":"cheap","output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}],"usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}}}`
}

func geminiResult(id string) string {
	return `{"response":{"candidates":[{"content":{"parts":[{"text":"w"}]}}],"usageMetadata":{"promptTokenCount":0,"candidatesTokenCount":10,"totalTokenCount":10},"modelVersion":"cheap","responseId":"` + id + `"}}`
}

func page(before string, result func(string) string, after string, ids ...string) string {
	var results []string
	for _, id := range ids {
		results = append(results, result(id))
	}
	return before + strings.Join(results, ",") + after
}

// TestPagesOfResults: each result of a batch is charged once, in whatever page, list or object it is read, and however often.
func TestPagesOfResults(t *testing.T) {
	t.Parallel()
	xai := func(ids ...string) string {
		return page(`{"results":[`, xaiResult, `],"pagination_token":null}`, ids...)
	}
	openRouter := func(ids ...string) string {
		return page(`{"object":"list","has_more":false,"next_cursor":null,"data":[`, openRouterResult, `]}`, ids...)
	}
	geminiList := func(ids ...string) string {
		return page(`{"operations":[{"name":"batches/b1","done":true,"response":{"inlinedResponses":{"inlinedResponses":[`, geminiResult, `]}}}]}`, ids...)
	}
	geminiOne := func(ids ...string) string {
		return page(`{"name":"batches/b1","done":true,"response":{"inlinedResponses":{"inlinedResponses":[`, geminiResult, `]}}}`, ids...)
	}
	type step struct{ path, body, charge string }
	for _, test := range []struct {
		name, send, job string
		steps           []step
	}{
		{"a page that grows", "/v1/batches", `{"batch_id":"x1"}`, []step{
			{"/v1/batches/x1/results?limit=100", xai(), "0"},
			{"/v1/batches/x1/results?limit=100", xai("a", "b"), "0.2"},
			{"/v1/batches/x1/results?limit=100", xai("a", "b"), "0"},
			{"/v1/batches/x1/results?limit=100", xai("a", "b", "c"), "0.1"},
		}},
		{"pages that overlap", "/v1/batches", `{"batch_id":"x1"}`, []step{
			{"/v1/batches/x1/results?limit=1", xai("a"), "0.1"},
			{"/v1/batches/x1/results?limit=1&pagination_token=ra", xai("b"), "0.1"},
			{"/v1/batches/x1/results", xai("c", "b", "a"), "0.1"},
		}},
		{"results with the same id at once are two", "/v1/batches", `{"batch_id":"x1"}`, []step{
			{"/v1/batches/x1/results", xai("a", "a"), "0.2"},
		}},
		{"a batch, then its pages", "/v1/batches", `{"id":"batch_1","status":"validating"}`, []step{
			{"/v1/batches/batch_1", page(`{"id":"batch_1","status":"completed","results":[`, openRouterResult, `]}`, "a", "b"), "0.2"},
			{"/v1/batches/batch_1/results?cursor=1", openRouter("a", "b"), "0"},
			{"/v1/batches/batch_1/results?cursor=2", openRouter("c"), "0.1"},
		}},
		{"pages, then the batch", "/v1/batches", `{"id":"batch_1","status":"validating"}`, []step{
			{"/v1/batches/batch_1/results", openRouter("a"), "0.1"},
			{"/v1/batches/batch_1", page(`{"id":"batch_1","status":"completed","results":[`, openRouterResult, `]}`, "a", "b"), "0.1"},
			{"/v1/batches/batch_1", page(`{"id":"batch_1","status":"completed","results":[`, openRouterResult, `]}`, "a", "b"), "0"},
		}},
		{"a list, then the batch", "/v1beta/models/cheap:batchGenerateContent", `{"name":"batches/b1"}`, []step{
			{"/v1beta/batches", geminiList("a"), "0.1"},
			{"/v1beta/batches", geminiList("a"), "0"},
			{"/v1beta/batches/b1", geminiOne("a", "b"), "0.1"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var p shelf
			s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, false), p.ServeHTTP)
			p.put(test.send, "application/json", test.job)
			answer, _ := s.call(s.key, "POST", test.send, `{}`)
			want(t, "sent", answer.StatusCode, 200)
			for i, step := range test.steps {
				p.put(step.path, "application/json", step.body)
				answer, got := s.call(s.key, "GET", step.path, "")
				want(t, fmt.Sprintf("step %d: status", i), answer.StatusCode, 200)
				want(t, fmt.Sprintf("step %d: body", i), got, step.body)
				want(t, fmt.Sprintf("step %d: charge", i), answer.Header.Get("Tallygate-Charge"), step.charge)
			}
		})
	}
}

// TestPagesAtOnce: of a page that is fetched several times at once, each result is charged once.
func TestPagesAtOnce(t *testing.T) {
	t.Parallel()
	var p shelf
	s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, false), p.ServeHTTP)
	p.put("/v1/batches", "application/json", `{"batch_id":"x1"}`)
	_, _ = s.call(s.key, "POST", "/v1/batches", `{}`)
	p.put("/v1/batches/x1/results", "application/json", page(`{"results":[`, xaiResult, `]}`, "a", "b"))
	var fetches sync.WaitGroup
	for range 8 {
		fetches.Go(func() {
			if answer, _ := s.call(s.key, "GET", "/v1/batches/x1/results", ""); answer.StatusCode != 200 {
				t.Errorf("%s", answer.Status)
			}
		})
	}
	fetches.Wait()
	want(t, "balance", s.balance("alice"), "0.8")
}

// TestPagesOfThePoor: a page that was withheld is not taken for one that is paid.
func TestPagesOfThePoor(t *testing.T) {
	t.Parallel()
	var p shelf
	s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, false), p.ServeHTTP)
	p.put("/v1/batches", "application/json", `{"batch_id":"x1"}`)
	_, _ = s.call(s.key, "POST", "/v1/batches", `{}`)
	ids := strings.Fields("a b c d e f g h i j k l")
	p.put("/v1/batches/x1/results", "application/json", page(`{"results":[`, xaiResult, `]}`, ids...))
	for range 2 {
		answer, body := s.call(s.key, "GET", "/v1/batches/x1/results", "")
		if answer.StatusCode != http.StatusPaymentRequired || strings.Contains(body, "usage") {
			t.Fatalf("%s %s", answer.Status, body)
		}
	}
	must(t, s.do(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("1")})
		return err
	}))
	answer, _ := s.call(s.key, "GET", "/v1/batches/x1/results", "")
	want(t, "charge", answer.Header.Get("Tallygate-Charge"), "1.2")
}

// TestResultsWithoutUsage: an answer of a batch that states no usage is counted by its text. If it has no text either, as an image, the
// results are withheld. Errors are free.
func TestResultsWithoutUsage(t *testing.T) {
	t.Parallel()
	line := func(body string) string {
		return `{"custom_id":"1","response":{"status_code":200,"body":` + body + `}}` + "\n"
	}
	stated := line(chatCheap)
	for _, test := range []struct {
		name, path, kind, body string
		status                 int
		charge                 string // "": more than that of what is stated
		source                 string
	}{
		{"stated", "/v1/files/f/content", "application/octet-stream", stated, 200, "0.1", "stated"},
		{"chat", "/v1/files/f/content", "application/octet-stream", stated + line(`{"model":"cheap","choices":[{"message":{"content":"a few words of text"}}]}`), 200, "", "estimated"},
		{"usage null", "/v1/files/f/content", "application/octet-stream", stated + line(`{"model":"cheap","usage":null,"choices":[{"message":{"tool_calls":[{"function":{"name":"a","arguments":"{\"b\":12}"}}]}}]}`), 200, "", "estimated"},
		{"usage empty", "/v1/files/f/content", "application/octet-stream", stated + line(`{"model":"cheap","usage":{},"choices":[{"message":{"content":"w w w"}}]}`), 200, "", "estimated"},
		{"responses", "/v1/files/f/content", "application/octet-stream", stated + line(`{"model":"cheap","output":[{"type":"message","content":[{"type":"output_text","text":"a few words"}]}]}`), 200, "", "estimated"},
		{"messages", "/v1/messages/batches/b/results", "application/x-jsonl", messageCheap + "\n" + `{"custom_id":"2","result":{"type":"succeeded","message":{"model":"cheap","content":[{"type":"tool_use","name":"a","input":{"b":"some words"}}]}}}` + "\n", 200, "", "estimated"},
		{"Gemini", "/download/v1beta/files/f:download", "application/octet-stream", `{"key":"1","response":` + geminiCheap + `}` + "\n" + `{"key":"2","response":{"candidates":[{"content":{"parts":[{"text":"some words"}]}}],"modelVersion":"cheap"}}` + "\n", 200, "", "estimated"},
		{"a page", "/v1/batches/x1/results", "application/json", `{"results":[` + xaiResult("a") + `,{"batch_request_id":"2","batch_result":{"response":{"chat_get_completion":{"id":"b","model":"cheap","choices":[{"message":{"content":"some words"}}]}}}},` + xaiResult("c") + `]}`, 200, "", "estimated"},
		{"nothing is stated at all", "/v1/files/f/content", "application/octet-stream", line(`{"model":"cheap","choices":[{"message":{"content":"a few words of text here"}}]}`), 200, "", "estimated"},
		{"images", "/v1/files/f/content", "application/octet-stream", stated + line(`{"created":1,"data":[{"url":"https://a.example/1.png"}]}`), 502, "", ""},
		{"only images", "/v1/batches/x1/results", "application/json", `{"results":[{"batch_request_id":"2","batch_result":{"response":{"image_generation":{"data":[{"url":"https://a.example/1.png"}]}}}}]}`, 502, "", ""},
		{"embeddings", "/v1/files/f/content", "application/octet-stream", line(`{"model":"cheap","data":[{"embedding":[0.1]}]}`), 502, "", ""},
		{"errors", "/v1/files/f/content", "application/octet-stream", stated + `{"custom_id":"2","response":{"status_code":400,"body":{"error":{"message":"no"}}}}` + "\n" + `{"custom_id":"3","response":null,"error":{"code":"x"}}` + "\n", 200, "0.1", "stated"},
		{"errors of a page", "/v1/batches/x1/results", "application/json", `{"results":[{"batch_request_id":"2","batch_result":{"error":{"code":3,"message":"boom"}}},{"batch_request_id":"3","error_message":"no"},` + xaiResult("a") + `]}`, 200, "0.1", "stated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var p shelf
			s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, false), p.ServeHTTP)
			for path, job := range map[string]string{"/v1/batches": `{"batch_id":"x1"}`, "/v1/messages/batches": `{"id":"b"}`} {
				p.put(path, "application/json", job)
				_, _ = s.call(s.key, "POST", path, `{}`)
			}
			p.put(test.path, test.kind, test.body)
			answer, got := s.call(s.key, "GET", test.path, "")
			want(t, "status", answer.StatusCode, test.status)
			if test.status != 200 {
				if !strings.Contains(got, "usage_unknown") {
					t.Errorf("%s", got)
				}
				want(t, "balance", s.balance("alice"), "1")
				return
			}
			want(t, "body", got, test.body)
			want(t, "source", s.charges()[0].Source, test.source)
			if test.charge != "" {
				want(t, "paid", s.balance("acme"), test.charge)
			} else if paid := s.balance("acme"); paid == "0" || strings.Contains(test.body, `"usage":{"prompt`) && paid == "0.1" {
				t.Errorf("paid %s", paid)
			}
		})
	}
}
