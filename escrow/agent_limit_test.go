package escrow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// limited makes a shop in which alice has 100 and a key that may spend 1 a day.
func limited(t *testing.T) (s *shop, thief escrow.Actor) {
	s = newShop(t, period(defaultRules()))
	s.agents("100", "alice", "mallory")
	s.agents("0", "shop")
	key, err := do(s, func(tx *escrow.Tx) (escrow.Key, error) {
		key, _, err := tx.CreateKey(by("alice"), "alice", escrow.KeyOrder{})
		return key, err
	})
	must(t, err)
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.SetLimits(by("alice"), "alice", []escrow.Limit{{Key: key.ID, Amount: amount("1"), Window: 24 * time.Hour}})
		return err
	}))
	return s, escrow.Actor{Agent: "alice", Key: key.ID}
}

// TestALimitBoundsEveryWayOut: with a limited key nobody can move more than the limit out of the agent in a window, by any operation,
// however often, and with any help of other agents.
func TestALimitBoundsEveryWayOut(t *testing.T) {
	for name, try := range map[string]func(s *shop, thief escrow.Actor) error{
		"transfer": func(s *shop, thief escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error {
				_, err := tx.Transfer(thief, escrow.PaymentOrder{To: "mallory", Amount: amount("0.3")})
				return err
			})
		},
		"debit of its own": func(s *shop, thief escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error {
				_, err := tx.Debit(thief, escrow.PaymentOrder{From: "alice", To: "mallory", Amount: amount("0.3")})
				return err
			})
		},
		"debit by allowance": func(s *shop, thief escrow.Actor) error {
			if err := s.run(func(tx *escrow.Tx) error {
				_, err := tx.SetAllowance(thief, "alice", "mallory", amount("50"))
				return err
			}); err != nil {
				return err
			}
			return s.run(func(tx *escrow.Tx) error {
				_, err := tx.Debit(by("mallory"), escrow.PaymentOrder{From: "alice", Amount: amount("0.3")})
				return err
			})
		},
		"escrow": func(s *shop, thief escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error {
				e, err := tx.CreateEscrow(thief, escrow.EscrowOrder{To: "mallory", Amount: amount("0.3")})
				if err != nil {
					return err
				}
				_, err = tx.Release(thief, e.ID, "")
				return err
			})
		},
		"milestones": func(s *shop, thief escrow.Actor) error {
			return s.run(func(tx *escrow.Tx) error {
				e, err := tx.CreateEscrow(thief, escrow.EscrowOrder{To: "mallory", Amount: amount("0.3"), Milestones: []escrow.Milestone{{Name: "all", Amount: amount("0.3")}}})
				if err != nil {
					return err
				}
				_, err = tx.AcceptMilestone(thief, e.ID, "all", "")
				return err
			})
		},
		"subscription": func(s *shop, thief escrow.Actor) error {
			if err := s.run(func(tx *escrow.Tx) error {
				_, err := tx.Subscribe(thief, escrow.SubscriptionOrder{Payee: "mallory", Amount: amount("0.3"), Period: time.Minute})
				return err
			}); err != nil {
				return err
			}
			s.clock.advance(10 * time.Minute)
			s.catchUp()
			return nil
		},
		"metered calls": func(s *shop, thief escrow.Actor) error {
			a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: thief, Payee: "mallory", Least: amount("0.3")})
			if err != nil {
				return err
			}
			_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.3")})
			return err
		},
		"an escrow that a meter opened": func(s *shop, thief escrow.Actor) error {
			a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: thief, Payee: "mallory", Least: 1, From: escrow.FromEscrow, Open: amount("50"), OpenFor: time.Hour})
			if err != nil {
				return err
			}
			charge, err := a.Settle(context.Background(), escrow.Settlement{Amount: 1})
			must(s.t, err)
			if err := s.run(func(tx *escrow.Tx) error {
				_, err := tx.ReleasePartial(thief, charge.EscrowID, amount("0.3"), "")
				return err
			}); err != nil {
				return err
			}
			return s.run(func(tx *escrow.Tx) error { _, err := tx.Release(thief, charge.EscrowID, ""); return err })
		},
		"charges given back": func(s *shop, thief escrow.Actor) error {
			order := escrow.CallOrder{Request: s.NewRequestID(), By: by("mallory"), Payee: "alice", Least: amount("0.3")}
			a, err := s.Authorise(context.Background(), order)
			must(s.t, err)
			_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.3")})
			must(s.t, err)
			must(s.t, s.run(func(tx *escrow.Tx) error { // mallory has had this from alice
				_, err := tx.Transfer(by("mallory"), escrow.PaymentOrder{To: "shop", Amount: amount("0.3")})
				return err
			}))
			return s.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(thief, order.Request, 0, ""); return err })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, thief := limited(t)
			got := func() (total ledger.Amount) {
				for _, agent := range []string{"mallory", "shop"} {
					w, err := s.Wallet(context.Background(), agent)
					must(t, err)
					total += w.Balance
				}
				return total - amount("100")
			}
			paidIn := ledger.Amount(0)
			for range 8 {
				err := try(s, thief)
				if name == "charges given back" {
					paidIn += amount("0.3")
				}
				if err != nil && !escrow.IsRefusal(err, escrow.LimitExceeded) && !escrow.IsRefusal(err, escrow.InsufficientFunds) {
					t.Fatal(err)
				}
			}
			if out := got() + paidIn; out > amount("1") || out <= 0 {
				t.Errorf("%s went out by a key that is limited to 1", out)
			}
			s.sound()
		})
	}
}

// TestAnOperatorsLimitStands: an agent can neither remove nor raise the limits that the operator has set for it. Its own limits also apply.
func TestAnOperatorsLimitStands(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "shop")
	set := func(who escrow.Actor, limits ...escrow.Limit) []escrow.Limit {
		t.Helper()
		all, err := do(s, func(tx *escrow.Tx) ([]escrow.Limit, error) { return tx.SetLimits(who, "alice", limits) })
		must(t, err)
		return all
	}
	pay := func(money string) error {
		return s.run(func(tx *escrow.Tx) error {
			_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "shop", Amount: amount(money)})
			return err
		})
	}
	day := 24 * time.Hour
	set(operator, escrow.Limit{Amount: amount("5"), Window: day})
	if all := set(by("alice"), escrow.Limit{Amount: amount("50"), Window: day}); len(all) != 2 {
		t.Fatalf("limits that bind: %v", all)
	}
	must(t, pay("3"))
	if err := pay("3"); !escrow.IsRefusal(err, escrow.LimitExceeded) {
		t.Errorf("beyond the operator's limit: %v", err)
	}
	if all := set(by("alice")); len(all) != 1 || !all[0].ByOperator || all[0].Spent != amount("3") {
		t.Errorf("after the agent has taken its own back: %v", all)
	}
	if err := pay("3"); !escrow.IsRefusal(err, escrow.LimitExceeded) {
		t.Errorf("after the agent has taken its own back: %v", err)
	}
	set(by("alice"), escrow.Limit{Amount: amount("1"), Window: day})
	if err := pay("1.5"); !escrow.IsRefusal(err, escrow.LimitExceeded) {
		t.Errorf("beyond the agent's own limit: %v", err)
	}
	set(by("alice"))
	set(operator)
	must(t, pay("10"))
	s.sound()
}

// TestWhatOthersLearn: a payee that debits under an allowance learns nothing about the payer's wallet or limits. An allowance ends when the
// key that set it is revoked.
func TestWhatOthersLearn(t *testing.T) {
	s, thief := limited(t)
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.SetAllowance(thief, "alice", "mallory", amount("500"))
		return err
	}))
	draw := func(money string) error {
		return s.run(func(tx *escrow.Tx) error {
			_, err := tx.Debit(by("mallory"), escrow.PaymentOrder{From: "alice", Amount: amount(money)})
			return err
		})
	}
	beyondLimit, beyondWallet := draw("2"), draw("200")
	for name, err := range map[string]error{"beyond the limit": beyondLimit, "beyond the wallet": beyondWallet} {
		refusal, is := err.(*escrow.Refusal)
		if !is || refusal.Outcome != escrow.InsufficientFunds {
			t.Fatalf("%s: %v", name, err)
		}
		for field := range refusal.Fields {
			if field != "payer" && field != "required" && field != "currency" {
				t.Errorf("%s: the refusal tells %s=%s", name, field, refusal.Fields[field])
			}
		}
	}
	must(t, draw("1"))
	must(t, s.run(func(tx *escrow.Tx) error { return tx.RevokeKey(by("alice"), "alice", thief.Key) }))
	s.clock.advance(24 * time.Hour)
	if err := draw("0.1"); !escrow.IsRefusal(err, escrow.Forbidden) {
		t.Errorf("by the allowance of a revoked key: %v", err)
	}
	s.sound()
}

// TestABoundKeyGivesNothingBackToOthers: a key that may pay only some agents may also refund only to them.
func TestABoundKeyGivesNothingBackToOthers(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice", "bob", "shop")
	bound := escrow.Actor{Agent: "shop", Key: "0123456789", Payees: []string{"bob"}}
	for payer, want := range map[string]bool{"alice": false, "bob": true} {
		e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
			return tx.CreateEscrow(by(payer), escrow.EscrowOrder{To: "shop", Amount: amount("5")})
		})
		must(t, err)
		err = s.run(func(tx *escrow.Tx) error { _, err := tx.Refund(bound, e.ID, 0, ""); return err })
		if want && err != nil || !want && !escrow.IsRefusal(err, escrow.Forbidden) {
			t.Errorf("giving an escrow back to %s: %v", payer, err)
		}
	}
	s.sound()
}

// TestTagsAreThePayers: the payee sees the tags that are shared with it, and no others.
func TestTagsAreThePayers(t *testing.T) {
	c := escrow.Charge{Payer: "alice", Payee: "shop", Tags: map[string]string{"team": "red", "shared.order": "7"}}
	if got := c.TagsFor("alice"); len(got) != 2 {
		t.Errorf("the payer sees %v", got)
	}
	if got := c.TagsFor("shop"); len(got) != 1 || got["shared.order"] != "7" {
		t.Errorf("the payee sees %v", got)
	}
}

// TestKeysAreBounded: the number of an agent's keys is limited.
func TestKeysAreBounded(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "alice")
	made := 1 // the first one, of the registration
	err := s.run(func(tx *escrow.Tx) error {
		made = 1
		for {
			if _, _, err := tx.CreateKey(by("alice"), "alice", escrow.KeyOrder{}); err != nil {
				return err
			}
			made++
		}
	})
	if !escrow.IsRefusal(err, escrow.InvalidStatus) || made != 1000 {
		t.Errorf("after %d keys: %v", made, err)
	}
}

// TestAllowancesAreBounded: the number of an agent's allowances is limited.
func TestAllowancesAreBounded(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "alice")
	err := s.run(func(tx *escrow.Tx) error {
		for i := range 1000 {
			if _, _, _, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: fmt.Sprint("shop-", i)}); err != nil {
				return err
			}
			if _, err := tx.SetAllowance(by("alice"), "", fmt.Sprint("shop-", i), 1); err != nil {
				return err
			}
		}
		_, _, _, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: "one-more"})
		return err
	})
	must(t, err)
	set := func(payee string) error {
		return s.run(func(tx *escrow.Tx) error { _, err := tx.SetAllowance(by("alice"), "", payee, 2); return err })
	}
	if err := set("one-more"); !escrow.IsRefusal(err, escrow.InvalidStatus) {
		t.Errorf("one more: %v", err)
	}
	must(t, set("shop-1")) // changes one
}
