// Package ledgercopy copies a ledger from one store to another, whatever their kinds. [Copy] moves a ledger to another place; [Snapshot]
// copies one that is in use.
package ledgercopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

var (
	// ErrExists is returned if there is a ledger in the target already.
	ErrExists = errors.New("there is a ledger already")
	// ErrChanged is returned if the ledger was changed while it was copied. The copy is not finished.
	ErrChanged = errors.New("the ledger was changed while it was copied")
)

// metaPrefix is the first byte of the records that make a ledger of a store. They are copied last, so that nothing opens a copy that is not
// finished: the ledger package refuses records without them as damaged.
const metaPrefix = 'm'

const (
	pageRecords  = 4096    // read of the target in one view
	batchRecords = 1024    // written in one operation
	batchBytes   = 1 << 20 // the same
	mostInFlight = 4       // operations that are not answered yet
)

// Copy makes a target have exactly the records of a ledger. Records that it has already are not written again: so a copy that was interrupted
// goes on where it stopped, and a second one after small changes is quick. Nothing can be opened in the target before Copy has ended. The
// ledger must not change meanwhile; if it does, Copy returns [ErrChanged] at its end, and may be called again. progress is told how many
// records were compared; it may be nil.
func Copy(ctx context.Context, from, to ledger.Store, progress func(records int64)) error {
	return copyAll(ctx, from, to, progress, true)
}

// Snapshot is like [Copy], but copies the ledger as of when it began. The ledger may change meanwhile.
func Snapshot(ctx context.Context, from, to ledger.Store, progress func(records int64)) error {
	return copyAll(ctx, from, to, progress, false)
}

func copyAll(ctx context.Context, from, to ledger.Store, progress func(records int64), still bool) error {
	if there, err := meta(to); err != nil || len(there) > 0 {
		return errors.Join(err, exists(there))
	}
	c := &copier{ctx: ctx, target: pages{store: to}, out: writer{store: to}, progress: progress}
	if err := errors.Join(from.View(c.compare), c.out.flush(), c.out.wait(0)); err != nil {
		return err
	}
	if len(c.meta) == 0 {
		return errors.New("there is no ledger to copy")
	}
	if still {
		now, err := meta(from)
		if err != nil {
			return err
		}
		if !equal(now, c.meta) {
			return fmt.Errorf("%w: stop what uses it, and copy again; what was copied is kept", ErrChanged)
		}
	}
	for _, r := range c.meta {
		if err := c.out.put(r.key, r.value); err != nil {
			return err
		}
	}
	return errors.Join(c.out.flush(), c.out.wait(0))
}

func exists(there []record) error {
	if len(there) == 0 {
		return nil
	}
	return ErrExists
}

type record struct{ key, value []byte }

func equal(a, b []record) bool {
	for i := range a {
		if i >= len(b) || !bytes.Equal(a[i].key, b[i].key) || !bytes.Equal(a[i].value, b[i].value) {
			return false
		}
	}
	return len(a) == len(b)
}

// meta reads the records that make a ledger of a store. There are none in an empty store, and in a copy that is not finished.
func meta(s ledger.Store) (list []record, err error) {
	err = s.View(func(r ledger.Reader) error {
		return r.Scan(ledger.Prefix([]byte{metaPrefix}), func(key, value []byte) (bool, error) {
			list = append(list, record{bytes.Clone(key), bytes.Clone(value)})
			return true, nil
		})
	})
	return list, err
}

// copier compares the records of both stores, in the order of their keys.
type copier struct {
	ctx      context.Context
	target   pages
	out      writer
	meta     []record
	records  int64
	progress func(int64)
}

func (c *copier) compare(r ledger.Reader) error {
	err := r.Scan(ledger.Range{}, func(key, value []byte) (bool, error) {
		if c.records++; c.records%batchRecords == 0 {
			if err := context.Cause(c.ctx); err != nil {
				return false, err
			}
			c.tell()
		}
		if key[0] == metaPrefix {
			c.meta = append(c.meta, record{bytes.Clone(key), bytes.Clone(value)})
			return true, nil
		}
		for {
			there, more, err := c.target.peek()
			if err != nil {
				return false, err
			}
			order := 1
			if more {
				order = bytes.Compare(there.key, key)
			}
			if order <= 0 {
				c.target.next()
			}
			switch {
			case order < 0:
				err = c.out.delete(there.key)
			case order == 0 && bytes.Equal(there.value, value):
				return true, nil
			default:
				return true, c.out.put(bytes.Clone(key), bytes.Clone(value))
			}
			if err != nil {
				return false, err
			}
		}
	})
	for err == nil { // the target may have records after the last one
		there, more, failed := c.target.peek()
		if failed != nil || !more {
			err = failed
			break
		}
		c.target.next()
		err = c.out.delete(there.key)
	}
	c.tell()
	return err
}

func (c *copier) tell() {
	if c.progress != nil {
		c.progress(c.records)
	}
}

// pages reads the records of a store page by page, each in a view of its own.
type pages struct {
	store ledger.Store
	page  []record
	from  []byte
	ended bool
}

// peek returns the next record. At the end, more is false.
func (p *pages) peek() (r record, more bool, err error) {
	if len(p.page) == 0 && !p.ended {
		if err := p.read(); err != nil {
			return r, false, err
		}
	}
	if len(p.page) == 0 {
		return r, false, nil
	}
	return p.page[0], true, nil
}

func (p *pages) next() { p.page = p.page[1:] }

func (p *pages) read() error {
	p.page = nil
	err := p.store.View(func(r ledger.Reader) error {
		return r.Scan(ledger.Range{From: p.from}, func(key, value []byte) (bool, error) {
			p.page = append(p.page, record{bytes.Clone(key), bytes.Clone(value)})
			return len(p.page) < pageRecords, nil
		})
	})
	if p.ended = len(p.page) < pageRecords; !p.ended {
		p.from = append(bytes.Clone(p.page[len(p.page)-1].key), 0)
	}
	return err
}

// writer writes records, many in one operation.
type writer struct {
	store   ledger.Store
	batch   []record // a nil value deletes
	size    int
	answers []chan error // of the operations in flight
}

func (w *writer) put(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return w.add(record{key, value})
}

func (w *writer) delete(key []byte) error { return w.add(record{key: key}) }

func (w *writer) add(r record) error {
	w.batch = append(w.batch, r)
	if w.size += len(r.key) + len(r.value); len(w.batch) < batchRecords && w.size < batchBytes {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	batch := w.batch
	if w.batch, w.size = nil, 0; len(batch) == 0 {
		return nil
	}
	done := make(chan error, 1)
	w.store.Submit(ledger.Op{
		Run: func(to ledger.Writer) error {
			for _, r := range batch {
				if r.value == nil {
					to.Delete(r.key)
				} else {
					to.Put(r.key, r.value)
				}
			}
			return nil
		},
		Done: func(err error) { done <- err },
	})
	w.answers = append(w.answers, done)
	return w.wait(mostInFlight)
}

// wait waits until no more than some operations are in flight.
func (w *writer) wait(most int) error {
	var failed error
	for ; len(w.answers) > most; w.answers = w.answers[1:] {
		failed = errors.Join(failed, <-w.answers[0])
	}
	return failed
}
