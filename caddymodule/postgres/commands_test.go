//go:build unix

package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	ledgerpostgres "github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
)

func TestMain(m *testing.M) {
	if commandtest.Ran() {
		return
	}
	os.Exit(pgtest.Main(m))
}

// run runs a command in an empty folder, and returns what it prints and whether it succeeded.
func run(t *testing.T, args ...string) (text string, ok bool) {
	t.Helper()
	out, err := commandtest.Command(t, args...).CombinedOutput()
	if strings.Contains(string(out), "geheim") {
		t.Errorf("%s tells the password: %s", args, out)
	}
	return string(out), err == nil
}

// succeed runs a command that must succeed, with --json, and returns its result.
func succeed(t *testing.T, args ...string) (result struct {
	Good      bool
	Transfers int
	Head      struct{ Hash string }
}) {
	t.Helper()
	text, ok := run(t, append(args, "--json")...)
	if !ok {
		t.Fatalf("%v: %s", args, text)
	}
	if at := strings.Index(text, "{\n"); at < 0 || json.Unmarshal([]byte(text[at:]), &result) != nil {
		t.Fatalf("%v printed %s", args, text)
	}
	return result
}

func mustFail(t *testing.T, want string, args ...string) {
	t.Helper()
	if text, ok := run(t, args...); ok || !strings.Contains(text, want) {
		t.Errorf("%v: %v, %s, want %q", args, ok, text, want)
	}
}

// TestCommands: a ledger is copied from a file into a database and back with the same head of the hash chain, and the commands that read
// work on a DSN. A copy never goes over a ledger.
func TestCommands(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	folder := t.TempDir()
	file, back, backup := filepath.Join(folder, "ledger.db"), filepath.Join(folder, "back.db"), filepath.Join(folder, "backup.db")
	dsn, second := server.New(t)+"&password=geheim", server.New(t)
	makeLedger(t, file)
	made := succeed(t, "ledger", "verify", file)
	copied := succeed(t, "ledger", "copy", "--from", "bolt", file, "--to", "postgres", dsn)
	if !made.Good || made.Transfers == 0 || copied != made {
		t.Errorf("the file has %+v, the copy %+v", made, copied)
	}
	mustFail(t, "there is a ledger already", "ledger", "copy", "--from", "bolt", file, "--to", "postgres", dsn)
	for _, args := range [][]string{{"ledger", "verify", dsn}, {"ledger", "backup", backup, dsn}, {"ledger", "copy", "--to", "bolt", back, "--from", "postgres", dsn},
		{"ledger", "verify", back}, {"ledger", "verify", backup}, {"ledger", "restore", backup, second}, {"ledger", "verify", second}} {
		if got := succeed(t, args...); got.Head != made.Head || got.Transfers != made.Transfers || !got.Good {
			t.Errorf("%v: %+v, want %+v", args, got, made)
		}
	}
	if got := succeed(t, "ledger", "stat", dsn); got.Head != made.Head {
		t.Errorf("stat: %+v, want the head %+v", got, made.Head)
	}
	if text, ok := run(t, "ledger", "export", dsn); !ok || strings.Count(text, "deposit") != made.Transfers {
		t.Errorf("export: %v %s", ok, text)
	}
}

// TestCommandsBesideAGateway: the commands that read work on a ledger to which transfers are added meanwhile. Each sees the books of one moment:
// they are sound, and have all that was answered before.
func TestCommandsBesideAGateway(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	folder := t.TempDir()
	file, backup, dsn := filepath.Join(folder, "ledger.db"), filepath.Join(folder, "backup.db"), server.New(t)
	makeLedger(t, file)
	succeed(t, "ledger", "copy", "--from", "bolt", file, "--to", "postgres", dsn)
	store, err := ledgerpostgres.Open(dsn, ledgerpostgres.Options{})
	must(t, err)
	l, err := ledger.New(store, ledger.Options{})
	must(t, err)
	var answered atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- depositUntil(ctx, l, &answered) }()
	for answered.Load() < 10 {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	for _, args := range [][]string{{"ledger", "verify", dsn}, {"ledger", "stat", dsn}, {"ledger", "backup", backup, dsn}, {"ledger", "verify", backup}} {
		before := answered.Load()
		if args[len(args)-1] == backup {
			before = 0
		}
		got := succeed(t, args...)
		if got.Transfers < int(before) || args[1] != "stat" && !got.Good {
			t.Errorf("%v beside deposits: %+v, %d were answered before", args, got, before)
		}
	}
	before := answered.Load()
	if text, ok := run(t, "ledger", "export", dsn); !ok || strings.Count(text, "deposit") < int(before) {
		t.Errorf("export beside deposits: %v, of %d deposits %d", ok, before, strings.Count(text, "deposit"))
	}
	stop()
	must(t, <-ended)
	must(t, l.Close())
	if got := succeed(t, "ledger", "verify", dsn); !got.Good || got.Transfers < int(answered.Load()) {
		t.Errorf("afterwards: %+v, %d were answered", got, answered.Load())
	}
}

// depositUntil makes deposits until a context ends, and counts those that were answered.
func depositUntil(ctx context.Context, l *ledger.Ledger, answered *atomic.Int64) error {
	for i := 0; ctx.Err() == nil; i++ {
		_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (ledger.Transfer, error) {
			return tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet(fmt.Sprintf("beside%d", i%10)), Amount: 1, Kind: "deposit"})
		})
		if err != nil {
			return err
		}
		answered.Add(1)
	}
	return nil
}

// makeLedger makes a ledger with agents and deposits in a file.
func makeLedger(t *testing.T, path string) {
	t.Helper()
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = escrow.Do(t.Context(), escrow.New(l, escrow.Rules{}), func(tx *escrow.Tx) (struct{}, error) {
		operator := escrow.Actor{Operator: true}
		for i := range 50 {
			id := fmt.Sprintf("agent%d", i)
			if _, _, _, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: id}); err != nil {
				return struct{}{}, err
			}
			if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: id, Amount: ledger.Unit}); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCommandErrors: a command that names no ledger says what it needs, and never repeats a DSN.
func TestCommandErrors(t *testing.T) {
	t.Parallel()
	empty := pgtest.Shared(t).New(t)
	file := filepath.Join(t.TempDir(), "none.db")
	mustFail(t, "--from and --to are both needed", "ledger", "copy", "--from", "bolt", file, "x")
	mustFail(t, "given twice", "ledger", "copy", "--from", "bolt", file, "--from", "bolt", file)
	mustFail(t, "this build has bolt, postgres", "ledger", "copy", "--from", "bolt", file, "--to", "mysql", "x")
	mustFail(t, "there is no file "+file, "ledger", "copy", "--from", "bolt", file, "--to", "postgres", empty)
	mustFail(t, "the database has no ledger", "ledger", "copy", "--from", "postgres", empty, "--to", "bolt", file)
	mustFail(t, "the database has no ledger", "ledger", "verify", empty)
	mustFail(t, "onto itself", "ledger", "copy", "--from", "postgres", empty, "--to", "postgres", empty+"&password=x")
	mustFail(t, "no store of this build takes", "ledger", "verify", "mysql://shop:geheim@db/shop")
	mustFail(t, "the DSN can't be read", "ledger", "verify", "postgres://shop:geheim@db:port/shop")
}
