package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
			delivered, failed := 0, map[string]int{}
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					status, body, complete := good.ask(t, s, streamed)
					mu.Lock()
					defer mu.Unlock()
					if complete {
						delivered++
					} else {
						failed[fmt.Sprint(status, " ", body)]++
					}
				})
			}
			wg.Wait()
			paid := amount("1") - amount(s.balance("alice"))
			if worth := amount(good.price) * ledger.Amount(delivered); paid < worth {
				t.Errorf("%d answers, worth %s, were had for %s", delivered, worth, paid)
			}
			if delivered == 0 {
				t.Errorf("nobody was served: %v", failed)
			}
		})
	}
}

// TestTooLittleForAll: the whole answers of one payer's calls come at the same time, and there is too little money for all of them. Those that can be
// paid in full are served, and no money is left over that would have paid another.
func TestTooLittleForAll(t *testing.T) {
	t.Parallel()
	const calls = 40
	for _, test := range []struct{ price, body string }{{"0.01 per byte", "0123456789"}, {"0.001 per byte", strings.Repeat("x", 100)}} {
		var here sync.WaitGroup
		here.Add(calls)
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, test.price)}, func(w http.ResponseWriter, _ *http.Request) {
			here.Done()
			here.Wait() // all have been let in
			_, _ = io.WriteString(w, test.body)
		})
		var served atomic.Int64
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				if _, _, complete := (sold{}).ask(t, s, false); complete {
					served.Add(1)
				}
			})
		}
		wg.Wait()
		want(t, "charges", len(s.charges()), served.Load())
		if n := served.Load(); n < 6 { // 40 calls hold little, and the rest pays at least six
			t.Errorf("%s: %d of %d calls were served", test.price, n, calls)
		}
	}
}

// TestParallelCallsLeaveEachOtherSomething: one honest payer makes 40 calls at the same time, whose requests do not limit their answers.
// None of them takes money, or room of a limit, that the others need, for an answer that it will not get. A call that states a limit, or is alone and has enough
// money, is held in full.
func TestParallelCallsLeaveEachOtherSomething(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		pays    gateway.Payment
		limited bool // by a limit of what the wallet has otherwise, and a wallet with much more
	}{{"wallet", nil, false}, {"escrow", gateway.Escrow{}, false}, {"limit", nil, true}} {
		pays := test.pays
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
		if test.limited {
			must(t, s.do(func(tx *escrow.Tx) error {
				if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("99")}); err != nil {
					return err
				}
				_, err := tx.SetLimits(operator, "alice", []escrow.Limit{{Amount: amount("50"), Window: time.Hour}, {Payee: "acme", Amount: amount("1"), Window: time.Hour}})
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
			t.Errorf("%s: %d of %d calls were served: bounds %v", test.name, served, calls, bounds)
		}
		for _, bound := range bounds {
			if bound < 900 || bound > gateway.DefaultMaxOutput {
				t.Errorf("%s: an answer was bounded to %d tokens", test.name, bound)
			}
		}
		want(t, "charges", len(s.charges()), served)
	}
}
