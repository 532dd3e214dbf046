package escrow_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestNoOverspendUnderLoad: many calls at once on one wallet, and escrows opened by them; each that is let in can be settled in full,
// and no more are let in than there is money for.
func TestNoOverspendUnderLoad(t *testing.T) {
	for _, from := range []escrow.Funding{escrow.FromWallet, escrow.FromEscrow} {
		t.Run(fmt.Sprint("funding ", from), func(t *testing.T) {
			s := newShop(t, defaultRules())
			s.agents("10", "alice")
			s.agents("0", "shop")
			var admitted, refusedCalls, charged atomic.Int64
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					a, err := s.Authorise(context.Background(), escrow.CallOrder{
						Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("0.5"), Most: amount("1"), From: from, Open: amount("3"),
					})
					if err != nil {
						if !escrow.IsRefusal(err, escrow.InsufficientFunds) {
							t.Error(err)
						}
						refusedCalls.Add(1)
						return
					}
					admitted.Add(1)
					if i%4 == 0 {
						a.Cancel()
						a.Cancel()
						return
					}
					a.Draw(amount("0.2"), i%2 == 0)
					first, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.5")})
					if err != nil {
						t.Error(err)
						return
					}
					second, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.4")})
					if err != nil || second.Amount != first.Amount || second.RequestID != first.RequestID {
						t.Errorf("settled again: %v %v, first %v", second, err, first)
					}
					a.Cancel()
					charged.Add(int64(first.Amount))
					if first.Amount != amount("0.5") || first.Suspect {
						t.Errorf("a call that held 0.5 was charged %s", first.Amount)
					}
				}()
			}
			wg.Wait()
			must(t, s.run(func(*escrow.Tx) error { return nil })) // what the cancelled ones queued is done
			if admitted.Load() == 0 || admitted.Load()+refusedCalls.Load() != 40 {
				t.Errorf("%d let in, %d refused", admitted.Load(), refusedCalls.Load())
			}
			shop, err := s.Wallet(context.Background(), "shop")
			must(t, err)
			if int64(shop.Balance) != charged.Load() || shop.Pending != 0 {
				t.Errorf("charged %s, the payee has %s and %s pending", ledger.Amount(charged.Load()), shop.Balance, shop.Pending)
			}
			alice, err := s.Wallet(context.Background(), "alice")
			must(t, err)
			if alice.Held != 0 || alice.Balance < 0 {
				t.Errorf("alice has %s, %s held", alice.Balance, alice.Held)
			}
			s.sound()
		})
	}
}

// TestOneOpenerPerPair: calls that come at once share the escrow that the first of them opens.
func TestOneOpenerPerPair(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "shop")
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			a, err := s.Authorise(context.Background(), escrow.CallOrder{
				Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("0.1"), From: escrow.FromEscrow, Open: amount("5"),
			})
			if err != nil {
				t.Error(err)
				return
			}
			_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.1")})
			if err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	escrows, _, err := s.Escrows(context.Background(), escrow.EscrowFilter{Agent: "alice"}, escrow.Page{})
	must(t, err)
	if len(escrows) != 1 || escrows[0].Released != amount("2") {
		t.Errorf("%d escrows were opened: %+v", len(escrows), escrows)
	}
}

// TestExpiryIsDoneOnce whoever looks at the clock.
func TestExpiryIsDoneOnce(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "bob")
	s.Book = s.With(escrow.Rules{})
	for range 150 { // more than one batch of due things
		must(t, s.run(func(tx *escrow.Tx) error {
			_, err := tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "bob", Amount: amount("0.5"), AutoRelease: 3600e9})
			return err
		}))
	}
	s.clock.advance(3600e9)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := s.RunDue(context.Background()); err != nil {
				t.Error(err)
			}
			if w, err := s.Wallet(context.Background(), "bob"); err != nil || w.Balance != amount("75") {
				t.Errorf("bob has %v %v", w.Balance, err)
			}
		}()
	}
	wg.Wait()
	s.sound()
}
