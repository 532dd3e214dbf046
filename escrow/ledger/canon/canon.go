// Package canon writes and reads records as deterministic CBOR (RFC 8949, 4.2.1) with whole numbers as the keys of their fields, without
// reflection. The bytes are those of a library that does the same by the tags of the fields. What a record does not say here is left to that
// library: writing and reading then report false. So this package never refuses a record, and reads nothing that the library would read otherwise.
package canon

import (
	"bytes"
	"sync"
)

// Record is a record whose fields this package can write and read. It is implemented by the pointer to the record.
type Record interface {
	// Stored calls the functions of this package for all fields that are stored, in the order of their keys. A field that is added to the record
	// is added here too; package canontest finds what was forgotten.
	Stored(f *Form)
}

// Key is the key of a field, above zero. An empty field is not written, unless its key is marked by Always.
type Key uint16

// Always marks the key of a field that is written even if it is empty: 1|Always.
const Always Key = 1 << 15

// Form goes over the fields of a record, and either writes or reads them.
type Form struct {
	bytes   []byte // what was written, or what is read
	reading bool
	failed  bool
	pairs   int // how many fields were written, or are still to be read
	key     Key // reading: the key of the field that comes next; 0 if it was not looked at yet
	at      int // reading: where in bytes
	text    string
}

var forms = sync.Pool{New: func() any { return new(Form) }}

// Encode returns a record in its canonical form. If that takes the library, ok is false.
func Encode(r Record) (value []byte, ok bool) {
	f := forms.Get().(*Form)
	*f = Form{bytes: append(f.bytes[:0], majorMap<<5)}
	r.Stored(f)
	f.countPairs()
	if ok = !f.failed; ok {
		value = bytes.Clone(f.bytes)
	}
	forms.Put(f)
	return value, ok
}

// countPairs writes the number of fields into the head.
func (f *Form) countPairs() {
	switch {
	case f.pairs < 24:
		f.bytes[0] |= byte(f.pairs)
	case f.pairs < 256:
		f.bytes = append(f.bytes, 0)
		copy(f.bytes[2:], f.bytes[1:])
		f.bytes[0], f.bytes[1] = majorMap<<5|24, byte(f.pairs)
	default:
		f.failed = true
	}
}

// Decode reads a value into a record that is zero so far. If ok is false, the library is to read it, over what is in the record then.
func Decode(value []byte, r Record) (ok bool) {
	f := forms.Get().(*Form)
	room := f.bytes
	*f = Form{bytes: value, reading: true}
	f.pairs = int(f.head(majorMap))
	r.Stored(f)
	ok = !f.failed && f.key == 0 && f.pairs == 0 && f.at == len(value)
	*f = Form{bytes: room}
	forms.Put(f)
	return ok
}

// writes reports whether a field is to be written, and writes its key if it is.
func (f *Form) writes(key Key, empty bool) bool {
	if empty && key&Always == 0 {
		return false
	}
	f.pairs++
	f.bytes = appendHead(f.bytes, majorUint, uint64(key&^Always))
	return true
}

// reads reports whether the value that comes next is that of a field.
func (f *Form) reads(key Key) bool {
	if f.key == 0 && f.pairs > 0 && !f.failed {
		f.pairs--
		f.key = Key(min(f.head(majorUint), uint64(Always)))
		f.failed = f.failed || f.key == 0
	}
	if f.key != key&^Always || f.failed {
		return false
	}
	f.key = 0
	return true
}
