package postgres

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// clock is the time of the database, as it was asked for last and has gone on since by this machine's monotonic clock. So all processes have
// the same time, whatever their own clocks say, and reading it takes no round trip.
type clock struct {
	mu    sync.Mutex
	then  time.Time // of the database
	asked time.Time // when it was asked, by this machine
}

// clockAgain is the time after which the clock is asked again.
const clockAgain = time.Second

const clockSQL = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"

// Now implements [ledger.Clock].
func (s *Store) Now() time.Time {
	c := &s.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.IsZero() {
		return time.Now()
	}
	return c.then.Add(time.Since(c.asked))
}

// queueClock asks for the time in a round trip that is made anyway, if that was not done for a while.
func (s *Store) queueClock(b *pgx.Batch) {
	c := &s.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked.IsZero() && time.Since(c.asked) < clockAgain {
		return
	}
	b.Queue(clockSQL).QueryRow(func(row pgx.Row) error {
		var micros int64
		if err := row.Scan(&micros); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.then, c.asked = time.UnixMicro(micros), time.Now()
		return nil
	})
}
