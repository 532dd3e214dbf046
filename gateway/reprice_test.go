package gateway

import (
	"errors"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

func tariffOf(t *testing.T, models ...pricing.Model) *pricing.Tariff {
	t.Helper()
	tariff := &pricing.Tariff{Models: models}
	search, err := pricing.ParseToolPrice([]string{"search*", "0.01", "per", "call"})
	if err != nil {
		t.Fatal(err)
	}
	tariff.Tools = []pricing.ToolPrice{search}
	if err := tariff.Compile(nil); err != nil {
		t.Fatal(err)
	}
	return tariff
}

func priceOf(t *testing.T, words ...string) pricing.Price {
	t.Helper()
	p, err := pricing.ParseClassPrice(words[0], words[1:])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReprice(t *testing.T) {
	t.Parallel()
	small := pricing.Model{Glob: "small", Prices: []pricing.Price{priceOf(t, "input", "1", "per", "1M", "tokens"), priceOf(t, "output", "2", "per", "1M", "tokens")},
		Above: []pricing.Above{{Tokens: 1000, Prices: []pricing.Price{priceOf(t, "input", "5", "per", "1M", "tokens")}}}}
	large := pricing.Model{Glob: "large", Prices: []pricing.Price{priceOf(t, "input", "10", "per", "1M", "tokens")}}
	tariff := tariffOf(t, small, large)
	tests := map[string]struct {
		charge escrow.Charge
		want   string
		err    error
	}{
		"input and output":         {escrow.Charge{Model: "small", Units: map[string]string{"input": "100", "output": "10"}}, "0.00012", nil},
		"a long prompt":            {escrow.Charge{Model: "small", Units: map[string]string{"input": "900", "cached": "101"}}, "0.005005", nil},
		"a part by another model":  {escrow.Charge{Model: "small", Units: map[string]string{"input": "100", "input@large": "100"}}, "0.0011", nil},
		"what was asked is dearer": {escrow.Charge{Model: "small", AskedModel: "large", Units: map[string]string{"input": "100"}}, "0.001", nil},
		"a minimum is no usage":    {escrow.Charge{Model: "small", Units: map[string]string{"input": "100", "minimum": "1"}}, "0.0001", nil},
		"a tool":                   {escrow.Charge{Units: map[string]string{"tool:search@home": "2", "call": "2"}}, "0.02", nil},
		"a tool without a price":   {escrow.Charge{Units: map[string]string{"tool:fetch": "1"}}, "0", ErrNoPrice},
		"a model without a price":  {escrow.Charge{Model: "other", Units: map[string]string{"input": "1"}}, "0", ErrNoPrice},
		"a part without a price":   {escrow.Charge{Model: "small", Units: map[string]string{"input": "1", "input@other": "1"}}, "0", ErrNoPrice},
		"a capture":                {escrow.Charge{Pattern: escrow.CapturePattern, Units: map[string]string{"input": "1"}}, "0", ErrNoUsage},
		"of a plan":                {escrow.Charge{Plan: "monthly", Model: "small", Units: map[string]string{"input": "1"}}, "0", ErrNoUsage},
		"without units":            {escrow.Charge{Model: "small"}, "0", ErrNoUsage},
	}
	for name, test := range tests {
		amount, _, err := Reprice(tariff, test.charge, func(pricing.Counter) meter.Quantity { return 0 })
		if err == nil && amount.String() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %s, %v; want %s, %v", name, amount, err, test.want, test.err)
		}
	}
}

// TestRepriceUnderTheSamePrices: the record of a charge, priced again by the prices that it was charged, costs the same.
func TestRepriceUnderTheSamePrices(t *testing.T) {
	t.Parallel()
	tariff := tariffOf(t, pricing.Model{Glob: "*", Prices: []pricing.Price{
		priceOf(t, "input", "0.15", "per", "1M", "tokens"), priceOf(t, "output", "0.6", "per", "1M", "tokens"), priceOf(t, "tool_call", "0.002", "per", "call"),
	}})
	rates, _ := tariff.For("m")
	for _, usage := range []meter.Usage{
		{Units: meter.Units{meter.Input: meter.Whole(1234), meter.Cached: meter.Whole(77), meter.Output: meter.Whole(9)}, PromptTokens: 1311},
		{Units: meter.Units{meter.ToolCall: meter.Whole(5), meter.Output: meter.Whole(3)}, Tools: map[string]int64{"search": 2, "fetch": 3}},
		{Units: meter.Units{meter.ToolCall: meter.Whole(2)}, Tools: map[string]int64{"search": 2}},
	} {
		priced, err := rates.Price(usage, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := escrow.Charge{Model: "m", Units: map[string]string{}}
		for class, q := range priced.Units {
			c.Units[string(class)] = q.String()
		}
		amount, _, err := Reprice(tariff, c, func(pricing.Counter) meter.Quantity { return 0 })
		if err != nil || amount != ledger.Amount(priced.Nano) {
			t.Errorf("%v cost %s, and again %s, %v", c.Units, ledger.Amount(priced.Nano), amount, err)
		}
	}
}
