package pricing

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		glob, name string
		want       bool
	}{
		{"*", "", true}, {"*", "meta-llama/Llama-3", true}, {"gpt-4o*", "gpt-4o", true}, {"gpt-4o*", "gpt-4o-mini", true},
		{"gpt-4o*", "gpt-4", false}, {"gpt-4o", "GPT-4o", true}, {"GPT-4O*", "gpt-4o-mini", true}, {"gpt-?", "gpt-4", true},
		{"gpt-?", "gpt-", false}, {"gpt-?", "gpt-4o", false}, {"*/llama*", "meta/llama-3", true}, {"*mini*", "gpt-4o-mini-2024", true},
		{"a*b*c", "aXbXXc", true}, {"a*b*c", "aXbXX", false}, {"a*b*c", "abcbc", true}, {"", "", true}, {"", "a", false},
		{"**a**", "xax", true}, {"[a-z]", "a", false}, {"[a-z]", "[a-z]", true}, {`\*`, `\x`, true},
		{`\*`, "*", false}, {`a\?`, `a\b`, true}, {"caf?", "café", true}, {"caf??", "café", false}, {"*?", "é", true}, {"*??", "é", false},
		{"modèle-*", "MODÈLE-2", true}, {"?", "\xfe", true},
		// What takes the time of an exponential matcher; a linear one answers at once.
		{"*a*a*a*a*a*a*a*a*b*", strings.Repeat("a", 10_000), false},
	}
	for _, test := range tests {
		if got := match(test.glob, test.name); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.glob, test.name, got)
		}
	}
}

// A glob that was made from a name, by putting * for runs and ? for single characters, matches it.
func TestMatchOfMadeGlobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab/:-]{0,12}`).Draw(t, "name")
		var glob strings.Builder
		for i := 0; i < len(name); {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				glob.WriteByte(name[i])
				i++
			case 1:
				glob.WriteByte('?')
				i++
			default:
				glob.WriteByte('*')
				i += rapid.IntRange(0, len(name)-i).Draw(t, "run")
			}
			if glob.Len() > 40 {
				return
			}
		}
		if !match(glob.String(), name) {
			t.Fatalf("%q does not match %q", glob.String(), name)
		}
		if match(glob.String()+"x", name) {
			t.Fatalf("%q matches %q", glob.String()+"x", name)
		}
	})
}

const gptTariff = `{
	"models": [
		{"glob": "gpt-4o-mini*", "prices": [
			{"amount": "0.15", "per": 1000000, "unit": "input"},
			{"amount": "0.075", "per": 1000000, "unit": "cached"},
			{"amount": "0.60", "per": 1000000, "unit": "output"}]},
		{"glob": "long*", "max_output": 1000, "prices": [
			{"amount": 1, "per": 1000, "unit": "input"}, {"amount": 0.1, "per": 1000, "unit": "cached"}, {"amount": 5, "per": 1000, "unit": "output"}],
		 "above": [
			{"tokens": 1000, "prices": [{"amount": 4, "per": 1000, "unit": "input"}]},
			{"tokens": 200, "prices": [{"amount": 2, "per": 1000, "unit": "input"}, {"amount": 8, "per": 1000, "unit": "output"}]}],
		 "services": [
			{"name": "flex", "prices": [{"amount": 0.5, "per": 1000, "unit": "input"}]},
			{"name": "Priority", "prices": [{"amount": 10, "per": 1000, "unit": "input"}],
			 "above": [{"tokens": 200, "prices": [{"amount": 20, "per": 1000, "unit": "input"}]}]}]},
		{"glob": "*", "prices": [
			{"amount": "2.50", "per": 1000000, "unit": "input"},
			{"amount": "10.00", "per": 1000000, "unit": "output"}]}],
	"tools": [
		{"glob": "free_*", "amount": "0"},
		{"glob": "search*", "amount": "0.01"},
		{"glob": "bulk", "amount": "1", "per": 1000}],
	"max_output": 4096
}`

func compiled(t testing.TB, config string) *Tariff {
	t.Helper()
	var tariff Tariff
	if err := strictJSON([]byte(config), &tariff); err != nil {
		t.Fatal(err)
	}
	if err := tariff.Compile(nil); err != nil {
		t.Fatal(err)
	}
	return &tariff
}

func TestTariff(t *testing.T) {
	tariff := compiled(t, gptTariff)
	tests := []struct {
		model, units string
		prompt       int64
		service      string
		tools        map[string]int64
		want         string
	}{
		{model: "gpt-4o-mini-2024-07-18", units: "input=1000 cached=1000 output=1000", want: "0.000825"},
		{model: "GPT-4o-mini", units: "input=1000", want: "0.00015"},
		{model: "o3", units: "input=1000 cached=1000 reasoning=1000", want: "0.015"},
		{model: "", units: "input=1000", want: "0.0025"},
		// Sizes of the prompt: a class that the upper block does not price keeps its price.
		{model: "long", prompt: 200, units: "input=1 cached=1 output=1", want: "0.0061"},
		{model: "long", prompt: 201, units: "input=1 cached=1 output=1", want: "0.0101"},
		{model: "long", prompt: 1000, units: "input=1 cached=1 output=1", want: "0.0101"},
		{model: "long", prompt: 1001, units: "input=1 cached=1 output=1", want: "0.0121"},
		// Services.
		{model: "long", service: "flex", units: "input=1 output=1", want: "0.0055"},
		{model: "long", service: "flex", prompt: 201, units: "input=1 output=1", want: "0.0085"},
		{model: "long", service: "priority", units: "input=1", want: "0.01"},
		{model: "long", service: "PRIORITY", prompt: 2000, units: "input=1", want: "0.02"},
		{model: "long", service: "default", units: "input=1", want: "0.001"},
		{model: "long", service: "standard", units: "input=1", want: "0.001"},
		// Tools.
		{model: "o3", units: "tool_call=3", tools: map[string]int64{"search_web": 2, "other": 1}, want: "0.02"},
		{model: "o3", units: "tool_call=1", tools: map[string]int64{"free_search": 1}, want: "0"},
		{model: "o3", units: "tool_call=5", tools: map[string]int64{"bulk": 5}, want: "0.005"},
		{model: "o3", tools: map[string]int64{"search": -1}, want: "0"},
		{model: "gpt-4o-mini", units: "input=1000 tool_call=1", tools: map[string]int64{"Search": 1}, want: "0.01015"},
	}
	for _, test := range tests {
		name := fmt.Sprintf("%s %s %d %s %v", test.model, test.units, test.prompt, test.service, test.tools)
		r, ok := tariff.For(test.model)
		if !ok {
			t.Errorf("%s: no price", name)
			continue
		}
		u := meter.Usage{Units: used(t, test.units), PromptTokens: test.prompt, ServiceTier: test.service, Tools: test.tools}
		due, err := r.Due(u)
		if got := decimal.New(due, -9).String(); err != nil || got != test.want {
			t.Errorf("%s: due %s, %v; want %s", name, got, err, test.want)
		}
		if e, err := r.Explain(u); err != nil || e.Amount != test.want {
			t.Errorf("%s: explained as %s, %v; want %s", name, e.Amount, err, test.want)
		}
		most, err := r.Most(u)
		if err != nil || most < due {
			t.Errorf("%s: most %d, %v; due %d", name, most, err, due)
		}
	}
}

func TestMostOfTiersAndServices(t *testing.T) {
	tariff := compiled(t, gptTariff)
	r, _ := tariff.For("long")
	tests := []struct {
		prompt  int64
		service string
		want    int64
	}{
		{0, "", 20_000_000},          // any size, any service
		{200, "", 10_000_000},        // priority
		{201, "", 20_000_000},        // priority above 200
		{200, "standard", 1_000_000}, // no size reached
		{201, "standard", 2_000_000},
		{0, "standard", 4_000_000},
		{0, "flex", 500_000},
		{0, "priority", 20_000_000},
	}
	for _, test := range tests {
		u := meter.Usage{Units: used(t, "input=1"), PromptTokens: test.prompt, ServiceTier: test.service}
		if most, err := r.Most(u); err != nil || most != test.want {
			t.Errorf("prompt of %d, %q: most %d, %v; want %d", test.prompt, test.service, most, err, test.want)
		}
	}
	if most := r.MostFor(1, 0); most != 10_000_000 {
		t.Errorf("most for 1 token: %d", most)
	}
	if most := r.MostFor(201, 1); most != 201*20_000_000+8_000_000 {
		t.Errorf("most for 201 tokens: %d", most)
	}
	if most, err := r.Most(meter.Usage{Units: used(t, "tool_call=2")}); err != nil || most != 20_000_000 {
		t.Errorf("tool calls without names: most %d, %v", most, err)
	}
	if most, err := r.Most(meter.Usage{Units: used(t, "tool_call=3"), Tools: map[string]int64{"bulk": 1, "other": 1}}); err != nil || most != 11_000_000 {
		t.Errorf("tool calls, one without a name: most %d, %v", most, err)
	}
	if most := r.MostOf(Measure{2, "tool_call"}); most != 20_000_000 {
		t.Errorf("most of 2 tool calls: %d", most)
	}
}

func TestMaxOutput(t *testing.T) {
	tariff := compiled(t, gptTariff)
	for model, want := range map[string]int64{"long": 1000, "o3": 4096} {
		if r, _ := tariff.For(model); r.MaxOutput() != want {
			t.Errorf("%s: %d; want %d", model, r.MaxOutput(), want)
		}
	}
}

func TestNoPrice(t *testing.T) {
	tariff := compiled(t, `{"models":[{"glob":"gpt-*","prices":[{"amount":1,"unit":"call"}]}]}`)
	for _, model := range []string{"", "o3", "xgpt-4"} {
		if _, ok := tariff.For(model); ok {
			t.Errorf("%q has a price", model)
		}
	}
}

func TestToolsAlone(t *testing.T) {
	tariff := compiled(t, `{"tools":[{"glob":"search*","amount":"0.01"}]}`)
	if _, ok := tariff.For("gpt-4o"); ok {
		t.Error("a model has a price")
	}
	r, ok := tariff.ForTools()
	if !ok {
		t.Fatal("tools have no price")
	}
	due, err := r.Due(meter.Usage{Units: used(t, "tool_call=2"), Tools: map[string]int64{"search": 1, "other": 1}})
	if due != 10_000_000 || err != nil {
		t.Errorf("due %d, %v", due, err)
	}
	if !r.PricesTool("search_web") || r.PricesTool("other") || !r.Uses(meter.ToolCall) || r.UsesTokens() {
		t.Error("which tools have prices is told wrong")
	}
	if _, ok := r.Fixed(); ok {
		t.Error("the price is fixed")
	}
	if !rates(t, "0.1 per tool_call").PricesTool("other") {
		t.Error("a price per tool_call prices no tool")
	}
}

// Where tool_call has a price too, a tool's own price replaces it.
func TestToolsBesideToolCall(t *testing.T) {
	tariff := compiled(t, `{"models":[{"glob":"*","prices":[{"amount":1,"unit":"tool_call"}]}],
		"tools":[{"glob":"cheap","amount":"0.1"},{"glob":"dear","amount":"5"}]}`)
	r, _ := tariff.ForTools()
	tests := []struct {
		calls     string
		tools     map[string]int64
		due, most int64
	}{
		{"tool_call=3", map[string]int64{"cheap": 2, "other": 1}, 1_200_000_000, 1_200_000_000},
		{"tool_call=1", map[string]int64{"cheap": 1}, 100_000_000, 100_000_000},
		{"tool_call=1", map[string]int64{"cheap": 2}, 200_000_000, 200_000_000}, // more names than calls: never less than nothing
		{"tool_call=3", map[string]int64{"cheap": 1}, 2_100_000_000, 10_100_000_000},
		{"tool_call=2", nil, 2_000_000_000, 10_000_000_000},
	}
	for _, test := range tests {
		u := meter.Usage{Units: used(t, test.calls), Tools: test.tools}
		if due, err := r.Due(u); due != test.due || err != nil {
			t.Errorf("%s, %v: due %d, %v; want %d", test.calls, test.tools, due, err, test.due)
		}
		if most, err := r.Most(u); most != test.most || err != nil {
			t.Errorf("%s, %v: most %d, %v; want %d", test.calls, test.tools, most, err, test.most)
		}
		if e, err := r.Explain(u); e.AmountNano != test.due || err != nil {
			t.Errorf("%s, %v: explained as %d, %v; want %d", test.calls, test.tools, e.AmountNano, err, test.due)
		}
	}
}

// A price that depends on the size of the prompt or the service is not fixed.
func TestFixedWithTiers(t *testing.T) {
	tests := map[string]bool{
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}]}]}`:                                                                    true,
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}],"above":[{"tokens":5,"prices":[{"amount":1,"unit":"call"}]}]}]}`:       true,
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}],"above":[{"tokens":5,"prices":[{"amount":2,"unit":"call"}]}]}]}`:       false,
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}],"services":[{"name":"flex","prices":[{"amount":2,"unit":"call"}]}]}]}`: false,
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}]}],"tools":[{"glob":"a","amount":0}]}`:                                  true,
		`{"models":[{"glob":"*","prices":[{"amount":1,"unit":"call"}]}],"tools":[{"glob":"a","amount":1}]}`:                                  false,
	}
	for config, want := range tests {
		r, _ := compiled(t, config).For("m")
		if nano, ok := r.Fixed(); ok != want || ok && nano != 1e9 {
			t.Errorf("%s: %d, %v; want %v", config, nano, ok, want)
		}
	}
}

func TestTariffErrors(t *testing.T) {
	tests := []struct{ config, want string }{
		{`{}`, "tariff without prices"},
		{`{"models":[{"prices":[{"amount":1,"unit":"input"}]}]}`, "no glob: use *"},
		{`{"models":[{"glob":"x"}]}`, "model x: no price"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"},{"amount":2,"unit":"input"}]}]}`, "model x: two prices for input"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"token"},{"amount":2,"unit":"output"}]}]}`, "two prices for output"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"imput"}]}]}`, `unknown unit "imput"`},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"above":[{"tokens":0}]}]}`, "above 0 tokens"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"above":[{"tokens":9},{"tokens":9}]}]}`, "two blocks above 9 tokens"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"above":[{"tokens":9,"prices":[{"amount":1,"unit":"x"}]}]}]}`, "above 9 tokens: price"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"services":[{"name":""}]}]}`, `service ""`},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"services":[{"name":"flex"},{"name":"Flex"}]}]}`, `service "Flex"`},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"services":[{"name":"flex","above":[{"tokens":-1}]}]}]}`, "service flex: above"},
		{`{"models":[{"glob":"x","prices":[{"amount":1,"unit":"input"}],"max_output":-1}]}`, "max_output -1"},
		{`{"tools":[{"glob":"x","amount":1}],"max_output":-1}`, "max_output -1"},
		{`{"tools":[{"glob":"x","amount":-1}]}`, "tool x: amount is negative"},
		{`{"tools":[{"glob":"x","amount":1,"per":-1}]}`, "tool x: per -1"},
		{`{"tools":[{"glob":"","amount":1}]}`, "tool without a glob"},
		{`{"tools":[{"glob":"x"}]}`, `tool "x" without "amount"`},
		{`{"tools":[{"glob":"x","price":1}]}`, "unknown field"},
		{`{"catalog":{"file":"x"}}`, "a catalog must be loaded"},
	}
	for _, test := range tests {
		var tariff Tariff
		err := json.Unmarshal([]byte(test.config), &tariff)
		if err == nil {
			err = tariff.Compile(nil)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v; want one with %q", test.config, err, test.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct{ config, want string }{
		{gptTariff, "[]"},
		{`{"models":[{"glob":"a","prices":[{"amount":1,"unit":"token"}]}]}`, "[]"},
		{`{"models":[{"glob":"a","prices":[{"amount":1,"unit":"call"}]}]}`, "[]"},
		{`{"models":[{"glob":"a","prices":[{"amount":1,"unit":"input"}]}]}`, "[model a has no price for output: output tokens cost nothing]"},
		{`{"models":[{"glob":"a","prices":[{"amount":1,"unit":"output"}]}]}`, "[model a has no price for input: input tokens cost nothing]"},
		{`{"models":[{"glob":"gpt*","prices":[{"amount":1,"unit":"call"}]},{"glob":"gpt-4*","prices":[{"amount":1,"unit":"call"}]}]}`,
			"[model gpt-4* is never reached: model gpt* above it matches first]"},
		{`{"models":[{"glob":"gpt-?","prices":[{"amount":1,"unit":"call"}]},{"glob":"gpt-*","prices":[{"amount":1,"unit":"call"}]}]}`, "[]"},
	}
	for _, test := range tests {
		if got := fmt.Sprint(compiled(t, test.config).Warnings()); got != test.want {
			t.Errorf("%s: %s; want %s", test.config, got, test.want)
		}
	}
}

func TestTariffWords(t *testing.T) {
	tool, err := ParseToolPrice(strings.Fields("search* 1 per 1k calls"))
	if want := (ToolPrice{"search*", decimal.New(1, 0), 1000}); err != nil || tool.Glob != want.Glob || !tool.Amount.Equal(want.Amount) || tool.Per != want.Per {
		t.Errorf("tool: %+v, %v", tool, err)
	}
	for _, words := range []string{"", "search*", "search* 1", "search* 1 per", "search* 1 per token", "search* 1 per 5", "search* -1 per call"} {
		if p, err := ParseToolPrice(strings.Fields(words)); err == nil {
			t.Errorf("%q was taken as %+v", words, p)
		}
	}
	use, err := ParseCatalogUse(strings.Fields("prices.json provider mistral markup 20%"))
	if err != nil || use.File != "prices.json" || use.Provider != "mistral" || use.Markup.String() != "20%" {
		t.Errorf("catalog: %+v, %v", use, err)
	}
	data, err := json.Marshal(Tariff{Catalog: &CatalogUse{File: "prices.json"}})
	if err != nil || string(data) != `{"catalog":{"file":"prices.json"}}` {
		t.Errorf("JSON %s, %v", data, err)
	}
	for _, words := range []string{"", "f markup", "f markup x", "f margin 20%", "f provider a markup"} {
		if use, err := ParseCatalogUse(strings.Fields(words)); err == nil {
			t.Errorf("%q was taken as %+v", words, use)
		}
	}
	if n, err := ParseAbove(strings.Fields("200k tokens")); err != nil || n != 200_000 {
		t.Errorf("above: %d, %v", n, err)
	}
	for _, words := range []string{"", "200k", "200k calls", "x tokens"} {
		if n, err := ParseAbove(strings.Fields(words)); err == nil {
			t.Errorf("%q was taken as %d", words, n)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	first := compiled(t, gptTariff)
	data, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second := compiled(t, string(data))
	for _, model := range []string{"gpt-4o-mini", "long", "o3"} {
		a, _ := first.For(model)
		b, _ := second.For(model)
		u := meter.Usage{Units: used(t, "input=123456 cached=7 output=1000 tool_call=1"), PromptTokens: 123463, Tools: map[string]int64{"search": 1}}
		dueA, _ := a.Due(u)
		dueB, _ := b.Due(u)
		if dueA != dueB || dueA == 0 {
			t.Errorf("%s: %d, after a round trip %d", model, dueA, dueB)
		}
	}
}

// However the layers lie, the most covers what is due, and the explanation agrees with it.
func TestTiersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Model{Glob: "*", Prices: drawClassPrices(t, 1), Above: drawAbove(t)}
		if rapid.Bool().Draw(t, "flex") {
			m.Services = []Service{{Name: "flex", Prices: drawClassPrices(t, 0), Above: drawAbove(t)}}
		}
		if rapid.Bool().Draw(t, "minimum") {
			m.Minimum = drawPrice(t, "call").roundedUp().Amount
		}
		tariff := Tariff{Models: []Model{m}, Tools: []ToolPrice{{Glob: "a*", Amount: drawPrice(t, "call").roundedUp().Amount}}}
		if err := tariff.Compile(nil); err != nil {
			t.Fatal(err)
		}
		r, _ := tariff.For("any")
		u := meter.Usage{
			Units:        drawUnits(t),
			PromptTokens: rapid.Int64Range(0, 40).Draw(t, "prompt"),
			ServiceTier:  rapid.SampledFrom([]string{"", "flex", "default"}).Draw(t, "service"),
			Tools:        rapid.MapOf(rapid.SampledFrom([]string{"a", "ab", "b"}), rapid.Int64Range(0, 5)).Draw(t, "tools"),
		}
		due, err := r.Due(u)
		if err != nil {
			return
		}
		e, err := r.Explain(u)
		if err != nil || e.AmountNano != due {
			t.Fatalf("due %d, explained as %+v, %v", due, e, err)
		}
		bound := u
		bound.PromptTokens = rapid.SampledFrom([]int64{u.PromptTokens, 40, 0}).Draw(t, "bound")
		bound.ServiceTier = rapid.SampledFrom([]string{u.ServiceTier, ""}).Draw(t, "asked")
		if rapid.Bool().Draw(t, "names unknown") {
			bound.Tools = nil
			var calls int64
			for _, n := range u.Tools {
				calls += n
			}
			bound.Units = meter.Units{}
			for c, q := range u.Units {
				bound.Units.Add(c, q)
			}
			bound.Units[meter.ToolCall] = max(bound.Units[meter.ToolCall], meter.Whole(calls))
		}
		if most, err := r.Most(bound); err == nil && most < due {
			t.Fatalf("most %d, due %d", most, due)
		}
	})
}

func drawClassPrices(t *rapid.T, least int) []Price {
	classes := slices.Concat(tokenClasses, countClasses)
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(classes), least, 6, rapid.ID[meter.Class]).Draw(t, "classes")
	var prices []Price
	for _, c := range names {
		prices = append(prices, drawPrice(t, string(c)))
	}
	return prices
}

func drawAbove(t *rapid.T) []Above {
	var list []Above
	for _, tokens := range rapid.SliceOfNDistinct(rapid.Int64Range(1, 30), 0, 3, rapid.ID[int64]).Draw(t, "above") {
		list = append(list, Above{tokens, drawClassPrices(t, 0)})
	}
	return list
}

func TestForIsSafeForConcurrentUse(t *testing.T) {
	catalog, err := LoadCatalog(strings.NewReader(testCatalog))
	if err != nil {
		t.Fatal(err)
	}
	tariff := Tariff{Catalog: &CatalogUse{File: "x"}}
	if err := tariff.Compile(catalog); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r, ok := tariff.For("gpt-4o-mini")
				if !ok {
					t.Error("no price")
					return
				}
				if _, err := r.Due(meter.Usage{Units: meter.Units{meter.Input: 1e6}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkFor(b *testing.B) {
	tariff := compiled(b, gptTariff)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tariff.For("o3-mini"); !ok {
			b.Fatal("no price")
		}
	}
}
