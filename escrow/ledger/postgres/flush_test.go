//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
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

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	must(t, err)
	defer conn.Close(ctx)
	crash := holdBack(t, conn, server)
	_, err = conn.Exec(ctx, "begin; lock table flushed in exclusive mode")
	must(t, err)
	wait := func(flushes int) {
		t.Helper()
		for waiting := -1; waiting != flushes; {
			must(t, conn.QueryRow(ctx, "select count(*) from pg_locks where relation = 'flushed'::regclass and not granted").Scan(&waiting))
		}
	}
	paid, read := make(chan error, 2), make(chan error, 1)
	go func() { paid <- pay(a, wallet(0), wallet(1), 7, "paid") }()
	wait(1)
	go func() { paid <- pay(b, wallet(2), wallet(1), 7, "paid") }() // which finds that it was made already
	wait(2)
	go func() {
		_, _, err := b.Balance(wallet(1))
		read <- err
	}()
	wait(3)
	select {
	case err := <-paid:
		t.Fatalf("before the flush a payment was answered: %v", err)
	case err := <-read:
		t.Fatalf("before the flush a reader was answered: %v", err)
	default:
	}
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
