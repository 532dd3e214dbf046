package ledgercopy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/ledgercopy"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, name string, o bolt.Options) *bolt.Store {
	t.Helper()
	o.NoSync = true
	s, err := bolt.Open(filepath.Join(t.TempDir(), name), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// filled returns a store whose ledger has so many transfers, and a domain record of each.
func filled(t *testing.T, transfers int) (*bolt.Store, *ledger.Ledger) {
	s := open(t, "from.db", bolt.Options{})
	l, err := ledger.New(s, ledger.Options{Currency: "USDC", Logger: quiet})
	must(t, err)
	more(t, l, transfers)
	return s, l
}

func more(t *testing.T, l *ledger.Ledger, transfers int) {
	t.Helper()
	_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (struct{}, error) {
		for i := range transfers {
			tx.Put(fmt.Appendf(nil, "d%06d", i), make([]byte, 100))
			to := ledger.Wallet(fmt.Sprintf("agent%d", i%1000))
			if _, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: to, Amount: 1, Kind: "deposit"}); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	must(t, err)
}

func same(t *testing.T, from *ledger.Ledger, to ledger.Store) {
	t.Helper()
	l, err := ledger.New(to, ledger.Options{Logger: quiet})
	must(t, err)
	want, err := from.Check(context.Background(), nil)
	must(t, err)
	got, err := l.Check(context.Background(), nil)
	must(t, err)
	if len(want.Wrong)+len(got.Wrong) > 0 || got.Head != want.Head || got.Records != want.Records || got.Transfers == 0 {
		t.Errorf("the copy: %+v, want %+v", got, want)
	}
}

func TestACopyHasTheSameBooks(t *testing.T) {
	t.Parallel()
	from, l := filled(t, 10_000)
	to := open(t, "to.db", bolt.Options{})
	var told int64
	must(t, ledgercopy.Copy(context.Background(), from, to, func(records int64) { told = records }))
	if told < 30_000 {
		t.Errorf("progress was told of %d records", told)
	}
	if err := ledgercopy.Copy(context.Background(), from, to, nil); !errors.Is(err, ledgercopy.ErrExists) {
		t.Errorf("copying over a ledger: %v", err)
	}
	same(t, l, to)
}

// counting is a store that counts the records that are put.
type counting struct {
	ledger.Store
	puts int
}

func (c *counting) Submit(op ledger.Op) {
	run := op.Run
	op.Run = func(w ledger.Writer) error { return run(countingWriter{w, c}) }
	c.Store.Submit(op)
}

type countingWriter struct {
	ledger.Writer
	store *counting
}

func (w countingWriter) Put(key, value []byte) {
	w.store.puts++
	w.Writer.Put(key, value)
}

// A copy that was interrupted can't be opened, and goes on where it stopped: what was written is not written again. What the target has
// besides is removed.
func TestACopyGoesOn(t *testing.T) {
	t.Parallel()
	from, l := filled(t, 10_000)
	commits, limit := 0, 5
	to := open(t, "to.db", bolt.Options{Fault: func(step bolt.Step) error {
		if step == bolt.StepCommit {
			if commits++; commits > limit {
				return errors.New("interrupted")
			}
		}
		return nil
	}})
	if err := ledgercopy.Copy(context.Background(), from, to, nil); err == nil {
		t.Fatal("the copy was not interrupted")
	}
	limit = 1 << 30
	must(t, to.Reopen())
	if _, err := ledger.New(to, ledger.Options{Currency: "USDC", Logger: quiet}); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("an unfinished copy was opened: %v", err)
	}
	kept := 0
	must(t, to.View(func(r ledger.Reader) error {
		return r.Scan(ledger.Range{}, func(_, _ []byte) (bool, error) { kept++; return true, nil })
	}))
	done := make(chan error, 1)
	to.Submit(ledger.Op{Run: func(w ledger.Writer) error {
		for _, key := range []string{"a", "d000001x", "zz"} {
			w.Put([]byte(key), []byte("of another ledger"))
		}
		w.Put([]byte("d000002"), []byte("changed"))
		return nil
	}, Done: func(err error) { done <- err }})
	must(t, <-done)
	again := &counting{Store: to}
	var records int64
	must(t, ledgercopy.Copy(context.Background(), from, again, func(n int64) { records = n }))
	if want := int(records) - kept + 1; kept < 5000 || again.puts != want {
		t.Errorf("%d records were kept, and %d were put, want %d of %d", kept, again.puts, want, records)
	}
	same(t, l, to)
}

// changing is a store whose ledger changes after the first view.
type changing struct {
	ledger.Store
	change func()
}

func (c *changing) View(fn func(ledger.Reader) error) error {
	err := c.Store.View(fn)
	if c.change != nil {
		c.change()
		c.change = nil
	}
	return err
}

func TestALedgerThatChangesIsNotCopiedButASnapshotIs(t *testing.T) {
	t.Parallel()
	from, l := filled(t, 100)
	to := open(t, "to.db", bolt.Options{})
	change := func() { more(t, l, 1) }
	if err := ledgercopy.Copy(context.Background(), &changing{from, change}, to, nil); !errors.Is(err, ledgercopy.ErrChanged) {
		t.Errorf("copying a ledger that changes: %v", err)
	}
	before, err := l.Stand()
	must(t, err)
	must(t, ledgercopy.Snapshot(context.Background(), &changing{from, change}, to, nil))
	made, err := ledger.New(to, ledger.Options{Logger: quiet})
	must(t, err)
	report, err := made.Check(context.Background(), nil)
	if err != nil || len(report.Wrong) > 0 || report.Head != before.Head {
		t.Errorf("the snapshot: %+v, %v, want the head %+v", report, err, before.Head)
	}
}

func TestThereIsNothingToCopy(t *testing.T) {
	t.Parallel()
	from, to := open(t, "from.db", bolt.Options{}), open(t, "to.db", bolt.Options{})
	if err := ledgercopy.Copy(context.Background(), from, to, nil); err == nil {
		t.Error("an empty store was copied")
	}
}

func TestACopyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	from, _ := filled(t, 2000)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ledgercopy.Copy(ctx, from, open(t, "to.db", bolt.Options{}), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that was cancelled: %v", err)
	}
}
