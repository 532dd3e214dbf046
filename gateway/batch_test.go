package gateway_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// batched is a provider's way to run a batch of two requests, with ten tokens of output each: one to a cheap model, the other to an
// expensive one.
type batched struct {
	name, send, request string
	job                 string // what the sending is answered with
	poll                string // path of the batch
	running, ended      string // what that is answered with
	results             string // path of the results; empty where they are in the batch
	kind                string // content type of the results
	lines               string // what they are
}

const (
	chatCheap    = `{"model":"cheap","choices":[{"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`
	chatDear     = `{"model":"dear","choices":[{"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`
	geminiCheap  = `{"candidates":[{"content":{"parts":[{"text":"w"}]}}],"usageMetadata":{"promptTokenCount":0,"candidatesTokenCount":10,"totalTokenCount":10},"modelVersion":"cheap"}`
	geminiDear   = `{"candidates":[{"content":{"parts":[{"text":"w"}]}}],"usageMetadata":{"promptTokenCount":0,"candidatesTokenCount":10,"totalTokenCount":10},"modelVersion":"dear"}`
	messageCheap = `{"custom_id":"1","result":{"type":"succeeded","message":{"model":"cheap","content":[{"type":"text","text":"w"}],"usage":{"input_tokens":0,"output_tokens":10,"service_tier":"batch"}}}}`
	messageDear  = `{"custom_id":"2","result":{"type":"succeeded","message":{"model":"dear","content":[{"type":"text","text":"w"}],"usage":{"input_tokens":0,"output_tokens":10,"service_tier":"batch"}}}}`
)

var batches = []batched{
	{name: "OpenAI", send: "/v1/batches", request: `{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}`,
		job: `{"id":"batch_1","object":"batch","status":"validating"}`, poll: "/v1/batches/batch_1",
		running: `{"id":"batch_1","status":"in_progress","output_file_id":null}`, ended: `{"id":"batch_1","status":"completed","output_file_id":"file-2"}`,
		results: "/v1/files/file-2/content", kind: "application/octet-stream",
		lines: `{"custom_id":"1","response":{"status_code":200,"body":` + chatCheap + `}}` + "\n" + `{"custom_id":"3","response":null,"error":{"code":"x"}}` + "\n" +
			`{"custom_id":"2","response":{"status_code":200,"body":` + chatDear + `}}` + "\n"},
	{name: "Anthropic", send: "/v1/messages/batches", request: `{"requests":[{"custom_id":"1","params":{"model":"cheap","max_tokens":10,"messages":[]}},{"custom_id":"2","params":{"model":"dear","max_tokens":10,"messages":[]}}]}`,
		job: `{"id":"msgbatch_1","type":"message_batch","processing_status":"in_progress"}`, poll: "/v1/messages/batches/msgbatch_1",
		running: `{"id":"msgbatch_1","processing_status":"in_progress"}`, ended: `{"id":"msgbatch_1","processing_status":"ended","results_url":"https://a.example"}`,
		results: "/v1/messages/batches/msgbatch_1/results", kind: "application/x-jsonl",
		lines: messageCheap + "\n" + `{"custom_id":"3","result":{"type":"errored","error":{"type":"x"}}}` + "\n" + messageDear + "\n"},
	{name: "Gemini, inline", send: "/v1beta/models/cheap:batchGenerateContent", request: `{"batch":{"display_name":"a","input_config":{"requests":{"requests":[{"request":{"contents":[]}}]}}}}`,
		job: `{"name":"batches/b1","metadata":{"state":"BATCH_STATE_PENDING"}}`, poll: "/v1beta/batches/b1",
		running: `{"name":"batches/b1","metadata":{"state":"BATCH_STATE_RUNNING"}}`,
		ended: `{"name":"batches/b1","metadata":{"state":"BATCH_STATE_SUCCEEDED","output":{"inlinedResponses":{"inlinedResponses":[{"response":` + geminiCheap + `},{"response":` + geminiDear + `}]}}},"done":true,` +
			`"response":{"inlinedResponses":{"inlinedResponses":[{"response":` + geminiCheap + `},{"response":` + geminiDear + `}]}}}`},
	{name: "Gemini, by a file", send: "/v1beta/models/cheap:batchGenerateContent", request: `{"batch":{"input_config":{"file_name":"files/1"}}}`,
		job: `{"name":"batches/b2","metadata":{"state":"BATCH_STATE_PENDING"}}`, poll: "/v1beta/batches/b2",
		running: `{"name":"batches/b2","done":false}`, ended: `{"name":"batches/b2","done":true,"response":{"responsesFile":"files/batch-b2"}}`,
		results: "/download/v1beta/files/batch-b2:download", kind: "application/octet-stream",
		lines: `{"key":"1","response":` + geminiCheap + `}` + "\n" + `{"key":"2","response":` + geminiDear + `}` + "\n"},
	{name: "Mistral, inline", send: "/v1/batch/jobs", request: `{"endpoint":"/v1/chat/completions","model":"cheap","requests":[{"custom_id":"1","body":{"messages":[]}},{"custom_id":"2","body":{"model":"dear","messages":[]}}]}`,
		job: `{"id":"j1","object":"batch","status":"QUEUED","outputs":null}`, poll: "/v1/batch/jobs/j1?inline=true",
		running: `{"id":"j1","status":"RUNNING","outputs":null}`,
		ended:   `{"id":"j1","status":"SUCCESS","outputs":[{"custom_id":"1","response":{"status_code":200,"body":` + chatCheap + `}},{"custom_id":"2","response":{"status_code":200,"body":` + chatDear + `}}]}`},
	{name: "xAI", send: "/v1/batches", request: `{"name":"mine"}`, job: `{"batch_id":"x1","name":"mine"}`, poll: "/v1/batches/x1",
		running: `{"batch_id":"x1","name":"mine","state":{"num_pending":2}}`, ended: `{"batch_id":"x1","name":"mine","state":{"num_pending":0,"num_success":2}}`,
		results: "/v1/batches/x1/results?limit=100", kind: "application/json",
		lines: `{"results":[{"batch_request_id":"1","batch_result":{"response":{"chat_get_completion":{"id":"c1",` + chatCheap[1:] + `}}},{"batch_request_id":"2","batch_result":{"response":{"chat_get_completion":{"id":"c2",` + chatDear[1:] + `}}}],"pagination_token":null}`},
}

// batchRoute has prices for two models, by their names. If half is set, the expensive one also has a price for batches.
func batchRoute(t *testing.T, half bool) gateway.Route {
	price := func(s string) []pricing.Price {
		p, err := pricing.ParseClassPrice("output", strings.Fields(s+" per token"))
		must(t, err)
		return []pricing.Price{p}
	}
	dear := pricing.Model{Glob: "dear", Prices: price("0.04"), Services: []pricing.Service{{Name: "priority", Prices: price("0.06")}}}
	if half {
		dear.Services = append(dear.Services, pricing.Service{Name: "batch", Prices: price("0.02")})
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "cheap", Prices: price("0.01")}, dear}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff, Shared: shared(t, "*")} // whose files they are is tested elsewhere
}

// shelf is a provider that answers each path with a fixed answer.
type shelf struct {
	mu   sync.Mutex
	kind map[string]string
	has  map[string]string
}

func (p *shelf) put(path, kind, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path, _, _ = strings.Cut(path, "?")
	if p.has == nil {
		p.has, p.kind = map[string]string{}, map[string]string{}
	}
	p.has[path], p.kind[path] = body, kind
}

func (p *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, found := p.has[r.URL.Path]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", p.kind[r.URL.Path])
	_, _ = w.Write([]byte(body))
}

// TestBatches sends a batch, asks for its status until it has ended, and fetches its results. They are charged once, at the model's prices
// for batches if it has some, and otherwise at its normal prices.
func TestBatches(t *testing.T) {
	t.Parallel()
	for _, b := range batches {
		for _, half := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, half %t", b.name, half), func(t *testing.T) {
				t.Parallel()
				var p shelf
				s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, half), p.ServeHTTP)
				bob := s.another("bob")
				step := func(what, method, path, request, key string, status int, charge, body string) {
					t.Helper()
					answer, got := s.call(key, method, path, request)
					want(t, what+": status", answer.StatusCode, status)
					if status != http.StatusOK {
						return
					}
					want(t, what+": body", got, body)
					if stated := answer.Header.Get("Tallygate-Charge"); stated != "" {
						want(t, what+": charge", stated, charge)
					} else {
						want(t, what+": charge", answer.Trailer.Get("Tallygate-Charge"), charge)
					}
				}
				const json = "application/json"
				p.put(b.send, json, b.job)
				step("sent", "POST", b.send, b.request, s.key, 200, "0", b.job)
				p.put(b.poll, json, b.running)
				step("running", "GET", b.poll, "", s.key, 200, "0", b.running)
				want(t, "balance", s.balance("alice"), "1")

				cost := "0.5"
				if half {
					cost = "0.3"
				}
				left := amount("1") - amount(cost)
				p.put(b.poll, json, b.ended)
				path, body := b.poll, b.ended
				if b.results != "" {
					path, body = b.results, b.lines
					p.put(b.results, b.kind, b.lines)
					step("ended", "GET", b.poll, "", s.key, 200, "0", b.ended)
				}
				if !strings.Contains(path, "/files/") { // whose batch a file is of is not known
					step("another agent's fetch", "GET", path, "", bob, 404, "", "")
					want(t, "another agent's balance", s.balance("bob"), "1")
				}
				step("results", "GET", path, "", s.key, 200, cost, body)
				want(t, "balance", s.balance("alice"), left)
				step("once more", "GET", path, "", s.key, 200, "0", body)
				want(t, "balance", s.balance("alice"), left)
			})
		}
	}
}

// TestBatchesOfThePoor: without enough money the results of a batch are not passed on completely. Asking for the status needs no money.
func TestBatchesOfThePoor(t *testing.T) {
	t.Parallel()
	for _, b := range batches {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			var p shelf
			s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, true), p.ServeHTTP)
			s.another("bob")
			p.put(b.send, "application/json", b.job)
			answer, _ := s.call(s.key, "POST", b.send, b.request)
			want(t, "sent", answer.StatusCode, 200)
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "bob", Amount: amount("1")})
				return err
			}))
			p.put(b.poll, "application/json", b.running)
			answer, _ = s.call(s.key, "GET", b.poll, "")
			want(t, "running", answer.StatusCode, 200)
			p.put(b.poll, "application/json", b.ended)
			path := b.poll
			if b.results != "" {
				path = b.results
				p.put(b.results, b.kind, b.lines)
			}
			answer, got := s.call(s.key, "GET", path, "")
			if answer.StatusCode != http.StatusPaymentRequired || strings.Contains(got, "usage") {
				t.Errorf("results: %s %s", answer.Status, got)
			}
			want(t, "paid", s.balance("acme"), "0")
		})
	}
}

// TestBatchesThatAreRefused: a batch whose models have no price is refused when its requests come: in its own body, or in an upload.
func TestBatchesThatAreRefused(t *testing.T) {
	t.Parallel()
	var p shelf
	p.put("/v1/files", "application/json", `{"id":"file-1"}`)
	s := openShop(t, escrow.Rules{}, gateway.Options{}, batchRoute(t, true), p.ServeHTTP)
	for _, test := range []struct{ path, body string }{
		{"/v1/messages/batches", `{"requests":[{"custom_id":"1","params":{"model":"cheap"}},{"custom_id":"2","params":{"model":"secret"}}]}`},
		{"/v1/batch/jobs", `{"model":"secret","endpoint":"/v1/ocr","input_files":["a"]}`},
		{"/v1/batch/jobs", `{"model":"cheap","requests":[{"body":{"model":"secret"}}]}`},
		{"/v1/batches/x1/requests", `{"batch_requests":[{"batch_request":{"chat_get_completion":{"model":"secret"}}}]}`},
		{"/v1beta/models/secret:batchGenerateContent", `{"batch":{}}`},
		{"/v1beta/models/secret:asyncBatchEmbedContent", `{"batch":{}}`},
	} {
		answer, body := s.call(s.key, "POST", test.path, test.body)
		if answer.StatusCode != 422 || !strings.Contains(body, "no_price") || !strings.Contains(body, "secret") {
			t.Errorf("%s %s: %s %s", test.path, test.body, answer.Status, body)
		}
	}
	for _, test := range []struct {
		path    string
		headers []string
	}{
		{"/v1beta/batches/b1?$fields=name", nil},
		{"/v1beta/batches/b1", []string{"X-Goog-FieldMask", "name"}},
		{"/v1beta/batches/b1?alt=proto", nil},
		{"/v1beta/batches/b1?alt=json&%24Alt=proto", nil},
		{"/v1beta/batches/b1?alt=media", nil},
		{"/v1beta/batches/b1?$callback=f", nil},
		{"/v1beta/batches/b1", []string{"Accept", "application/X-Protobuf"}},
		{"/download/v1beta/files/f1:download?alt=proto", nil},
	} {
		if answer, body := s.call(s.key, "GET", test.path, "", test.headers...); answer.StatusCode != 422 {
			t.Errorf("%s %v: %s %s", test.path, test.headers, answer.Status, body)
		}
	}
	for _, test := range []struct {
		purpose, lines string
		status         int
	}{
		{"batch", `{"custom_id":"1","url":"/v1/chat/completions","body":{"model":"cheap"}}` + "\n" + `{"body":{"model":"dear"}}`, 200},
		{"batch", `{"custom_id":"1","body":{"model":"cheap"}}` + "\n" + `{"body":{"model":"secret"}}` + "\n", 422},
		{"vision", `x`, 422},
		{"", `{"custom_id":"1","url":"/v1/chat/completions","body":{"model":"cheap"}}`, 200},
		{"", `{"custom_id":"1","body":{"model":"cheap"}}` + "\n" + `{"custom_id":"2","body":{"model":"secret"}}`, 422},
		{"", `{"prompt":"a","completion":"b"}`, 422},
	} {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		if test.purpose != "" {
			must(t, w.WriteField("purpose", test.purpose))
		}
		file, err := w.CreateFormFile("file", "a.jsonl")
		must(t, err)
		_, _ = file.Write([]byte(test.lines))
		must(t, w.Close())
		answer, body := s.call(s.key, "POST", "/v1/files", form.String(), "Content-Type", w.FormDataContentType())
		if answer.StatusCode != test.status {
			t.Errorf("an upload for %s of %s: %s %s", test.purpose, test.lines, answer.Status, body)
		}
	}
	want(t, "balance", s.balance("alice"), "1")
}
