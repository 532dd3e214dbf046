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

// group implements [ledger.Group]: the transaction of one group of operations.
type group struct {
	ledger.Reader
	store  *Store
	file   *file
	tx     *bbolt.Tx
	layers layers // as of the last commit
	bucket reader // the bucket below the layers
}

func (s *Store) begin() (ledger.Group, error) {
	debug.SetPanicOnFault(true) // applies to the writer's goroutine, until it ends
	if err := s.options.fault(StepBegin); err != nil {
		return nil, err
	}
	f := s.file.Load()
	g := &group{store: s, file: f, layers: *f.layers.Load()}
	if err := g.begin(); err != nil {
		g.rollback()
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

// rollback ends the transaction without writing anything. It does nothing if the transaction has ended.
func (g *group) rollback() {
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

// Commit implements [ledger.Group]. It also folds a part of the frozen layer, if the disk has room for that.
func (g *group) Commit(changed iter.Seq2[[]byte, []byte]) error {
	defer g.rollback()
	changes := g.store.changes[:0]
	for key, value := range changed {
		changes = append(changes, change{key, value})
	}
	if len(changes) == 0 {
		return nil
	}
	defer func() { g.store.keepChanges(changes) }()
	after, frozen := g.layers, g.layers.frozen
	if after.frozen == nil && after.active.size >= g.store.options.LayerSize {
		// The frozen layer is folded from the next commit on, when readers know about it.
		after.frozen, after.active = after.active, newLayer(after.active.journal+1, after.active.newest.size())
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

// mostChanges bounds the memory that is kept for the changes of the next group.
const mostChanges = 1 << 14

// keepChanges keeps the memory of a group's changes for the next group.
func (s *Store) keepChanges(changes []change) {
	clear(changes)
	if s.changes = changes; cap(changes) > mostChanges {
		s.changes = nil
	}
}

// commit appends a text to the journal, folds a part of frozen unless it is nil, and commits the transaction. after are the layers after
// the commit.
func (g *group) commit(after layers, text []byte, frozen *layer, foldSize int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: committing failed: %v", ledger.ErrCorrupt, r)
		}
		if err != nil {
			g.rollback()
		}
	}()
	if err := g.store.options.fault(StepWrite); err != nil {
		return err
	}
	g.store.sealed.begin()
	journal, err := g.tx.CreateBucketIfNotExists(journalName(after.active.journal))
	if err == nil {
		err = appendText(journal, text, &g.store.sealed)
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	foldFrom := g.file.foldFrom
	if frozen != nil {
		var done bool
		if foldFrom, done, err = g.fold(frozen, foldFrom, foldSize); err != nil {
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

// fold writes a part of a layer to the bucket. With the last part it deletes the layer's journal.
func (g *group) fold(frozen *layer, from []byte, size int) (next []byte, done bool, err error) {
	g.bucket.bucket.FillPercent = foldFill
	if next, done, err = frozen.fold(func(c change) error { return g.bucket.put(c, &g.store.sealed) }, from, size); err != nil || !done {
		return next, false, err
	}
	return next, true, g.tx.DeleteBucket(journalName(frozen.journal))
}

// A commit folds at least foldLeast bytes of changes, and foldTimes as many bytes as it adds. So a layer is folded before the next one is
// full.
//
// When a page is split, the first part is left foldFill full. bbolt's default, one half, would leave room that is never used, since most
// new records come after the others of their kind.
const (
	foldLeast = 16 << 10
	foldTimes = 2
	foldFill  = 0.7
)
