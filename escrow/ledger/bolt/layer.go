package bolt

import (
	"github.com/tidwall/btree"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// layer is what the groups of one journal have changed, in memory and in the order of the keys; a nil value is a deletion. It is
// never changed once it is read: with makes a new one, which shares most of the old one's nodes.
type layer struct {
	journal uint64 // the number of its journal
	changes *btree.Map[string, []byte]
	size    int // about what it takes, in bytes: of all that was ever put into it
}

// changeOverhead is about what a change takes in memory beyond its key and value.
const changeOverhead = 64

func newLayer(journal uint64) *layer {
	return &layer{journal: journal, changes: btree.NewMap[string, []byte](16)}
}

// change is a record's new value, nil for none.
type change struct{ key, value []byte }

func (c change) size() int { return len(c.key) + len(c.value) + changeOverhead }

// with returns the layer with more changes.
func (l *layer) with(changes []change) *layer {
	next := *l
	next.changes = l.changes.Copy()
	for _, c := range changes {
		next.changes.Set(string(c.key), c.value)
		next.size += c.size()
	}
	return &next
}

// layers is the state of the books above the bucket: what is on its way there.
type layers struct {
	active *layer // takes new groups
	frozen *layer // is being folded into the bucket; nil where none is
}

// over returns what is read through the layers.
func (l layers) over(base ledger.Reader) ledger.Reader {
	if l.frozen != nil {
		base = layered{l.frozen, base}
	}
	return layered{l.active, base}
}

// layered reads a layer over what it changes.
type layered struct {
	*layer
	base ledger.Reader
}

// Get is [ledger.Reader]'s.
func (r layered) Get(key []byte) ([]byte, error) {
	if value, ok := r.changes.Get(string(key)); ok {
		return value, nil
	}
	return r.base.Get(key)
}

// Scan is [ledger.Reader]'s.
func (r layered) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	return ledger.Merge(r.cursor(in), r.base, in, fn)
}

// cursor walks a layer.
type cursor struct {
	at  btree.MapIter[string, []byte]
	in  ledger.Range
	key []byte // nil at the end
}

func (l *layer) cursor(in ledger.Range) *cursor {
	c := &cursor{at: l.changes.Iter(), in: in}
	switch {
	case !in.Reverse:
		c.stand(c.at.Seek(string(in.From)))
	case in.To != nil && c.at.Seek(string(in.To)):
		c.stand(c.at.Prev())
	default:
		c.stand(c.at.Last())
	}
	return c
}

func (c *cursor) stand(ok bool) {
	if c.key = nil; ok {
		c.key = []byte(c.at.Key())
	}
}

// Peek is [ledger.Cursor]'s.
func (c *cursor) Peek() (key, value []byte, ok bool) {
	if c.key == nil || !inside(c.in, c.key) {
		return nil, nil, false
	}
	return c.key, c.at.Value(), true
}

// Next is [ledger.Cursor]'s.
func (c *cursor) Next() {
	if c.in.Reverse {
		c.stand(c.at.Prev())
	} else {
		c.stand(c.at.Next())
	}
}

// foldUnder puts a part of a layer in its place: from a key on, about a number of bytes, but for what the layer above it hides. It
// returns the key to go on from, and whether that was the rest.
func (l *layer) foldUnder(above *layer, put func(change) error, from string, size int) (next string, done bool, err error) {
	at := l.changes.Iter()
	for ok := at.Seek(from); ok; ok = at.Next() {
		if size <= 0 {
			return at.Key(), false, nil
		}
		c := change{[]byte(at.Key()), at.Value()}
		size -= c.size()
		if _, hidden := above.changes.Get(at.Key()); hidden {
			continue
		}
		if err := put(c); err != nil {
			return from, false, err
		}
	}
	return "", true, nil
}

// put sets a record in its place, or removes it.
func (r reader) put(c change) error {
	if c.value == nil {
		return r.bucket.Delete(c.key)
	}
	return r.bucket.Put(c.key, seal(c.key, c.value))
}
