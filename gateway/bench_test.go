//go:build unix

package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// hot is a call whose cost is measured: the whole way through the gateway, on a ledger in a file, without a server around it.
type hot struct {
	name   string
	route  gateway.Route
	path   string
	body   string // of the request; empty: GET
	answer string
	times  int     // how often the answer is written until it is whole
	allocs float64 // the budget of one call, see TestAllocs
}

// streamEnd is the end of a stream: its usage, which the client has not asked for and does not get, and the terminal event.
const streamEnd = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1735689600,"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":200,"total_tokens":212}}` +
	"\n\ndata: [DONE]\n\n"

func hotCalls(t testing.TB) []hot {
	input, err := pricing.ParseClassPrice("input", strings.Fields("0.15 per 1M tokens"))
	must(t, err)
	output, err := pricing.ParseClassPrice("output", strings.Fields("0.60 per 1M tokens"))
	must(t, err)
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{input, output}}}}
	must(t, tariff.Compile(nil))
	perCall := rates(t, "0.000001 per call")
	json4k := `{"results":["` + strings.Repeat("result ", 580) + `"]}`
	return []hot{
		{"wallet", gateway.Route{Rates: perCall}, "/search", "", json4k, 1, 250},
		{"escrow", gateway.Route{Rates: perCall, Payment: gateway.Escrow{Open: amount("1000"), OpenFor: time.Hour}}, "/search", "", json4k, 1, 290},
		{"tokens", gateway.Route{Tariff: tariff}, "/v1/chat/completions",
			`{"model":"gpt-4o-mini","stream":false,"max_tokens":2000,"messages":[{"role":"user","content":"What is the answer?"}]}`,
			`{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"` +
				strings.Repeat("word ", 6000) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1800,"total_tokens":1812}}`, 1, 375},
		{"stream", gateway.Route{Tariff: tariff}, "/v1/chat/completions",
			`{"model":"gpt-4o-mini","stream":true,"max_tokens":2000,"messages":[{"role":"user","content":"What is the answer?"}]}`,
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1735689600,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n", 200, 430},
		{"download", gateway.Route{Rates: perCall}, "/file", "", strings.Repeat("0123456789abcdef", 2<<10), 320, 265},
	}
}

// open returns a function that makes the call once.
func (h hot) open(t testing.TB, o bolt.Options) (call func()) {
	store, err := bolt.Open(filepath.Join(t.TempDir(), "ledger.db"), o)
	must(t, err)
	books, err := ledger.New(store, ledger.Options{Currency: "USDC"})
	must(t, err)
	t.Cleanup(func() { must(t, books.Close()) })
	s := &shop{t: t, book: escrow.New(books, escrow.Rules{OpenRegistration: true})}
	must(t, s.book.Reserve(t.Context(), "acme"))
	must(t, s.do(func(tx *escrow.Tx) (err error) {
		if _, _, s.key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: "alice"}); err != nil {
			return err
		}
		_, err = tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("1000000")})
		return err
	}))
	h.route.Payee, h.route.Name, h.route.Logger = "acme", h.name, slog.New(slog.DiscardHandler)
	length := len(h.answer) * h.times
	answer, stream := []byte(h.answer), strings.HasPrefix(h.answer, "data: ")
	handler := gateway.New(s.book, gateway.Options{}).Handler(&h.route, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if stream {
			w.Header().Set("Content-Type", "text/event-stream")
		} else {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		for range h.times {
			_, _ = w.Write(answer)
			if stream {
				_ = http.NewResponseController(w).Flush()
			}
		}
		if stream {
			_, _ = io.WriteString(w, streamEnd)
		}
	}))
	return func() {
		method, body := http.MethodGet, io.Reader(http.NoBody)
		if h.body != "" {
			method, body = http.MethodPost, strings.NewReader(h.body)
		}
		r, _ := http.NewRequestWithContext(t.Context(), method, "http://localhost"+h.path, body)
		r.Header.Set("Authorization", "Bearer "+s.key)
		r.Header.Set("Content-Type", "application/json")
		w := &recorder{header: make(http.Header)}
		handler.ServeHTTP(w, r)
		if w.code != http.StatusOK || w.length < length {
			t.Errorf("%d, %d bytes", w.code, w.length)
		}
	}
}

// BenchmarkCall makes calls by 64 callers at once, on a file that syncs. cpu-µs/op is user and system time.
func BenchmarkCall(b *testing.B) {
	for _, h := range hotCalls(b) {
		b.Run(h.name, func(b *testing.B) {
			call := h.open(b, bolt.Options{})
			call()
			b.ReportAllocs()
			b.ResetTimer()
			began := cpuTime()
			var next atomic.Int64
			var all sync.WaitGroup
			for range 64 {
				all.Go(func() {
					for next.Add(1) <= int64(b.N) {
						call()
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64((cpuTime()-began).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func cpuTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// recorder is a client that only counts what it gets, so that its own work is not measured.
type recorder struct {
	header http.Header
	code   int
	length int
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(code int) { r.code = code }

func (r *recorder) Write(p []byte) (int, error) {
	r.length += len(p)
	return len(p), nil
}

func (r *recorder) FlushError() error { return nil }
