package postgres

import (
	"slices"
	"sync"
)

// cache knows the values of some records as of one commit, and of some keys that there is no record. Only the writer changes it. When its
// young generation is full, that becomes the old one, and what was not used since the last such change is forgotten.
type cache struct {
	fresh map[string][]byte // what may not be durable yet: the writer alone knows it

	mu         sync.RWMutex
	young, old map[string][]byte // nil values: there is no such record
	size       int               // of young, in bytes
	most       int               // that young takes

	wished map[string]struct{} // keys that readers have looked for, which the writer will read
}

// maxWished is how many keys are wished for at the same time.
const maxWished = 256

// wish says that a reader has looked for a key that the cache does not know.
func (c *cache) wish(key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wished) < maxWished {
		c.wished[string(key)] = struct{}{}
	}
}

// wishes returns the keys that were wished for, and forgets them.
func (c *cache) wishes() (keys [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.wished {
		keys = append(keys, []byte(key))
	}
	clear(c.wished)
	return keys
}

const entrySize = 100 // about what a record takes besides its key and value

func newCache(most int) *cache {
	c := &cache{most: most / 2, wished: make(map[string]struct{})}
	c.forget()
	return c
}

// forget makes the cache empty.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh, c.young, c.old, c.size = map[string][]byte{}, map[string][]byte{}, nil, 0
}

// peek returns the value of a key as of the last commit that is durable, nil if there is no record, and whether the cache knows this.
func (c *cache) peek(key []byte) (value []byte, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if value, known = c.young[string(key)]; !known {
		value, known = c.old[string(key)]
	}
	return value, known
}

// get is like peek, for the writer: it also knows what may not be durable, and what it uses is kept for longer.
func (c *cache) get(key []byte) (value []byte, known bool) {
	if value, known = c.fresh[string(key)]; known {
		return value, true
	}
	if value, known = c.young[string(key)]; known {
		return value, true
	}
	if value, known = c.old[string(key)]; known {
		c.put(key, value)
	}
	return value, known
}

// put takes in a record as of the last commit that the writer knows.
func (c *cache) put(key, value []byte) { c.fresh[string(key)] = value }

// show shows the readers what was put, since that is durable now.
func (c *cache) show() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, value := range c.fresh {
		c.set(key, value)
	}
	c.fresh = make(map[string][]byte, len(c.fresh)) // the next group is about as large
}

func (c *cache) set(key string, value []byte) {
	before, known := c.young[key]
	if known {
		c.size -= len(before)
	} else {
		c.size += len(key) + entrySize
	}
	c.size += len(value)
	c.young[key] = value
	if c.size > c.most {
		c.young, c.old, c.size = map[string][]byte{}, c.young, 0
	}
}

// keys returns the keys of all records that the cache knows and that are durable, in their order.
func (c *cache) keys() (list []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for key, value := range c.young {
		if value != nil {
			list = append(list, key)
		}
	}
	for key, value := range c.old {
		if _, newer := c.young[key]; !newer && value != nil {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}
