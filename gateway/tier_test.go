package gateway_test

import (
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestAServiceTierWithoutAPrice: a request for such a tier is refused. If only the answer states the tier, the most expensive prices are
// charged, and the charge is suspect.
func TestAServiceTierWithoutAPrice(t *testing.T) {
	t.Parallel()
	price := func(words string) []pricing.Price {
		p, err := pricing.ParseClassPrice("output", strings.Fields(words))
		must(t, err)
		return []pricing.Price{p}
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: price("0.001 per token"), Services: []pricing.Service{
		{Name: "priority", Prices: price("0.002 per token")}, {Name: "fast+us", Prices: price("0.006 per token")}}}}}
	must(t, tariff.Compile(nil))
	for _, test := range []struct {
		asks, states string
		charge       string // "" where it is refused
		suspect      bool
	}{
		{"", "", "0.01", false},
		{`,"service_tier":"auto"`, `"service_tier":"default",`, "0.01", false},
		{`,"service_tier":"priority"`, `"service_tier":"priority",`, "0.02", false},
		{`,"service_tier":"Priority"`, `"service_tier":"priority",`, "0.02", false},
		{"", `"service_tier":"priority",`, "0.02", false},
		{"", `"service_tier":"turbo",`, "0.06", true},
		{`,"service_tier":"fast"`, `"service_tier":"fast",`, "0.02", false}, // another name of priority
		{`,"service_tier":"scale"`, `"service_tier":"scale",`, "0.01", false},
		{"", `"service_tier":"batch",`, "0.01", false},
		{`,"service_tier":"ultrafast"`, "", "", false},
		{`,"service_tier":"flex"`, "", "", false},
		{`,"speed":"fast"`, "", "", false},
		{`,"speed":"fast","inference_geo":"us"`, "", "0.01", false},
		{`,"serviceTier":{"type":"flex"}`, "", "", false},
		{`,"performanceConfig":{"latency":"optimized"}`, "", "", false},
		{`,"service_tier":7`, "", "", false},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json",
			`{"object":"chat.completion","model":"m",`+test.states+`"choices":[{"index":0,"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`))
		asked := sold{request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t` + test.asks + `}`}
		_, body, _ := asked.ask(t, s, false)
		charges := s.charges()
		switch {
		case test.charge == "":
			if len(charges) != 0 || !strings.Contains(string(body), "service") {
				t.Errorf("%v: %d charges, %s", test, len(charges), body)
			}
		case len(charges) != 1:
			t.Errorf("%v: %d charges, %s", test, len(charges), body)
		default:
			want(t, test.asks+test.states, charges[0].Amount, test.charge)
			want(t, test.asks+test.states+" suspect", charges[0].Suspect, test.suspect)
		}
	}
}
