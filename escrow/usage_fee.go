package escrow

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Prices of subscriptions have totals of their own, since an invoice tells them apart from calls. They are in the totals as soon as they are
// charged. The single prices are kept too: reports add them up for the parts of a period in which a report begins or ends.

// fee is the price of a subscription's period, or a part of one that was refunded.
type fee struct {
	Payer  string        `cbor:"1,keyasint"`
	Payee  string        `cbor:"2,keyasint"`
	Plan   string        `cbor:"3,keyasint,omitempty"`
	Key    string        `cbor:"4,keyasint,omitempty"` // the payer's, that began the period
	Amount ledger.Amount `cbor:"5,keyasint,omitempty"`
	Back   ledger.Amount `cbor:"6,keyasint,omitempty"`
}

func (f fee) usageFor(agent string) Usage {
	u := Usage{Back: f.Back, Fees: f.Amount}
	if agent != "" && f.Payer == agent {
		u.Paid = f.Amount
	} else {
		u.Earned = f.Amount
	}
	return u
}

// groupFor returns the group of a fee in the usage of an agent. Keys of a payer are private.
func (f fee) groupFor(agent string) usageGroup {
	g := usageGroup{Payer: f.Payer, Payee: f.Payee, Plan: f.Plan}
	if f.Payer == agent {
		g.Key = f.Key
	}
	return g
}

// addFee adds to all totals of one of the parties, or of all agents.
func (s sums) addFee(agent string, f fee, at time.Time) {
	g, u := f.groupFor(agent), f.usageFor(agent)
	s.addRanked(agent, f.Payer, f.Payee, at, u)
	s.add(viewFeeHour, agent, "", at, usageGroup{Plan: g.Plan}, u)
	s.add(viewFeeDay, agent, "", at, g, u)
	s.add(viewFeeMonth, agent, "", at, g, u)
}

// countFee adds the price of a period, or its refund, to the usage of both parties. reference is the period's escrow.
func (t *Tx) countFee(f fee, reference string) error {
	if err := t.beginTotals(); err != nil {
		return err
	}
	sums := sums{}
	for _, agent := range []string{"", f.Payer, f.Payee} {
		sums.addFee(agent, f, t.Now())
		key := feeTable.key(agent, timeKey(t.Now())+reference)
		so := fee{Payer: f.Payer, Payee: f.Payee, Plan: f.Plan, Key: f.Key}
		if _, err := load(t.ledger, key, &so); err != nil {
			return err
		}
		so.Amount += f.Amount
		so.Back += f.Back
		if err := t.put(key, so); err != nil {
			return err
		}
	}
	return t.write(sums)
}

// feeBack counts what goes back of the price of a subscription's period.
func (t *Tx) feeBack(e *Escrow, amount ledger.Amount) error {
	s, err := subscriptionByID(t.ledger, e.Subscription)
	if err != nil || s == nil {
		return err
	}
	return t.countFee(fee{Payer: e.From, Payee: e.To, Plan: s.Plan.Name, Key: s.Key, Back: amount}, e.ID)
}

// beginTotals notes since when fees are in totals and sums are ranked, which is from the beginning in new books. Builds before these totals
// have left charges and fees in other books that are in none of them.
func (t *Tx) beginTotals() error {
	key := totalsBeginTable.key()
	if value, err := t.ledger.Get(key); err != nil || value != nil {
		return err
	}
	since := time.Unix(0, 0).UTC()
	for _, earlier := range []table{totalTable, feeTable} {
		n, err := t.countUpTo(earlier.under(), 1)
		if err != nil {
			return err
		}
		if n > 0 {
			since = t.Now()
		}
	}
	return t.put(key, since)
}

// totalsBegin returns the time that beginTotals has noted. Before it, a report does without these totals.
func (b *Book) totalsBegin() (since time.Time, err error) {
	found := false
	err = b.view(func(r ledger.Reader) error {
		found, err = load(r, totalsBeginTable.key(), &since)
		return err
	})
	if !found {
		since = endOfTime
	}
	return since, err
}

// feeView returns the totals of fees that answer a query, or false if there are none. Fees have no tag.
func (q usageBy) feeView() (v usageView, ok bool) {
	for _, name := range q.names {
		if slices.Contains([]string{"payer", "payee", "key"}, name) {
			return viewFeeDay, !slices.Contains(q.names, "hour")
		}
	}
	return viewFeeHour, true
}

// addFees adds up the prices of subscriptions' periods: from totals for whole hours, days or months, and one by one at both ends.
func (r *report) addFees(from, to time.Time) error {
	since, err := r.book.totalsBegin()
	if err != nil {
		return err
	}
	if since.Before(from) {
		since = from
	}
	view, ok := r.by.feeView()
	first, last := view.ceil(since), view.floor(to)
	if !ok || !first.Before(last) {
		return r.addSingleFees(from, to)
	}
	if err := r.addSingleFees(from, first); err != nil {
		return err
	}
	if view == viewFeeDay {
		err = r.addDays(viewFeeDay, viewFeeMonth, first, last, viewFeeMonth.floor(last))
	} else {
		err = r.readTotals(view, first, last, r.add)
	}
	if err != nil {
		return err
	}
	return r.addSingleFees(last, to)
}

// addSingleFees adds up fees one by one.
func (r *report) addSingleFees(from, to time.Time) error {
	if !from.Before(to) {
		return nil
	}
	return r.book.view(func(reader ledger.Reader) error {
		of := ledger.Range{From: feeTable.key(r.agent, timeKey(from)), To: feeTable.key(r.agent, timeKey(to))}
		return reader.Scan(of, func(key, value []byte) (bool, error) {
			var f fee
			if err := decode(key, value, &f); err != nil {
				return false, err
			}
			r.add(f.groupFor(r.agent), keyTime(feeTable.lastPart(key, r.agent)), f.usageFor(r.agent))
			return true, r.sees()
		})
	})
}
