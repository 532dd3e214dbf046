package pricing

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// A price of what a call has one of can't be finer than what the ledger keeps: it would be rounded down in each call. The error says
// what to write instead.
func TestPricesFinerThanTheLedgerAreRefused(t *testing.T) {
	tests := []struct {
		line, use string // use is empty where the price is fine
	}{
		{"0.0000000001 per call", "0.000000001 per call"},
		{"0.0000000015 per call", "0.000000002 per call"},
		{"1.0000000001 per call", "1.000000001 per call"},
		{"1e-60 per call", "0.000000001 per call"},
		{"1 per 3 calls", "0.333333334 per call"},
		{"0.0001 per 1M calls", "0.000000001 per call"},
		{"0.0000000001 per tool_call", "0.000000001 per tool_call"},
		{"0.0000000001 per web_search", "0.000000001 per web_search"},
		{"0.0000000001 per maps_search", "0.000000001 per maps_search"},
		{"0.0000000001 per file_search", "0.000000001 per file_search"},
		{"0.0000000001 per code_session", "0.000000001 per code_session"},
		{"0.0000000001 per page", "0.000000001 per page"},
		{"0.0000000001 per search_unit", "0.000000001 per search_unit"},
		{"0.000000001 per call", ""},
		{"0.001 per 1k calls", ""},
		{"0 per call", ""},
		{"0.02 per 1M tokens", ""}, // 20 nanos each
		{"0.0001 per 1M tokens", ""},
		{"0.09 per GB", ""},
		{"1 per 3 events", ""},
		{"1 per 7 rows", ""},
	}
	for _, test := range tests {
		_, err := ParsePrice(strings.Fields(test.line), "rows")
		if test.use == "" {
			if err != nil {
				t.Errorf("%s: %v", test.line, err)
			}
			continue
		}
		if err == nil || !strings.HasSuffix(err.Error(), "use "+test.use) {
			t.Errorf("%s: %v; want the advice to use %s", test.line, err, test.use)
		}
	}
	if _, err := ParseClassPrice("web_search", strings.Fields("1 per 3k searches")); err == nil {
		t.Error("web_search 1 per 3k searches is taken")
	}
	if _, err := ParseToolPrice(strings.Fields("* 1 per 3 calls")); err == nil {
		t.Error("tool * 1 per 3 calls is taken")
	}
}

// A config in JSON is not parsed from words.
func TestCompileRefusesPricesFinerThanTheLedger(t *testing.T) {
	fine := Price{Amount: decimal.New(1, -10), Unit: "call"}
	tests := map[string]Tariff{
		"a model":     {Models: []Model{{Glob: "*", Prices: []Price{fine}}}},
		"above":       {Models: []Model{{Glob: "*", Prices: []Price{{Unit: "input"}}, Above: []Above{{1000, []Price{fine}}}}}},
		"a service":   {Models: []Model{{Glob: "*", Prices: []Price{{Unit: "input"}}, Services: []Service{{Name: "flex", Prices: []Price{fine}}}}}},
		"a tool":      {Tools: []ToolPrice{{Glob: "*", Amount: fine.Amount}}},
		"tools per 3": {Tools: []ToolPrice{{Glob: "*", Amount: decimal.New(1, 0), Per: 3}}},
	}
	for name, tariff := range tests {
		if err := tariff.Compile(nil); err == nil || !strings.Contains(err.Error(), "finer than the 9 digits") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewRates([]Price{fine}); err == nil {
		t.Error("the prices of a route are taken")
	}
}

// What a catalog and a markup make of a price is nobody's to write by hand: it is rounded up, so that it is charged as it is listed.
func TestCatalogPricesAreRoundedUp(t *testing.T) {
	const file = `{
		"fine": {"input_cost_per_request": 1e-10},
		"odd": {"input_cost_per_request": 0.000000003, "search_context_cost_per_query": {"search_context_size_medium": 0.0333333333333}},
		"page": {"ocr_cost_per_page": 0.001},
		"files": {"input_cost_per_token": 0.00000015, "file_search_cost_per_1k_calls": 0.0000025}
	}`
	tests := []struct {
		model, markup, units, want string
	}{
		{"fine", "0%", "call=1", "0.000000001"},
		{"fine", "20%", "call=1", "0.000000001"},
		{"odd", "0%", "call=1", "0.000000003"},
		{"odd", "50%", "call=1", "0.000000005"},
		{"odd", "50%", "call=1000", "0.000005"},
		{"odd", "0%", "web_search=3", "0.100000002"},
		{"page", "12.34567%", "page=1", "0.001123457"},
		{"files", "0%", "file_search=1", "0.000000003"},
		{"files", "10%", "input=1", "0.000000165"},
	}
	for _, test := range tests {
		catalog, err := LoadCatalog(strings.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		markup, err := ParsePercent(test.markup)
		if err != nil {
			t.Fatal(err)
		}
		tariff := Tariff{Catalog: &CatalogUse{File: "x", Markup: markup}}
		if err := tariff.Compile(catalog); err != nil {
			t.Fatal(err)
		}
		rates, ok := tariff.For(test.model)
		if !ok {
			t.Errorf("%s + %s has no price", test.model, test.markup)
			continue
		}
		e, err := rates.Explain(meter.Usage{Units: used(t, test.units)})
		if err != nil || e.Amount != test.want {
			t.Errorf("%s + %s, %s: %s, %v; want %s", test.model, test.markup, test.units, e.Amount, err, test.want)
		}
	}
}

// Models that have no price by the token have one by what is asked for, by their mode.
func TestCatalogPricesOfWhatIsAsked(t *testing.T) {
	catalog, err := LoadCatalog(strings.NewReader(`{
		"tts": {"mode": "audio_speech", "input_cost_per_character": 0.000015},
		"image": {"mode": "image_generation", "input_cost_per_image": 0.04},
		"image2": {"mode": "image_generation", "input_cost_per_image": 0.01, "output_cost_per_image": 0.02},
		"video": {"mode": "video_generation", "output_cost_per_second": 0.4},
		"video2": {"mode": "video_generation", "output_cost_per_video_per_second": 0.1},
		"listens": {"mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0},
		"tokens": {"mode": "image_generation", "input_cost_per_token": 0.000005, "output_cost_per_token": 0.00004, "output_cost_per_image": 0.02},
		"chat": {"mode": "chat", "input_cost_per_character": 0.000015}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	tariff := Tariff{Catalog: &CatalogUse{File: "x"}}
	if err := tariff.Compile(catalog); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ model, units, want string }{
		{"tts", "input_character=1000", "0.015"},
		{"image", "asked_image=2", "0.08"},
		{"image2", "asked_image=2", "0.04"},
		{"video", "asked_second=8 second=100", "3.2"},
		{"video2", "asked_second=8", "0.8"},
		{"listens", "second=60 asked_second=60", "0"},
		{"tokens", "asked_image=1 output=1000", "0.04"},
	} {
		rates, ok := tariff.For(test.model)
		if !ok {
			t.Errorf("%s has no price: %v", test.model, catalog.Problems())
			continue
		}
		if e, err := rates.Explain(meter.Usage{Units: used(t, test.units)}); err != nil || e.Amount != test.want {
			t.Errorf("%s, %s: %s, %v; want %s", test.model, test.units, e.Amount, err, test.want)
		}
	}
	if _, ok := tariff.For("chat"); ok {
		t.Error("a chat by the character has a price")
	}
}
