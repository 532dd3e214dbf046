package escrow_test

import (
	"context"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// TestAReferenceIsBookedOnce: for ever, and by kind; whatever differs is refused.
func TestAReferenceIsBookedOnce(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "alice", "bob")
	deposit := func(o escrow.PaymentOrder) (escrow.Payment, error) {
		return do(s, func(tx *escrow.Tx) (escrow.Payment, error) { return tx.Deposit(operator, o) })
	}
	withdraw := func(o escrow.PaymentOrder) (escrow.Payment, error) {
		return do(s, func(tx *escrow.Tx) (escrow.Payment, error) { return tx.Withdraw(operator, o) })
	}
	in := escrow.PaymentOrder{To: "alice", Amount: amount("5"), Reference: "bank-1", Memo: "invoice 7"}
	first, err := deposit(in)
	must(t, err)
	s.run(func(tx *escrow.Tx) error { // what happens afterwards does not change the answer
		_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "bob", Amount: amount("1")})
		return err
	})
	s.clock.advance(400 * 24 * time.Hour)
	s.catchUp()
	s.reopen()
	again, err := deposit(in)
	must(t, err)
	if !again.Repeated || first.Repeated {
		t.Errorf("repeated: first %v, again %v", first.Repeated, again.Repeated)
	}
	again.Repeated = false
	if again != first {
		t.Errorf("the repetition answers\n%+v, and the first was\n%+v", again, first)
	}
	for what, other := range map[string]escrow.PaymentOrder{
		"agent":  {To: "bob", Amount: in.Amount, Reference: in.Reference, Memo: in.Memo},
		"amount": {To: "alice", Amount: in.Amount + 1, Reference: in.Reference, Memo: in.Memo},
		"memo":   {To: "alice", Amount: in.Amount, Reference: in.Reference},
	} {
		_, err := deposit(other)
		if r := refused(t, err, escrow.AlreadyExists); r.Fields["agent_id"] != "alice" || r.Fields["amount"] != "5" {
			t.Errorf("another %s: the refusal says %v", what, r.Fields)
		}
	}
	_, err = deposit(escrow.PaymentOrder{To: "nobody", Amount: in.Amount, Reference: in.Reference})
	refused(t, err, escrow.InvalidRequest)

	out := escrow.PaymentOrder{From: "alice", Amount: amount("3"), Reference: "bank-1"} // another kind
	for range 2 {
		_, err := withdraw(out)
		must(t, err)
	}
	_, err = withdraw(escrow.PaymentOrder{From: "alice", Amount: amount("90"), Reference: "bank-2"})
	refused(t, err, escrow.InsufficientFunds)
	_, err = withdraw(escrow.PaymentOrder{From: "alice", Amount: amount("1"), Reference: "bank-2"}) // what was refused was not booked
	must(t, err)
	for range 2 { // without a reference each is another
		_, err := deposit(escrow.PaymentOrder{To: "bob", Amount: amount("1")})
		must(t, err)
	}
	for agent, want := range map[string]string{"alice": "0", "bob": "3"} {
		if w, err := s.Wallet(context.Background(), agent); err != nil || w.Balance != amount(want) {
			t.Errorf("%s has %s (%v), want %s", agent, w.Balance, err, want)
		}
	}
	acts, _, err := s.Audit(escrow.Page{})
	must(t, err)
	booked := 0
	for _, a := range acts {
		if a.What == "wallet.deposit" || a.What == "wallet.withdraw" {
			booked++
		}
	}
	if booked != 5 {
		t.Errorf("%d bookings in the audit log, want 5", booked)
	}
	s.sound()
}
