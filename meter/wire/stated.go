package wire

import (
	"math"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// MaxTokens is the highest number of tokens that a usage may state. A higher number is absurd, and is reduced to it.
const MaxTokens = 1_000_000_000_000

// Stated is a usage in OpenAI's way of counting, in tokens: Prompt and Completion are totals, and the other numbers are parts of them.
// Formats with another way of counting convert to this one. [Stated.Units] converts it to disjoint classes.
type Stated struct {
	Prompt       int64
	Cached       int64
	CacheWrite   int64 // for any lifetime
	CacheWrite1h int64 // the part of CacheWrite that is cached for an hour
	AudioInput   int64 // not from the cache
	ImageInput   int64 // not from the cache

	Completion  int64
	Reasoning   int64
	AudioOutput int64
	ImageOutput int64

	HasPrompt     bool // Prompt was stated
	HasCompletion bool // Completion was stated
	// NoMore says that, if the answer ends here, it has no completion, although none was stated: the stated total is only the prompt's.
	NoMore bool
	// Suspect is set if a number was absurd or contradicted others.
	Suspect bool
}

// Units returns the usage in disjoint classes. Parts that are more than the rest of their total are reduced, in this order.
func (s *Stated) Units() meter.Units {
	u := meter.Units{}
	s.addTo(u)
	return u
}

// addTo adds the units of Units to u.
func (s *Stated) addTo(u meter.Units) {
	part := func(c meter.Class, n int64, left *int64) {
		if n > *left {
			n, s.Suspect = *left, true
		}
		*left -= n
		u.Add(c, meter.Whole(n))
	}
	input := s.Prompt
	part(meter.Cached, s.Cached, &input)
	written := s.CacheWrite
	if written > input && written <= s.Prompt { // it overlaps with what was read, and both are billed: see metering.md
		u.Add(meter.CacheWrite1h, meter.Whole(min(s.CacheWrite1h, written)))
		u.Add(meter.CacheWrite, meter.Whole(max(0, written-s.CacheWrite1h)))
		input = s.Prompt - max(s.Cached, written)
	} else {
		oneHour := min(s.CacheWrite1h, written)
		part(meter.CacheWrite1h, oneHour, &input)
		part(meter.CacheWrite, written-oneHour, &input)
	}
	part(meter.AudioInput, min(s.AudioInput, input), &input) // the rest of it was read from the cache
	part(meter.ImageInput, min(s.ImageInput, input), &input)
	u.Add(meter.Input, meter.Whole(input))

	output := s.Completion
	part(meter.Reasoning, s.Reasoning, &output)
	part(meter.AudioOutput, s.AudioOutput, &output)
	part(meter.ImageOutput, s.ImageOutput, &output)
	u.Add(meter.Output, meter.Whole(output))
}

// Add adds another usage.
func (s *Stated) Add(o Stated) {
	for _, f := range [][2]*int64{
		{&s.Prompt, &o.Prompt}, {&s.Cached, &o.Cached}, {&s.CacheWrite, &o.CacheWrite}, {&s.CacheWrite1h, &o.CacheWrite1h},
		{&s.AudioInput, &o.AudioInput}, {&s.ImageInput, &o.ImageInput}, {&s.Completion, &o.Completion},
		{&s.Reasoning, &o.Reasoning}, {&s.AudioOutput, &o.AudioOutput}, {&s.ImageOutput, &o.ImageOutput},
	} {
		*f[0] = min(*f[0]+*f[1], MaxTokens)
	}
	s.HasPrompt = s.HasPrompt || o.HasPrompt
	s.HasCompletion = s.HasCompletion || o.HasCompletion
	s.NoMore = s.NoMore || o.NoMore
	s.Suspect = s.Suspect || o.Suspect
}

// What one answer may count above the bound of its request without being suspect: a provider's own prompt, reasoning that its limit does
// not include, or an inexact estimate.
const (
	bounds = 2       // times the request's bound
	slack  = 100_000 // further tokens
)

// What no answer can have used: more input than any model's context has, even if tools bring more and more; and more output than anybody
// waits for.
const (
	window = 20_000_000 // tokens
	answer = 10_000_000 // tokens of each choice
)

// credible sets Suspect if a count is higher than what the request can have used, as far as that is known. The count is not changed, since
// the provider knows more than a local count. Only a count that no answer can have used is reduced.
func (s Stated) credible(c *meter.Call) Stated {
	known := bounds*c.InputTokens + slack
	s.Suspect = s.Suspect || s.Prompt > known && !c.InputOpen && !c.InputRefers
	if most := max(window, known); s.Prompt > most {
		s.Prompt, s.Suspect = most, true
	}
	known = answer * max(1, min(c.Choices, MaxTokens/answer))
	most := known
	if c.MaxOutput > 0 {
		known = bounds*c.MaxOutput + slack
		most = max(most, known)
	}
	s.Suspect = s.Suspect || s.Completion > known
	s.Completion = min(s.Completion, most)
	return s
}

// Number reads a stated count. A missing one and null count as 0. Another value (negative, a string, a fraction, above [MaxTokens]) is
// converted to a count, and suspect is set.
func Number(v gjson.Result, suspect *bool) int64 {
	switch v.Type {
	case gjson.Null:
		return 0
	case gjson.Number:
		if n, err := strconv.ParseInt(v.Raw, 10, 64); err == nil && n >= 0 && n <= MaxTokens {
			return n
		}
		if v.Num >= 0 && v.Num <= MaxTokens { // 12.0, 1.2e3
			*suspect = *suspect || v.Num != math.Trunc(v.Num)
			return int64(math.Ceil(v.Num))
		}
		*suspect = true
		if v.Num > 0 {
			return MaxTokens
		}
		return 0
	case gjson.String:
		*suspect = true
		if n, err := strconv.ParseInt(v.Str, 10, 64); err == nil && n > 0 {
			return min(n, MaxTokens)
		}
		return 0
	default:
		*suspect = true
		return 0
	}
}

// Decimal reads a stated quantity that may have a fraction, such as seconds. It is rounded up to the millionth. Suspect is set if it is not
// a quantity.
func Decimal(v gjson.Result, suspect *bool) meter.Quantity {
	if v.Type == gjson.Null {
		return 0
	}
	q, exact := meter.DecimalQuantity(v.Raw)
	*suspect = *suspect || !exact
	return q
}
