package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts a CRC32C of key and value before the value, since bbolt itself does not notice a flipped bit.
func seal(key, value []byte) []byte { return new(seals).seal(key, value) }

// seals is memory for sealed values, which is used again by the next transaction. bbolt needs them until the transaction ends.
type seals []byte

// mostSeals bounds the memory that is kept for the next transaction.
const mostSeals = 1 << 20

// begin forgets all sealed values.
func (s *seals) begin() {
	if *s = (*s)[:0]; cap(*s) > mostSeals {
		*s = nil
	}
}

// seal is the function of the same name. The result stays valid until begin.
func (s *seals) seal(key, value []byte) []byte {
	from := len(*s)
	*s = append(binary.BigEndian.AppendUint32(*s, checksum(key, value)), value...)
	return (*s)[from:len(*s):len(*s)]
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

// reader reads sealed records. It returns panics of bbolt as errors.
type reader struct {
	bucket *bbolt.Bucket
	cursor *bbolt.Cursor // for Get; each scan has its own
}

func newReader(tx *bbolt.Tx) (r reader, err error) {
	defer contain(&err, bucketName)
	r.bucket = tx.Bucket(bucketName)
	if r.bucket == nil {
		return r, &ledger.CorruptError{Key: bucketName, Detail: "the bucket is missing"}
	}
	r.cursor = r.bucket.Cursor()
	return r, nil
}

// Get implements [ledger.Reader].
func (r reader) Get(key []byte) (value []byte, err error) {
	defer contain(&err, key)
	found, sealed := r.cursor.Seek(key)
	if found != nil && bytes.Equal(found, key) {
		return unseal(key, sealed)
	}
	return nil, r.absent(key, found, sealed)
}

// absent checks that a key really is not there, after the cursor has searched for it. The records on both sides of its place must be whole
// and in order. Without this check, a record whose key is damaged, or the page number that leads to it, would seem never to have been
// written.
func (r reader) absent(key, after, sealedAfter []byte) error {
	var before, sealedBefore []byte
	if after != nil {
		before, sealedBefore = r.cursor.Prev()
	} else {
		before, sealedBefore = r.cursor.Last()
	}
	if after != nil && bytes.Compare(after, key) < 0 || before != nil && bytes.Compare(before, key) >= 0 {
		return &ledger.CorruptError{Key: bytes.Clone(key), Detail: fmt.Sprintf("its place is out of order, between %q and %q", before, after)}
	}
	if after != nil {
		if _, err := unseal(after, sealedAfter); err != nil {
			return err
		}
	}
	if before == nil {
		return nil
	}
	_, err := unseal(before, sealedBefore)
	return err
}

// Scan implements [ledger.Reader].
func (r reader) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	c := r.bucket.Cursor()
	next := c.Next
	if in.Reverse {
		next = c.Prev
	}
	if err := r.bounded(in); err != nil {
		return err
	}
	key, value, err := read(in.From, nil, in.Reverse, func() ([]byte, []byte) { return first(c, in) })
	for err == nil && key != nil && inside(in, key) {
		more, failure := fn(key, value)
		if failure != nil || !more {
			return failure
		}
		key, value, err = read(key, key, in.Reverse, next)
	}
	return err
}

// bounded checks the place where a scan begins.
func (r reader) bounded(in ledger.Range) (err error) {
	begin := in.From
	if in.Reverse {
		begin = in.To
	}
	if begin == nil {
		return nil
	}
	defer contain(&err, begin)
	found, sealed := r.cursor.Seek(begin)
	return r.absent(begin, found, sealed)
}

// read makes one step of a cursor and checks that it leads past the key before.
func read(near, before []byte, reverse bool, step func() ([]byte, []byte)) (key, value []byte, err error) {
	defer contain(&err, near)
	key, sealed := step()
	if key == nil {
		return nil, nil, nil
	}
	if order := bytes.Compare(key, before); before != nil && (order == 0 || order > 0 == reverse) {
		return key, nil, &ledger.CorruptError{Key: bytes.Clone(key), Detail: fmt.Sprintf("it stands out of order, beside %q", before)}
	}
	value, err = unseal(key, sealed)
	return key, value, err
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

// contain turns a panic of bbolt, or a fault in the mapped file, into an error. bbolt panics if a page is not what it should be.
func contain(err *error, near []byte) {
	if r := recover(); r != nil {
		*err = &ledger.CorruptError{Key: bytes.Clone(near), Detail: fmt.Sprintf("reading at it failed: %v", r)}
	}
}
