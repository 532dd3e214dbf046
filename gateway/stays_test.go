package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// keepers are requests whose answers the provider keeps where their caller reads them for nothing.
var keepers = []struct{ name, path, request string }{
	{"a conversation", "/v1/responses", `{"model":"m","input":"","conversation":"conv_1","max_output_tokens":100`},
	{"a conversation, by an object", "/v1/responses", `{"model":"m","input":"","conversation":{"id":"conv_1"},"max_output_tokens":100`},
	{"a conversation of Mistral's", "/v1/conversations/conv_1", `{"inputs":"","completion_args":{"max_tokens":100}`},
	{"a stored completion", "/v1/chat/completions", `{"model":"m","messages":[],"store":true,"max_tokens":100`},
	{"a thread", "/v1/threads/thread_1/runs", `{"assistant_id":"a","max_completion_tokens":100`},
}

// bound is the bound of a request of keepers.
var bound = regexp.MustCompile(`"max_\w*tokens":(\d+)`)

// keeping answers any of keepers, with as many tokens as it may have, and keeps what it has answered.
type keeping struct {
	kept  atomic.Int64  // tokens
	begun chan struct{} // closed when the first request has come; nil where nobody waits
	goOn  chan struct{} // nil: at once
}

func (k *keeping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if k.begun != nil {
		close(k.begun)
		<-k.goOn
	}
	tokens, _ := strconv.Atoi(bound.FindStringSubmatch(string(body))[1])
	k.kept.Add(int64(tokens)) // whether anybody hears them or not
	usage := fmt.Sprintf(`"usage":{"prompt_tokens":0,"completion_tokens":%d,"total_tokens":%d}`, tokens, tokens)
	words := strings.Repeat("w ", tokens)
	if !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"a","status":"completed","model":"m",%s,"outputs":[{"content":%q}],"choices":[{"message":{"content":%q}}],"output":[{"content":[{"text":%q}]}]}`, usage, words, words, words)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	switch {
	case strings.HasSuffix(r.URL.Path, "/responses"):
		for range tokens {
			_, _ = io.WriteString(w, `data: {"type":"response.output_text.delta","delta":"w "}`+"\n\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, `data: {"type":"response.completed","response":{"id":"a","status":"completed",`+usage+"}}\n\n")
	case strings.Contains(r.URL.Path, "/conversations"):
		_, _ = io.WriteString(w, `data: {"type":"conversation.response.done",`+usage+"}\n\n")
	default:
		for range tokens {
			_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[{"delta":{"content":"w "}}]}`+"\n\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, `data: {"object":"thread.run","model":"m","choices":[],`+usage+"}\n\ndata: [DONE]\n\n")
	}
}

// TestAnswersThatStay: what the provider keeps, where its caller reads it for nothing, costs its whole price: its caller may hang up before the
// first byte, or have many at once on little money.
func TestAnswersThatStay(t *testing.T) {
	t.Parallel()
	for _, k := range keepers {
		for _, stream := range []bool{false, true} {
			if !stream && k.name == "a thread" {
				continue // without a stream it has no price
			}
			request := fmt.Sprintf(`%s,"stream":%t}`, k.request, stream)
			t.Run(fmt.Sprintf("%s, hung up, stream %t", k.name, stream), func(t *testing.T) {
				t.Parallel()
				provider := &keeping{begun: make(chan struct{}), goOn: make(chan struct{})}
				s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.0001 per output_token"), Shared: shared(t, "*")}, provider.ServeHTTP)
				ctx, hangUp := context.WithCancel(t.Context())
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+k.path, strings.NewReader(request))
					if err != nil {
						return
					}
					r.Header.Set("Tallygate-Key", s.key)
					r.Header.Set("Content-Type", "application/json")
					if answer, err := http.DefaultClient.Do(r); err == nil {
						answer.Body.Close()
					}
				}()
				<-provider.begun
				hangUp()
				<-gone
				close(provider.goOn)
				for s.balance("alice") == "1" {
					runtime.Gosched()
				}
				want(t, "balance", s.balance("alice"), "0.99")
				s.sound()
			})
			t.Run(fmt.Sprintf("%s, many at once, stream %t", k.name, stream), func(t *testing.T) {
				t.Parallel()
				provider := &keeping{}
				s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.004 per output_token"), Shared: shared(t, "*"), Batch: pricing.Measure{N: 10, Unit: "token"}}, provider.ServeHTTP)
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() { s.post(k.path, strings.NewReader(request)) })
				}
				all.Wait()
				if n := provider.kept.Load(); n < 100 || n > 250 {
					t.Errorf("%d tokens of 0.004 each are kept for 1.00", n)
				}
				s.sound()
			})
		}
	}
}

// TestTheLowestLimitIsHeldFor: where only the limit in the request keeps an answer within its money, a call begins with money for the lowest limit that
// the provider accepts, or not at all: else the provider would answer without a limit.
func TestTheLowestLimitIsHeldFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, path, request string
		least, most         int64 // the limits
	}{
		{"a response", "/v1/responses", `{"model":"m","input":"","max_output_tokens":100}`, 16, 100},
		{"a conversation", "/v1/responses", `{"model":"m","input":"","conversation":"conv_1","max_output_tokens":100,"stream":true}`, 16, 100},
		{"a short one", "/v1/responses", `{"model":"m","input":"","max_output_tokens":12}`, 12, 12},
		{"many choices", "/v1/chat/completions", `{"model":"m","messages":[],"n":40,"max_tokens":5}`, 40, 200},
		{"thoughts", "/v1/messages", `{"model":"m","messages":[],"max_tokens":5000,"thinking":{"type":"enabled","budget_tokens":1024}}`, 1025, 5000},
	} {
		for _, has := range []int64{test.least - 1, test.least, test.most} {
			t.Run(fmt.Sprintf("%s, money for %d", test.name, has), func(t *testing.T) {
				t.Parallel()
				var asked atomic.Int64
				choices := max(1, gjson.Get(test.request, "n").Int())
				s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.0001 per output_token"), Shared: shared(t, "*"), Batch: pricing.Measure{N: 10, Unit: "token"}},
					func(w http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						n, _ := strconv.ParseInt(bound.FindStringSubmatch(string(body))[1], 10, 64)
						asked.Store(n * choices)
						w.Header().Set("Content-Type", "application/json")
						_, _ = fmt.Fprintf(w, `{"id":"a","type":"message","role":"assistant","model":"m","status":"completed","output":[],"choices":[],"content":[],"usage":{"input_tokens":0,"prompt_tokens":0,"output_tokens":%d,"completion_tokens":%[1]d}}`, n*choices)
					})
				money := 100_000 * ledger.Amount(has) // nanos
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: money})
					if err == nil {
						_, err = tx.Withdraw(operator, escrow.PaymentOrder{From: "alice", Amount: ledger.Unit})
					}
					return err
				}))
				r, answer := s.call(s.key, http.MethodPost, test.path, test.request)
				if has < test.least {
					want(t, "refused: "+answer, r.StatusCode, http.StatusPaymentRequired)
					want(t, "the provider is asked for", asked.Load(), 0)
					want(t, "balance", amount(s.balance("alice")), money)
					return
				}
				want(t, "the provider is asked for", asked.Load(), has)
				want(t, "balance", s.balance("alice"), "0")
			})
		}
	}
}
