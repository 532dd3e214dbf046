package gateway_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestAStreamOfTextIsDrawnBatchByBatch: nothing of a batch goes out before what the batches before it cost is drawn, and what goes out is held, although
// the price is not looked at for each event.
func TestAStreamOfTextIsDrawnBatchByBatch(t *testing.T) {
	t.Parallel()
	for _, batch := range []int64{1, 7, 100} {
		tariff := &pricing.Tariff{Models: perToken(t, "0.0001")}
		must(t, tariff.Compile(nil))
		var s *shop
		route := gateway.Route{Tariff: tariff, Batch: pricing.Measure{N: batch, Unit: "token"}}
		s = openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for sent := int64(1); sent <= 400; sent++ {
				_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":" word"}}]}`+"\n\n")
				w.(http.Flusher).Flush()
				price := amount("0.0001")
				payee, err := s.book.Wallet(r.Context(), "acme")
				must(t, err)
				if least := ledger.Amount((sent-1)/batch*batch) * price; payee.Pending < least {
					t.Errorf("%d words of batches of %d are sent, and %s is drawn", sent, batch, payee.Pending)
				}
				payer, err := s.book.Wallet(r.Context(), "alice")
				must(t, err)
				if spent := amount("1") - payer.Available; spent < ledger.Amount(sent)*price {
					t.Errorf("%d words are sent, and %s is held or drawn for them", sent, spent)
				}
			}
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
		})
		answer, _ := s.call(s.key, http.MethodPost, "/v1/chat/completions", `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
		want(t, "status", answer.StatusCode, 200)
	}
}
