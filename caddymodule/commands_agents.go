package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow/api"
)

// registerAgents registers the commands that change agents, their keys and their holds.
func registerAgents() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "agents",
		Short: "Lists, adds, suspends and closes agents of Tallygate's ledger, and makes keys for them",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(subcommand("list [FILE]", "Lists the agents", cobra.MaximumNArgs(1), runAgentsList))
			add := subcommand("add ID [FILE]", "Adds an agent and shows its key, once", cobra.RangeArgs(1, 2), runAgentsAdd)
			add.Flags().String("name", "", "A name for people")
			add.Flags().Bool("adopt", false, "Accept an agent that has registered itself, so that the config may name it as a payee")
			cmd.AddCommand(add)
			cmd.AddCommand(subcommand("key ID [FILE]", "Makes another key for an agent and shows it, once", cobra.RangeArgs(1, 2), runAgentsKey))
			suspend := subcommand("suspend ID [FILE]", "Suspends an agent: it may only read", cobra.RangeArgs(1, 2), runStanding("agents/suspend"))
			suspend.Flags().String("reason", "", "Why; the agent is told")
			cmd.AddCommand(suspend)
			cmd.AddCommand(subcommand("resume ID [FILE]", "Ends the suspension of an agent", cobra.RangeArgs(1, 2), runStanding("agents/resume")))
			end := subcommand("close ID [FILE]", "Closes an agent for ever, and books its money out", cobra.RangeArgs(1, 2), runStanding("agents/close"))
			end.Flags().String("reason", "", "Why; the agent is told")
			end.Flags().String("reference", "", "Where the money went, such as the transaction id of a bank or a blockchain; it is booked once")
			cmd.AddCommand(end)
			withSubcommands(cmd)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "keys",
		Short: "Lists, rotates and revokes the keys of an agent",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(subcommand("list AGENT [FILE]", "Lists the keys of an agent, without their secrets", cobra.RangeArgs(1, 2), runKeysList))
			rotate := subcommand("rotate AGENT KEY_ID [FILE]", "Gives a key another secret and shows it, once", cobra.RangeArgs(2, 3), runKeysRotate)
			rotate.Flags().Duration("overlap", 24*time.Hour, "How long the secret before is valid, up to 720h")
			cmd.AddCommand(rotate)
			cmd.AddCommand(subcommand("revoke AGENT KEY_ID [FILE]", "Revokes a key: the next request with it is refused", cobra.RangeArgs(2, 3), runKeysRevoke))
			withSubcommands(cmd)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "holds",
		Short: "Lists holds, and gives what is left of one back to its payer",
		CobraFunc: func(cmd *cobra.Command) {
			list := subcommand("list [FILE]", "Lists holds, newest first", cobra.MaximumNArgs(1), runHoldsList)
			list.Flags().String("agent", "", "Only holds of this agent, as payer or as payee")
			list.Flags().Int("limit", 50, "How many are shown at most")
			cmd.AddCommand(list)
			cmd.AddCommand(subcommand("void hold_... [FILE]", "Gives what is left of a hold back to its payer", cobra.RangeArgs(1, 2), runHoldsVoid))
			withSubcommands(cmd)
		},
	})
}

// runStanding runs a task that changes whether an agent may act.
func runStanding(task string) commandFunc {
	return func(cmd *cobra.Command, args []string) (int, error) {
		asked := standingArgs{AgentID: args[0]}
		asked.Reason, _ = cmd.Flags().GetString("reason")
		asked.Reference, _ = cmd.Flags().GetString("reference")
		var agent api.ClosedAgent
		if err := perform(cmd, task, optional(args, 1), asked, &agent); err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
		if printJSON(cmd, agent) {
			return caddy.ExitCodeSuccess, nil
		}
		fmt.Printf("%s is %s\n", printable(agent.AgentID), agent.Status)
		if agent.Payout.Amount > 0 {
			fmt.Printf("%s %s was withdrawn\n", agent.Payout.Amount, agent.Payout.Currency)
		}
		return caddy.ExitCodeSuccess, nil
	}
}

func runKeysRotate(cmd *cobra.Command, args []string) (int, error) {
	asked := keyArgs{AgentID: args[0], KeyID: args[1]}
	asked.Overlap, _ = cmd.Flags().GetDuration("overlap")
	return showKey(cmd, "keys/rotate", optional(args, 2), asked)
}

func runHoldsList(cmd *cobra.Command, args []string) (int, error) {
	var asked holdsArgs
	asked.AgentID, _ = cmd.Flags().GetString("agent")
	asked.Limit, _ = cmd.Flags().GetInt("limit")
	var holds []api.Hold
	if err := perform(cmd, "holds/list", optional(args, 0), asked, &holds); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, holds) {
		return caddy.ExitCodeSuccess, nil
	}
	table(func(line func(...string)) {
		line("HOLD", "STATUS", "FROM", "TO", "AMOUNT", "CAPTURED", "REMAINING", "EXPIRES", "MEMO")
		for _, h := range holds {
			line(h.HoldID, string(h.Status), h.FromAgentID, h.ToAgentID, h.Amount.String(), h.Captured.String(), h.Remaining.String(), h.ExpiresAt.Format(time.RFC3339), h.Memo)
		}
	})
	return caddy.ExitCodeSuccess, nil
}

func runHoldsVoid(cmd *cobra.Command, args []string) (int, error) {
	var h api.Hold
	if err := perform(cmd, "holds/void", optional(args, 1), holdArgs{HoldID: args[0]}, &h); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, h) {
		fmt.Printf("%s: %s was captured, %s went back to %s\n", h.HoldID, h.Captured, h.Returned, printable(h.FromAgentID))
	}
	return caddy.ExitCodeSuccess, nil
}
