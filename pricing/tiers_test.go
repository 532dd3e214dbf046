package pricing

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter"
)

const tierTariff = `{"models":[
	{"glob":"chat*","prices":[
		{"amount":"2","per":1000,"unit":"input","tiers":{"after":[{"n":1000,"amount":"1.5"},{"n":2000,"amount":"1"}]}},
		{"amount":"10","per":1000,"unit":"output"}],
		"above":[{"tokens":5000,"prices":[{"amount":"4","per":1000,"unit":"input"}]}]},
	{"glob":"volume","prices":[{"amount":"2","per":1000,"unit":"input","tiers":{"volume":true,"each":"day","after":[{"n":1000,"amount":"1"}]}}]},
	{"glob":"free","minimum":"0.001","prices":[{"amount":"0","per":1000,"unit":"input","tiers":{"after":[{"n":100,"amount":"3"}]}}]},
	{"glob":"dearer","prices":[{"amount":"1","unit":"call","tiers":{"after":[{"n":2,"amount":"5"},{"n":4,"amount":"0.5"}]}}]},
	{"glob":"minutes","prices":[{"amount":"0.06","unit":"minute","tiers":{"after":[{"n":2,"amount":"0.03"}]}}]},
	{"glob":"third","prices":[{"amount":"0.000000001","per":3,"unit":"input","tiers":{"after":[{"n":10,"amount":"0.000000002"}]}}]}
]}`

// usedSoFar is a Used of the same for all counters.
func usedSoFar(t *testing.T, quantity string) Used {
	t.Helper()
	q, err := meter.ParseQuantity(quantity)
	if err != nil {
		t.Fatal(err)
	}
	return func(Counter) meter.Quantity { return q }
}

func TestTiers(t *testing.T) {
	tariff := compiled(t, tierTariff)
	tests := []struct {
		model, before, units string
		want                 string
		prices               string
	}{
		{"chat", "0", "input=500", "1", "input: 2 per 1k; 1.5 after 1k; 1 after 2k; from 0"},
		{"chat", "0", "input=1000", "2", ""},
		{"chat", "0", "input=1001", "2.0015", ""},
		{"chat", "999", "input=2", "0.0035", ""},
		{"chat", "1000", "input=1000", "1.5", ""},
		{"chat", "500", "input=2000", "3", "input: 2 per 1k; 1.5 after 1k; 1 after 2k; from 500"},
		{"chat", "5000", "input=1000", "1", ""},
		{"chat", "900", "input=100 output=1", "0.21", "input: 2 per 1k; 1.5 after 1k; 1 after 2k; from 900, output: 10 per 1k"},
		{"chat", "900", "input=100 cached=100", "0.35", "cached: 2 per 1k; 1.5 after 1k; 1 after 2k; from 1000, input: 2 per 1k; 1.5 after 1k; 1 after 2k; from 900"},
		{"volume", "0", "input=1000", "2", "input: 2 per 1k"},
		{"volume", "0", "input=1001", "1.001", "input: 1 per 1k"},
		{"volume", "999", "input=1", "0.002", ""},
		{"volume", "999", "input=2", "0.002", "input: 1 per 1k"},
		{"volume", "2000", "input=500 cached=500", "1", ""},
		{"free", "0", "call=1 input=100", "0.001", "input: 0 per 1k; 3 after 100; from 0, minimum: 0.001 per call"},
		{"free", "0", "input=100", "0", ""},
		{"free", "100", "call=1 input=1", "0.003", ""},
		{"dearer", "0", "call=1", "1", ""},
		{"dearer", "2", "call=1", "5", ""},
		{"dearer", "1", "call=4", "11.5", ""},
		{"minutes", "60", "second=120", "0.09", "second: 0.06 per minute; 0.03 after 2; from 60"},
		{"third", "0", "input=1", "0", ""},
		{"third", "2", "input=1", "0.000000001", ""},
		{"third", "9", "input=2", "0.000000001", ""},
	}
	for _, test := range tests {
		r, _ := tariff.For(test.model)
		u := meter.Usage{Units: used(t, test.units)}
		p, err := r.Price(u, usedSoFar(t, test.before))
		if got := decimal.New(p.Nano, -9).String(); got != test.want || err != nil {
			t.Errorf("%s, %s after %s: %s, %v; want %s", test.model, test.units, test.before, got, err, test.want)
		}
		e, err := Explain(p.Units, p.UnitPrices)
		if err != nil || e.AmountNano != p.Nano {
			t.Errorf("%s, %s after %s is explained as %+v, %v; want %s", test.model, test.units, test.before, e, err, test.want)
		}
		if most, err := r.Price(u, nil); most.Nano < p.Nano || err != nil {
			t.Errorf("%s, %s: at the dearest tier %d, %v, after %s %d", test.model, test.units, most.Nano, err, test.before, p.Nano)
		}
		if got := strings.Trim(strings.ReplaceAll(fmt.Sprint(p.UnitPrices), "map[", ""), "]"); test.prices != "" && got != strings.ReplaceAll(strings.ReplaceAll(test.prices, ", ", " "), ": ", ":") {
			t.Errorf("%s, %s after %s has the prices %s", test.model, test.units, test.before, got)
		}
	}
}

// Whatever the prices of a model, and whatever was used before, no usage costs more than what was said beforehand, and each is explained.
func TestTiersCostNoMoreThanTheMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Model{Glob: "*"}
		for _, class := range []string{"input", "output", "second", "call"} {
			p := drawPrice(t, class)
			if rapid.Bool().Draw(t, "has tiers") {
				p = drawTiers(t, class)
				p.Tiers.Volume = rapid.Bool().Draw(t, "volume")
			}
			m.Prices = append(m.Prices, p)
		}
		if rapid.Bool().Draw(t, "minimum") {
			m.Minimum = drawPrice(t, "call").roundedUp().Amount
		}
		tariff := Tariff{Models: []Model{m}}
		if err := tariff.Compile(nil); err != nil {
			t.Fatal(err)
		}
		r, _ := tariff.For("any")
		u := meter.Usage{Units: drawUnits(t)}
		before := rapid.Int64Range(0, 200_000_000).Draw(t, "before")
		p, err := r.Price(u, func(Counter) meter.Quantity { return meter.Quantity(before) })
		if err != nil {
			return
		}
		for what, most := range map[string]func() (int64, error){
			"most":  func() (int64, error) { return r.Most(u) },
			"price": func() (int64, error) { p, err := r.Price(u, nil); return p.Nano, err },
		} {
			if n, err := most(); err == nil && n < p.Nano {
				t.Fatalf("%s %d, %d in the end", what, n, p.Nano)
			}
		}
		if e, err := Explain(p.Units, p.UnitPrices); err != nil || e.AmountNano != p.Nano {
			t.Fatalf("%d is explained as %+v, %v", p.Nano, e, err)
		}
	})
}

// What is held, and what a call can cost at most, is by the dearest tier, wherever it stands. A call is never of a known price.
func TestTiersAreHeldAtTheDearest(t *testing.T) {
	tariff := compiled(t, tierTariff)
	free, _ := tariff.For("free")
	if most := free.MostFor(1000, 0); most != 3_000_000_000 {
		t.Errorf("1000 tokens, some of them free, cost at most %d", most)
	}
	dearer, _ := tariff.For("dearer")
	if most := dearer.MostFor(0, 0); most != 5_000_000_000 {
		t.Errorf("a call costs at most %d", most)
	}
	if nano, ok := dearer.Fixed(); ok || !dearer.OnlyCalls() || !dearer.HasTiers() {
		t.Errorf("a call costs %d, whatever was used", nano)
	}
	chat, _ := tariff.For("chat")
	if most := chat.MostOf(Measure{1000, "input"}); most != 4_000_000_000 { // of a long prompt
		t.Errorf("a batch costs at most %d", most)
	}
	if p, err := chat.Price(meter.Usage{Units: used(t, "input=1000")}, nil); p.Nano != 2_000_000_000 || len(p.Uses) != 0 || err != nil {
		t.Errorf("by nothing that was used: %+v, %v", p, err)
	}
}

// The same line counts in one counter, another model's in another; a long prompt that has a price without tiers counts nothing.
func TestTiersCount(t *testing.T) {
	tariff := compiled(t, tierTariff)
	chat, _ := tariff.For("Chat-2")
	p, err := chat.Price(meter.Usage{Units: used(t, "input=5 cached=6 output=7")}, usedSoFar(t, "0"))
	if got := fmt.Sprint(p.Uses); got != "[{{chat* input input month} 11}]" || err != nil {
		t.Errorf("chat counts %s, %v", got, err)
	}
	long, err := chat.Price(meter.Usage{Units: used(t, "input=6000"), PromptTokens: 6000}, usedSoFar(t, "0"))
	if len(long.Uses) != 0 || long.Nano != 24_000_000_000 || err != nil {
		t.Errorf("a long prompt counts %v and costs %d, %v", long.Uses, long.Nano, err)
	}
	volume, _ := tariff.For("volume")
	now := volume.TiersNow(usedSoFar(t, "1000"))
	if len(now) != 1 || now[0].Amount.String() != "1" || now[0].Each != "day" || now[0].Used != 1000e6 || now[0].Class != meter.Input {
		t.Errorf("the tiers stand at %+v", now)
	}
	if now := volume.TiersNow(usedSoFar(t, "999")); now[0].Amount.String() != "2" {
		t.Errorf("the tiers stand at %+v", now)
	}
}

func TestTiersThatAreWrong(t *testing.T) {
	for price, want := range map[string]string{
		`{"amount":"1","unit":"input","tiers":{"after":[]}}`:                                                   "tiers without a tier",
		`{"amount":"1","unit":"token","tiers":{"after":[{"n":1,"amount":"1"}]}}`:                               "per token has no tiers",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":0,"amount":"1"}]}}`:                               "after 0",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2,"amount":"1"},{"n":2,"amount":"2"}]}}`:          "ascending",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2,"amount":"-1"}]}}`:                              "negative",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2,"amount":"1"}],"each":"year"}}`:                 "use one of day, week, month",
		`{"amount":"1","unit":"call","tiers":{"after":[{"n":2,"amount":"0.0000000001"}]}}`:                     "finer than the 9 digits",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2,"amount":"1"}]}},{"amount":"1","unit":"input"}`: "two prices for input",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2}]}}`:                                            `tier without "amount"`,
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":2,"amount":"1","upto":3}]}}`:                      "unknown field",
		`{"amount":"1","unit":"input","tiers":{"after":[{"n":9000000000000000000,"amount":"1"}]}}`:             "ascending",
	} {
		var prices []Price
		err := json.Unmarshal([]byte("["+price+"]"), &prices)
		if err == nil {
			_, err = NewRates(prices)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", price, err, want)
		}
	}
}

func drawTiers(t *rapid.T, unit string) Price {
	p := drawPrice(t, unit)
	p.Tiers = &Tiers{}
	n := int64(0)
	for range rapid.IntRange(1, 4).Draw(t, "tiers") {
		n += rapid.Int64Range(1, 50).Draw(t, "n")
		amount := drawPrice(t, unit)
		tier := Price{Amount: amount.Amount, Per: p.Per, Unit: unit}.charged()
		if tier.per() != p.per() {
			tier.Amount = p.Amount
		}
		p.Tiers.After = append(p.Tiers.After, Tier{n, tier.Amount})
	}
	return p
}

// However a use is divided into calls, graduated tiers come to the same, to the last nano; each call is explained by its record; and none
// costs more than the dearest tier.
func TestGraduatedTiersTelescope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := rapid.SampledFrom([]string{"input", "event", "second", "minute", "call", "GiB"}).Draw(t, "unit")
		p := drawTiers(t, class)
		r, err := NewRates([]Price{p})
		if err != nil {
			t.Fatal(err)
		}
		of, err := findUnit(class, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := of.priced[0]
		var before meter.Quantity
		sum := new(big.Int)
		for _, q := range rapid.SliceOfN(rapid.Int64Range(0, 40_000_000), 1, 12).Draw(t, "calls") {
			u := meter.Usage{Units: meter.Units{c: meter.Quantity(q)}}
			priced, err := r.Price(u, func(Counter) meter.Quantity { return before })
			if errors.Is(err, ErrOverflow) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e, err := Explain(priced.Units, priced.UnitPrices); err != nil || e.AmountNano != priced.Nano {
				t.Fatalf("%d after %d costs %d, explained as %+v, %v", q, before, priced.Nano, e, err)
			}
			if most, err := r.Most(u); err == nil && most < priced.Nano || err == nil && q == 0 && priced.Nano != 0 {
				t.Fatalf("%d after %d costs %d, at most %d", q, before, priced.Nano, most)
			}
			sum.Add(sum, big.NewInt(priced.Nano))
			before += meter.Quantity(q)
		}
		once, err := r.Price(meter.Usage{Units: meter.Units{c: before}}, func(Counter) meter.Quantity { return 0 })
		if errors.Is(err, ErrOverflow) {
			return
		}
		if err != nil || sum.Cmp(big.NewInt(once.Nano)) != 0 {
			t.Fatalf("%s in calls, %d at once, %v", sum, once.Nano, err)
		}
	})
}

func TestTiersOfAbsurdUse(t *testing.T) {
	tariff := compiled(t, tierTariff)
	r, _ := tariff.For("dearer")
	for _, before := range []meter.Quantity{-5, 0, math.MaxInt64} {
		if p, err := r.Price(meter.Usage{Units: meter.Units{meter.Calls: math.MaxInt64}}, func(Counter) meter.Quantity { return before }); p.Nano != math.MaxInt64 || !errors.Is(err, ErrOverflow) {
			t.Errorf("after %d: %d, %v", before, p.Nano, err)
		}
		if p, err := r.Price(meter.Usage{Units: used(t, "call=1")}, func(Counter) meter.Quantity { return before }); p.Nano <= 0 || err != nil {
			t.Errorf("after %d: %d, %v", before, p.Nano, err)
		}
	}
}
