package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Reopen makes the store accept operations again after a failed commit. If the file system refused to write, as on a full disk, nothing
// was written, and the store goes on with the same file. After any other failure, above all a failed sync, it is not known what is on
// disk. Then Reopen writes everything that can be read to a new file, syncs it, verifies every record, and replaces the old file by it.
// That needs disk space for a second copy.
func (s *Store) Reopen() error {
	if s.commits == nil {
		return fmt.Errorf("%w: %s was opened for reading", ledger.ErrReadOnly, s.path)
	}
	return s.commits.Reopen(func() error {
		cause, old := s.commits.Err(), s.file.Load()
		if cause == nil || refused(cause) && !old.stuck.Load() {
			return nil
		}
		if err := s.renew(old); err != nil {
			return fmt.Errorf("renewing %s: %w", s.path, err)
		}
		s.markUnsynced(false)
		return nil
	})
}

// refused reports whether a commit failed because the file system refused to write its pages. bbolt writes the page that makes a commit
// valid last, so such a commit has not taken place.
func refused(err error) bool {
	write, ok := errors.AsType[*fs.PathError](err)
	return ok && write.Op == "write" || errors.Is(err, berrors.ErrMaxSizeReached)
}

// markUnsynced makes or removes a marker file beside the ledger. The marker tells the next process that what it reads from the file may be
// in the kernel's memory only. The marker is not synced: a power cut removes both.
func (s *Store) markUnsynced(unsynced bool) {
	if !unsynced {
		_ = os.Remove(s.path + unsyncedSuffix)
		return
	}
	if mark, err := os.OpenFile(s.path+unsyncedSuffix, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		_ = mark.Close()
	}
}

const (
	unsyncedSuffix = ".unsynced"
	renewedSuffix  = ".renewed"
)

// renew replaces the file by a copy.
func (s *Store) renew(old *file) (err error) {
	if runtime.GOOS == "windows" {
		return errors.New("an open file can't be replaced on Windows; restart")
	}
	path := s.path + renewedSuffix
	if err := old.copyTo(path, s.options, nil); err != nil {
		return err
	}
	var fresh *file
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			err = errors.Join(err, fresh.close(), remove(path))
		}
	}()
	o := s.options
	o.VerifyUpTo, o.AcceptMeta = math.MaxInt64, false
	if fresh, err = openFile(path, o); err != nil {
		return err
	}
	if err := s.options.place(path, s.path); err != nil {
		return err
	}
	s.file.Store(fresh)
	go old.close() // in a goroutine of its own, since it waits for the readers of the old file
	return nil
}

// place renames a file and makes the new name durable.
func (o Options) place(from, to string) error {
	if err := o.fault(StepRename); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(to))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyTo writes a copy of the file as of now to path, and syncs it.
func (f *file) copyTo(path string, o Options, progress ledger.Progress) (err error) {
	made, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ledger.ErrCorrupt, r)
		}
		if err = errors.Join(err, made.Close()); err != nil {
			err = errors.Join(err, remove(path))
		}
	}()
	err = f.view(func(tx *bbolt.Tx) error {
		_, err := writeTo(tx, made, o, progress)
		return err
	})
	if err == nil {
		err = o.fault(StepFlush)
	}
	if err != nil {
		return err
	}
	return made.Sync()
}

// writeTo writes the file as tx sees it, and returns the number of bytes written. Operations go on meanwhile. Pages that they replace are not
// used again until tx has ended, so a slow w makes the file grow.
func writeTo(tx *bbolt.Tx, w io.Writer, o Options, progress ledger.Progress) (int64, error) {
	t := &target{writer: w, options: o, progress: progress, total: tx.Size()}
	n, err := tx.WriteTo(t)
	if t.err != nil {
		return n, t.err
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the file is cut off after %d of %d bytes", ledger.ErrCorrupt, n, tx.Size())
	}
	return n, err
}

// target keeps the error of its writer, since bbolt passes on only the text of that error.
type target struct {
	writer   io.Writer
	options  Options
	progress ledger.Progress
	done     int64
	total    int64
	err      error
}

func (t *target) Write(p []byte) (n int, err error) {
	if t.err = t.options.fault(StepCopy); t.err == nil {
		n, t.err = t.writer.Write(p)
	}
	t.done += int64(n)
	t.progress.Tell(ledger.StepBytes, t.done, t.total)
	return n, t.err
}

// BackupFile writes a backup to a new file and checks the books in it. Only then does the file get its name, so a file with that name is
// always a complete backup.
func (s *Store) BackupFile(ctx context.Context, path string, progress ledger.Progress) (ledger.Report, error) {
	report, err := install(ctx, path, s.options, progress, func(partial string) error {
		return s.file.Load().copyTo(partial, s.options, progress)
	})
	if err != nil {
		return report, fmt.Errorf("backing up %s to %s: %w", s.path, path, err)
	}
	return report, nil
}

// Restore makes a ledger file from a backup and checks the books in it. Only then does the file get its name. There must be no file at
// path.
func Restore(ctx context.Context, backup, path string, o Options, progress ledger.Progress) (ledger.Report, error) {
	report, err := install(ctx, path, o, progress, func(partial string) error {
		from := o
		from.ReadOnly = true
		f, err := openFile(backup, from)
		if err != nil {
			return err
		}
		return errors.Join(f.copyTo(partial, o, progress), f.close())
	})
	if err != nil {
		return report, fmt.Errorf("restoring %s from %s: %w", path, backup, err)
	}
	return report, nil
}

// install makes a file with a temporary name, checks the books in it, and renames it to path.
func install(ctx context.Context, path string, o Options, progress ledger.Progress, make func(partial string) error) (report ledger.Report, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return report, fmt.Errorf("%w; choose another name, or move it away", errors.Join(fs.ErrExist, err))
	}
	partial := path + ".partial"
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(partial))
		}
	}()
	if err := make(partial); err != nil {
		return report, err
	}
	if report, err = Check(ctx, partial, progress); err != nil {
		return report, err
	}
	if len(report.Wrong) > 0 {
		return report, fmt.Errorf("%w: %s", ledger.ErrCorrupt, report.Wrong[0])
	}
	return report, o.place(partial, path)
}

// Check verifies a file that no process has open: the structure of the file, every record, and the books. It returns an error if the file
// can't be opened. If the books are wrong, the report lists why.
func Check(ctx context.Context, path string, progress ledger.Progress) (ledger.Report, error) {
	s, err := Open(path, Options{ReadOnly: true, VerifyUpTo: math.MaxInt64})
	if err != nil {
		return ledger.Report{}, err
	}
	l, err := ledger.New(s, ledger.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return ledger.Report{}, errors.Join(err, s.Close())
	}
	report, err := l.Check(ctx, progress)
	return report, errors.Join(err, s.Close())
}
