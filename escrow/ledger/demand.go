package ledger

import (
	"math"
	"time"
)

// Demand is how much of something was needed in the last seconds, by which leases are made: money here, and limits and quotas in the packages
// that use the ledger. The zero Demand is ready to use. It is not safe for concurrent use.
type Demand struct {
	second     int64 // of the monotonic clock
	last, this int64
}

// Note counts an amount that is needed now, by the clock of [Ledger.Elapsed]. A sum that is too large stays the largest.
func (d *Demand) Note(amount int64, now time.Duration) {
	d.turn(now)
	d.this = saturated(d.this, amount)
}

// Sum returns about how much was needed in the last two seconds.
func (d *Demand) Sum(now time.Duration) int64 {
	d.turn(now)
	return saturated(d.last, d.this)
}

func (d *Demand) turn(now time.Duration) {
	switch second := int64(now / time.Second); {
	case second == d.second:
	case second == d.second+1:
		d.last, d.this, d.second = d.this, 0, second
	default:
		d.last, d.this, d.second = 0, 0, second
	}
}

// saturated adds two amounts that are not negative.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
