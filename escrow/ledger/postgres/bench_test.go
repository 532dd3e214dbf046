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
// is one transfer. Client and server share the machine. Both modes are measured in turns, and the embedded store beside them in the same
// run. In the form with two ledgers, each of them has half of the callers. In the form "hot" all calls pay one account.
func BenchmarkTransfers(b *testing.B) {
	server := pgtest.Start(b)
	for _, c := range []struct {
		name             string
		ledgers, callers int
		hot              bool
	}{{"1x1", 1, 1, false}, {"1x64", 1, 64, false}, {"1x64 hot", 1, 64, true}, {"1x512", 1, 512, false}, {"2x32", 2, 32, false}, {"2x256", 2, 256, false}} {
		for _, form := range []string{"rows", "log", "bolt"} {
			if form == "bolt" && c.ledgers > 1 {
				continue
			}
			b.Run(c.name+"/"+form, func(b *testing.B) {
				dsn := server.New(b)
				var ledgers []*ledger.Ledger
				for range c.ledgers {
					l := benchLedger(b, form, dsn)
					defer func() { must(b, l.Close()) }()
					ledgers = append(ledgers, l)
				}
				for i := 0; i < benchAccounts; i += 1000 {
					must(b, deposit(ledgers[0], i, 1000))
				}
				concurrently(b, c.callers*c.ledgers, func(i int) error {
					payee := wallet(i % 10)
					if c.hot {
						payee = ledger.Commission
					}
					return call(ledgers[i%c.ledgers], i, payee)
				})
			})
		}
	}
}

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
func call(l *ledger.Ledger, i int, payee ledger.AccountID) error {
	payer := wallet(i * 7919 % benchAccounts)
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
