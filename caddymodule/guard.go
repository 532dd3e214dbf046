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

// A meter judges what a call costs by the request that comes to it. What a reverse_proxy sends may be another one: handlers between them, and
// the proxy itself, can rewrite it. So each proxy of a server that has a meter is guarded: it asks the gateway before it sends.

// guard asks the gateway at the place where a proxy picks its upstream. There the request is what is going to be sent, but for headers, whatever
// the transport is; and it has not been sent yet.
type guard struct{ reverseproxy.Selector }

// Select picks an upstream for a request that may be sent.
func (g guard) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if !gateway.MaySend(r) {
		panic(http.ErrAbortHandler) // the meter answers; an error would have the proxy try again
	}
	return g.Selector.Select(pool, r, w)
}

// guardServer has the proxies of a server guarded before it serves. Its handlers are still being made when its meters are, and apps start in any
// order: so the first connection sees to it, or the start of this app, for which metered requests wait, whichever comes first.
func (a *App) guardServer(server *caddyhttp.Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.guards[server] != nil {
		return
	}
	guarded := sync.OnceFunc(func() { eachHandler(server, guardProxy) })
	if a.guards == nil {
		a.guards = make(map[*caddyhttp.Server]func())
	}
	a.guards[server] = guarded
	server.RegisterConnContext(func(ctx context.Context, _ net.Conn) context.Context { // HTTP/3 does not come here
		guarded()
		return ctx
	})
}

func guardProxy(h caddyhttp.MiddlewareHandler, _ string) {
	if proxy, ok := h.(*reverseproxy.Handler); ok && !asksAside(proxy) {
		proxy.LoadBalancing.SelectionPolicy = guard{proxy.LoadBalancing.SelectionPolicy}
	}
}

// asksAside reports whether no good answer to a proxy goes to the client, but only says how the request goes on: so it is with forward_auth. What
// it sends is not the request that is sold.
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

// isGood reports whether a status, or a class of them, is of answers that are sold.
func isGood(status int) bool { return status == 2 || status/100 == 2 }

// onlySets reports whether routes set headers and variables, and do nothing else.
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
