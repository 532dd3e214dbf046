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

// transaction is one group of operations on its way into the file.
type transaction struct {
	ledger.Reader
	store  *Store
	file   *file
	tx     *bbolt.Tx
	layers layers // as of the last commit
	bucket reader // what is below them
}

func (s *Store) begin() (ledger.Tx, error) {
	debug.SetPanicOnFault(true) // on the writer's goroutine, for good
	if err := s.options.fault(StepBegin); err != nil {
		return nil, err
	}
	f := s.file.Load()
	t := &transaction{store: s, file: f, layers: *f.layers.Load()}
	if err := t.begin(); err != nil {
		t.Rollback()
		return nil, err
	}
	return t, nil
}

func (t *transaction) begin() (err error) {
	defer contain(&err, bucketName)
	if t.tx, err = t.file.db.Begin(true); err != nil {
		return err
	}
	t.bucket, err = newReader(t.tx)
	t.Reader = t.layers.over(t.bucket)
	return err
}

// Rollback is [ledger.Tx]'s.
func (t *transaction) Rollback() {
	defer func() {
		if r := recover(); r != nil {
			t.file.stuck.Store(true)
		}
	}()
	if t.tx == nil {
		return
	}
	if err := t.tx.Rollback(); err != nil && !errors.Is(err, berrors.ErrTxClosed) {
		t.file.stuck.Store(true)
	}
}

// Commit is [ledger.Tx]'s. It folds a part of the frozen layer too; where there is no room for that, it does without.
func (t *transaction) Commit(changed iter.Seq2[[]byte, []byte]) error {
	defer t.Rollback() // whatever is left of it
	var changes []change
	for key, value := range changed {
		changes = append(changes, change{key, value})
	}
	after, frozen := t.layers, t.layers.frozen
	if after.frozen == nil && after.active.size >= t.store.options.LayerSize {
		// It is folded from the next commit on, when readers know of it.
		after.frozen, after.active = after.active, newLayer(after.active.journal+1)
	}
	text, offsets := encodeChanges(changes)
	before := after.active.size
	after.active = after.active.with(text, offsets)
	foldSize := max(foldLeast, foldTimes*(after.active.size-before))
	err := t.commit(after, text, frozen, foldSize)
	if refused(err) && frozen != nil {
		if err = t.begin(); err == nil {
			err = t.commit(after, text, nil, 0)
		}
	}
	if err != nil && !refused(err) {
		t.store.markUnsynced(true)
	}
	return err
}

// commit makes a text durable, folds a part of frozen, if that is not nil, and ends the transaction. after is what the layers then are.
func (t *transaction) commit(after layers, text []byte, frozen *layer, foldSize int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: committing failed: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			t.Rollback()
		}
	}()
	if err := t.store.options.fault(StepWrite); err != nil {
		return err
	}
	journal, err := t.tx.CreateBucketIfNotExists(journalName(after.active.journal))
	if err == nil {
		err = appendText(journal, text)
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	foldFrom := t.file.foldFrom
	if frozen != nil {
		var done bool
		if foldFrom, done, err = t.fold(frozen, after.active, foldFrom, foldSize); err != nil {
			return fmt.Errorf("folding the journal: %w", err)
		}
		if done {
			after.frozen = nil
		}
	}
	if err := t.store.options.fault(StepCommit); err != nil {
		return err
	}
	if err := t.tx.Commit(); err != nil {
		return err
	}
	if err := t.store.options.fault(StepSync); err != nil {
		return err
	}
	t.file.foldFrom = foldFrom
	t.file.layers.Store(&after)
	return nil
}

// fold puts a part of a layer in its place, and removes its journal with the last one.
func (t *transaction) fold(frozen, above *layer, from []byte, size int) (next []byte, done bool, err error) {
	t.bucket.bucket.FillPercent = foldFill
	if next, done, err = frozen.foldUnder(above, t.bucket.put, from, size); err != nil || !done {
		return next, false, err
	}
	return next, true, t.tx.DeleteBucket(journalName(frozen.journal))
}

// A commit folds at least foldLeast bytes of changes, and foldTimes as many as it brings, so that a layer is folded before the next
// one is full.
//
// A page that is split is left foldFill full: most records come behind those that are like them, so that half, as is bbolt's default,
// would leave room that is never used.
const (
	foldLeast = 16 << 10
	foldTimes = 2
	foldFill  = 0.7
)
