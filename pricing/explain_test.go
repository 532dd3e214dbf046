package pricing

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
)

func TestExplain(t *testing.T) {
	tariff := compiled(t, `{"models":[{"glob":"*","prices":[
		{"amount":"0.15","per":1000000,"unit":"input"}, {"amount":"0.6","per":1000000,"unit":"output"},
		{"amount":"0.001","unit":"call"}, {"amount":"0.007","unit":"minute"}, {"amount":"0","per":1000,"unit":"cached"}]}],
		"tools":[{"glob":"search","amount":"0.01"},{"glob":"bulk","amount":"1","per":1000}]}`)
	r, _ := tariff.For("m")
	e, err := r.Explain(meter.Usage{
		Units: used(t, "call=1 input=12 cached=5 reasoning=7 second=10 tool_call=5 byte=99 output=0"),
		Tools: map[string]int64{"search": 2, "bulk": 1, "other": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "lines": [
  {"class": "input", "quantity": "12", "price": "0.15 per 1M", "product": "0.0000018"},
  {"class": "cached", "quantity": "5", "price": "0 per 1k", "product": "0"},
  {"class": "reasoning", "quantity": "7", "price": "0.6 per 1M", "product": "0.0000042"},
  {"class": "call", "quantity": "1", "price": "0.001 per call", "product": "0.001"},
  {"class": "byte", "quantity": "99", "price": "none", "product": "0"},
  {"class": "second", "quantity": "10", "price": "0.007 per minute", "product": "0.001166666666666666..."},
  {"class": "tool_call", "quantity": "2", "price": "none", "product": "0"},
  {"class": "tool:bulk", "quantity": "1", "price": "1 per 1k calls", "product": "0.001"},
  {"class": "tool:search", "quantity": "2", "price": "0.01 per call", "product": "0.02"}
 ],
 "sum": "0.023172666666666666...",
 "amount": "0.023172666"
}`
	var compact struct {
		Lines       []Line
		Sum, Amount string
	}
	if err := json.Unmarshal([]byte(want), &compact); err != nil {
		t.Fatal(err)
	}
	expected, _ := json.MarshalIndent(Explanation{Lines: compact.Lines, Sum: compact.Sum, Amount: compact.Amount}, "", " ")
	if string(got) != string(expected) {
		t.Errorf("got %s\nwant %s", got, expected)
	}
	if e.AmountNano != 23_172_666 {
		t.Errorf("amount %d", e.AmountNano)
	}
}

func TestUnitPrices(t *testing.T) {
	r := rates(t, "0.15 per 1M tokens", "0.001 per 1k output", "0.01 per MB", "0.02 per 10 rows", "1 per 3 hours")
	got := r.UnitPrices(meter.Usage{Units: used(t, "input=1 cached=1 output=1 byte=1 rows=1 second=1 event=1")})
	want := map[meter.Class]string{
		"input": "0.15 per 1M", "cached": "0.15 per 1M", "output": "0.15 per 1M + 0.001 per 1k",
		"byte": "0.01 per MB", "rows": "0.02 per 10", "second": "1 per 3 hours",
	}
	for c := range want {
		if got[c] != want[c] {
			t.Errorf("%s: %q; want %q", c, got[c], want[c])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}

func TestExplainErrors(t *testing.T) {
	units := meter.Units{meter.Input: 1e6}
	for _, words := range []string{"", "free", "1 per", "x per 1M", "1 per 1M + ", "-1 per 1M"} {
		if _, err := Explain(units, map[meter.Class]string{meter.Input: words}); err == nil || !strings.Contains(err.Error(), "price of input") {
			t.Errorf("%q: error %v", words, err)
		}
	}
	e, err := Explain(meter.Units{meter.Input: meter.MaxQuantity}, map[meter.Class]string{meter.Input: "1 per input"})
	if !errors.Is(err, ErrOverflow) || len(e.Lines) != 1 || e.Sum != "1000000000000" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := Explain(nil, nil); err != nil || e.Amount != "0" || e.Sum != "0" {
		t.Errorf("%+v, %v", e, err)
	}
}

// What explains a cost comes to what MarkupCost has charged.
func TestExplainCost(t *testing.T) {
	units := meter.Units{meter.Input: 12e6, meter.Output: 3e6}
	for _, test := range []struct{ cost, markup, factor, sum, amount string }{
		{"0.00014625", "20%", "120%", "0.0001755", "0.0001755"},
		{"0.0004970133333333333", "5.5%", "105.5%", "0.0005243490666666666315", "0.000524349"},
		{"0", "0%", "100%", "0", "0"},
	} {
		e, err := ExplainCost(units, test.cost, test.markup)
		if err != nil || len(e.Lines) != 3 {
			t.Fatalf("%+v, %v", e, err)
		}
		if want := (Line{"cost", test.cost, test.factor, test.sum}); e.Lines[2] != want || e.Sum != test.sum || e.Amount != test.amount {
			t.Errorf("%s + %s: %+v", test.cost, test.markup, e)
		}
		percent, _ := ParsePercent(test.markup)
		if nano, err := MarkupCost(test.cost, percent); err != nil || nano != e.AmountNano {
			t.Errorf("%s + %s: %d, %v; explained as %d", test.cost, test.markup, nano, err, e.AmountNano)
		}
	}
	for _, bad := range [][2]string{{"", "0%"}, {"-1", "0%"}, {"1", ""}, {"1000000000", "1000%"}} {
		if _, err := ExplainCost(nil, bad[0], bad[1]); err == nil {
			t.Errorf("%v was explained", bad)
		}
	}
}
