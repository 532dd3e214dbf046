package escrow_test

import (
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

func TestARailsPaymentIsBookedOnce(t *testing.T) {
	s := newShop(t, defaultRules())
	fund := func(p escrow.RailPayment) (booked escrow.RailPayment, first bool, err error) {
		err = s.run(func(tx *escrow.Tx) (err error) {
			booked, first, err = tx.Fund(p)
			return err
		})
		return booked, first, err
	}
	payment := escrow.RailPayment{Rail: "test", ID: "0xabc", Agent: "alice", Amount: amount("5")}
	for n := range 3 {
		booked, first, err := fund(payment)
		must(t, err)
		if first != (n == 0) || booked.Agent != "alice" || booked.Amount != amount("5") || booked.At.IsZero() {
			t.Errorf("time %d: booked %+v, first %v", n, booked, first)
		}
	}
	for what, other := range map[string]escrow.RailPayment{
		"agent":  {Rail: "test", ID: "0xabc", Agent: "bob", Amount: amount("5")},
		"amount": {Rail: "test", ID: "0xabc", Agent: "alice", Amount: amount("6")},
	} {
		_, _, err := fund(other)
		t.Run("the same id with another "+what, func(t *testing.T) { refused(t, err, escrow.AlreadyExists) })
	}
	payment.Rail = "other"
	_, first, err := fund(payment)
	must(t, err)
	wallet, err := s.Wallet(t.Context(), "alice")
	must(t, err)
	if !first || wallet.Balance != amount("10") {
		t.Errorf("the same id on another rail: first %v, wallet %s", first, wallet.Balance)
	}
	for _, bad := range []escrow.RailPayment{{Rail: "", ID: "x", Agent: "a", Amount: 1}, {Rail: "r", Agent: "a", Amount: 1}, {Rail: "r", ID: "x", Agent: "me", Amount: 1}, {Rail: "r", ID: "x", Agent: "a"}} {
		_, _, err := fund(bad)
		refused(t, err, escrow.InvalidRequest)
	}
	s.sound()
}

func TestAPendingPaymentIsNotForgotten(t *testing.T) {
	rules := defaultRules()
	rules.Rails = []string{"test"}
	s := newShop(t, rules)
	payment := escrow.RailPayment{Rail: "test", ID: "0xabc", Agent: escrow.RailAgent("test", "0x1"), Amount: amount("5"), Proof: []byte("signed")}
	begin := func(p escrow.RailPayment) (noted escrow.RailPayment, first bool) {
		must(t, s.run(func(tx *escrow.Tx) (err error) {
			noted, first, err = tx.BeginFunding(p)
			return err
		}))
		return noted, first
	}
	pending := func() int {
		all, err := s.PendingPayments(10)
		must(t, err)
		return len(all)
	}
	for n := range 2 {
		if noted, first := begin(payment); first != (n == 0) || !noted.Pending || string(noted.Proof) != "signed" || pending() != 1 {
			t.Errorf("time %d: noted %+v, first %v, %d pending", n, noted, first, pending())
		}
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.DropFunding("test", "0xabc") }))
	if _, first := begin(payment); !first {
		t.Error("a payment that failed can't be made again")
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.LoseFunding("test", "0xabc") }))
	if noted, first := begin(payment); first || !noted.Lost || pending() != 0 {
		t.Errorf("a lost payment: %+v, first %v, %d pending", noted, first, pending())
	}
	payment.Outside = "0xtransaction"
	var keys [2]string
	for n := range keys {
		must(t, s.run(func(tx *escrow.Tx) (err error) {
			if _, _, err = tx.Fund(payment); err == nil {
				keys[n], err = tx.FirstKey(payment.Agent)
			}
			return err
		}))
	}
	if keys[1] != "" {
		t.Error("the key is made twice")
	}
	actor, err := s.Authenticate(keys[0])
	must(t, err)
	wallet, err := s.Wallet(t.Context(), "test:0x1")
	must(t, err)
	if noted, first := begin(payment); first || noted.Pending || noted.Lost || wallet.Balance != amount("5") || actor.Agent != "test:0x1" {
		t.Errorf("a booked payment: %+v, first %v, balance %s, its key is that of %q", noted, first, wallet.Balance, actor.Agent)
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.DropFunding("test", "0xabc") }))
	if booked, found, err := s.RailPayment("test", "0xabc"); err != nil || !found || booked.Outside != "0xtransaction" {
		t.Errorf("what is booked can't be dropped: %+v, %v, %v", booked, found, err)
	}
	s.sound()
}

// TestNobodyIsAPayerBeforehand: who registered the id of a payer's agent would own what the payer pays.
func TestNobodyIsAPayerBeforehand(t *testing.T) {
	rules := defaultRules()
	rules.Rails, rules.OpenRegistration = []string{"test"}, true
	s := newShop(t, rules)
	create := func(by escrow.Actor, id string) error {
		return s.run(func(tx *escrow.Tx) error { _, _, _, err := tx.CreateAgent(by, escrow.AgentOrder{ID: id}); return err })
	}
	refused(t, create(escrow.Actor{}, "test:0x1"), escrow.Forbidden)
	must(t, create(escrow.Actor{}, "other:0x1"))
	must(t, create(escrow.Actor{Operator: true}, "test:0x2"))
	err := s.run(func(tx *escrow.Tx) error {
		_, _, err := tx.BeginFunding(escrow.RailPayment{Rail: "test", ID: "0xabc", Agent: "test:0x2", Amount: 1})
		return err
	})
	refused(t, err, escrow.Forbidden)
}
