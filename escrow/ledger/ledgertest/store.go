package ledgertest

import (
	"bytes"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Memory keeps records in memory, in the simplest way. It is for tests, and to compare other stores with. Like a disk, it keeps the
// records after a store is closed. Several stores may be open on it at the same time, as several processes use one database, so its
// stores implement [ledger.Shared]. The zero value is empty and ready to use.
type Memory struct {
	// Contended makes each group run twice: its first commit is refused as if another process had committed meanwhile.
	Contended bool

	mu      sync.Mutex
	records snapshot // replaced, never changed
	fail    error
	kept    bool
}

// NewStore returns a store on a new Memory.
func NewStore() ledger.Store { return new(Memory).Open() }

// Open returns a store with the records.
func (m *Memory) Open() ledger.Store {
	s := &store{memory: m}
	s.commits = ledger.NewGroupCommit(s.begin, 1024)
	return s
}

// FailNext makes the next commit fail with err. The commit takes place all the same if kept is true.
func (m *Memory) FailNext(err error, kept bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.kept = err, kept
}

func (m *Memory) committed() snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records
}

type store struct {
	memory  *Memory
	commits *ledger.GroupCommit
	closed  sync.Once
	again   bool // the group was told to run again
}

func (s *store) begin() (ledger.Group, error) { return &group{s.memory.committed(), s}, nil }

func (s *store) Submit(op ledger.Op) { s.commits.Submit(op) }

func (s *store) View(fn func(ledger.Reader) error) error { return fn(s.memory.committed()) }

func (s *store) Reopen() error { return s.commits.Reopen(func() error { return nil }) }

// Shared implements [ledger.Shared].
func (s *store) Shared() {}

// Lifetime implements [ledger.Lasting]: longer than a test runs, so that a busy machine ends no session. A test of what ends sessions sets
// [ledger.Options].Lifetime.
func (s *store) Lifetime() time.Duration { return time.Hour }

func (s *store) Close() error {
	s.closed.Do(s.commits.Close)
	return nil
}

// snapshot is an immutable list of records in the order of their keys.
type snapshot struct {
	keys    []string
	values  map[string][]byte
	commits int // the number of commits before it
}

func (s snapshot) Get(key []byte) ([]byte, error) { return s.values[string(key)], nil }

func (s snapshot) Scan(r ledger.Range, fn func(key, value []byte) (bool, error)) error {
	keys := s.keys
	if i, _ := slices.BinarySearch(keys, string(r.From)); true {
		keys = keys[i:]
	}
	if r.To != nil {
		i, _ := slices.BinarySearch(keys, string(r.To))
		keys = keys[:i]
	}
	for i := range keys {
		key := keys[i]
		if r.Reverse {
			key = keys[len(keys)-1-i]
		}
		if more, err := fn([]byte(key), s.values[key]); err != nil || !more {
			return err
		}
	}
	return nil
}

type group struct {
	snapshot
	store *store
}

// Doubt implements [ledger.Doubter]: the run is in doubt if another store has committed meanwhile.
func (g *group) Doubt() bool { return g.store.memory.committed().commits != g.commits }

func (g *group) Commit(changes iter.Seq2[[]byte, []byte]) error {
	m := g.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Contended && !g.store.again {
		g.store.again = true
		return ledger.ErrRunAgain
	}
	g.store.again = false
	if m.records.commits != g.commits {
		return ledger.ErrRunAgain
	}
	next := snapshot{values: maps.Clone(g.values), commits: g.commits + 1}
	if next.values == nil {
		next.values = map[string][]byte{}
	}
	changed := false
	for key, value := range changes {
		changed = true
		if value == nil {
			delete(next.values, string(key))
			continue
		}
		next.values[string(key)] = bytes.Clone(value)
	}
	if !changed {
		return nil
	}
	fail, kept := m.fail, m.kept
	m.fail = nil
	if fail != nil && !kept {
		return fail
	}
	next.keys = slices.Sorted(maps.Keys(next.values))
	m.records = next
	return fail
}

// errInjected is the error of commits that tests make fail.
var errInjected = errors.New("injected")
