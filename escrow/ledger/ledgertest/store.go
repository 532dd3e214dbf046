package ledgertest

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// NewStore returns a store in memory, as plain as can be: for tests of rules, and to compare other stores with.
func NewStore() ledger.Store {
	s := &store{}
	s.GroupCommit = ledger.NewGroupCommit(func() (ledger.Tx, error) { return &tx{snapshot: s.committed(), store: s}, nil }, 1024)
	return s
}

type store struct {
	*ledger.GroupCommit
	mu      sync.Mutex
	records snapshot // replaced, never changed
}

func (s *store) committed() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records
}

func (s *store) View(fn func(ledger.Reader) error) error { return fn(s.committed()) }

func (s *store) Close() error {
	s.GroupCommit.Close()
	return nil
}

// snapshot is records in the order of their keys.
type snapshot struct {
	keys   []string
	values map[string][]byte
}

func (s snapshot) Get(key []byte) ([]byte, error) { return s.values[string(key)], nil }

func (s snapshot) Scan(r ledger.Range, fn func(key, value []byte) (bool, error)) error {
	keys := slices.Clone(s.keys)
	if r.Reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if key < string(r.From) || r.To != nil && key >= string(r.To) {
			continue
		}
		if more, err := fn([]byte(key), bytes.Clone(s.values[key])); err != nil || !more {
			return err
		}
	}
	return nil
}

type tx struct {
	snapshot
	store *store
}

func (t *tx) Commit(changes iter.Seq2[[]byte, []byte]) error {
	values := maps.Clone(t.values)
	if values == nil {
		values = map[string][]byte{}
	}
	for key, value := range changes {
		if value == nil {
			delete(values, string(key))
			continue
		}
		values[string(key)] = bytes.Clone(value)
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	t.store.records = snapshot{keys: slices.Sorted(maps.Keys(values)), values: values}
	return nil
}

func (t *tx) Rollback() {}
