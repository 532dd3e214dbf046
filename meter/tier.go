package meter

import (
	"slices"
	"strings"
)

// plainTiers are the providers' names of the service at normal prices. "auto" leaves the choice to the provider, whose answer states it.
var plainTiers = []string{"", "auto", "default", "standard", "standard_only", "on_demand", "on-demand", "global", "not_available", "normal",
	"scale"} // OpenAI's scale tier is paid in advance: https://openai.com/api-scale-tier/

// ServiceTier returns the one name of a service tier: fast means priority (https://openrouter.ai/docs/guides/features/service-tiers).
// Anthropic's speed of that name is not a service tier.
func ServiceTier(name string) string {
	if strings.EqualFold(name, "fast") {
		return "priority"
	}
	return name
}

// PlainTier reports whether a name of a service tier, of a speed or of a region means normal prices.
func PlainTier(name string) bool { return slices.Contains(plainTiers, strings.ToLower(name)) }

// JoinTiers joins the names that change the prices of a call: "priority", "fast+us". It leaves out names that mean normal prices. The
// result is in lower case, in the order of tier, speed, region. If nothing changes the prices, it is the first name.
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
