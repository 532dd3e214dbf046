package pricing

import (
	"testing"

	"github.com/tallygate/tallygate/meter"
)

func TestMeasureInAndPriced(t *testing.T) {
	for _, test := range []struct {
		unit string
		in   meter.Units
		want meter.Quantity
		back meter.Units
	}{
		{"call", meter.Units{meter.Calls: meter.Whole(1)}, 1_000_000, meter.Units{meter.Calls: meter.Whole(1)}},
		{"token", meter.Units{meter.Input: meter.Whole(10), meter.Output: meter.Whole(5)}, 15_000_000, meter.Units{meter.Input: meter.Whole(15)}},
		{"KB", meter.Units{meter.Byte: meter.Whole(1500)}, 1_500_000, meter.Units{meter.Byte: meter.Whole(1500)}},
		{"minute", meter.Units{meter.Second: meter.Whole(90)}, 1_500_000, meter.Units{meter.Second: meter.Whole(90)}},
		{"rows", meter.Units{"rows": meter.Whole(3)}, 3_000_000, meter.Units{"rows": meter.Whole(3)}},
		{"GB", meter.Units{meter.Byte: meter.MaxQuantity}, meter.MaxQuantity / 1e9, meter.Units{meter.Byte: meter.MaxQuantity}},
	} {
		m := Measure{N: 1, Unit: test.unit}
		if got := m.In(test.in); got != test.want {
			t.Errorf("%v holds %d millionths of a %s, want %d", test.in, got, test.unit, test.want)
		}
		if got := m.Priced(test.want); got.String() != test.back.String() {
			t.Errorf("%d millionths of a %s are %s, want %s", test.want, test.unit, got, test.back)
		}
	}
	if got := (Measure{N: 1, Unit: "GB"}).Priced(meter.MaxQuantity); got[meter.Byte] != meter.MaxQuantity {
		t.Errorf("a price of more than there can be: %s", got)
	}
}
