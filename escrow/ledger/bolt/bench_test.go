package bolt_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

const benchAccounts = 10_000

// bench opens a ledger whose accounts have money.
func bench(b *testing.B) (*bolt.Store, *ledger.Ledger) {
	b.Helper()
	s, err := bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	fill(b, l, benchAccounts)
	return s, l
}

func fill(b *testing.B, l *ledger.Ledger, transfers int) {
	b.Helper()
	var receipts []*ledger.Receipt
	for from := 0; from < transfers; from += 500 {
		receipts = append(receipts, l.Queue(func(batch *ledger.Batch) error {
			for i := from; i < from+500; i++ {
				_, err := batch.Post(ledger.Transfer{Debit: ledger.World, Credit: wallet(i % benchAccounts), Amount: ledger.Unit, Kind: "deposit"})
				if err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, r := range receipts {
		if err := r.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

func wallet(i int) ledger.AccountID { return ledger.Wallet(fmt.Sprintf("agent%05d", i)) }

// BenchmarkTransfers has callers that each hold, settle under an id, and wait until it is durable, as a metered call does: one
// operation is one transfer.
func BenchmarkTransfers(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			_, l := bench(b)
			var next, reads atomic.Int64
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
						begin := time.Now()
						if err := call(l, int(i)); err != nil {
							b.Error(err)
							return
						}
						took[i] = time.Since(begin)
						reads.Add(1)
					}
				})
			}
			all.Wait()
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transfers/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
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
	_, _, err = l.Once(context.Background(), id, []byte("digest"), func(batch *ledger.Batch) ([]byte, error) {
		_, err := batch.Post(ledger.Transfer{Debit: payer, Credit: payee, Amount: 900, Kind: "charge", Reference: id}, hold)
		return nil, err
	})
	return err
}

// BenchmarkHold is the way in: no disk.
func BenchmarkHold(b *testing.B) {
	_, l := bench(b)
	b.ReportAllocs()
	var worker atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		i := int(worker.Add(1)) * 1000
		for pb.Next() {
			i++
			h, err := l.Hold(wallet(i%benchAccounts), 1000)
			if err != nil {
				b.Error(err)
				return
			}
			h.Release()
		}
	})
}

// BenchmarkApply is an operation without the disk's part of it.
func BenchmarkApply(b *testing.B) {
	s, err := bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	fill(b, l, benchAccounts)
	b.ReportAllocs()
	b.ResetTimer()
	fill(b, l, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transfers/s")
}

// BenchmarkCheck proves the books of a ledger of 200,000 transfers; BenchmarkOpen opens it; BenchmarkBackup copies it.
func BenchmarkLarge(b *testing.B) {
	s, l := bench(b)
	fill(b, l, 200_000)
	size, err := s.Size()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Check", func(b *testing.B) {
		for b.Loop() {
			report, err := l.Check(context.Background(), nil)
			if err != nil || len(report.Wrong) > 0 {
				b.Fatal(report.Wrong, err)
			}
			b.ReportMetric(float64(report.Transfers)/report.Seconds, "transfers/s")
		}
	})
	b.Run("Backup", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := s.Backup(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	var whole bytes.Buffer
	if _, err := s.Backup(&whole); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "large.db")
	if err := os.WriteFile(path, whole.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, upTo := range map[string]int64{"Open/whole": 1 << 40, "Open/branches": -1} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(whole.Len()))
			for b.Loop() {
				s, err := bolt.Open(path, bolt.Options{VerifyUpTo: upTo})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
