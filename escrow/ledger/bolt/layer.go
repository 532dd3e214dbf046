package bolt

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// layer holds the changes of the groups in one journal. A layer that readers have is never changed: the method with returns a new layer,
// which shares the data of the old one.
//
// A layer consists of the groups' texts and of a few runs. A run lists positions of changes in the texts, in the order of their keys. Each
// group adds a run, and runs of similar length are merged. Runs contain no pointers, so a full layer costs the garbage collector almost
// nothing.
type layer struct {
	journal uint64   // the number of its journal
	texts   [][]byte // the texts of the groups, oldest first
	runs    []run    // oldest and longest first
	newest  *newest  // shared by all layers of the journal
	below   *below   // the same
	size    int      // about the memory of all changes that were ever added, in bytes
}

// place is the position of a change in a layer: the index of its text, and the offset in the text.
type place struct{ text, offset uint32 }

// run is a list of changes in the order of their keys. Each key occurs once.
type run []place

// newest maps the hash of a key to the place of the key's newest change.
type newest struct {
	seed   maphash.Seed
	mu     sync.RWMutex
	places map[uint64]place
}

// changeOverhead is about the memory that a change takes besides its text, in bytes: its place in newest, and its place in a run, twice
// while runs are merged.
const changeOverhead = 48

// newLayer returns a layer without changes. It has room for changes of so many keys before its map must grow.
func newLayer(journal uint64, keys int) *layer {
	return &layer{journal: journal, below: &below{}, newest: &newest{seed: maphash.MakeSeed(), places: make(map[uint64]place, keys)}}
}

// change is a record's new value. A nil value means that the record is deleted.
type change struct{ key, value []byte }

func (c change) size() int { return len(c.key) + len(c.value) + changeOverhead }

// with returns a layer with one more group. The group is its text and the offsets of the changes in the text, in the order of their keys.
// with must be called only once on a layer.
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

// merge merges two runs into one. For a key that is in both, it takes the change of the newer run.
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

// size returns how many keys have changes.
func (n *newest) size() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.places)
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

// get returns the layer's value of a key, or nil if the record was deleted. If the layer has no change of the key, found is false.
func (l *layer) get(key []byte) (value []byte, found bool) {
	p, known := l.newest.find(key)
	if !known {
		return nil, false
	}
	if int(p.text) < len(l.texts) && bytes.Equal(l.key(p), key) {
		return l.value(p), true
	}
	// The newest change belongs to a later group than this layer has, or to another key with the same hash.
	for _, r := range slices.Backward(l.runs) {
		if i, found := l.search(r, key); found {
			return l.value(r[i]), true
		}
	}
	return nil, false
}

// search returns the index of key in a run, or the index where it would be inserted.
func (l *layer) search(r run, key []byte) (int, bool) {
	return slices.BinarySearchFunc(r, key, func(p place, key []byte) int { return bytes.Compare(l.key(p), key) })
}

// layers are the changes that are not in the bucket yet.
type layers struct {
	active *layer // takes new groups
	frozen *layer // is being folded into the bucket; nil if none is
}

// over returns a reader that reads the layers first, then base.
func (l layers) over(base ledger.Reader) ledger.Reader {
	if l.frozen != nil {
		base = layered{l.frozen, base}
	}
	return layered{l.active, base}
}

// layered reads from a layer first, then from base.
type layered struct {
	*layer
	base ledger.Reader
}

// Get implements [ledger.Reader].
func (r layered) Get(key []byte) ([]byte, error) {
	if value, ok := r.get(key); ok {
		return value, nil
	}
	return r.base.Get(key)
}

// Scan implements [ledger.Reader].
func (r layered) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	return ledger.Merge(r.cursor(in), r.base, in, fn)
}

// cursor implements [ledger.Cursor] for the changes of a layer.
type cursor struct {
	layer *layer
	in    ledger.Range
	heads []head // one for each run that has changes left, in the order of the runs
	best  int    // the index of the head with the next change; if several runs have its key, the newest of them
}

// head is the position of a cursor in a run.
type head struct {
	left run // the part that is left: it is used up from its beginning, or from its end if the cursor goes backwards
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

// Peek implements [ledger.Cursor].
func (c *cursor) Peek() (key, value []byte, ok bool) {
	if c.best < 0 {
		return nil, nil, false
	}
	h := c.heads[c.best]
	return h.key, c.layer.value(c.next(h.left)), true
}

// Next implements [ledger.Cursor].
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

// fold calls put for the changes of a layer from the key from on, up to about size bytes. It returns the key to go on from, and whether the layer
// is done. Records that have changed again since are folded too: to look each record up would cost more than it saves.
func (l *layer) fold(put func(change) error, from []byte, size int) (next []byte, done bool, err error) {
	for at := l.cursor(ledger.Range{From: from}); ; at.Next() {
		key, value, more := at.Peek()
		if !more || size <= 0 {
			return key, !more, nil
		}
		c := change{key, value}
		size -= c.size()
		if err := put(c); err != nil {
			return from, false, err
		}
	}
}

// put writes a record to the bucket, or deletes it.
func (r reader) put(c change, sealed *seals) error {
	if c.value == nil {
		return r.bucket.Delete(c.key)
	}
	return r.bucket.Put(c.key, sealed.seal(c.key, c.value))
}
