// Package demo has the providers of the demo shop: small made-up APIs, one for each billing pattern. They serve on loopback, behind
// Tallygate, as a real provider's API would. Only the command tallygate links them; the plugin does not.
//
//	:9001 {
//		bind 127.0.0.1
//		demo search
//	}
//
// The providers know nothing of Tallygate's keys, prices and ledger. Everything that they answer is invented.
package demo

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("demo", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("demo", httpcaddyfile.Before, "respond")
}

// provider is one demo API.
type provider struct {
	handler func(pace pace) http.Handler
	delay   time.Duration // between two pieces of a stream, unless the configuration has another
}

var providers = map[string]provider{
	"search":  {handler: func(pace) http.Handler { return searchAPI() }},
	"llm":     {handler: llmAPI, delay: 60 * time.Millisecond},
	"feed":    {handler: func(pace) http.Handler { return feedAPI() }},
	"live":    {handler: liveAPI, delay: 200 * time.Millisecond},
	"predict": {handler: func(pace) http.Handler { return predictAPI() }},
	"judge":   {handler: func(pace) http.Handler { return judgeAPI() }},
	"saas":    {handler: func(pace) http.Handler { return saasAPI() }},
	"rows":    {handler: func(pace) http.Handler { return rowsAPI() }},
}

func providerNames() string {
	return strings.Join(slices.Sorted(maps.Keys(providers)), ", ")
}

// Handler answers every request that reaches it as one of the demo providers. It never calls the next handler.
type Handler struct {
	// Provider is search, llm, feed, live, predict, judge, saas or rows.
	Provider string `json:"provider"`
	// Delay is the time between two pieces of a streamed answer; 0 means none. Default: 60ms (llm), 200ms (live).
	Delay *caddy.Duration `json:"delay,omitempty"`

	serve http.Handler
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.demo",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the provider.
func (h *Handler) Provision(caddy.Context) error {
	p, ok := providers[h.Provider]
	if !ok {
		return fmt.Errorf("unknown demo provider %q: expected one of %s", h.Provider, providerNames())
	}
	delay := p.delay
	if h.Delay != nil {
		delay = time.Duration(*h.Delay)
	}
	h.serve = p.handler(pace{delay: delay})
	return nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.serve.ServeHTTP(w, r)
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	demo [<matcher>] search|llm|feed|live|predict|judge|saas|rows {
//		delay <duration>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if !d.NextArg() {
		return d.Errf("demo: the provider is missing: expected one of %s", providerNames())
	}
	h.Provider = d.Val()
	if _, ok := providers[h.Provider]; !ok {
		return d.Errf("unknown demo provider %q: expected one of %s", h.Provider, providerNames())
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "delay":
			if !d.NextArg() {
				return d.ArgErr()
			}
			delay, err := caddy.ParseDuration(d.Val())
			if err != nil {
				return d.Errf("delay %q is not a duration: expected one such as 60ms", d.Val())
			}
			h.Delay = new(caddy.Duration(delay))
			if d.NextArg() {
				return d.ArgErr()
			}
		default:
			return d.Errf("unknown word %q in a demo block: expected delay", d.Val())
		}
	}
	return nil
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// pace is the time that a provider takes between two pieces of a stream.
type pace struct{ delay time.Duration }

// wait waits until the next piece is due. It reports false when the client has gone.
func (p pace) wait(r *http.Request) bool {
	if p.delay <= 0 {
		return r.Context().Err() == nil
	}
	timer := time.NewTimer(p.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// events writes a stream of server-sent events. Each is sent at once.
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func startEvents(w http.ResponseWriter) events {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	return events{w: w, control: http.NewResponseController(w)}
}

// send writes one event, without a name if name is empty. A string is written as it is, and other data as JSON. Errors of writing
// are ignored, since [pace.wait] notices a client that has gone.
func (e events) send(name string, data any) {
	if name != "" {
		fmt.Fprintf(e.w, "event: %s\n", name)
	}
	text, ok := data.(string)
	if !ok {
		text = encode(data)
	}
	fmt.Fprintf(e.w, "data: %s\n\n", text)
	_ = e.control.Flush()
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintln(w, encode(body))
}

// refuse answers with an error in a plain form. The llm provider has the forms of the APIs that it stands for.
func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message})
}

// encode writes JSON on one line, with <, > and & as they are. The demo's own types always encode.
func encode(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
