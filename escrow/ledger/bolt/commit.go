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

// group is one group of operations on its way into the file.
type group struct {
	ledger.Reader
	store  *Store
	file   *file
	tx     *bbolt.Tx
	layers layers // as of the last commit
	bucket reader // what is below them
}

func (s *Store) begin() (ledger.Group, error) {
	debug.SetPanicOnFault(true) // on the writer's goroutine, for good
	if err := s.options.fault(StepBegin); err != nil {
		return nil, err
	}
	f := s.file.Load()
	g := &group{store: s, file: f, layers: *f.layers.Load()}
	if err := g.begin(); err != nil {
		g.Rollback()
		return nil, err
	}
	return g, nil
}

func (g *group) begin() (err error) {
	defer contain(&err, bucketName)
	if g.tx, err = g.file.db.Begin(true); err != nil {
		return err
	}
	g.bucket, err = newReader(g.tx)
	g.Reader = g.layers.over(g.bucket)
	return err
}

// Rollback is [ledger.Group]'s.
func (g *group) Rollback() {
	defer func() {
		if r := recover(); r != nil {
			g.file.stuck.Store(true)
		}
	}()
	if g.tx == nil {
		return
	}
	if err := g.tx.Rollback(); err != nil && !errors.Is(err, berrors.ErrTxClosed) {
		g.file.stuck.Store(true)
	}
}

// Commit is [ledger.Group]'s. It folds a part of the frozen layer too; where there is no room for that, it does without.
func (g *group) Commit(changed iter.Seq2[[]byte, []byte]) error {
	defer g.Rollback() // whatever is left of it
	var changes []change
	for key, value := range changed {
		changes = append(changes, change{key, value})
	}
	after, frozen := g.layers, g.layers.frozen
	if after.frozen == nil && after.active.size >= g.store.options.LayerSize {
		// It is folded from the next commit on, when readers know of it.
		after.frozen, after.active = after.active, newLayer(after.active.journal+1)
	}
	text, offsets := encodeChanges(changes)
	before := after.active.size
	after.active = after.active.with(text, offsets)
	foldSize := max(foldLeast, foldTimes*(after.active.size-before))
	err := g.commit(after, text, frozen, foldSize)
	if refused(err) && frozen != nil {
		if err = g.begin(); err == nil {
			err = g.commit(after, text, nil, 0)
		}
	}
	if err != nil && !refused(err) {
		g.store.markUnsynced(true)
	}
	return err
}

// commit makes a text durable, folds a part of frozen, if that is not nil, and ends the transaction. after is what the layers then are.
func (g *group) commit(after layers, text []byte, frozen *layer, foldSize int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: committing failed: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			g.Rollback()
		}
	}()
	if err := g.store.options.fault(StepWrite); err != nil {
		return err
	}
	journal, err := g.tx.CreateBucketIfNotExists(journalName(after.active.journal))
	if err == nil {
		err = appendText(journal, text)
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	foldFrom := g.file.foldFrom
	if frozen != nil {
		var done bool
		if foldFrom, done, err = g.fold(frozen, after.active, foldFrom, foldSize); err != nil {
			return fmt.Errorf("folding the journal: %w", err)
		}
		if done {
			after.frozen = nil
		}
	}
	if err := g.store.options.fault(StepCommit); err != nil {
		return err
	}
	if err := g.tx.Commit(); err != nil {
		return err
	}
	if err := g.store.options.fault(StepSync); err != nil {
		return err
	}
	g.file.foldFrom = foldFrom
	g.file.layers.Store(&after)
	return nil
}

// fold puts a part of a layer in its place, and removes its journal with the last one.
func (g *group) fold(frozen, above *layer, from []byte, size int) (next []byte, done bool, err error) {
	g.bucket.bucket.FillPercent = foldFill
	if next, done, err = frozen.foldUnder(above, g.bucket.put, from, size); err != nil || !done {
		return next, false, err
	}
	return next, true, g.tx.DeleteBucket(journalName(frozen.journal))
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
