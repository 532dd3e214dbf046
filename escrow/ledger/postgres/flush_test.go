//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// TestCrashBeforeTheFlush: others see a commit before it is durable, and the server crashes then. Nobody has been answered: not who made the
// commit, nor who read it, nor who found in an operation that it was made already. After the crash all of them end as if it had been a pause.
func TestCrashBeforeTheFlush(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			testCrashBeforeTheFlush(t, mode)
		})
	}
}

func testCrashBeforeTheFlush(t *testing.T, mode postgres.Mode) {
	server := pgtest.Start(t)
	dsn := server.New(t)
	var told lockedBuffer
	shared := func() *ledger.Ledger {
		s, err := postgres.Open(dsn, postgres.Options{Logger: slog.New(slog.NewTextHandler(&told, nil)), Patience: time.Minute, Mode: mode})
		must(t, err)
		return begin(t, s)
	}
	defer func() {
		if t.Failed() {
			t.Log(told.String())
		}
	}()
	a, b := shared(), shared()
	must(t, deposit(a, 0, 3))
	must(t, pay(a, wallet(2), wallet(0), 1, "a")) // all know the wallets
	must(t, pay(b, wallet(2), wallet(1), 1, "b"))

	f := lockFlushes(t, dsn)
	crash := holdBack(t, f.conn, server)
	paid, read := make(chan error, 2), make(chan error, 1)
	go func() { paid <- pay(a, wallet(0), wallet(1), 7, "paid") }()
	f.wait(1)
	go func() { paid <- pay(b, wallet(2), wallet(1), 7, "paid") }() // which finds that it was made already
	f.wait(2)
	go func() {
		_, _, err := b.Balance(wallet(1))
		read <- err
	}()
	f.wait(3)
	unanswered(t, paid, read)
	crash()
	for range 2 {
		must(t, <-paid)
	}
	if err := <-read; !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("what was read was never durable, and the reader got %v", err)
	}
	if !strings.Contains(told.String(), "nothing was lost that was answered") {
		t.Errorf("the crash took back no commit that was read:\n%s", told.String())
	}
	must(t, pay(a, wallet(2), wallet(1), 1, "after a"))
	must(t, pay(b, wallet(2), wallet(1), 1, "after b"))
	for _, l := range []*ledger.Ledger{a, b} {
		sound(t, l, wallet(1), ledger.Unit+1+7+2) // one of the two was first
	}
}

// holdBack stops the process of the server that writes its log in the background, so that a crash takes back what nobody has flushed. crash
// crashes the server, and starts it again.
func holdBack(t *testing.T, conn *pgx.Conn, server *pgtest.Server) (crash func()) {
	t.Helper()
	var writer int
	must(t, conn.QueryRow(t.Context(), "select pid from pg_stat_activity where backend_type = 'walwriter'").Scan(&writer))
	must(t, syscall.Kill(writer, syscall.SIGSTOP))
	return func() {
		t.Helper()
		must(t, syscall.Kill(writer, syscall.SIGQUIT)) // it ends without writing anything, as soon as it goes on
		must(t, syscall.Kill(writer, syscall.SIGCONT))
		server.Stop(syscall.SIGQUIT)
		server.Run(t)
	}
}

// TestAFoldIsTakenBack: a fold is not flushed, so a crash may take it back after a process has seen it. What it has folded is still read.
func TestAFoldIsTakenBack(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	dsn := server.New(t)
	l := begin(t, open(t, dsn, postgres.Options{Patience: time.Minute}))
	must(t, deposit(l, 0, 2))
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.Background())
	crash := holdBack(t, conn, server)
	must(t, pay(l, wallet(0), wallet(1), 1, "a"))
	for folded := false; !folded; {
		must(t, conn.QueryRow(t.Context(), "select folded = logged from fold, head").Scan(&folded))
	}
	sound(t, l, wallet(1), ledger.Unit+1) // it has seen the fold, and has in memory nothing more of what it has folded
	crash()
	sound(t, l, wallet(1), ledger.Unit+1)
	must(t, pay(l, wallet(0), wallet(1), 1, "b"))
	sound(t, l, wallet(1), ledger.Unit+2)
}

// TestLookBeforeTheFlush: what another process has committed, and nobody has made durable, is not looked at either, although an operation of
// this process has read it.
func TestLookBeforeTheFlush(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Shared(t).New(t)
			a, b := begin(t, open(t, dsn, postgres.Options{Mode: mode})), begin(t, open(t, dsn, postgres.Options{Mode: mode}))
			must(t, deposit(a, 0, 3))
			free := func() ledger.Amount {
				t.Helper()
				free, err := b.Free(wallet(1))
				must(t, err)
				return free
			}
			free()
			must(t, pay(b, wallet(2), wallet(1), 1, "b")) // now it has in memory what is looked at
			f := lockFlushes(t, dsn)
			paid := make(chan error, 2)
			go func() { paid <- pay(a, wallet(0), wallet(1), 7, "paid") }()
			f.wait(1)
			go func() { paid <- pay(b, wallet(2), wallet(1), 7, "paid") }() // which finds that it was made already
			f.wait(2)
			if got := free(); got != ledger.Unit+1 {
				t.Errorf("before the flush, %s can be held, want %s", got, ledger.Unit+1)
			}
			f.unlock()
			for range 2 {
				must(t, <-paid)
			}
			if got := free(); got != ledger.Unit+8 {
				t.Errorf("after the flush, %s can be held, want %s", got, ledger.Unit+8)
			}
		})
	}
}

// TestStalledReader: a process gets an answer of the server, and before it reads on, a crash takes back what it was told, and the process itself
// makes sure of later commits on another connection. It does not take these for the ones that it was told of.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	for name, begins := range map[string]string{"view": "read only", "operation": "for update"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStalledReader(t, begins)
		})
	}
}

func testStalledReader(t *testing.T, begins string) {
	server := pgtest.Start(t)
	dsn := server.New(t) + "&default_query_exec_mode=exec" // statements can be told apart
	var stalls stalls
	a := begin(t, open(t, dsn, postgres.Options{Patience: time.Minute}))
	b := begin(t, open(t, dsn, postgres.Options{Patience: time.Minute, Dial: stalls.dial, FoldPause: time.Hour}))
	must(t, deposit(a, 0, 3))
	must(t, pay(b, wallet(2), wallet(0), 1, "b"))
	view := func() (sum ledger.Amount, err error) {
		err = b.View(func(r ledger.Reader) error {
			account, err := ledger.ReadAccount(r, wallet(1))
			sum = account.Balance()
			return err
		})
		return sum, err
	}
	operation := func() (ledger.Amount, error) {
		return ledger.Do(context.Background(), b, func(tx *ledger.Tx) (ledger.Amount, error) {
			account, err := tx.Account(wallet(1))
			return account.Balance(), err
		})
	}
	read, meanwhile := view, operation
	if begins == "for update" {
		read, meanwhile = operation, view
	}

	f := lockFlushes(t, dsn)
	crash := holdBack(t, f.conn, server)
	var amount atomic.Int64
	amount.Store(7)
	paid := make(chan error, 1)
	go func() {
		paid <- do(a, func(tx *ledger.Tx) error {
			_, err := tx.Post(ledger.Transfer{Debit: wallet(0), Credit: wallet(1), Amount: ledger.Amount(amount.Load()), Kind: "pay"})
			return err
		})
	}()
	f.wait(1)
	stalled, goOn := stalls.next(begins)
	got, failed := make(chan ledger.Amount, 1), make(chan error, 1)
	go func() {
		amount, err := read()
		got <- amount
		failed <- err
	}()
	<-stalled
	amount.Store(1)
	crash()
	must(t, <-paid)
	must(t, pay(a, wallet(0), wallet(2), 1, "later"))
	sum, err := meanwhile()
	must(t, err)
	if sum != ledger.Unit+1 {
		t.Errorf("after the crash, %s was read, want %s", sum, ledger.Unit+1)
	}
	close(goOn)
	if sum, err := <-got, <-failed; err == nil && sum != ledger.Unit+1 {
		t.Errorf("%s was read, of which the crash has taken back %d", sum, 7)
	} else if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
		t.Error(err)
	}
	sound(t, b, wallet(1), ledger.Unit+1)
}

// TestIsolationOfFlushes: that two flushes change the same row at the same time is no error, whatever isolation the database has by default.
func TestIsolationOfFlushes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, isolation := range []string{"read committed", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			dsn := server.New(t) + "&default_transaction_isolation=" + url.PathEscape(isolation)
			var told lockedBuffer
			s, err := postgres.Open(dsn, postgres.Options{Logger: slog.New(slog.NewTextHandler(&told, nil))})
			must(t, err)
			a, b := begin(t, s), begin(t, open(t, dsn, postgres.Options{}))
			must(t, deposit(a, 0, 2))
			told.text.Reset()
			conn, err := pgx.Connect(t.Context(), dsn)
			must(t, err)
			defer conn.Close(context.Background())
			_, err = conn.Exec(t.Context(), `begin isolation level read committed; 
				insert into flushed select n, 0 from generate_series(0, 1023) as n on conflict (slot) do update set commit = 0`)
			must(t, err)
			wait := func(flushes int) {
				t.Helper()
				for waiting := -1; waiting != flushes; {
					must(t, conn.QueryRow(t.Context(), "select count(*) from pg_locks where pg_backend_pid() = any(pg_blocking_pids(pid)) and not granted").Scan(&waiting))
				}
			}
			paid, read := make(chan error, 1), make(chan error, 1)
			go func() { paid <- pay(a, wallet(0), wallet(1), 1, "paid") }()
			wait(1)
			go func() {
				_, _, err := b.Balance(wallet(1))
				read <- err
			}()
			wait(2)
			_, err = conn.Exec(t.Context(), "commit")
			must(t, err)
			must(t, <-paid)
			must(t, <-read)
			if told.String() != "" {
				t.Errorf("the log: %s", told.String())
			}
			sound(t, b, wallet(1), ledger.Unit+1)
		})
	}
}

// TestRefusedFlush: if the server refuses a flush, the commit before it takes place once all the same. It is answered when it is durable.
func TestRefusedFlush(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, mode := range modes {
		t.Run(fmt.Sprint(mode, " 40001"), func(t *testing.T) {
			dsn := server.New(t)
			l := begin(t, open(t, dsn, postgres.Options{Mode: mode}))
			must(t, deposit(l, 0, 2))
			refuse(t, server, dsn, 3, "40001")
			must(t, pay(l, wallet(0), wallet(1), 7, "refused"))
			sound(t, l, wallet(1), ledger.Unit+7)
		})
		t.Run(fmt.Sprint(mode, " 53100"), func(t *testing.T) { // the disk is full
			dsn := server.New(t)
			l := begin(t, open(t, dsn, postgres.Options{Mode: mode}))
			must(t, deposit(l, 0, 2))
			refuse(t, server, dsn, 3, "53100")
			if err := pay(l, wallet(0), wallet(1), 7, "refused"); !errors.Is(err, ledger.ErrOutcomeUnknown) {
				t.Errorf("a payment that the server does not make durable: %v", err)
			}
			if err := l.Reopen(); !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("the ledger was opened again before what it has read is durable: %v", err)
			}
			must(t, l.Reopen())
			must(t, pay(l, wallet(0), wallet(1), 7, "refused"))
			sound(t, l, wallet(1), ledger.Unit+7)
		})
	}
}

// refuse makes the server refuse the next flushes.
func refuse(t *testing.T, server *pgtest.Server, dsn string, flushes int, code string) {
	t.Helper()
	server.Exec(t, fmt.Sprintf(`set search_path = %s; create sequence refused;
		create function refuse() returns trigger language plpgsql as $$ begin
			if nextval('%[1]s.refused') <= %d then raise exception 'refused on purpose' using errcode = '%s'; end if;
			return new;
		end $$;
		create trigger refuse before insert on flushed for each row execute function refuse()`, dsn[strings.LastIndex(dsn, "=")+1:], flushes, code))
}

// TestPatienceOfFlushes: an operation that changes nothing, and waits for what it has read to be durable, runs again only while there is patience.
func TestPatienceOfFlushes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	dsn := server.New(t)
	a, b := begin(t, open(t, dsn, postgres.Options{})), begin(t, open(t, dsn, postgres.Options{Patience: 1}))
	must(t, deposit(a, 0, 2))
	refuse(t, server, dsn, 100, "40001")
	var runs atomic.Int64
	err := do(b, func(tx *ledger.Tx) error {
		runs.Add(1)
		_, err := tx.Account(wallet(1))
		return err
	})
	if !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("an operation that has read what does not become durable: %v", err)
	}
	if n := runs.Load(); n > 2 {
		t.Errorf("without any patience it ran %d times", n)
	}
	server.Exec(t, "drop trigger refuse on "+dsn[strings.LastIndex(dsn, "=")+1:]+".flushed")
	must(t, b.Reopen())
}

// TestExecModes: whatever way of sending statements the DSN asks for, as a pooler before the database may need, nobody is answered before the
// flush, and what is folded is right.
func TestExecModes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, exec := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		for _, mode := range modes {
			t.Run(exec+" "+string(mode), func(t *testing.T) {
				t.Parallel()
				dsn := server.New(t)
				o := postgres.Options{Mode: mode}
				a, b := begin(t, open(t, dsn+"&default_query_exec_mode="+exec, o)), begin(t, open(t, dsn+"&default_query_exec_mode="+exec, o))
				must(t, deposit(a, 0, 2))
				f := lockFlushes(t, dsn)
				paid, read := make(chan error, 1), make(chan error, 1)
				go func() { paid <- pay(a, wallet(0), wallet(1), 7, "paid") }()
				f.wait(1)
				go func() {
					_, _, err := b.Balance(wallet(1))
					read <- err
				}()
				f.wait(2)
				unanswered(t, paid, read)
				f.unlock()
				must(t, <-paid)
				must(t, <-read)
				must(t, pay(b, wallet(0), wallet(1), 1, "b"))
				for folded := false; !folded; {
					must(t, f.conn.QueryRow(t.Context(), "select folded >= logged from fold, head").Scan(&folded))
				}
				sound(t, a, wallet(1), ledger.Unit+8)
				sound(t, begin(t, open(t, dsn, postgres.Options{})), wallet(1), ledger.Unit+8)
			})
		}
	}
}

// stalls makes connections on which an answer can be delayed.
type stalls struct {
	mu      sync.Mutex
	text    string // of the statement whose answer is delayed
	stalled chan struct{}
	goOn    chan struct{}
}

// next delays the next answer to a statement with a text: it is not passed on before goOn is closed. stalled is closed when it is there.
func (s *stalls) next(text string) (stalled <-chan struct{}, goOn chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.stalled, s.goOn = text, make(chan struct{}), make(chan struct{})
	return s.stalled, s.goOn
}

func (s *stalls) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	return &stallingConn{Conn: c, stalls: s}, err
}

type stallingConn struct {
	net.Conn
	stalls *stalls
	next   atomic.Bool // the next answer is delayed
}

func (c *stallingConn) Write(p []byte) (int, error) {
	s := c.stalls
	s.mu.Lock()
	if s.text != "" && bytes.Contains(p, []byte(s.text)) {
		s.text = ""
		c.next.Store(true)
	}
	s.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *stallingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.next.Swap(false) {
		close(c.stalls.stalled)
		<-c.stalls.goOn
	}
	return n, err
}

// flushes is a lock that stops flushes.
type flushes struct {
	t    *testing.T
	conn *pgx.Conn
}

func lockFlushes(t *testing.T, dsn string) *flushes {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), "begin; lock table flushed in exclusive mode")
	must(t, err)
	return &flushes{t, conn}
}

// wait waits until there are as many flushes that wait.
func (f *flushes) wait(n int) {
	f.t.Helper()
	for waiting := -1; waiting != n; {
		must(f.t, f.conn.QueryRow(f.t.Context(), "select count(*) from pg_locks where relation = 'flushed'::regclass and not granted").Scan(&waiting))
	}
}

// unanswered fails the test if a payment or a reader was answered before the flush.
func unanswered(t *testing.T, paid, read <-chan error) {
	t.Helper()
	select {
	case err := <-paid:
		t.Fatalf("before the flush a payment was answered: %v", err)
	case err := <-read:
		t.Fatalf("before the flush a reader was answered: %v", err)
	default:
	}
}

func (f *flushes) unlock() {
	f.t.Helper()
	_, err := f.conn.Exec(f.t.Context(), "rollback")
	must(f.t, err)
}

// lockedBuffer is a buffer that several goroutines may write to.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
