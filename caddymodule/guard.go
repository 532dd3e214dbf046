package caddymodule

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/tallygate/tallygate/gateway"
)

// A meter computes the price from the request that arrives at it. A reverse_proxy may send another request, because handlers between them,
// or the proxy itself, can rewrite it. So each proxy of a server that has a meter is guarded: it asks the gateway before it sends.

// guard asks the gateway when a proxy selects its upstream. At that moment the request is complete except for headers, and was not sent
// yet. This works with any transport.
type guard struct {
	reverseproxy.Selector
	app *App
}

// Select selects an upstream if the request may be sent.
func (g guard) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if !gateway.MaySend(r) {
		panic(http.ErrAbortHandler) // the meter answers; after an error the proxy would try again
	}
	g.app.dropUnmetered(r)
	return g.Selector.Select(pool, r, w)
}

// guardServer makes sure that the proxies of a server with a meter, or with the API, are guarded before the server serves. When its meters are provisioned, its other
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
		proxy.LoadBalancing.SelectionPolicy = guard{proxy.LoadBalancing.SelectionPolicy, a}
	}
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
