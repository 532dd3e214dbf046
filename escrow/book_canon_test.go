package escrow

import (
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger/canon"
	"github.com/tallygate/tallygate/escrow/ledger/canon/canontest"
)

// canonical are the records that package canon writes and reads, with the fields that it leaves to the library.
var canonical = []struct {
	record canon.Record
	rare   []string
}{
	{&Charge{
		RequestID: "req_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG", Payer: "agt_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG", Payee: "shop", Key: "key_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG",
		Route: "api", Pattern: "/api/*", Units: map[string]string{"call": "1"}, UnitPrices: map[string]string{"call": "0.000001"}, Amount: 1000,
		Source: "stated", Cut: "none", Status: Charged, HTTPStatus: 200, Duration: 12_345_678, CreatedAt: time.Unix(1_795_000_000, 123_456_789).UTC(),
		FirstTransfer: 1_234_567, LastTransfer: 1_234_567, Balance: 999_998_765_433,
	}, []string{"Credits", "Dispute"}},
	{&Escrow{
		ID: "esc_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG", Status: StatusOpen, From: "agt_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG", To: "shop", Amount: 1_000_000_000,
		Released: 1000, AutoRelease: time.Hour, AutoReleaseAt: time.Unix(1_795_003_600, 123_456_789).UTC(), OnExpiry: ToPayer, CreatedAt: time.Unix(1_795_000_000, 123_456_789).UTC(),
		UpdatedAt: time.Unix(1_795_000_001, 123_456_789).UTC(), Served: true, Kind: KindMeter, CountedFor: []string{"key_01KB7ZJ5YXS6WZ1T6Z2A2F7YQG"},
	}, []string{"Milestones", "Verdict"}},
}

// TestRecordsAreCanonical: records are written and read as the library does.
func TestRecordsAreCanonical(t *testing.T) {
	for _, c := range canonical {
		canontest.Check(t, encoding, c.record, c.rare...)
	}
}

// FuzzRecords: whatever is stored, it is read as the library reads it.
func FuzzRecords(f *testing.F) {
	for i, c := range canonical {
		value, err := encoding.Marshal(c.record)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), value)
		for _, odd := range canontest.Odd {
			f.Add(byte(i), odd)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, value []byte) {
		canontest.Read(t, value, canonical[int(kind)%len(canonical)].record)
	})
}

// BenchmarkRecord writes and reads the records of each call.
func BenchmarkRecord(b *testing.B) {
	for _, c := range canonical {
		canontest.Benchmark(b, encoding, c.record)
	}
}
