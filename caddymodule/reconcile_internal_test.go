package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// The reports were made for these tests, in the providers' documented formats.
func TestReadReports(t *testing.T) {
	const (
		openAIUsage = `{"object":"page","data":[{"object":"bucket","start_time":1764028800,"end_time":1764115200,"results":[
			{"object":"organization.usage.completions.result","input_tokens":1000,"output_tokens":500,"input_cached_tokens":800,"num_model_requests":5,"model":"gpt-4o-mini-2024-07-18","batch":false},
			{"object":"organization.usage.completions.result","input_tokens":10,"output_tokens":5,"num_model_requests":1,"model":"gpt-4o-mini-2024-07-18","batch":true}]}],"has_more":false,"next_page":null}`
		openAICosts = `[{"object":"page","data":[{"object":"bucket","start_time":1764028800,"results":[
			{"object":"organization.costs.result","amount":{"value":0.06,"currency":"usd"},"line_item":"gpt-4o-mini-2024-07-18, input"}]}],"has_more":true},
			{"object":"page","data":[{"object":"bucket","start_time":1764028800,"results":[
			{"object":"organization.costs.result","amount":{"value":0.100000000000000001,"currency":"usd"},"line_item":"gpt-4o-mini-2024-07-18, output"}]}],"has_more":false}]`
		anthropicUsage = `{"data":[{"starting_at":"2025-11-25T00:00:00Z","ending_at":"2025-11-26T00:00:00Z","results":[
			{"uncached_input_tokens":100,"cache_creation":{"ephemeral_1h_input_tokens":10,"ephemeral_5m_input_tokens":20},"cache_read_input_tokens":200,"output_tokens":50,"model":"claude-sonnet-4-20250514"}]}],"has_more":false,"next_page":null}`
		anthropicCosts = `{"data":[{"starting_at":"2025-11-25T00:00:00Z","results":[
			{"currency":"USD","amount":"123.45","description":"Claude Sonnet 4 Usage - Input Tokens","model":"claude-sonnet-4-20250514","cost_type":"tokens"}]}],"has_more":false}`
		openRouter = `{"data":[{"date":"2025-11-25","model":"openai/gpt-4.1","model_permaslug":"openai/gpt-4.1-2025-04-14","provider_name":"OpenAI","usage":0.015,"byok_usage_inference":0,"requests":5,"prompt_tokens":50,"completion_tokens":125,"reasoning_tokens":25}]}`
	)
	for _, test := range []struct{ provider, report, want string }{
		{"openai", openAIUsage, "2025-11-25 gpt-4o-mini 6 1010 505 -"},
		{"openai", openAICosts, "2025-11-25 gpt-4o-mini - - - 0.160000000000000001"},
		{"anthropic", anthropicUsage, "2025-11-25 claude-sonnet-4 - 330 50 -"},
		{"anthropic", anthropicCosts, "2025-11-25 claude-sonnet-4 - - - 1.2345"},
		{"anthropic", `{"data":[{"starting_at":"2025-11-25T00:00:00Z","results":[{"amount":"30","description":"Web Search Usage","model":null}]}]}`, "2025-11-25 web search usage - - - 0.3"},
		{"openrouter", openRouter, "2025-11-25 gpt-4.1 5 50 125 0.015"},
		{"openrouter", "Date,Model,Requests,Amount\n2025-11-25 00:00:00,openai/gpt-4.1,2,0.5\n2025-11-25,OpenAI/GPT-4.1,,0.25\n", "2025-11-25 gpt-4.1 2 - - 0.75"},
		{"openai", "\xEF\xBB\xBFday,model,input_tokens,output_tokens\n2025-11-25,m,1,2\n", "2025-11-25 m - 1 2 -"},
	} {
		lines, err := readReport(test.provider, strings.NewReader(test.report))
		if err != nil || len(lines) != 1 {
			t.Errorf("%s: %v, %v", test.provider, lines, err)
			continue
		}
		l := lines[0]
		got := fmt.Sprint(l.Day, " ", l.Model, " ", shown(l.Requests), " ", shown(l.Input), " ", shown(l.Output), " ", shown(l.Amount))
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.provider, got, test.want)
		}
	}
	for report, want := range map[string]string{
		``:            "neither JSON nor CSV",
		`{}`:          "no line",
		`{"data":[]}`: "no line",
		`{"data":[{"start_time":1764028800,"results":[{"input_tokens":1,"model":null}]}]}`:                "has no model",
		`{"data":[{"start_time":1764028800,"results":[{"input_tokens":1,"model":"m"}]}],"has_more":true}`: "has_more",
		`{"data":[{"start_time":1764028800,"results":[{"line_item":"m","amount":{"value":1e999}}]}]}`:     "is not a number",
		`{"data":`:                               "unexpected end",
		"a,b\n1,2\n":                             "must name the columns",
		"day,model,amount\n2025-11-25,m,much\n":  "is not a number",
		"day,model,requests\n2025-11-25,m,1.5\n": "expected a whole number",
		"day,model\n2025-11-25\n":                "wrong number of fields",
	} {
		if lines, err := readReport("openai", strings.NewReader(report)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", report, lines, err, want)
		}
	}
	if _, err := readReport("acme", strings.NewReader("{}")); err == nil {
		t.Error("any provider is taken")
	}
}

func shown[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}

// A charge counts for the model that answered, in any spelling. Usage of another model counts for that model.
func TestChargesByDayAndModel(t *testing.T) {
	ours := map[dayAndModel]*billed{}
	at := time.Date(2025, 11, 25, 23, 59, 0, 0, time.FixedZone("", -3600)) // the next day in UTC
	for _, c := range []escrow.Charge{
		{Model: "openai/GPT-4.1", CreatedAt: at, Amount: 2, Units: map[string]string{"input": "10", "cached": "5", "output": "7", "reasoning": "3", "call": "1", "input@gpt-mini-2025-01-01": "4"}},
		{Model: "gpt-4.1-2025-04-14", CreatedAt: at, Amount: 3, Units: map[string]string{"audio_input": "1", "image_output": "2", "second": "9"}},
	} {
		addCharge(ours, c)
	}
	var got []string
	for of, b := range ours {
		got = append(got, of.day+" "+of.model+": "+strings.ReplaceAll(b.columns(), "\t", " "))
	}
	slices.Sort(got)
	const want = "2025-11-26 gpt-4.1: 2 16 12 0.000000005|2025-11-26 gpt-mini: 0 4 0 0"
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}
