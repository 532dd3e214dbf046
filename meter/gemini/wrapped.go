package gemini

import (
	"slices"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// wrapper is the field in which Gemini Code Assist puts an answer: {"response": {"candidates": ...}, "traceId": "..."}. Its requests are in the
// field request, beside the model and the project. Its path, /v1internal:generateContent, names no model.
// https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/code_assist/converter.ts
const wrapper = "response."

// orWrapped returns d with rules that also read answers in a [wrapper].
func orWrapped(d wire.Dialect) wire.Dialect {
	var wrapped []wire.Rule
	for _, rule := range d.Rules {
		if rule.Path != "error" {
			rule.Path = wrapper + rule.Path
			wrapped = append(wrapped, rule)
		}
	}
	d.Answers = alsoIn(wrapper, d.Answers)
	return d.Keeping(wrapped...)
}

// alsoIn returns paths, and the same within an object.
func alsoIn(object string, paths []string) []string {
	all := slices.Clone(paths)
	for _, path := range paths {
		all = append(all, object+path)
	}
	return all
}

// get returns the value at path, in a wrapper or without one.
func get(m *wire.Message, path string) gjson.Result {
	if v := m.Get(path); v.Exists() {
		return v
	}
	return m.Get(wrapper + path)
}

// has reports whether there is a value at path, in a wrapper or without one.
func has(m *wire.Message, path string) bool { return m.Has(path) || m.Has(wrapper+path) }

// wrapped is the format of a request that is in the field request of another object.
type wrapped struct{ meter.Format }

// LimitOutput implements [meter.Format].
func (w wrapped) LimitOutput(c *meter.Call, n int64) bool {
	inner := *c
	inner.Body = []byte(gjson.GetBytes(c.Body, "request").Raw)
	if !w.Format.LimitOutput(&inner, n) {
		return false
	}
	body, err := sjson.SetRawBytes(c.Body, "request", inner.Body)
	if err != nil {
		return false
	}
	c.Body, c.MaxOutput = body, inner.MaxOutput
	return true
}

// inspectWrapped reads a request that is in the field request of the body.
func inspectWrapped(r *wire.Request, api *wire.API, stream bool) (*meter.Call, error) {
	outer := r.Call(&wire.API{Name: api.Name, Dialect: api.Dialect})
	in := wire.NewRequest(r.Head, []byte(r.Get("request").Raw))
	c := in.Call(api)
	bothConfigs(in)
	if err := in.Err(); err != nil {
		return nil, err
	}
	body, err := sjson.SetRawBytes(r.Body, "request", c.Body)
	if err != nil {
		return nil, err
	}
	c.Format, c.Body, c.Stream = wrapped{c.Format}, body, stream
	c.InputTokens, c.InputOpen, c.InputRefers = outer.InputTokens, outer.InputOpen, outer.InputRefers
	c.ServiceTier = meter.JoinTiers(outer.ServiceTier, c.ServiceTier)
	c.Choices = max(c.Choices, outer.Choices)
	if c.Elsewhere == "" {
		c.Elsewhere = outer.Elsewhere
	}
	named := c.Model
	c.Model, c.Models = outer.Model, append(c.Models, outer.Models...)
	r.Also(c, "request.model", named)
	return c, nil
}
