package ledger

import (
	"testing"
	"time"
)

// TestCommitsAreObserved: the observer is told of each operation once, in the group in which it was committed. A group that writes nothing is no
// commit.
func TestCommitsAreObserved(t *testing.T) {
	t.Parallel()
	s := newPlain()
	operations := make(chan int, 100)
	s.Observe(func(n int, took time.Duration) {
		if took <= 0 {
			t.Errorf("a group of %d took %s", n, took)
		}
		operations <- n
	})
	const submitted = 40 // more than fit in one group
	for range submitted {
		s.Submit(Op{Run: func(w Writer) error { w.Put([]byte("key"), []byte("value")); return nil }, Done: func(error) {}})
	}
	written := make(chan error)
	s.Submit(Op{Run: func(Writer) error { return nil }, Done: func(err error) { written <- err }})
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.Submit(Op{Run: func(w Writer) error { w.Put([]byte("key"), nil); return errPanic }, Done: func(error) {}}) // taken back, in a group of its own
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(operations)
	sum, groups := 0, 0
	for n := range operations {
		sum, groups = sum+n, groups+1
	}
	if sum != submitted && sum != submitted+1 || groups < 3 { // the first that writes nothing may have come into the last group
		t.Errorf("%d operations in %d groups were observed, %d were submitted, at most 16 in a group", sum, groups, submitted)
	}
}
