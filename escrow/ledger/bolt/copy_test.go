package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// gate is a writer whose second write blocks until the gate is opened.
type gate struct {
	writes  int
	reached chan struct{}
	opened  chan struct{}
	file    *os.File
}

func (g *gate) Write(p []byte) (int, error) {
	if g.writes++; g.writes == 2 {
		close(g.reached)
		<-g.opened
	}
	return g.file.Write(p)
}

// TestBackupDoesNotStall: while a backup waits for a slow reader, operations go on and the file grows. The backup shows the ledger as it
// was when the backup began.
func TestBackupDoesNotStall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, l := open(t, path, Options{NoSync: true})
	defer l.Close()
	for i := range 10 {
		must(t, once(l, fmt.Sprint("before", i)))
	}
	copied := filepath.Join(t.TempDir(), "backup.db")
	target, err := os.Create(copied)
	must(t, err)
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{}), file: target}
	done := make(chan error)
	go func() {
		_, err := s.Backup(g)
		done <- err
	}()
	<-g.reached
	size, err := s.Size()
	must(t, err)
	large := make([]byte, 1<<20)
	for grown := size; grown < size+32<<20; {
		must(t, perform(l, func(tx *ledger.Tx) error {
			tx.Put(fmt.Appendf(nil, "d%d", grown), large)
			return nil
		}))
		grown, err = s.Size()
		must(t, err)
		must(t, once(l, fmt.Sprint("during", grown)))
	}
	close(g.opened)
	must(t, errors.Join(<-done, target.Close()))
	report, err := Check(context.Background(), copied, nil)
	if err != nil || len(report.Wrong) > 0 || report.Transfers != 10 {
		t.Errorf("the backup: %+v, %v", report, err)
	}
}

// TestBackupAndRestore: a backup that has its final name is complete, and restoring it gives the same ledger.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	directory := t.TempDir()
	path, backup, restored := filepath.Join(directory, "ledger.db"), filepath.Join(directory, "backup.db"), filepath.Join(directory, "restored.db")
	f := new(failing)
	s, l := open(t, path, Options{Fault: f.hook})
	for i := range 10 {
		must(t, once(l, fmt.Sprint(i)))
	}
	for _, step := range []Step{StepCopy, StepFlush, StepRename} {
		f.set(step)
		if _, err := s.BackupFile(ctx, backup, nil); !errors.Is(err, errInjected) {
			t.Errorf("a backup whose %s failed: %v", step, err)
		}
		mustBeAlone(t, path)
	}
	f.clear()
	must(t, once(l, "still goes on"))
	report, err := s.BackupFile(ctx, backup, nil)
	if err != nil || report.Transfers != 11 {
		t.Fatalf("backup: %+v, %v", report, err)
	}
	if _, err := s.BackupFile(ctx, backup, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup over another: %v", err)
	}
	must(t, once(l, "after"))
	before := contents(t, s)
	must(t, l.Close())

	if _, err := Restore(ctx, backup, path, Options{}, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restoring over a ledger: %v", err)
	}
	if _, err := Restore(ctx, backup, restored, Options{}, nil); err != nil {
		t.Fatal(err)
	}
	s, l = open(t, restored, Options{})
	if got := contents(t, s); len(got) >= len(before) {
		t.Errorf("%d records were restored, the ledger has %d now", len(got), len(before))
	}
	mustVerify(t, l, 11)
	must(t, once(l, "goes on"))
	must(t, l.Close())

	damage(t, backup)
	if _, err := Restore(ctx, backup, filepath.Join(directory, "again.db"), Options{}, nil); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("restoring a damaged backup: %v", err)
	}
	if _, err := Check(ctx, backup, nil); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("checking a damaged backup: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(directory, "*.partial"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// damage changes one byte in each copy of an account's records, some of which are in free pages.
func damage(t *testing.T, path string) {
	t.Helper()
	image, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.ReplaceAll(image, []byte("wallet:alice"), []byte("wallet:alicf")), 0o600))
}

// TestBackupOfWrongBooks: a backup of wrong books does not get its final name.
func TestBackupOfWrongBooks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, l := open(t, path, Options{NoSync: true})
	defer l.Close()
	must(t, once(l, "x"))
	done := make(chan error, 1)
	s.Submit(ledger.Op{Run: func(w ledger.Writer) error { w.Delete([]byte("awallet:alice")); return nil }, Done: func(err error) { done <- err }})
	must(t, <-done)
	backup := filepath.Join(filepath.Dir(path), "backup.db")
	report, err := s.BackupFile(context.Background(), backup, nil)
	if !errors.Is(err, ledger.ErrCorrupt) || len(report.Wrong) == 0 || report.Wrong[0].Account != "wallet:alice" {
		t.Errorf("a backup of wrong books: %+v, %v", report, err)
	}
	mustBeAlone(t, path)
}

// TestImport: a file is made of what is written into a store. If that fails, there is no file; an existing file is left alone.
func TestImport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "imported.db")
	fill := func(s ledger.Store) error {
		_, err := ledger.New(s, ledger.Options{Currency: "USDC"})
		return err
	}
	if _, err := Import(context.Background(), path, Options{}, nil, func(s ledger.Store) error { return errors.Join(fill(s), errInjected) }); !errors.Is(err, errInjected) {
		t.Errorf("an import that failed: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) > 0 || err != nil {
		t.Errorf("an import that failed left %v, %v", left, err)
	}
	must(t, os.WriteFile(path+".partial", []byte("of an earlier try"), 0o600))
	_, err := Import(context.Background(), path, Options{}, nil, fill)
	must(t, err)
	if report, err := Check(context.Background(), path, nil); err != nil || len(report.Wrong) > 0 {
		t.Errorf("the imported file: %+v, %v", report, err)
	}
	if _, err := Import(context.Background(), path, Options{}, nil, fill); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an import over a file: %v", err)
	}
}
