package meter

import (
	"slices"
	"strings"
)

// plainTiers are what providers call a service at plain prices. "auto" leaves the choice to the provider, whose answer states it.
var plainTiers = []string{"", "auto", "default", "standard", "standard_only", "on_demand", "on-demand", "global", "not_available", "normal",
	"scale"} // OpenAI's scale tier is paid beforehand: https://openai.com/api-scale-tier/

// ServiceTier is a service tier by its one name: fast stands for priority (https://openrouter.ai/docs/guides/features/service-tiers). Anthropic's
// speed of that name is no tier.
func ServiceTier(name string) string {
	if strings.EqualFold(name, "fast") {
		return "priority"
	}
	return name
}

// PlainTier reports whether a name of a service tier, of a speed or of a region stands for plain prices.
func PlainTier(name string) bool { return slices.Contains(plainTiers, strings.ToLower(name)) }

// JoinTiers joins what multiplies the prices of a call, without what is plain: "priority", "fast+us". Names are in small letters, in
// the order of tier, speed, region. Without any it is the first name, which is a plain one.
func JoinTiers(names ...string) string {
	var list []string
	for _, name := range names {
		if name = strings.ToLower(name); !PlainTier(name) && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	if len(list) == 0 && len(names) > 0 {
		return names[0]
	}
	return strings.Join(list, "+")
}
