package escrow_test

import (
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestNobodyFillsTheQueueOfAnother: an agent that makes as many events as it likes for the webhook of another, or of the operator, does not keep it
// from hearing of others: their messages are not lost.
func TestNobodyFillsTheQueueOfAnother(t *testing.T) {
	t.Parallel()
	for _, flood := range []struct {
		name string
		more func(tx *escrow.Tx, e escrow.Escrow) error // makes at least one event
	}{
		{"asking for a refund, and taking that back", func(tx *escrow.Tx, e escrow.Escrow) error {
			if _, err := tx.Refund(by("mallory"), e.ID, 0, ""); err != nil {
				return err
			}
			_, err := tx.WithdrawRefund(by("mallory"), e.ID)
			return err
		}},
		{"releasing the least amount", func(tx *escrow.Tx, e escrow.Escrow) error {
			_, err := tx.ReleasePartial(by("mallory"), e.ID, 1, "")
			return err
		}},
		{"issuing credit, and revoking it", func(tx *escrow.Tx, _ escrow.Escrow) error {
			c, err := tx.IssueCredit(by("mallory"), escrow.CreditOrder{Agent: "acme", Amount: 1})
			if err != nil {
				return err
			}
			_, err = tx.RevokeCredit(by("mallory"), c.ID)
			return err
		}},
	} {
		t.Run(flood.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, defaultRules())
			s.agents("100", "mallory", "alice")
			s.agents("0", "acme")
			lock := func(from string) (e escrow.Escrow) {
				must(t, s.run(func(tx *escrow.Tx) (err error) {
					e, err = tx.CreateEscrow(by(from), escrow.EscrowOrder{To: "acme", Amount: amount("10")})
					return err
				}))
				return e
			}
			hers := lock("mallory")
			must(t, s.run(func(tx *escrow.Tx) error {
				if _, err := tx.CreateWebhook(escrow.Actor{Operator: true}, escrow.WebhookOrder{URL: "https://example.com/hook"}); err != nil {
					return err
				}
				_, err := tx.CreateWebhook(by("acme"), escrow.WebhookOrder{URL: "https://example.com/hook"})
				return err
			}))
			lost := func(of string) int64 {
				hooks, err := s.Webhooks(of)
				must(t, err)
				return hooks[0].Lost
			}
			for range 60 {
				must(t, s.run(func(tx *escrow.Tx) error {
					for range 100 {
						if err := flood.more(tx, hers); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			for _, of := range []string{"acme", ""} {
				if lost(of) == 0 {
					t.Fatalf("nothing was lost of the webhook of %q: this is no flood", of)
				}
			}
			before := lost("acme") + lost("")
			for range 8 {
				lock("alice")
			}
			if after := lost("acme") + lost(""); after != before {
				t.Errorf("%d messages about another payer were lost", after-before)
			}
		})
	}
}
