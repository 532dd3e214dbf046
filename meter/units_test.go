package meter_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter"
)

func TestDecimalQuantity(t *testing.T) {
	for in, want := range map[string]string{
		"34": "34", "1.25": "1.25", "0": "0", "007": "7", "1e3": "1000", "1.5E+2": "150", "2.5e-3": "0.0025", "0.0000001": "0.000001", "1e-400": "0.000001",
		".5": "0.5", "1000000000000": "1000000000000",
	} {
		if q, ok := meter.DecimalQuantity(in); !ok || q.String() != want {
			t.Errorf("%q read as %s, %v; want %s", in, q, ok, want)
		}
	}
	for in, want := range map[string]string{
		"": "0", "-1": "0", "x": "0", "1.2.3": "0", "1e": "0", "1e9999": "0", "1e400": "1000000000000", "1e30": "1000000000000", strings.Repeat("9", 1000): "1000000000000", "NaN": "0", "0x10": "0", "1e+-3": "0",
	} {
		if q, ok := meter.DecimalQuantity(in); ok || q.String() != want {
			t.Errorf("%q read as %s, %v; want no quantity, clamped to %s", in, q, ok, want)
		}
	}
}

// TestQuantityText: a quantity reads back as what it was written.
func TestQuantityText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := meter.Quantity(rapid.Int64Range(0, int64(meter.MaxQuantity)).Draw(t, "q"))
		if got, ok := meter.DecimalQuantity(q.String()); !ok || got != q {
			t.Fatalf("%d reads back as %d", q, got)
		}
		if got, err := meter.ParseQuantity(q.String()); err != nil || got != q {
			t.Fatalf("%d reads back as %d, %v", q, got, err)
		}
	})
}

func TestUnits(t *testing.T) {
	u := meter.Units{}
	u.Add(meter.Output, meter.Whole(34))
	u.Add(meter.Input, meter.Whole(12))
	u.Add(meter.Input, meter.Whole(-5))
	u.Add(meter.Second, 1_250_000)
	if got := u.String(); got != "input=12,output=34,second=1.25" {
		t.Errorf("written as %s", got)
	}
	u.Add(meter.Input, meter.MaxQuantity)
	u.Add(meter.Input, meter.MaxQuantity)
	if u[meter.Input] != meter.MaxQuantity {
		t.Errorf("%d is above the most", u[meter.Input])
	}
	if n := meter.Quantity(1_000_001).Ceil(); n != 2 {
		t.Errorf("1.000001 units need %d", n)
	}
}
