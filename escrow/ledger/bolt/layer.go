package bolt

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// layer is what the groups of one journal have changed. It is never changed once it is read: with makes a new one, which shares
// what the old one has.
//
// It is the groups' texts themselves and, in the order of the keys, where in them each change stands, in a few runs: a group adds
// a run, and runs of like length become one. None of that holds pointers, so that however full a layer is, collecting garbage
// costs next to nothing.
type layer struct {
	journal uint64   // the number of its journal
	texts   [][]byte // of the groups, oldest first
	runs    []run    // oldest and longest first
	newest  *newest  // shared by all layers of the journal
	size    int      // about what it takes, in bytes: of all that was ever put into it
}

// place is where a change stands in a layer: in which text, and at which offset.
type place struct{ text, offset uint32 }

// run is changes in the order of their keys, each key once.
type run []place

// newest is where the newest change of each key stands, by the key's hash.
type newest struct {
	seed   maphash.Seed
	mu     sync.RWMutex
	places map[uint64]place
}

// changeOverhead is about what a change takes in memory beyond its text: its place in a run, twice while runs become one, and among
// the newest.
const changeOverhead = 48

func newLayer(journal uint64) *layer {
	return &layer{journal: journal, newest: &newest{seed: maphash.MakeSeed(), places: make(map[uint64]place)}}
}

// change is a record's new value, nil for none.
type change struct{ key, value []byte }

func (c change) size() int { return len(c.key) + len(c.value) + changeOverhead }

// with returns the layer with a group more: its text, and the offsets of the changes in it, in the order of their keys. Layers are
// made one from the other: never two from the same one.
func (l *layer) with(text []byte, offsets []uint32) *layer {
	next := *l
	next.texts = append(l.texts, text)
	next.size += len(text) + len(offsets)*changeOverhead
	added := make(run, len(offsets))
	for i, offset := range offsets {
		added[i] = place{uint32(len(l.texts)), offset}
	}
	next.newest.add(&next, added)
	n := len(l.runs)
	for ; n > 0 && len(l.runs[n-1]) <= 2*len(added); n-- {
		added = next.merge(l.runs[n-1], added)
	}
	next.runs = append(slices.Clip(l.runs[:n]), added)
	return &next
}

// merge makes one run of two; the newer one's changes stand for those of the same keys in the older one.
func (l *layer) merge(older, newer run) run {
	merged := make(run, 0, len(older)+len(newer))
	for len(older) > 0 && len(newer) > 0 {
		switch order := bytes.Compare(l.key(older[0]), l.key(newer[0])); {
		case order < 0:
			merged, older = append(merged, older[0]), older[1:]
		case order == 0:
			older = older[1:]
			fallthrough
		default:
			merged, newer = append(merged, newer[0]), newer[1:]
		}
	}
	return append(append(merged, older...), newer...)
}

func (n *newest) add(l *layer, added run) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range added {
		n.places[maphash.Bytes(n.seed, l.key(p))] = p
	}
}

func (n *newest) find(key []byte) (place, bool) {
	hash := maphash.Bytes(n.seed, key)
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, ok := n.places[hash]
	return p, ok
}

func (l *layer) key(p place) []byte {
	return nextKey(l.texts[p.text][p.offset:])
}

func (l *layer) value(p place) []byte {
	c, _, _ := nextChange(l.texts[p.text][p.offset:])
	return c.value
}

// get returns the layer's value of a key, nil where it was deleted; not found where the layer has no change of it.
func (l *layer) get(key []byte) (value []byte, found bool) {
	p, known := l.newest.find(key)
	if !known {
		return nil, false
	}
	if int(p.text) < len(l.texts) && bytes.Equal(l.key(p), key) {
		return l.value(p), true
	}
	// There is one of a later group, or another key has the same hash.
	for _, r := range slices.Backward(l.runs) {
		if i, found := l.search(r, key); found {
			return l.value(r[i]), true
		}
	}
	return nil, false
}

// search returns where key stands in a run, or would.
func (l *layer) search(r run, key []byte) (int, bool) {
	return slices.BinarySearchFunc(r, key, func(p place, key []byte) int { return bytes.Compare(l.key(p), key) })
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
	if value, ok := r.get(key); ok {
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
	layer *layer
	in    ledger.Range
	heads []head // of the runs that have changes left, in the order of the runs
	best  int    // the head that the cursor stands at: of those that come next, the newest run's
}

// head is where a cursor stands in a run.
type head struct {
	left run // what is still to come: from its beginning on, or from its end where the cursor goes backwards
	key  []byte
}

func (l *layer) cursor(in ledger.Range) *cursor {
	c := &cursor{layer: l, in: in, heads: make([]head, 0, len(l.runs))}
	for _, r := range l.runs {
		from, to := 0, len(r)
		if in.From != nil {
			from, _ = l.search(r, in.From)
		}
		if in.To != nil {
			to, _ = l.search(r, in.To)
		}
		if from < to {
			c.heads = append(c.heads, c.head(r[from:to]))
		}
	}
	c.choose()
	return c
}

func (c *cursor) head(left run) head { return head{left, c.layer.key(c.next(left))} }

func (c *cursor) next(left run) place {
	if c.in.Reverse {
		return left[len(left)-1]
	}
	return left[0]
}

func (c *cursor) choose() {
	c.best = len(c.heads) - 1
	for i := c.best - 1; i >= 0; i-- {
		order := bytes.Compare(c.heads[i].key, c.heads[c.best].key)
		if order < 0 && !c.in.Reverse || order > 0 && c.in.Reverse {
			c.best = i
		}
	}
}

// Peek is [ledger.Cursor]'s.
func (c *cursor) Peek() (key, value []byte, ok bool) {
	if c.best < 0 {
		return nil, nil, false
	}
	h := c.heads[c.best]
	return h.key, c.layer.value(c.next(h.left)), true
}

// Next is [ledger.Cursor]'s.
func (c *cursor) Next() {
	passed, kept := c.heads[c.best].key, c.heads[:0]
	for _, h := range c.heads {
		if bytes.Equal(h.key, passed) {
			if c.in.Reverse {
				h.left = h.left[:len(h.left)-1]
			} else {
				h.left = h.left[1:]
			}
			if len(h.left) == 0 {
				continue
			}
			h = c.head(h.left)
		}
		kept = append(kept, h)
	}
	c.heads = kept
	c.choose()
}

// foldUnder puts a part of a layer in its place: from a key on, about a number of bytes, but for what the layer above it hides. It
// returns the key to go on from, and whether that was the rest.
func (l *layer) foldUnder(above *layer, put func(change) error, from []byte, size int) (next []byte, done bool, err error) {
	for at := l.cursor(ledger.Range{From: from}); ; at.Next() {
		key, value, more := at.Peek()
		if !more || size <= 0 {
			return key, !more, nil
		}
		c := change{key, value}
		size -= c.size()
		if _, hidden := above.get(key); hidden {
			continue
		}
		if err := put(c); err != nil {
			return from, false, err
		}
	}
}

// put sets a record in its place, or removes it.
func (r reader) put(c change) error {
	if c.value == nil {
		return r.bucket.Delete(c.key)
	}
	return r.bucket.Put(c.key, seal(c.key, c.value))
}
