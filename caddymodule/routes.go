package caddymodule

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
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

// priceReported prices work that a payee reports, by the meter of the named route or plan.
func (a *App) priceReported(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
	field, name, nameOf := "route", o.Route, func(m *Meter) string { return m.route.Name }
	if o.Plan != "" {
		field, name, nameOf = "plan", o.Plan, (*Meter).planName
	}
	var found *Meter
	var others []string
	for _, m := range a.meters {
		switch has := nameOf(m); {
		case m.Payee != o.Payee || has == "":
		case has != name:
			others = append(others, strconv.Quote(has))
		case found != nil && field == "route": // meters with the same plan have the same terms
			return escrow.CallOrder{}, escrow.Settlement{}, invalidField(field, "route %q: %q has two routes of that name, told apart by more than their paths: make one of them a named route", name, o.Payee)
		default:
			found = m
		}
	}
	if found != nil {
		return a.gateway.Reported(&found.route, o)
	}
	detail := ""
	if len(others) > 0 {
		slices.Sort(others)
		detail = "; it has " + strings.Join(slices.Compact(others), ", ")
	}
	return escrow.CallOrder{}, escrow.Settlement{}, invalidField(field, "%s %q: %q has none of that name%s", field, name, o.Payee, detail)
}

// planName returns the name of the plan that pays for calls to the meter; empty if none does.
func (m *Meter) planName() string {
	if m.plan == nil {
		return ""
	}
	return m.plan.Plan.Name
}

// invalidField refuses a request for one of its fields.
func invalidField(field, format string, args ...any) error {
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"field": field}}
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
	t := api.Tariff{Route: m.route.Name, Host: m.host, Payee: m.Payee, Charge: fromWallet, Prices: []api.TariffPrice{}}
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
