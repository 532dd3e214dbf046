package pricing

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// testCatalog is in the format of LiteLLM's file; models and prices are made up, but for being likely.
const testCatalog = `{
	"sample_spec": {"input_cost_per_token": 0.0, "max_tokens": "LEGACY parameter", "mode": "one of: chat, ..."},
	"gpt-4o-mini": {
		"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08,
		"input_cost_per_token_batches": 7.5e-08, "output_cost_per_token_batches": 3e-07,
		"input_cost_per_token_priority": 2.5e-07, "output_cost_per_token_priority": 1e-06,
		"cache_read_input_token_cost_priority": 1.25e-07,
		"max_input_tokens": 128000, "max_output_tokens": 16384, "max_tokens": 16384, "mode": "chat",
		"search_context_cost_per_query": {"search_context_size_low": 0.025, "search_context_size_medium": 0.0275, "search_context_size_high": 0.03},
		"supports_vision": true, "supported_modalities": ["text", "image"], "source": "https://example.com"},
	"claude-long": {
		"input_cost_per_token": 3e-06, "input_cost_per_token_above_200k_tokens": 6e-06,
		"output_cost_per_token": 1.5e-05, "output_cost_per_token_above_200k_tokens": 2.25e-05,
		"cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
		"cache_creation_input_token_cost_above_1hr": 6e-06, "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
		"cache_read_input_token_cost": 3e-07, "cache_read_input_token_cost_above_200k_tokens": 6e-07,
		"search_context_cost_per_query": {"search_context_size_high": 0.01}, "max_tokens": 64000,
		"provider_specific_entry": {"us": 1.1, "fast": 6.0}},
	"tools": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "citation_cost_per_token": 2e-06,
		"file_search_cost_per_1k_calls": 2.5, "code_interpreter_cost_per_session": 0.03},
	"flash": {
		"input_cost_per_token": 3e-07, "output_cost_per_token": 2.5e-06, "output_cost_per_reasoning_token": 3.5e-06,
		"input_cost_per_audio_token": 1e-06, "output_cost_per_audio_token": 1.2e-05, "input_cost_per_image_token": 4e-07,
		"output_cost_per_image_token": 3e-05, "output_cost_per_image": 0.039, "input_cost_per_token_flex": 1.5e-07,
		"input_cost_per_token_above_1m_tokens_flex": 2e-07, "citation_cost_per_token": null, "input_cost_per_character": ""},
	"mistral/large": {"input_cost_per_token": 2e-06, "output_cost_per_token": 6e-06},
	"large": {"input_cost_per_token": 9e-06, "output_cost_per_token": 9e-06},
	"ft:gpt-4o-mini": {"input_cost_per_token": 3e-07, "output_cost_per_token": 1.2e-06},
	"whisper": {"input_cost_per_second": 0.0002, "output_cost_per_second": 0.0001, "mode": "audio_transcription"},
	"realtime-whisper": {"input_cost_per_second": 0.0002833333333333333, "mode": "audio_transcription"},
	"tts-by-token": {"input_cost_per_token": 2.5e-06, "output_cost_per_audio_token": 1.2e-05, "output_cost_per_second": 0.00025},
	"ocr": {"ocr_cost_per_page": 0.001, "annotation_cost_per_page": 0.003, "mode": "ocr"},
	"rerank": {"input_cost_per_query": 0.002, "input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "mode": "rerank"},
	"websearch": {"input_cost_per_query": 0.008, "mode": "search"},
	"sonar": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_request": 0.005},
	"embed": {"input_cost_per_token": 2e-08, "output_cost_per_token": 0.0, "mode": "embedding"},
	"local": {"input_cost_per_token": 0, "output_cost_per_token": 0},
	"deepseek": {"input_cost_per_token": 2.7e-07, "input_cost_per_token_cache_hit": 7e-08, "output_cost_per_token": 1.1e-06},
	"deepseek-both": {"input_cost_per_token": 2.7e-07, "input_cost_per_token_cache_hit": 9e-08, "cache_read_input_token_cost": 7e-08, "output_cost_per_token": 1.1e-06},
	"tiered": {"output_cost_per_token": 1.6e-06, "tiered_pricing": [
		{"range": [32000, 256000.0], "input_cost_per_token": 2e-06, "cache_read_input_token_cost": 5e-07},
		{"range": [0, 32000], "input_cost_per_token": 1e-06}]},
	"words": {"input_cost_per_token": "1e-06", "output_cost_per_token": "0.000002"},
	"exact": {"input_cost_per_token": 1.0000000000000000000000001e-07, "output_cost_per_token": 0},
	"nothing": {"mode": "chat", "max_tokens": 5},
	"dall-e": {"input_cost_per_pixel": 1.9e-08, "output_cost_per_pixel": 0.0, "mode": "image_generation"},
	"image-out": {"input_cost_per_token": 1e-06, "output_cost_per_image": 0.04},
	"image-out-free": {"input_cost_per_token": 1e-06, "output_cost_per_token": 0, "output_cost_per_image": 0.04},
	"video": {"output_cost_per_video_per_second": 0.1, "output_cost_per_token": 0, "input_cost_per_token": 0},
	"negative": {"input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
	"garbled": {"input_cost_per_token": true, "output_cost_per_token": 1e-06},
	"huge": {"input_cost_per_token": 1e400, "output_cost_per_token": 1e-06},
	"no-range": {"tiered_pricing": [{"input_cost_per_token": 1}]},
	"no-tiers": {"input_cost_per_token": 1e-06, "tiered_pricing": {}},
	"no-sizes": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "search_context_cost_per_query": 0.01},
	"no-object": 5
}`

func loaded(t testing.TB, file string) *Catalog {
	t.Helper()
	c, err := LoadCatalog(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func withCatalog(t testing.TB, use CatalogUse) *Tariff {
	t.Helper()
	tariff := &Tariff{Catalog: &use}
	if err := tariff.Compile(loaded(t, testCatalog)); err != nil {
		t.Fatal(err)
	}
	return tariff
}

func TestCatalogPrices(t *testing.T) {
	tests := []struct {
		model, units string
		prompt       int64
		service      string
		want         string
	}{
		{model: "gpt-4o-mini", units: "input=1000 cached=1000 output=1000 reasoning=1000 web_search=1", want: "0.028925"},
		{model: "gpt-4o-mini", service: "batch", units: "input=1000 cached=1000 output=1000", want: "0.00045"},
		{model: "gpt-4o-mini", service: "priority", units: "input=1000 cached=1000 output=1000", want: "0.001375"},
		{model: "gpt-4o-mini", service: "flex", units: "input=1000", want: "0.00025"}, // has no price: the dearest
		{model: "claude-long", prompt: 200_000, units: "input=1000 cached=1000 cache_write=1000 cache_write_1h=1000 output=1000 web_search=1", want: "0.03805"},
		{model: "claude-long", prompt: 200_001, units: "input=1000 cached=1000 cache_write=1000 cache_write_1h=1000 output=1000", want: "0.0486"},
		{model: "claude-long", service: "fast", prompt: 1, units: "input=1000 output=1000 web_search=1", want: "0.118"},
		{model: "claude-long", service: "us", prompt: 1, units: "input=1000 output=1000", want: "0.0198"},
		{model: "claude-long", service: "fast+us", prompt: 1, units: "input=1000 output=1000", want: "0.1188"},
		{model: "claude-long", service: "us", prompt: 200_001, units: "input=1000 output=1000", want: "0.03135"},
		{model: "tools", units: "file_search=2 code_session=1 citation=1000", want: "0.037"},
		{model: "flash", units: "input=1 output=1 reasoning=1 audio_input=1 audio_output=1 image_input=1 image_output=1", want: "0.0000497"},
		{model: "flash", service: "flex", prompt: 1_000_000, units: "input=10", want: "0.0000015"},
		{model: "flash", service: "flex", prompt: 1_000_001, units: "input=10", want: "0.000002"},
		{model: "large", units: "input=1000", want: "0.009"},
		{model: "mistral/large", units: "input=1000", want: "0.002"},
		{model: "ft:gpt-4o-mini:acme::abc", units: "input=1000", want: "0.0003"},
		{model: "whisper", units: "second=90", want: "0.009"},
		{model: "realtime-whisper", units: "second=60", want: "0.016999999"},
		{model: "tts-by-token", units: "input=10 audio_output=10 second=5", want: "0.000145"},
		{model: "ocr", units: "page=3", want: "0.003"},
		{model: "rerank", units: "input=500 search_unit=2", want: "0.004"},
		{model: "websearch", units: "call=1", want: "0.008"},
		{model: "sonar", units: "call=1 input=1000 output=1000", want: "0.007"},
		{model: "embed", units: "input=1000", want: "0.00002"},
		{model: "local", units: "input=1000 output=1000", want: "0"},
		{model: "deepseek", units: "input=1000 cached=1000", want: "0.00034"},
		{model: "deepseek-both", units: "cached=1000", want: "0.00007"},
		{model: "tiered", prompt: 32_000, units: "input=1000 cached=1000 output=1000", want: "0.0036"},
		{model: "tiered", prompt: 32_001, units: "input=1000 cached=1000 output=1000", want: "0.0041"},
		{model: "words", units: "input=1 output=1", want: "0.000003"},
		{model: "exact", units: "input=1000000000000", want: "100000"}, // what 1e-25 of each adds does not reach a nano
	}
	tariff := withCatalog(t, CatalogUse{File: "x"})
	for _, test := range tests {
		r, ok := tariff.For(test.model)
		if !ok {
			t.Errorf("%s: no price", test.model)
			continue
		}
		due, err := r.Due(meter.Usage{Units: used(t, test.units), PromptTokens: test.prompt, ServiceTier: test.service})
		if got := decimal.New(due, -9).String(); err != nil || got != test.want {
			t.Errorf("%s %s, prompt %d, %q: due %s, %v; want %s", test.model, test.units, test.prompt, test.service, got, err, test.want)
		}
	}
	exact, _ := tariff.For("exact")
	if got := exact.UnitPrices(meter.Usage{Units: used(t, "input=1")})[meter.Input]; got != "0.10000000000000000000000001 per 1M" {
		t.Errorf("exact: %s", got)
	}
}

func TestCatalogLookup(t *testing.T) {
	tests := []struct {
		provider, model string
		want            string // price of 1000 input tokens; empty: none
	}{
		{"", "large", "0.009"},
		{"mistral", "large", "0.002"},
		{"mistral", "mistral/large", "0.002"},
		{"mistral", "gpt-4o-mini", "0.00015"},
		{"", "/large", ""},
		{"", "Large", ""},
		{"", "", ""},
		{"", "sample_spec", ""},
		{"", "ft:gpt-4o-mini", "0.0003"},
		{"", "ft:gpt-4o-mini:", "0.0003"},
		{"", "ft:unknown:acme", ""},
		{"", "ft::", ""},
		{"", "gpt-4o-mini:x:y", ""},
		{"", "unknown", ""},
		{"", "dall-e", ""},
		{"", "negative", ""},
	}
	for _, test := range tests {
		r, ok := withCatalog(t, CatalogUse{File: "x", Provider: test.provider}).For(test.model)
		var got string
		if ok {
			due, _ := r.Due(meter.Usage{Units: used(t, "input=1000")})
			got = decimal.New(due, -9).String()
		}
		if got != test.want {
			t.Errorf("%q %q: %q; want %q", test.provider, test.model, got, test.want)
		}
	}
}

func TestCatalogMarkupAndBounds(t *testing.T) {
	markup, err := ParsePercent("20%")
	if err != nil {
		t.Fatal(err)
	}
	tariff := withCatalog(t, CatalogUse{File: "x", Markup: markup})
	r, _ := tariff.For("claude-long")
	for prompt, want := range map[int64]int64{1: 3_600, 300_000: 7_200} {
		if due, _ := r.Due(meter.Usage{Units: used(t, "input=1"), PromptTokens: prompt}); due != want {
			t.Errorf("prompt of %d: %d; want %d", prompt, due, want)
		}
	}
	mini, _ := tariff.For("gpt-4o-mini")
	if due, _ := mini.Due(meter.Usage{Units: used(t, "input=1"), ServiceTier: "batch"}); due != 90 {
		t.Errorf("batch: %d", due)
	}
	if r.MaxOutput() != 64000 || mini.MaxOutput() != 16384 {
		t.Errorf("max output %d, %d", r.MaxOutput(), mini.MaxOutput())
	}
	again, _ := tariff.For("claude-long")
	if again != r {
		t.Error("rates are compiled twice")
	}
	bounded := &Tariff{Catalog: &CatalogUse{File: "x"}, MaxOutput: 100}
	if err := bounded.Compile(loaded(t, testCatalog)); err != nil {
		t.Fatal(err)
	}
	if r, _ := bounded.For("claude-long"); r.MaxOutput() != 100 {
		t.Errorf("the tariff's max output does not go first: %d", r.MaxOutput())
	}
}

// Own lines go first, and a model that they do not match is looked up.
func TestCatalogAfterModels(t *testing.T) {
	var tariff Tariff
	config := `{"models":[{"glob":"gpt-*","prices":[{"amount":1,"unit":"call"}]}],"tools":[{"glob":"*","amount":"0.5"}],"catalog":{"file":"x"}}`
	if err := json.Unmarshal([]byte(config), &tariff); err != nil {
		t.Fatal(err)
	}
	if err := tariff.Compile(loaded(t, testCatalog)); err != nil {
		t.Fatal(err)
	}
	u := meter.Usage{Units: used(t, "call=1 input=1000 tool_call=1"), Tools: map[string]int64{"x": 1}}
	for model, want := range map[string]int64{"gpt-4o-mini": 1_500_000_000, "claude-long": 503_000_000, "": 500_000_000} {
		r, ok := tariff.For(model)
		if model == "" {
			if ok {
				t.Error("a call without a model has the price of one")
			}
			r, ok = tariff.ForTools()
		}
		if !ok {
			t.Fatalf("%q has no price", model)
		}
		if due, err := r.Due(u); due != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", model, due, err, want)
		}
	}
}

func TestCatalogMarkupPastTheLimits(t *testing.T) {
	c := loaded(t, `{"m":{"input_cost_per_token":999,"output_cost_per_token":1}}`)
	markup, _ := ParsePercent("1000%")
	tariff := Tariff{Catalog: &CatalogUse{File: "x", Markup: markup}}
	if err := tariff.Compile(c); err != nil {
		t.Fatal(err)
	}
	if _, ok := tariff.For("m"); ok {
		t.Error("a price past the limits was taken")
	}
}

func TestCatalogProblems(t *testing.T) {
	want := []string{
		"dall-e: no price that can be counted",
		`garbled: input_cost_per_token: amount "true" is no decimal number: write it as 0.15, without sign, comma or currency`,
		"huge: input_cost_per_token: amount has too many digits: use at most 80, of at least 1e-100",
		"image-out-free: output has a price only by output_cost_per_image, which is not counted",
		"image-out: output has a price only by output_cost_per_image, which is not counted",
		`negative: input_cost_per_token: amount "-1e-06" is negative: use 0 or more`,
		"no-object: entry is no object",
		"no-range: tiered_pricing: tier 1 has no range",
		"no-sizes: search_context_cost_per_query: json: cannot unmarshal number",
		"no-tiers: tiered_pricing: json: cannot unmarshal object",
		"nothing: no price that can be counted",
		"video: output has a price only by output_cost_per_video_per_second, which is not counted",
	}
	c := loaded(t, testCatalog)
	got := c.Problems()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			break
		}
	}
	if len(c.models) != 21 {
		t.Errorf("%d models", len(c.models))
	}
}

func TestCatalogModelIsStable(t *testing.T) {
	a := loaded(t, testCatalog).models["claude-long"]
	b := loaded(t, testCatalog).models["claude-long"]
	first, _ := json.Marshal(a)
	second, _ := json.Marshal(b)
	if string(first) != string(second) || len(a.Above) != 1 {
		t.Errorf("%s\n%s", first, second)
	}
}

func TestLoadCatalogErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":               "no JSON object",
		"[]":             "no JSON object",
		"null":           "no model with a price",
		"{}":             "no model with a price",
		`{"m": {}}`:      "no model with a price",
		`{"m": {"a": 1}`: "no JSON object",
		`{"sample_spec": {"input_cost_per_token": 1}}`: "no model with a price",
	} {
		if _, err := LoadCatalog(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v; want one with %q", in, err, want)
		}
	}
}

// TestRealCatalog reads a whole file of LiteLLM's, if TALLYGATE_CATALOG names one.
func TestRealCatalog(t *testing.T) {
	name := os.Getenv("TALLYGATE_CATALOG")
	if name == "" {
		t.Skip("TALLYGATE_CATALOG does not name a copy of LiteLLM's model_prices_and_context_window.json")
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := LoadCatalog(file)
	if err != nil {
		t.Fatal(err)
	}
	tariff := Tariff{Catalog: &CatalogUse{File: name}}
	if err := tariff.Compile(c); err != nil {
		t.Fatal(err)
	}
	for model := range c.models {
		r, ok := tariff.For(model)
		if !ok {
			t.Errorf("%s has no price", model)
			continue
		}
		due, err := r.Due(meter.Usage{Units: used(t, "input=1000 cached=1000 output=1000"), PromptTokens: 2000})
		if err != nil || r.MostFor(2000, 1000) < due {
			t.Errorf("%s: due %d, %v, most %d", model, due, err, r.MostFor(2000, 1000))
		}
	}
	t.Logf("%d models, left out %d: %s", len(c.models), len(c.Problems()), strings.Join(c.Problems(), "; "))
}

func FuzzLoadCatalog(f *testing.F) {
	f.Add(testCatalog)
	f.Add(`{"m":{"tiered_pricing":[{"range":[0,"x"],"input_cost_per_token":1e-300}]}}`)
	f.Add(`{"m":{"input_cost_per_token_above_999999999m_tokens_flex":1,"input_cost_per_token":1}}`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := LoadCatalog(strings.NewReader(s))
		if err != nil {
			return
		}
		tariff := Tariff{Catalog: &CatalogUse{File: "x"}}
		if err := tariff.Compile(c); err != nil {
			t.Fatal(err)
		}
		for model := range c.models {
			r, ok := tariff.For(model)
			if !ok && model != "" {
				t.Fatalf("%q was loaded and has no price", model)
			}
			if ok {
				u := meter.Usage{Units: meter.Units{meter.Input: 1e9, meter.Reasoning: 1e9, meter.Calls: 1e6}, PromptTokens: 1000}
				due, err := r.Due(u)
				if most := r.MostFor(1000, 1000); err == nil && due > most {
					t.Fatalf("%q: due %d, most %d", model, due, most)
				}
			}
		}
	})
}

func BenchmarkLoadCatalog(b *testing.B) {
	var file strings.Builder
	file.WriteString("{")
	for i := range 2500 {
		if i > 0 {
			file.WriteString(",")
		}
		fmt.Fprintf(&file, `"model-%d":{"input_cost_per_token":1.5e-07,"output_cost_per_token":6e-07,"cache_read_input_token_cost":7.5e-08,"max_tokens":4096,"mode":"chat","supports_vision":true}`, i)
	}
	file.WriteString("}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := LoadCatalog(strings.NewReader(file.String())); err != nil {
			b.Fatal(err)
		}
	}
}
