package bolt

import (
	"errors"
	"fmt"
	"iter"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// transaction is one group of operations that is being applied. It reads what the groups before it left, durable or not.
type transaction struct {
	ledger.Reader
	store  *Store
	file   *file
	tx     *bbolt.Tx
	layers layers
}

func (s *Store) begin() (ledger.Tx, error) {
	debug.SetPanicOnFault(true) // on the goroutine that applies, for good
	if err := s.options.fault(StepBegin); err != nil {
		return nil, err
	}
	f := s.file.Load()
	t := &transaction{store: s, file: f, layers: f.applied.settled()}
	if err := t.begin(); err != nil {
		t.Rollback()
		return nil, err
	}
	return t, nil
}

func (t *transaction) begin() (err error) {
	defer contain(&err, bucketName)
	if t.tx, err = t.file.db.Begin(false); err != nil {
		return err
	}
	r, err := newReader(t.tx)
	t.Reader = t.layers.over(r)
	return err
}

// Commit is [ledger.Tx]'s.
func (t *transaction) Commit(changed iter.Seq2[[]byte, []byte]) (durable func() error, err error) {
	defer t.Rollback() // a commit may wait for its readers
	changes := t.file.changes[:0]
	for key, value := range changed {
		changes = append(changes, change{key, value})
	}
	defer clear(changes)
	t.file.changes = changes
	after := t.layers
	if after.frozen == nil && after.active.size >= t.store.options.LayerSize {
		after.frozen, after.active = after.active, newLayer(after.active.journal+1)
	}
	after.active = after.active.with(changes)
	t.file.applied = after
	text := encodeChanges(changes)
	return func() error { return t.store.commit(t.file, after, text) }, nil
}

// Rollback is [ledger.Tx]'s.
func (t *transaction) Rollback() { t.file.end(t.tx) }

// end ends a transaction, if there is one and it has not ended.
func (f *file) end(tx *bbolt.Tx) {
	defer func() {
		if r := recover(); r != nil {
			f.stuck.Store(true)
		}
	}()
	if tx == nil {
		return
	}
	if err := tx.Rollback(); err != nil && !errors.Is(err, berrors.ErrTxClosed) {
		f.stuck.Store(true)
	}
}

// commit makes a group durable, with its text, and folds a part of the frozen layer; after is what the layers then are. Where there
// is no room to fold, it does without.
func (s *Store) commit(f *file, after layers, text []byte) error {
	debug.SetPanicOnFault(true) // on the goroutine that commits, for good
	c := &commit{store: s, file: f, after: after, text: text, frozen: f.durable.Load().frozen}
	err := c.run()
	if refused(err) && c.frozen != nil {
		c.frozen = nil
		err = c.run()
	}
	if err != nil && !refused(err) {
		s.markUnsynced(true)
	}
	return err
}

type commit struct {
	store  *Store
	file   *file
	after  layers
	text   []byte
	frozen *layer // a layer that this group froze is folded from the next commit on, when readers know of it
}

func (c *commit) run() (err error) {
	var tx *bbolt.Tx
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: committing failed: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			c.file.end(tx)
		}
	}()
	if err := c.store.options.fault(StepWrite); err != nil {
		return err
	}
	if tx, err = c.file.db.Begin(true); err != nil {
		return err
	}
	if err := c.journal(tx); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	foldFrom, folded, err := c.fold(tx)
	if err != nil {
		return fmt.Errorf("folding the journal: %w", err)
	}
	if err := c.store.options.fault(StepCommit); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := c.store.options.fault(StepSync); err != nil {
		return err
	}
	c.file.foldFrom = foldFrom
	if folded {
		c.frozen.folded.Store(true)
	}
	after := c.after.settled()
	c.file.durable.Store(&after)
	return nil
}

// A commit folds at least foldLeast bytes of changes, and foldTimes as many as it brings, so that a layer is folded before the next
// one is full.
const (
	foldLeast = 16 << 10
	foldTimes = 2
)

func (c *commit) journal(tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(journalName(c.after.active.journal))
	if err != nil {
		return err
	}
	return appendText(b, c.text)
}

// fold puts a part of the frozen layer in its place, and removes its journal with the last one.
func (c *commit) fold(tx *bbolt.Tx) (next string, done bool, err error) {
	if c.frozen == nil {
		return c.file.foldFrom, false, nil
	}
	r, err := newReader(tx)
	if err != nil {
		return "", false, err
	}
	next, done, err = c.frozen.foldUnder(c.after.active, r.put, c.file.foldFrom, max(foldLeast, foldTimes*len(c.text)))
	if err != nil || !done {
		return next, false, err
	}
	return next, true, tx.DeleteBucket(journalName(c.frozen.journal))
}
