//go:build unix

package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
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

// TestFailover: the primary crashes under load, and its synchronous standby is promoted. The two ledgers find the new primary by themselves.
// Each payment that was answered is there, each took place once, and none failed.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { testFailover(t, mode) })
	}
}

func testFailover(t *testing.T, mode postgres.Mode) {
	primary := pgtest.Start(t)
	dsn := primary.New(t)
	standby := primary.Standby(t, true)
	shared := func() *ledger.Ledger {
		s, err := postgres.Open(primary.Both(dsn, standby), postgres.Options{Logger: quiet, Patience: time.Minute, Mode: mode})
		must(t, err)
		return begin(t, s)
	}
	ledgers := []*ledger.Ledger{shared(), shared()}
	const wallets, each = 8, 40
	must(t, deposit(ledgers[0], 0, wallets))
	var all sync.WaitGroup
	var made atomic.Int64
	steps := make(chan struct{}, 2*wallets*each)
	for node, l := range ledgers {
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
		if n++; n == wallets*each {
			primary.Stop(syscall.SIGQUIT)
			standby.Promote(t)
		}
	}
	if n != 2*wallets*each {
		t.Errorf("%d payments were made, want %d", n, 2*wallets*each)
	}
	sound(t, ledgers[1], ledger.Commission, ledger.Amount(made.Load()))
}

// TestFailoverThatLoses: the standby is behind when it is promoted. The ledger that was answered what is lost finds out at its next
// operation, names what is lost, and takes no operations and shows no balances any more. Who opens the ledger anew gets good books, of
// earlier.
func TestFailoverThatLoses(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { testFailoverThatLoses(t, mode) })
	}
}

func testFailoverThatLoses(t *testing.T, mode postgres.Mode) {
	primary := pgtest.Start(t)
	dsn := primary.New(t)
	standby := primary.Standby(t, false)
	both := primary.Both(dsn, standby)
	var log bytes.Buffer
	s, err := postgres.Open(both, postgres.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Patience: time.Minute, Mode: mode})
	must(t, err)
	l, err := ledger.New(s, ledger.Options{Currency: "USDC", Lifetime: -1, Logger: quiet})
	must(t, err)
	must(t, deposit(l, 0, 2))
	must(t, pay(l, wallet(0), wallet(1), 1, "kept"))
	primary.Await(t, "select bool_and(replay_lsn >= pg_current_wal_lsn()) from pg_stat_replication")
	standby.Detach(t)
	must(t, pay(l, wallet(0), wallet(1), 1, "gone1"))
	must(t, pay(l, wallet(0), wallet(1), 1, "gone2"))
	primary.Stop(syscall.SIGQUIT)
	standby.Promote(t)
	if err := pay(l, wallet(0), wallet(1), 1, "after"); !errors.Is(err, postgres.ErrLost) || !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("a payment after a failover that has lost two: %v", err)
	}
	if _, _, err := l.Balance(wallet(1)); !errors.Is(err, postgres.ErrLost) {
		t.Errorf("a balance after a failover that has lost payments: %v", err)
	}
	if err := l.Close(); !errors.Is(err, postgres.ErrLost) {
		t.Errorf("closing a ledger that has lost payments: %v", err)
	}
	for _, id := range []string{"dgone1", "dgone2"} {
		if !strings.Contains(log.String(), id) {
			t.Errorf("the lost payment %s is not named: %s", id, log.String())
		}
	}
	if strings.Contains(log.String(), "dkept") {
		t.Errorf("a payment is named that is not lost: %s", log.String())
	}
	fresh := begin(t, open(t, both, postgres.Options{Mode: mode}))
	sound(t, fresh, wallet(1), ledger.Unit+1)
	must(t, pay(fresh, wallet(0), wallet(1), 1, "again"))
}
