package caddymodule

import (
	"context"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/shopspring/decimal"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

func init() {
	addTask("invoice", false, makeInvoice) // it brings the totals up to date
	addTask("statement", true, makeStatement)
}

func registerInvoice() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "invoice",
		Short: "Writes what an agent bought from another in a month, as CSV, as a page to print, or as JSON",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "invoice MONTH PAYER PAYEE [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("format", formatCSV, "csv or html; --json for JSON")
			setRun(cmd, cobra.RangeArgs(3, 4), runInvoice)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "statement",
		Short: "Writes what moved in an agent's wallet in a month, as CSV, as a page to print, or as JSON",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "statement MONTH AGENT [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("format", formatCSV, "csv or html; --json for JSON")
			setRun(cmd, cobra.RangeArgs(2, 3), runStatement)
		},
	})
}

type invoiceArgs struct {
	Month  string     `json:"month"`
	Payer  string     `json:"payer"`
	Payee  string     `json:"payee"`
	Issuer api.Issuer `json:"issuer"`
}

func makeInvoice(ctx context.Context, on bench, args invoiceArgs) (api.Invoice, error) {
	v, err := on.Invoice(ctx, operator, args.Month, args.Payer, args.Payee)
	if err != nil {
		return api.Invoice{}, err
	}
	return api.InvoiceOf(args.Issuer, on.Currency(), v, invoiceProduct), nil
}

// invoiceProduct computes a quantity times a price. It is false for prices of which the product has no end, such as a third.
func invoiceProduct(unit, quantity, price string) (decimal.Decimal, bool) {
	q, err := meter.ParseQuantity(quantity)
	if err != nil {
		return decimal.Decimal{}, false
	}
	class := meter.Class(unit)
	// The sum of an explanation may be too large for an amount, which is an error, but its lines are right then.
	e, _ := pricing.Explain(meter.Units{class: q}, map[meter.Class]string{class: price})
	if len(e.Lines) != 1 {
		return decimal.Decimal{}, false
	}
	product, err := decimal.NewFromString(e.Lines[0].Product)
	return product, err == nil
}

type statementArgs struct {
	Month  string     `json:"month"`
	Agent  string     `json:"agent_id"`
	Issuer api.Issuer `json:"issuer"`
}

func makeStatement(ctx context.Context, on bench, args statementArgs) (api.Statement, error) {
	agent, err := on.ReadsFor(operator, args.Agent)
	if err != nil {
		return api.Statement{}, err
	}
	s, err := on.Statement(ctx, agent, args.Month)
	if err != nil {
		return api.Statement{}, err
	}
	return api.StatementOf(args.Issuer, on.Currency(), s), nil
}

func runStatement(cmd *cobra.Command, args []string) (int, error) {
	file := optional(args, 2)
	return writePaper(cmd, "statement", file, new(api.Statement), func(issuer api.Issuer) any {
		return statementArgs{Month: args[0], Agent: args[1], Issuer: issuer}
	})
}

func runInvoice(cmd *cobra.Command, args []string) (int, error) {
	file := optional(args, 3)
	return writePaper(cmd, "invoice", file, new(api.Invoice), func(issuer api.Issuer) any {
		return invoiceArgs{Month: args[0], Payer: args[1], Payee: args[2], Issuer: issuer}
	})
}

// papered is what can be printed.
type papered interface {
	WritePaper(format string) ([]byte, error)
}

// writePaper does a task whose result can be printed, and prints it in the format that the flags say. The operator's name and address are
// those of the command's config.
func writePaper(cmd *cobra.Command, task, file string, made papered, args func(api.Issuer) any) (int, error) {
	format, _ := cmd.Flags().GetString("format")
	if format != formatCSV && format != "html" {
		return exitUsage, usage(cmd, fmt.Errorf("unknown format %q: expected csv or html", format))
	}
	place, err := findBooks(cmd, file)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := perform(cmd, task, file, args(place.issuer), made); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, made) {
		return caddy.ExitCodeSuccess, nil
	}
	text, err := made.WritePaper(format)
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}
