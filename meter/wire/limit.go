package wire

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
)

// API is one operation of a provider.
type API struct {
	Name    string
	Dialect *Dialect
	// Limits are the paths of the fields that limit the output of each choice. The first is added if a request has none. Without any, the
	// output can't be limited.
	Limits []string
	// Limit, if set, chooses the field to add, depending on the request; "" means none.
	Limit func(c *meter.Call) string
	// Least, if set, returns the lowest limit that the provider accepts.
	Least func(c *meter.Call) int64
	// Endless are values that mean no limit, such as -1.
	Endless []int64
}

// owns reports whether the provider obeys a field. Whether it obeys other fields is not known, but they must not contradict.
func (a *API) owns(fields []string) bool {
	return slices.ContainsFunc(fields, func(f string) bool { return slices.Contains(a.Limits, f) })
}

// Counter implements [meter.Format].
func (a *API) Counter(c *meter.Call, status int, h http.Header) meter.Counter {
	return NewCounter(a.Dialect, c, status, h)
}

// LimitOutput implements [meter.Format].
func (a *API) LimitOutput(c *meter.Call, n int64) bool {
	return (&limited{API: a}).LimitOutput(c, n)
}

// LeastOutput implements [meter.Format].
func (a *API) LeastOutput(c *meter.Call) int64 {
	if len(a.Limits) == 0 {
		return 0
	}
	choices := max(1, c.Choices)
	return choices * min(a.least(c), max(1, MaxTokens/choices))
}

// least is the lowest limit of one choice.
func (a *API) least(c *meter.Call) int64 {
	if a.Least == nil {
		return 1
	}
	return max(1, min(a.Least(c), MaxTokens))
}

// limited is an [API] for one call. It implements [meter.Format].
type limited struct {
	*API
	fields []string // the fields by which the request limits its output, all with the same value
}

// LimitOutput implements [meter.Format]. It sets all fields that limit the output to the same value.
func (l *limited) LimitOutput(c *meter.Call, n int64) bool {
	if c.Malformed || len(l.Limits) == 0 {
		return false
	}
	choices := max(1, c.Choices)
	each := min(n/choices, MaxTokens)
	if each < l.least(c) {
		return false
	}
	fields := l.fields
	if !l.owns(fields) {
		field := l.Limits[0]
		if l.Limit != nil {
			field = l.Limit(c)
		}
		if field == "" {
			return false
		}
		fields = append(slices.Clone(fields), field)
	}
	body := c.Body
	for _, field := range fields {
		var err error
		if body, err = sjson.SetBytes(body, field, each); err != nil {
			return false
		}
	}
	c.Body, c.MaxOutput = body, each*choices
	return true
}

// outputs returns the fields by which the request limits its output. It refuses fields that have no meaning or contradict each other,
// because providers differ in which field they obey, and in which they know.
func (r *Request) outputs(api *API) (fields []string) {
	if len(api.Limits) == 0 {
		return nil
	}
	for _, config := range configs {
		r.CheckObject(config)
	}
	var first int64
	for _, f := range r.fields {
		if f.role != output || string(f.raw) == "null" {
			continue
		}
		n, err := strconv.ParseInt(string(f.raw), 10, 64)
		if (err != nil || n < 1 || n > MaxTokens) && !slices.Contains(api.Endless, n) {
			r.Refuse(f.path, "expected a whole number from 1 to "+strconv.Itoa(MaxTokens))
		}
		if len(fields) > 0 && n != first {
			r.Refuse(f.path, "it contradicts "+fields[0]+": state one bound of the output")
		}
		if len(fields) == 0 {
			first = n
		}
		fields = append(fields, f.path)
	}
	return fields
}

// maxOutput is a checked limit of the output, or 0 for none.
func (r *Request) maxOutput(field string) int64 { return max(0, r.Get(field).Int()) }

// maxChoices is how many answers a request may ask for.
const maxChoices = 1 << 20

// choices is how many answers the request asks for: the highest number in any field.
func (r *Request) choices() int64 {
	most := int64(1)
	for _, f := range r.fields {
		if f.role != count || string(f.raw) == "null" {
			continue
		}
		n, err := strconv.ParseInt(string(f.raw), 10, 64)
		if err != nil || n < 1 || n > maxChoices {
			r.Refuse(f.path, "expected a whole number from 1 to "+strconv.Itoa(maxChoices))
			continue
		}
		most = max(most, n)
	}
	return most
}

// prompts counts the prompts, each of which gets an answer. A text, or a list of tokens, is one prompt; a list of texts, or of lists of
// tokens, is as many as it has elements.
func (r *Request) prompts() int64 {
	if !r.IsArray("prompt") {
		return 1
	}
	var prompts, tokens int64
	r.Get("prompt").ForEach(func(_, v gjson.Result) bool {
		prompts++
		if v.Type == gjson.Number {
			tokens++
		}
		return true
	})
	if tokens == prompts {
		return 1
	}
	if prompts > maxChoices {
		r.Refuse("prompt", "it has too many prompts")
	}
	return min(prompts, maxChoices)
}
