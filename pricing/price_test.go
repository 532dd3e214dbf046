package pricing

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePrice(t *testing.T) {
	tests := []struct{ words, json, back string }{
		{"0.001 per call", `{"amount":"0.001","per":1,"unit":"call"}`, "0.001 per call"},
		{"0.15 per 1M tokens", `{"amount":"0.15","per":1000000,"unit":"token"}`, "0.15 per 1M tokens"},
		{"2 per 1k input_tokens", `{"amount":"2","per":1000,"unit":"input_token"}`, "2 per 1k input_tokens"},
		{"2 per 1500 output_token", `{"amount":"2","per":1500,"unit":"output_token"}`, "2 per 1500 output_tokens"},
		{"1.5e-07 per input", `{"amount":"0.00000015","per":1,"unit":"input"}`, "0.00000015 per input"},
		{"1E+2 per hour", `{"amount":"100","per":1,"unit":"hour"}`, "100 per hour"},
		{".5 per 10 minutes", `{"amount":"0.5","per":10,"unit":"minute"}`, "0.5 per 10 minutes"},
		{"0.01 per MB", `{"amount":"0.01","per":1,"unit":"MB"}`, "0.01 per MB"},
		{"0.01 per 5 mib", `{"amount":"0.01","per":5,"unit":"MiB"}`, "0.01 per 5 MiB"},
		{"0 per call", `{"amount":"0","per":1,"unit":"call"}`, "0 per call"},
		{"0.02 per 1k rows", `{"amount":"0.02","per":1000,"unit":"rows"}`, "0.02 per 1k rows"},
		{"0.02 per row", `{"amount":"0.02","per":1,"unit":"rows"}`, "0.02 per rows"},
		{"0.02 per 10 entries", `{"amount":"0.02","per":10,"unit":"entry"}`, "0.02 per 10 entry"},
		{"0.01 per tool_call", `{"amount":"0.01","per":1,"unit":"tool_call"}`, "0.01 per tool_call"},
		{"0.01 per 10 web_searches", `{"amount":"0.01","per":10,"unit":"web_search"}`, "0.01 per 10 web_search"},
		{"0.0020000000000000000416333634234433702658861875534057617 per 1k tokens",
			`{"amount":"0.0020000000000000000416333634234433702658861875534057617","per":1000,"unit":"token"}`,
			"0.0020000000000000000416333634234433702658861875534057617 per 1k tokens"},
		{"1000000000 per call", `{"amount":"1000000000","per":1,"unit":"call"}`, "1000000000 per call"},
	}
	counts := []string{"rows", "entry"}
	for _, test := range tests {
		t.Run(test.words, func(t *testing.T) {
			p, err := ParsePrice(strings.Fields(test.words), counts...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(p)
			if err != nil || string(got) != test.json {
				t.Errorf("JSON %s, %v; want %s", got, err, test.json)
			}
			if p.String() != test.back {
				t.Errorf("words %q; want %q", p, test.back)
			}
			again, err := ParsePrice(strings.Fields(p.String()), counts...)
			if err != nil || !samePrice(again, p) {
				t.Errorf("read again: %v, %v; want %v", again, err, p)
			}
			var decoded Price
			if err := json.Unmarshal(got, &decoded); err != nil || !samePrice(decoded, p) {
				t.Errorf("decoded: %v, %v; want %v", decoded, err, p)
			}
		})
	}
}

func samePrice(a, b Price) bool {
	return a.Amount.Equal(b.Amount) && a.Per == b.Per && a.Unit == b.Unit
}

func TestParsePriceErrors(t *testing.T) {
	tests := []struct{ words, want string }{
		{"", `price "": expected A per [N] UNIT`},
		{"0.15", "expected A per [N] UNIT"},
		{"0.15 for call", "expected A per [N] UNIT"},
		{"0.15 per", "expected A per [N] UNIT"},
		{"0.15 per 1M tokens today", "expected A per [N] UNIT"},
		{"0.15 per 1M", "has no unit"},
		{"-1 per call", `amount "-1" is negative`},
		{"$1 per call", `amount "$1" is no decimal number`},
		{"0,15 per call", `amount "0,15" is no decimal number`},
		{"NaN per call", "is no decimal number"},
		{"+1 per call", "is no decimal number"},
		{"1e per call", "is no decimal number"},
		{". per call", "is no decimal number"},
		{"1_0 per call", "is no decimal number"},
		{"1000000000.1 per call", "is absurd: use at most 1000000000"},
		{"1e999 per call", "too many digits"},
		{"1e-101 per call", "too many digits"},
		{"1e99999 per call", "is no decimal number"},
		{strings.Repeat("9", 81) + "e-81 per call", "too many digits"},
		{"1 per 0 calls", `number "0": use digits, 1k (thousand) or 1M (million)`},
		{"1 per 1m tokens", `number "1m"`},
		{"1 per -5 tokens", `number "-5"`},
		{"1 per 1.5k tokens", `number "1.5k"`},
		{"1 per 1000001M tokens", "from 1 to 1000000000000"},
		{"1 per k tokens", `number "k"`},
		{"1 per 1k tokns", `unknown unit "tokns": use one of call, token, input_token, output_token, event, byte, KB`},
		{"1 per 1k rows", "or a name that `count` gives"},
	}
	for _, test := range tests {
		t.Run(test.words, func(t *testing.T) {
			_, err := ParsePrice(strings.Fields(test.words))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v; want one with %q", err, test.want)
			}
		})
	}
}

func TestPriceJSON(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{in: `{"amount":0.1,"unit":"call"}`, want: "0.1 per call"},
		{in: `{"amount":0.30000000000000000000000000004,"per":1000,"unit":"tokens"}`, want: "0.30000000000000000000000000004 per 1k tokens"},
		{in: `{"amount":1.5e-07,"unit":"input"}`, want: "0.00000015 per input"},
		{in: `{"unit":"call"}`, err: `price without "amount"`},
		{in: `{"amount":null,"unit":"call"}`, err: `price without "amount"`},
		{in: `{"amount":"-1","unit":"call"}`, err: "negative"},
		{in: `{"amount":"1e1000000000","unit":"call"}`, err: "price: "},
		{in: `{"amount":"1e9999","unit":"call"}`, err: "too many digits"},
		{in: `{"amount":"1","units":"call"}`, err: "unknown field"},
		{in: `{"amount":"x","unit":"call"}`, err: "price"},
	}
	for _, test := range tests {
		var p Price
		err := json.Unmarshal([]byte(test.in), &p)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v; want one with %q", test.in, err, test.err)
			}
		case err != nil:
			t.Errorf("%s: %v", test.in, err)
		default:
			if _, err := NewRates([]Price{p}); err != nil || p.String() != test.want {
				t.Errorf("%s: %v, %v; want %v", test.in, p, err, test.want)
			}
		}
	}
}

func TestParseClassPrice(t *testing.T) {
	tests := []struct{ line, want, err string }{
		{line: "input 0.15 per 1M tokens", want: "0.15 per 1M input"},
		{line: "input 0.15 per 1M", want: "0.15 per 1M input"},
		{line: "input 0.15 per 1M input_tokens", want: "0.15 per 1M input"},
		{line: "input 0.15 per token", want: "0.15 per input"},
		{line: "cached 0.075 per 1M tokens", want: "0.075 per 1M cached"},
		{line: "cache_write_1h 6 per 1M tokens", want: "6 per 1M cache_write_1h"},
		{line: "token 1 per 1M tokens", want: "1 per 1M tokens"},
		{line: "web_search 0.01 per call", want: "0.01 per web_search"},
		{line: "web_search 10 per 1k searches", want: "10 per 1k web_search"},
		{line: "page 0.001 per page", want: "0.001 per page"},
		{line: "search_unit 2 per 1k searches", want: "2 per 1k search_units"},
		{line: "second 0.006 per minute", want: "0.006 per minute"},
		{line: "second 0.0001 per second", want: "0.0001 per second"},
		{line: "byte 0.01 per MB", want: "0.01 per MB"},
		{line: "tool_call 0.01 per call", want: "0.01 per tool_call"},
		{line: "call 0.01 per call", want: "0.01 per call"},
		{line: "rows 0.01 per 10 rows", want: "0.01 per 10 rows"},
		{line: "inputs 1 per 1M tokens", want: "1 per 1M input"},
		{line: "input 0.15 per 1M output_tokens", err: "a price per output_token does not fit this class, use A per [N] tokens"},
		{line: "token 0.15 per 1M input_tokens", err: "does not fit"},
		{line: "input 0.15 per 1M calls", err: "does not fit"},
		{line: "page 1 per call", err: "does not fit this class, use A per [N] pages"},
		{line: "minute 1 per minute", err: `unknown class "minute": use one of`},
		{line: "imput 1 per 1M tokens", err: `unknown class "imput": use one of`},
		{line: "input x per 1M tokens", err: `input: amount "x"`},
		{line: "input 1 per 1M foos", err: `input: unknown unit "foos"`},
	}
	for _, test := range tests {
		words := strings.Fields(test.line)
		p, err := ParseClassPrice(words[0], words[1:], "rows")
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v; want one with %q", test.line, err, test.err)
			}
		case err != nil || p.String() != test.want:
			t.Errorf("%s: %q, %v; want %q", test.line, p, err, test.want)
		}
	}
}

func TestParseNumber(t *testing.T) {
	for word, want := range map[string]int64{"1": 1, "1000": 1000, "1k": 1000, "128k": 128_000, "1M": 1e6, "1000000M": 1e12, "007": 7} {
		if n, err := ParseNumber(word); err != nil || n != want {
			t.Errorf("%s: %d, %v; want %d", word, n, err, want)
		}
	}
	for _, word := range []string{"", "0", "-1", "+1", "1K", "1G", "1e3", "1.0", "k", "1000000000001", "99999999999999999999", "9223372036854775807M"} {
		if n, err := ParseNumber(word); err == nil {
			t.Errorf("%q was taken as %d", word, n)
		}
	}
}

func TestCheckCount(t *testing.T) {
	for _, name := range []string{"rows", "row", "images", "x1", "gpu-seconds"} {
		if err := CheckCount(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "1x", "Rows", "a b", "token", "tokens", "calls", "kb", "web_searches", "per", strings.Repeat("a", 65)} {
		if err := CheckCount(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestPercent(t *testing.T) {
	for in, want := range map[string]string{`"20%"`: "20%", `"20"`: "20%", `20`: "20%", `0.5`: "0.5%", `"0%"`: "0%"} {
		var p Percent
		if err := json.Unmarshal([]byte(in), &p); err != nil || p.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, p, err, want)
		}
		out, err := json.Marshal(p)
		if err != nil || string(out) != `"`+want+`"` {
			t.Errorf("%s: JSON %s, %v", in, out, err)
		}
	}
	for _, in := range []string{`"-1%"`, `""`, `null`, `"%"`, `"20%%"`, `1000001`, `true`, `"1e1000000000"`} {
		var p Percent
		if err := p.UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s was taken as %s", in, p)
		}
	}
}

func TestMarkupCost(t *testing.T) {
	tests := []struct {
		cost, markup string
		nano         int64
		err          string
	}{
		{"0.00014", "0", 140_000, ""},
		{"0.00014", "20%", 168_000, ""},
		{"1.4e-05", "10%", 15_400, ""},
		{"0.0000000019", "0", 1, ""},      // 1.9 nanos, down
		{"0.0000000019", "10%", 2, ""},    // 2.09
		{"0.000000000333", "200%", 1, ""}, // 0.999, but never to nothing
		{"0.00014160000000000003", "0", 141_600, ""},
		{"0", "50%", 0, ""},
		{"1000000000", "0", 1e18, ""},
		{"1000000000", "1000%", maxNanos, "exceeds"},
		{"-0.1", "0", 0, "provider's cost: amount \"-0.1\" is negative"},
		{"NaN", "0", 0, "provider's cost"},
		{"Infinity", "0", 0, "provider's cost"},
		{"1e30", "0", 0, "absurd"},
		{"", "0", 0, "provider's cost"},
	}
	for _, test := range tests {
		markup, err := ParsePercent(test.markup)
		if err != nil {
			t.Fatal(err)
		}
		n, err := MarkupCost(test.cost, markup)
		if n != test.nano || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s + %s: %d, %v; want %d, %q", test.cost, test.markup, n, err, test.nano, test.err)
		}
	}
}

func TestPriceWordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPrice(t, rapid.SampledFrom(units).Draw(t, "unit").word)
		again, err := ParsePrice(strings.Fields(p.String()))
		if err != nil || !samePrice(p, again) {
			t.Fatalf("%q was read as %q, %v", p, again, err)
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Price
		if err := json.Unmarshal(data, &decoded); err != nil || !samePrice(p, decoded) {
			t.Fatalf("%s was read as %q, %v", data, decoded, err)
		}
	})
}

func FuzzParsePrice(f *testing.F) {
	for _, s := range []string{"0.15 per 1M tokens", "1e-7 per call", "1e1000000000 per call", "0.02 per 1k rows", "- per per per", "1 per 1 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrice(strings.Fields(s), "rows")
		if err != nil {
			return
		}
		again, err := ParsePrice(strings.Fields(p.String()), "rows")
		if err != nil || !samePrice(p, again) {
			t.Fatalf("%q: %q was read as %q, %v", s, p, again, err)
		}
		r, err := NewRates([]Price{p}, "rows")
		if err != nil {
			t.Fatalf("%q was parsed and does not compile: %v", s, err)
		}
		if most := r.MostFor(1000, 1000); most < 0 {
			t.Fatalf("%q: most %d", s, most)
		}
	})
}
