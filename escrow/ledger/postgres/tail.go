package postgres

import (
	"bytes"
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// tail is the changes that may not be in the table records yet: those of the commits from some folded one up to the last commit that is
// known. A record that the tail does not change is in the table, whatever is folded meanwhile. A tail is never changed: its methods
// return other tails, which share its data.
type tail struct {
	point       // the last commit that is known; its number is -1 if there is none
	runs  []run // oldest first
	size  int   // about the memory of the runs, in bytes
	mark  int64 // the changes up to this commit are not in the runs. They are needed again if a crash takes back a fold
}

// run is the changes of some consecutive commits, in the order of their keys. Each key occurs once.
type run struct {
	last    int64 // the number of the last of the commits
	commits int
	size    int
	changes []record
}

// mostInRun is how many commits a run may have. A run is forgotten when all of them are folded.
const mostInRun = 64

var unknown = &tail{point: point{commit: -1}}

// with returns the tail after one more commit, which has left its changes to a fold.
func (t *tail) with(commit, writer int64, changes []record) *tail {
	added := run{last: commit, commits: 1, size: sizeOf(changes), changes: changes}
	next := &tail{point: point{commit, writer}, mark: t.mark, size: t.size + added.size}
	n := len(t.runs)
	for ; n > 0 && t.runs[n-1].commits <= added.commits && t.runs[n-1].commits+added.commits <= mostInRun; n-- {
		next.size -= t.runs[n-1].size + added.size
		added = merge(t.runs[n-1], added)
		next.size += added.size
	}
	next.runs = append(slices.Clip(t.runs[:n]), added)
	return next
}

// at returns the tail after one more commit, which has written its records itself. That is allowed only when all earlier ones are folded.
func (t *tail) at(commit, writer int64) *tail {
	return &tail{point: point{commit, writer}, mark: t.mark}
}

// upTo returns the tail as of a head, if it has all commits after a fold mark that have not written their records themselves.
func (t *tail) upTo(h head, mark int64) *tail {
	next := *t
	next.point, next.mark = h.point, mark
	return &next
}

// folded returns the tail without what is not needed when all commits up to mark are folded.
func (t *tail) folded(mark int64) *tail {
	if len(t.runs) == 0 || t.runs[0].last > mark {
		return t
	}
	next := *t
	next.mark = mark
	for len(next.runs) > 0 && next.runs[0].last <= mark {
		next.size -= next.runs[0].size
		next.runs = next.runs[1:]
	}
	return &next
}

func sizeOf(changes []record) (size int) {
	for _, r := range changes {
		size += len(r.key) + len(r.value) + entrySize
	}
	return size
}

// merge merges two runs into one. For a key that is in both, it takes the change of the newer run.
func merge(older, newer run) run {
	all := make([]record, 0, len(older.changes)+len(newer.changes))
	a, b := older.changes, newer.changes
	for len(a) > 0 && len(b) > 0 {
		switch order := bytes.Compare(a[0].key, b[0].key); {
		case order < 0:
			all, a = append(all, a[0]), a[1:]
		case order == 0:
			a = a[1:]
			fallthrough
		default:
			all, b = append(all, b[0]), b[1:]
		}
	}
	all = append(append(all, a...), b...)
	return run{last: newer.last, commits: older.commits + newer.commits, size: sizeOf(all), changes: all}
}

// get returns the tail's value of a key, or nil if the record was deleted. If the tail has no change of the key, found is false.
func (t *tail) get(key []byte) (value []byte, found bool) {
	for _, r := range slices.Backward(t.runs) {
		if i, found := r.search(key); found {
			return r.changes[i].value, true
		}
	}
	return nil, false
}

func (r run) search(key []byte) (int, bool) {
	return slices.BinarySearchFunc(r.changes, key, func(r record, key []byte) int { return bytes.Compare(r.key, key) })
}

// scan scans the records of a range: those of the table, which base reads, with the changes of the tail.
func (t *tail) scan(in ledger.Range, base scanner, fn func(key, value []byte) (bool, error)) error {
	if len(t.runs) == 0 {
		return base(in, fn)
	}
	return ledger.Merge(t.cursor(in), base, in, fn)
}

// scanner is a [ledger.Reader] that only scans.
type scanner func(in ledger.Range, fn func(key, value []byte) (bool, error)) error

// Get implements [ledger.Reader]. Nothing calls it.
func (scanner) Get([]byte) ([]byte, error) { panic("a scanner only scans") }

// Scan implements [ledger.Reader].
func (s scanner) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	return s(in, fn)
}

// tailCursor implements [ledger.Cursor] for the changes of a tail.
type tailCursor struct {
	reverse bool
	left    [][]record // of each run what is left: used up from its beginning, or from its end if reverse. Newest run first
}

func (t *tail) cursor(in ledger.Range) *tailCursor {
	c := &tailCursor{reverse: in.Reverse}
	for _, r := range slices.Backward(t.runs) {
		from, to := 0, len(r.changes)
		if in.From != nil {
			from, _ = r.search(in.From)
		}
		if in.To != nil {
			to, _ = r.search(in.To)
		}
		if from < to {
			c.left = append(c.left, r.changes[from:to])
		}
	}
	return c
}

func (c *tailCursor) first(left []record) record {
	if c.reverse {
		return left[len(left)-1]
	}
	return left[0]
}

// Peek implements [ledger.Cursor]. If several runs have a change of the next key, the newest counts.
func (c *tailCursor) Peek() (key, value []byte, ok bool) {
	var next record
	for _, left := range c.left {
		r := c.first(left)
		order := bytes.Compare(r.key, next.key)
		if !ok || order < 0 && !c.reverse || order > 0 && c.reverse {
			next, ok = r, true
		}
	}
	return next.key, next.value, ok
}

// Next implements [ledger.Cursor].
func (c *tailCursor) Next() {
	passed, _, _ := c.Peek()
	kept := c.left[:0]
	for _, left := range c.left {
		if bytes.Equal(c.first(left).key, passed) {
			if c.reverse {
				left = left[:len(left)-1]
			} else {
				left = left[1:]
			}
		}
		if len(left) > 0 {
			kept = append(kept, left)
		}
	}
	c.left = kept
}
