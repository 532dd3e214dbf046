package escrow_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// invoiced is what the ledger's transfers say of an invoice.
type invoiced struct{ due, commission ledger.Amount }

// TestInvoicesAreSumsOfTransfers makes random calls by wallet and by escrow, credits, refunds and subscriptions over some months, and compares
// all invoices and statements with the transfers in the ledger.
func TestInvoicesAreSumsOfTransfers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rules := defaultRules()
		rules.CommissionPPM = 12_500 // 1.25%
		s := newShop(t, rules)
		payers, payees := []string{"alice", "bob"}, []string{"shop", "other"}
		s.agents("1000", payers...)
		s.agents("10", payees...)
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, label) }
		type deal struct{ payer, payee, month string }
		deals := map[string]deal{} // by the reference of the transfers
		var charges []escrow.Charge
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			payer, payee := pick("payer", payers...), pick("payee", payees...)
			switch pick("step", "call", "call", "call", "credit", "refund", "keep", "later", "subscribe") {
			case "call":
				a, err := s.Authorise(context.Background(), escrow.CallOrder{
					Request: s.NewRequestID(), By: by(payer), Payee: payee, Least: amount("1"), Model: pick("model", "small", "large"), Route: pick("route", "/a", "/b"),
				})
				must(t, err)
				c, err := a.Settle(context.Background(), escrow.Settlement{
					Amount: amount(pick("price", "1", "0.333333333", "0.000000001", "0")), Units: map[string]string{"input": pick("input", "1.5", "2")},
					UnitPrices: map[string]string{"input": pick("unit price", "0.1 per 1k", "0.2 per 1k")},
				})
				must(t, err)
				deals[c.RequestID] = deal{payer, payee, c.CreatedAt.Format("2006-01")}
				charges = append(charges, c)
			case "credit":
				must(t, s.run(func(tx *escrow.Tx) error {
					_, err := tx.IssueCredit(by(payee), escrow.CreditOrder{Payee: payee, Agent: payer, Amount: amount("0.7")})
					return err
				}))
			case "refund":
				if len(charges) == 0 {
					continue
				}
				c := &charges[rapid.IntRange(0, len(charges)-1).Draw(rt, "charge")]
				part := min(amount(pick("part", "0.1", "1")), c.Amount-c.Refunded)
				if part == 0 {
					continue
				}
				must(t, s.run(func(tx *escrow.Tx) (err error) {
					*c, err = tx.RefundCharge(by(c.Payee), c.RequestID, part, "")
					return err
				}))
			case "keep":
				_, _, err := s.KeepTotals(context.Background())
				must(t, err)
			case "later":
				s.clock.advance(time.Duration(rapid.IntRange(1, 40*24).Draw(rt, "hours")) * time.Hour)
			case "subscribe":
				must(t, s.run(func(tx *escrow.Tx) error {
					sub, err := tx.Subscribe(by(payer), escrow.SubscriptionOrder{Payee: payee, Amount: amount("1"), Period: 10 * 365 * 24 * time.Hour})
					if err == nil {
						deals[sub.EscrowID] = deal{payer, payee, sub.PeriodStart.Format("2006-01")}
					}
					return err
				}))
			}
		}
		sums := map[deal]*invoiced{}
		transfers := allTransfers(t, s)
		for _, x := range transfers {
			d, found := deals[x.Reference]
			if !found {
				continue
			}
			if sums[d] == nil {
				sums[d] = new(invoiced)
			}
			switch {
			case x.Debit == ledger.Wallet(d.payer):
				sums[d].due += x.Amount
			case x.Credit == ledger.Wallet(d.payer):
				sums[d].due -= x.Amount
			case x.Credit == ledger.Commission:
				sums[d].commission += x.Amount
			case x.Debit == ledger.Commission:
				sums[d].commission -= x.Amount
			}
		}
		for month := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC); !month.After(s.Now()); month = month.AddDate(0, 1, 0) {
			name := month.Format("2006-01")
			for _, payer := range payers {
				for _, payee := range payees {
					want := sums[deal{payer, payee, name}]
					if want == nil {
						want = new(invoiced)
					}
					checkInvoice(rt, s, name, payer, payee, *want)
				}
			}
			for _, agent := range append(payers, payees...) {
				checkStatement(rt, s, agent, name, transfers)
			}
		}
	})
}

func allTransfers(t *testing.T, s *shop) (all []ledger.Transfer) {
	t.Helper()
	for after := uint64(0); ; {
		page, err := s.Ledger().Transfers(after, 500)
		must(t, err)
		if len(page) == 0 {
			return all
		}
		all, after = append(all, page...), page[len(page)-1].Seq
	}
}

// checkInvoice checks an invoice as both parties and the operator see it: its lines add up to the total, and the total is what has moved.
func checkInvoice(rt *rapid.T, s *shop, month, payer, payee string, want invoiced) {
	for _, ask := range []struct {
		by           escrow.Actor
		payer, payee string
	}{{by(payer), "", payee}, {by(payee), payer, ""}, {escrow.Actor{Operator: true}, payer, payee}} {
		v, err := s.Invoice(context.Background(), ask.by, month, ask.payer, ask.payee)
		if err != nil {
			rt.Fatal(err)
		}
		var sum escrow.InvoiceSum
		for _, line := range v.Lines {
			sum.Calls += line.Calls
			sum.Amount += line.Amount
			sum.Credit += line.Credit
			sum.Refunded += line.Refunded
			sum.Due += line.Due
			sum.Commission += line.Commission
			inputs := decimal.Zero
			for _, item := range line.Items {
				if item.Unit != "input" || item.Price == "" {
					rt.Fatalf("an item %+v", item)
				}
				inputs = inputs.Add(item.Quantity)
			}
			if least := decimal.NewFromInt(line.Calls).Mul(decimal.RequireFromString("1.5")); inputs.LessThan(least) {
				rt.Fatalf("%d calls with %s units", line.Calls, inputs)
			}
		}
		if sum != v.Total || v.Total.Due != v.Total.Amount-v.Total.Credit-v.Total.Refunded || !v.Complete {
			rt.Fatalf("the lines are %+v, the total %+v", sum, v.Total)
		}
		if got := (invoiced{v.Total.Due, v.Total.Commission}); got != want {
			rt.Fatalf("invoice of %s from %s to %s: %+v, want %+v as the transfers say", month, payee, payer, got, want)
		}
	}
}

// checkStatement checks that a statement's lines lead from its opening to its closing balance, and that these are the sums of transfers.
func checkStatement(rt *rapid.T, s *shop, agent, month string, transfers []ledger.Transfer) {
	st, err := s.Statement(context.Background(), agent, month)
	if err != nil {
		rt.Fatal(err)
	}
	balance := st.Opening
	for _, line := range st.Lines {
		balance += line.In - line.Out
	}
	var opening, closing ledger.Amount
	for _, x := range transfers {
		moved := ledger.Amount(0)
		if x.Credit == ledger.Wallet(agent) {
			moved += x.Amount
		}
		if x.Debit == ledger.Wallet(agent) {
			moved -= x.Amount
		}
		if x.Time.Before(st.From) {
			opening += moved
		}
		if x.Time.Before(st.To) {
			closing += moved
		}
	}
	if balance != st.Closing || st.Opening != opening || st.Closing != closing {
		rt.Fatalf("statement of %s for %s: from %s by %v to %s, want from %s to %s", agent, month, st.Opening, st.Lines, st.Closing, opening, closing)
	}
}

func TestInvoicesAreForTheirParties(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "eve")
	s.agents("0", "shop")
	for _, test := range []struct {
		by                  escrow.Actor
		month, payer, payee string
		want                escrow.Outcome
	}{
		{by("alice"), "2026-11", "", "shop", ""},
		{by("eve"), "2026-11", "alice", "shop", escrow.NotFound},
		{by("alice"), "2026-11", "", "", escrow.InvalidRequest},
		{by("alice"), "2026-11", "alice", "alice", escrow.InvalidRequest},
		{by("alice"), "2026-11", "", "nobody", escrow.InvalidRequest},
		{by("alice"), "2026-13", "", "shop", escrow.InvalidRequest},
		{escrow.Actor{Operator: true}, "2026-11", "alice", "", escrow.InvalidRequest},
		{escrow.Actor{}, "2026-11", "alice", "shop", escrow.Unauthorized},
	} {
		_, err := s.Invoice(context.Background(), test.by, test.month, test.payer, test.payee)
		if (err == nil) != (test.want == "") || err != nil && !escrow.IsRefusal(err, test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// Prices of which there are too many are added up without their price, so nothing of the units is lost.
func TestInvoiceOfManyPrices(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1000", "alice")
	s.agents("0", "shop")
	const calls = 100
	for n := range calls {
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("1")})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{
			Amount: amount("1"), Units: map[string]string{"input": "1"}, UnitPrices: map[string]string{"input": strings.Repeat("1", n+1)},
		})
		must(t, err)
	}
	s.clock.advance(time.Second)
	v, err := s.Invoice(context.Background(), by("alice"), "2026-11", "", "shop")
	must(t, err)
	sum := decimal.Zero
	for _, item := range v.Lines[0].Items {
		sum = sum.Add(item.Quantity)
	}
	if items := len(v.Lines[0].Items); items > 65 || !sum.Equal(decimal.NewFromInt(calls)) || v.Total.Due != amount("100") {
		t.Errorf("%d items with %s units, due %s", items, sum, v.Total.Due)
	}
}
