package gateway_test

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// TestParallelCalls: one payer makes many calls at the same time, and what is delivered is charged.
func TestParallelCalls(t *testing.T) {
	t.Parallel()
	for _, good := range goods {
		t.Run(good.name, func(t *testing.T) {
			t.Parallel()
			provider, streamed := good.document, false
			if provider == nil {
				provider, streamed = good.stream, true
			}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, good.route(t), provider)
			var mu sync.Mutex
			delivered := 0
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					if _, _, complete := good.ask(t, s, streamed); complete {
						mu.Lock()
						delivered++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			paid := amount("1") - amount(s.balance("alice"))
			if worth := amount(good.price) * ledger.Amount(delivered); paid < worth {
				t.Errorf("%d answers, worth %s, were had for %s", delivered, worth, paid)
			}
			if delivered == 0 {
				t.Error("nobody was served")
			}
		})
	}
}

// TestParallelCallsLeaveEachOtherSomething: one honest payer makes 40 calls at the same time, whose requests do not limit their answers.
// None of them takes money that the others need, for an answer that it will not get. A call that states a limit, or is alone and has enough
// money, is held in full.
func TestParallelCallsLeaveEachOtherSomething(t *testing.T) {
	t.Parallel()
	for _, pays := range []gateway.Payment{nil, gateway.Escrow{}} {
		const calls = 40
		var mu sync.Mutex
		arrived, here := 0, make(chan struct{})
		arrive := func() {
			mu.Lock()
			defer mu.Unlock()
			if arrived++; arrived == calls {
				close(here)
			}
		}
		var bounds []int64
		// 4096 tokens cost 0.2048, a fifth of what there is, and a thousand 0.05.
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.00005 per output_token"), Payment: pays}, func(w http.ResponseWriter, r *http.Request) {
			var asked struct {
				MaxTokens int64 `json:"max_tokens"`
			}
			must(t, json.NewDecoder(r.Body).Decode(&asked))
			mu.Lock()
			bounds = append(bounds, asked.MaxTokens)
			mu.Unlock()
			arrive()
			<-here // all run at once
			chat(false)(w, r)
		})
		if pays != nil {
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount("1")})
				return err
			}))
		}
		served := 0
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				_, _, complete := (sold{request: `{"model":"m","messages":[]}`}).ask(t, s, false)
				mu.Lock()
				defer mu.Unlock()
				if complete {
					served++
					return
				}
				if arrived++; arrived == calls { // refused
					close(here)
				}
			})
		}
		wg.Wait()
		if served < 9 { // held for in full, five
			t.Errorf("%d of %d calls were served: bounds %v", served, calls, bounds)
		}
		for _, bound := range bounds {
			if bound < 900 || bound > gateway.DefaultMaxOutput {
				t.Errorf("an answer was bounded to %d tokens", bound)
			}
		}
		want(t, "charges", len(s.charges()), served)
	}
}
