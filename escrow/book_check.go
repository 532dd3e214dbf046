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
	return b.each(ctx, escrowTable, func(r ledger.Reader, id string) error {
		report.Escrows++
		return checkEscrow(r, id, report)
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

func checkEscrow(r ledger.Reader, id string, report *Report) error {
	e, err := escrowByID(r, id)
	if err != nil || e == nil {
		return err
	}
	acc, err := ledger.ReadAccount(r, e.Account())
	if err != nil {
		return err
	}
	switch {
	case e.Released < 0 || e.Refunded < 0 || e.Remaining() < 0 || e.Commission < 0 || e.Commission > e.Released:
		report.wrong(id, "released %s, refunded %s, commission %s of %s", e.Released, e.Refunded, e.Commission, e.Amount)
	case e.Status.Closed() != (e.Remaining() == 0):
		report.wrong(id, "is %s and %s remain", e.Status, e.Remaining())
	case acc.Balance() != e.Remaining() || acc.CreditsPosted != e.Amount:
		report.wrong(id, "its account got %s and holds %s, it says that of %s there remain %s", acc.CreditsPosted, acc.Balance(), e.Amount, e.Remaining())
	}
	for key := range e.keysIn(e.lists()) {
		if value, err := r.Get([]byte(key)); err != nil {
			return err
		} else if value == nil {
			report.wrong(id, "is missing in list %q", key[1])
		}
	}
	return nil
}

// checkCharges checks that the transfers of each request make its charge. It reads all transfers in their order. A page of them and their charges
// are read in one view, since calls go on meanwhile.
func (b *Book) checkCharges(ctx context.Context, report *Report, progress ledger.Progress) error {
	c := chargeSums{report: report, sums: map[string]ledger.Amount{}}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := b.view(func(r ledger.Reader) (err error) {
			more, err = c.addPage(r)
			return err
		})
		if err != nil {
			return err
		}
		progress.Tell("transfers of charges", int64(c.after), int64(report.Ledger.Transfers))
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
		return checkLast(r, c, report)
	})
}

// chargeSums adds up the transfers of requests, until a request's sum is its charge. So it remembers the requests that were running when their
// transfers were read, not all.
type chargeSums struct {
	report *Report
	after  uint64 // the number of the last transfer that was read
	sums   map[string]ledger.Amount
}

// addPage adds the next transfers, and reports whether there are more. After the last one it checks the sums that are left, as r sees the calls.
func (c *chargeSums) addPage(r ledger.Reader) (more bool, err error) {
	const page = 1000
	transfers, err := ledger.ReadTransfers(r, c.after, page)
	if err != nil {
		return false, err
	}
	for _, t := range transfers {
		c.after = t.Seq
		if err := c.add(r, t); err != nil {
			return false, err
		}
	}
	if len(transfers) == page {
		return true, nil
	}
	for id, sum := range c.sums {
		if err := c.check(r, id, sum); err != nil {
			return false, err
		}
	}
	return false, nil
}

// add adds one transfer to the sum of its request. No transfer of a request is made after the last one that its charge names.
func (c *chargeSums) add(r ledger.Reader, t ledger.Transfer) error {
	if t.Kind != kindCharge && t.Kind != kindCreditUse || t.Phase != ledger.Posted && t.Phase != ledger.PostPending {
		return nil
	}
	id, made := t.Reference, t.Seq
	if t.Phase == ledger.PostPending { // older charges name the pending transfer
		made = t.Pending
	}
	charge, found, err := chargeByID(r, id)
	if err != nil {
		return err
	}
	if found && made > charge.LastTransfer {
		c.report.wrong(id, "transfer %d, of %s, was made after its charge", t.Seq, t.Amount)
		return nil
	}
	c.sums[id] += t.Amount
	if found && charge.Amount-charge.Decided == c.sums[id] {
		delete(c.sums, id)
	}
	return nil
}

// check checks a sum that is not that of a charge: the call is running, and has posted so much.
func (c *chargeSums) check(r ledger.Reader, id string, sum ledger.Amount) error {
	var d drawn
	running, err := load(r, drawTable.key(id), &d)
	if err != nil || running && d.Posted == sum {
		return err
	}
	charge, _, err := chargeByID(r, id)
	if err != nil || charge.Amount-charge.Decided == sum { // it was charged in a later view than its transfers were read in
		return err
	}
	c.report.wrong(id, "its transfers make %s, the charge is of %s", sum, charge.Amount-charge.Decided)
	return nil
}

// checkLast checks that the transfer that a charge names as its last is there and is its own.
func checkLast(r ledger.Reader, c Charge, report *Report) error {
	if c.Amount == c.Decided {
		return nil
	}
	t, found, err := ledger.ReadTransfer(r, c.LastTransfer)
	if err != nil {
		return err
	}
	if !found || t.Reference != c.RequestID {
		report.wrong(c.RequestID, "its last transfer should be %d, which is another's", c.LastTransfer)
	}
	return nil
}
