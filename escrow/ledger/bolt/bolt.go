// Package bolt keeps a ledger in one bbolt file: the embedded store.
//
// Each record has its place in one bucket, in the order of the keys. To put a group's records there in the commit that makes it
// durable would cost a page or two for each of them, so a commit first puts them together into a journal, another bucket of the same
// file, and keeps them in memory, in a [layer] over the bucket; when the layer is full it is frozen, another takes its turn, and
// each later commit folds a bounded part of the frozen one into the bucket, in the order of the keys, each record once however
// often it was changed. Opening the file reads what its journals hold into layers again.
//
// A commit that fails leaves its outcome unknown: after a failed sync the kernel may have thrown away what it could not write, and
// a later sync would report success all the same (PostgreSQL learned this in 2018 and has stopped at such errors since). So the
// store takes no more operations then. [Store.Reopen] writes everything that can be read to a new file, syncs and verifies that,
// and puts it in the old one's place.
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

// Options are how a file is opened.
type Options struct {
	// Timeout is how long to wait for a file that another process holds; default 1s.
	Timeout time.Duration
	// ReadOnly opens an existing file for reading, beside other readers.
	ReadOnly bool
	// VerifyUpTo is the size in bytes up to which opening reads and proves the whole file, every record; default 1 GiB, which takes
	// half a second where the file is in memory. Of a larger file the pages that lead to the records are proved, and each record
	// when it is read.
	VerifyUpTo int64
	// AcceptMeta opens a file of which one of the two meta pages is damaged, at the commit that the other one names. That may be
	// the last but one: up to 1024 operations that were answered may be missing.
	AcceptMeta bool
	// InitialMmapSize is the address space in bytes that is mapped at once, so that readers never stop the writer while the file
	// grows within it; default 1 GiB and four times the file, 256 MiB on 32-bit machines, the file alone on Windows.
	InitialMmapSize int
	// MaxSize is the length in bytes beyond which the file does not grow: commits fail then as on a full disk; default none.
	MaxSize int
	// LayerSize is how many bytes of changes are gathered in the journal and in memory before they are folded into their places;
	// default 32 MiB. Up to twice as much is kept, and read by Open.
	LayerSize int
	// NoSync answers before anything is durable: for tests alone.
	NoSync bool
	// Fault is called before each named step; where it fails, or panics, the step does: for tests.
	Fault func(Step) error
}

// Step names a step that can fail.
type Step string

// The steps of a store, in the order in which they come.
const (
	StepBegin  Step = "begin"  // a transaction begins
	StepWrite  Step = "write"  // what it changed is put into pages
	StepCommit Step = "commit" // the pages are written and synced: failing here, nothing was written
	StepSync   Step = "sync"   // the last sync of a commit: failing here, all was written
	StepCopy   Step = "copy"   // a copy of the file is written, by Reopen, Backup or Restore
	StepFlush  Step = "flush"  // a copy is synced
	StepRename Step = "rename" // a copy takes its place
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
	commits *ledger.GroupCommit // nil where it is read-only
	file    atomic.Pointer[file]
	closing sync.Mutex
	closed  bool
}

// file is one open file: Reopen replaces it.
type file struct {
	db    *bbolt.DB
	os    *os.File
	stuck atomic.Bool // a transaction could not be ended: db.Close would wait for it for ever

	layers   atomic.Pointer[layers] // as of the last commit
	foldFrom []byte                 // the key from which on the frozen layer is still to be folded: the writer's
}

const (
	maxGroup         = 1024
	defaultLayerSize = 32 << 20
)

var bucketName = []byte("ledger")

// Open opens a file, which is made, with its directory, where there is none. It fails with an error that wraps [ledger.ErrLocked]
// where another process holds the file, [ledger.ErrCorrupt] where it is damaged: a damaged file is not written to.
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
		path = target // Reopen replaces the file, not a link to it
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

// Size returns the file's length in bytes.
func (s *Store) Size() (int64, error) {
	info, err := s.file.Load().os.Stat()
	if err != nil {
		return 0, fmt.Errorf("the ledger %s: %w", s.path, err)
	}
	return info.Size(), nil
}

// openFile locks, verifies and opens a file, in this order, and makes the ledger's bucket in a new one.
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
		err = f.open(path, 0, o) // little address space: readers may stop the writer now and then
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return f, fmt.Errorf("%w; stop it, or use the commands that go through it ('tallygate reload' keeps its ledger open)", ledger.ErrLocked)
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
		// The list of free pages is written with each commit: kept as a map it would be sorted each time.
		FreelistType: bbolt.FreelistArrayType, NoStatistics: true, MaxSize: o.MaxSize,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			f.os, err = openVerified(path, flag, mode, o)
			return f.os, err
		},
	})
	return err
}

// prepare makes the bucket, and a new file's name durable.
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
		return errors.New("it has no ledger in it yet")
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

// lockedInfo locks a file, and tells whether another one took its place meanwhile: a server that reopens its ledger does that.
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

// close releases the file, without waiting for a transaction that can't be ended.
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

// Submit is [ledger.Store]'s.
func (s *Store) Submit(op ledger.Op) {
	if s.commits == nil {
		go op.Done(fmt.Errorf("%w: %s was opened for reading", ledger.ErrReadOnly, s.path))
		return
	}
	s.commits.Submit(op)
}

// View is [ledger.Store]'s.
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
			return fmt.Errorf("%w: %s", ledger.ErrClosed, s.path)
		}
	}
}

// errFolded tells that a layer was folded while a transaction was about to begin, perhaps with changes that its reader should not
// see yet.
var errFolded = errors.New("a layer was folded meanwhile")

// read calls fn with the records as of one commit.
func (f *file) read(fn func(ledger.Reader) error) error {
	layers := f.layers.Load()
	return f.view(func(tx *bbolt.Tx) error {
		// The bucket may be younger than the layers, but differs in nothing that they don't hide, unless another one was frozen.
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

// view runs a read transaction. A fault in the mapped file, as where another program has cut it off, is an error; other panics are
// the caller's own.
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

// Close commits what is queued and closes the file.
func (s *Store) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.commits != nil {
		s.commits.Close()
	}
	if err := s.file.Load().close(); err != nil {
		return fmt.Errorf("closing the ledger %s: %w", s.path, err)
	}
	return nil
}
