package pricing

import (
	"strings"

	"github.com/tallygate/tallygate/meter"
)

// UsageOf returns the usage of which a charge records these units. It is the reverse of [Rates.Quantities]: a minimum is left out, since it is
// a price. A record does not tell the service tier, so the usage has none. The size of the prompt is the sum of its tokens.
func UsageOf(recorded meter.Units) meter.Usage {
	u := meter.Usage{Units: meter.Units{}}
	for class, q := range recorded {
		name, isTool := strings.CutPrefix(string(class), toolPrefix)
		switch {
		case class == raise:
		case isTool:
			if u.Tools == nil {
				u.Tools = map[string]int64{}
			}
			u.Tools[name] += q.Ceil()
			u.Units.Add(meter.ToolCall, q)
		default:
			u.Units.Add(class, q)
		}
	}
	for _, class := range promptClasses {
		u.PromptTokens += u.Units[class].Ceil()
	}
	return u
}

// promptClasses are the tokens of a prompt.
var promptClasses = []meter.Class{meter.Input, meter.Cached, meter.CacheWrite, meter.CacheWrite1h, meter.AudioInput, meter.ImageInput}
