package openai

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// usage reads a usage object with any of the providers' names.
func usage(u gjson.Result) wire.Stated { return wire.ReadUsage(wire.Fields(u)) }

// tier reads the service tier, which is beside the usage or, at Mistral, in it. "auto" is what was asked for, not the tier that answered.
func tier(beside, usage gjson.Result) string {
	if usage.IsObject() {
		if v := usage.Get("service_tier"); namesTier(v) {
			return meter.ServiceTier(v.Str)
		}
	}
	if namesTier(beside) {
		return meter.ServiceTier(beside.Str)
	}
	return ""
}

func namesTier(v gjson.Result) bool { return v.Type == gjson.String && v.Str != "auto" }

func present(v gjson.Result) bool { return v.Exists() && v.Type != gjson.Null }

// cost reads the price in USD that the provider states: OpenRouter's cost, Perplexity's cost.total_cost, or xAI's cost_in_usd_ticks (10^-10
// USD).
func cost(u gjson.Result) string {
	for _, path := range []string{"cost.total_cost", "cost"} {
		if v := u.Get(path); v.Type == gjson.Number {
			return v.Raw
		}
	}
	ticks := u.Get("cost_in_usd_ticks").Raw
	if ticks == "" || strings.Trim(ticks, "0123456789") != "" || strings.Trim(ticks, "0") == "" {
		return ""
	}
	if pad := 11 - len(ticks); pad > 0 {
		ticks = strings.Repeat("0", pad) + ticks
	}
	point := len(ticks) - 10
	return ticks[:point] + "." + ticks[point:]
}

// fees returns what a usage states about the provider's tools: the searches of OpenRouter, Mistral and Perplexity (num_search_queries); the
// sources that xAI used, which xAI bills; and the tokens of Perplexity's citations. A model that always searches (gpt-4o-search-preview)
// states no search, and counts as one. https://docs.perplexity.ai/getting-started/pricing,
// https://platform.openai.com/docs/pricing#built-in-tools
func fees(t *wire.State, model string, u gjson.Result) meter.Units {
	suspect := &t.Stated.Suspect
	units := meter.Units{meter.WebSearch: searches(u, suspect), meter.Citation: meter.Whole(wire.Number(u.Get("citation_tokens"), suspect))}
	if units[meter.WebSearch] == 0 && (searchModel(t.Call.Model) || searchModel(model)) {
		units[meter.WebSearch] = meter.Whole(1)
	}
	return units
}

func searchModel(name string) bool {
	return strings.Contains(name, "-search-preview") || strings.Contains(name, "-search-api")
}

// searches returns how many web searches a usage states.
func searches(u gjson.Result, suspect *bool) meter.Quantity {
	for _, path := range []string{"server_tool_use_details.web_search_requests", "server_tool_use.web_search_requests", "num_sources_used",
		"num_search_queries", "connectors.web_search"} {
		if n := wire.Number(u.Get(path), suspect); n > 0 {
			return meter.Whole(n)
		}
	}
	return 0
}
