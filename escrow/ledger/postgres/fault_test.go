//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// wire makes connections that count round trips, and that can break at a commit.
type wire struct {
	trips atomic.Int64 // of all connections
	cut   atomic.Int32 // what happens to the next commit
}

const (
	cutBefore = 1 // it is not sent, and the connection breaks
	cutAfter  = 2 // it is sent, and the connection breaks before the answer
)

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wireConn{Conn: c, wire: w}, nil
}

type wireConn struct {
	net.Conn
	wire    *wire
	written atomic.Bool
	broken  atomic.Bool
}

var errBroken = errors.New("broken on purpose")

func (c *wireConn) Write(p []byte) (int, error) {
	c.written.Store(true)
	if isMarked(p) {
		switch c.wire.cut.Swap(0) {
		case cutBefore:
			c.broken.Store(true)
			_ = c.Close()
			return 0, errBroken
		case cutAfter:
			c.broken.Store(true)
		}
	}
	return c.Conn.Write(p)
}

// isMarked reports whether a message commits the record dmarked: it has the key, and the value that pay puts.
func isMarked(p []byte) bool {
	return bytes.Contains(p, []byte("dmarked")) && bytes.Contains(p, []byte("made"))
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.broken.Load() {
		_ = c.Close()
		return 0, errBroken
	}
	if n > 0 && c.written.Swap(false) {
		c.wire.trips.Add(1)
	}
	return n, err
}

func do(l *ledger.Ledger, op func(*ledger.Tx) error) error {
	_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

func pay(l *ledger.Ledger, from, to ledger.AccountID, amount ledger.Amount, id string) error {
	return do(l, func(tx *ledger.Tx) error {
		if made, err := tx.Get([]byte("d" + id)); err != nil || made != nil {
			return err
		}
		tx.Put([]byte("d"+id), []byte("made"))
		_, err := tx.Post(ledger.Transfer{Debit: from, Credit: to, Amount: amount, Kind: "pay"})
		return err
	})
}

func begin(t testing.TB, s ledger.Store) *ledger.Ledger {
	t.Helper()
	l, err := ledger.New(s, ledger.Options{Currency: "USDC", Lifetime: -1, Logger: quiet})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func open(t testing.TB, dsn string, o postgres.Options) *postgres.Store {
	t.Helper()
	o.Logger = quiet
	s, err := postgres.Open(dsn, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// sound fails the test if the books are wrong, or if a wallet does not have the amount.
func sound(t testing.TB, l *ledger.Ledger, id ledger.AccountID, want ledger.Amount) {
	t.Helper()
	account, _, err := l.Balance(id)
	must(t, err)
	if account.Balance() != want {
		t.Errorf("%s has %s, want %s", id, account.Balance(), want)
	}
	report, err := l.Check(context.Background(), nil)
	if err != nil || len(report.Wrong) > 0 {
		t.Errorf("the books: %v, %v", report.Wrong, err)
	}
}

// TestRoundTrips: a group takes two round trips, whether it has one operation or many, once the accounts are known. The first call of an
// account takes one more.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { testRoundTrips(t, server.New(t), mode) })
	}
}

func testRoundTrips(t *testing.T, dsn string, mode postgres.Mode) {
	w := new(wire)
	s := open(t, dsn, postgres.Options{Dial: w.dial, Mode: mode, FoldPause: time.Hour})
	l := begin(t, s)
	must(t, deposit(l, 0, 100))
	for i := range 3 {
		must(t, pay(l, wallet(1), wallet(2), 1, fmt.Sprint("warm", i)))
	}
	for _, operations := range []int{1, 100} {
		// The operations queue up behind one that waits, so that they are one group.
		entered, leave := make(chan struct{}), make(chan struct{})
		before, after := make(chan int64, 1), make(chan int64, 1)
		s.Submit(ledger.Op{Run: func(ledger.Writer) error {
			select {
			case <-entered:
			default:
				close(entered)
				<-leave
			}
			return errInjected
		}, Done: func(error) { before <- w.trips.Load() }})
		<-entered
		var receipts []*ledger.Receipt[struct{}]
		for i := range operations {
			id := []byte(fmt.Sprintf("did%d/%d", operations, i))
			receipts = append(receipts, ledger.Queue(l, func(tx *ledger.Tx) (struct{}, error) {
				if made, err := tx.Get(id); err != nil || made != nil {
					return struct{}{}, err
				}
				tx.Put(id, []byte("made"))
				_, err := tx.Post(ledger.Transfer{Debit: wallet(i % 100), Credit: wallet((i + 1) % 100), Amount: 1, Kind: "pay"})
				return struct{}{}, err
			}))
		}
		s.Submit(ledger.Op{Run: func(ledger.Writer) error { return nil }, Done: func(error) { after <- w.trips.Load() }})
		close(leave)
		for _, r := range receipts {
			_, err := r.Wait()
			must(t, err)
		}
		if trips := <-after - <-before; trips != 2 {
			t.Errorf("a group of %d operations took %d round trips, want 2", operations, trips)
		}
	}
	sound(t, l, ledger.World, -100*ledger.Unit)
}

// TestRoundTripsOfTwo: two ledgers that take turns need two round trips each, too, although each time the other one has committed.
func TestRoundTripsOfTwo(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { testRoundTripsOfTwo(t, server.New(t), mode) })
	}
}

func testRoundTripsOfTwo(t *testing.T, dsn string, mode postgres.Mode) {
	w := new(wire)
	var ledgers []*ledger.Ledger
	for range 2 {
		s, err := postgres.Open(dsn, postgres.Options{Dial: w.dial, Logger: quiet, Mode: mode, FoldPause: time.Hour})
		must(t, err)
		ledgers = append(ledgers, begin(t, s))
	}
	must(t, deposit(ledgers[0], 0, 2))
	for turn := range 6 {
		before := w.trips.Load()
		for i, l := range ledgers {
			must(t, pay(l, wallet(i), wallet(1-i), 1, fmt.Sprint(turn, i)))
		}
		if trips := w.trips.Load() - before; turn > 1 && trips != 4 {
			t.Errorf("in turn %d two groups took %d round trips, want 4", turn, trips)
		}
	}
	sound(t, ledgers[0], wallet(0), ledger.Unit)
}

// TestBrokenCommit: if the connection breaks at a commit, its operations take place once, whether the server got the commit or not.
func TestBrokenCommit(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for i, name := range []string{"rows, before it is sent", "rows, before the answer", "log, before it is sent", "log, before the answer"} {
		cut, mode := []int32{cutBefore, cutAfter}[i%2], modes[i/2]
		t.Run(name, func(t *testing.T) {
			w := new(wire)
			l := begin(t, open(t, server.New(t), postgres.Options{Dial: w.dial, Mode: mode}))
			must(t, deposit(l, 0, 2))
			w.cut.Store(cut)
			must(t, pay(l, wallet(0), wallet(1), 7, "marked"))
			if w.cut.Load() != 0 {
				t.Fatal("no connection was broken")
			}
			must(t, pay(l, wallet(0), wallet(1), 1, "later"))
			sound(t, l, wallet(1), ledger.Unit+8)
		})
	}
}

// TestRefusedCommit: if the server ends a commit's transaction because of another one, as CockroachDB does often, the operations run again and
// take place once. If it refuses the commit for another reason, the ledger takes no operations until it is reopened.
func TestRefusedCommit(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	const refusals = 3
	refuse := func(t *testing.T, dsn, code string) {
		schema := dsn[strings.LastIndex(dsn, "=")+1:]
		server.Exec(t, fmt.Sprintf(`set search_path = %s; create sequence refused;
			create function refuse() returns trigger language plpgsql as $$ begin
				if nextval('%[1]s.refused') <= %d then raise exception 'refused on purpose' using errcode = '%s'; end if;
				return new;
			end $$;
			create trigger refuse before insert on log for each row execute function refuse()`, schema, refusals, code))
	}
	for _, mode := range modes {
		for _, code := range []string{"40001", "40P01"} {
			t.Run(fmt.Sprint(mode, " ", code), func(t *testing.T) {
				dsn := server.New(t)
				l := begin(t, open(t, dsn, postgres.Options{Mode: mode}))
				must(t, deposit(l, 0, 2))
				refuse(t, dsn, code)
				must(t, pay(l, wallet(0), wallet(1), 7, "refused"))
				sound(t, l, wallet(1), ledger.Unit+7)
			})
		}
		t.Run(fmt.Sprint(mode, " 23514"), func(t *testing.T) {
			dsn := server.New(t)
			l := begin(t, open(t, dsn, postgres.Options{Mode: mode}))
			must(t, deposit(l, 0, 2))
			refuse(t, dsn, "23514") // check_violation
			for range 2 {
				if err := pay(l, wallet(0), wallet(1), 7, "refused"); !errors.Is(err, ledger.ErrUnavailable) {
					t.Errorf("a commit that the server refuses: %v", err)
				}
			}
			for range refusals {
				must(t, l.Reopen())
				_ = pay(l, wallet(0), wallet(1), 7, "refused")
			}
			sound(t, l, wallet(1), ledger.Unit+7)
		})
	}
}

// TestUnderLoad: three ledgers pay while their backends are terminated and the server crashes. Each payment takes place once. Both modes
// are tried, and a mixture.
func TestUnderLoad(t *testing.T) {
	t.Parallel()
	for _, modes := range [][]postgres.Mode{{postgres.Rows}, {postgres.Log}, {postgres.Log, postgres.Rows}} {
		t.Run(fmt.Sprint(modes), func(t *testing.T) { testUnderLoad(t, modes) })
	}
}

func testUnderLoad(t *testing.T, modes []postgres.Mode) {
	server := pgtest.Start(t, "restart_after_crash=on")
	dsn := server.New(t)
	opened := 0
	shared := func() *ledger.Ledger {
		s, err := postgres.Open(dsn, postgres.Options{Logger: quiet, Patience: time.Minute, Mode: modes[opened%len(modes)]})
		must(t, err)
		opened++
		return begin(t, s)
	}
	first := shared()
	const wallets, each = 8, 40
	must(t, deposit(first, 0, wallets))
	var all sync.WaitGroup
	var made atomic.Int64
	steps := make(chan struct{}, 3*wallets*each)
	for node := range 3 {
		l := shared()
		for payer := range wallets {
			all.Go(func() {
				for i := range each {
					id := fmt.Sprintf("%d/%d/%d", node, payer, i)
					if err := pay(l, wallet(payer), ledger.Commission, 1, id); err != nil {
						t.Errorf("payment %s: %v", id, err)
						return
					}
					made.Add(1)
					steps <- struct{}{}
				}
			})
		}
	}
	go func() { all.Wait(); close(steps) }()
	n := 0
	for range steps {
		n++
		switch {
		case n == 3*wallets*each/2:
			server.Stop(syscall.SIGQUIT)
			server.Run(t)
		case n%100 == 50:
			server.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and application_name = 'tallygate'")
		}
	}
	sound(t, first, ledger.Commission, ledger.Amount(made.Load()))
}

// TestAway: while the database is away, the ledger refuses, and changes nothing. After Reopen it goes on.
func TestAway(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	l := begin(t, open(t, server.New(t), postgres.Options{Patience: time.Millisecond}))
	must(t, deposit(l, 0, 2))
	server.Stop(syscall.SIGINT)
	if err := pay(l, wallet(0), wallet(1), 1, "away"); !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrOutcomeUnknown) {
		t.Errorf("an operation without a database: %v", err)
	}
	if _, err := l.Stand(); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("reading without a database: %v", err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("a ledger without a database was reopened")
	}
	server.Run(t)
	must(t, l.Reopen())
	must(t, pay(l, wallet(0), wallet(1), 1, "away"))
	sound(t, l, wallet(1), ledger.Unit+1)
}

// TestStoppedInTheMiddle: a process that stops while it has the lock delays the others, but for no longer than the server allows.
func TestStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	dsn := server.New(t)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	a, err := postgres.Open(dsn, postgres.Options{Logger: quiet})
	must(t, err)
	b, err := postgres.Open(dsn, postgres.Options{Logger: quiet})
	must(t, err)
	la, lb := begin(t, a), begin(t, b)
	must(t, deposit(la, 0, 2))
	var runs atomic.Int64
	done := make(chan error, 1)
	a.Submit(ledger.Op{Run: func(w ledger.Writer) error {
		if _, err := w.Get([]byte("unknown")); err != nil { // the first run ends here
			return err
		}
		if runs.Add(1) == 1 { // the second run has the lock
			close(stopped)
			<-stop
		}
		w.Put([]byte("dstopped"), []byte("x"))
		return nil
	}, Done: func(err error) { done <- err }})
	<-stopped
	must(t, pay(lb, wallet(0), wallet(1), 1, "meanwhile"))
	close(stop)
	must(t, <-done)
	if runs.Load() < 2 {
		t.Error("the operation that had lost its lock did not run again")
	}
	must(t, pay(la, wallet(0), wallet(1), 1, "after"))
	sound(t, la, wallet(1), ledger.Unit+2)
}

// TestLostCommits: if a failover loses commits that were answered, the ledger takes no operations any more from the next one on, whether or
// not as many others were made meanwhile.
func TestLostCommits(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for i, others := range []int{0, 1, 3, 0, 1, 3} {
		dsn := server.New(t)
		shared := func() *ledger.Ledger {
			s, err := postgres.Open(dsn, postgres.Options{Logger: quiet, Mode: modes[i/3]})
			must(t, err)
			return begin(t, s)
		}
		_, path, _ := strings.Cut(dsn, "search_path=")
		sql := func(text string) { server.Exec(t, strings.ReplaceAll(text, "@", path+".")) }
		l := shared()
		must(t, deposit(l, 0, 2))
		sql(`begin isolation level repeatable read; create table @kept as table @records; create table @kept_head as table @head; create table @kept_log as table @log;
			create table @kept_fold as table @fold; commit`)
		must(t, pay(l, wallet(0), wallet(1), 1, "lost"))
		// Of two transactions in a deadlock, that of the store is cancelled: it is tried again.
		sql(`begin; set local deadlock_timeout = '1min'; truncate @records, @head, @log, @fold; insert into @fold table @kept_fold; insert into @records table @kept; insert into @head table @kept_head;
			insert into @log table @kept_log; commit`)
		if others > 0 {
			other := shared()
			for i := range others {
				must(t, pay(other, wallet(1), wallet(0), 2, fmt.Sprint("other", i)))
			}
		}
		if err := pay(l, wallet(0), wallet(1), 1, "next"); !errors.Is(err, ledger.ErrReadOnly) || !errors.Is(err, postgres.ErrLost) {
			t.Errorf("after a commit was lost and %d others were made: %v", others, err)
		}
		if err := l.Reopen(); err == nil {
			t.Errorf("after a commit was lost and %d others were made, the ledger was reopened", others)
		}
		if err := l.Close(); !errors.Is(err, postgres.ErrLost) {
			t.Errorf("closing a ledger that has lost a commit: %v", err)
		}
	}
}

// TestManyStart: several processes may make the tables of one database at the same time.
func TestManyStart(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	dsn := server.New(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := postgres.Open(dsn, postgres.Options{Logger: quiet})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestReadOnly: a store that is opened for reading only sees what others commit, in both modes, and commits nothing.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	if s, err := postgres.Open(server.New(t), postgres.Options{ReadOnly: true, Logger: quiet}); err == nil || !strings.Contains(err.Error(), "no ledger") {
		t.Errorf("a database without a ledger: %v, %v", s, err)
	}
	for _, mode := range modes {
		dsn := server.New(t)
		l := begin(t, open(t, dsn, postgres.Options{Mode: mode, FoldPause: time.Hour}))
		must(t, deposit(l, 0, 2))
		reader := begin(t, open(t, dsn, postgres.Options{ReadOnly: true}))
		sound(t, reader, wallet(1), ledger.Unit)
		must(t, pay(l, wallet(0), wallet(1), 1, "later"))
		sound(t, reader, wallet(1), ledger.Unit+1)
		if err := pay(reader, wallet(0), wallet(1), 1, "refused"); !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("an operation of a reader: %v", err)
		}
	}
}

// TestUnsafeSettings: a server that may lose confirmed commits is refused, unless the setting is named.
func TestUnsafeSettings(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, setting := range []string{"off", "local"} {
		dsn := server.New(t) + "&synchronous_commit=" + setting
		if _, err := postgres.Open(dsn, postgres.Options{Logger: quiet}); err == nil || !strings.Contains(err.Error(), "synchronous_commit is "+setting) {
			t.Errorf("synchronous_commit = %s: %v", setting, err)
		}
		open(t, dsn, postgres.Options{SynchronousCommit: setting})
	}
}

// TestDamagedRecord: a record that somebody has changed is found, in the table of records and in the log.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	const other = "set_byte(@, 0, 255 - get_byte(@, 0))"
	for mode, sql := range map[postgres.Mode]string{
		postgres.Rows: "records set value = " + strings.ReplaceAll(other, "@", "value"),
		postgres.Log: "log set new_values = array(select " + strings.ReplaceAll(other, "@", "v") +
			" from unnest(new_values) with ordinality as u(v, n) order by n) where new_values is not null",
	} {
		dsn := server.New(t)
		_, schema, _ := strings.Cut(dsn, "search_path=")
		l := begin(t, open(t, dsn, postgres.Options{Mode: mode, FoldPause: time.Hour}))
		must(t, deposit(l, 0, 2))
		must(t, l.Close())
		server.Exec(t, "update "+schema+"."+sql)
		s := open(t, dsn, postgres.Options{Mode: mode, FoldPause: time.Hour})
		if _, err := ledger.New(s, ledger.Options{Logger: quiet}); !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("reading a damaged record in the mode %s: %v", mode, err)
		}
	}
}

// TestSecrets: no error tells a password, whatever is wrong with the DSN.
func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://shop:geheim@127.0.0.1:1/ledger",
		"postgres://shop:geheim@[::1/ledger",
		"postgres://shop:geheim@host:port/ledger",
		"postgres://shop:ge%zzheim@127.0.0.1:1/ledger",
		"host=127.0.0.1 port=1 user=shop password=geheim",
		"host=127.0.0.1 port=x user=shop password=geheim",
		"password='geheim",
		"user=shop password geheim",
		"geheim",
		"postgres://shop:geheim@127.0.0.1:1/ledger?sslmode=never",
		"postgres://shop:geheim@127.0.0.1:1/ledger?pool_max_conns=x",
		"",
	} {
		_, err := postgres.Open(dsn, postgres.Options{Patience: time.Millisecond, Logger: quiet})
		if err == nil {
			t.Errorf("%q was opened", dsn)
			continue
		}
		if strings.Contains(err.Error(), "heim") && dsn != "geheim" {
			t.Errorf("an error tells the password: %v", err)
		}
		if where, err := postgres.Where(dsn); strings.Contains(where, "heim") || err != nil && strings.Contains(err.Error(), "heim") {
			t.Errorf("the place tells the password: %s, %v", where, err)
		}
	}
}
