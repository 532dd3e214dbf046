package ledger

import (
	"bytes"
	"iter"
	"math/rand/v2"
)

// overlay is what the operations of a group have written so far, over what is committed. Its keys are in a skip list, since
// operations scan, with a map beside it, since they mostly get.
type overlay struct {
	base  Reader
	nodes map[string]*node
	head  [maxLevel]*node
	undo  []undone
}

type node struct {
	key   []byte
	value []byte // nil: deleted
	set   bool   // false: as in base
	next  []*node
}

// undone is how a node was before a write.
type undone struct {
	node  *node
	value []byte
	set   bool
}

const maxLevel = 16

func newOverlay(base Reader) *overlay {
	return &overlay{base: base, nodes: make(map[string]*node)}
}

func (o *overlay) Get(key []byte) ([]byte, error) {
	if n, ok := o.nodes[string(key)]; ok && n.set {
		return n.value, nil
	}
	return o.base.Get(key)
}

func (o *overlay) Put(key, value []byte) {
	o.write(key, append(make([]byte, 0, len(value)), value...))
}

func (o *overlay) Delete(key []byte) { o.write(key, nil) }

func (o *overlay) write(key, value []byte) {
	n, ok := o.nodes[string(key)]
	if !ok {
		n = o.insert(bytes.Clone(key))
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

// keep makes what was written so far final.
func (o *overlay) keep() {
	clear(o.undo)
	o.undo = o.undo[:0]
}

func (o *overlay) empty() bool {
	for range o.all() {
		return false
	}
	return true
}

// all yields what was written, in the order of the keys.
func (o *overlay) all() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for n := o.head[0]; n != nil; n = n.next[0] {
			if n.set && !yield(n.key, n.value) {
				return
			}
		}
	}
}

func (o *overlay) insert(key []byte) *node {
	level := 1
	for level < maxLevel && rand.Uint32()&3 == 0 {
		level++
	}
	n := &node{key: key, next: make([]*node, level)}
	before := (*node)(nil)
	for i := maxLevel - 1; i >= 0; i-- {
		for next := o.follow(before, i); next != nil && bytes.Compare(next.key, key) < 0; next = o.follow(before, i) {
			before = next
		}
		if i < level {
			n.next[i] = o.follow(before, i)
			o.link(before, i, n)
		}
	}
	o.nodes[string(key)] = n
	return n
}

// follow returns the node after n at a level; nil stands for the head.
func (o *overlay) follow(n *node, level int) *node {
	if n == nil {
		return o.head[level]
	}
	return n.next[level]
}

func (o *overlay) link(n *node, level int, next *node) {
	if n == nil {
		o.head[level] = next
		return
	}
	n.next[level] = next
}

// before returns the last node whose key is less than key, the last of all where key is nil.
func (o *overlay) before(key []byte) *node {
	n := (*node)(nil)
	for i := maxLevel - 1; i >= 0; i-- {
		for next := o.follow(n, i); next != nil && (key == nil || bytes.Compare(next.key, key) < 0); next = o.follow(n, i) {
			n = next
		}
	}
	return n
}

// Scan sees what is in the overlay over what is in the base. fn may write: what it writes behind the scan's position is seen, or
// not, as it happens to fall.
func (o *overlay) Scan(r Range, fn func(key, value []byte) (bool, error)) error {
	c := &overlayCursor{overlay: o, in: r}
	switch {
	case r.Reverse:
		c.at = o.before(r.To)
	case r.From == nil:
		c.at = o.head[0]
	default:
		c.at = o.follow(o.before(r.From), 0)
	}
	return Merge(c, o.base, r, fn)
}

type overlayCursor struct {
	overlay *overlay
	in      Range
	at      *node
}

// Peek passes over what was undone, also while the cursor stood at it.
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

func (c *overlayCursor) Next() {
	if c.in.Reverse {
		c.at = c.overlay.before(c.at.key)
	} else {
		c.at = c.at.next[0]
	}
}
