package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/internal/rounds"
)

// TestLookIsLastCommit: while layers are filled, frozen and folded, Look never returns less than what was committed when it was called, and
// at rest it returns what View returns, of each record, also of those that were never written or are deleted.
func TestLookIsLastCommit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 4 << 10, 64 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s, err := Open(filepath.Join(t.TempDir(), "ledger.db"), Options{NoSync: true, LayerSize: size})
			must(t, err)
			const keys = 60
			key := func(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }
			var committed [keys]uint64
			var mu sync.Mutex // guards committed
			var reading sync.WaitGroup
			stop := make(chan struct{})
			for range 3 {
				reading.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						i := n % keys
						mu.Lock()
						least := committed[i]
						mu.Unlock()
						value, err := s.Look(key(i))
						must(t, err)
						if got := number(value); got < least {
							t.Errorf("%s is %d by Look, but %d was committed before", key(i), got, least)
							return
						}
						runtime.Gosched() // else a commit waits for the processor far longer than it takes
					}
				})
			}
			random := rand.New(rand.NewPCG(1, uint64(size)))
			commits := uint64(rounds.Of(300, 1500))
			for n := uint64(1); n <= commits; n++ {
				i := random.IntN(keys - 5) // the last ones are never written
				must(t, do(s, func(w ledger.Writer) { w.Put(key(i), binary.BigEndian.AppendUint64(nil, n)) }))
				mu.Lock()
				committed[i] = n
				mu.Unlock()
				if n%(commits/30) == 0 { // enough to fold the largest layer
					must(t, do(s, func(w ledger.Writer) { w.Put([]byte("other"), make([]byte, 3000)) }))
				}
			}
			close(stop)
			reading.Wait()
			must(t, do(s, func(w ledger.Writer) { w.Delete(key(0)) }))
			for range 2 { // the second time from what the first has found
				for i := range keys {
					looked, err := s.Look(key(i))
					must(t, err)
					must(t, s.View(func(r ledger.Reader) error {
						viewed, err := r.Get(key(i))
						if string(viewed) != string(looked) || (viewed == nil) != (looked == nil) {
							t.Errorf("%s is %q by Look, %q by View", key(i), looked, viewed)
						}
						return err
					}))
				}
			}
			must(t, s.Close())
			if _, err := s.Look(key(1)); !errors.Is(err, ledger.ErrClosed) {
				t.Errorf("Look after Close: %v", err)
			}
		})
	}
}

func number(value []byte) uint64 {
	if value == nil {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// TestBelowIsBounded: what Look remembers does not grow with the number of keys that are looked for.
func TestBelowIsBounded(t *testing.T) {
	t.Parallel()
	var b below
	for i := range 200_000 {
		b.put(fmt.Appendf(nil, "key-%d", i), nil)
		if b.size > belowSize {
			t.Fatalf("%d bytes after %d keys", b.size, i)
		}
	}
	b.put([]byte("large"), make([]byte, belowSize))
	if _, known := b.get([]byte("large")); known {
		t.Error("a large record was kept")
	}
}
