package caddymodule

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow/api"
)

// registerReading registers the commands that look at agents, and at what they have.
func registerReading() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "wallet",
		Short: "Shows the wallet of an agent, or the operator's earnings, and what moved in it last",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "wallet AGENT [FILE]"
			bookFlags(cmd)
			cmd.Flags().Int("limit", 10, "How many of the last entries are shown")
			setRun(cmd, cobra.RangeArgs(1, 2), runWallet)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "charges",
		Short: "Lists charges of metered calls, newest first",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "charges [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("agent", "", "Only charges that this agent paid or was paid")
			cmd.Flags().String("status", "", "Only charges with this status, such as disputed")
			cmd.Flags().Int("limit", 50, "How many are shown at most")
			setRun(cmd, cobra.MaximumNArgs(1), runCharges)
		},
	})
	registerInvoice()
}

// printable returns a text that others have chosen, such as a name or a memo, for a terminal: what can't be printed is escaped, so that no text can
// move the cursor or change what was printed before.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// table prints lines with their columns one below the other. The first line names the columns.
func table(lines func(line func(columns ...string))) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	lines(func(columns ...string) {
		for i := range columns {
			columns[i] = printable(columns[i])
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
	})
	_ = w.Flush()
}

func runWallet(cmd *cobra.Command, args []string) (int, error) {
	asked := walletArgs{AgentID: args[0]}
	asked.Limit, _ = cmd.Flags().GetInt("limit")
	var s walletStand
	if err := perform(cmd, "wallet", optional(args, 1), asked, &s); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, s) {
		return caddy.ExitCodeSuccess, nil
	}
	fmt.Printf("%s has %s %s: %s available, %s held; %s pending\n", printable(s.AgentID), s.Balance, s.Currency, s.Available, s.Held, s.Pending)
	table(func(line func(...string)) {
		line("TIME", "KIND", "AMOUNT", "BALANCE", "WITH", "REFERENCE", "MEMO")
		for _, e := range s.Entries {
			line(e.CreatedAt.Format(time.RFC3339), e.Kind, e.Amount.String(), e.BalanceAfter.String(), e.Counterparty, e.Reference, e.Memo)
		}
	})
	return caddy.ExitCodeSuccess, nil
}

func runCharges(cmd *cobra.Command, args []string) (int, error) {
	var asked chargesArgs
	asked.AgentID, _ = cmd.Flags().GetString("agent")
	asked.Status, _ = cmd.Flags().GetString("status")
	asked.Limit, _ = cmd.Flags().GetInt("limit")
	var charges []api.Charge
	if err := perform(cmd, "charges", optional(args, 0), asked, &charges); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, charges) {
		return caddy.ExitCodeSuccess, nil
	}
	table(func(line func(...string)) {
		line("REQUEST", "TIME", "PAYER", "PAYEE", "ROUTE", "MODEL", "AMOUNT", "STATUS")
		for _, c := range charges {
			line(c.RequestID, c.CreatedAt.Format(time.RFC3339), c.Payer, c.Payee, c.Route, c.Model, c.Amount.String(), string(c.Status))
		}
	})
	return caddy.ExitCodeSuccess, nil
}

func runKeysList(cmd *cobra.Command, args []string) (int, error) {
	var keys []api.Key
	if err := perform(cmd, "keys/list", optional(args, 1), agentArgs{ID: args[0]}, &keys); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, keys) {
		return caddy.ExitCodeSuccess, nil
	}
	table(func(line func(...string)) {
		line("KEY", "MADE", "STATE", "NAME")
		for _, k := range keys {
			state := "valid"
			switch {
			case k.RevokedAt != nil:
				state = "revoked " + k.RevokedAt.Format(time.RFC3339)
			case k.ExpiresAt != nil:
				state = "expires " + k.ExpiresAt.Format(time.RFC3339)
			}
			line(k.KeyID, k.CreatedAt.Format(time.RFC3339), state, k.Name)
		}
	})
	return caddy.ExitCodeSuccess, nil
}

func runKeysRevoke(cmd *cobra.Command, args []string) (int, error) {
	var revoked struct{}
	if err := perform(cmd, "keys/revoke", optional(args, 2), keyArgs{AgentID: args[0], KeyID: args[1]}, &revoked); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, revoked) {
		fmt.Printf("key %s of %s is revoked\n", printable(args[1]), printable(args[0]))
	}
	return caddy.ExitCodeSuccess, nil
}
