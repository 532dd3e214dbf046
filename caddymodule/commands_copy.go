package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/caddymodule/progress"
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgercopy"
)

// endFlag is the flag --from or --to of `ledger copy`. Its value is a kind of store. The places are the arguments of the command, in the
// order of the flags, so that one writes '--from bolt FILE --to postgres DSN'.
type endFlag struct {
	name, kind string
	order      *[]*endFlag
}

// String implements pflag.Value.
func (f *endFlag) String() string { return f.kind }

// Type implements pflag.Value.
func (f *endFlag) Type() string { return "kind" }

// Set implements pflag.Value.
func (f *endFlag) Set(kind string) error {
	if f.kind != "" {
		return errors.New("it is given twice")
	}
	f.kind = kind
	*f.order = append(*f.order, f)
	return nil
}

func copyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy --from KIND PLACE --to KIND PLACE",
		Short: "Copies a ledger that nothing uses into another store, and verifies both; the kinds are bolt (FILE) and postgres (DSN)",
	}
	order := new([]*endFlag)
	for name, help := range map[string]string{"from": "The kind of store to copy from; its place follows", "to": "The kind of store to copy to; its place follows"} {
		cmd.Flags().Var(&endFlag{name: name, order: order}, name, help)
	}
	cmd.Flags().Bool("json", false, "Print the result as JSON")
	setRun(cmd, cobra.ExactArgs(2), func(cmd *cobra.Command, args []string) (int, error) {
		if len(*order) != 2 {
			return exitUsage, usage(cmd, errors.New("--from and --to are both needed"))
		}
		ends := map[string]StoreModule{}
		for i, end := range *order {
			store, err := storeOf(end.kind, args[i])
			if err != nil {
				return caddy.ExitCodeFailedStartup, fmt.Errorf("--%s: %w", end.name, err)
			}
			ends[end.name] = store
		}
		return runCopy(cmd, ends["from"], ends["to"])
	})
	return cmd
}

func runCopy(cmd *cobra.Command, from, to StoreModule) (int, error) {
	if from.Key() == to.Key() {
		return caddy.ExitCodeFailedStartup, errors.New("a ledger can't be copied onto itself")
	}
	bar := progress.On(os.Stderr)
	v, err := copyLedger(context.Background(), from, to, bar.Show)
	bar.Clear()
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, v) {
		fmt.Println(to.Key())
		v.print()
	}
	return caddy.ExitCodeSuccess, nil
}

// copyLedger copies a ledger, and proves that the copy has the same books: it checks the books on both sides by the same check, and compares
// what it found. The source must be good, and must not change.
func copyLedger(ctx context.Context, from, to StoreModule, show func(step string, done, total int64)) (verified, error) {
	source, err := openToRead(from)
	if err != nil {
		return verified{}, fmt.Errorf("opening the ledger to copy: %w", err)
	}
	defer source.Close()
	show("verifying the source", 0, 0)
	before, err := checkCopy(ctx, source, show)
	if err != nil {
		return verified{}, fmt.Errorf("the ledger to copy: %w", err)
	}
	target, err := to.Open()
	if err != nil {
		return verified{}, fmt.Errorf("opening the place to copy to: %w", err)
	}
	err = ledgercopy.Copy(ctx, source, target, func(records int64) { show("records", records, int64(before.Ledger.Records)) })
	if err = errors.Join(err, target.Close()); err != nil {
		return verified{}, err
	}
	made, err := openToRead(to)
	if err != nil {
		return verified{}, fmt.Errorf("opening the copy: %w", err)
	}
	defer made.Close()
	show("verifying the copy", 0, 0)
	after, err := checkCopy(ctx, made, show)
	if err != nil {
		return verified{}, fmt.Errorf("the copy: %w", err)
	}
	b, a := before.Ledger, after.Ledger
	if a.Head != b.Head || a.Transfers != b.Transfers || a.Accounts != b.Accounts || a.Pendings != b.Pendings || a.Records != b.Records ||
		after.Escrows != before.Escrows || after.Charges != before.Charges {
		return verified{}, fmt.Errorf("the copy has other books: head %d:%x, %d records; the source has head %d:%x, %d records", a.Head.Seq, a.Head.Hash, a.Records, b.Head.Seq, b.Head.Hash, b.Records)
	}
	return verifiedReport(a), nil
}

// checkCopy checks the books in a store that is open for reading. Wrong books are an error.
func checkCopy(ctx context.Context, store ledger.Store, progress ledger.Progress) (escrow.Report, error) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	l, err := ledger.New(store, ledger.Options{Logger: quiet})
	if err != nil {
		return escrow.Report{}, err
	}
	report, err := escrow.New(l, escrow.Rules{}).Check(ctx, progress)
	switch {
	case err != nil:
		return report, err
	case len(report.Ledger.Wrong) > 0:
		return report, fmt.Errorf("its books are wrong: %s", report.Ledger.Wrong[0])
	case len(report.Wrong) > 0:
		return report, fmt.Errorf("its books are wrong: %s", report.Wrong[0])
	}
	return report, nil
}
