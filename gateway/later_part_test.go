package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// TestAPartIsPaidFromWhatWasHeld: an answer that is asked for first is fetched as a stream, and its client hangs up. Meanwhile other calls of the payer
// take all money that becomes free. The part is paid all the same from what was held for it, and the whole answer is charged when it is fetched.
func TestAPartIsPaidFromWhatWasHeld(t *testing.T) {
	t.Parallel()
	t.Run("in memory", func(t *testing.T) { testPartIsPaid(t, nil) })
	t.Run("on disk", func(t *testing.T) { testPartIsPaid(t, new(ledger.Amount)) })
}

func testPartIsPaid(t *testing.T, durableAbove *ledger.Amount) {
	t.Parallel()
	const whole = `{"id":"resp_A","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w w w w w w w w w w"}]}],"usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}`
	s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), nil)
	route, g := tokenRoute(t), gateway.New(s.book, gateway.Options{})
	route.Payee, route.Logger, route.DurableAbove = "acme", slog.New(slog.DiscardHandler), durableAbove
	g.SetHangUpGrace(time.Millisecond)
	server := httptest.NewServer(g.Handler(&route, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"resp_A","object":"response","status":"queued","output":[],"usage":null}`)
		case r.URL.Query().Get("stream") == "true":
			w.Header().Set("Content-Type", "text/event-stream")
			for n := range 5 {
				_, _ = fmt.Fprintf(w, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":%d,\"delta\":\"w \"}\n\n", n)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, whole)
		}
	})))
	t.Cleanup(server.Close)
	s.url = server.URL
	asked, _ := s.call(s.key, http.MethodPost, "/v1/responses", `{"model":"m","input":"","max_output_tokens":16,"background":true}`)
	want(t, "asked", asked.StatusCode, http.StatusOK)

	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/responses/resp_A?stream=true", nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.key)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	lines := bufio.NewScanner(answer.Body)
	for range 12 { // four events
		lines.Scan()
	}

	greedy, err := s.book.Authorise(t.Context(), escrow.CallOrder{Request: s.book.NewRequestID(), By: escrow.Actor{Agent: "alice"}, Payee: "acme"})
	must(t, err)
	over := make(chan struct{})
	var taking sync.WaitGroup
	taking.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				greedy.ExtendUpTo(amount("10"))
			}
		}
	})
	hangUp()
	answer.Body.Close()
	for deadline := time.Now().Add(time.Minute); len(s.charges()) < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	close(over)
	taking.Wait()
	greedy.Cancel()
	var paid ledger.Amount
	for _, c := range s.charges() {
		paid += c.Amount
	}
	if paid < amount("0.04") {
		t.Errorf("four tokens and more were had for %s", paid)
	}
	fetched, got := s.call(s.key, http.MethodGet, "/v1/responses/resp_A", "")
	want(t, "the whole", got, whole)
	want(t, "its charge", fetched.Header.Get("Tallygate-Charge"), "0.1")
}

// TestAPartOfALaterAnswerHasItsInput: whoever hangs up on the stream of an answer that was asked for before pays for what that request said, and
// for the reasoning that it asked for.
func TestAPartOfALaterAnswerHasItsInput(t *testing.T) {
	t.Parallel()
	input := strings.TrimSuffix(strings.Repeat("hello ", 1000), " ")
	for name, test := range map[string]struct{ asks, units string }{
		"input":     {`"max_output_tokens":500`, "input=1006,output=3"},
		"reasoning": {`"max_output_tokens":500,"reasoning":{"effort":"high"}`, "input=1007,output=500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := make(chan gateway.Report, 2)
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
			g := gateway.New(s.book, gateway.Options{Report: func(_ *http.Request, r gateway.Report) { over <- r }})
			g.SetHangUpGrace(time.Millisecond)
			route := gateway.Route{Payee: "acme", Rates: rates(t, "0.0001 per token"), Logger: slog.New(slog.DiscardHandler)}
			server := httptest.NewServer(g.Handler(&route, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"id":"resp_A","object":"response","status":"queued","output":[],"usage":null}`)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hello hello hello\"}\n\n")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			})))
			t.Cleanup(server.Close)
			s.url = server.URL
			asked, _ := s.call(s.key, http.MethodPost, "/v1/responses", `{"model":"gpt-4o","background":true,`+test.asks+`,"input":"`+input+`"}`)
			want(t, "asked", asked.StatusCode, http.StatusOK)
			<-over
			ctx, hangUp := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/responses/resp_A?stream=true", nil)
			must(t, err)
			r.Header.Set("Authorization", "Bearer "+s.key)
			answer, err := http.DefaultClient.Do(r)
			must(t, err)
			_, err = bufio.NewReader(answer.Body).ReadString('}')
			must(t, err)
			hangUp()
			answer.Body.Close()
			<-over
			want(t, "units", unitsOf(s.charges()[0]), test.units)
		})
	}
}
