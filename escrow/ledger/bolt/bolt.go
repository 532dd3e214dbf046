// Package bolt keeps a ledger in one bbolt file: the embedded store.
package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Options are how a file is opened.
type Options struct {
	// Timeout is how long to wait for a file that another process holds; default 1s.
	Timeout time.Duration
	// ReadOnly opens an existing file for reading, beside other readers.
	ReadOnly bool
	// NoSync answers before anything is durable: for tests alone.
	NoSync bool
	// InitialMmapSize is the address space that is mapped at once, so that readers never stop the writer while the file grows
	// within it; default 1 GiB, 256 MiB on 32-bit machines.
	InitialMmapSize int
}

// Store is a ledger's store in one bbolt file.
type Store struct {
	*ledger.GroupCommit
	db *bbolt.DB
}

const maxGroup = 1024

var bucketName = []byte("ledger")

// Open opens the file, which is made, with its directory, where there is none.
func Open(path string, o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.InitialMmapSize == 0 {
		o.InitialMmapSize = 1 << 28
		if ^uint(0)>>32 != 0 {
			o.InitialMmapSize = 1 << 30
		}
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("making the ledger's directory: %w", err)
		}
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: o.Timeout, ReadOnly: o.ReadOnly, NoSync: o.NoSync, InitialMmapSize: o.InitialMmapSize,
		FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s; stop it, or use its own commands ('tallygate reload' keeps the ledger open)", ledger.ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, err)
	}
	s := &Store{db: db}
	if !o.ReadOnly {
		if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucketIfNotExists(bucketName); return err }); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the ledger %s: %w", path, err), db.Close())
		}
	}
	s.GroupCommit = ledger.NewGroupCommit(s.begin, maxGroup)
	return s, nil
}

// Close commits what is queued and closes the file.
func (s *Store) Close() error {
	s.GroupCommit.Close()
	return s.db.Close()
}

// View is [ledger.Store]'s.
func (s *Store) View(fn func(ledger.Reader) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return fn(reader{tx.Bucket(bucketName)}) })
}

func (s *Store) begin() (ledger.Tx, error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, err
	}
	return &transaction{reader{tx.Bucket(bucketName)}, tx}, nil
}

type transaction struct {
	reader
	tx *bbolt.Tx
}

func (t *transaction) Commit(changes iter.Seq2[[]byte, []byte]) error {
	for key, value := range changes {
		var err error
		if value == nil {
			err = t.bucket.Delete(key)
		} else {
			err = t.bucket.Put(key, seal(key, value))
		}
		if err != nil {
			_ = t.tx.Rollback()
			return err
		}
	}
	return t.tx.Commit()
}

func (t *transaction) Rollback() { _ = t.tx.Rollback() }

type reader struct{ bucket *bbolt.Bucket }

func (r reader) Get(key []byte) ([]byte, error) {
	value := r.bucket.Get(key)
	if value == nil {
		return nil, nil
	}
	return unseal(key, value)
}

func (r reader) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	c := r.bucket.Cursor()
	step := c.Next
	if in.Reverse {
		step = c.Prev
	}
	for key, sealed := first(c, in); key != nil && inside(in, key); key, sealed = step() {
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		if more, err := fn(key, value); err != nil || !more {
			return err
		}
	}
	return nil
}

func first(c *bbolt.Cursor, in ledger.Range) (key, value []byte) {
	if !in.Reverse {
		return c.Seek(in.From)
	}
	if in.To != nil {
		if key, _ = c.Seek(in.To); key != nil {
			return c.Prev()
		}
	}
	return c.Last()
}

func inside(in ledger.Range, key []byte) bool {
	if in.Reverse {
		return bytes.Compare(key, in.From) >= 0
	}
	return in.To == nil || bytes.Compare(key, in.To) < 0
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts a CRC32C over key and value before the value: bbolt itself would not notice a flipped bit.
func seal(key, value []byte) []byte {
	sealed := make([]byte, 4, 4+len(value))
	binary.BigEndian.PutUint32(sealed, checksum(key, value))
	return append(sealed, value...)
}

func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 || binary.BigEndian.Uint32(sealed) != checksum(key, sealed[4:]) {
		return nil, &ledger.CorruptError{Key: bytes.Clone(key), Detail: "its checksum is wrong"}
	}
	return sealed[4:], nil
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}
