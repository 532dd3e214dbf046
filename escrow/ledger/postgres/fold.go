package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// folder writes what commits have left in the log into the table of records. Each gateway has one. Who gets the lock of the fold mark
// folds, for all; the others have nothing to do meanwhile.
type folder struct {
	mu   sync.Mutex
	conn *pgx.Conn     // nil if there is none
	wake chan struct{} // has room for one: a message means that there is something to fold
}

const (
	mostFolded = 64              // commits in one fold
	foldTime   = time.Minute     // after which a fold that does not end is given up
	foldPause  = 5 * time.Second // after which a gateway looks whether another one has left something
)

const (
	foldMarkSQL = `select folded, (select logged from head where id = 1) from fold where id = 1 for update`
	// A fold first deletes every record that is deleted somewhere in it, and then puts the last value of each key, if there is one.
	foldDeleteSQL = `delete from records where key in (select u.key from log l, unnest(l.keys, l.new_values) as u(key, value)
		where l.commit > $1 and l.commit <= $2 and l.new_values is not null and u.value is null)`
	foldPutSQL = `insert into records (key, value) select key, value from (
			select distinct on (u.key) u.key, u.value from log l, unnest(l.keys, l.new_values) as u(key, value)
			where l.commit > $1 and l.commit <= $2 and l.new_values is not null order by u.key, l.commit desc
		) as newest where value is not null
		on conflict (key) do update set value = excluded.value`
)

// wakeFolder tells the folder that there is something to fold.
func (s *Store) wakeFolder() {
	select {
	case s.folder.wake <- struct{}{}:
	default:
	}
}

// foldAll folds until the store is closed.
func (s *Store) foldAll() {
	for {
		select {
		case <-s.closed:
			return
		case <-s.folder.wake:
		case <-time.After(max(foldPause, s.options.FoldPause)):
		}
		select { // what is committed meanwhile is folded together: a record that changes often is written once
		case <-s.closed:
			return
		case <-time.After(s.options.FoldPause):
		}
		for more := true; more; {
			var err error
			if _, more, err = s.fold(false); err != nil {
				s.options.Logger.Warn("what the log has can't be written into the records now; it is tried again", "error", err)
			}
		}
	}
}

// fold folds some commits, and returns up to which one everything is folded then, and whether more is left. If another gateway is folding,
// fold waits for it, or returns -1.
func (s *Store) fold(wait bool) (folded int64, more bool, err error) {
	f := &s.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), foldTime)
	defer cancel()
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.conn == nil {
		if f.conn, err = s.connectFolder(ctx); err != nil {
			return -1, false, err
		}
	}
	sql := foldMarkSQL
	if !wait {
		sql += " skip locked"
	}
	var from, logged int64
	b := new(pgx.Batch)
	b.Queue("begin isolation level read committed")
	b.Queue(sql).QueryRow(func(row pgx.Row) error { return row.Scan(&from, &logged) })
	err = f.conn.SendBatch(ctx, b).Close()
	upTo := min(logged, from+mostFolded)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // another gateway folds
		from, err = -1, nil
		fallthrough
	case err == nil && upTo <= from:
		_, err = f.conn.Exec(ctx, "rollback")
		return from, false, err
	case err != nil:
		return -1, false, err
	}
	b = new(pgx.Batch)
	b.Queue(foldDeleteSQL, from, upTo)
	b.Queue(foldPutSQL, from, upTo)
	b.Queue("update fold set folded = $1 where id = 1", upTo)
	b.Queue("commit")
	if err = f.conn.SendBatch(ctx, b).Close(); err != nil {
		return -1, false, err
	}
	return upTo, upTo < logged, nil
}

func (f *folder) close() {
	if f.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = f.conn.Close(ctx)
	}
	f.conn = nil
}

// connectFolder connects the folder. A fold that is lost in a crash of the server is made again, so it need not wait for the disk.
func (s *Store) connectFolder(ctx context.Context) (*pgx.Conn, error) {
	config := s.config.ConnConfig.Copy()
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "1000"
	config.RuntimeParams["synchronous_commit"] = "off"
	config.RuntimeParams["work_mem"] = "64MB" // for sorting a fold
	conn, err := pgx.ConnectConfig(ctx, config)
	return conn, withoutSecrets(err)
}

// makeRoom folds before the next group begins if this process has too much in memory that is not folded.
func (s *Store) makeRoom() error {
	w := &s.writer
	for w.tail.size > s.options.TailSize {
		folded, more, err := s.fold(true)
		if err != nil && !mayPass(err) {
			return fmt.Errorf("writing what the log has into the records: %w", err)
		}
		if err != nil {
			return nil // the database is away, which the group finds out, too
		}
		w.tail = w.tail.folded(folded)
		if !more {
			return nil
		}
	}
	return nil
}
