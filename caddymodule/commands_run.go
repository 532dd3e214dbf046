package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/escrow"
)

// exitUsage is the exit code of a command with wrong arguments or flags.
const exitUsage = 2

type commandFunc func(cmd *cobra.Command, args []string) (exit int, err error)

// setRun sets what a command does. It refuses other arguments than those that args allows, and then shows how the command is used.
func setRun(cmd *cobra.Command, args cobra.PositionalArgs, run commandFunc) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = runE(func(cmd *cobra.Command, given []string) (int, error) {
		if wrong := args(cmd, given); wrong != nil {
			return exitUsage, usage(cmd, wrong)
		}
		return run(cmd, given)
	})
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, wrong error) error {
		return runE(func(cmd *cobra.Command, _ []string) (int, error) { return exitUsage, usage(cmd, wrong) })(cmd, nil)
	})
}

// usage says how a command is used that was used otherwise.
func usage(cmd *cobra.Command, wrong error) error {
	return fmt.Errorf("%w; expected '%s', and '%s --help' lists the flags", wrong, strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())
}

func runE(run commandFunc) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
			exit, err := run(cmd, args)
			return exit, plainly(err)
		})(cmd, args)
	}
}

// plainly returns an error as a person should read it: the text of a refusal without its code, and that of a missing file without the system call.
func plainly(err error) error {
	var refusal *escrow.Refusal
	var missing *fs.PathError
	switch {
	case errors.As(err, &refusal) && refusal.Detail != "":
		return errors.New(refusal.Detail)
	case errors.As(err, &missing) && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s", missing.Path)
	default:
		return err
	}
}

// answered returns the error that a server has answered a task with, without what Caddy's client says around it.
func answered(err error) error {
	_, body, is := strings.Cut(err.Error(), "caddy responded with error: HTTP ")
	if !is {
		return err
	}
	_, body, _ = strings.Cut(body, ": ")
	var told struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(body), &told) != nil || told.Error == "" {
		return err
	}
	return errors.New(told.Error)
}

// withSubcommands makes a command that has only subcommands refuse other words. Cobra would show the help, as if all was well.
func withSubcommands(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.FParseErrWhitelist.UnknownFlags = true // those of a subcommand, after a word that is none
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) (int, error) {
		if len(args) == 0 {
			return caddy.ExitCodeSuccess, cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}
		return exitUsage, fmt.Errorf("%s has no command %q: expected one of %s", cmd.Name(), printable(args[0]), strings.Join(names, ", "))
	})
}
