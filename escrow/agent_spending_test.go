package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// newKey makes another key of an agent.
func (s *shop) newKey(agent string, o escrow.KeyOrder) escrow.Actor {
	s.t.Helper()
	key, err := do(s, func(tx *escrow.Tx) (escrow.Key, error) {
		key, _, err := tx.CreateKey(by(agent), agent, o)
		return key, err
	})
	must(s.t, err)
	return escrow.Actor{Agent: agent, Key: key.ID, Payees: o.Payees}
}

func (s *shop) setLimits(who escrow.Actor, agent string, limits ...escrow.Limit) {
	s.t.Helper()
	must(s.t, s.run(func(tx *escrow.Tx) error { _, err := tx.SetLimits(who, agent, limits); return err }))
}

func (s *shop) balance(agent string) ledger.Amount {
	s.t.Helper()
	w, err := s.Wallet(context.Background(), agent)
	must(s.t, err)
	return w.Balance
}

// spend makes a metered call that costs an amount.
func (s *shop) spend(o escrow.CallOrder, spent ledger.Amount, q *escrow.Quality) (escrow.Charge, error) {
	o.Request, o.Least = s.NewRequestID(), spent
	a, err := s.Authorise(context.Background(), o)
	if err != nil {
		return escrow.Charge{}, err
	}
	return a.Settle(context.Background(), escrow.Settlement{Amount: spent, Quota: 100 * escrow.Micro, Quality: q})
}

// lock makes an escrow with a key.
func (s *shop) lock(who escrow.Actor, o escrow.EscrowOrder) escrow.Escrow {
	s.t.Helper()
	o.To = "mallory"
	e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.CreateEscrow(who, o) })
	must(s.t, err)
	return e
}

// exits are the ways in which a key can let money go that another key of the agent has locked, or from something that it began. set
// prepares one, and returns an act that lets 0.3 go to mallory.
var exits = map[string]func(s *shop, owner escrow.Actor) (act func(by escrow.Actor) error){
	"release": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		return func(by escrow.Actor) error {
			e := s.lock(owner, escrow.EscrowOrder{Amount: amount("1")})
			must(s.t, s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(operator, e.ID, amount("0.7"), ""); return err }))
			return s.run(func(tx *escrow.Tx) error { _, err := tx.Release(by, e.ID, ""); return err })
		}
	},
	"part": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		e := s.lock(owner, escrow.EscrowOrder{Amount: amount("50")})
		return func(by escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error { _, err := tx.ReleasePartial(by, e.ID, amount("0.3"), ""); return err })
		}
	},
	"milestone": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		o := escrow.EscrowOrder{Amount: amount("3")}
		for i := range 10 {
			o.Milestones = append(o.Milestones, escrow.Milestone{Name: fmt.Sprint(i), Amount: amount("0.3")})
		}
		e, next := s.lock(owner, o), 0
		return func(by escrow.Actor) error {
			name := fmt.Sprint(next)
			next++
			return s.run(func(tx *escrow.Tx) error { _, err := tx.AcceptMilestone(by, e.ID, name, ""); return err })
		}
	},
	"call from a named escrow": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		e := s.lock(owner, escrow.EscrowOrder{Amount: amount("50")})
		return func(by escrow.Actor) error {
			_, err := s.spend(escrow.CallOrder{By: by, Payee: "mallory", From: escrow.FromEscrow, Escrow: e.ID}, amount("0.3"), nil)
			return err
		}
	},
	"call from the oldest escrow": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		s.lock(owner, escrow.EscrowOrder{Amount: amount("50")})
		return func(by escrow.Actor) error {
			_, err := s.spend(escrow.CallOrder{By: by, Payee: "mallory", From: escrow.FromEscrow}, amount("0.3"), nil)
			return err
		}
	},
	"call from an escrow that a meter opened for another key": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		_, err := s.spend(escrow.CallOrder{By: owner, Payee: "mallory", From: escrow.FromEscrow, Open: amount("50")}, 1, nil)
		must(s.t, err)
		return func(by escrow.Actor) error {
			_, err := s.spend(escrow.CallOrder{By: by, Payee: "mallory", From: escrow.FromEscrow}, amount("0.3"), nil)
			return err
		}
	},
	"call that grows": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		e := s.lock(owner, escrow.EscrowOrder{Amount: amount("50")})
		return func(by escrow.Actor) error {
			a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: by, Payee: "mallory", From: escrow.FromEscrow, Escrow: e.ID})
			if err != nil {
				return err
			}
			a.ExtendUpTo(amount("20"))
			a.Draw(a.Total(), true)
			must(s.t, a.Await())
			charge, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("20")})
			if charge.Amount == 0 {
				return errors.Join(err, &escrow.Refusal{Outcome: escrow.LimitExceeded})
			}
			return err
		}
	},
	"overage from another key's pool": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		r := s.Rules()
		r.Plans = []escrow.Plan{{Payee: "mallory", Name: "base", Price: 1, Period: 240 * time.Hour, Included: 1, Unit: "call", Overage: true, Pool: amount("40")}}
		s.Book = s.With(r)
		must(s.t, s.run(func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(owner, escrow.SubscriptionOrder{Payee: "mallory", Plan: "base"})
			return err
		}))
		price := func(int64) ledger.Amount { return amount("0.3") }
		return func(by escrow.Actor) error {
			_, err := s.spend(escrow.CallOrder{By: by, Payee: "mallory", From: escrow.FromSubscription, Plan: "base", Quota: 100 * escrow.Micro, Over: price}, 0, nil)
			return err
		}
	},
	"release of a period": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		sub, err := do(s, func(tx *escrow.Tx) (escrow.Subscription, error) {
			return tx.Subscribe(owner, escrow.SubscriptionOrder{Payee: "mallory", Amount: amount("40"), Period: 240 * time.Hour})
		})
		must(s.t, err)
		return func(by escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error {
				_, err := tx.ReleasePartial(by, sub.EscrowID, amount("0.3"), "")
				return err
			})
		}
	},
	"refund request withdrawn": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		return func(by escrow.Actor) error {
			e := s.lock(owner, escrow.EscrowOrder{Amount: amount("1"), AutoRelease: time.Minute})
			must(s.t, s.run(func(tx *escrow.Tx) error {
				if _, err := tx.Refund(operator, e.ID, amount("0.7"), ""); err != nil {
					return err
				}
				_, err := tx.Refund(owner, e.ID, 0, "")
				return err
			}))
			return s.run(func(tx *escrow.Tx) error { _, err := tx.WithdrawRefund(by, e.ID); return err })
		}
	},
	"score": func(s *shop, owner escrow.Actor) func(escrow.Actor) error {
		return func(by escrow.Actor) error {
			held := &escrow.Quality{Hold: true, Decision: &escrow.Decision{ByPayer: true, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}}}}
			charge, err := s.spend(escrow.CallOrder{By: owner, Payee: "mallory"}, amount("0.3"), held)
			must(s.t, err)
			return s.run(func(tx *escrow.Tx) error { _, err := tx.Score(by, charge.RequestID, "1"); return err })
		}
	},
}

// TestAnotherKeysEscrow: one key of an agent can let money go that another key has locked only within its own limits, in whatever way it
// tries.
func TestAnotherKeysEscrow(t *testing.T) {
	for name, set := range exits {
		t.Run(name, func(t *testing.T) {
			s, thief := limited(t)
			act := set(s, s.newKey("alice", escrow.KeyOrder{}))
			before, refused := s.balance("mallory"), 0
			for range 8 {
				if err := act(thief); escrow.IsRefusal(err, escrow.LimitExceeded) {
					refused++
				} else {
					must(t, err)
				}
			}
			s.clock.advance(time.Hour)
			s.catchUp()
			if got := s.balance("mallory") - before; got > amount("1") || got < amount("0.9") || refused == 0 {
				t.Errorf("%s went out by a key that is limited to 1, %d acts were refused", got, refused)
			}
			s.sound()
		})
	}
}

// TestABoundKeyLetsNothingGoToOthers: a key that may pay only some agents can't let money go to others, even if another key has locked it.
func TestABoundKeyLetsNothingGoToOthers(t *testing.T) {
	for name, set := range exits {
		t.Run(name, func(t *testing.T) {
			s, _ := limited(t)
			act := set(s, s.newKey("alice", escrow.KeyOrder{}))
			before := s.balance("mallory")
			if err := act(s.newKey("alice", escrow.KeyOrder{Payees: []string{"shop"}})); !escrow.IsRefusal(err, escrow.Forbidden) {
				t.Errorf("by a key that is bound to others: %v", err)
			}
			if got := s.balance("mallory") - before; got != 0 {
				t.Errorf("%s went out by a key that is bound to others", got)
			}
			must(t, act(s.newKey("alice", escrow.KeyOrder{Payees: []string{"mallory"}})))
			s.sound()
		})
	}
}

// TestWhatAKeyLockedCountsOnce: what a limited key has locked within its limit, it may release in parts, by calls and as a whole, without
// being counted again.
func TestWhatAKeyLockedCountsOnce(t *testing.T) {
	s, thief := limited(t)
	e := s.lock(thief, escrow.EscrowOrder{Amount: amount("1"), AutoRelease: time.Hour})
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.ReleasePartial(thief, e.ID, amount("0.3"), ""); return err }))
	_, err := s.spend(escrow.CallOrder{By: thief, Payee: "mallory", From: escrow.FromEscrow}, amount("0.3"), nil)
	must(t, err)
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(thief, e.ID, 0, ""); return err }))
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.WithdrawRefund(thief, e.ID); return err }))
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.Release(thief, e.ID, ""); return err }))
	limits, err := s.Limits("alice")
	must(t, err)
	if limits[0].Spent != amount("1") {
		t.Errorf("of an escrow of 1, %s counted", limits[0].Spent)
	}
	// Withdrawing a refund request has counted everything that remains, so a release does not count again.
	s.clock.advance(25 * time.Hour)
	owner := s.newKey("alice", escrow.KeyOrder{})
	other := s.lock(owner, escrow.EscrowOrder{Amount: amount("1"), AutoRelease: time.Hour})
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(owner, other.ID, 0, ""); return err }))
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.WithdrawRefund(thief, other.ID); return err }))
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.Release(thief, other.ID, ""); return err }))
	s.sound()
}

// TestAMeterOpensWithinTheLimit: a meter opens no escrow that is larger than what the limited key may spend.
func TestAMeterOpensWithinTheLimit(t *testing.T) {
	s, thief := limited(t)
	charge, err := s.spend(escrow.CallOrder{By: thief, Payee: "mallory", From: escrow.FromEscrow, Open: amount("50")}, amount("0.3"), nil)
	must(t, err)
	if e, err := s.Escrow(context.Background(), operator, charge.EscrowID); err != nil || e.Amount != amount("1") {
		t.Errorf("a key that is limited to 1 had %s locked (%v)", e.Amount, err)
	}
	s.sound()
}

// TestAPayeesLimitedKey: what a payee refunds of its escrows counts against the payee's limits.
func TestAPayeesLimitedKey(t *testing.T) {
	s, thief := limited(t)
	e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.CreateEscrow(by("mallory"), escrow.EscrowOrder{To: "alice", Amount: amount("50")})
	})
	must(t, err)
	back := func(money ledger.Amount) error {
		return s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(thief, e.ID, money, ""); return err })
	}
	refused(t, back(0), escrow.LimitExceeded)
	must(t, back(amount("0.7")))
	refused(t, back(amount("0.4")), escrow.LimitExceeded)
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(by("alice"), e.ID, 0, ""); return err }))
	s.sound()
}

// TestWhatARevokedKeyBegan: a subscription does not renew after its key was revoked, even if the key's limit is deleted. Another key may
// resume it, under its own limits.
func TestWhatARevokedKeyBegan(t *testing.T) {
	s, thief := limited(t)
	sub, err := do(s, func(tx *escrow.Tx) (escrow.Subscription, error) {
		return tx.Subscribe(thief, escrow.SubscriptionOrder{Payee: "mallory", Amount: amount("1"), Period: time.Hour})
	})
	must(t, err)
	look := func(who escrow.Actor) escrow.Subscription {
		t.Helper()
		now, err := s.Subscription(context.Background(), who, sub.ID)
		must(t, err)
		return now
	}
	s.setLimits(by("alice"), "alice")
	if !*look(by("alice")).FundedFor(by("alice")) {
		t.Error("before the revocation: the next period will begin")
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.RevokeKey(by("alice"), "alice", thief.Key) }))
	if now := look(by("alice")); now.Status != escrow.SubActive || *now.FundedFor(by("alice")) {
		t.Errorf("in the period that is paid: %s, goes on %v", now.Status, *now.FundedFor(by("alice")))
	}
	s.clock.advance(100 * time.Hour)
	s.catchUp()
	if now := look(by("alice")); now.Status != escrow.SubSuspended || s.balance("mallory") != amount("101") {
		t.Errorf("after the revocation: %s, mallory has %s", now.Status, s.balance("mallory"))
	}
	other := s.newKey("alice", escrow.KeyOrder{})
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.ResumeSubscription(other, sub.ID); return err }))
	s.clock.advance(90 * time.Minute)
	s.catchUp()
	if now := look(by("alice")); now.Status != escrow.SubActive || now.Periods != 3 {
		t.Errorf("resumed by another key: %s, period %d", now.Status, now.Periods)
	}
	s.sound()
}

// TestThePayeeLearnsNothingOfTheWallet: only the payer and the operator are told whether the payer could pay the next period. An agent that
// debits without an allowance does not even learn whether the other agent exists.
func TestThePayeeLearnsNothingOfTheWallet(t *testing.T) {
	s, _ := limited(t)
	sub, err := do(s, func(tx *escrow.Tx) (escrow.Subscription, error) {
		return tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "mallory", Amount: amount("60"), Period: time.Hour})
	})
	must(t, err)
	for who, told := range map[string]bool{"alice": true, "mallory": false, "shop": false, "": false} {
		if got := sub.FundedFor(by(who)); (got != nil) != told {
			t.Errorf("%q is told: %v", who, got != nil)
		}
	}
	if sub.FundedFor(operator) == nil {
		t.Error("the operator is not told")
	}
	answers := map[string]string{}
	for _, agent := range []string{"alice", "nobody"} {
		err := s.run(func(tx *escrow.Tx) error {
			_, err := tx.Debit(by("shop"), escrow.PaymentOrder{From: agent, Amount: amount("1")})
			return err
		})
		r := refused(t, err, escrow.Forbidden)
		delete(r.Fields, "payer")
		answers[agent] = fmt.Sprint(r.Fields)
	}
	if answers["alice"] != answers["nobody"] {
		t.Errorf("a debit tells who exists: %v", answers)
	}
}

// TestSetLimitsLeavesTheCallersList: SetLimits does not change the slice that it gets, since an operation may run more than once.
func TestSetLimitsLeavesTheCallersList(t *testing.T) {
	s, _ := limited(t)
	mine := make([]escrow.Limit, 1, 4)
	mine[0] = escrow.Limit{Amount: amount("5"), Window: time.Hour}
	s.setLimits(operator, "alice", mine...)
	if mine[0].ByOperator || mine[:2][1] != (escrow.Limit{}) {
		t.Errorf("the list became %+v", mine[:2])
	}
}

// TestACrashCountsWhatWasDrawn: what a call had drawn when its process died counts against the key's limit.
func TestACrashCountsWhatWasDrawn(t *testing.T) {
	s, thief := limited(t)
	a, err := s.Authorise(t.Context(), escrow.CallOrder{Request: s.NewRequestID(), By: thief, Payee: "mallory", Least: amount("0.9")})
	must(t, err)
	a.Draw(amount("0.8"), true)
	must(t, a.Await())
	s.reopen()
	_, err = s.spend(escrow.CallOrder{By: thief, Payee: "mallory"}, amount("0.3"), nil)
	refused(t, err, escrow.LimitExceeded)
	_, err = s.spend(escrow.CallOrder{By: thief, Payee: "mallory"}, amount("0.2"), nil)
	must(t, err)
	s.sound()
}

// TestNoLimitStopsTheOperator: an agent can't prevent refunds by the operator by setting itself a limit. But these refunds count.
func TestNoLimitStopsTheOperator(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "shop")
	s.setLimits(by("shop"), "shop", escrow.Limit{Amount: 1, Window: 24 * time.Hour})
	charge, err := s.spend(escrow.CallOrder{By: by("alice"), Payee: "shop"}, amount("5"), nil)
	must(t, err)
	e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("7")})
	})
	must(t, err)
	back := func(who escrow.Actor) (ofCharge, ofEscrow error) {
		return s.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(who, charge.RequestID, 0, ""); return err }),
			s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(who, e.ID, 0, ""); return err })
	}
	ofCharge, ofEscrow := back(by("shop"))
	refused(t, ofCharge, escrow.LimitExceeded)
	refused(t, ofEscrow, escrow.LimitExceeded)
	ofCharge, ofEscrow = back(operator)
	must(t, ofCharge)
	must(t, ofEscrow)
	limits, err := s.Limits("shop")
	must(t, err)
	if limits[0].Spent != amount("12") || s.balance("alice") != amount("100") {
		t.Errorf("%s counted, alice has %s", limits[0].Spent, s.balance("alice"))
	}
	s.sound()
}

// TestWhatIsOnItsWayCounts: while an operation spends and is not durable yet, a call that begins finds that room of the limit used. If the
// operation fails, the room is free again.
func TestWhatIsOnItsWayCounts(t *testing.T) {
	s, thief := limited(t)
	if s.Ledger().IsShared() { // then claims are operations themselves, which come one after the other
		return
	}
	begin := func() error {
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: thief, Payee: "mallory", Least: amount("0.5")})
		if err == nil {
			a.Cancel()
		}
		return err
	}
	thrownAway := errors.New("it comes to nothing")
	for _, end := range []error{thrownAway, nil} {
		err := s.run(func(tx *escrow.Tx) error {
			if _, err := tx.Transfer(thief, escrow.PaymentOrder{To: "mallory", Amount: amount("0.8")}); err != nil {
				return err
			}
			refused(t, begin(), escrow.LimitExceeded)
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
		if err := begin(); (err == nil) != (end != nil) {
			t.Errorf("after the operation (%v): %v", end, err)
		}
	}
	s.sound()
}
