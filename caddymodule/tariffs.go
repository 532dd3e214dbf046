package caddymodule

import (
	"iter"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

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
