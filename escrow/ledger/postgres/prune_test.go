//go:build unix

package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// TestPrune: the log loses its rows of more than a minute ago, and no others.
func TestPrune(t *testing.T) {
	t.Parallel()
	s, err := Open(pgtest.Shared(t).New(t), Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	commit := func(from, to int) {
		for i := from; i <= to; i++ {
			done := make(chan error, 1)
			s.Submit(ledger.Op{
				Run:  func(w ledger.Writer) error { w.Put([]byte("d"), fmt.Append(nil, i)); return nil },
				Done: func(err error) { done <- err },
			})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	minute := func() { // as if a minute had passed
		s.commits.Reopen(func() error { s.writer.marked = time.Now().Add(-time.Hour); return nil })
	}
	commit(1, 100)
	minute()
	commit(101, 200) // the commits up to 101 are less than a minute old
	minute()
	commit(201, 260)
	var first, last int
	if err := s.pool.QueryRow(context.Background(), "select min(commit), max(commit) from log").Scan(&first, &last); err != nil {
		t.Fatal(err)
	}
	if first != 101 || last != 260 {
		t.Errorf("the log has the commits %d to %d, want 101 to 260", first, last)
	}
}
