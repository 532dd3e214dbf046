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
	// The process of the server that writes its log in the background is stopped, so that the crash takes back what nobody has flushed.
	var writer int
	must(t, conn.QueryRow(ctx, "select pid from pg_stat_activity where backend_type = 'walwriter'").Scan(&writer))
	must(t, syscall.Kill(writer, syscall.SIGSTOP))
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
	must(t, syscall.Kill(writer, syscall.SIGQUIT)) // it ends without writing anything, as soon as it goes on
	must(t, syscall.Kill(writer, syscall.SIGCONT))
	server.Stop(syscall.SIGQUIT)
	server.Run(t)
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
