package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

type explainArgs struct {
	RequestID string `json:"request_id"`
}

// explained is a charge, and how its amount was computed: from usage and prices, or from the provider's cost and the markup. It also has
// the charge's transfers. It needs no config, since the charge records the prices that were applied.
type explained struct {
	Charge    api.Charge          `json:"charge"`
	Price     pricing.Explanation `json:"price"`
	Transfers []transfer          `json:"transfers"`
}

func explain(ctx context.Context, on bench, args explainArgs) (explained, error) {
	if args.RequestID == "" {
		return explained{}, errors.New("explain needs a request id: expected 'tallygate explain req_...'")
	}
	charge, err := on.Charge(ctx, operator, args.RequestID)
	if err != nil {
		return explained{}, err
	}
	e, err := explainPrice(on, charge)
	if err != nil {
		return explained{}, err
	}
	e.Transfers, err = transfersOf(on, charge)
	return e, err
}

// shownSpan is how many transfers the ledger may have from the first to the last one of a charge for a page to show those of the charge. While a
// long stream runs, there may be any number of others, and a page must not read them all.
const shownSpan = 5000

// explainOnPage explains a charge as explain does, with the transfers only if they are near each other.
func explainOnPage(ctx context.Context, on bench, id string) (any, error) {
	charge, err := on.Charge(ctx, operator, id)
	if err != nil {
		return nil, err
	}
	e, err := explainPrice(on, charge)
	if err != nil {
		return nil, err
	}
	if charge.LastTransfer > charge.FirstTransfer+shownSpan {
		return e, nil
	}
	e.Transfers, err = transfersOf(on, charge)
	return e, err
}

// explainPrice explains the amount of a charge.
func explainPrice(on bench, charge escrow.Charge) (e explained, err error) {
	units := make(meter.Units)
	for class, text := range charge.Units {
		if units[meter.Class(class)], err = meter.ParseQuantity(text); err != nil {
			return explained{}, err
		}
	}
	prices := make(map[meter.Class]string)
	for class, price := range charge.UnitPrices {
		prices[meter.Class(class)] = price
	}
	e = explained{Charge: api.ChargeOf(on.Currency(), charge)}
	if charge.Cost != "" {
		e.Price, err = pricing.ExplainCost(units, charge.Cost, charge.Markup)
	} else {
		e.Price, err = pricing.Explain(units, prices)
	}
	return e, err
}

// transfersOf returns the transfers of a charge: its own, and the commission that follows each of them.
func transfersOf(on bench, c escrow.Charge) ([]transfer, error) {
	made := []transfer{}
	if c.FirstTransfer == 0 {
		return made, nil
	}
	for after := c.FirstTransfer - 1; ; {
		page, err := on.Ledger().Transfers(after, exportPage)
		if err != nil || len(page) == 0 {
			return made, err
		}
		for _, t := range page {
			switch after = t.Seq; {
			case t.Reference == c.RequestID:
				made = append(made, showTransfer(t))
			case t.Seq > c.LastTransfer:
				return made, nil
			}
		}
	}
}

func (e explained) print(w io.Writer) {
	c := e.Charge
	fmt.Fprintf(w, "%s: %s paid %s %s (%s) at %s\n", c.RequestID, c.Payer, c.Payee, c.Amount, c.Status, c.CreatedAt.Format("2006-01-02 15:04:05Z07:00"))
	if c.Money != nil {
		fmt.Fprintf(w, "of it %s by credit, %s with money\n", c.Credit, *c.Money)
	}
	if of, is := escrow.OwedFor(c.RequestID); is {
		fmt.Fprintf(w, "it pays what was owed of the price of %s\n", of)
	}
	if c.Owed > 0 {
		fmt.Fprintf(w, "%s of the price is owed, and is paid by the charge %s\n", c.Owed, escrow.Debt{Request: c.RequestID}.ID())
	}
	if c.Reference != "" {
		fmt.Fprintf(w, "reported by the payee, with the reference %s\n", printable(c.Reference))
	} else {
		fmt.Fprintf(w, "usage %s, response cut by: %s\n", c.Source, c.Cut)
	}
	if c.Pattern != escrow.CapturePattern { // its amount is the payee's own
		e.printPrice(w)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, t := range e.Transfers {
		fmt.Fprintf(table, "  transfer %d\t%s\t%s -> %s\t%s\n", t.Transfer, t.Kind, t.Debit, t.Credit, t.Amount)
	}
	_ = table.Flush()
	if c.Suspect {
		fmt.Fprintln(w, "suspect: the usage or the cost was absurd, or the money was not enough, so the amount was cut")
	}
}

// printPrice prints how the amount comes from the usage and the prices.
func (e explained) printPrice(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range e.Price.Lines {
		fmt.Fprintf(table, "  %s\t%s\tx %s\t= %s\n", printable(string(line.Class)), line.Quantity, line.Price, line.Product)
	}
	_ = table.Flush()
	fmt.Fprintf(w, "  sum %s, rounded down to the ledger's nine digits, but not to nothing\n", e.Price.Sum)
}
