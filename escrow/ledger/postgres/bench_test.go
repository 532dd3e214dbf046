//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

const benchAccounts = 10_000

// BenchmarkTransfers has callers that each hold, settle under an id, and wait until it is durable, as a metered call does: one operation
// is one transfer. Client and server share the machine. The embedded store is what it is compared with, in the same run. In the form with
// two ledgers, each of them has half of the calls.
func BenchmarkTransfers(b *testing.B) {
	server := pgtest.Start(b)
	one := func(s ledger.Store, err error) []ledger.Store {
		must(b, err)
		return []ledger.Store{s}
	}
	forms := map[string]func(*testing.B) []ledger.Store{
		"postgres": func(b *testing.B) []ledger.Store {
			return one(postgres.Open(server.New(b), postgres.Options{Logger: quiet}))
		},
		"bolt": func(b *testing.B) []ledger.Store {
			return one(bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{}))
		},
		"two": func(b *testing.B) []ledger.Store {
			dsn := server.New(b)
			return append(one(postgres.Open(dsn, postgres.Options{Logger: quiet})), one(postgres.Open(dsn, postgres.Options{Logger: quiet}))...)
		},
	}
	for _, callers := range []int{1, 64, 512} {
		for _, form := range []string{"postgres", "two", "bolt"} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, form), func(b *testing.B) {
				var ledgers []*ledger.Ledger
				for _, s := range forms[form](b) {
					l, err := ledger.New(s, ledger.Options{Currency: "USDC", Logger: quiet})
					must(b, err)
					defer func() { must(b, l.Close()) }()
					ledgers = append(ledgers, l)
				}
				for i := 0; i < benchAccounts; i += 1000 {
					must(b, deposit(ledgers[0], i, 1000))
				}
				concurrently(b, callers, func(i int) error { return call(ledgers[i%len(ledgers)], i) })
			})
		}
	}
}

func wallet(i int) ledger.AccountID { return ledger.Wallet(fmt.Sprintf("agent%05d", i)) }

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

// call is one metered call: a hold, and its settlement.
func call(l *ledger.Ledger, i int) error {
	payer, payee := wallet(i*7919%benchAccounts), wallet(i%10)
	if payer == payee {
		payee = ledger.Commission
	}
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
		return tx.Post(ledger.Transfer{Debit: payer, Credit: payee, Amount: 900, Kind: "charge", Reference: id}, hold)
	})
	return err
}

// concurrently has callers do something b.N times in all, and reports how fast and how evenly.
func concurrently(b *testing.B, callers int, do func(i int) error) {
	b.Helper()
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				begin := time.Now()
				if err := do(int(i)); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transfers/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
