package pricing

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
)

func TestMinimum(t *testing.T) {
	tariff := compiled(t, `{"models":[
		{"glob":"chat","minimum":"0.001","prices":[{"amount":"0.1","per":1000,"unit":"input"}],"services":[{"name":"flex","prices":[{"amount":"0.05","per":1000,"unit":"input"}]}]},
		{"glob":"third","minimum":"0.001","prices":[{"amount":"0.0001","per":3,"unit":"input"}]},
		{"glob":"tiny","minimum":"0.000000001","prices":[{"amount":"1e-12","unit":"input"}]},
		{"glob":"call","minimum":"0.5","prices":[{"amount":"0.001","unit":"call"}]},
		{"glob":"free","minimum":"0","prices":[{"amount":"0","unit":"call"}]}]}`)
	tests := []struct {
		model, units, tier string
		want               string
	}{
		{"chat", "call=1 input=1", "", "0.001"},
		{"chat", "call=1 input=10", "", "0.001"},
		{"chat", "call=1 input=11", "", "0.0011"},
		{"chat", "call=1 input=11", "flex", "0.001"},
		{"chat", "call=1", "", "0.001"},
		{"chat", "input=1", "", "0.0001"}, // a call that runs
		{"chat", "call=3 input=11", "", "0.003"},
		{"third", "call=1 input=1", "", "0.001"},
		{"third", "call=1 input=31", "", "0.001033333"},
		{"tiny", "call=1 input=1", "", "0.000000001"},
		{"call", "call=1", "", "0.5"},
		{"call", "call=2", "", "1"},
		{"free", "call=1 input=9", "", "0"},
	}
	for _, test := range tests {
		r, _ := tariff.For(test.model)
		u := meter.Usage{Units: used(t, test.units), ServiceTier: test.tier}
		e, err := r.Explain(u)
		if err != nil || e.Amount != test.want {
			t.Errorf("%s, %s is explained as %s, %v; want %s", test.model, test.units, e.Amount, err, test.want)
		}
		if due, err := r.Due(u); due != e.AmountNano || err != nil {
			t.Errorf("%s, %s: due %d, %v; explained as %d", test.model, test.units, due, err, e.AmountNano)
		}
		if most, err := r.Most(u); most < e.AmountNano || err != nil {
			t.Errorf("%s, %s: at most %d, %v; due %d", test.model, test.units, most, err, e.AmountNano)
		}
	}
	chat, _ := tariff.For("chat")
	if most := chat.MostFor(1, 0); most != 1_000_000 {
		t.Errorf("a call with one token costs at most %d", most)
	}
	if !chat.Uses(meter.Calls) {
		t.Error("a call costs nothing")
	}
	call, _ := tariff.For("call")
	if nano, ok := call.Fixed(); nano != 500_000_000 || !ok {
		t.Errorf("a call costs %d, fixed: %v", nano, ok)
	}
	if due, err := call.Due(meter.Usage{Units: meter.Units{meter.Calls: math.MaxInt64}}); due != math.MaxInt64 || !errors.Is(err, ErrOverflow) {
		t.Errorf("too many calls cost %d, %v", due, err)
	}
}

func TestParseMinimum(t *testing.T) {
	for words, want := range map[string]string{
		"0.001 per call":         "",
		"0 per calls":            "",
		"0.001":                  "expected A per",
		"0.001 per token":        "expected A per call",
		"0.001 per 2 calls":      "expected A per call",
		"-1 per call":            "negative",
		"0.0000000001 per call":  "finer than the 9 digits",
		"1000000000000 per call": "absurd",
	} {
		_, err := ParseMinimum(strings.Fields(words))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", words, err, want)
		}
	}
}
