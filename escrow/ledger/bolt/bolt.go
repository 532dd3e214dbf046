// Package bolt is the embedded store: it keeps a ledger in one bbolt file. Open the file with [Open], and pass the [Store] to
// [ledger.New]. [Store.BackupFile], [Restore] and [Check] back up, restore and verify a ledger.
//
// One bucket holds all records in the order of their keys. If each commit wrote its records directly there, it would have to write a
// page or two for each record. So a commit appends its records to a journal instead, which is another bucket of the same file, and keeps
// them in memory in a [layer]. Reads look into the layer first, then into the bucket. When a layer is full, it is frozen, and a new layer
// with a new journal begins. Each later commit folds a part of the frozen layer: it writes that part of its records to the bucket, in
// the order of the keys. A record that was changed several times is written once. When the file is opened, its journals are read into
// layers again.
//
// After a failed commit nobody knows what is on disk: when a sync fails, the kernel may drop what it could not write, and a later sync
// may report success all the same (PostgreSQL learned this in 2018, and has stopped at such errors since). So after a failed commit the
// store refuses operations. [Store.Reopen] writes everything that can be read to a new file, syncs and verifies it, and replaces the old
// file by it.
package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Options are the options of [Open]. The zero value has sensible defaults.
type Options struct {
	// Timeout is how long Open waits if another process has the file open. The default is 1s.
	Timeout time.Duration
	// ReadOnly opens an existing file for reading. Several processes may read a file at the same time.
	ReadOnly bool
	// VerifyUpTo is the largest file, in bytes, of which Open verifies every record. The default is 1 GiB, which takes half a second if
	// the file is in memory. In a larger file Open verifies only the pages that lead to the records; each record is verified when it is
	// read.
	VerifyUpTo int64
	// AcceptMeta opens a file even if one of its two meta pages is damaged, at the commit of the other meta page. That may be the commit
	// before the last one, so the last up to 1024 operations may be lost, although their callers were told that they succeeded.
	AcceptMeta bool
	// InitialMmapSize is the address space, in bytes, that is mapped at first. While the file is smaller, readers never block the
	// writer. The default is 1 GiB plus four times the size of the file, 256 MiB on 32-bit machines, and the size of the file on
	// Windows.
	InitialMmapSize int
	// MaxSize is the largest size of the file in bytes. Beyond it commits fail as on a full disk. By default there is no limit.
	MaxSize int
	// LayerSize is how many bytes of changes a layer takes before it is folded. The default is 32 MiB. Up to twice as much is in memory
	// and in the journals, from which Open reads it again.
	LayerSize int
	// NoSync answers before anything is durable. It is for tests only.
	NoSync bool
	// Fault is called before each step. If it fails or panics, the step does so too. It is for tests only.
	Fault func(Step) error
}

// Step is the name of a step that can fail, for [Options].Fault.
type Step string

// The steps of a store, in their order.
const (
	StepBegin  Step = "begin"  // a transaction begins
	StepWrite  Step = "write"  // the changes are put into pages
	StepCommit Step = "commit" // before the pages are written and synced: if it fails, nothing was written
	StepSync   Step = "sync"   // after the pages are written and synced: if it fails, everything was written
	StepCopy   Step = "copy"   // a copy of the file is written, by Reopen, BackupFile or Restore
	StepFlush  Step = "flush"  // a copy is synced
	StepRename Step = "rename" // a copy gets its final name
)

func (o Options) fault(s Step) error {
	if o.Fault == nil {
		return nil
	}
	return o.Fault(s)
}

// Store is a ledger's store in one bbolt file.
type Store struct {
	options Options
	path    string
	commits *ledger.GroupCommit // nil if the file is open for reading only
	file    atomic.Pointer[file]
	closing sync.Mutex
	closed  atomic.Bool

	// Memory of the writer that each commit uses again.
	changes []change
	sealed  seals
}

// file is the open file. Reopen replaces it by another.
type file struct {
	db    *bbolt.DB
	os    *os.File
	stuck atomic.Bool // a transaction could not be ended, so db.Close would wait forever

	layers   atomic.Pointer[layers] // as of the last commit
	foldFrom []byte                 // the first key of the frozen layer that is not folded yet; used by the writer only
}

const (
	maxGroup         = 1024
	defaultLayerSize = 32 << 20
)

var bucketName = []byte("ledger")

// Open opens a file. If there is none, it makes the file and its directory. If another process has the file open, the error wraps
// [ledger.ErrLocked]. If the file is damaged, the error wraps [ledger.ErrCorrupt], and the file is not written to.
func Open(path string, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.VerifyUpTo == 0 {
		o.VerifyUpTo = 1 << 30
	}
	if o.LayerSize == 0 {
		o.LayerSize = defaultLayerSize
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("making the ledger's directory: %w", err)
		}
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // so that Reopen replaces the file, and not a symbolic link to it
	}
	f, err := openFile(path, o)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, err)
	}
	s := &Store{options: o, path: path}
	s.file.Store(f)
	if o.ReadOnly {
		return s, nil
	}
	if _, err := os.Lstat(path + unsyncedSuffix); err == nil {
		if err := s.renew(f); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the ledger %s, whose last commit failed: %w", path, err), f.close())
		}
		s.markUnsynced(false)
	}
	s.commits = ledger.NewGroupCommit(s.begin, maxGroup)
	return s, nil
}

// Path returns the file's path.
func (s *Store) Path() string { return s.path }

// Size returns the file's size in bytes.
func (s *Store) Size() (int64, error) {
	info, err := s.file.Load().os.Stat()
	if err != nil {
		return 0, fmt.Errorf("the ledger %s: %w", s.path, err)
	}
	return info.Size(), nil
}

// openFile locks, verifies and opens a file, in this order. In a new file it makes the ledger's bucket.
func openFile(path string, o Options) (f *file, err error) {
	f = &file{}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			f.close()
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = f.open(path, mapSize(path, o), o)
	if errors.Is(err, syscall.ENOMEM) {
		err = f.open(path, 0, o) // there is little address space; without more, readers may block the writer now and then
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return f, fmt.Errorf("%w; stop that process, or use the commands that talk to it ('tallygate reload' keeps its ledger open)", ledger.ErrLocked)
	}
	if err != nil {
		return f, err
	}
	if err := f.prepare(path, o.ReadOnly); err != nil {
		return f, err
	}
	return f, f.db.View(func(tx *bbolt.Tx) error {
		found, err := replay(tx)
		f.layers.Store(&found)
		return err
	})
}

func (f *file) open(path string, mapSize int, o Options) (err error) {
	f.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: o.Timeout, ReadOnly: o.ReadOnly, NoSync: o.NoSync, InitialMmapSize: mapSize,
		// Each commit writes the list of free pages. As a map it would have to be sorted each time.
		FreelistType: bbolt.FreelistArrayType, NoStatistics: true, MaxSize: o.MaxSize,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			f.os, err = openVerified(path, flag, mode, o)
			return f.os, err
		},
	})
	return err
}

// prepare makes the bucket in a new file, and makes the name of the file durable.
func (f *file) prepare(path string, readOnly bool) error {
	made := false
	err := f.db.View(func(tx *bbolt.Tx) error {
		made = tx.Bucket(bucketName) != nil
		return nil
	})
	if err != nil || made {
		return err
	}
	if readOnly {
		return foreignError{"it is a bbolt file without a ledger in it"}
	}
	if err := f.db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucketName); return err }); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func openVerified(path string, flag int, mode os.FileMode, o Options) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, flag, mode)
		if err != nil {
			return nil, err
		}
		info, replaced, err := lockedInfo(f, path, o)
		if err == nil && (info.IsDir() || info.Size() == 0 && o.ReadOnly) {
			err = foreignError{map[bool]string{true: "it is a folder", false: "it is empty"}[info.IsDir()]}
		}
		if err == nil && !replaced && info.Size() > 0 {
			err = verify(f, info.Size(), info.Size() <= o.VerifyUpTo, o.AcceptMeta)
		}
		if err == nil && !replaced {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// lockedInfo locks a file. It reports whether the file was replaced meanwhile, as a server does that reopens its ledger.
func lockedInfo(f *os.File, path string, o Options) (info os.FileInfo, replaced bool, err error) {
	if err := lock(f, !o.ReadOnly, o.Timeout); err != nil {
		return nil, false, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return info, true, nil
	}
	return info, err == nil && !os.SameFile(info, named), err
}

func mapSize(path string, o Options) int {
	size := int64(0)
	if info, err := os.Stat(path); err == nil {
		size = info.Size()
	}
	switch {
	case o.InitialMmapSize > 0:
		return o.InitialMmapSize
	case o.ReadOnly || !mapAhead:
		return 0
	case ^uint(0)>>32 == 0:
		return 256 << 20
	default:
		return int(1<<30 + 4*size)
	}
}

// close closes the file. It does not wait for a transaction that can't be ended.
func (f *file) close() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: closing failed: %v", ledger.ErrCorrupt, r)
		}
	}()
	switch {
	case f.db != nil && !f.stuck.Load():
		return f.db.Close()
	case f.os != nil:
		if err := f.os.Close(); !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return nil
}

// LastCommit returns how many operations the last commit had, and how long it took.
func (s *Store) LastCommit() (operations int, took time.Duration) {
	if s.commits == nil {
		return 0, 0
	}
	return s.commits.LastCommit()
}

// Submit implements [ledger.Store].
func (s *Store) Submit(op ledger.Op) {
	if s.commits == nil {
		go op.Done(fmt.Errorf("%w: %s was opened for reading", ledger.ErrReadOnly, s.path))
		return
	}
	s.commits.Submit(op)
}

// Observe implements [ledger.Observed]. A file that was opened for reading has no commits.
func (s *Store) Observe(observer func(operations int, took time.Duration)) {
	if s.commits != nil {
		s.commits.Observe(observer)
	}
}

// View implements [ledger.Store].
func (s *Store) View(fn func(ledger.Reader) error) error {
	for {
		f := s.file.Load()
		err := f.read(fn)
		if errors.Is(err, errFolded) {
			continue
		}
		if !errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return err
		}
		if s.file.Load() == f {
			return s.errClosed()
		}
	}
}

func (s *Store) errClosed() error { return fmt.Errorf("%w: %s", ledger.ErrClosed, s.path) }

// errFolded means that another layer was frozen while a read transaction began. The bucket may then hold changes that the reader must
// not see yet, so the read is repeated.
var errFolded = errors.New("a layer was folded meanwhile")

// read calls fn with the records as of one commit.
func (f *file) read(fn func(ledger.Reader) error) error {
	layers := f.layers.Load()
	return f.view(func(tx *bbolt.Tx) error {
		// A commit may have folded records into the bucket since the layers were loaded. That does no harm while these layers hold the
		// same records, which is so until another layer is frozen.
		if f.layers.Load().active.journal != layers.active.journal {
			return errFolded
		}
		r, err := newReader(tx)
		if err != nil {
			return err
		}
		return fn(layers.over(r))
	})
}

// view runs a read transaction. It returns an error for a fault in the mapped file, which happens if another program has truncated the
// file. Other panics are passed on.
func (f *file) view(fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if _, isFault := r.(interface{ Addr() uintptr }); isFault {
			err = fmt.Errorf("%w: reading the file failed: %v", ledger.ErrCorrupt, r)
		} else if r != nil {
			panic(r)
		}
	}()
	return f.db.View(fn)
}

// Close commits the queued operations and closes the file.
func (s *Store) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed.Load() {
		return nil
	}
	if s.commits != nil {
		s.commits.Close()
	}
	s.closed.Store(true)
	if err := s.file.Load().close(); err != nil {
		return fmt.Errorf("closing the ledger %s: %w", s.path, err)
	}
	return nil
}
