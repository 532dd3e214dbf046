package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

func (s *shop) issue(payee, agent, sum string, expires time.Time) escrow.Credit {
	s.t.Helper()
	c, err := do(s, func(tx *escrow.Tx) (escrow.Credit, error) {
		return tx.IssueCredit(by(payee), escrow.CreditOrder{Agent: agent, Amount: amount(sum), ExpiresAt: expires})
	})
	must(s.t, err)
	return c
}

// withCredit is the order of a call that alice makes to the shop.
func (s *shop) withCredit(least, most string) escrow.CallOrder {
	return escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount(least), Most: amount(most), Credit: true}
}

// TestCreditBesideAnEscrow: a call draws from credit, then from an escrow, and its process dies. What it has drawn is charged, the escrow counts
// only the money, and the rest of both is free again.
func TestCreditBesideAnEscrow(t *testing.T) {
	for _, exact := range []bool{true, false} {
		t.Run(fmt.Sprint("exact ", exact), func(t *testing.T) {
			s := newShop(t, defaultRules())
			s.agents("5", "alice")
			s.agents("0", "shop")
			credit := s.issue("shop", "alice", "0.3", time.Time{})
			e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
				return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("2")})
			})
			must(t, err)
			o := s.withCredit("0.5", "1")
			o.From = escrow.FromEscrow
			a, err := s.Authorise(context.Background(), o)
			must(t, err)
			for _, due := range []string{"0.2", "0.7"} {
				a.Draw(amount(due), exact)
				must(t, a.Await())
			}
			s.reopen()
			charge, err := s.Charge(context.Background(), operator, o.Request)
			must(t, err)
			if charge.Amount != amount("0.7") || charge.Credit != amount("0.3") || charge.EscrowID != e.ID {
				t.Errorf("charged %s, of it credit %s, escrow %s", charge.Amount, charge.Credit, charge.EscrowID)
			}
			now, err := s.Escrow(context.Background(), operator, e.ID)
			must(t, err)
			if now.Released != amount("0.4") || now.Remaining() != amount("1.6") {
				t.Errorf("the escrow released %s, and has %s", now.Released, now.Remaining())
			}
			c, err := s.Credit(operator, credit.ID)
			must(t, err)
			if c.Left != 0 || c.Used() != amount("0.3") {
				t.Errorf("the credit has %s left, %s used", c.Left, c.Used())
			}
			s.sound()
		})
	}
}

// TestNoCreditIsUsedTwice: many calls at the same time on one credit and a wallet use each nano of them once, while the credit is revoked.
func TestNoCreditIsUsedTwice(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		t.Run(fmt.Sprint("revoked ", revoked), func(t *testing.T) {
			s := newShop(t, defaultRules())
			s.agents("5", "alice")
			s.agents("0", "shop")
			first, second := s.issue("shop", "alice", "6.3", time.Time{}), s.issue("shop", "alice", "3.2", s.Now().Add(time.Hour))
			var charged, credit atomic.Int64
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					if revoked && i == 10 {
						if err := s.run(func(tx *escrow.Tx) error { _, err := tx.RevokeCredit(by("shop"), first.ID); return err }); err != nil {
							t.Error(err)
						}
					}
					a, err := s.Authorise(context.Background(), s.withCredit("0.5", "1"))
					if err != nil {
						if !escrow.IsRefusal(err, escrow.InsufficientFunds) {
							t.Error(err)
						}
						return
					}
					if i%4 == 0 {
						a.Cancel()
						return
					}
					a.Draw(amount("0.2"), i%2 == 0)
					c, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.5")})
					if err != nil || c.Amount != amount("0.5") || c.Suspect {
						t.Errorf("a call that held 0.5 was charged %s: %v", c.Amount, err)
					}
					charged.Add(int64(c.Amount))
					credit.Add(int64(c.Credit))
				})
			}
			wg.Wait()
			must(t, s.run(func(*escrow.Tx) error { return nil })) // what the cancelled ones queued is done
			s.clock.advance(time.Minute)                          // what they held of the credit that was revoked follows
			s.catchUp()
			used := ledger.Amount(0)
			for _, c := range []escrow.Credit{first, second} {
				now, err := s.Credit(operator, c.ID)
				must(t, err)
				used += now.Used()
				if now.Used() < 0 || now.Left < 0 || now.Status == escrow.CreditRevoked && now.Left != 0 {
					t.Errorf("credit: used %s, ended %s, left %s", now.Used(), now.Ended, now.Left)
				}
			}
			if int64(used) != credit.Load() {
				t.Errorf("charges used %s of credit, the credits say %s", ledger.Amount(credit.Load()), used)
			}
			earned, err := s.Wallet(context.Background(), "shop")
			must(t, err)
			if int64(earned.Balance) != charged.Load()-credit.Load() || earned.Pending != 0 {
				t.Errorf("charged %s, of it credit %s: the payee has %s", ledger.Amount(charged.Load()), ledger.Amount(credit.Load()), earned.Balance)
			}
			s.sound()
		})
	}
}

// TestCreditOfACommitThatFails: whether or not the charge is in the books, after they were put right the whole credit is there again.
func TestCreditOfACommitThatFails(t *testing.T) {
	for _, kept := range []bool{true, false} {
		memory := &ledgertest.Memory{}
		l, err := ledger.New(memory.Open(), ledger.Options{Currency: "USDC", Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		s := &shop{Book: escrow.New(l, defaultRules()), t: t, clock: newClock()}
		s.agents("10", "alice")
		s.agents("0", "shop")
		c := s.issue("shop", "alice", "2", time.Time{})
		order := s.withCredit("3", "3")
		a, err := s.Authorise(t.Context(), order)
		must(t, err)
		memory.FailNext(errors.New("disk on fire"), kept)
		if _, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("3")}); !errors.Is(err, ledger.ErrOutcomeUnknown) {
			t.Fatalf("kept %v: settled with %v", kept, err)
		}
		s.Abandon(escrow.AbandonedCall{Request: order.Request, Payer: "alice"})
		must(t, l.Reopen())
		_, err = s.PutRight(context.Background())
		must(t, err)
		now, err := s.Credit(operator, c.ID)
		must(t, err)
		w, err := s.Wallet(context.Background(), "alice")
		must(t, err)
		usable, err := s.UsableCredit("alice", "shop")
		must(t, err)
		if now.Left != amount("2") || usable != amount("2") || w.Available != amount("10") {
			t.Errorf("kept %v: credit %s (usable %s) and money %s, want 2 and 10", kept, now.Left, usable, w.Available)
		}
		s.sound()
		must(t, l.Close())
	}
}

// TestCreditCountsAgainstLimits: a limit bounds what calls cost, including what credit pays.
func TestCreditCountsAgainstLimits(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("10", "alice")
	s.agents("0", "shop")
	s.issue("shop", "alice", "10", time.Time{})
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.SetLimits(by("alice"), "", []escrow.Limit{{Amount: amount("3"), Window: time.Hour}})
		return err
	}))
	a, err := s.Authorise(t.Context(), s.withCredit("2", "2"))
	must(t, err)
	_, err = a.Settle(t.Context(), escrow.Settlement{Amount: amount("2")})
	must(t, err)
	_, err = s.Authorise(t.Context(), s.withCredit("2", "2"))
	refused(t, err, escrow.LimitExceeded)
	if left, err := s.UsableCredit("alice", "shop"); err != nil || left != amount("8") {
		t.Errorf("a refused call has left %s of the credit, %v", left, err)
	}
	// A key that may pay only other payees can't use credit here either.
	order := s.withCredit("1", "1")
	order.By.Payees = []string{"other"}
	_, err = s.Authorise(t.Context(), order)
	refused(t, err, escrow.Forbidden)
}

// TestPennilessWithCredit: an agent with credit at a payee can pay that payee, and no other.
func TestPennilessWithCredit(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "alice", "shop", "other")
	c := s.issue("shop", "alice", "1", time.Time{})
	check := func(payee string, penniless, affordable bool) {
		t.Helper()
		got, err := s.Penniless(t.Context(), "alice", payee)
		must(t, err)
		order := s.withCredit("1", "1")
		order.Payee = payee
		can, err := s.Affordable(t.Context(), order)
		must(t, err)
		if got != penniless || can != affordable {
			t.Errorf("at %s: penniless %v, affordable %v", payee, got, can)
		}
	}
	check("shop", false, true)
	check("other", true, false)
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.RevokeCredit(operator, c.ID); return err }))
	check("shop", true, false)
}

// TestCreditEvents: both parties get events when credit is issued, expires, and is revoked.
func TestCreditEvents(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "alice", "shop")
	for _, agent := range []string{"alice", "shop"} {
		must(t, s.run(func(tx *escrow.Tx) error {
			_, err := tx.CreateWebhook(by(agent), escrow.WebhookOrder{URL: "https://example.com/hook"})
			return err
		}))
	}
	s.issue("shop", "alice", "1", s.Now().Add(time.Hour))
	c := s.issue("shop", "alice", "2", time.Time{})
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.RevokeCredit(by("shop"), c.ID); return err }))
	s.clock.advance(time.Hour)
	s.catchUp()
	for _, agent := range []string{"alice", "shop"} {
		due, _, err := s.Deliveries(t.Context(), 100, func(d escrow.Delivery) bool { return d.Agent != agent })
		must(t, err)
		var got []string
		for _, d := range due {
			got = append(got, fmt.Sprint(d.Event.Type, " ", d.Event.Credit.Amount, " ", d.Event.Credit.Ended))
		}
		if want := "[credit.issued 1 0 credit.issued 2 0 credit.revoked 2 2 credit.expired 1 1]"; fmt.Sprint(got) != want {
			t.Errorf("%s is told %v, want %s", agent, got, want)
		}
	}
}

// TestCreditThatIsOverIsNotUsed: expired credit is not used, even before the worker has taken it back.
func TestCreditThatIsOverIsNotUsed(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1", "alice")
	s.agents("0", "shop")
	c := s.issue("shop", "alice", "1", s.Now().Add(time.Hour))
	used, err := s.Authorise(t.Context(), s.withCredit("0.5", "0.5"))
	must(t, err)
	charge, err := used.Settle(t.Context(), escrow.Settlement{Amount: amount("0.5")})
	must(t, err)
	s.clock.advance(time.Hour)
	if usable, err := s.UsableCredit("alice", "shop"); err != nil || usable != 0 {
		t.Errorf("usable after its time: %s, %v", usable, err)
	}
	a, err := s.Authorise(t.Context(), s.withCredit("0.5", "0.5"))
	must(t, err)
	if held, _ := a.Credit(); held != 0 {
		t.Errorf("a call holds %s of credit that is over", held)
	}
	a.Cancel()
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(by("shop"), charge.RequestID, 0, ""); return err }))
	s.catchUp()
	now, err := s.Credit(operator, c.ID)
	must(t, err)
	if now.Status != escrow.CreditExpired || now.Used() != amount("0.5") || now.Ended != amount("0.5") || now.Left != 0 {
		t.Errorf("it is %s: used %s, ended %s, left %s", now.Status, now.Used(), now.Ended, now.Left)
	}
	s.sound()
}

// TestRefusedExtensionLeavesCreditAlone: a call that may not hold more holds the same of each credit as before, although an earlier credit has become
// free meanwhile.
func TestRefusedExtensionLeavesCreditAlone(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1", "alice")
	s.agents("0", "shop")
	first, second := s.issue("shop", "alice", "3", s.Now().Add(time.Hour)), s.issue("shop", "alice", "3", time.Time{})
	other, err := s.Authorise(context.Background(), s.withCredit("3", "3"))
	must(t, err)
	a, err := s.Authorise(context.Background(), s.withCredit("2", "2"))
	must(t, err)
	other.Cancel()
	refused(t, a.Extend(amount("9")), escrow.InsufficientFunds)
	_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("2")})
	must(t, err)
	for _, c := range []struct{ id, left string }{{first.ID, "3"}, {second.ID, "1"}} {
		now, err := s.Credit(operator, c.id)
		must(t, err)
		if now.Left != amount(c.left) {
			t.Errorf("%s is left of %s, want %s", now.Left, c.id, c.left)
		}
	}
	s.sound()
}
