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

// Reopen takes operations again after a failed commit. Where the file system refused to write, as on a full disk, nothing was
// written and the file goes on. After any other failure, a failed sync above all, the kernel's word on what is on disk is worth
// nothing: all that can be read is written to a new file, which takes the old one's place once it is synced and every record of it
// verified. That needs room for a second copy.
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

// refused reports whether a commit failed since the file system would not take its pages: bbolt writes the page that makes a commit
// valid last, so there is none.
func refused(err error) bool {
	write, ok := errors.AsType[*fs.PathError](err)
	return ok && write.Op == "write" || errors.Is(err, berrors.ErrMaxSizeReached)
}

// markUnsynced leaves word beside the file for the next process: what it would read may be in memory only. A power cut undoes both.
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
	if err := old.copyTo(path, s.options); err != nil {
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
	go old.close() // waits for its readers
	return nil
}

// place renames a file, durably.
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

// copyTo writes a synced copy as of now to a file of its own.
func (f *file) copyTo(path string, o Options) (err error) {
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
		_, err := writeTo(tx, made, o)
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

func writeTo(tx *bbolt.Tx, w io.Writer, o Options) (int64, error) {
	t := &target{writer: w, options: o}
	n, err := tx.WriteTo(t)
	if t.err != nil {
		return n, t.err
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the file is cut off after %d of %d bytes", ledger.ErrCorrupt, n, tx.Size())
	}
	return n, err
}

// target keeps the error of its writer, of which bbolt passes on no more than the text.
type target struct {
	writer  io.Writer
	options Options
	err     error
}

func (t *target) Write(p []byte) (n int, err error) {
	if t.err = t.options.fault(StepCopy); t.err == nil {
		n, t.err = t.writer.Write(p)
	}
	return n, t.err
}

// Backup writes the whole ledger as of now to w, as a file that [Open] opens, and returns its length in bytes. The writer goes on
// meanwhile; pages that it replaces are not used again until the backup has ended, so that a slow w makes the file grow.
func (s *Store) Backup(w io.Writer) (n int64, err error) {
	err = s.file.Load().view(func(tx *bbolt.Tx) error {
		n, err = writeTo(tx, w, s.options)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("backing up %s: %w", s.path, err)
	}
	return n, nil
}

// BackupFile backs up to a new file, and proves the books in it before it gets its name: a file of that name is a whole backup.
func (s *Store) BackupFile(ctx context.Context, path string) (ledger.Report, error) {
	report, err := install(ctx, path, s.options, func(partial string) error {
		return s.file.Load().copyTo(partial, s.options)
	})
	if err != nil {
		return report, fmt.Errorf("backing up %s to %s: %w", s.path, path, err)
	}
	return report, nil
}

// Restore makes a ledger of a backup, at a path where there is none, and proves its books before it gets its name.
func Restore(ctx context.Context, backup, path string, o Options) (ledger.Report, error) {
	report, err := install(ctx, path, o, func(partial string) error {
		from := o
		from.ReadOnly = true
		f, err := openFile(backup, from)
		if err != nil {
			return err
		}
		return errors.Join(f.copyTo(partial, o), f.close())
	})
	if err != nil {
		return report, fmt.Errorf("restoring %s from %s: %w", path, backup, err)
	}
	return report, nil
}

// install makes a file beside its place, proves its books, and puts it there.
func install(ctx context.Context, path string, o Options, make func(partial string) error) (report ledger.Report, err error) {
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
	if report, err = Check(ctx, partial, nil); err != nil {
		return report, err
	}
	if len(report.Wrong) > 0 {
		return report, fmt.Errorf("%w: %s", ledger.ErrCorrupt, report.Wrong[0])
	}
	return report, o.place(partial, path)
}

// Check proves a file that no process holds: its structure, every record, and the books in it. A file that can't be opened is an
// error; what is wrong with the books is in the report.
func Check(ctx context.Context, path string, progress func(transfers uint64)) (ledger.Report, error) {
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
