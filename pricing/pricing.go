// Package pricing turns usage and a tariff into an exact amount, and the bounds of a request into the most it can cost.
// It knows no HTTP and no ledger. Amounts are whole nanos (10^-9 of the ledger's currency) in an int64; no float is involved.
//
// A [Price] is an amount per N of a unit ("0.15 per 1M tokens"). A [Tariff] has prices for models and tools; a route with
// plain `price` lines has a list of them. Both are compiled into [Rates], which is what a request is charged by:
//
//	due = floor(price_1 x quantity_1 + price_2 x quantity_2 + ...)
//
// with one rounding, at the end, in the payer's favour. Due is meant for cumulative usage: what is drawn while a stream runs
// is due(now) - due(before), so that the draws add up to the price of the whole, whatever their number.
//
// # Fallbacks
//
// Classes of [meter.Usage] are disjoint. A class without a price of its own is charged at the price of its fallback:
//
//	class            without a price of its own
//	input            costs nothing
//	cached           as input
//	cache_write      as input
//	cache_write_1h   as cache_write, else input
//	audio_input      as input
//	image_input      as input
//	output           costs nothing
//	reasoning        as output
//	audio_output     as output
//	image_output     as output
//	call event byte second tool_call web_search page search_unit, and units named by `count`:  cost nothing
//
// A price of 0 is a price: `cached 0 per 1M tokens` makes cached tokens free, while no line charges them as input. A model
// with a price for input and none for output is legal (embeddings) and reported by [Tariff.Warnings].
package pricing

import (
	"errors"

	"github.com/tallygate/tallygate/meter"
)

// ErrOverflow is returned when an amount does not fit an int64 of nanos (9.2e9 of the currency); the amount returned beside
// it is math.MaxInt64.
var ErrOverflow = errors.New("amount exceeds 9223372036.854775807")

// nano is the number of ledger units in one unit of the currency.
const nano = 1_000_000_000

// micro is the number of [meter.Quantity] steps in one unit.
const micro = 1_000_000

var (
	inputClasses = []meter.Class{
		meter.Input, meter.Cached, meter.CacheWrite, meter.CacheWrite1h, meter.AudioInput, meter.ImageInput,
	}
	outputClasses = []meter.Class{meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput}
	tokenClasses  = append(append([]meter.Class(nil), inputClasses...), outputClasses...)
	countClasses  = []meter.Class{
		meter.Calls, meter.Event, meter.Byte, meter.Second, meter.ToolCall, meter.WebSearch, meter.Page, meter.SearchUnit,
	}
)

// fallbacks is the table of the package comment.
var fallbacks = map[meter.Class]meter.Class{
	meter.Cached:       meter.Input,
	meter.CacheWrite:   meter.Input,
	meter.CacheWrite1h: meter.CacheWrite,
	meter.AudioInput:   meter.Input,
	meter.ImageInput:   meter.Input,
	meter.Reasoning:    meter.Output,
	meter.AudioOutput:  meter.Output,
	meter.ImageOutput:  meter.Output,
}
