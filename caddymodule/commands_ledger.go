package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/tallygate/tallygate/caddymodule/progress"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// The exit codes of `ledger verify`.
const (
	exitGood       = 0
	exitBad        = 1
	exitNotChecked = 2
)

func runVerify(cmd *cobra.Command, args []string) (int, error) {
	var asked verifyArgs
	if text, _ := cmd.Flags().GetString("head"); text != "" {
		transfer, hash, _ := strings.Cut(text, ":")
		seq, err := strconv.ParseUint(transfer, 10, 64)
		if err != nil {
			return exitNotChecked, fmt.Errorf("head %q: expected TRANSFER:HASH as verify prints it", text)
		}
		asked.Head = &head{Transfer: seq, Hash: hash}
	}
	var v verified
	if err := perform(cmd, "ledger/verify", optional(args, 0), asked, &v); err != nil {
		if errors.Is(err, ledger.ErrCorrupt) { // the file can't be opened; other findings are in v
			return exitBad, err
		}
		return exitNotChecked, fmt.Errorf("not checked: %w", err)
	}
	if !printJSON(cmd, v) {
		v.print()
	}
	if !v.Good {
		return exitBad, fmt.Errorf("the books are wrong; number of findings: %d", len(v.Wrong))
	}
	return exitGood, nil
}

func (v verified) print() {
	for _, finding := range v.Wrong {
		fmt.Println("wrong:", finding)
	}
	fmt.Printf("%d transfers, %d accounts, checked in %.3f s (%d entries per second)\n", v.Transfers, v.Accounts, v.Seconds, v.EntriesPerSecond)
	fmt.Printf("head of the hash chain, %s: %d:%s\n", v.Head.Day, v.Head.Transfer, v.Head.Hash)
	if v.Good {
		fmt.Println("the books are good")
	}
}

func runStat(cmd *cobra.Command, args []string) (int, error) {
	var s stat
	if err := perform(cmd, "ledger/stat", optional(args, 0), nil, &s); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, s) {
		fmt.Printf("%s\n  %d bytes, %d transfers in %s, the last at %s\n  head of the hash chain: %d:%s\n",
			s.Store, s.Bytes, s.Transfers, s.Currency, s.LastAt.Format(time.RFC3339), s.Head.Transfer, s.Head.Hash)
		if s.Trouble != "" {
			fmt.Println("  takes no money:", s.Trouble)
		}
	}
	return caddy.ExitCodeSuccess, nil
}

func runBackup(cmd *cobra.Command, args []string) (int, error) {
	to, err := filepath.Abs(args[0])
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	var v verified
	if err := perform(cmd, "ledger/backup", optional(args, 1), backupArgs{File: to}, &v); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, v) {
		fmt.Println(to)
		v.print()
	}
	return caddy.ExitCodeSuccess, nil
}

func runRestore(cmd *cobra.Command, args []string) (int, error) {
	place, err := findBooks(cmd, optional(args, 1))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	acceptMeta, _ := cmd.Flags().GetBool("accept-meta")
	file, ok := place.store.(*BoltStore)
	switch {
	case !ok && acceptMeta:
		return caddy.ExitCodeFailedStartup, errors.New("--accept-meta is for a ledger in a file: restore the backup into a file, and copy that by 'ledger copy'")
	case !ok:
		backup, err := storeAt(args[0])
		if err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
		return runCopy(cmd, backup, place.store)
	}
	bar := progress.On(os.Stderr)
	report, err := bolt.Restore(context.Background(), args[0], file.Path, bolt.Options{AcceptMeta: acceptMeta}, bar.Show)
	bar.Clear()
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	v := verifiedReport(report)
	if !printJSON(cmd, v) {
		fmt.Println(file.Path)
		v.print()
	}
	return caddy.ExitCodeSuccess, nil
}

func runExport(cmd *cobra.Command, args []string) (int, error) {
	var asked exportArgs
	var err error
	asked.Format, _ = cmd.Flags().GetString("format")
	if jsonWanted(cmd) {
		if cmd.Flags().Changed("format") {
			return exitUsage, usage(cmd, errors.New("--json is --format jsonl: give one of the two"))
		}
		asked.Format = formatJSONL
	}
	for name, into := range map[string]*time.Time{"from": &asked.From, "to": &asked.To} {
		text, _ := cmd.Flags().GetString(name)
		if *into, err = parseTime(text); err != nil {
			return caddy.ExitCodeFailedStartup, fmt.Errorf("--%s: %w", name, err)
		}
	}
	raw, err := json.Marshal(asked)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	place, err := findBooks(cmd, optional(args, 0))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if progress.On(os.Stdout) != nil { // the lines themselves show on this terminal how far the export is
		err = place.perform("ledger/export", raw, os.Stdout, nil)
	} else {
		bar := progress.On(os.Stderr)
		err = place.perform("ledger/export", raw, bar.Writer(os.Stdout), nil)
		bar.Clear()
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: expected a time such as 2026-11-01 or 2026-11-01T12:00:00Z", text)
}

// optional returns an argument, or "" if it is absent.
func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}
