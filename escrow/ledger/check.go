package ledger

import (
	"context"
	"fmt"
	"time"
)

// Report is what [Ledger.Check] found.
type Report struct {
	Transfers uint64
	Accounts  int
	Pendings  int // pending transfers that are not resolved
	Records   uint64
	Seconds   float64
	Head      Head // of the hash chain: whoever keeps it can tell later whether history was rewritten
	Wrong     []Finding
}

// Finding is one thing that is wrong with the books.
type Finding struct {
	Account AccountID // empty where it is no account's
	Seq     uint64    // of the transfer, 0 where it is none's
	What    string
}

// String returns the finding in one line.
func (f Finding) String() string {
	switch {
	case f.Account != "" && f.Seq != 0:
		return fmt.Sprintf("account %s, transfer %d: %s", f.Account, f.Seq, f.What)
	case f.Account != "":
		return fmt.Sprintf("account %s: %s", f.Account, f.What)
	case f.Seq != 0:
		return fmt.Sprintf("transfer %d: %s", f.Seq, f.What)
	default:
		return f.What
	}
}

// Check proves the books. It is not whole yet: it compares the accounts.
func (l *Ledger) Check(ctx context.Context, progress func(transfers uint64)) (Report, error) {
	begin := time.Now()
	var report Report
	derived := map[AccountID]Account{}
	err := l.store.View(func(r Reader) error {
		transfers, err := transfersAfter(r, 0, 1<<62)
		if err != nil {
			return err
		}
		for _, t := range transfers {
			d, c := derived[t.Debit], derived[t.Credit]
			d, c, outcome := apply(d, c, 0, t)
			if outcome != OK {
				report.Wrong = append(report.Wrong, Finding{Account: t.Debit, Seq: t.Seq, What: string(outcome)})
			}
			derived[t.Debit], derived[t.Credit] = d, c
		}
		for id, want := range derived {
			got, err := readAccount(r, id)
			if err != nil {
				return err
			}
			if got != want {
				report.Wrong = append(report.Wrong, Finding{Account: id, What: fmt.Sprintf("is %+v, its transfers make %+v", got, want)})
			}
		}
		report.Transfers, report.Accounts = uint64(len(transfers)), len(derived)
		return nil
	})
	report.Seconds = time.Since(begin).Seconds()
	return report, err
}
