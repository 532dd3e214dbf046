package escrow

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Invoice is what one agent bought from another in a month, by calls and by subscriptions: not what they moved by hand, such as escrows and
// transfers. A refund counts in the month of what is refunded.
type Invoice struct {
	Payer, Payee         string
	PayerName, PayeeName string
	From, To             time.Time
	Lines                []InvoiceLine
	Total                InvoiceSum
	Complete             bool // false if there were too many records to add up
	Over                 bool // the month is over
}

// InvoiceSum is a sum of an invoice.
type InvoiceSum struct {
	Calls      int64
	Amount     ledger.Amount // the price
	Credit     ledger.Amount // part of Amount that credit paid, without what was given back of it
	Refunded   ledger.Amount // part of Amount that was refunded, as money or as credit
	Due        ledger.Amount // what the payer paid with money: Amount - Credit - Refunded
	Commission ledger.Amount // part of Due that the operator took of charges
}

// InvoiceLine is a part of an invoice.
type InvoiceLine struct {
	Route, Model, Plan string
	Subscription       bool          // these are prices of the plan's periods, and no calls
	Items              []InvoiceItem // the units of the calls, by their prices
	InvoiceSum
}

// InvoiceItem is how much of a unit was charged at a price.
type InvoiceItem struct {
	Unit     string
	Price    string // as the charges state it; empty if it had none of its own, or if there were too many prices
	Quantity decimal.Decimal
}

// invoiceGroups are what tells the lines of an invoice apart, and the parties.
var invoiceGroups = []string{"payer", "payee", "route", "model", "plan"}

// Invoice adds up what an agent bought from another in a month, such as 2026-11. The caller is one of them, or the operator. An agent may
// leave out itself. Invoice reads totals of months (see [Book.KeepTotals]), so it takes no longer for more calls.
func (b *Book) Invoice(ctx context.Context, by Actor, month, payer, payee string) (Invoice, error) {
	from, err := readMonth(month)
	if err != nil {
		return Invoice{}, err
	}
	v := Invoice{From: from, To: from.AddDate(0, 1, 0), Complete: true}
	if v.Payer, v.Payee, err = b.invoiceParties(by, payer, payee); err != nil {
		return Invoice{}, err
	}
	if err := b.view(v.nameParties); err != nil {
		return Invoice{}, err
	}
	v.Over = !b.Now().Before(v.To)
	asks := by.Agent
	if by.Operator {
		asks = ""
	}
	end, err := b.awaitReport(ctx, asks)
	if err != nil {
		return Invoice{}, err
	}
	defer end()
	kept, done, err := b.KeepTotals(ctx)
	if err != nil {
		return Invoice{}, err
	}
	v.Complete = done
	// The charges and the periods of subscriptions are added up apart, so that no line has both.
	for _, subscription := range []bool{false, true} {
		r := &report{ctx: ctx, book: b, agent: v.Payer, by: usageBy{names: invoiceGroups}, kept: kept, price: true, rows: map[string]*UsageRow{}}
		add := r.addCharges
		if subscription {
			add = r.addFees
		}
		if err := add(v.From, v.To); errors.Is(err, errTooMuchUsage) {
			v.Complete = false
		} else if err != nil {
			return Invoice{}, err
		}
		v.addRows(r.rows, subscription)
	}
	if len(v.Lines) == 0 && !by.Operator { // no dealings: the other's name is not the caller's to see
		if v.Payer != by.Agent {
			v.PayerName = ""
		}
		if v.Payee != by.Agent {
			v.PayeeName = ""
		}
	}
	slices.SortFunc(v.Lines, func(a, b InvoiceLine) int {
		return cmp.Or(cmp.Compare(a.Route, b.Route), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Plan, b.Plan))
	})
	return v, nil
}

// nameParties reads the names of the parties.
func (v *Invoice) nameParties(r ledger.Reader) error {
	for id, name := range map[string]*string{v.Payer: &v.PayerName, v.Payee: &v.PayeeName} {
		agent, err := namedAgent(r, "payee", id)
		if err != nil {
			return err
		}
		*name = agent.Name
	}
	return nil
}

// invoiceParties returns the parties of an invoice, of which the caller is one unless it is the operator.
func (b *Book) invoiceParties(by Actor, payer, payee string) (string, string, error) {
	if !by.Operator {
		self, err := b.ReadsFor(by, "")
		switch {
		case err != nil:
			return "", "", err
		case payer == "" && payee != self:
			payer = self
		case payee == "" && payer != self:
			payee = self
		}
		if payer != "" && payee != "" && payer != self && payee != self {
			return "", "", refuse(NotFound, nil, "no invoice: neither payer nor payee is the key's agent; only the operator looks at others")
		}
	}
	switch {
	case payer == "":
		return "", "", invalid("payer", "the payer is missing: name the agent that paid")
	case payee == "":
		return "", "", invalid("payee", "the payee is missing: name the agent that was paid")
	case payer == payee:
		return "", "", invalid("payee", "payer and payee are the same agent")
	}
	return payer, payee, nil
}

// addRows makes lines of the sums of the invoice's parties.
func (v *Invoice) addRows(rows map[string]*UsageRow, subscription bool) {
	for _, row := range rows {
		if row.Group[0] != v.Payer || row.Group[1] != v.Payee {
			continue
		}
		line := InvoiceLine{Route: row.Group[2], Model: row.Group[3], Plan: row.Group[4], Subscription: subscription}
		line.InvoiceSum = InvoiceSum{
			Calls: row.Calls, Amount: row.Paid, Credit: row.Credit - row.creditBack, Refunded: row.Back, Commission: row.commission,
		}
		line.Due = line.Amount - line.Credit - line.Refunded
		for p, n := range row.priced {
			if !n.IsZero() {
				line.Items = append(line.Items, InvoiceItem{Unit: p.unit, Price: p.price, Quantity: n})
			}
		}
		slices.SortFunc(line.Items, func(a, b InvoiceItem) int { return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Price, b.Price)) })
		v.Lines = append(v.Lines, line)
		v.Total.add(line.InvoiceSum)
	}
}

func (s *InvoiceSum) add(more InvoiceSum) {
	s.Calls += more.Calls
	s.Amount += more.Amount
	s.Credit += more.Credit
	s.Refunded += more.Refunded
	s.Due += more.Due
	s.Commission += more.Commission
}

// readMonth reads a month such as 2026-11.
func readMonth(month string) (time.Time, error) {
	from, err := time.Parse("2006-01", month)
	if err != nil || from.Before(time.Unix(0, 0)) || from.After(endOfTime.AddDate(-1, 0, 0)) {
		return time.Time{}, invalid("month", "month %.40q: write it like 2026-11", month)
	}
	return from, nil
}
