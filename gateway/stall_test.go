package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// clock is a clock that stands still unless it is moved.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(0, c.Load()) }
func (c *clock) pass(d time.Duration) { c.Add(int64(d)) }

// stalling is a client that stops reading for a while.
type stalling struct {
	http.ResponseWriter
	clock   *clock
	after   int           // bytes that it reads at once
	stall   time.Duration // before the next
	flushes bool          // it is the flushing that waits
}

func (w *stalling) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		w.clock.pass(w.stall)
	}
	return w.ResponseWriter.Write(p)
}

// FlushError stalls as Write does: what is flushed may have waited in a buffer until then.
func (w *stalling) FlushError() error {
	if w.flushes {
		w.clock.pass(w.stall)
	}
	return nil
}

func (w *stalling) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestAStallIsTheClientsCut: an upstream breaks off while its client does not read. The client got most of the answer.
func TestAStallIsTheClientsCut(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 100_000)
	for _, test := range []struct {
		name   string
		reads  int           // bytes at once
		stalls time.Duration // before each further piece
		pauses time.Duration // of the upstream, before each piece
		flush  bool          // it flushes each
		left   string
	}{
		{"reads all", 1 << 30, 0, 0, false, "1"},
		{"waits for long, once", 250_000, 500 * time.Millisecond, 0, false, "0.9"},
		{"waits again and again", 0, 150 * time.Millisecond, 0, false, "0.9"},
		{"waits again and again as it is flushed", 1 << 30, 150 * time.Millisecond, 0, true, "0.9"},
		{"waits less than it is waited for", 0, 150 * time.Millisecond, 300 * time.Millisecond, false, "1"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
		meter := gateway.New(s.book, gateway.Options{})
		var clock clock
		meter.SetStall(200*time.Millisecond, clock.now)
		route := &gateway.Route{Payee: "acme", Rates: rates(t, "0.1 per call"), Logger: slog.New(slog.DiscardHandler)}
		handler := meter.Handler(route, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				clock.pass(test.pauses)
				_, _ = io.WriteString(w, piece)
				if test.flush {
					w.(http.Flusher).Flush()
				}
			}
			panic(http.ErrAbortHandler) // its patience is over
		}))
		w := &stalling{ResponseWriter: httptest.NewRecorder(), clock: &clock, after: test.reads, stall: test.stalls, flushes: test.flush}
		r := httptest.NewRequest(http.MethodGet, "/file", nil)
		r.Header.Set("Authorization", "Bearer "+s.key)
		func() {
			defer func() { _ = recover() }()
			handler.ServeHTTP(w, r)
		}()
		want(t, "wallet of one who "+test.name, s.balance("alice"), test.left)
	}
}
