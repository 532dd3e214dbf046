package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

type explainArgs struct {
	RequestID string `json:"request_id"`
}

// explained is a charge, and how its amount comes about: usage x prices -> amount. It needs no config: the charge records
// the prices that were applied.
type explained struct {
	Charge escrow.Charge       `json:"charge"`
	Price  pricing.Explanation `json:"price"`
}

func explain(_ context.Context, on bench, args explainArgs) (explained, error) {
	if args.RequestID == "" {
		return explained{}, errors.New("explain needs a request id: expected 'tallygate explain req_...'")
	}
	charge, err := on.Charge(operator, args.RequestID)
	if err != nil {
		return explained{}, err
	}
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
	price, err := pricing.Explain(units, prices)
	return explained{Charge: charge, Price: price}, err
}

func (e explained) print(w io.Writer) {
	c := e.Charge
	fmt.Fprintf(w, "%s: %s paid %s %s (%s) at %s\n", c.RequestID, c.Payer, c.Payee, c.Amount, c.Status, c.CreatedAt.Format("2006-01-02 15:04:05Z07:00"))
	fmt.Fprintf(w, "usage %s, response cut by: %s\n", c.Source, c.Cut)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range e.Price.Lines {
		fmt.Fprintf(table, "  %s\t%s\tx %s\t= %s\n", line.Class, line.Quantity, line.Price, line.Product)
	}
	_ = table.Flush()
	fmt.Fprintf(w, "  sum %s, rounded down to the ledger's nine digits\n", e.Price.Sum)
	if c.EscrowID != "" {
		fmt.Fprintf(w, "paid from escrow %s\n", c.EscrowID)
	}
	if c.Commission != 0 {
		fmt.Fprintf(w, "of this, commission: %s\n", c.Commission)
	}
	if c.Suspect {
		fmt.Fprintln(w, "suspect: the usage was absurd, or the money did not reach, and the amount was clamped")
	}
}
