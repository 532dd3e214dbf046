package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// `tallygate ledger reconcile` compares what a rail's outside balance says, in a file that the operator has exported there, with what the
// ledger has booked between wallets and the account world. The two are matched by the id of the payment outside, which is in the memo of the
// ledger's transfers, after the name of the rail.

// outside is what moved under one id. Amounts are above zero if the money came in.
type outside struct {
	ID     string        `json:"id"`
	Amount ledger.Amount `json:"amount"`
	At     time.Time     `json:"at"` // the first time
}

type balanceArgs struct {
	Rail  string    `json:"rail"`
	Moves []outside `json:"moves"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// balanced is the result of `tallygate ledger reconcile`.
type balanced struct {
	Rail        string           `json:"rail"`
	From        time.Time        `json:"from"`
	To          time.Time        `json:"to"`
	Outside     ledger.Amount    `json:"outside"` // the sum of the report
	Ledger      ledger.Amount    `json:"ledger"`  // the sum of what the ledger has booked under the same ids, or within the time
	Same        int              `json:"same"`
	Differences []balanceDiffers `json:"differences"`
}

// balanceDiffers is an id with different amounts outside and in the ledger. An amount is nil where there is none.
type balanceDiffers struct {
	ID      string         `json:"id"`
	At      time.Time      `json:"at"`
	Outside *ledger.Amount `json:"outside"`
	Ledger  *ledger.Amount `json:"ledger"`
	What    string         `json:"what"`
}

// bookedLate is how long before the report the ledger's clock may have been behind the rail's.
const bookedLate = 24 * time.Hour

func balance(ctx context.Context, on bench, args balanceArgs) (balanced, error) {
	b := balanced{Rail: args.Rail, From: args.From, To: args.To, Differences: []balanceDiffers{}}
	if len(args.Moves) == 0 {
		return b, errors.New("the report has no payment that could be compared")
	}
	ours, err := bookedOutside(ctx, on, args)
	if err != nil {
		return b, err
	}
	differs := func(id string, at time.Time, their, our *ledger.Amount, what string) {
		b.Differences = append(b.Differences, balanceDiffers{id, at, their, our, what})
	}
	for _, their := range args.Moves {
		b.Outside += their.Amount
		our, found := ours[their.ID]
		delete(ours, their.ID)
		b.Ledger += our.Amount
		switch {
		case their.Amount == our.Amount:
			b.Same++
		case !found:
			differs(their.ID, their.At, &their.Amount, nil, "in the report, and not booked")
		default:
			differs(their.ID, their.At, &their.Amount, &our.Amount, "booked with another amount")
		}
	}
	for _, our := range ours {
		if our.Amount == 0 || our.At.Before(args.From) || our.At.After(args.To) {
			continue
		}
		b.Ledger += our.Amount
		differs(our.ID, our.At, nil, &our.Amount, "booked, and not in the report")
	}
	slices.SortFunc(b.Differences, func(x, y balanceDiffers) int { return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.ID, y.ID)) })
	return b, nil
}

// bookedOutside adds up what the ledger has booked for a rail since the report begins, by the ids outside.
func bookedOutside(ctx context.Context, on bench, args balanceArgs) (map[string]outside, error) {
	sums := map[string]outside{}
	for before := uint64(0); ; {
		entries, err := on.Ledger().Entries(ledger.World, before, 500)
		if err != nil || len(entries) == 0 {
			return sums, err
		}
		for _, e := range entries {
			before = e.Seq
			if e.Time.Before(args.From.Add(-bookedLate)) {
				return sums, nil
			}
			id, is := strings.CutPrefix(e.Memo, args.Rail+" ")
			if !is {
				continue
			}
			id, _, _ = strings.Cut(id, " ")
			sums[id] = outside{id, sums[id].Amount - e.Amount, e.Time}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func balanceCommand() *cobra.Command {
	cmd := subcommand("reconcile --rail NAME REPORT [FILE]", "Compares an export of the outside balance with what the ledger has booked; exits with 1 if they differ", cobra.RangeArgs(1, 2), runBalance)
	cmd.Flags().String("rail", "", "Where the money came from: stripe, or x402")
	cmd.Flags().String("pay-to", "", "Of x402: your address; transfers to it count as in, those from it as out")
	cmd.Flags().String("from", "", "Look for missing lines only from this time on (default: the first line of the report)")
	cmd.Flags().String("to", "", "Look for missing lines only up to this time (default: the last line of the report)")
	return cmd
}

// runBalance returns the exit code 1 if something differs, and 2 if nothing could be compared.
func runBalance(cmd *cobra.Command, args []string) (int, error) {
	asked := balanceArgs{}
	asked.Rail, _ = cmd.Flags().GetString("rail")
	address, _ := cmd.Flags().GetString("pay-to")
	file, err := os.Open(args[0])
	if err != nil {
		return exitNotChecked, err
	}
	defer file.Close()
	if asked.Moves, err = readBalance(asked.Rail, address, file); err != nil {
		return exitNotChecked, err
	}
	for _, move := range asked.Moves {
		if asked.From.IsZero() || move.At.Before(asked.From) {
			asked.From = move.At
		}
		if move.At.After(asked.To) {
			asked.To = move.At
		}
	}
	for name, into := range map[string]*time.Time{"from": &asked.From, "to": &asked.To} {
		if text, _ := cmd.Flags().GetString(name); text != "" {
			if *into, err = parseTime(text); err != nil {
				return exitNotChecked, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	var b balanced
	if err := perform(cmd, "ledger/reconcile", optional(args, 1), asked, &b); err != nil {
		return exitNotChecked, err
	}
	if !printJSON(cmd, b) {
		b.print()
	}
	if n := len(b.Differences); n > 0 {
		return exitBad, fmt.Errorf("the report and the ledger differ: %d", n)
	}
	return exitGood, nil
}

func (b balanced) print() {
	shown := func(amount *ledger.Amount) string {
		if amount == nil {
			return "-"
		}
		return amount.String()
	}
	table(func(line func(...string)) {
		if len(b.Differences) > 0 {
			line("id", "at", "outside", "ledger", "")
		}
		for _, d := range b.Differences {
			line(d.ID, d.At.Format(time.RFC3339), shown(d.Outside), shown(d.Ledger), d.What)
		}
	})
	fmt.Printf("%s to %s: outside %s, in the ledger %s; %d are the same, %d differ\n",
		b.From.Format(time.RFC3339), b.To.Format(time.RFC3339), b.Outside, b.Ledger, b.Same, len(b.Differences))
}
