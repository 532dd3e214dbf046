package caddymodule

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
)

// Handler serves the API for agents and operators: /api/v1/*, /mcp, /openapi.json and /llms.txt. It passes all other requests on.
type Handler struct {
	// Prefix is put before the API's paths, such as "/pay". Default: none.
	Prefix string `json:"prefix,omitempty"`

	app *App
	api http.Handler
}

// CaddyModule implements caddy.Module.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.tallygate", New: func() caddy.Module { return new(Handler) }}
}

// Provision prepares the API. It does not open the ledger.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.App("tallygate")
	if err != nil {
		return err
	}
	h.app = app.(*App)
	h.app.prefix = cmp.Or(h.app.prefix, h.Prefix)
	version, _ := caddy.Version()
	h.api = http.StripPrefix(h.Prefix, api.New(h.app.openBook, api.Options{
		Prefix:          h.Prefix,
		Version:         version,
		Tariffs:         h.app.tariffs,
		Quote:           h.quote,
		Troubles:        h.app.troubles,
		Client:          clientHost,
		Proxied:         isProxied,
		PrivateWebhooks: h.app.privateWebhooks(),
		Logger:          ctx.Slogger(),
	}))
	return nil
}

// isProxied reports whether a request came through one of the server's trusted_proxies.
func isProxied(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// parseHandler reads the directive. Unlike in other directives, a path after the name is not a matcher, but the prefix.
func parseHandler(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, handler), nil
}

// UnmarshalCaddyfile reads
//
//	tallygate [PREFIX]
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		h.Prefix = strings.TrimSuffix(d.Val(), "/")
		if !strings.HasPrefix(d.Val(), "/") {
			return d.Errf("unexpected %q: expected a path such as /pay", d.Val())
		}
	}
	if d.NextArg() {
		return d.Errf("unexpected %q: expected 'tallygate [PREFIX]'", d.Val())
	}
	if d.NextBlock(0) {
		return d.Errf("unexpected %q: the directive 'tallygate' has no block; put its options into the global option tallygate", d.Val())
	}
	return nil
}

// ServeHTTP answers requests to the API's paths and passes all others on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, below := strings.CutPrefix(r.URL.Path, h.Prefix)
	if !below || !api.Serves(path) {
		return next.ServeHTTP(w, r)
	}
	release, err := h.app.open(r.Context())
	if err != nil {
		gateway.WriteProblem(w, r, gateway.Unavailable("none"))
		return nil
	}
	defer release()
	if gateway.IsEarly(r) && r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		gateway.WriteProblem(w, r, gateway.RefuseEarly())
		return nil
	}
	h.api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), nextKey{}, next)))
	return nil
}

// nextKey is the context key of the handlers after this one. A quote sends the quoted request through them to find its meter.
type nextKey struct{}

// quote returns what a request would cost.
func (h *Handler) quote(ctx context.Context, by escrow.Actor, order api.QuoteOrder) (api.Quote, error) {
	next, ok := ctx.Value(nextKey{}).(caddyhttp.Handler)
	if !ok {
		return api.Quote{}, &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: "quotes are given by the server that serves the routes"}
	}
	var like *http.Request
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		like = &original
	}
	return gateway.Quote(ctx, by, order, like, next)
}

// clientHost returns the client's address. It respects Caddy's trusted_proxies.
func clientHost(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		return ip
	}
	return r.RemoteAddr
}

// openBook returns the book, or nil if the ledger is not open.
func (a *App) openBook() *escrow.Book {
	select {
	case <-a.started:
		return a.book
	default:
		return nil
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
