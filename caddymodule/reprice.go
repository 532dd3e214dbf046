package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

func init() {
	addTask("reprice", true, reprice)
}

func registerReprice() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "reprice",
		Short: "Shows what the recorded usage would have cost under another tariff",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "reprice --tariff NAME --from TIME [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("tariff", "", "The tariff of the config under which the usage is priced")
			cmd.Flags().String("prices", "", "Another Caddyfile, which has the tariff")
			cmd.Flags().String("from", "", "From this time on, such as 2026-11-01 or 2026-11-01T12:00:00Z")
			cmd.Flags().String("to", "", "Only before this time")
			cmd.Flags().String("payee", "", "Only charges of this payee")
			cmd.Flags().String("route", "", "Only charges of this route")
			setRun(cmd, cobra.MaximumNArgs(1), runReprice)
		},
	})
}

type repriceArgs struct {
	Tariff *pricing.Tariff `json:"tariff"`
	From   time.Time       `json:"from"`
	To     time.Time       `json:"to"`
	Payee  string          `json:"payee,omitempty"`
	Route  string          `json:"route,omitempty"`
}

// repriced is what recorded usage was charged, and what it would have cost.
type repriced struct {
	Currency string         `json:"currency"`
	Rows     []*repricedRow `json:"rows"` // by route, model and payer
	repricedSum
	// Unpriced are the charges for which the tariff has no price. They are not in the sums.
	Unpriced []*repricedRow `json:"unpriced"`
	// NotUsage is how many charges are not the price of a usage: of a plan, of a hold's capture, of what was owed.
	NotUsage int64 `json:"not_usage"`
}

type repricedRow struct {
	Payee string `json:"payee"`
	Route string `json:"route"`
	Model string `json:"model"`
	Payer string `json:"payer"`
	repricedSum
}

type repricedSum struct {
	Calls      int64         `json:"calls"`
	Charged    ledger.Amount `json:"charged"`
	Repriced   ledger.Amount `json:"repriced"`
	Difference ledger.Amount `json:"difference"`
}

func (s *repricedSum) add(charged, repriced ledger.Amount) (err error) {
	s.Calls++
	var failed [3]error
	s.Charged, failed[0] = s.Charged.Add(charged)
	s.Repriced, failed[1] = s.Repriced.Add(repriced)
	s.Difference, failed[2] = s.Repriced.Sub(s.Charged)
	return errors.Join(failed[:]...)
}

// repricing is the work of one reprice.
type repricing struct {
	args     repriceArgs
	rows     map[[4]string]*repricedRow
	unpriced map[[4]string]*repricedRow
	used     map[counted]meter.Quantity
	result   repriced
}

// counted is a counter of prices with tiers, of a payer and a payee in a period.
type counted struct {
	payer, payee string
	of           pricing.Counter
	period       int64
}

func reprice(ctx context.Context, on bench, args repriceArgs) (repriced, error) {
	if args.Tariff == nil {
		return repriced{}, errors.New("reprice needs a tariff")
	}
	if err := compileTariff(args.Tariff, zap.NewNop()); err != nil {
		return repriced{}, fmt.Errorf("tariff: %w", err)
	}
	work := repricing{args: args, rows: map[[4]string]*repricedRow{}, unpriced: map[[4]string]*repricedRow{}, used: map[counted]meter.Quantity{}}
	// What a payer has used in the period before counts for prices with tiers. The longest period is a month; a week may begin in the one before.
	since := time.Date(args.From.Year(), args.From.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, -7)
	read := int64(0)
	err := on.EachCharge(ctx, since, args.To, func(c escrow.Charge) error {
		read++
		on.progress.Tell("charges", read, 0)
		return work.take(c)
	})
	if err != nil {
		return repriced{}, err
	}
	r := work.result
	r.Currency, r.Rows, r.Unpriced = on.Currency(), sortedRows(work.rows), sortedRows(work.unpriced)
	return r, nil
}

// take prices one charge, and adds it to its row.
func (w *repricing) take(c escrow.Charge) error {
	if w.args.Payee != "" && c.Payee != w.args.Payee || w.args.Route != "" && c.Route != w.args.Route {
		return nil
	}
	in := func(of pricing.Counter) counted {
		return counted{c.Payer, c.Payee, of, escrow.Counter{Name: of.Name, Each: of.Each}.Period(c.CreatedAt)}
	}
	amount, uses, err := gateway.Reprice(w.args.Tariff, c, func(of pricing.Counter) meter.Quantity { return w.used[in(of)] })
	for _, use := range uses {
		w.used[in(use.Counter)] += use.Quantity
	}
	charged := c.Amount
	if c.Price > 0 { // before its quality was decided, or in shadow mode
		charged = c.Price
	}
	switch {
	case c.CreatedAt.Before(w.args.From):
		return nil
	case errors.Is(err, gateway.ErrNoUsage):
		w.result.NotUsage++
		return nil
	case errors.Is(err, gateway.ErrNoPrice):
		return rowOf(w.unpriced, c).add(charged, 0)
	case err != nil:
		return fmt.Errorf("%s: %w", c.RequestID, err)
	}
	return errors.Join(rowOf(w.rows, c).add(charged, amount), w.result.add(charged, amount))
}

func rowOf(rows map[[4]string]*repricedRow, c escrow.Charge) *repricedRow {
	key := [4]string{c.Payee, c.Route, c.Model, c.Payer}
	if rows[key] == nil {
		rows[key] = &repricedRow{Payee: c.Payee, Route: c.Route, Model: c.Model, Payer: c.Payer}
	}
	return rows[key]
}

func sortedRows(rows map[[4]string]*repricedRow) []*repricedRow {
	list := make([]*repricedRow, 0, len(rows))
	for _, row := range rows {
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b *repricedRow) int {
		return cmp.Or(cmp.Compare(a.Payee, b.Payee), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Payer, b.Payer))
	})
	return list
}

// runReprice returns the exit code 1 if the tariff has no price for some of the usage, and 2 if nothing could be priced.
func runReprice(cmd *cobra.Command, args []string) (int, error) {
	asked, err := repriceOrder(cmd)
	if err != nil {
		return exitUsage, err
	}
	var r repriced
	if err := perform(cmd, "reprice", optional(args, 0), asked, &r); err != nil {
		return exitNotChecked, err
	}
	if !printJSON(cmd, r) {
		r.print()
	}
	if len(r.Unpriced) > 0 {
		return exitBad, errors.New("the tariff has no price for some of the usage")
	}
	return exitGood, nil
}

// repriceOrder reads the flags, and the tariff from its config.
func repriceOrder(cmd *cobra.Command) (asked repriceArgs, err error) {
	for name, into := range map[string]*time.Time{"from": &asked.From, "to": &asked.To} {
		text, _ := cmd.Flags().GetString(name)
		if *into, err = parseTime(text); err != nil {
			return asked, fmt.Errorf("--%s: %w", name, err)
		}
	}
	asked.Payee, _ = cmd.Flags().GetString("payee")
	asked.Route, _ = cmd.Flags().GetString("route")
	name, _ := cmd.Flags().GetString("tariff")
	switch {
	case name == "":
		return asked, usage(cmd, errors.New("no tariff is named"))
	case asked.From.IsZero():
		return asked, usage(cmd, errors.New("--from is missing"))
	}
	file, _ := cmd.Flags().GetString("prices")
	if file == "" {
		file, _ = cmd.Flags().GetString("config")
	}
	adapter, _ := cmd.Flags().GetString("adapter")
	raw, file, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return asked, err
	}
	app, err := appOf(raw)
	if err != nil {
		return asked, err
	}
	if asked.Tariff = app.Tariffs[name]; asked.Tariff == nil {
		return asked, fmt.Errorf("%s has no tariff %q: expected one of the global option tallygate, as in 'tariff %s { ... }'", cmp.Or(file, "the config"), name, name)
	}
	if use := asked.Tariff.Catalog; use != nil { // the server may run in another folder
		use.File, err = filepath.Abs(use.File)
	}
	return asked, err
}

func (r repriced) print() {
	table(func(line func(...string)) {
		line("PAYEE", "ROUTE", "MODEL", "PAYER", "CALLS", "CHARGED", "REPRICED", "DIFFERENCE")
		row := func(names [4]string, s repricedSum, repriced, difference string) {
			line(names[0], names[1], names[2], names[3], strconv.FormatInt(s.Calls, 10), s.Charged.String(), repriced, difference)
		}
		for _, at := range r.Rows {
			row([4]string{at.Payee, at.Route, at.Model, at.Payer}, at.repricedSum, at.Repriced.String(), at.Difference.String())
		}
		for _, at := range r.Unpriced {
			row([4]string{at.Payee, at.Route, at.Model, at.Payer}, at.repricedSum, "no price", "")
		}
		row([4]string{"total", "", "", ""}, r.repricedSum, r.Repriced.String(), r.Difference.String())
	})
	if r.NotUsage > 0 {
		fmt.Printf("%d charges are not the price of a usage: they belong to plans, captures of holds, and what was owed\n", r.NotUsage)
	}
}
