package pricing

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter"
)

// rates compiles lines of `price` without the word.
func rates(t testing.TB, lines ...string) *Rates {
	t.Helper()
	counts := []string{"rows"}
	var prices []Price
	for _, line := range lines {
		p, err := ParsePrice(strings.Fields(line), counts...)
		if err != nil {
			t.Fatal(err)
		}
		prices = append(prices, p)
	}
	r, err := NewRates(prices, counts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// used reads "input=12 output=3.5".
func used(t testing.TB, words string) meter.Units {
	t.Helper()
	units := meter.Units{}
	for word := range strings.FieldsSeq(words) {
		name, number, _ := strings.Cut(word, "=")
		d, err := decimal.NewFromString(number)
		if err != nil {
			t.Fatal(err)
		}
		units[meter.Class(name)] = meter.Quantity(d.Shift(6).IntPart())
	}
	return units
}

func TestDueOfPrices(t *testing.T) {
	tests := []struct {
		prices []string
		units  string
		want   string // in the currency
	}{
		{[]string{"0.001 per call"}, "call=1 input=500 byte=12", "0.001"},
		{[]string{"0.15 per 1M tokens"}, "input=12 output=34", "0.0000069"},
		{[]string{"0.15 per 1M tokens"}, "input=1 cached=1 cache_write=1 cache_write_1h=1 audio_input=1 image_input=1 output=1 reasoning=1 audio_output=1 image_output=1", "0.0000015"},
		{[]string{"1 per 1k input_tokens"}, "input=1 cached=1 output=5", "0.002"},
		{[]string{"1 per 1k output_tokens"}, "input=1 cached=1 output=5 reasoning=1", "0.006"},
		// Several add up.
		{[]string{"0.001 per call", "2 per 1k tokens"}, "call=1 input=1 output=1", "0.005"},
		{[]string{"1 per 1k tokens", "2 per 1k output"}, "input=1 output=1 reasoning=1", "0.007"},
		{[]string{"0.001 per call", "0.002 per call"}, "call=1", "0.003"},
		// A class with a price of its own is not charged at its fallback's.
		{[]string{"1 per 1k tokens", "0.5 per 1k cached"}, "input=1 cached=1", "0.0015"},
		{[]string{"1 per 1k tokens", "0 per 1k cached"}, "input=1 cached=1", "0.001"},
		{[]string{"1 per 1k input", "1.25 per 1k cache_write"}, "cache_write=1 cache_write_1h=1", "0.0025"},
		{[]string{"1 per 1k input", "1.25 per 1k cache_write", "2 per 1k cache_write_1h"}, "cache_write=1 cache_write_1h=1", "0.00325"},
		{[]string{"1 per 1k output", "3 per 1k reasoning"}, "output=1 reasoning=1 audio_output=1 image_output=1", "0.006"},
		// What has neither price nor fallback costs nothing.
		{[]string{"1 per 1k input"}, "output=5 reasoning=5 web_search=3 page=2 call=1 rows=7", "0"},
		{[]string{"1 per 1k cached"}, "input=5 cached=1", "0.001"},
		// Units of many sizes, and fractions of a unit.
		{[]string{"0.01 per MB"}, "byte=1500000", "0.015"},
		{[]string{"0.01 per MiB"}, "byte=1048576", "0.01"},
		{[]string{"1 per GB"}, "byte=1", "0.000000001"},
		{[]string{"1 per GiB"}, "byte=1", "0.000000001"},
		{[]string{"1 per KiB"}, "byte=1024", "1"},
		{[]string{"0.006 per minute"}, "second=90", "0.009"},
		{[]string{"0.006 per minute"}, "second=1.25", "0.000125"},
		{[]string{"3.6 per hour"}, "second=1", "0.001"},
		{[]string{"0.0002 per event"}, "event=50", "0.01"},
		{[]string{"0.02 per 1k rows"}, "rows=1234", "0.02468"},
		{[]string{"0.01 per tool_call"}, "tool_call=3", "0.03"},
		// One rounding, down: 2 x 0.6 nano is 1.2.
		{[]string{"0.0006 per 1M input", "0.0006 per 1M output"}, "input=1 output=1", "0.000000001"},
		{[]string{"1 per 3 events"}, "event=1", "0.333333333"},
		{[]string{"1 per 3 events"}, "event=3", "1"},
		// But never to nothing.
		{[]string{"0.0000000009 per event"}, "event=1", "0.000000001"},
		{[]string{"0.000000000000000000000000000001 per 1M tokens"}, "input=0.000001", "0.000000001"},
		{[]string{"0.000000000000000000000000000001 per 1M tokens"}, "input=0", "0"},
		{[]string{"0 per token"}, "input=1", "0"},
		// Digits beyond 64 bits are kept: they make the third nano.
		{[]string{"0.00000000333333333333333333333333333333333333 per event"}, "event=1", "0.000000003"},
		{[]string{"0.00000000299999999999999999999999999999999999 per event"}, "event=1", "0.000000002"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.prices, ", ")+": "+test.units, func(t *testing.T) {
			r := rates(t, test.prices...)
			u := meter.Usage{Units: used(t, test.units)}
			due, err := r.Due(u)
			if got := decimal.New(due, -9).String(); err != nil || got != test.want {
				t.Errorf("due %s, %v; want %s", got, err, test.want)
			}
			e, err := r.Explain(u)
			if err != nil || e.Amount != test.want {
				t.Errorf("explained as %s, %v; want %s", e.Amount, err, test.want)
			}
		})
	}
}

func TestDueOfAbsurdUnits(t *testing.T) {
	r := rates(t, "1 per call", "1 per 1M tokens")
	negative := meter.Usage{Units: meter.Units{meter.Calls: -5e6, meter.Input: -1, meter.Output: 1e6}}
	if due, err := r.Due(negative); due != 1000 || err != nil {
		t.Errorf("negative units: %d, %v; want 1000", due, err)
	}
	if due, err := r.Due(meter.Usage{}); due != 0 || err != nil {
		t.Errorf("nothing used: %d, %v", due, err)
	}
	tests := map[string]*Rates{
		"in 64 bits":     rates(t, "1000000000 per call"),
		"beyond 64 bits": rates(t, "999999999.0000000000000000000000000000000000001 per token"),
		"carry":          rates(t, "1000000000 per input", "1000000000 per output", "1000000000 per call", "1000000000 per event"),
	}
	huge := meter.Units{}
	for _, c := range []meter.Class{meter.Input, meter.Output, meter.Calls, meter.Event, meter.Cached} {
		huge[c] = math.MaxInt64
	}
	for name, r := range tests {
		if due, err := r.Due(meter.Usage{Units: huge}); !errors.Is(err, ErrOverflow) || due != math.MaxInt64 {
			t.Errorf("%s: due %d, %v; want overflow", name, due, err)
		}
		if most, err := r.Most(meter.Usage{Units: huge}); !errors.Is(err, ErrOverflow) || most != math.MaxInt64 {
			t.Errorf("%s: most %d, %v; want overflow", name, most, err)
		}
		if most := r.MostFor(math.MaxInt64, math.MaxInt64); most < 1e17 {
			t.Errorf("%s: most for huge bounds is %d", name, most)
		}
	}
}

// The last amount that fits, and its neighbours, with numbers of up to 64 bits and beyond.
func TestAmountAtTheEdge(t *testing.T) {
	for _, small := range []string{"0", "0.0000000000000000000000000000000000001"} {
		r := rates(t, "9.223372036854775807 per byte", "0.000000001 per 10 events", small+" per rows")
		tests := []struct {
			units             string
			due, most         int64
			dueOver, mostOver bool
		}{
			{"byte=1000000000", math.MaxInt64, math.MaxInt64, false, false},
			{"byte=1000000000 event=9", math.MaxInt64, math.MaxInt64, false, true},
			{"byte=1000000000 event=10", math.MaxInt64, math.MaxInt64, true, true},
			{"byte=999999999 event=5", math.MaxInt64 - 9223372037, math.MaxInt64 - 9223372036, false, false},
		}
		for _, test := range tests {
			u := meter.Usage{Units: used(t, test.units)}
			if due, err := r.Due(u); due != test.due || errors.Is(err, ErrOverflow) != test.dueOver {
				t.Errorf("%s: due %d, %v; want %d", test.units, due, err, test.due)
			}
			if most, err := r.Most(u); most != test.most || errors.Is(err, ErrOverflow) != test.mostOver {
				t.Errorf("%s: most %d, %v; want %d", test.units, most, err, test.most)
			}
		}
	}
}

func TestNewRatesErrors(t *testing.T) {
	tests := []struct {
		prices []Price
		want   string
	}{
		{nil, "no price"},
		{[]Price{{Unit: "calls", Per: -1}}, "per -1"},
		{[]Price{{Unit: "call", Per: maxNumber + 1}}, "use a number from 1"},
		{[]Price{{Unit: "foo"}}, `unknown unit "foo"`},
		{[]Price{{}}, `unknown unit ""`},
		{[]Price{{Unit: "call", Amount: decimal.New(-1, 0)}}, "negative"},
		{[]Price{{Unit: "call", Amount: decimal.New(1, 2_000_000_000)}}, "too many digits"},
		{[]Price{{Unit: "call", Amount: decimal.New(0, math.MinInt32)}}, "too many digits"},
	}
	for _, test := range tests {
		if _, err := NewRates(test.prices); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d prices: error %v; want one with %q", len(test.prices), err, test.want)
		}
	}
}

func TestFixedAndCharged(t *testing.T) {
	tests := []struct {
		prices  []string
		fixed   int64
		ok      bool
		charged string
	}{
		{[]string{"0.001 per call"}, 1_000_000, true, "[call]"},
		{[]string{"0.001 per call", "1 per 1k calls"}, 2_000_000, true, "[call]"},
		{[]string{"0.001 per call", "0 per token"}, 1_000_000, true, "[call]"},
		{[]string{"0 per call"}, 0, true, "[]"},
		{[]string{"0.001 per call", "1 per 1M bytes"}, 0, false, "[byte call]"},
		{[]string{"1 per 1M input"}, 0, false, "[audio_input cache_write cache_write_1h cached image_input input]"},
		{[]string{"1 per 1M input", "0 per 1M cache_write"}, 0, false, "[audio_input cached image_input input]"},
		{[]string{"1 per rows"}, 0, false, "[rows]"},
	}
	for _, test := range tests {
		r := rates(t, test.prices...)
		nano, ok := r.Fixed()
		if nano != test.fixed || ok != test.ok || fmt.Sprint(r.Charged()) != test.charged {
			t.Errorf("%v: fixed %d, %v, charged %v; want %d, %v, %s", test.prices, nano, ok, r.Charged(), test.fixed, test.ok, test.charged)
		}
		for _, c := range tokenClasses {
			if r.Uses(c) != slices.Contains(r.Charged(), c) {
				t.Errorf("%v: uses %s: %v", test.prices, c, r.Uses(c))
			}
		}
		if r.UsesTokens() != strings.Contains(test.charged, "put") {
			t.Errorf("%v: uses tokens: %v", test.prices, r.UsesTokens())
		}
	}
}

func TestMostFor(t *testing.T) {
	tests := []struct {
		prices  []string
		in, out int64
		want    int64
	}{
		{[]string{"0.001 per call"}, 1000, 1000, 1_000_000},
		{[]string{"1 per 1M tokens"}, 10, 20, 30_000},
		{[]string{"1 per 1M input", "2 per 1M cache_write_1h", "0.1 per 1M cached"}, 10, 20, 20_000},
		{[]string{"1 per 1M output", "5 per 1M reasoning"}, 10, 20, 100_000},
		{[]string{"0.0000001 per 1M tokens"}, 1, 1, 1}, // up
		{[]string{"1 per 1M tokens"}, -1, -1, 0},
		{[]string{"1 per event"}, 10, 10, 0},
	}
	for _, test := range tests {
		if got := rates(t, test.prices...).MostFor(test.in, test.out); got != test.want {
			t.Errorf("%v for %d and %d: %d; want %d", test.prices, test.in, test.out, got, test.want)
		}
	}
}

func TestMeasures(t *testing.T) {
	r := rates(t, "1 per 1M input", "2 per 1M output", "0.3 per 1M cached", "0.01 per MB", "0.0002 per event", "1 per minute", "7 per 1k rows")
	tests := []struct {
		measure string
		units   string
		of      int64
		most    int64
	}{
		{"1000 tokens", "input=1500 cached=400 output=99", 1, 2_000_000},
		{"1k tokens", "input=1500 cached=400 output=100", 2, 2_000_000},
		{"1k input_tokens", "input=1500 cached=400 output=100", 1, 1_000_000},
		{"1k output_tokens", "input=1500 output=1000 reasoning=1000", 2, 2_000_000},
		{"50 events", "event=149", 2, 10_000_000},
		{"10 MB", "byte=29999999", 2, 100_000_000},
		{"2 minutes", "second=240", 2, 2_000_000_000},
		{"10 rows", "rows=35", 3, 70_000_000},
		{"1 call", "input=5", 0, 0},
		{"1000000M GiB", "byte=9000000000000", 0, math.MaxInt64},
	}
	for _, test := range tests {
		m, err := ParseMeasure(strings.Fields(test.measure), "rows")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Check("rows"); err != nil {
			t.Error(err)
		}
		if got := m.Of(used(t, test.units)); got != test.of {
			t.Errorf("%s of %s: %d; want %d", m, test.units, got, test.of)
		}
		units := used(t, test.units)
		_, missing := m.Goes(units)
		class := m.unit().whole[0]
		for less, want := range map[meter.Quantity]int64{0: test.of + 1, 1: test.of} {
			more := maps.Clone(units)
			more[class] += missing - less
			if got := m.Of(more); got != want && test.most != math.MaxInt64 {
				t.Errorf("%s of %s, of which %s is missing: %d; want %d", m, more, missing, got, want)
			}
		}
		if got := r.MostOf(m); got != test.most && test.most != math.MaxInt64 || test.most == math.MaxInt64 && got < 1e13 {
			t.Errorf("most of %s: %d; want %d", m, got, test.most)
		}
		again, err := ParseMeasure(strings.Fields(m.String()), "rows")
		if err != nil || again != m {
			t.Errorf("%q was read as %v, %v", m, again, err)
		}
	}
	for _, words := range []string{"", "1000", "tokens", "0 tokens", "1000 foos", "1000 tokens now"} {
		if m, err := ParseMeasure(strings.Fields(words)); err == nil {
			t.Errorf("%q was taken as %v", words, m)
		}
	}
	for _, m := range []Measure{{}, {N: -1, Unit: "call"}, {N: 1, Unit: "foo"}} {
		if m.Check() == nil {
			t.Errorf("%+v passed", m)
		}
	}
}

// The models below compute with rationals, and resolve fallbacks by a table written out by hand.

var wantFallbacks = map[meter.Class][]meter.Class{
	meter.Input: {meter.Input}, meter.Cached: {meter.Cached, meter.Input}, meter.CacheWrite: {meter.CacheWrite, meter.Input},
	meter.CacheWrite1h: {meter.CacheWrite1h, meter.CacheWrite, meter.Input}, meter.AudioInput: {meter.AudioInput, meter.Input},
	meter.ImageInput: {meter.ImageInput, meter.Input}, meter.Output: {meter.Output}, meter.Reasoning: {meter.Reasoning, meter.Output},
	meter.AudioOutput: {meter.AudioOutput, meter.Output}, meter.ImageOutput: {meter.ImageOutput, meter.Output},
}

var wantUnits = map[string]struct {
	classes []meter.Class
	scale   int64
}{
	"token": {[]meter.Class{meter.Input, meter.Output}, 1}, "input_token": {[]meter.Class{meter.Input}, 1},
	"output_token": {[]meter.Class{meter.Output}, 1}, "KB": {[]meter.Class{meter.Byte}, 1000}, "MB": {[]meter.Class{meter.Byte}, 1000000},
	"GB": {[]meter.Class{meter.Byte}, 1000000000}, "KiB": {[]meter.Class{meter.Byte}, 1024}, "MiB": {[]meter.Class{meter.Byte}, 1048576},
	"GiB": {[]meter.Class{meter.Byte}, 1073741824}, "minute": {[]meter.Class{meter.Second}, 60}, "asked_minute": {[]meter.Class{meter.AskedSecond}, 60},
	"input_KB": {[]meter.Class{meter.InputByte}, 1000}, "input_MB": {[]meter.Class{meter.InputByte}, 1000000}, "input_GB": {[]meter.Class{meter.InputByte}, 1000000000}, "hour": {[]meter.Class{meter.Second}, 3600},
}

// exactly is the sum of prices x quantities in nanos, not rounded.
func exactly(prices []Price, units meter.Units) *big.Rat {
	sum := new(big.Rat)
	for c, q := range units {
		chain := wantFallbacks[c]
		if chain == nil {
			chain = []meter.Class{c}
		}
		for _, from := range chain {
			rate, found := new(big.Rat), false
			for _, p := range prices {
				def, known := wantUnits[p.Unit]
				if !known {
					def.classes, def.scale = []meter.Class{meter.Class(p.Unit)}, 1
				}
				if slices.Contains(def.classes, from) {
					found = true
					amount, _ := new(big.Rat).SetString(p.Amount.String())
					rate.Add(rate, amount.Quo(amount, new(big.Rat).SetInt(new(big.Int).Mul(big.NewInt(p.Per), big.NewInt(def.scale)))))
				}
			}
			if found {
				sum.Add(sum, rate.Mul(rate, big.NewRat(int64(q), 1_000_000)))
				break
			}
		}
	}
	return sum.Mul(sum, big.NewRat(1_000_000_000, 1))
}

func drawPrice(t *rapid.T, word string) Price {
	digits := rapid.Int64Range(0, 999_999_999).Draw(t, "digits")
	exponent := rapid.OneOf(rapid.Int32Range(-12, 0), rapid.Int32Range(-60, -1)).Draw(t, "exponent")
	per := rapid.OneOf(rapid.SampledFrom([]int64{1, 1000, 1_000_000}), rapid.Int64Range(1, 100_000)).Draw(t, "per")
	return Price{Amount: decimal.New(digits, exponent), Per: per, Unit: word}.charged()
}

func drawPrices(t *rapid.T) []Price {
	n := rapid.IntRange(1, 6).Draw(t, "prices")
	var prices []Price
	for range n {
		prices = append(prices, drawPrice(t, rapid.SampledFrom(units).Draw(t, "unit").word))
	}
	return prices
}

func drawUnits(t *rapid.T) meter.Units {
	return meter.Units(rapid.MapOfN(rapid.SampledFrom(slices.Concat(tokenClasses, countClasses)),
		rapid.Map(rapid.OneOf(rapid.Int64Range(0, 200_000_000_000), rapid.Int64Range(0, 3)), func(n int64) meter.Quantity { return meter.Quantity(n) }),
		0, 8).Draw(t, "units"))
}

func TestDueIsTheFloorOfTheExactSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prices, units := drawPrices(t), drawUnits(t)
		r, err := NewRates(prices)
		if err != nil {
			t.Fatal(err)
		}
		exact := exactly(prices, units)
		floor := new(big.Int).Quo(exact.Num(), exact.Denom())
		ceil := new(big.Int).Set(floor)
		if !exact.IsInt() {
			ceil.Add(ceil, big.NewInt(1))
		}
		if floor.Sign() == 0 {
			floor = ceil // never to nothing
		}
		checkAmountOf(t, "due", floor, func() (int64, error) { return r.Due(meter.Usage{Units: units}) })
		checkAmountOf(t, "most", ceil, func() (int64, error) { return r.Most(meter.Usage{Units: units}) })
		e, err := r.Explain(meter.Usage{Units: units})
		checkAmountOf(t, "explained", floor, func() (int64, error) { return e.AmountNano, err })
	})
}

func checkAmountOf(t *rapid.T, what string, want *big.Int, get func() (int64, error)) {
	got, err := get()
	switch {
	case !want.IsInt64():
		if !errors.Is(err, ErrOverflow) || got != math.MaxInt64 {
			t.Fatalf("%s %d, %v; want overflow of %s", what, got, err, want)
		}
	case err != nil || got != want.Int64() || got < 0:
		t.Fatalf("%s %d, %v; want %s", what, got, err, want)
	}
}

func TestDrawsAddUpAndNeverFall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := NewRates(drawPrices(t))
		if err != nil {
			t.Fatal(err)
		}
		steps := rapid.SliceOfN(rapid.Custom(drawUnits), 1, 20).Draw(t, "steps")
		total := meter.Units{}
		var before, drawn int64
		for _, step := range steps {
			for c, q := range step {
				total.Add(c, q)
			}
			due, err := r.Due(meter.Usage{Units: total})
			if err != nil {
				return // clamped; the other properties cover it
			}
			if due < before {
				t.Fatalf("due fell from %d to %d", before, due)
			}
			drawn, before = drawn+due-before, due
		}
		oneShot, err := r.Due(meter.Usage{Units: total})
		if err != nil || drawn != oneShot {
			t.Fatalf("drawn %d in %d steps; at once %d, %v", drawn, len(steps), oneShot, err)
		}
	})
}

func TestMostForCoversAnySplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := NewRates(drawPrices(t))
		if err != nil {
			t.Fatal(err)
		}
		units := drawUnits(t)
		for _, c := range countClasses {
			delete(units, c)
		}
		units[meter.Calls] = 1_000_000
		var in, out meter.Quantity
		for c, q := range units {
			if slices.Contains(inputClasses, c) {
				in += q
			} else if slices.Contains(outputClasses, c) {
				out += q
			}
		}
		most := r.MostFor(in.Ceil(), out.Ceil())
		if due, _ := r.Due(meter.Usage{Units: units}); due > most {
			t.Fatalf("due %d is more than the most %d", due, most)
		}
		tokens := Measure{N: max(1, (in + out).Ceil()), Unit: "token"}
		delete(units, meter.Calls)
		if due, _ := r.Due(meter.Usage{Units: units}); due > r.MostOf(tokens) {
			t.Fatalf("due %d is more than the most of %s, %d", due, tokens, r.MostOf(tokens))
		}
	})
}

func BenchmarkDue(b *testing.B) {
	four := meter.Usage{Units: used(b, "input=1200 cached=800 output=340 reasoning=128"), PromptTokens: 2000}
	run := func(name string, r *Rates, u meter.Usage) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Due(u); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("four classes", rates(b, "0.15 per 1M input", "0.075 per 1M cached", "0.6 per 1M output"), four)
	run("one call", rates(b, "0.001 per call"), meter.Usage{Units: used(b, "call=1")})
	run("beyond 64 bits", rates(b, "0.15000000000000000000000000001 per 1M tokens"), four)
	r := rates(b, "0.15 per 1M input", "0.075 per 1M cached", "0.6 per 1M output")
	b.Run("most for", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.MostFor(1200, 4096)
		}
	})
	b.Run("most", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Most(four); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMeasureOf(b *testing.B) {
	m, u := Measure{1000, "token"}, used(b, "input=1200 cached=800 output=340 reasoning=128")
	b.ReportAllocs()
	for b.Loop() {
		if m.Of(u) != 2 {
			b.Fatal("wrong")
		}
	}
}
