package caddymodule

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Some configurations are allowed but are probably mistakes. The start warns of them, and so does `validate`.

// warnOnce searches the configuration for slips. All handlers exist when it is called: at the start, or when a configuration that was only
// checked is given up.
func (a *App) warnOnce() {
	if a == nil || a.logger == nil {
		return
	}
	a.looked.Do(func() {
		for server := range a.guards {
			if slices.ContainsFunc(server.Routes, isUnmade) {
				return // the configuration has failed before its handlers were made, which is told
			}
		}
		if len(a.meters) > 0 && !a.served {
			a.logger.Warn("no site has the directive 'tallygate': agents have no API at which to register, and to see what they pay")
		}
		for server := range a.guards {
			s := &slips{logger: a.logger, invoked: make(map[string]bool), server: server}
			s.look(server.Routes, false)
			for name, route := range server.NamedRoutes {
				if after, ok := s.invoked[name]; ok {
					s.named = name
					s.look(caddyhttp.RouteList{*route}, after)
				}
			}
			s.named = ""
			if server.Errors != nil {
				s.look(server.Errors.Routes, false)
			}
		}
	})
}

// isUnmade reports whether handlers of a route were not made.
func isUnmade(route caddyhttp.Route) bool {
	return len(route.HandlersRaw) > 0 || slices.ContainsFunc(route.Handlers, func(h caddyhttp.MiddlewareHandler) bool {
		routes, ok := h.(*caddyhttp.Subroute)
		return ok && slices.ContainsFunc(routes.Routes, isUnmade)
	})
}

// slips searches the routes of a server.
type slips struct {
	logger  *zap.Logger
	server  *caddyhttp.Server
	named   string          // the named route that is searched; empty for others
	invoked map[string]bool // the named routes in use, and whether a handler after an invocation may answer
}

// look searches routes. after says whether a handler that comes after all of them may answer.
func (s *slips) look(routes caddyhttp.RouteList, after bool) {
	var covering *Meter // of all requests that come here
	ended := false      // no request comes further
	for i, route := range routes {
		always := len(route.MatcherSets) == 0
		for j, handler := range route.Handlers {
			answers := after || slices.ContainsFunc(route.Handlers[j+1:], s.mayAnswer) || slices.ContainsFunc(routes[i+1:], s.answersIn)
			switch h := handler.(type) {
			case *Meter:
				s.meter(h, covering, ended, answers)
				if always {
					covering = h
				}
			case *caddyhttp.Invoke:
				s.invoked[h.Name] = s.invoked[h.Name] || answers
			}
			for _, inner := range routesWithin(handler) {
				s.look(inner, answers)
			}
			ended = ended || always && s.ends(handler)
		}
	}
}

func (s *slips) meter(m, covering *Meter, ended, answers bool) {
	switch {
	case ended:
		m.warn("it is never reached, because a handler before it ends all requests: put the meter first")
	case covering != nil:
		m.warn("a block has two meters for the same requests, of which only the inner one charges", zap.String("outer", covering.Payee), zap.String("inner", m.Payee))
	case !answers && s.named != "":
		m.warn("no handler after it answers, so callers get an empty answer, which costs nothing: of several directives without matchers Caddy keeps only the first in a named route, so put them into a 'route' block there", zap.String("named_route", s.named))
	case !answers:
		m.warn("no handler after it answers, so callers get an empty answer, which costs nothing: add a reverse_proxy or another handler")
	}
}

func (s *slips) answersIn(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, s.mayAnswer)
}

// silent are handlers that pass requests on.
var silent = []caddy.ModuleID{"http.handlers.headers", "http.handlers.rewrite", "http.handlers.vars", "http.handlers.encode", "http.handlers.request_body",
	"http.handlers.map", "http.handlers.log_append", "http.handlers.push", "http.handlers.tracing", "http.handlers.authentication",
	"http.handlers.meter", "http.handlers.tallygate", "http.handlers.intercept", "http.handlers.templates", "http.handlers.copy_response_headers"}

// mayAnswer reports whether a handler may answer a request. Those of other packages may.
func (s *slips) mayAnswer(handler caddyhttp.MiddlewareHandler) bool {
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		return slices.ContainsFunc(h.Routes, s.answersIn)
	case *caddyhttp.Invoke:
		named, ok := s.server.NamedRoutes[h.Name]
		return ok && s.answersIn(*named)
	default:
		return !slices.Contains(silent, idOf(handler))
	}
}

// ends reports whether a handler passes no request on.
func (s *slips) ends(handler caddyhttp.MiddlewareHandler) bool {
	if h, ok := handler.(*caddyhttp.Subroute); ok {
		return slices.ContainsFunc(h.Routes, func(r caddyhttp.Route) bool {
			return len(r.MatcherSets) == 0 && slices.ContainsFunc(r.Handlers, s.ends)
		})
	}
	switch idOf(handler) {
	case "http.handlers.reverse_proxy", "http.handlers.static_response", "http.handlers.error":
		return true
	case "http.handlers.file_server":
		config, err := json.Marshal(handler)
		return err == nil && !bytes.Contains(config, []byte(`"pass_thru":true`))
	default:
		return false
	}
}

func idOf(handler caddyhttp.MiddlewareHandler) caddy.ModuleID {
	module, ok := handler.(caddy.Module)
	if !ok {
		return ""
	}
	return module.CaddyModule().ID
}
