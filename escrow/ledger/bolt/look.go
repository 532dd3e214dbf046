package bolt

import (
	"bytes"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Look implements [ledger.Looker]. Records that have changed lately are in the layers. Others that were looked for lately are in [below]. So most
// look-ups need no transaction of bbolt.
func (s *Store) Look(key []byte) (value []byte, err error) {
	if s.closed.Load() {
		return nil, s.errClosed()
	}
	l := *s.file.Load().layers.Load()
	if value, found := l.get(key); found {
		return value, nil
	}
	if value, known := l.active.below.get(key); known {
		return value, nil
	}
	err = s.View(func(r ledger.Reader) error {
		value, err = r.Get(key)
		value = bytes.Clone(value)
		return err
	})
	if err == nil && s.inBucket(key, l) {
		l.active.below.put(key, value)
	}
	return value, err
}

// inBucket reports whether a record that was read after the layers l were loaded comes from the bucket, and so do all reads of it until the
// next layer is frozen, unless they find it in the layers.
func (s *Store) inBucket(key []byte, l layers) bool {
	now := *s.file.Load().layers.Load()
	_, changed := now.get(key)
	return !changed && now.active.journal == l.active.journal
}

// get returns the layers' value of a key, or nil if the record was deleted. If they have no change of the key, found is false.
func (l layers) get(key []byte) (value []byte, found bool) {
	if value, found = l.active.get(key); !found && l.frozen != nil {
		value, found = l.frozen.get(key)
	}
	return value, found
}

// below holds records of the bucket that were looked for, while a layer takes new groups. Meanwhile only records of the frozen layer are written
// to the bucket; until all of them are, they are found in that layer, and so never looked for here. The next layer has a below of its own.
type below struct {
	mu      sync.RWMutex
	records map[string][]byte // nil: there is no such record
	size    int               // of keys and values, in bytes
}

const (
	belowSize     = 4 << 20 // beyond it all records are forgotten
	belowOverhead = 64      // about the memory of a record in the map, in bytes
)

func (b *below) get(key []byte) (value []byte, known bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	value, known = b.records[string(key)]
	return value, known
}

func (b *below) put(key, value []byte) {
	size := len(key) + len(value) + belowOverhead
	if size > belowSize/64 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.records == nil || b.size+size > belowSize {
		b.records, b.size = make(map[string][]byte), 0
	}
	if _, known := b.records[string(key)]; !known {
		b.records[string(key)] = value
		b.size += size
	}
}
