package escrow

import "sync"

// keyedMutex is a mutex for each key; it remembers only those that are locked.
type keyedMutex struct {
	mu     sync.Mutex
	locked map[string]*waiters
}

type waiters struct {
	sync.Mutex
	count int
}

func newKeyedMutex() *keyedMutex { return &keyedMutex{locked: map[string]*waiters{}} }

// lock waits for the key and returns the function that lets it go.
func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	w := k.locked[key]
	if w == nil {
		w = &waiters{}
		k.locked[key] = w
	}
	w.count++
	k.mu.Unlock()
	w.Lock()
	return func() {
		w.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if w.count--; w.count == 0 {
			delete(k.locked, key)
		}
	}
}
