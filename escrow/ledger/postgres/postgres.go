// Package postgres is the store for a ledger in a PostgreSQL database. Open the database with [Open], and pass the [Store] to [ledger.New].
//
// All commits have one order. It is kept by the lock of one row: the table head has a row that a commit locks before it reads, and holds
// until it has committed. The records are in the table records, in the order of their keys. The table log says for the last commits which
// records they changed.
//
// A group of operations takes two round trips, whatever the number of its operations. First the operations run on the records that this
// process has in memory, and on guesses where it has none. The first round trip takes the lock, reads what other processes have committed
// since, and reads the records that were guessed. If nothing is different, the run counts; otherwise the operations run again while the
// lock is held. The second round trip writes the changed records and commits.
//
// If a connection breaks before the server is told to commit, the operations run again on a new one. If it breaks later, the store
// finds out on a new connection whether the commit took place: the lock is free only after the old transaction has ended, and then the
// log has a row of the commit or not. So a restart of the database is a pause, and no error. If the database stays away for longer than
// [Options].Patience, the store refuses operations with [ledger.ErrUnavailable] until [Store.Reopen] succeeds.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Options are the options of [Open]. The zero value has sensible defaults.
type Options struct {
	// Patience is how long an operation waits for a database that does not answer. The default is 5s.
	Patience time.Duration
	// Lifetime is how long another gateway must show no sign of life before this one takes the ledger over. It must be the same for all
	// gateways. The default is 10s.
	Lifetime time.Duration
	// Wait is how long Open waits for another gateway to end. The default is 1.5 times Lifetime.
	Wait time.Duration
	// SynchronousCommit is a setting of the database to accept although it may lose commits: "off" or "local". Open refuses both
	// otherwise.
	SynchronousCommit string
	// CacheSize is about how many bytes of records are kept in memory. The default is 64 MiB.
	CacheSize int
	// Logger gets the messages for the operator. The default is slog.Default.
	Logger *slog.Logger
	// Dial makes the connections. The default is a net.Dialer's DialContext.
	Dial pgconn.DialFunc
	// Fault is called before each step. If it fails, the step does so too, and its outcome is not looked up. It is for tests only.
	Fault func(Step) error
}

// Step is the name of a step that can fail, for [Options].Fault.
type Step string

// The steps of a commit.
const (
	StepCommit Step = "commit" // before the changes are sent: if it fails, nothing was written
	StepAnswer Step = "answer" // after the server has answered: if it fails, everything was written
)

// Store is a ledger's store in a PostgreSQL database. While it is open, no other store can commit to this ledger.
type Store struct {
	options Options
	config  *pgxpool.Config
	pool    *pgxpool.Pool // for everything but commits
	id      int64         // of this store, chosen at random
	owner   int64         // who must be the ledger's owner when this store commits: id, or 0
	cache   *cache
	commits *ledger.GroupCommit
	writer  writer

	closing sync.Once
	closed  chan struct{}
	beating sync.WaitGroup
}

// SharedStore is a [Store] that several processes may have open at the same time.
type SharedStore struct{ *Store }

// Shared implements [ledger.Shared].
func (SharedStore) Shared() {}

const maxGroup = 1024

// Open opens the ledger in a database. The DSN is a URL or a list of words, as libpq takes them. Open makes the tables if there are none.
// If another gateway has the ledger open, Open waits for it to end; if it doesn't, the error wraps [ledger.ErrLocked].
func Open(dsn string, o Options) (*Store, error) { return openStore(dsn, o, false) }

// OpenShared is like Open for a ledger that several processes have open at the same time.
func OpenShared(dsn string, o Options) (SharedStore, error) {
	s, err := openStore(dsn, o, true)
	return SharedStore{s}, err
}

func openStore(dsn string, o Options, shared bool) (*Store, error) {
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	if o.Lifetime == 0 {
		o.Lifetime = 10 * time.Second
	}
	if o.Wait == 0 {
		o.Wait = o.Lifetime * 3 / 2
	}
	if o.CacheSize == 0 {
		o.CacheSize = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Dial != nil {
		config.ConnConfig.DialFunc = o.Dial
	}
	s := &Store{options: o, config: config, id: 1 + rand.Int64N(1<<62), cache: newCache(o.CacheSize), closed: make(chan struct{})}
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), config.Copy()); err != nil {
		return nil, fmt.Errorf("opening the ledger at %s: %w", place(config), err)
	}
	if err := s.begin(shared); err != nil {
		s.drop()
		s.pool.Close()
		return nil, fmt.Errorf("opening the ledger at %s: %w", place(config), err)
	}
	s.commits = ledger.NewGroupCommit(s.beginGroup, maxGroup)
	return s, nil
}

// begin makes what the store needs in the database.
func (s *Store) begin(shared bool) error {
	if err := s.connect(s.options.Patience); err != nil {
		return err
	}
	if err := s.migrate(); err != nil {
		return err
	}
	if shared {
		return nil
	}
	if err := s.own(); err != nil {
		return err
	}
	s.beating.Go(s.beat)
	return nil
}

// LastCommit returns how many operations the last commit had, and how long it took.
func (s *Store) LastCommit() (operations int, took time.Duration) {
	if s.commits == nil {
		return 0, 0
	}
	return s.commits.LastCommit()
}

// Submit implements [ledger.Store].
func (s *Store) Submit(op ledger.Op) { s.commits.Submit(op) }

// Close commits the queued operations and closes the connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.commits.Close()
		close(s.closed)
		s.beating.Wait()
		s.disown()
		s.drop()
		s.pool.Close()
	})
	return nil
}

// Reopen makes the store accept operations again after the database was away, or a commit failed.
func (s *Store) Reopen() error {
	return s.commits.Reopen(func() error {
		w := &s.writer
		if errors.Is(w.trouble, ledger.ErrLocked) {
			return w.trouble
		}
		s.drop()
		s.cache.forget()
		err := s.connect(0)
		if err == nil {
			w.trouble, w.losses = nil, 0
		}
		return err
	})
}

// Path names the database, without user and password.
func (s *Store) Path() string { return place(s.config) }

// Size returns how many bytes the tables and their indexes take.
func (s *Store) Size() (size int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	const sql = "select pg_total_relation_size('records') + pg_total_relation_size('log') + pg_total_relation_size('head')"
	if err := s.pool.QueryRow(ctx, sql).Scan(&size); err != nil {
		return 0, away(err)
	}
	return size, nil
}

// View implements [ledger.Store]. The first read takes the snapshot.
func (s *Store) View(fn func(ledger.Reader) error) error { return s.read(nil, fn) }

// Recent implements [ledger.Recent].
func (s *Store) Recent(fn func(ledger.Reader) error) error { return s.read(s.cache, fn) }

func (s *Store) read(known *cache, fn func(ledger.Reader) error) error {
	r := &snapshot{store: s, known: known}
	defer r.end()
	return fn(r)
}

// snapshot reads the records in one transaction. It begins with the first read that known has no answer to.
type snapshot struct {
	store *Store
	known *cache // may be nil
	conn  *pgxpool.Conn
}

// Get implements [ledger.Reader].
func (r *snapshot) Get(key []byte) ([]byte, error) {
	if r.known != nil {
		if value, is := r.known.peek(key); is {
			return value, nil
		}
	}
	var found []record
	err := r.ask(func(b *pgx.Batch) { queueGet(b, [][]byte{key}, &found) })
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0].value, nil
}

// Scan implements [ledger.Reader].
func (r *snapshot) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	read := func(in ledger.Range, most int) (*page, error) {
		p := new(page)
		return p, r.ask(func(b *pgx.Batch) { queuePage(b, in, most, p) })
	}
	first, err := read(in, firstPage)
	if err != nil {
		return err
	}
	return scan(in, first, func(in ledger.Range) (*page, error) { return read(in, nextPage) }, fn)
}

// ask makes one round trip. If the first one fails, nothing was read yet, so it is made again on another connection while there is
// patience.
func (r *snapshot) ask(queue func(*pgx.Batch)) error {
	first, deadline := r.conn == nil, time.Now().Add(r.store.options.Patience)
	pause := time.Millisecond
	for tries := 0; ; tries++ {
		err := r.try(queue)
		if err == nil {
			return nil
		}
		// After a restart of the server, each idle connection of the pool is broken.
		broken := r.conn != nil && r.conn.Conn().IsClosed() && tries < int(r.store.config.MaxConns)
		patient := mayPass(err) && r.store.commits.Err() == nil && time.Now().Add(pause).Before(deadline)
		if !first || !broken && !patient {
			return away(err)
		}
		r.end()
		if !broken {
			time.Sleep(pause)
			pause = min(2*pause, time.Second/4)
		}
	}
}

func (r *snapshot) try(queue func(*pgx.Batch)) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	b := new(pgx.Batch)
	if r.conn == nil {
		if r.conn, err = r.store.pool.Acquire(ctx); err != nil {
			return err
		}
		b.Queue("begin isolation level repeatable read read only")
	}
	queue(b)
	return r.conn.SendBatch(ctx, b).Close()
}

// end ends the transaction. A connection that is not idle then is not used again.
func (r *snapshot) end() {
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	if !r.conn.Conn().IsClosed() {
		_, _ = r.conn.Exec(ctx, "rollback")
	}
	r.conn.Release()
	r.conn = nil
}

// away turns an error of the database into one that means that the ledger can't be used now.
func away(err error) error {
	if errors.Is(err, ledger.ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: the database: %w", ledger.ErrUnavailable, err)
}

// Interface guards
var (
	_ ledger.Store    = (*Store)(nil)
	_ ledger.Reopener = (*Store)(nil)
	_ ledger.Recent   = (*Store)(nil)
	_ ledger.Shared   = SharedStore{}
)
