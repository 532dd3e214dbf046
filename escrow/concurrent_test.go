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

// TestNoOverspendUnderLoad: many calls use one wallet, and escrows that they open, at the same time. Each authorised call can be settled in full, and
// no more calls are authorised than there is money for.
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

// TestOneOpenerPerPair: calls that come at the same time share the escrow that the first of them opens.
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

// gated is a store that reports each submitted operation.
type gated struct {
	ledger.Store
	submitted chan struct{}
}

func (g gated) Submit(op ledger.Op) {
	g.Store.Submit(op)
	g.submitted <- struct{}{}
}

// TestClosedBehindACall: an escrow is released right after a call was settled or cancelled, in the same commit. The release must find nothing held
// by that call, since nobody else would pay out what is left.
func TestClosedBehindACall(t *testing.T) {
	for what, end := range map[string]func(*escrow.Authorisation){
		"settled": func(a *escrow.Authorisation) {
			_, _ = a.Settle(context.Background(), escrow.Settlement{Amount: amount("1")})
		},
		"cancelled": (*escrow.Authorisation).Cancel,
	} {
		submitted := make(chan struct{}, 100)
		s := newShopBy(t, defaultRules(), func(s ledger.Store) ledger.Store { return gated{s, submitted} })
		s.agents("10", "alice")
		s.agents("0", "shop")
		e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
			return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("5")})
		})
		must(t, err)
		a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: "req_1", By: by("alice"), Payee: "shop", Least: amount("3"), From: escrow.FromEscrow, Escrow: e.ID})
		must(t, err)
		for len(submitted) > 0 {
			<-submitted
		}
		open := make(chan struct{})
		ledger.Queue(s.Ledger(), func(*ledger.Tx) (struct{}, error) { <-open; return struct{}{}, nil }) // the next two come into one group
		<-submitted
		ended := make(chan struct{})
		go func() {
			end(a)
			close(ended)
		}()
		<-submitted
		done := make(chan error)
		go func() {
			done <- s.run(func(tx *escrow.Tx) error { _, err := tx.Release(by("alice"), e.ID, ""); return err })
		}()
		<-submitted
		close(open)
		must(t, <-done)
		<-ended
		after, err := s.Escrow(t.Context(), operator, e.ID)
		must(t, err)
		if after.Remaining() != 0 || after.Released != amount("5") {
			t.Errorf("behind a call that is %s: %s was released, %s remain", what, after.Released, after.Remaining())
		}
		s.sound()
	}
}

// TestExpiryIsDoneOnce: an expiry is done once, even if several callers notice it.
func TestExpiryIsDoneOnce(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "bob")
	s.Book = s.With(escrow.Rules{})
	for range 150 { // more than are done in one operation
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
