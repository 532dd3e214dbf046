package escrow

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// feeBook is a book whose time the test sets.
func feeBook(t *testing.T) (b *Book, at *time.Time) {
	t.Helper()
	now := time.Date(2026, 10, 5, 10, 30, 0, 0, time.UTC)
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return New(l, Rules{}), &now
}

func inBook(t *testing.T, b *Book, do func(*Tx) error) {
	t.Helper()
	if _, err := Do(context.Background(), b, func(tx *Tx) (struct{}, error) { return struct{}{}, do(tx) }); err != nil {
		t.Fatal(err)
	}
}

// TestFeesReadFew: a chart by day, a list of payers and an invoice read as many records, however many periods of a subscription were charged.
func TestFeesReadFew(t *testing.T) {
	seen := map[string][]int{}
	for _, fees := range []int{20, 2000} {
		b, now := feeBook(t)
		for i := range fees {
			f := fee{Payer: fmt.Sprintf("payer-%d", i%3), Payee: "shop", Plan: "weekly", Amount: ledger.Unit}
			inBook(t, b, func(tx *Tx) error { return tx.countFee(f, fmt.Sprint("escrow", i)) })
		}
		*now = now.AddDate(0, 1, 0)
		for _, agent := range []string{"", "shop"} {
			for _, by := range []string{"day", "payer", "plan", "month"} {
				r := &report{ctx: t.Context(), book: b, agent: agent, by: usageBy{names: []string{by}}, rows: map[string]*UsageRow{}}
				if err := r.addFees(now.AddDate(0, 0, -31).Truncate(24*time.Hour), endOfTime); err != nil {
					t.Fatal(err)
				}
				sum := Usage{}
				for _, row := range r.rows {
					sum.add(row.Usage)
				}
				if want := ledger.Amount(fees) * ledger.Unit; sum.Fees != want || sum.Earned != want {
					t.Errorf("%d periods of %q by %s: fees %s, earned %s", fees, agent, by, sum.Fees, sum.Earned)
				}
				seen[agent+" by "+by] = append(seen[agent+" by "+by], r.seen)
			}
		}
	}
	for report, n := range seen {
		if n[0] != n[1] || n[0] > 3 {
			t.Errorf("the report of %q reads %d records for 20 periods and %d for 2000", report, n[0], n[1])
		}
	}
}

// TestTotalsOfAnEarlierBuild: a build that neither ranked nor had totals of fees has left charges and fees. Reports are exact nevertheless, in
// those months and in the month in which this build began.
func TestTotalsOfAnEarlierBuild(t *testing.T) {
	b, now := feeBook(t)
	month := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	inBook(t, b, func(tx *Tx) error {
		f := fee{Payer: "alice", Payee: "shop", Plan: "weekly", Amount: ledger.Unit}
		for _, agent := range []string{"", "alice", "shop"} {
			c := Charge{Payer: "alice", Payee: "shop", Amount: 5 * ledger.Unit, CreatedAt: *now}
			all := sums{}
			all.addCharge(agent, c, c.usageFor(agent), c.usageFor(agent))
			for of, u := range all {
				if of.view.isRanked() {
					continue
				}
				total := usageTotal{At: of.begin(), Group: of.group, Calls: u.Calls, Paid: u.Paid, Earned: u.Earned}
				if err := tx.put(of.key(), total); err != nil {
					return err
				}
			}
			if err := tx.put(feeTable.key(agent, timeKey(*now)+"old"), f); err != nil {
				return err
			}
		}
		return nil
	})
	*now = now.Add(48 * time.Hour)
	pay := func(payer string, units int64) {
		f := fee{Payer: payer, Payee: "shop", Plan: "weekly", Amount: ledger.Amount(units) * ledger.Unit}
		inBook(t, b, func(tx *Tx) error { return tx.countFee(f, payer) })
	}
	earned := func(from time.Time) (text string) {
		t.Helper()
		rows, whole, err := b.Usage(t.Context(), UsageQuery{Agent: "shop", From: from, To: from.AddDate(0, 1, 0), By: []string{"payer"}, Top: 2, TopOf: SumEarned})
		if err != nil || !whole {
			t.Fatal(whole, err)
		}
		for _, row := range rows {
			text += fmt.Sprint(row.Group[0], " ", row.Earned, " of ", row.Calls, ", ")
		}
		return text
	}
	pay("bob", 4)
	pay("carol", 1)
	if got, want := earned(month), "alice 6 of 1, bob 4 of 0, "; got != want {
		t.Errorf("in the month in which this build began: %s, want %s", got, want)
	}
	*now = month.AddDate(0, 1, 2)
	pay("alice", 1)
	pay("bob", 2)
	if got, want := earned(month.AddDate(0, 1, 0)), "bob 2 of 0, alice 1 of 0, "; got != want {
		t.Errorf("in the month after it: %s, want %s", got, want)
	}
	if got, want := earned(month), "alice 6 of 1, bob 4 of 0, "; got != want {
		t.Errorf("later, of the month in which this build began: %s, want %s", got, want)
	}
	rows, _, err := b.Usage(t.Context(), UsageQuery{Agent: "shop", By: []string{"month"}})
	if err != nil || len(rows) != 2 || rows[0].Earned != 11*ledger.Unit || rows[0].Fees != 6*ledger.Unit || rows[1].Fees != 3*ledger.Unit {
		t.Errorf("by month: %v, %v", rows, err)
	}
}
