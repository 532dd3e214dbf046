package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// own makes this store the owner of the ledger. It waits for another owner to give the ledger up. An owner that has not committed and not
// counted up its beat for one lifetime, by this machine's clock, is taken for dead. If it isn't, its next commit is refused.
func (s *Store) own() error {
	type life struct{ owner, beat, commit int64 }
	var seen life
	began := time.Now()
	since := began
	for {
		var now life
		var owned bool
		dead := time.Since(since) >= s.options.Lifetime
		err := s.alone(func(ctx context.Context, tx pgx.Tx) error {
			err := tx.QueryRow(ctx, "select owner, beat, commit from head where id = 1 for update").Scan(&now.owner, &now.beat, &now.commit)
			if owned = err == nil && (now.owner == 0 || now == seen && dead); owned {
				_, err = tx.Exec(ctx, "update head set owner = $1 where id = 1", s.id)
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case owned:
			if now.owner != 0 {
				s.options.Logger.Warn("took over the ledger of a gateway that shows no sign of life", "silent", time.Since(since).Round(time.Second))
			}
			s.owner = s.id
			return nil
		case time.Since(began) >= s.options.Wait:
			return fmt.Errorf("%w: another gateway serves on this database, and only one may for now; stop it, and start this one again", ledger.ErrLocked)
		case now != seen:
			seen, since = now, time.Now()
		}
		time.Sleep(s.options.Lifetime / 40)
	}
}

// beat shows that this store lives, until it is closed.
func (s *Store) beat() {
	for {
		select {
		case <-s.closed:
			return
		case <-time.After(s.options.Lifetime / 4):
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.options.Lifetime/4)
		if _, err := s.pool.Exec(ctx, "update head set beat = beat + 1 where id = 1 and owner = $1", s.id); err != nil {
			s.options.Logger.Warn("the database does not answer", "error", err)
		}
		cancel()
	}
}

// disown gives the ledger up, so that another gateway need not wait.
func (s *Store) disown() {
	if s.owner == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	if _, err := s.pool.Exec(ctx, "update head set owner = 0 where id = 1 and owner = $1", s.id); err != nil {
		s.options.Logger.Warn("the ledger could not be given up: the next gateway waits until it takes this one for dead", "error", err)
	}
}

// alone runs a short transaction on the pool.
func (s *Store) alone(fn func(context.Context, pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return fn(ctx, tx) })
}
