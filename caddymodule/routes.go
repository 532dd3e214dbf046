package caddymodule

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// nameRoutes names the route of each meter. The name consists of the paths in the site's matchers, and appears in charges and in the list
// of tariffs.
//
// nameRoutes refuses a reverse_proxy with a rewrite of its own inside a meter with a tariff. The meter decides by the method and the path
// whether a call is free, and would not see the rewritten ones.
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

// checkProxies finds proxies that rewrite requests after a meter with a tariff has checked them. judge is that meter, or nil if there is
// none outside of the routes.
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
					return fmt.Errorf("meter of %s on %q: reverse_proxy rewrites the method or the path after the meter has decided what the call costs: rewrite before the meter instead, with the directives rewrite, uri or method (Caddy runs these before meter)", judge.Payee, judge.route.Name)
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

// matchedPaths returns the paths in a route's matchers, or "" if there are none.
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

// tariffs yields what each metered route costs. A route with a tariff has an entry for each of its models. The function of an entry is
// called only if the entry is needed.
func (a *App) tariffs(q api.TariffQuery) iter.Seq2[string, func() api.Tariff] {
	return func(yield func(string, func() api.Tariff) bool) {
		for i, m := range a.meters {
			for id, make := range m.tariffs(q) {
				if !yield(strconv.Itoa(i)+"/"+id, make) {
					return
				}
			}
		}
	}
}

// tariffs yields what the meter's route costs.
func (m *Meter) tariffs(q api.TariffQuery) iter.Seq2[string, func() api.Tariff] {
	return func(yield func(string, func() api.Tariff) bool) {
		switch {
		case m.route.Tariff == nil:
			yield("", m.flatTariff)
		case q.Model != "":
			under := m.route.Tariff.Under(q.By.Agent, m.app.book.Now())
			if model, rates, ok := under.Find(q.Model); ok {
				yield("", func() api.Tariff { return m.modelTariff(nil, model, rates) })
			}
		default:
			m.eachTariff(q.By, yield)
		}
	}
}

// eachTariff yields the entries of the route's tariff, without those that are only for other agents.
func (m *Meter) eachTariff(by escrow.Actor, yield func(string, func() api.Tariff) bool) {
	for i, part := range m.route.Tariff.Parts(by.Agent, by.Operator) {
		place := strconv.Itoa(i) + "/"
		for name := range part.Names() {
			made := func() api.Tariff {
				model, rates, _ := part.Model(name)
				return m.modelTariff(part.When, model, rates)
			}
			if !yield(place+name, made) {
				return
			}
		}
		if tools, rates, ok := part.Tools(); ok {
			made := func() api.Tariff {
				t := m.emptyTariff()
				t.When, t.Pattern, t.Prices = part.When, gateway.Pattern(rates), listed(tools)
				return t
			}
			if !yield(place+"tools", made) {
				return
			}
		}
	}
}

// modelTariff returns what calls of a model cost.
func (m *Meter) modelTariff(when []string, model pricing.Model, rates *pricing.Rates) api.Tariff {
	t := m.emptyTariff()
	t.When, t.Model, t.Catalog, t.MaxOutput = when, model.Glob, model.OfCatalog(), rates.MaxOutput()
	t.Pattern, t.Prices = gateway.Pattern(rates), listed(model.List(m.counted()...))
	return t
}

// flatTariff returns what the calls of a route cost if its prices do not depend on a model.
func (m *Meter) flatTariff() api.Tariff {
	t := m.emptyTariff()
	if m.Subscription != nil {
		t.Pattern, t.Charge, t.Plan = "subscription", "subscription", api.PlanOf(m.plan.Plan)
		if over := m.Subscription.Overage; over != nil {
			t.Prices = listed(pricing.List([]pricing.Price{over.Price}, m.counted()...))
		}
		return t
	}
	t.Pattern, t.Prices = gateway.Pattern(m.route.Rates), listed(pricing.List(m.Prices, m.counted()...))
	return t
}

func (m *Meter) emptyTariff() api.Tariff {
	t := api.Tariff{Route: m.route.Name, Payee: m.Payee, Charge: fromWallet, Prices: []api.TariffPrice{}}
	if m.Charge != nil {
		t.Charge = m.Charge.From
	}
	if m.Cost != nil {
		t.Cost = m.Cost.String()
	}
	return t
}

// counted returns the names of the units in the meter's Counts.
func (m *Meter) counted() (names []string) {
	for _, count := range m.Counts {
		names = append(names, count.Name)
	}
	return names
}

func listed(prices []pricing.Listed) []api.TariffPrice {
	list := make([]api.TariffPrice, len(prices))
	for i, p := range prices {
		list[i] = api.TariffPrice{Class: string(p.Class), Amount: p.Amount, Per: p.Per, Unit: p.Unit, Above: p.Above, Service: p.Service, Tool: p.Tool, After: p.After, Each: p.Each, Volume: p.Volume}
	}
	return list
}
