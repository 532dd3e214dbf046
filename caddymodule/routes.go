package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// nameRoutes gives each meter its route's name in charges and in the list of tariffs, from the matchers of its site.
func (a *App) nameRoutes() {
	loaded, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return // there is nothing to serve
	}
	places := make(map[*Meter]location)
	for name, server := range loaded.(*caddyhttp.App).Servers {
		meters, templates := 0, false
		eachHandler(server, func(h caddyhttp.MiddlewareHandler, at location) {
			templates = templates || isTemplates(h)
			if meter, ok := h.(*Meter); ok {
				places[meter] = at
				meters++
			}
		})
		if meters == 0 {
			continue
		}
		for meter, at := range places {
			meter.route.Includes = meter.route.Includes || templates && at.server == server
		}
		for _, log := range accessLogs(server.Logs) {
			if a.showsKeys(log) {
				a.logger.Warn("an access log shows keys: Caddy hides Authorization in it, but no other place that keys come in; filter x-api-key, x-goog-api-key, api-key, Tallygate-Key and ?key= in the log's encoder, see docs/security.md",
					zap.String("server", name), zap.String("logger", log))
			}
		}
	}
	same := make(map[string][]string) // the hosts of each name
	for _, at := range places {
		if host := at.host(); !slices.Contains(same[at.name("")], host) {
			same[at.name("")] = append(same[at.name("")], host)
		}
	}
	for meter, at := range places {
		meter.host, meter.paths = strings.Join(at.hosts, " "), pathsOf(at)
		if meter.route.Name = at.name(""); len(same[meter.route.Name]) > 1 {
			meter.route.Name = at.name(at.host())
		}
	}
}

// location is where a handler is in a server's configuration.
type location struct {
	server *caddyhttp.Server
	named  string   // the name of the named route that has it
	hosts  []string // in the matchers around it
	paths  []string // in the matchers around it
}

// name is the name of a route at this place: its paths, after the name of its named route and after a host. The host is needed only if there
// are several with the same paths.
func (p location) name(host string) string {
	if len(p.paths) == 0 {
		return host + p.named
	}
	names := make([]string, len(p.paths))
	for i, path := range p.paths {
		names[i] = host + p.named + path
	}
	return strings.Join(names, " ")
}

// host is what tells routes with the same paths apart: their hosts, or the address at which their server listens.
func (p location) host() string {
	if len(p.hosts) == 0 && p.named == "" {
		return strings.Join(p.server.Listen, ",")
	}
	return strings.Join(p.hosts, ",")
}

// isTemplates reports whether a handler may include other answers of the server in its own.
func isTemplates(h caddyhttp.MiddlewareHandler) bool {
	return idOf(h) == "http.handlers.templates"
}

// eachHandler visits the handlers of a server, except for those inside handlers of other packages, which it can't see.
func eachHandler(server *caddyhttp.Server, visit func(h caddyhttp.MiddlewareHandler, at location)) {
	at := location{server: server}
	visitRoutes(server.Routes, at, visit)
	for name, route := range server.NamedRoutes {
		at := at
		at.named = name
		visitRoutes(caddyhttp.RouteList{*route}, at, visit)
	}
	if server.Errors != nil {
		visitRoutes(server.Errors.Routes, at, visit)
	}
}

func visitRoutes(routes caddyhttp.RouteList, within location, visit func(h caddyhttp.MiddlewareHandler, at location)) {
	for _, route := range routes {
		at := within.matching(route)
		for _, handler := range route.Handlers {
			visit(handler, at)
			for _, inner := range routesWithin(handler) {
				visitRoutes(inner, at, visit)
			}
		}
	}
}

// routesWithin returns the routes that a handler contains.
func routesWithin(handler caddyhttp.MiddlewareHandler) (lists []caddyhttp.RouteList) {
	var answered []caddyhttp.ResponseHandler
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		lists = append(lists, h.Routes)
		if h.Errors != nil {
			lists = append(lists, h.Errors.Routes)
		}
	case *reverseproxy.Handler:
		answered = h.HandleResponse
	case *intercept.Intercept:
		answered = h.HandleResponse
	}
	for _, h := range answered {
		lists = append(lists, h.Routes)
	}
	return lists
}

// matching is a location below the matchers of a route. The innermost hosts and paths count.
func (p location) matching(route caddyhttp.Route) location {
	var hosts, paths []string
	for _, set := range route.MatcherSets {
		for _, matcher := range set {
			switch m := matcher.(type) {
			case *caddyhttp.MatchPath:
				paths = append(paths, *m...)
			case caddyhttp.MatchPath:
				paths = append(paths, m...)
			case *caddyhttp.MatchHost:
				hosts = append(hosts, *m...)
			case caddyhttp.MatchHost:
				hosts = append(hosts, m...)
			}
		}
	}
	if len(hosts) > 0 {
		p.hosts = hosts
	}
	if len(paths) > 0 {
		p.paths = paths
	}
	return p
}
