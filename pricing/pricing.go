// Package pricing computes the price of a usage from a tariff, exactly, and the most that a request can cost before it is made. It knows
// nothing of HTTP or of the ledger. An amount is an int64 in nanos (10^-9 of the ledger's currency). No float is involved.
//
// A [Price] is an amount per N of a unit, such as "0.15 per 1M tokens". There are two ways to begin. [NewRates] makes [Rates] from a list
// of prices, as in the `price` lines of a route. A [Tariff] has prices for models and tools, its own or those of a [Catalog]; compile it
// with [Tariff.Compile], and [Tariff.For] returns the Rates of a model. Rates compute what a request costs:
//
//	most := rates.MostFor(inputTokens, outputTokens) // before the request: hold this much
//	due, err := rates.Due(usage)                     // after it, or so far
//	explained, err := rates.Explain(usage)           // how it comes to that
//
// The price of a usage is the sum of the prices:
//
//	due = floor(price_1 x quantity_1 + price_2 x quantity_2 + ...), and a nano at least where the sum is above zero
//
// The sum is rounded once, at the end, down to nanos. But it is never rounded to zero: something with a price is not free. A price of
// something of which a call has just one, such as the call itself, has no more digits than the ledger, so nothing of it is lost by
// rounding. The usage of a stream grows, and [Rates.Due] is the price of all of it so far. A draw in mid-stream is due(now) - due(before),
// so the draws add up to the price of the whole, however many there are.
//
// A [Measure] is a number of units, such as a batch or the quota of a plan. [MarkupCost] is the price of a call whose cost the provider
// states itself.
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
//	call event byte second elapsed_second tool_call web_search maps_search file_search code_session container_minute citation page search_unit input_character asked_image asked_second input_byte, and units named by `count`:  cost nothing
//
// A price of 0 counts as a price: `cached 0 per 1M tokens` makes cached tokens free. Without that line they are charged as input. A model
// may have a price for input and none for output, as embeddings do; [Tariff.Warnings] mentions it.
package pricing

import (
	"errors"
	"slices"

	"github.com/tallygate/tallygate/meter"
)

// ErrOverflow is returned when an amount is more than an int64 of nanos can hold (9.2e9 of the currency). The amount that is returned with
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
		meter.Calls, meter.Event, meter.Byte, meter.Second, meter.Elapsed, meter.ToolCall, meter.WebSearch, meter.Page, meter.SearchUnit,
		meter.MapsSearch, meter.FileSearch, meter.CodeSession, meter.ContainerMinute, meter.Citation,
		meter.InputCharacter, meter.AskedImage, meter.AskedSecond, meter.InputByte,
	}
	// askedClasses are the classes that the request itself states.
	askedClasses = []meter.Class{meter.InputCharacter, meter.AskedImage, meter.AskedSecond, meter.InputByte}
)

// fallbacks is the table of the package comment: for each class, the class whose price it has if it has no price of its own.
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

// IsToken reports whether a class counts tokens.
func IsToken(c meter.Class) bool { return slices.Contains(tokenClasses, c) }
