package gateway_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// responseStream is the stream of a response that has run code.
const responseStream = `data: {"type":"response.created","response":{"id":"resp_s"}}

data: {"type":"response.output_item.added","item":{"id":"msg_s","type":"message"}}

data: {"type":"response.output_text.delta","delta":"hello world"}

`

const responseEnd = `data: {"type":"response.completed","response":{"id":"resp_s","output":[{"id":"ci_s","type":"code_interpreter_call","container_id":"cntr_s"}],"usage":{"input_tokens":1,"output_tokens":2}}}

`

// TestStreamsMakeResources: of a stream, also of one that broke off, what its events have told belongs to who asked for it. Of one whose money ran
// out nothing does: it could be read whole.
func TestStreamsMakeResources(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		stream    string
		cut       bool
		price     string
		stored    string
		mine, not []string
	}{
		{"whole", responseStream + responseEnd, false, "0.000001", "", []string{"/v1/responses/resp_s", "/v1/containers/cntr_s", "item msg_s", "item ci_s"}, nil},
		{"cut by the provider", responseStream, true, "0.000001", "", []string{"/v1/responses/resp_s", "item msg_s"}, []string{"/v1/containers/cntr_s", "item ci_s"}},
		{"out of money", responseStream + strings.Repeat(strings.Split(responseStream, "\n\n")[2]+"\n\n", 100) + responseEnd, false, "0.01", "", nil, []string{"/v1/responses/resp_s", "item msg_s"}},
		{"not stored", responseStream + responseEnd, false, "0.000001", `,"store":false`, []string{"/v1/containers/cntr_s"}, []string{"/v1/responses/resp_s", "item msg_s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			output, err := pricing.ParseClassPrice("output", strings.Fields(test.price+" per token"))
			must(t, err)
			tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{output}}}, MaxOutput: 10}
			must(t, tariff.Compile(nil))
			m := openStorehouse(t, gateway.Route{Tariff: tariff}, collections[1])
			m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost || r.Header.Get("X-Stream") == "" {
					return false
				}
				w.Header().Set("Content-Type", "text/event-stream")
				for event := range strings.SplitAfterSeq(test.stream, "\n\n") {
					_, _ = io.WriteString(w, event)
					_ = http.NewResponseController(w).Flush()
				}
				if test.cut {
					panic(http.ErrAbortHandler)
				}
				return true
			}
			m.keeper.things["/v1/responses"] = []string{"resp_s"}
			m.stream("alice", `{"model":"m","input":"x","stream":true`+test.stored+`}`)
			m.keeper.answer = nil
			request := func(what string) (method, path, body string) {
				if item, ok := strings.CutPrefix(what, "item "); ok {
					return "POST", "/v1/responses", `{"model":"m","input":[{"type":"item_reference","id":"` + item + `"}]}`
				}
				return "GET", what, ""
			}
			check := func(is bool, agent, what string) {
				t.Helper()
				method, path, body := request(what)
				m.serves(is, agent, method, path, body)
			}
			for _, what := range test.mine {
				check(true, "alice", what)
				check(false, "bob", what)
			}
			for _, what := range test.not { // what is paid for only in part is had for the rest of its price
				method, path, body := request(what)
				if status, answer, forwarded := m.ask("alice", method, path, body); forwarded || status != 404 && status != 402 {
					t.Errorf("%s: %d %s", what, status, answer)
				}
			}
		})
	}
}

// TestAClientThatHangsUpKeepsWhatItWasTold: what was made in a stream that its client leaves is its client's.
func TestAClientThatHangsUpKeepsWhatItWasTold(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	m := openStorehouse(t, anyCall(t), collections[1])
	m.keeper.things["/v1/responses"] = []string{"resp_s"}
	m.keeper.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Stream") == "" {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, responseStream)
		_ = http.NewResponseController(w).Flush()
		<-left
		_, _ = io.WriteString(w, responseEnd)
		return true
	}
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url+"/v1/responses", strings.NewReader(`{"model":"m","input":"x","stream":true}`))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+m.key)
	r.Header.Set("X-Stream", "1")
	response, err := http.DefaultClient.Do(r)
	must(t, err)
	_, err = io.ReadFull(response.Body, make([]byte, 100))
	must(t, err)
	hangUp()
	_ = response.Body.Close()
	close(left)
	m.await()
	m.serves(true, "alice", "GET", "/v1/responses/resp_s", "")
	m.serves(false, "bob", "GET", "/v1/responses/resp_s", "")
}

// TestAWithheldAnswerMakesNothing: what was not paid for can't be had from the provider's store.
func TestAWithheldAnswerMakesNothing(t *testing.T) {
	t.Parallel()
	m := openStorehouse(t, gateway.Route{Rates: rates(t, "0.02 per byte"), Shared: shared(t, "none")}, collections[1])
	if status, answer, _ := m.ask("alice", "POST", "/v1/responses", respond); status != 402 || !strings.Contains(answer, "withheld") {
		t.Fatalf("%d %s", status, answer)
	}
	m.serves(false, "alice", "GET", "/v1/responses/resp_1", "")
}
