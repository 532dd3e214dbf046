package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/dashboard"
	"github.com/tallygate/tallygate/gateway"
)

// Handler serves the API for agents and operators: /api/v1/*, /mcp and its metadata; the pages about problems, /problems/CODE; the guide, /dashboard/docs/; and the pages for agents and the operator, /dashboard. It passes all other requests on. If nothing handles them, it answers
// GET / with a page of what is sold, /openapi.json, /llms.txt and /.well-known/x402 with what programs look for, and other paths with 404.
type Handler struct {
	// Prefix is put before the API's paths, such as "/pay". Default: none.
	Prefix string `json:"prefix,omitempty"`

	app        *App
	metadata   string       // the path of the API's metadata
	operations http.Handler // without the prefix
	api        http.Handler
	pages      http.Handler // nil: the dashboard is off

	stopping chan struct{} // closed when the server begins to shut down
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
	h.app.served = true
	h.app.prefix = cmp.Or(h.app.prefix, h.Prefix)
	h.metadata = api.ResourceMetadataPath(h.Prefix)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		h.app.guardServer(server)
		h.stopping = make(chan struct{})
		server.RegisterOnShutdown(sync.OnceFunc(func() { close(h.stopping) }))
	}
	h.operations = api.New(h.app.openBook, api.Options{
		Prefix:          h.Prefix,
		ProblemTypes:    h.app.ProblemTypes,
		Version:         Version(),
		Tariffs:         h.app.tariffs,
		Sold:            h.app.sold,
		Quote:           h.quote,
		Cashier:         h.app.cards,
		Refunds:         h.app.giving,
		Price:           h.app.priceReported,
		Troubles:        h.app.troubles,
		Client:          clientHost,
		Proxied:         isProxied,
		Issuer:          h.app.Invoice,
		Product:         invoiceProduct,
		PrivateWebhooks: h.app.privateWebhooks(),
		Logger:          ctx.Slogger(),
	})
	h.api = http.StripPrefix(h.Prefix, h.operations)
	if h.app.Dashboard != "off" {
		h.pages = dashboard.New(h.dashboardOptions(h.operations, ctx.Slogger()))
	}
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
		if strings.Contains(h.Prefix, "*") || h.Prefix == "/api" || strings.HasPrefix(h.Prefix, "/api/") {
			slip(d, "the path after 'tallygate' is a prefix, not a matcher: the API is at "+h.Prefix+"/api/v1; write 'tallygate' alone to have it at /api/v1")
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
	if r.URL.Path == h.metadata {
		api.WriteResourceMetadata(w, api.Origin(r, isProxied(r)), h.Prefix)
		return nil
	}
	path, below := strings.CutPrefix(r.URL.Path, h.Prefix)
	if below && path == whoPath && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		h.app.tellWho(w)
		return nil
	}
	quoted := gateway.IsQuoted(r)
	if below && !quoted && dashboard.WriteGuide(w, r, path) {
		return nil
	}
	if !quoted && h.ownsDocument(r) {
		h.serveDocument(w, r, r.URL.Path)
		return nil
	}
	pages := h.pages != nil && below && dashboard.Serves(path)
	served := below && api.Serves(path) && !api.IsDocument(path)
	if !served && !pages || quoted {
		notePassedOn(r)
		if quoted {
			return next.ServeHTTP(w, r)
		}
		return h.passOn(w, r, next)
	}
	release, err := h.app.open(r.Context())
	if err != nil {
		gateway.WriteProblem(w, r, h.app.problemTypes(), gateway.Unavailable("none"))
		return nil
	}
	defer release()
	if gateway.IsEarly(r) && r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		gateway.WriteProblem(w, r, h.app.problemTypes(), gateway.RefuseEarly())
		return nil
	}
	r = r.WithContext(context.WithValue(r.Context(), apiKey{}, r))
	if pages {
		h.pages.ServeHTTP(w, r)
		return nil
	}
	h.api.ServeHTTP(w, r)
	return nil
}

// apiKey is the context key of a request to the API, as it came. A quote sends the quoted request on the same way.
type apiKey struct{}

// quote returns what a request would cost. The quoted request passes all handlers of its server that are before its meter, as the call
// itself would: those that select a host, find out who calls, or set placeholders.
func (h *Handler) quote(ctx context.Context, by escrow.Actor, order api.QuoteOrder) (api.Quote, error) {
	like, _ := ctx.Value(apiKey{}).(*http.Request)
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || like == nil {
		return api.Quote{}, &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: "quotes are given by the server that serves the routes"}
	}
	return gateway.Quote(ctx, by, order, like, quotedBy{server})
}

// quotedBy serves requests for quotes with all handlers of a server.
type quotedBy struct{ *caddyhttp.Server }

func (s quotedBy) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	nobody := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, s.Server)
	err := s.Routes.Compile(nobody).ServeHTTP(w, r)
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) && failed.StatusCode != 0 {
		w.WriteHeader(failed.StatusCode)
	}
	return err
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
	if !a.isOpen() {
		return nil
	}
	return a.book
}

// isOpen reports whether the start has ended well.
func (a *App) isOpen() bool {
	select {
	case <-a.started:
		return a.gateway != nil
	default:
		return false
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
