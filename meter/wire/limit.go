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
	// Limits are the fields that bound the output of each choice, by their paths. The first is put in where a request has none;
	// without any, the output can't be limited.
	Limits []string
	// Limit, where set, chooses the field to put in by what is asked; "" for none.
	Limit func(c *meter.Call) string
	// Least, where set, is the least limit that the provider takes.
	Least func(c *meter.Call) int64
	// Endless are limits that mean none, such as -1.
	Endless []int64
}

// owns reports whether the provider obeys one of the fields. Of others it is not known, but they must not contradict.
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

// limited is an [API] as one call speaks it. It implements [meter.Format].
type limited struct {
	*API
	fields []string // that the request bounds its output by, all of which say the same
}

// LimitOutput implements [meter.Format]. All fields that bound the output say the same then.
func (l *limited) LimitOutput(c *meter.Call, n int64) bool {
	if c.Malformed || len(l.Limits) == 0 {
		return false
	}
	choices := max(1, c.Choices)
	each := min(n/choices, MaxTokens)
	if each < 1 || l.Least != nil && each < l.Least(c) {
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

// outputs are the fields by which the request bounds its output. Those that say nothing, or contradict each other, are refused:
// providers differ in which one they take, and some obey a bound that others don't know.
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

// maxOutput is a checked bound of the output, 0 for none.
func (r *Request) maxOutput(field string) int64 { return max(0, r.Get(field).Int()) }

// maxChoices is how many answers may be asked for in one request.
const maxChoices = 1 << 20

// choices is how many answers are asked for: the most of what any field says.
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

// prompts counts the prompts, each of which is answered: of a text or a list of tokens there is one, of a list of either as many as
// there are.
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
