package wire

import (
	"bytes"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// Request is a request in the form that formats read.
type Request struct {
	meter.Head
	// Clean is the path in lower case, since some providers accept any case. Path keeps its case. Neither has repeated or trailing slashes.
	Clean string
	// Body is the body in a spelling that all providers read in the same way. If a format knows the request, this is the body to send.
	Body []byte

	begins byte // '{' or '[' if Body looks like JSON
	kind   byte // the same if Body is valid JSON
	fields []found
	input  inputs
	err    error // the first error
}

// NewRequest reads a request.
func NewRequest(h meter.Head, body []byte) *Request {
	if h.Header == nil {
		h.Header = http.Header{}
	}
	h.Path = path.Clean("/" + h.Path)
	r := &Request{Head: h, Clean: lower(h.Path), Body: bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF"))}
	if trimmed := bytes.TrimLeft(r.Body, " \t\r\n"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		r.begins = trimmed[0]
		r.read()
	}
	return r
}

// read reads a body that looks like JSON.
func (r *Request) read() {
	in := reader{body: r.Body}
	valid := in.read(vocabulary)
	if valid && len(in.edits) > 0 && in.wrong == nil {
		r.Body = in.rewritten()
		in = reader{body: r.Body}
		in.read(vocabulary)
	}
	if r.begins == '{' { // each request of a batch has its own
		r.fields = in.fields
	}
	r.input = in.input
	if !valid {
		return
	}
	r.kind = r.begins
	if in.wrong != nil {
		r.Fail(in.wrong)
	}
	if !utf8.Valid(r.Body) {
		r.Refuse("body", "it is not in UTF-8")
	}
}

// lower returns s with its ASCII letters in lower case. The length does not change.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Post reports whether the request is a POST to a path that ends in suffix, such as "/chat/completions".
func (r *Request) Post(suffix string) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.Clean, suffix)
}

// Upgrade reports whether the request asks for a WebSocket at a path that ends in suffix. Over HTTP/2 that is a CONNECT.
func (r *Request) Upgrade(suffix string) bool {
	upgrade := r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	return (upgrade || r.Method == http.MethodConnect) && strings.HasSuffix(r.Clean, suffix)
}

// Err returns why the request can't be read with certainty, as a [*meter.AmbiguousError] or another error of package meter, or nil.
func (r *Request) Err() error { return r.err }

// Fail notes an error. The first error counts.
func (r *Request) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Refuse notes that a field can be read in more than one way.
func (r *Request) Refuse(field, reason string) {
	r.Fail(&meter.AmbiguousError{Field: field, Reason: reason})
}

// LooksJSON reports whether the body looks like JSON, valid or not.
func (r *Request) LooksJSON() bool { return r.begins != 0 }

// Object reports whether the body is a JSON object.
func (r *Request) Object() bool { return r.kind == '{' }

// Batch reports whether the body is a JSON array.
func (r *Request) Batch() bool { return r.kind == '[' }

// raw returns the bytes of the value of a known field of the body.
func (r *Request) raw(path string) []byte {
	for _, f := range r.fields {
		if f.path == path {
			return f.raw
		}
	}
	return nil
}

// Get returns the value of a known field of the body, by its path. If the body does not have the field, the value does not exist. Of the
// elements of an array, the first that has the field counts.
func (r *Request) Get(path string) gjson.Result {
	if raw := r.raw(path); raw != nil {
		return gjson.ParseBytes(raw)
	}
	return gjson.Result{}
}

// Has reports whether the body has a field, whatever its value.
func (r *Request) Has(path string) bool { return r.raw(path) != nil }

// IsArray reports whether a field is an array.
func (r *Request) IsArray(path string) bool { return bytes.HasPrefix(r.raw(path), []byte("[")) }

// IsObject reports whether a field is an object.
func (r *Request) IsObject(path string) bool { return bytes.HasPrefix(r.raw(path), []byte("{")) }

// set reports whether a field has a value other than null.
func (r *Request) set(path string) bool {
	raw := r.raw(path)
	return raw != nil && string(raw) != "null"
}

// Bool returns a field that is true or false. Missing and null count as false. Anything else is refused, since some providers take it for
// true.
func (r *Request) Bool(path string) bool {
	switch string(r.raw(path)) {
	case "true":
		return true
	case "", "false", "null":
		return false
	}
	r.Refuse(path, "expected true or false")
	return false
}

// Name returns a field that is a name. Missing and null count as empty. Anything but a string is refused, and so are characters that a
// provider might cut off.
func (r *Request) Name(path string) string {
	if !r.set(path) {
		return ""
	}
	v := r.Get(path)
	if v.Type != gjson.String {
		r.Refuse(path, "expected a string")
		return ""
	}
	r.checkName(path, v.Str)
	return v.Str
}

func (r *Request) checkName(path, name string) {
	if strings.TrimSpace(name) != name || strings.ContainsFunc(name, odd) {
		r.Refuse(path, "expected a name without spaces around it and without control characters")
	}
}

// CheckObject refuses a field that has a value other than an object.
func (r *Request) CheckObject(path string) {
	if r.set(path) && !r.IsObject(path) {
		r.Refuse(path, "expected an object")
	}
}

// FreeCall returns a call that is free on routes with a tariff.
func (r *Request) FreeCall(name string) *meter.Call {
	c := r.Call(&API{Name: name, Dialect: Generic.Dialect})
	c.Free, c.InputOnly = true, true
	return c
}

// Call returns a call of the API with the fields that all formats share. It notes what can be read in more than one way, see [Request.Err].
func (r *Request) Call(api *API) *meter.Call {
	c := &meter.Call{API: api.Name, Body: r.Body, Malformed: r.kind != '{'}
	c.Model = r.Name("model")
	r.nameModels(c)
	c.ServiceTier = r.tier()
	c.Stream = r.Bool("stream")
	c.Thinks = r.thinks()
	r.CheckObject("stream_options")
	r.Bool("stream_options.include_usage")
	if r.set("tools") && !r.IsArray("tools") && !r.IsObject("tools") {
		r.Refuse("tools", "expected a list of tools")
	}
	c.InputTokens, c.InputOpen = r.input.bound(int64(len(r.Body)), c.Model)
	c.InputOpen = c.InputOpen || r.IsObject("prompt") && r.Has("prompt.id")
	c.InputRefers = c.InputOpen || r.input.refers
	if c.Choices = r.choices(); len(api.Limits) > 0 {
		c.Choices *= r.prompts()
	}
	c.Elsewhere = r.Elsewhere()
	format := &limited{API: api, fields: r.outputs(api)}
	if len(format.fields) > 0 && api.owns(format.fields) {
		c.MaxOutput = r.maxOutput(format.fields[0]) * c.Choices
	}
	c.Format = format
	c.Stored.Makes = api.Dialect.Makes()
	r.checkHeader()
	r.checkQuery()
	return c
}

// thinks reports whether the request asks for reasoning.
//
// OpenAI: https://platform.openai.com/docs/guides/reasoning, Anthropic: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking,
// Gemini: https://ai.google.dev/gemini-api/docs/thinking
func (r *Request) thinks() bool {
	if slices.ContainsFunc(effortFields, r.set) {
		return true
	}
	for _, f := range thinkingFields {
		if r.set(f.path) && r.Get(f.kind).Str != "disabled" {
			return true
		}
	}
	for _, f := range thinkingConfigs {
		none := string(r.raw(f.budget)) == "0" || string(r.raw(f.budgetSnake)) == "0"
		if r.set(f.path) && !none {
			return true
		}
	}
	return false
}

// Where a request may ask for reasoning: by an effort or a level; by an object with a type; by Google's configuration with a budget of tokens.
var (
	effortFields   = []string{"reasoning", "reasoning_effort", "generation_config.thinkingLevel", "generation_config.thinking_level"}
	thinkingFields = []struct{ path, kind string }{
		{"thinking", "thinking.type"},
		{"additionalModelRequestFields.thinking", "additionalModelRequestFields.thinking.type"},
		{"additionalModelRequestFields.reasoning_config", "additionalModelRequestFields.reasoning_config.type"},
	}
	thinkingConfigs = func() (all []thinkingConfig) {
		for _, config := range []string{"generationConfig", "generation_config"} {
			for _, field := range []string{config + ".thinkingConfig", config + ".thinking_config"} {
				all = append(all, thinkingConfig{field, field + ".thinkingBudget", field + ".thinking_budget"})
			}
		}
		return all
	}()
)

type thinkingConfig struct{ path, budget, budgetSnake string }

// tierFields are the fields that ask for other prices: OpenAI's and Gemini's tier, Bedrock's
// (https://docs.aws.amazon.com/bedrock/latest/userguide/service-tiers-inference.html), and Anthropic's speed and region.
var tierFields = []string{"service_tier", "extra_body.service_tier", "serviceTier", "serviceTier.type", "performanceConfig.latency",
	"speed", "extra_body.speed", "inference_geo", "extra_body.inference_geo"}

// tier returns what the request asks for that changes its prices. A speed that is a number is the speed of speech.
func (r *Request) tier() string {
	var names []string
	for _, field := range tierFields {
		if v := r.Get(field); v.Type == gjson.String {
			name := r.Name(field)
			if strings.Contains(strings.ToLower(field), "tier") {
				name = meter.ServiceTier(name)
			}
			names = append(names, name)
		} else if strings.HasSuffix(field, "service_tier") && r.set(field) {
			r.Refuse(field, "expected a string")
		}
	}
	for _, header := range tierHeaders {
		for _, name := range r.Header.Values(header) {
			r.checkName(header, name)
			names = append(names, meter.ServiceTier(strings.ToLower(name)))
		}
	}
	return meter.JoinTiers(names...)
}
