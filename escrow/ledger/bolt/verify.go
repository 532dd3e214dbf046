package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// The file format is bbolt's (internal/common of go.etcd.io/bbolt v1.5). All pages have the same size. Numbers are in the machine's byte
// order. A page begins with a header: id uint64, flags uint16, count uint16, overflow uint32. There are two meta pages, of which the one
// with the higher transaction number counts, a tree of branch and leaf pages, and a list of free pages.
const (
	pageHeader  = 16
	elementSize = 16

	branchPage = 0x01
	leafPage   = 0x02
	metaPage   = 0x04
	freePage   = 0x10

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64 // the checksum is its last eight bytes
)

var native = binary.NativeEndian

type meta struct {
	pageSize             uint64
	root, free, end, txn uint64 // end: the number of pages
	known                bool   // the page begins as those of bbolt do
}

// foreignError is the error of a file that no ledger has written, or whose beginning was overwritten.
type foreignError struct{ why string }

func (e foreignError) Error() string {
	return "this is not a Tallygate ledger, or its beginning was overwritten (" + e.why + ")"
}

// Unwrap returns ErrCorrupt, since the file can't be used as a ledger either way.
func (foreignError) Unwrap() error { return ledger.ErrCorrupt }

// verifier verifies a file before bbolt opens it, since bbolt trusts what it reads. A flipped bit in a page number can make bbolt loop until
// the process dies. A flipped bit in the list of free pages makes it overwrite pages that are in use.
type verifier struct {
	file io.ReaderAt
	size int64
	deep bool // verify the leaf pages too, and so each record
	meta meta
	used []bool // by page
	ahead
}

// ahead reads large chunks ahead if pages are read in order. A returned page is valid until the next one is read.
type ahead struct {
	chunk []byte
	at    int64
}

const readAhead = 1 << 20

// ref is a page of the tree, with the bounds of its keys.
type ref struct {
	page     uint64
	low, end []byte // low <= key < end; a nil end means no bound
}

// verify verifies the structure of a file, and also each record if deep is true. acceptMeta accepts one damaged meta page.
func verify(file io.ReaderAt, size int64, deep, acceptMeta bool) error {
	v := &verifier{file: file, size: size, deep: deep}
	err := v.run(acceptMeta)
	if foreign := (foreignError{}); errors.As(err, &foreign) {
		return foreign
	}
	if err != nil {
		return fmt.Errorf("%w: %w; restore a backup, and keep the file for inquiry", ledger.ErrCorrupt, err)
	}
	return nil
}

func (v *verifier) run(acceptMeta bool) error {
	if err := v.readMeta(acceptMeta); err != nil {
		return err
	}
	m := v.meta
	if m.end < 4 {
		return fmt.Errorf("the file says that it has %d pages", m.end)
	}
	if need := m.end * m.pageSize; m.end > 1<<40 || uint64(v.size) < need {
		return fmt.Errorf("the file is cut off: it has %d bytes, its pages need %d", v.size, need)
	}
	v.used = make([]bool, m.end)
	v.used[0], v.used[1] = true, true
	if err := v.tree(ref{page: m.root}, v.rootLeaf); err != nil {
		return err
	}
	return v.freeList()
}

func (v *verifier) readMeta(acceptMeta bool) error {
	first, err := v.metaAt(0, 0)
	pageSize := first.pageSize
	if err != nil {
		pageSize = v.guessPageSize()
	}
	second, err2 := v.metaAt(int64(pageSize), 1)
	switch {
	case err != nil && err2 != nil && !first.known && !second.known:
		return foreignError{"neither of its first two pages is one of bbolt's"}
	case err != nil && err2 != nil:
		return fmt.Errorf("both meta pages: %w", err)
	case !acceptMeta && (err != nil || err2 != nil):
		return fmt.Errorf("%w; the other meta page is whole, but it may be that of an earlier commit", errors.Join(err, err2))
	case err != nil:
		v.meta = second
	case err2 != nil || first.txn > second.txn:
		v.meta = first
	default:
		v.meta = second
	}
	if err == nil && err2 == nil && first.pageSize != second.pageSize {
		return errors.New("the meta pages differ in their page size")
	}
	return nil
}

// guessPageSize finds the page size by searching for the second meta page, if the first one is damaged.
func (v *verifier) guessPageSize() uint64 {
	for size := uint64(1024); size <= 1<<16; size *= 2 {
		if m, err := v.metaAt(int64(size), 1); err == nil && m.pageSize == size {
			return size
		}
	}
	return 4096
}

func (v *verifier) metaAt(offset int64, id uint64) (meta, error) {
	page := make([]byte, pageHeader+metaSize)
	if _, err := v.file.ReadAt(page, offset); err != nil {
		return meta{}, fmt.Errorf("meta page %d: %w", id, err)
	}
	b := page[pageHeader:]
	hash := fnv.New64a()
	hash.Write(b[:metaSize-8])
	m := meta{
		known:    native.Uint32(b) == metaMagic,
		pageSize: uint64(native.Uint32(b[8:])), root: native.Uint64(b[16:]),
		free: native.Uint64(b[32:]), end: native.Uint64(b[40:]), txn: native.Uint64(b[48:]),
	}
	switch {
	case native.Uint32(b) != metaMagic || native.Uint32(b[4:]) != metaVersion:
		return m, fmt.Errorf("meta page %d is not bbolt's", id)
	case native.Uint64(b[metaSize-8:]) != hash.Sum64():
		return m, fmt.Errorf("the checksum of meta page %d is wrong", id)
	case native.Uint64(page) != id || native.Uint16(page[8:]) != metaPage || m.pageSize < 1024 || m.pageSize > 1<<16:
		return m, fmt.Errorf("the header of meta page %d is wrong", id)
	}
	return m, nil
}

// page reads a page with its overflow pages, and marks them as used.
func (v *verifier) page(id uint64) ([]byte, error) {
	if id < 2 || id >= v.meta.end {
		return nil, fmt.Errorf("page %d is referred to, there are %d", id, v.meta.end)
	}
	head, err := v.bytes(id, 1)
	if err != nil {
		return nil, err
	}
	if got := native.Uint64(head); got != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, got)
	}
	pages := 1 + uint64(native.Uint32(head[12:]))
	if pages > v.meta.end-id {
		return nil, fmt.Errorf("page %d says that it is %d pages long", id, pages)
	}
	for i := id; i < id+pages; i++ {
		if v.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.used[i] = true
	}
	return v.bytes(id, pages)
}

func (v *verifier) bytes(id, pages uint64) ([]byte, error) {
	from, length := int64(id*v.meta.pageSize), int64(pages*v.meta.pageSize)
	if from < v.at || from+length > v.at+int64(len(v.chunk)) {
		want := length
		if v.deep {
			want = max(readAhead, length)
		}
		v.at, want = from, min(want, v.size-from)
		v.chunk = slices.Grow(v.chunk[:0], int(want))[:want]
		if _, err := v.file.ReadAt(v.chunk, from); err != nil {
			v.chunk = nil
			return nil, fmt.Errorf("reading page %d: %w", id, err)
		}
	}
	return v.chunk[from-v.at : from-v.at+length], nil
}

// tree reads a tree level by level, in the order of the pages, and calls leaf for each leaf page.
func (v *verifier) tree(root ref, leaf func(page []byte, r ref) error) error {
	for level := []ref{root}; len(level) > 0; {
		slices.SortFunc(level, func(a, b ref) int { return cmp.Compare(a.page, b.page) })
		var below []ref
		for _, r := range level {
			page, err := v.page(r.page)
			if err != nil {
				return err
			}
			switch flags := native.Uint16(page[8:]); flags {
			case branchPage:
				children, err := branch(page, r)
				if err != nil {
					return err
				}
				below = append(below, children...)
			case leafPage:
				if err := leaf(page, r); err != nil {
					return err
				}
			default:
				return fmt.Errorf("page %d is of an unknown kind, %#x", r.page, flags)
			}
		}
		level = below
	}
	return nil
}

// layout returns the data of a page's elements. bbolt puts the data after the last element, in the order of the elements, without gaps. So
// layout finds every wrong count, position and length.
type layout struct {
	page  []byte
	count int
	next  uint64
}

func elements(page []byte) (*layout, error) {
	count := int(native.Uint16(page[10:]))
	end := pageHeader + elementSize*count
	if end > len(page) {
		return nil, fmt.Errorf("page %d says that it has %d elements", native.Uint64(page), count)
	}
	return &layout{page, count, uint64(end)}, nil
}

// data returns the data of element i. It must be called for the elements in their order. position is the offset in the element at which
// the position of its data is stored.
func (l *layout) data(i, position int, length uint64) ([]byte, error) {
	at := pageHeader + elementSize*i
	from := uint64(at) + uint64(native.Uint32(l.page[at+position:]))
	if from != l.next || length > uint64(len(l.page))-from {
		return nil, fmt.Errorf("page %d, element %d, is not where it should be", native.Uint64(l.page), i)
	}
	l.next = from + length
	return l.page[from:l.next], nil
}

func branch(page []byte, r ref) ([]ref, error) {
	l, err := elements(page)
	if err != nil {
		return nil, err
	}
	if l.count == 0 {
		return nil, fmt.Errorf("page %d is an empty branch", r.page)
	}
	children := make([]ref, l.count)
	before := []byte(nil)
	for i := range children {
		at := pageHeader + elementSize*i
		key, err := l.data(i, 0, uint64(native.Uint32(page[at+4:])))
		if err != nil {
			return nil, err
		}
		if err := r.ordered(i, before, key); err != nil {
			return nil, err
		}
		key = bytes.Clone(key)
		children[i] = ref{page: native.Uint64(page[at+8:]), low: key, end: r.end}
		if i > 0 {
			children[i-1].end = key
		}
		before = key
	}
	return children, nil
}

// ordered checks that a key comes after the key before it, and lies within the bounds of its page.
func (r ref) ordered(i int, before, key []byte) error {
	if i > 0 && bytes.Compare(before, key) >= 0 || bytes.Compare(key, r.low) < 0 || r.end != nil && bytes.Compare(key, r.end) >= 0 {
		return fmt.Errorf("page %d, element %d, key %q is out of order", r.page, i, key)
	}
	return nil
}

// leafElements calls fn for each element of a leaf.
func leafElements(page []byte, r ref, fn func(flags uint32, key, value []byte) error) error {
	l, err := elements(page)
	if err != nil {
		return err
	}
	before := []byte(nil)
	for i := range l.count {
		at := pageHeader + elementSize*i
		keySize, valueSize := uint64(native.Uint32(page[at+8:])), uint64(native.Uint32(page[at+12:]))
		both, err := l.data(i, 4, keySize+valueSize)
		if err != nil {
			return err
		}
		key := both[:keySize:keySize]
		if err := r.ordered(i, before, key); err != nil {
			return err
		}
		if err := fn(native.Uint32(page[at:]), key, both[keySize:]); err != nil {
			return err
		}
		before = key
	}
	return nil
}

// rootLeaf checks the leaf page that lists the buckets. There must be no others than the ledger's own.
func (v *verifier) rootLeaf(page []byte, r ref) error {
	buckets := map[string][]byte{}
	err := leafElements(page, r, func(flags uint32, key, value []byte) error {
		_, isJournal := journalNumber(key)
		if flags != 1 || !isJournal && !bytes.Equal(key, bucketName) || len(value) < 16 {
			return fmt.Errorf("the file has a bucket %q: the file is not a ledger, or its root page is damaged", key)
		}
		buckets[string(key)] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	if buckets[string(bucketName)] == nil && v.meta.txn > 1 { // otherwise the process that made the file was interrupted
		return errors.New("the bucket of the ledger is missing")
	}
	for name, value := range buckets {
		if err := v.bucket(value); err != nil {
			return fmt.Errorf("bucket %q: %w", name, err)
		}
	}
	return nil
}

// bucket checks a bucket. value is the bucket's entry in its parent.
func (v *verifier) bucket(value []byte) error {
	if root := native.Uint64(value); root != 0 {
		return v.records(ref{page: root})
	}
	// A small bucket is a leaf page inside its parent's leaf page.
	if inline := value[16:]; len(inline) >= pageHeader && native.Uint16(inline[8:]) == leafPage {
		return v.leaf(inline, ref{})
	}
	return errors.New("it is damaged")
}

func (v *verifier) records(root ref) error {
	if v.deep {
		return v.tree(root, v.leaf)
	}
	return v.shallow(root)
}

// shallow reads only the branch pages. It takes all pages at the depth of a leaf for leaf pages; these are checked when records are read. Nearly
// all pages of a file are leaf pages, so they are not collected first, as those of other levels are: of a file of 10 GB that would take 700 MB.
func (v *verifier) shallow(root ref) error {
	leaves, err := v.isLeaf(root.page)
	if err != nil {
		return err
	}
	if leaves {
		return v.use(root.page)
	}
	for level := []ref{root}; len(level) > 0; {
		var below []ref
		slices.SortFunc(level, func(a, b ref) int { return cmp.Compare(a.page, b.page) })
		for i, r := range level {
			page, err := v.page(r.page)
			if err != nil {
				return err
			}
			if flags := native.Uint16(page[8:]); flags != branchPage {
				return fmt.Errorf("page %d is not a branch page, but of kind %#x", r.page, flags)
			}
			children, err := branch(page, r)
			if err != nil {
				return err
			}
			if i == 0 {
				if leaves, err = v.isLeaf(children[0].page); err != nil {
					return err
				}
			}
			if !leaves {
				below = append(below, children...)
				continue
			}
			for _, child := range children {
				if err := v.use(child.page); err != nil {
					return err
				}
			}
		}
		level = below
	}
	return nil
}

// isLeaf reports whether a page says that it is a leaf page.
func (v *verifier) isLeaf(id uint64) (bool, error) {
	if id < 2 || id >= v.meta.end {
		return false, fmt.Errorf("page %d is referred to, there are %d", id, v.meta.end)
	}
	head, err := v.bytes(id, 1)
	if err != nil {
		return false, err
	}
	return native.Uint16(head[8:]) == leafPage, nil
}

// use marks a page as used that is not read.
func (v *verifier) use(id uint64) error {
	if id < 2 || id >= v.meta.end || v.used[id] {
		return fmt.Errorf("page %d is used twice, or does not exist", id)
	}
	v.used[id] = true
	return nil
}

func (v *verifier) leaf(page []byte, r ref) error {
	return leafElements(page, r, func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return &ledger.CorruptError{Key: bytes.Clone(key), Detail: "it is marked as a bucket"}
		}
		_, err := unseal(key, value)
		return err
	})
}

// freeList checks that no page is both free and in use. If all pages were read, it also checks that each page is either free or in use.
func (v *verifier) freeList() error {
	page, err := v.page(v.meta.free)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	if flags := native.Uint16(page[8:]); flags != freePage {
		return fmt.Errorf("the list of free pages is of an unknown kind, %#x", flags)
	}
	ids := page[pageHeader:]
	count := uint64(native.Uint16(page[10:]))
	if count == 0xFFFF { // the first word is the count
		count = native.Uint64(ids)
		ids = ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("the list of free pages says that it has %d pages", count)
	}
	for i := range count {
		id := native.Uint64(ids[8*i:])
		if id < 2 || id >= v.meta.end || v.used[id] {
			return fmt.Errorf("page %d is listed as free, but is in use or does not exist", id)
		}
		v.used[id] = true
	}
	if lost := slices.Index(v.used, false); v.deep && lost >= 0 {
		return fmt.Errorf("page %d is neither in use nor free", lost)
	}
	return nil
}
