package escrow_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestFirstWebhookIsTold: an agent that had no webhook is told as soon as it has one, and goes on being told if deleting it was undone.
func TestFirstWebhookIsTold(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1000", "alice")
	s.agents("0", "shop")
	pay := func(tx *escrow.Tx, amounts string) error {
		_, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "shop", Amount: amount(amounts)})
		return err
	}
	hook := func(tx *escrow.Tx, below string) (escrow.Webhook, error) {
		return tx.CreateWebhook(by("alice"), escrow.WebhookOrder{URL: "https://example.com/hook", Events: []escrow.EventType{escrow.BalanceLow}, Below: amount(below)})
	}
	told := func(want ...string) {
		t.Helper()
		due, _, err := s.Deliveries(t.Context(), 100, func(escrow.Delivery) bool { return false })
		must(t, err)
		var got []string
		for _, d := range due {
			got = append(got, d.Event.Balance.Balance.String())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("told of the balances %v, want %v", got, want)
		}
	}
	must(t, s.run(func(tx *escrow.Tx) error { return pay(tx, "1") })) // now it is known that there is no webhook
	undone := errors.New("undone")
	if err := s.run(func(tx *escrow.Tx) error { _, err := hook(tx, "500"); return errors.Join(err, pay(tx, "1"), undone) }); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	must(t, s.run(func(tx *escrow.Tx) error { return pay(tx, "1") }))
	var h escrow.Webhook
	must(t, s.run(func(tx *escrow.Tx) (err error) { h, err = hook(tx, "950"); return err }))
	must(t, s.run(func(tx *escrow.Tx) error { return pay(tx, "98") }))
	told("900")
	must(t, s.run(func(tx *escrow.Tx) error { return pay(tx, "1") }))
	if err := s.run(func(tx *escrow.Tx) error {
		return errors.Join(tx.DeleteWebhook(by("alice"), "alice", h.ID), pay(tx, "1"), undone)
	}); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	must(t, s.run(func(tx *escrow.Tx) error {
		if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("101")}); err != nil {
			return err
		}
		return pay(tx, "100")
	}))
	told("900", "900")
}
