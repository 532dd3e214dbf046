package caddymodule

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/tallygate/tallygate/gateway"
)

// A meter computes the price from the request that arrives at it. A reverse_proxy may send another request, because handlers between them,
// or the proxy itself, can rewrite it. So each proxy of a server that has a meter is guarded: it asks the gateway before it sends.

// guard asks the gateway when a proxy selects its upstream. At that moment the request is complete except for what header_up does, and was
// not sent yet. This works with any transport.
type guard struct {
	reverseproxy.Selector
	app *App
	ops []*headers.HeaderOps // what the proxy does to headers on which prices may depend, in this order
}

// Select selects an upstream if the request may be sent.
func (g guard) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if !g.maySend(r) {
		panic(http.ErrAbortHandler) // the meter answers; after an error the proxy would try again
	}
	g.app.dropUnmetered(r)
	return g.Selector.Select(pool, r, w)
}

// maySend asks with the headers that the proxy will send. Headers that configure a router behind the meter are the provider's own, and left
// out, unless their values come from the request.
func (g guard) maySend(r *http.Request) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if len(g.ops) == 0 || !ok {
		return gateway.MaySend(r)
	}
	sent, own := r.WithContext(r.Context()), http.Header{}
	sent.Header = r.Header.Clone()
	for _, ops := range g.ops {
		ops.ApplyTo(sent.Header, repl)
		ops.ApplyTo(own, caddy.NewReplacer())
	}
	maps.DeleteFunc(sent.Header, func(name string, values []string) bool {
		return gateway.ConfiguresRouter(name) && !slices.ContainsFunc(values, func(value string) bool { return !slices.Contains(own[name], value) })
	})
	may := gateway.MaySend(sent)
	r.Body = sent.Body
	return may
}

// guardServer makes sure that the proxies of a server with a meter, or with the API, are guarded before the server serves. When its meters are
// provisioned, its other
// handlers may not exist yet, and apps start in any order. So the proxies are guarded by the first connection or by the start of this app,
// for which metered requests wait, whichever comes first.
func (a *App) guardServer(server *caddyhttp.Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.guards[server] != nil {
		return
	}
	guarded := sync.OnceFunc(func() { eachHandler(server, a.guardProxy) })
	if a.guards == nil {
		a.guards = make(map[*caddyhttp.Server]func())
	}
	a.guards[server] = guarded
	server.RegisterConnContext(func(ctx context.Context, _ net.Conn) context.Context { // HTTP/3 connections do not come here
		guarded()
		return ctx
	})
}

func (a *App) guardProxy(h caddyhttp.MiddlewareHandler, _ location) {
	proxy, ok := h.(*reverseproxy.Handler)
	switch {
	case !ok:
	case asksAside(proxy):
		proxy.LoadBalancing.SelectionPolicy = aside{proxy.LoadBalancing.SelectionPolicy}
	default:
		proxy.LoadBalancing.SelectionPolicy = guard{proxy.LoadBalancing.SelectionPolicy, a, pricedOps(proxy)}
	}
}

// pricedOps are the operations by which a proxy may change headers on which prices depend.
func pricedOps(proxy *reverseproxy.Handler) (ops []*headers.HeaderOps) {
	if transport, ok := proxy.Transport.(reverseproxy.RequestHeaderOpsTransport); ok {
		ops = append(ops, transport.RequestHeaderOps())
	}
	if proxy.Headers != nil {
		ops = append(ops, proxy.Headers.Request)
	}
	return slices.DeleteFunc(ops, func(o *headers.HeaderOps) bool {
		if o == nil {
			return true
		}
		names := slices.Concat(slices.Collect(maps.Keys(o.Add)), slices.Collect(maps.Keys(o.Set)), slices.Collect(maps.Keys(o.Replace)), o.Delete)
		return !slices.ContainsFunc(names, func(name string) bool { return strings.ContainsAny(name, "*{") || gateway.BearsOnPrice(name) })
	})
}

// aside lets a proxy that only finds out who calls do so for a quote too.
type aside struct{ reverseproxy.Selector }

func (a aside) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	gateway.AskAside(r)
	return a.Selector.Select(pool, r, w)
}

// asksAside reports whether successful answers to a proxy never go to the client, but only set headers and variables of the request, as
// with forward_auth. Such a proxy does not send the call that is sold.
func asksAside(proxy *reverseproxy.Handler) bool {
	for _, h := range proxy.HandleResponse {
		if m := h.Match; m != nil && len(m.StatusCode) > 0 && !slices.ContainsFunc(m.StatusCode, isGood) {
			continue
		}
		return (h.Match == nil || len(h.Match.Headers) == 0 && (len(h.Match.StatusCode) == 0 || slices.Contains(h.Match.StatusCode, 2))) &&
			h.StatusCode == "" && onlySets(h.Routes)
	}
	return false
}

// isGood reports whether a status, or a class of statuses, means success.
func isGood(status int) bool { return status == 2 || status/100 == 2 }

// onlySets reports whether routes do nothing but set headers and variables.
func onlySets(routes caddyhttp.RouteList) bool {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch handler.(type) {
			case *headers.Handler, *caddyhttp.VarsMiddleware:
			default:
				return false
			}
		}
	}
	return true
}
