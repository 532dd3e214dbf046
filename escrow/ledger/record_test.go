package ledger

import (
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger/canon"
	"github.com/tallygate/tallygate/escrow/ledger/canon/canontest"
)

// canonical are the records that package canon writes and reads.
var canonical = []canon.Record{
	&Account{DebitsPosted: 1_234_567, CreditsPosted: 1_000_000_000_000},
	&transferRecord{
		Debit: Wallet("agt_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG"), Credit: Wallet("shop"), Amount: 1000, Kind: "charge",
		Reference: "req_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG", Time: 1_795_000_000_123_456_789,
	},
	&entryRecord{BalanceAfter: 999_998_765_433},
	&stateRecord{Seq: 1_234_567, Time: 1_795_000_000_123_456_789, Head: [32]byte{1, 2, 3}, Day: "2026-11-29"},
}

// TestRecordsAreCanonical: records are written and read as the library does.
func TestRecordsAreCanonical(t *testing.T) {
	for _, r := range canonical {
		canontest.Check(t, encoding, r)
	}
}

// FuzzRecords: whatever is stored, it is read as the library reads it.
func FuzzRecords(f *testing.F) {
	for i, r := range canonical {
		f.Add(byte(i), encode(r))
		for _, odd := range canontest.Odd {
			f.Add(byte(i), odd)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, value []byte) {
		canontest.Read(t, value, canonical[int(kind)%len(canonical)])
	})
}

// BenchmarkRecord writes and reads the records of each call.
func BenchmarkRecord(b *testing.B) {
	for _, r := range canonical {
		canontest.Benchmark(b, encoding, r)
	}
}
