// Package postgres is the store for a ledger in a PostgreSQL database. Open the database with [Open], and pass the [Store] to [ledger.New].
//
// All commits have one order. It is kept by the lock of one row: the table head has a row that a commit locks before it reads, and holds
// until it has committed. The records are in the table records, in the order of their keys. The table log says for the last commits which
// records they changed.
//
// A group of operations takes two round trips, whatever the number of its operations. First the operations run on the records that this
// process has in memory, and on guesses where it has none. The first round trip takes the lock, reads what other processes have committed
// since, and reads the records that were guessed. If nothing is different, the run counts; otherwise the operations run again while the
// lock is held. The second round trip writes the changes and commits. It also waits for the disk, when the lock is free again already: see
// flush.go.
//
// In the mode [Rows] a commit writes the records that it changes. In the mode [Log] it writes only a row of the log, with the new values,
// and a fold writes the records of several commits later, in a transaction that needs no lock of the commits. What may not be folded is
// in memory, in a tail; reads look there first. See [docs/ledger.md].
//
// If a connection breaks before the server is told to commit, the operations run again on a new one. If it breaks later, the store
// finds out on a new connection whether the commit took place: the lock is free only after the old transaction has ended, and then the
// log has a row of the commit or not. So a restart of the database is a pause, and no error. If the database stays away for longer than
// [Options].Patience, the store refuses operations with [ledger.ErrUnavailable] until [Store.Reopen] succeeds. If the database has lost
// commits that it had confirmed, as after a failover to a standby that was behind, everything is refused with [ErrLost].
//
// [docs/ledger.md]: https://github.com/tallygate/tallygate/blob/main/docs/ledger.md
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Mode is a way to write the records of a commit. Gateways on one database may have different modes, and a gateway may be started with
// another mode than before.
type Mode string

const (
	// Rows writes the records in the commit.
	Rows Mode = "rows"
	// Log writes one row of the log in the commit. A moment later another transaction writes the records of several commits together.
	Log Mode = "log"
)

// Options are the options of [Open]. The zero value has sensible defaults.
type Options struct {
	// Patience is how long an operation waits for a database that does not answer. The default is 5s.
	Patience time.Duration
	// Lifetime is how long a process shows no sign of life until the others end its session. It must be the same for all processes on a
	// ledger. The default is that of the ledger.
	Lifetime time.Duration
	// SynchronousCommit is a setting of the database to accept although it may lose commits: "off" or "local". Open refuses both
	// otherwise.
	SynchronousCommit string
	// ReadOnly opens an existing ledger for reading only, whoever else uses it. It also works on a standby. It may read what a crash of the
	// server takes back a moment later, since it can't flush.
	ReadOnly bool
	// Mode is how the records are written. The default is Log.
	Mode Mode
	// FoldPause is how long commits wait to be folded together in the mode Log. The default is 20ms.
	FoldPause time.Duration
	// TailSize is about how many bytes of changes may wait in memory to be folded. Beyond it a group waits for the fold. The default is
	// 32 MiB.
	TailSize int
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

// Store is a ledger's store in a PostgreSQL database. Several processes may have stores open on the same database.
type Store struct {
	options Options
	config  *pgxpool.Config
	pool    *pgxpool.Pool // for everything but commits
	cache   *cache
	latest  atomic.Pointer[tail] // the newest that this process knows of
	durable durable
	folder  folder
	commits *ledger.GroupCommit
	clock   clock
	writer  writer

	closing sync.Once
	closed  chan struct{}
	working sync.WaitGroup // in the background
}

// Shared implements [ledger.Shared].
func (*Store) Shared() {}

// Lifetime implements [ledger.Lasting].
func (s *Store) Lifetime() time.Duration { return s.options.Lifetime }

const maxGroup = 1024

// Open opens the ledger in a database. The DSN is a URL or a list of words, as libpq takes them. Open makes the tables if there are none.
func Open(dsn string, o Options) (*Store, error) {
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if o.Mode != Rows && o.Mode != Log {
		return nil, fmt.Errorf("the mode %q: expected %q or %q", o.Mode, Rows, Log)
	}
	if o.Dial != nil {
		config.ConnConfig.DialFunc = o.Dial
	}
	if o.ReadOnly {
		config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	}
	s := &Store{options: o, config: config, cache: newCache(o.CacheSize), closed: make(chan struct{})}
	s.folder.wake = make(chan struct{}, 1)
	s.writer.tail = unknown
	s.latest.Store(unknown)
	s.durable.newest.Store(&unknown.point)
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), config.Copy()); err != nil {
		return nil, fmt.Errorf("opening the ledger at %s: %w", place(config), err)
	}
	if err := s.begin(); err != nil {
		s.drop()
		s.pool.Close()
		return nil, fmt.Errorf("opening the ledger at %s: %w", place(config), err)
	}
	if o.ReadOnly {
		return s, nil
	}
	s.commits = ledger.NewGroupCommit(s.beginGroup, maxGroup)
	s.working.Go(s.foldAll)
	return s, nil
}

func (o Options) withDefaults() Options {
	o.Patience = cmp.Or(o.Patience, 5*time.Second)
	o.Mode = cmp.Or(o.Mode, Log)
	o.FoldPause = cmp.Or(o.FoldPause, 20*time.Millisecond)
	o.TailSize = cmp.Or(o.TailSize, 32<<20)
	o.CacheSize = cmp.Or(o.CacheSize, 64<<20)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o
}

// begin makes what the store needs in the database.
func (s *Store) begin() error {
	if s.options.ReadOnly {
		return s.find()
	}
	if err := s.connect(s.options.Patience); err != nil {
		return err
	}
	return s.migrate()
}

// find returns an error if the database has no ledger that this program can read.
func (s *Store) find() error {
	err := s.View(func(r ledger.Reader) error {
		_, err := r.Get([]byte{0})
		return err
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "42703") { // there is no such table, or no such column
		return errors.New("the database has no ledger, or one that a gateway of this version has not opened yet")
	}
	return err
}

// LastCommit returns how many operations the last commit had, and how long it took.
func (s *Store) LastCommit() (operations int, took time.Duration) {
	if s.commits == nil {
		return 0, 0
	}
	return s.commits.LastCommit()
}

// Submit implements [ledger.Store].
func (s *Store) Submit(op ledger.Op) {
	if s.options.ReadOnly {
		go op.Done(ledger.ErrReadOnly) // in a goroutine of its own, since the caller may hold a lock that Done takes
		return
	}
	s.commits.Submit(op)
}

// Observe implements [ledger.Observed].
func (s *Store) Observe(observer func(operations int, took time.Duration)) {
	s.commits.Observe(observer)
}

// Close commits the queued operations and closes the connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		if s.commits != nil {
			s.commits.Close()
		}
		close(s.closed)
		s.working.Wait()
		s.folder.close()
		s.drop()
		s.pool.Close()
	})
	return nil
}

// Reopen makes the store accept operations again after the database was away, or a commit failed.
func (s *Store) Reopen() error {
	if s.options.ReadOnly {
		return fmt.Errorf("%w: it was opened for reading", ledger.ErrReadOnly)
	}
	return s.commits.Reopen(func() error {
		w := &s.writer
		if errors.Is(w.trouble, ErrLost) {
			return w.trouble
		}
		s.drop()
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
	const sql = "select pg_total_relation_size('records') + pg_total_relation_size('log') + pg_total_relation_size('fold') + pg_total_relation_size('head')"
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
	return cmp.Or(fn(r), r.flush())
}

// snapshot reads the records in one transaction. It begins with the first read that known has no answer to.
type snapshot struct {
	store *Store
	known *cache // may be nil
	since *tail  // what this process knows of the history; nil: the latest
	conn  *pgxpool.Conn
	tail  *tail // of the transaction
	sure  point // what was durable when it began
}

// Get implements [ledger.Reader].
func (r *snapshot) Get(key []byte) ([]byte, error) {
	if r.known != nil {
		if value, is := r.known.peek(key); is {
			return value, nil
		}
		r.known.wish(key)
	}
	if r.conn != nil {
		if value, changed := r.tail.get(key); changed {
			return value, nil
		}
	}
	var found []record
	if err := r.ask(func(b *pgx.Batch) { queueGet(b, [][]byte{key}, &found) }); err != nil {
		return nil, err
	}
	if value, changed := r.tail.get(key); changed || len(found) == 0 {
		return value, nil
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
	return r.tail.scan(in, func(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
		return scan(in, first, func(in ledger.Range) (*page, error) { return read(in, nextPage) }, fn)
	}, fn)
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
		patient := mayPass(err) && (r.store.commits == nil || r.store.commits.Err() == nil) && time.Now().Add(pause).Before(deadline)
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
	if r.conn != nil {
		queue(b)
		return r.conn.SendBatch(ctx, b).Close()
	}
	if r.conn, err = r.store.pool.Acquire(ctx); err != nil {
		return err
	}
	before := r.since
	if before == nil {
		before = r.store.latest.Load()
	}
	r.sure = r.store.durable.get()
	var h head
	var n news
	b.Queue("begin isolation level repeatable read read only")
	b.Queue(headSQL, before.commit).QueryRow(h.scan)
	queueNews(b, before.commit, false, &n)
	queue(b)
	if err = r.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if err := r.store.checkHistory(ctx, r.conn.Conn(), h, before, r.sure); err != nil {
		return err
	}
	if n.goOn(before, h) {
		r.tail = n.after(before)
	} else {
		rest := news{folded: n.folded}
		if n.folded < h.logged {
			b := new(pgx.Batch)
			queueRest(b, h.commit, &rest)
			if err := r.conn.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
		}
		r.tail = rest.after(unknown).upTo(h, n.folded)
	}
	r.store.latest.CompareAndSwap(before, r.tail)
	return nil
}

// flush ends the transaction, and makes durable what was read in it. A store that is open for reading only can't do that. If something was made
// durable meanwhile, that counts only if the connection still stands: after a crash it may be other commits of the same numbers.
func (r *snapshot) flush() error {
	if r.conn == nil || r.tail == nil || r.tail.commit <= r.sure.commit || r.store.options.ReadOnly {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	b := new(pgx.Batch)
	b.Queue("rollback")
	if !r.store.durable.is(r.tail.commit) {
		queueFlush(b, r.tail.commit)
	}
	if err := r.conn.SendBatch(ctx, b).Close(); err != nil {
		return away(err)
	}
	r.store.durable.note(r.tail.point)
	r.conn.Release()
	r.conn = nil
	return nil
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
	_ ledger.Shared   = (*Store)(nil)
	_ ledger.Clock    = (*Store)(nil)
	_ ledger.Lasting  = (*Store)(nil)
)
