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
