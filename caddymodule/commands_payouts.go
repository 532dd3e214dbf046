package caddymodule

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// registerPayouts registers the commands about payouts.
func registerPayouts() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "payouts",
		Short: "Lists, exports, books, sends and refuses payouts that agents ask for",
		CobraFunc: func(cmd *cobra.Command) {
			request := subcommand("request AGENT AMOUNT TO [FILE]", "Asks for a payout in an agent's name: the money is set aside", cobra.RangeArgs(3, 4), runPayoutsRequest)
			request.Flags().String("memo", "", "What it is for")
			cmd.AddCommand(request)
			list := subcommand("list [FILE]", "Lists payouts, newest first", cobra.MaximumNArgs(1), runPayoutsList)
			export := subcommand("export [FILE]", "Writes payouts to the standard output, oldest first, for a bank's program or a table", cobra.MaximumNArgs(1), runPayoutsExport)
			export.Flags().String("format", formatCSV, "csv")
			for _, of := range []*cobra.Command{list, export} {
				of.Flags().String("agent", "", "Only payouts of this agent")
				cmd.AddCommand(of)
			}
			list.Flags().String("status", "", "Only payouts with this status: requested, sending, paid or refused")
			list.Flags().Int("limit", 50, "How many are shown at most")
			export.Flags().String("status", string(escrow.PayoutAsked), "Only payouts with this status: requested, sending, paid or refused; all for any")
			book := subcommand("book PAYOUT_ID REFERENCE [FILE]", "Books a payout as paid; REFERENCE is the payment outside, such as the transaction id of a bank, and is booked once", cobra.RangeArgs(2, 3), runPayoutsBook)
			cmd.AddCommand(book)
			refuse := subcommand("refuse PAYOUT_ID [FILE]", "Refuses a payout: the money is in the wallet again", cobra.RangeArgs(1, 2), runPayoutsRefuse)
			refuse.Flags().String("reason", "", "Why; the agent is told")
			cmd.AddCommand(refuse)
			cmd.AddCommand(subcommand("send PAYOUT_ID", "Has a payout sent by the running server's cashier, and books it", cobra.ExactArgs(1), runPayoutsSend))
			withSubcommands(cmd)
		},
	})
}

func runPayoutsRequest(cmd *cobra.Command, args []string) (int, error) {
	amount, err := ledger.ParseAmount(args[1])
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	order := payoutArgs{AgentID: args[0], Amount: amount, To: args[2]}
	order.Memo, _ = cmd.Flags().GetString("memo")
	return showPayout(cmd, "payouts/request", optional(args, 3), order)
}

func runPayoutsBook(cmd *cobra.Command, args []string) (int, error) {
	return showPayout(cmd, "payouts/book", optional(args, 2), payoutArgs{PayoutID: args[0], Reference: args[1]})
}

func runPayoutsRefuse(cmd *cobra.Command, args []string) (int, error) {
	order := payoutArgs{PayoutID: args[0]}
	order.Reason, _ = cmd.Flags().GetString("reason")
	return showPayout(cmd, "payouts/refuse", optional(args, 1), order)
}

func runPayoutsSend(cmd *cobra.Command, args []string) (int, error) {
	return showPayout(cmd, "payouts/send", "", payoutArgs{PayoutID: args[0]})
}

// showPayout does a task on one payout, and shows it.
func showPayout(cmd *cobra.Command, task, file string, args payoutArgs) (int, error) {
	var p api.Payout
	if err := perform(cmd, task, file, args, &p); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, p) {
		fmt.Printf("%s: %s %s for %s to %s, %s %s\n", p.PayoutID, p.Amount, p.Currency, printable(p.AgentID), printable(p.To), p.Status, printable(p.Reference))
	}
	return caddy.ExitCodeSuccess, nil
}

func findPayouts(cmd *cobra.Command, file string, limit int) (payouts []api.Payout, err error) {
	asked := payoutsArgs{Limit: limit}
	asked.AgentID, _ = cmd.Flags().GetString("agent")
	if asked.Status, _ = cmd.Flags().GetString("status"); asked.Status == "all" {
		asked.Status = ""
	}
	return payouts, perform(cmd, "payouts/list", file, asked, &payouts)
}

func runPayoutsList(cmd *cobra.Command, args []string) (int, error) {
	limit, _ := cmd.Flags().GetInt("limit")
	payouts, err := findPayouts(cmd, optional(args, 0), limit)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, payouts) {
		return caddy.ExitCodeSuccess, nil
	}
	table(func(line func(...string)) {
		for _, p := range payouts {
			line(p.PayoutID, p.CreatedAt.Format(time.RFC3339), p.AgentID, p.Amount.String(), string(p.Status), p.To, p.Reference)
		}
	})
	return caddy.ExitCodeSuccess, nil
}

// maxExported is how many payouts are exported at once.
const maxExported = 100_000

func runPayoutsExport(cmd *cobra.Command, args []string) (int, error) {
	if format, _ := cmd.Flags().GetString("format"); format != formatCSV {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("format %q: expected csv", format)
	}
	payouts, err := findPayouts(cmd, optional(args, 0), maxExported)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := writePayouts(os.Stdout, payouts); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

// writePayouts writes payouts as a table, oldest first.
func writePayouts(to io.Writer, payouts []api.Payout) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"payout_id", "agent_id", "amount", "currency", "to", "memo", "status", "reference", "created_at"})
	for i := range payouts {
		p := payouts[len(payouts)-1-i]
		_ = w.Write([]string{
			p.PayoutID, api.Cell(p.AgentID), p.Amount.String(), api.Cell(p.Currency), api.Cell(p.To), api.Cell(p.Memo), string(p.Status), api.Cell(p.Reference), p.CreatedAt.Format(time.RFC3339),
		})
	}
	w.Flush()
	return w.Error()
}
