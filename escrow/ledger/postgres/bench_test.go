//go:build unix

package postgres_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

const (
	benchAccounts = 10_000
	benchTurn     = time.Second // for which one form runs in a round
)

// benchCell is one way to make transfers. In the form with two ledgers, each of them has half of the callers.
type benchCell struct {
	form             string // "sql", "bolt", or a mode
	ledgers, callers int    // callers in all
	hot              bool   // all transfers pay one account; otherwise ten
}

func (c benchCell) String() string {
	name := fmt.Sprintf("%s %dx%d", c.form, c.ledgers, c.callers/c.ledgers)
	if c.hot {
		name += " hot"
	}
	return name
}

// BenchmarkTransfers has callers that each hold, settle under an id, and wait until it is durable, as a metered call does. One operation is a
// round, in which each cell runs for a second after the other: so what else the machine does meanwhile falls on all alike. It reports the
// medians of the rounds. Client and server share the machine.
//
// Then ledgers on a slow disk are compared: the server waits for 3 ms more in each flush, as long as many a cloud's disk or a synchronous standby
// takes.
//
// The cells "sql" are what one would write without a ledger: one SQL transaction for each transfer, sent in one batch, by 64 connections.
func BenchmarkTransfers(b *testing.B) {
	all := []benchCell{
		{"sql", 1, 64, false}, {"log", 1, 64, false}, {"log", 1, 64, true}, {"log", 2, 64, false}, {"rows", 1, 64, false}, {"rows", 2, 64, false}, {"bolt", 1, 64, false},
		{"sql", 1, 512, false}, {"log", 1, 512, false}, {"log", 1, 512, true}, {"log", 2, 512, false}, {"rows", 1, 512, false}, {"bolt", 1, 512, false},
		{"sql", 1, 1, false}, {"log", 1, 1, false}, {"log", 2, 2, false},
	}
	b.Setenv("TMPDIR", os.TempDir()) // servers live on the disk, not in memory
	for _, callers := range []int{64, 512, 1, 2} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			compare(b, pgtest.Start(b), slices.DeleteFunc(slices.Clone(all), func(c benchCell) bool { return c.callers != callers }))
		})
	}
	for _, callers := range []int{64, 512} {
		b.Run(fmt.Sprintf("slow %d", callers), func(b *testing.B) {
			server := pgtest.Start(b, "commit_delay=3000", "commit_siblings=0")
			compare(b, server, []benchCell{{"log", 1, callers, false}, {"log", 2, callers, false}, {"log", 4, callers, false}})
		})
	}
}

func compare(b *testing.B, server *pgtest.Server, cells []benchCell) {
	var made []*benchForm
	for _, c := range cells {
		made = append(made, openForm(b, server, c))
	}
	b.ResetTimer()
	for range b.N {
		for _, f := range made {
			f.turn(b)
		}
	}
	b.StopTimer()
	var table strings.Builder
	for _, f := range made {
		f.report(b, &table, made[0])
	}
	fmt.Printf("\n%s", table.String()) // a log of a benchmark is cut after ten lines
}

// benchForm is a cell with its ledgers, and what was measured of it.
type benchForm struct {
	benchCell
	dsn      string
	call     func(i int) error
	next     atomic.Int64
	rates    []float64 // of the rounds, per second
	p50, p99 []time.Duration
}

func openForm(b *testing.B, server *pgtest.Server, c benchCell) *benchForm {
	payee := func(i int) ledger.AccountID {
		if c.hot {
			return ledger.Commission
		}
		return wallet(i % 10)
	}
	dsn := server.New(b)
	f := &benchForm{benchCell: c, dsn: dsn}
	if c.form == "sql" {
		call := sqlCalls(b, dsn)
		f.call = func(i int) error { return call(i, payee(i)) }
		return f
	}
	var ledgers []*ledger.Ledger
	for range c.ledgers {
		l := benchLedger(b, c.form, dsn)
		b.Cleanup(func() { must(b, l.Close()) })
		ledgers = append(ledgers, l)
	}
	must(b, fill(ledgers[0]))
	f.call = func(i int) error { return call(ledgers[i%c.ledgers], i, payee(i)) }
	return f
}

// turn has the callers make transfers for a while. With several ledgers, each caller stays with one of them.
func (f *benchForm) turn(b *testing.B) {
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	began := time.Now()
	for caller := range f.callers {
		all.Go(func() {
			var mine []time.Duration
			for time.Since(began) < benchTurn {
				i := int(f.next.Add(1))*f.ledgers + caller%f.ledgers
				begin := time.Now()
				if err := f.call(i); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	all.Wait()
	slices.Sort(took)
	f.rates = append(f.rates, float64(len(took))/time.Since(began).Seconds())
	f.p50 = append(f.p50, took[len(took)/2])
	f.p99 = append(f.p99, took[len(took)*99/100])
}

// inARow returns how many commits one of several ledgers makes on average before another one does. It is 1 if they take turns.
func (f *benchForm) inARow(b *testing.B) (commits float64) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, f.dsn)
	must(b, err)
	defer conn.Close(ctx)
	must(b, conn.QueryRow(ctx, `select count(*)::float8 / (1 + count(*) filter (where another))
		from (select writer <> lag(writer) over (order by commit) as another from log) as made`).Scan(&commits))
	return commits
}

// report prints a row of a table: the rate, how many times that of the first form, and the times.
func (f *benchForm) report(b *testing.B, table *strings.Builder, first *benchForm) {
	rate := median(f.rates)
	fmt.Fprintf(table, "%-14s %6.0f/s, %5.2f times %s, p50 %.1f ms, p99 %.1f ms\n", f, rate, rate/median(first.rates), first, milliseconds(f.p50), milliseconds(f.p99))
	if f.ledgers > 1 {
		fmt.Fprintf(table, "%14s %.2f commits of one ledger in a row\n", "", f.inARow(b))
	}
	b.ReportMetric(rate, strings.ReplaceAll(f.String(), " ", "-")+"/s")
}

func milliseconds(of []time.Duration) float64 { return float64(median(of).Microseconds()) / 1000 }

func median[T cmp.Ordered](of []T) T { return slices.Sorted(slices.Values(of))[len(of)/2] }

func benchLedger(b *testing.B, form, dsn string) *ledger.Ledger {
	var s ledger.Store
	var err error
	if form == "bolt" {
		s, err = bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{})
	} else {
		s, err = postgres.Open(dsn, postgres.Options{Logger: quiet, Mode: postgres.Mode(form)})
	}
	must(b, err)
	l, err := ledger.New(s, ledger.Options{Currency: "USDC", Lifetime: -1, Logger: quiet})
	must(b, err)
	return l
}

func wallet(i int) ledger.AccountID { return ledger.Wallet(fmt.Sprintf("agent%05d", i)) }

// fill puts money into all wallets.
func fill(l *ledger.Ledger) error {
	var made []*ledger.Receipt[ledger.Transfer]
	for i := range benchAccounts {
		made = append(made, ledger.Queue(l, func(tx *ledger.Tx) (ledger.Transfer, error) {
			return tx.Post(ledger.Transfer{Debit: ledger.World, Credit: wallet(i), Amount: ledger.Unit, Kind: "deposit"})
		}))
	}
	for _, m := range made {
		if _, err := m.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// deposit puts money into wallets from a number on.
func deposit(l *ledger.Ledger, from, wallets int) error {
	_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (struct{}, error) {
		for i := from; i < from+wallets; i++ {
			if _, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: wallet(i), Amount: ledger.Unit, Kind: "deposit"}); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// payerOf returns who pays transfer i. It is never one of the ten that are paid.
func payerOf(i int) ledger.AccountID { return wallet(10 + i*7919%(benchAccounts-10)) }

// call is one metered call: a hold, and its settlement.
func call(l *ledger.Ledger, i int, payee ledger.AccountID) error {
	payer := payerOf(i)
	hold, err := l.Hold(payer, 1000)
	if err != nil {
		return err
	}
	defer hold.Release()
	id := fmt.Sprintf("req_%026d", i)
	_, err = ledger.Do(context.Background(), l, func(tx *ledger.Tx) (ledger.Transfer, error) {
		if made, err := tx.Get([]byte("d" + id)); err != nil || made != nil {
			return ledger.Transfer{}, err
		}
		tx.Put([]byte("d"+id), []byte("what is kept of it"))
		charge, err := tx.Post(ledger.Transfer{Debit: payer, Credit: payee, Amount: 900, Kind: "charge", Reference: id}, hold)
		if err != nil {
			return charge, err
		}
		return charge, tx.Release(hold)
	})
	return err
}

// sqlCalls returns a function that makes one transfer, in an SQL transaction of its own.
func sqlCalls(b *testing.B, dsn string) func(i int, payee ledger.AccountID) error {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(dsn)
	must(b, err)
	config.MaxConns = 64
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(b, err)
	b.Cleanup(pool.Close)
	setUp := new(pgx.Batch)
	setUp.Queue("create table account (id text primary key, balance bigint not null check (balance >= 0)) with (fillfactor = 80)")
	setUp.Queue("create table transfer (id text primary key, debit text not null, credit text not null, amount bigint not null, at timestamptz not null default now())")
	must(b, pool.SendBatch(ctx, setUp).Close())
	accounts := map[ledger.AccountID]int64{ledger.Commission: 0}
	for i := range benchAccounts {
		accounts[wallet(i)] = int64(ledger.Unit)
	}
	ids := slices.Sorted(maps.Keys(accounts))
	_, err = pool.CopyFrom(ctx, pgx.Identifier{"account"}, []string{"id", "balance"}, pgx.CopyFromSlice(len(ids), func(i int) ([]any, error) {
		return []any{string(ids[i]), accounts[ids[i]]}, nil
	}))
	must(b, err)
	const amount = 900
	return func(i int, payee ledger.AccountID) error {
		payer := payerOf(i)
		t := new(pgx.Batch)
		t.Queue("begin")
		t.Queue("insert into transfer (id, debit, credit, amount) values ($1, $2, $3, $4)", fmt.Sprintf("req_%026d", i), payer, payee, amount)
		t.Queue("update account set balance = balance - $2 where id = $1", payer, amount)
		t.Queue("update account set balance = balance + $2 where id = $1", payee, amount)
		t.Queue("commit")
		return pool.SendBatch(ctx, t).Close()
	}
}
