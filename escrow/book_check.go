package escrow

import (
	"context"
	"fmt"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Report is the result of [Book.Check].
type Report struct {
	Ledger  ledger.Report
	Escrows uint64
	Charges uint64
	Wrong   []Finding // findings about the rules of this package; those about the ledger are in Ledger.Wrong
}

// Good reports whether nothing is wrong.
func (r Report) Good() bool { return len(r.Wrong) == 0 && len(r.Ledger.Wrong) == 0 }

// Finding is one thing that is wrong in the books.
type Finding struct {
	Subject string // the escrow or the request
	What    string
}

// String returns the finding in one line.
func (f Finding) String() string { return f.Subject + ": " + f.What }

const maxFindings = 1000

// Check proves that the books are right. After the ledger's own check it checks each escrow: its amount is the sum of what was released,
// its account holds what remains, that it is in the lists where it belongs, the same for credits, that the money of each open payout is set
// aside, and that each charge matches the transfers that were made for it. It works on a live ledger.
func (b *Book) Check(ctx context.Context, progress ledger.Progress) (Report, error) {
	var report Report
	var err error
	if report.Ledger, err = b.ledger.Check(ctx, progress); err != nil {
		return report, err
	}
	if err := b.checkEscrows(ctx, &report); err != nil {
		return report, err
	}
	if err := b.checkCredits(ctx, &report); err != nil {
		return report, err
	}
	if err := b.checkPayouts(ctx, &report); err != nil {
		return report, err
	}
	return report, b.checkCharges(ctx, &report, progress)
}

func (r *Report) wrong(subject, format string, args ...any) {
	if len(r.Wrong) < maxFindings {
		r.Wrong = append(r.Wrong, Finding{subject, fmt.Sprintf(format, args...)})
	}
}

// each runs fn on every id of a table, some at a time, so that no view is long.
func (b *Book) each(ctx context.Context, in table, fn func(r ledger.Reader, id string) error) error {
	for after := ""; ; {
		ids, err := b.idsIn(in, after)
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err = b.view(func(r ledger.Reader) error {
			for _, id := range ids {
				if err := fn(r, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		after = ids[len(ids)-1]
	}
}

func (b *Book) checkEscrows(ctx context.Context, report *Report) error {
	return b.each(ctx, escrowTable, func(_ ledger.Reader, id string) error {
		report.Escrows++
		for try := 1; ; try++ {
			wrong, err := b.checkEscrow(id)
			if err != nil || wrong == "" {
				return err
			}
			if try == checkTries {
				report.wrong(id, "%s", wrong)
				return nil
			}
		}
	})
}

func (b *Book) checkCredits(ctx context.Context, report *Report) error {
	return b.each(ctx, creditTable, func(r ledger.Reader, id string) error {
		c, _, err := creditIn(r, id)
		if err != nil {
			return err
		}
		purse, err := purseOf(r, c.Agent, c.Payee)
		if err != nil {
			return err
		}
		if c.Ended < 0 || c.Left < 0 || c.Used() < 0 {
			report.wrong(id, "used %s, ended %s, left %s of %s", c.Used(), c.Ended, c.Left, c.Amount)
		}
		inPurse := slices.ContainsFunc(purse, func(p pursed) bool { return p.ID == id })
		if inPurse != (c.Status == CreditActive && c.Left > 0) {
			report.wrong(id, "is %s with %s left, and in its agent's purse: %v", c.Status, c.Left, inPurse)
		}
		return nil
	})
}

// checkPayouts checks that what is set aside for each payout is what it is for, until it is decided.
func (b *Book) checkPayouts(ctx context.Context, report *Report) error {
	for page := (Page{Limit: MaxPage}); ; {
		payouts, next, err := b.Payouts("", "", page)
		if err != nil {
			return err
		}
		err = b.view(func(r ledger.Reader) error {
			for _, p := range payouts {
				if err := checkPayout(r, p.ID, report); err != nil {
					return err
				}
			}
			return nil
		})
		if page.Before = next; err != nil || next == "" {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func checkPayout(r ledger.Reader, id string, report *Report) error {
	p, err := payoutByID(r, id)
	if err != nil {
		return err
	}
	pending, err := ledger.Pendings(r, id)
	if err != nil {
		return err
	}
	aside, want := ledger.Amount(0), ledger.Amount(0)
	for _, t := range pending {
		aside += t.Amount
	}
	if p.IsOpen() {
		want = p.Amount
	}
	if aside != want {
		report.wrong(id, "is %s, and %s of %s is set aside", p.Status, aside, p.Amount)
	}
	return nil
}

// checkTries is how often an escrow must look wrong before it is reported. On a live ledger its account may have changed after its record
// was read.
const checkTries = 5

// checkEscrow returns what is wrong with an escrow, or "".
func (b *Book) checkEscrow(id string) (wrong string, err error) {
	err = b.view(func(r ledger.Reader) error {
		e, err := escrowByID(r, id)
		if err != nil || e == nil {
			return err
		}
		acc, _, err := b.ledger.Balance(e.Account())
		if err != nil {
			return err
		}
		switch {
		case e.Released < 0 || e.Refunded < 0 || e.Remaining() < 0 || e.Commission < 0 || e.Commission > e.Released:
			wrong = fmt.Sprintf("released %s, refunded %s, commission %s of %s", e.Released, e.Refunded, e.Commission, e.Amount)
		case e.Status.Closed() != (e.Remaining() == 0):
			wrong = fmt.Sprintf("is %s and %s remain", e.Status, e.Remaining())
		case acc.Balance() != e.Remaining() || acc.CreditsPosted != e.Amount:
			wrong = fmt.Sprintf("its account got %s and holds %s, it says that of %s there remain %s", acc.CreditsPosted, acc.Balance(), e.Amount, e.Remaining())
		}
		for key := range e.keysIn(e.lists()) {
			if value, err := r.Get([]byte(key)); err != nil {
				return err
			} else if value == nil {
				wrong = fmt.Sprintf("is missing in list %q", key[1])
			}
		}
		return nil
	})
	return wrong, err
}

// checkCharges reads all transfers in their order, and adds up those of each request until the sum is its charge. The sums that are left
// belong to calls that are still running.
func (b *Book) checkCharges(ctx context.Context, report *Report, progress ledger.Progress) error {
	open := map[string]ledger.Amount{}
	for after := uint64(0); ; {
		transfers, err := b.ledger.Transfers(after, 1000)
		if err != nil {
			return err
		}
		if len(transfers) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		after = transfers[len(transfers)-1].Seq
		for _, t := range transfers {
			if err := b.addUp(open, t); err != nil {
				return err
			}
		}
		progress.Tell("transfers of charges", int64(after), int64(report.Ledger.Transfers))
	}
	for id, sum := range open {
		if err := b.checkRunning(report, id, sum); err != nil {
			return err
		}
	}
	return b.each(ctx, chargeTable, func(r ledger.Reader, id string) error {
		c, _, err := chargeByID(r, id)
		if err != nil {
			return err
		}
		report.Charges++
		progress.Tell("charges", int64(report.Charges), 0)
		if c.Amount < 0 || c.Commission < 0 || c.Commission > c.Amount || c.Refunded < 0 || c.Refunded > c.Amount || c.CommissionBack > c.Commission {
			report.wrong(id, "amount %s, commission %s, refunded %s, of it commission %s", c.Amount, c.Commission, c.Refunded, c.CommissionBack)
		}
		credit, back := ledger.Amount(0), ledger.Amount(0)
		for _, part := range c.Credits {
			credit, back = credit+part.Amount, back+part.Back
		}
		if credit != c.Credit || back != c.CreditBack || c.Credit > c.Amount || c.CreditBack > c.Credit || c.CreditBack > c.Refunded {
			report.wrong(id, "amount %s, of it credit %s, by its parts %s; refunded %s, of it credit %s, by its parts %s", c.Amount, c.Credit, credit, c.Refunded, c.CreditBack, back)
		}
		return b.checkLast(report, c)
	})
}

// addUp adds one transfer to the sum of its request. Amounts are above zero, so a sum equals its charge only at the last transfer, and an
// additional transfer leaves a sum behind.
func (b *Book) addUp(open map[string]ledger.Amount, t ledger.Transfer) error {
	if t.Kind != kindCharge && t.Kind != kindCreditUse || t.Phase != ledger.Posted && t.Phase != ledger.PostPending {
		return nil
	}
	open[t.Reference] += t.Amount
	return b.view(func(r ledger.Reader) error {
		c, found, err := chargeByID(r, t.Reference)
		if err == nil && found && c.Amount-c.Decided == open[t.Reference] {
			delete(open, t.Reference)
		}
		return err
	})
}

// checkRunning checks a request whose transfers make no charge yet.
func (b *Book) checkRunning(report *Report, id string, sum ledger.Amount) error {
	return b.view(func(r ledger.Reader) error {
		var d drawn
		running, err := load(r, drawTable.key(id), &d)
		if err != nil || running && d.Posted >= sum {
			return err
		}
		c, found, err := chargeByID(r, id)
		if err != nil || found && c.Amount > sum { // it has been settled since
			return err
		}
		report.wrong(id, "its transfers make %s, the charge is of %s", sum, c.Amount)
		return nil
	})
}

// checkLast checks that the transfer that a charge names as its last is there and is its own.
func (b *Book) checkLast(report *Report, c Charge) error {
	if c.Amount == c.Decided {
		return nil
	}
	t, found, err := b.ledger.Transfer(c.LastTransfer)
	if err != nil {
		return err
	}
	if !found || t.Reference != c.RequestID {
		report.wrong(c.RequestID, "its last transfer should be %d, which is another's", c.LastTransfer)
	}
	return nil
}
