package ledger

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/tidwall/btree"
)

// overlay holds what the operations of a group have written so far. Its reads see these writes on top of base, the committed records.
// Most operations only get and put, so the keys are kept in order only from the first scan on. Its memory is used again for the next group.
type overlay struct {
	base    Reader
	seed    maphash.Seed
	nodes   map[uint64]*node     // by the hash of their keys
	list    []*node              // in the order in which they were added
	ordered *btree.BTreeG[*node] // nil until there is a scan
	undo    []undone
	spare   []*node // memory for the next nodes
}

type node struct {
	key   []byte
	value []byte // nil: deleted
	set   bool   // false: not changed, the record of base counts
	next  *node  // another node whose key has the same hash
}

// undone is the state of a node before a write.
type undone struct {
	node  *node
	value []byte
	set   bool
}

func compareNodes(a, b *node) int { return bytes.Compare(a.key, b.key) }

func newOverlay() *overlay {
	return &overlay{seed: maphash.MakeSeed(), nodes: make(map[uint64]*node)}
}

// mostSpare bounds the memory that is kept for the next group, in nodes.
const mostSpare = 1 << 14

// begin forgets all writes, and lets reads see the records of base.
func (o *overlay) begin(base Reader) {
	o.base, o.ordered = base, nil
	for _, n := range o.list {
		*n = node{}
	}
	if o.spare = append(o.spare, o.list...); len(o.spare) > mostSpare {
		*o = overlay{base: base, seed: o.seed, nodes: make(map[uint64]*node)}
		return
	}
	clear(o.nodes)
	clear(o.list)
	o.list = o.list[:0]
	o.keep()
}

func (o *overlay) Get(key []byte) ([]byte, error) {
	if n := o.find(maphash.Bytes(o.seed, key), key); n != nil && n.set {
		return n.value, nil
	}
	return o.base.Get(key)
}

// find returns the node of a key, or nil if there is none.
func (o *overlay) find(hash uint64, key []byte) *node {
	n := o.nodes[hash]
	for n != nil && !bytes.Equal(n.key, key) {
		n = n.next
	}
	return n
}

func (o *overlay) Put(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	o.write(key, value)
}

func (o *overlay) Delete(key []byte) { o.write(key, nil) }

func (o *overlay) write(key, value []byte) {
	hash := maphash.Bytes(o.seed, key)
	n := o.find(hash, key)
	if n == nil {
		n = o.insert(hash, key)
	}
	o.undo = append(o.undo, undone{n, n.value, n.set})
	n.value, n.set = value, true
}

func (o *overlay) Try(fn func() error) error {
	mark := len(o.undo)
	completed := false
	defer func() {
		if !completed { // fn panicked
			o.rollback(mark)
		}
	}()
	err := fn()
	completed = true
	if err != nil {
		o.rollback(mark)
	}
	return err
}

func (o *overlay) rollback(mark int) {
	for i := len(o.undo) - 1; i >= mark; i-- {
		u := o.undo[i]
		u.node.value, u.node.set = u.value, u.set
	}
	o.undo = o.undo[:mark]
}

// keep makes the writes so far final: they can't be undone any more.
func (o *overlay) keep() {
	clear(o.undo)
	o.undo = o.undo[:0]
}

// Doubt implements [Doubter].
func (o *overlay) Doubt() bool { return doubt(o.base) }

// any reports whether there are writes.
func (o *overlay) any() bool {
	return slices.ContainsFunc(o.list, func(n *node) bool { return n.set })
}

// all yields the writes in the order of their keys.
func (o *overlay) all() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		slices.SortFunc(o.list, compareNodes)
		for _, n := range o.list {
			if n.set && !yield(n.key, n.value) {
				return
			}
		}
	}
}

func (o *overlay) insert(hash uint64, key []byte) *node {
	if len(o.spare) == 0 {
		more := make([]node, 32)
		for i := range more {
			o.spare = append(o.spare, &more[i])
		}
	}
	last := len(o.spare) - 1
	n := o.spare[last]
	o.spare = o.spare[:last]
	n.key, n.next = key, o.nodes[hash]
	o.nodes[hash] = n
	o.list = append(o.list, n)
	if o.ordered != nil {
		o.ordered.Set(n)
	}
	return n
}

// order keeps the nodes in the order of their keys from now on.
func (o *overlay) order() {
	if o.ordered != nil {
		return
	}
	o.ordered = btree.NewBTreeGOptions(func(a, b *node) bool { return compareNodes(a, b) < 0 }, btree.Options{NoLocks: true})
	for _, n := range o.list {
		o.ordered.Set(n)
	}
}

// Scan scans the records of base with the overlay's writes applied. fn may write. Whether the scan sees a record that fn writes further
// on is not defined.
func (o *overlay) Scan(r Range, fn func(key, value []byte) (bool, error)) error {
	o.order()
	c := &overlayCursor{overlay: o, in: r}
	if r.Reverse {
		c.seek(r.To, false)
	} else {
		c.seek(r.From, true)
	}
	return Merge(c, o.base, r, fn)
}

// overlayCursor searches its position again for each step, since nodes may be added during a scan.
type overlayCursor struct {
	overlay *overlay
	in      Range
	at      *node // nil at the end
}

// seek moves to the first node after key in the cursor's direction, or to the node of key itself if included is true. A nil key means
// the beginning.
func (c *overlayCursor) seek(key []byte, included bool) {
	c.at = nil
	take := func(n *node) bool {
		if !included && bytes.Equal(n.key, key) {
			return true
		}
		c.at = n
		return false
	}
	switch ordered := c.overlay.ordered; {
	case key == nil && c.in.Reverse:
		c.at, _ = ordered.Max()
	case c.in.Reverse:
		ordered.Descend(&node{key: key}, take)
	default:
		ordered.Ascend(&node{key: key}, take)
	}
}

// Peek implements [Cursor]. It skips nodes whose writes were undone, even if that happened while the cursor stood at them.
func (c *overlayCursor) Peek() (key, value []byte, ok bool) {
	for c.at != nil && !c.at.set {
		c.Next()
	}
	n := c.at
	if n == nil || c.in.Reverse && bytes.Compare(n.key, c.in.From) < 0 || !c.in.Reverse && c.in.To != nil && bytes.Compare(n.key, c.in.To) >= 0 {
		return nil, nil, false
	}
	return n.key, n.value, true
}

// Next implements [Cursor].
func (c *overlayCursor) Next() { c.seek(c.at.key, false) }
