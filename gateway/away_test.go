package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// TestStreamThatCanHoldNoMore: a stream for which nothing more can be set aside, since the ledger has had no answer for long, ends with the error of the
// ledger. Its payer has money, and is not told that it has none.
func TestStreamThatCanHoldNoMore(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	on := ledger.Options{Untended: true, Lifetime: 10 * time.Second, Elapsed: func() time.Duration { return time.Duration(passed.Load()) }}
	words := chat(true)
	s := openShopOn(t, on, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.00001 per output_token")}, func(w http.ResponseWriter, r *http.Request) {
		passed.Store(int64(9 * time.Second))
		for range 300 {
			words(unended{w}, r)
		}
		words(w, r)
	})
	status, body, complete := sold{request: `{"model":"m","messages":[],"stream":%t}`}.ask(t, s, true)
	want(t, "status", status, 200)
	if !strings.Contains(body, "ledger_unavailable") || strings.Contains(body, "insufficient_funds") || complete {
		t.Errorf("the stream, complete %v, ends with %q", complete, body[max(0, len(body)-400):])
	}
}

// unended is a writer that leaves out the usage and the end of a chat.
type unended struct{ http.ResponseWriter }

func (w unended) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "[DONE]") {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w unended) Flush() { w.ResponseWriter.(http.Flusher).Flush() }
