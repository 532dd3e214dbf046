package caddymodule

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
)

// nameRoutes tells each meter which paths it stands before, as the site's matchers have them: that is its route's name in
// charges and in the list of tariffs.
//
// A proxy below a meter that has a tariff must not rewrite the request by itself: what is free is judged by the method and path, and there nobody
// sees what they become.
func (a *App) nameRoutes() error {
	loaded, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil // nothing is served
	}
	for name, server := range loaded.(*caddyhttp.App).Servers {
		if nameMeters(server.Routes, "") == 0 {
			continue
		}
		if err := checkProxies(server.Routes, nil); err != nil {
			return err
		}
		for _, log := range accessLogs(server.Logs) {
			if a.showsKeys(log) {
				a.logger.Warn("an access log shows keys: Caddy hides Authorization in it, but no other place that keys come in; filter x-api-key, x-goog-api-key, api-key, Tallygate-Key and ?key= in the log's encoder, see docs/security.md",
					zap.String("server", name), zap.String("logger", log))
			}
		}
	}
	return nil
}

// checkProxies finds proxies that rewrite requests after a meter with a tariff has judged them. judge is that meter; nil: there is none yet.
func checkProxies(routes caddyhttp.RouteList, judge *Meter) error {
	for _, route := range routes {
		judge := judge
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *Meter:
				if judge = nil; h.route.Tariff != nil {
					judge = h
				}
			case *caddyhttp.Subroute:
				if err := checkProxies(h.Routes, judge); err != nil {
					return err
				}
			case *reverseproxy.Handler:
				if judge != nil && h.Rewrite != nil {
					return fmt.Errorf("meter of %s on %q: reverse_proxy rewrites the method or the path after the meter has judged what the call costs: put a rewrite before the meter instead (the directives rewrite, uri and method stand before it by themselves)", judge.Payee, judge.route.Name)
				}
			}
		}
	}
	return nil
}

// nameMeters names the meters of the routes, and returns how many there are.
func nameMeters(routes caddyhttp.RouteList, within string) (meters int) {
	for _, route := range routes {
		name := within
		if paths := matchedPaths(route); paths != "" {
			name = paths
		}
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *Meter:
				h.route.Name = name
				meters++
			case *caddyhttp.Subroute:
				meters += nameMeters(h.Routes, name)
			}
		}
	}
	return meters
}

// matchedPaths are the paths that a route's matchers name, empty where they name none.
func matchedPaths(route caddyhttp.Route) string {
	var paths []string
	for _, set := range route.MatcherSets {
		for _, matcher := range set {
			switch m := matcher.(type) {
			case *caddyhttp.MatchPath:
				paths = append(paths, *m...)
			case caddyhttp.MatchPath:
				paths = append(paths, m...)
			}
		}
	}
	return strings.Join(paths, " ")
}

// tariffs tells what each metered route costs.
func (a *App) tariffs() []api.Tariff {
	all := make([]api.Tariff, 0, len(a.meters))
	for _, m := range a.meters {
		all = append(all, m.tariff())
	}
	return all
}

// tariff tells what the meter's route costs.
func (m *Meter) tariff() api.Tariff {
	t := api.Tariff{Route: m.route.Name, Payee: m.Payee, Charge: fromWallet, Pattern: "per_token"}
	if m.Charge != nil {
		t.Charge = m.Charge.From
	}
	if m.Cost != nil {
		t.Cost = m.Cost.String()
	}
	for _, price := range m.Prices {
		t.Prices = append(t.Prices, price.String())
	}
	if m.Subscription != nil {
		t.Pattern, t.Charge, t.Prices = "subscription", "subscription", []string{m.Subscription.String()}
	} else if m.route.Rates != nil {
		t.Pattern = gateway.Pattern(m.route.Rates)
	}
	if m.route.Tariff != nil {
		for _, model := range m.route.Tariff.Models {
			for _, price := range model.Prices {
				t.Prices = append(t.Prices, "model "+model.Glob+": "+price.String())
			}
		}
		for _, tool := range m.route.Tariff.Tools {
			t.Prices = append(t.Prices, "tool "+tool.Glob+": "+tool.Amount.String()+" per call")
		}
	}
	return t
}
