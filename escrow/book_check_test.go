package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestCheckFinds: a transfer too many, one too few, and a record that says something else are found, each by the name of its subject.
func TestCheckFinds(t *testing.T) {
	post := func(kind, reference, sum string) func(*ledger.Tx) error {
		return func(tx *ledger.Tx) error {
			_, err := tx.Post(ledger.Transfer{Debit: ledger.Wallet("alice"), Credit: ledger.Wallet("shop"), Amount: amount(sum), Kind: kind, Reference: reference})
			return err
		}
	}
	for _, test := range []struct {
		name    string
		wrong   func(c escrow.Charge, e escrow.Escrow) func(*ledger.Tx) error
		subject func(c escrow.Charge, e escrow.Escrow) string // nil: nothing is wrong
	}{
		{"nothing", func(escrow.Charge, escrow.Escrow) func(*ledger.Tx) error { return post("transfer", "", "0.5") }, nil},
		{"charged twice", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			return post("charge", c.RequestID, "0.5")
		}, ofCharge},
		{"charged a bit more", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			return post("charge", c.RequestID, "0.01")
		}, ofCharge},
		{"charged without a charge", func(escrow.Charge, escrow.Escrow) func(*ledger.Tx) error {
			return post("charge", "req_nobody", "0.01")
		}, func(escrow.Charge, escrow.Escrow) string { return "req_nobody" }},
		{"a charge of more than was paid", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			c.Amount = amount("0.7")
			return record('c', c.RequestID, c)
		}, ofCharge},
		{"a charge of less than was paid", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			c.Amount = amount("0.3")
			return record('c', c.RequestID, c)
		}, ofCharge},
		{"a charge paid by another's transfer", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			c.RequestID += "x"
			return record('c', c.RequestID, c)
		}, func(c escrow.Charge, _ escrow.Escrow) string { return c.RequestID + "x" }},
		{"a refund of more than was paid", func(c escrow.Charge, _ escrow.Escrow) func(*ledger.Tx) error {
			c.Refunded = amount("0.6")
			return record('c', c.RequestID, c)
		}, ofCharge},
		{"an escrow that has released more than its account", func(_ escrow.Charge, e escrow.Escrow) func(*ledger.Tx) error {
			e.Released = amount("1")
			return record('e', e.ID, e)
		}, ofEscrow},
		{"an escrow whose account has got more", func(_ escrow.Charge, e escrow.Escrow) func(*ledger.Tx) error {
			return func(tx *ledger.Tx) error {
				_, err := tx.Post(ledger.Transfer{Debit: ledger.Wallet("alice"), Credit: e.Account(), Amount: amount("0.1"), Kind: "transfer"})
				return err
			}
		}, ofEscrow},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newShop(t, defaultRules())
			s.agents("10", "alice")
			s.agents("0", "shop")
			e, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
				return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("3")})
			})
			must(t, err)
			a, err := s.Authorise(context.Background(), s.withCredit("1", "1"))
			must(t, err)
			a.Draw(amount("0.2"), true)
			must(t, a.Await())
			charge, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.5")})
			must(t, err)
			s.sound()

			change := test.wrong(charge, e)
			_, err = ledger.Do(context.Background(), s.Ledger(), func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, change(tx) })
			must(t, err)
			report, err := s.Check(context.Background(), nil)
			must(t, err)
			if test.subject == nil {
				if !report.Good() {
					t.Errorf("found %v, %v", report.Wrong, report.Ledger.Wrong)
				}
				return
			}
			subject := test.subject(charge, e)
			if len(report.Wrong) == 0 || slices.ContainsFunc(report.Wrong, func(f escrow.Finding) bool { return f.Subject != subject }) {
				t.Errorf("found %v, want something about %s alone", report.Wrong, subject)
			}
		})
	}
}

func ofCharge(c escrow.Charge, _ escrow.Escrow) string { return c.RequestID }
func ofEscrow(_ escrow.Charge, e escrow.Escrow) string { return e.ID }

// record puts a record into a table, past all rules.
func record(table byte, id string, value any) func(*ledger.Tx) error {
	return func(tx *ledger.Tx) error {
		text, err := cbor.Marshal(value)
		if err == nil {
			tx.Put(append([]byte{ledger.DomainPrefix, table}, id...), text)
		}
		return err
	}
}

// TestCheckBesideACancel: a call ends, by what it has posted, between two steps of a check.
func TestCheckBesideACancel(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("3", "alice")
	s.agents("0", "shop")
	a, err := s.Authorise(context.Background(), s.withCredit("1", "1"))
	must(t, err)
	a.Draw(amount("0.5"), true)
	must(t, a.Await())
	report, err := s.Check(context.Background(), func(step string, _, _ int64) {
		if strings.Contains(step, "transfers of charges") {
			a.Cancel()
			must(t, s.run(func(*escrow.Tx) error { return nil })) // after what Cancel does
		}
	})
	must(t, err)
	if !report.Good() {
		t.Errorf("found %v, %v", report.Wrong, report.Ledger.Wrong)
	}
	s.sound()
}

// TestCheckBesideCalls: checks find nothing wrong in the books of calls that begin and end meanwhile.
func TestCheckBesideCalls(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("0", "shop")
	const payers = 4
	for i := range payers {
		payer := fmt.Sprint("payer-", i)
		s.agents("1000", payer)
		s.issue("shop", payer, "1", time.Time{})
	}
	ctx, stop := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for i := range payers {
		calls.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				o := escrow.CallOrder{Request: s.NewRequestID(), By: by(fmt.Sprint("payer-", i)), Payee: "shop", Least: 1000, Most: amount("0.1"), Credit: n%2 == 0}
				if n%3 == 0 {
					o.From, o.Open = escrow.FromEscrow, amount("1")
				}
				if err := aCall(s, o, n); err != nil {
					t.Errorf("call %d: %v", n, err)
					return
				}
			}
		})
	}
	for range 30 {
		report, err := s.Check(context.Background(), nil)
		must(t, err)
		if !report.Good() {
			t.Errorf("found %v, %v", report.Wrong, report.Ledger.Wrong)
			break
		}
	}
	stop()
	calls.Wait()
	s.sound()
}

// aCall makes a call, which draws and ends in one of several ways.
func aCall(s *shop, o escrow.CallOrder, n int) error {
	a, err := s.Authorise(context.Background(), o)
	if err != nil {
		return err
	}
	for range n % 4 {
		a.Draw(amount("0.01"), n%5 < 3)
		if err := a.Await(); err != nil {
			return err
		}
	}
	if n%7 == 0 {
		a.Cancel()
		return nil
	}
	charge, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.05")})
	if err == nil && n%11 == 0 {
		_, err = do(s, func(tx *escrow.Tx) (escrow.Charge, error) {
			return tx.RefundCharge(by("shop"), charge.RequestID, amount("0.01"), "")
		})
	}
	var refused *escrow.Refusal
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// TestTheTransfersOfACharge: all transfers that pay a charge lie between the two that it names, also if it was paid by what was set aside on disk,
// and others were made meanwhile.
func TestTheTransfersOfACharge(t *testing.T) {
	for _, sum := range []string{"0.1", "0.2", "0.5", "0.9"} {
		s := newShop(t, defaultRules())
		s.agents("3", "alice", "carol")
		s.agents("0", "shop")
		s.issue("shop", "alice", "0.3", time.Time{})
		a, err := s.Authorise(context.Background(), s.withCredit("1", "1"))
		must(t, err)
		a.Draw(amount("0.5"), false)
		must(t, a.Await())
		for range 2 {
			must(t, s.run(func(tx *escrow.Tx) error {
				_, err := tx.Transfer(by("carol"), escrow.PaymentOrder{To: "shop", Amount: amount("0.1")})
				return err
			}))
		}
		c, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount(sum)})
		must(t, err)
		transfers, err := s.Ledger().Transfers(0, 1000)
		must(t, err)
		paid := ledger.Amount(0)
		for _, tr := range transfers {
			if tr.Reference == c.RequestID && (tr.Phase == ledger.Posted || tr.Phase == ledger.PostPending) {
				paid += tr.Amount
				if tr.Seq < c.FirstTransfer || tr.Seq > c.LastTransfer {
					t.Errorf("transfer %d of %s is not one of %d to %d", tr.Seq, tr.Amount, c.FirstTransfer, c.LastTransfer)
				}
			}
		}
		if paid != amount(sum) {
			t.Errorf("%s was paid, not %s", paid, sum)
		}
		s.sound()
	}
}
