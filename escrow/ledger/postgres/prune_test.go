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

// TestPrune: the log loses its rows of more than a minute ago, and no others. In the mode Log it loses only those that are folded.
func TestPrune(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Rows, Log} {
		t.Run(string(mode), func(t *testing.T) {
			s, err := Open(pgtest.Shared(t).New(t), Options{Mode: mode, FoldPause: time.Hour, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			testPrune(t, s)
		})
	}
}

func testPrune(t *testing.T, s *Store) {
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
	rows := func(first, last int) {
		t.Helper()
		var gotFirst, gotLast int
		if err := s.pool.QueryRow(context.Background(), "select min(commit), max(commit) from log").Scan(&gotFirst, &gotLast); err != nil {
			t.Fatal(err)
		}
		if gotFirst != first || gotLast != last {
			t.Errorf("the log has the commits %d to %d, want %d to %d", gotFirst, gotLast, first, last)
		}
	}
	commit(1, 100)
	minute()
	commit(101, 200) // the commits up to 101 are less than a minute old
	minute()
	commit(201, 260)
	if s.options.Mode == Log {
		rows(1, 260)
		for _, want := range []int64{64, 128} {
			if folded, more, err := s.fold(true); folded != want || !more || err != nil {
				t.Fatalf("folded up to %d, %v, %v, want %d", folded, more, err, want)
			}
		}
		commit(261, 320)
		rows(101, 320)
		return
	}
	rows(101, 260)
}

// TestClock: the store's time is that of the database, not that of this machine's wall clock, and goes on without asking.
func TestClock(t *testing.T) {
	s, err := Open(pgtest.Shared(t).New(t), Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Submit(ledger.Op{Run: func(w ledger.Writer) error { w.Put([]byte("dx"), []byte("y")); return nil }, Done: func(error) {}}); s.Close() != nil {
		t.Fatal("the store can't be closed")
	}
	s.clock.mu.Lock()
	if s.clock.asked.IsZero() || time.Since(s.clock.then).Abs() > time.Minute {
		t.Errorf("the database was asked at %s, and said %s", s.clock.asked, s.clock.then)
	}
	s.clock.then = s.clock.then.Add(-time.Hour)
	s.clock.mu.Unlock()
	if late := time.Since(s.Now()); late < 59*time.Minute || late > 61*time.Minute {
		t.Errorf("beside a database whose clock is an hour late, the store's is %s late", late)
	}
}
