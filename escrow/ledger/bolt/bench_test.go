package bolt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

const benchAccounts = 10_000

// bench opens a ledger with accounts that have money.
func bench(b *testing.B) (*bolt.Store, *ledger.Ledger) {
	b.Helper()
	s, err := bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s, benchLedger(b, s)
}

func benchLedger(b *testing.B, s ledger.Store) *ledger.Ledger {
	b.Helper()
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	fill(b, l, 0, benchAccounts)
	return l
}

// fill makes deposits into wallets, beginning with the wallet number first, some thousands of them per commit.
func fill(b *testing.B, l *ledger.Ledger, first, wallets int) {
	b.Helper()
	const each, together = 500, 10
	var receipts []*ledger.Receipt[struct{}]
	for from := first; from < first+wallets; from += each {
		receipts = append(receipts, ledger.Queue(l, func(tx *ledger.Tx) (struct{}, error) {
			for i := from; i < from+each; i++ {
				_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: wallet(i), Amount: ledger.Unit, Kind: "deposit"})
				if err != nil {
					return struct{}{}, err
				}
			}
			return struct{}{}, nil
		}))
		if len(receipts) < together && from+each < first+wallets {
			continue
		}
		for _, r := range receipts {
			if _, err := r.Wait(); err != nil {
				b.Fatal(err)
			}
		}
		receipts = receipts[:0]
	}
}

func wallet(i int) ledger.AccountID { return ledger.Wallet(fmt.Sprintf("agent%05d", i)) }

// plainStore is a store without a journal, for comparison: each commit writes every record to its final place.
type plainStore struct {
	*ledger.GroupCommit
	db *bbolt.DB
}

var plainBucket = []byte("ledger")

func openPlain(b *testing.B) *plainStore {
	b.Helper()
	db := openBare(b)
	s := &plainStore{db: db}
	s.GroupCommit = ledger.NewGroupCommit(func() (ledger.Group, error) {
		tx, err := db.Begin(true)
		if err != nil {
			return nil, err
		}
		return plainGroup{plainReader{tx.Bucket(plainBucket)}, tx}, nil
	}, 1024)
	return s
}

// openBare opens a bbolt file with the options of Open, and one bucket.
func openBare(b *testing.B) *bbolt.DB {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistArrayType, NoStatistics: true, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(plainBucket); return err })
	if err != nil {
		b.Fatal(err)
	}
	return db
}

func (s *plainStore) View(fn func(ledger.Reader) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return fn(plainReader{tx.Bucket(plainBucket)}) })
}

func (s *plainStore) Close() error {
	s.GroupCommit.Close()
	return nil
}

type plainReader struct{ bucket *bbolt.Bucket }

func (r plainReader) Get(key []byte) ([]byte, error) { return r.bucket.Get(key), nil }

func (r plainReader) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	c := r.bucket.Cursor()
	for key, value := c.Seek(in.From); key != nil && (in.To == nil || bytes.Compare(key, in.To) < 0); key, value = c.Next() {
		if more, err := fn(key, value); err != nil || !more {
			return err
		}
	}
	return nil
}

type plainGroup struct {
	plainReader
	tx *bbolt.Tx
}

func (g plainGroup) Commit(changes iter.Seq2[[]byte, []byte]) (err error) {
	defer func() { _ = g.tx.Rollback() }() // does nothing after a commit
	for key, value := range changes {
		if value == nil {
			err = g.bucket.Delete(key)
		} else {
			err = g.bucket.Put(key, value)
		}
		if err != nil {
			return err
		}
	}
	return g.tx.Commit()
}

// BenchmarkTransfers measures what a metered call does: each caller makes a hold, settles it under an id, and waits until that is durable. One
// operation is one transfer. The plain form, without a journal, is measured in the same run.
func BenchmarkTransfers(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 512} {
		for _, form := range []string{"journal", "plain"} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, form), func(b *testing.B) {
				var l *ledger.Ledger
				if form == "plain" {
					l = benchLedger(b, openPlain(b))
				} else {
					_, l = bench(b)
				}
				var next atomic.Int64
				b.ResetTimer()
				concurrently(b, callers, b.N, func() error { return call(l, int(next.Add(1))) })
			})
		}
	}
}

// concurrently lets callers do something n times in total, and reports the speed and the latencies.
func concurrently(b *testing.B, callers, n int, do func() error) {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				begin := time.Now()
				if err := do(); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	all.Wait()
	elapsed := time.Since(begin)
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(n)/elapsed.Seconds(), "transfers/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// repeatedly lets each of the callers do something times times.
func repeatedly(b *testing.B, callers, times int, do func() error) {
	b.Helper()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range times {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkYardsticks measures the disk and bbolt alone: syncs of one written block, updates of one record, and transfers by db.Batch (a record, two
// balances, an index; without checks and ids).
func BenchmarkYardsticks(b *testing.B) {
	b.Run("fdatasync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		block := make([]byte, 4096)
		for i := range 256 {
			if _, err := f.WriteAt(block, int64(i)*4096); err != nil {
				b.Fatal(err)
			}
		}
		i := 0
		for b.Loop() {
			_, err := f.WriteAt(block, int64(i%256)*4096)
			if err == nil {
				err = syscall.Fdatasync(int(f.Fd()))
			}
			if err != nil {
				b.Fatal(err)
			}
			i++
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
	})
	b.Run("update", func(b *testing.B) {
		db := openBare(b)
		var next atomic.Int64
		b.ResetTimer()
		concurrently(b, 1, b.N, func() error {
			return db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(plainBucket).Put(binary.BigEndian.AppendUint64(nil, uint64(next.Add(1))), make([]byte, 120))
			})
		})
	})
	for _, callers := range []int{64, 512} {
		b.Run(fmt.Sprintf("batch/callers=%d", callers), func(b *testing.B) {
			db := openBare(b)
			var next atomic.Int64
			b.ResetTimer()
			concurrently(b, callers, b.N, func() error { return batched(db, int(next.Add(1))) })
		})
	}
}

func batched(db *bbolt.DB, i int) error {
	return db.Batch(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(plainBucket)
		seq := binary.BigEndian.AppendUint64([]byte("t"), uint64(i))
		payer, payee := "b"+string(wallet(i*7919%benchAccounts)), "b"+string(wallet(i%10))
		_, _ = bucket.Get([]byte(payer)), bucket.Get([]byte(payee))
		for key, size := range map[string]int{string(seq): 120, payer: 32, payee: 32, payer + string(seq): 8} {
			if err := bucket.Put([]byte(key), make([]byte, size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkGrowth measures the cost of past transfers and agents: speed, size of the file, memory, opening, verifying and backing up, with more and
// more transfers. It stops at TALLYGATE_BENCH_TRANSFERS, by default 1,000,000; ten million take minutes.
func BenchmarkGrowth(b *testing.B) {
	most := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("TALLYGATE_BENCH_TRANSFERS")); err == nil {
		most = n
	}
	path := filepath.Join(b.TempDir(), "ledger.db")
	open := func() (*bolt.Store, *ledger.Ledger) {
		s, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			b.Fatal(err)
		}
		l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
		if err != nil {
			b.Fatal(err)
		}
		return s, l
	}
	s, l := open()
	fill(b, l, 0, benchAccounts)
	var next atomic.Int64
	some := func() error { return call(l, int(next.Add(1))) }
	reopen := func(b *testing.B) {
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		s, l = open()
		b.ReportMetric(time.Since(begin).Seconds(), "open-s")
	}
	for _, n := range []int{100_000, 1_000_000, 10_000_000} {
		if n > most {
			break
		}
		for int(next.Load()) < n { // in portions, so that nothing is kept in memory
			repeatedly(b, 512, 100, some)
		}
		b.Run(fmt.Sprintf("transfers=%d/calls", n), func(b *testing.B) {
			concurrently(b, 64, 50_000, some)
			size, err := s.Size()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(size)/float64(next.Load()), "file-B/transfer")
			// The memory depends on how full the layers are, so the largest value counts.
			most := int64(0)
			for range 20 {
				repeatedly(b, 64, 100, some)
				most = max(most, anonymous(b))
			}
			b.ReportMetric(float64(most)/(1<<20), "anon-MiB")
		})
		b.Run(fmt.Sprintf("transfers=%d/check", n), func(b *testing.B) {
			reopen(b)
			report, err := l.Check(context.Background(), nil)
			if err != nil || len(report.Wrong) > 0 {
				b.Fatal(report.Wrong, err)
			}
			b.ReportMetric(report.Seconds, "check-s")
			b.ReportMetric(float64(report.Transfers)/report.Seconds, "transfers/s")
		})
		b.Run(fmt.Sprintf("transfers=%d/backup", n), func(b *testing.B) {
			begin := time.Now()
			size, err := s.Backup(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(size)/(1<<20)/time.Since(begin).Seconds(), "MiB/s")
			b.ReportMetric(time.Since(begin).Seconds(), "backup-s")
		})
	}
	b.Run("agents", func(b *testing.B) {
		before := anonymous(b)
		const agents = 1_000_000
		fill(b, l, benchAccounts, agents)
		b.ReportMetric(float64(anonymous(b)-before)/agents, "anon-B/agent")
	})
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// anonymous returns this process's anonymous memory, which excludes mapped files, in bytes.
func anonymous(b *testing.B) int64 {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes << 10
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

// BenchmarkHold makes and releases holds, which does not use the disk.
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

// BenchmarkApply runs operations without the disk.
func BenchmarkApply(b *testing.B) {
	s, err := bolt.Open(filepath.Join(b.TempDir(), "ledger.db"), bolt.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	l := benchLedger(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	fill(b, l, 0, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transfers/s")
}
