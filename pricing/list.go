package pricing

import (
	"iter"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Listed is one price of a price list, as data. Two prices of one class are added up, unless they differ in Above, Service or Tool. A class
// that is not listed has the price of its fallback (see the package comment). The class "minimum" is the least that a call costs.
type Listed struct {
	Class  meter.Class     `json:"class"`
	Amount decimal.Decimal `json:"amount"`
	// Per is how many units Amount buys.
	Per int64 `json:"per"`
	// Unit is the name of the unit (see [Price]). It may be a multiple of the class's own unit, such as minute for second.
	Unit string `json:"unit"`
	// Above is set if the price is only for prompts with more tokens.
	Above int64 `json:"above,omitempty"`
	// Service is set if the price is only for a service tier.
	Service string `json:"service,omitempty"`
	// Tool is set if the price is for calls of the tools that this glob matches.
	Tool string `json:"tool,omitempty"`
	// After is set for the price of a further tier: of what is used after so many units in a period.
	After int64 `json:"after,omitempty"`
	// Each is set for prices with tiers. It is the period.
	Each string `json:"each,omitempty"`
	// Volume is set for prices with tiers if all units of a call have the price of the tier that the use reaches.
	Volume bool `json:"volume,omitempty"`
}

// List returns prices as data, one for each class that has a price. counts are the unit names of `count` lines.
func List(prices []Price, counts ...string) []Listed {
	return listed(nil, prices, Listed{}, counts)
}

// listed appends prices to a list. like contains the fields that all of them have.
func listed(list []Listed, prices []Price, like Listed, counts []string) []Listed {
	for _, p := range prices {
		u, err := findUnit(p.Unit, counts)
		if err != nil {
			continue // can't happen: compiled prices have units
		}
		for _, c := range u.priced {
			is := like
			is.Class, is.Amount, is.Per, is.Unit = c, p.Amount, p.per(), u.word
			if p.Tiers == nil {
				list = append(list, is)
				continue
			}
			is.Each, is.Volume = newLadder("", c, p).counter.Each, p.Tiers.Volume
			list = append(list, is)
			for _, t := range p.Tiers.After {
				is.Amount, is.After = t.Amount, t.N
				list = append(list, is)
			}
		}
	}
	return list
}

// List returns the prices of a model as data.
func (m Model) List(counts ...string) []Listed {
	list := listed(nil, m.Prices, Listed{}, counts)
	if m.Minimum.IsPositive() {
		list = append(list, Listed{Class: raise, Amount: m.Minimum, Per: 1, Unit: string(meter.Calls)})
	}
	for _, a := range m.Above {
		list = listed(list, a.Prices, Listed{Above: a.Tokens}, counts)
	}
	for _, s := range m.Services {
		list = listed(list, s.Prices, Listed{Service: s.Name}, counts)
		for _, a := range s.Above {
			list = listed(list, a.Prices, Listed{Service: s.Name, Above: a.Tokens}, counts)
		}
	}
	return list
}

// OfCatalog reports whether the model comes from a catalog. Its Glob is then a name.
func (m Model) OfCatalog() bool { return m.fromFile }

// Part is a part of a tariff: the lines outside of its cases, or one of its cases.
type Part struct {
	// When are the conditions of the part, all of which must apply, in the words of the Caddyfile: "for acme-*", "at 16:30-00:30 UTC".
	When []string

	tariff *Tariff // the tariff by which calls are charged
	own    *Tariff // the lines of the part itself
}

// Parts returns the parts of the tariff that a caller may see: all except cases that are for other agents. With all, it returns every part.
// Cases come first, in the order in which they are tried. The tariff must be compiled.
func (t *Tariff) Parts(agent string, all bool) []Part {
	return t.parts(Part{tariff: t, own: t}, agent, all)
}

func (t *Tariff) parts(is Part, agent string, all bool) []Part {
	var list []Part
	for i := range t.Cases {
		c := &t.Cases[i]
		if !all && !c.isFor(agent) {
			continue
		}
		shown := *c
		if !all { // a case must not show its other customers
			shown.Agents = slices.DeleteFunc(slices.Clone(c.Agents), func(glob string) bool { return !MatchExact(glob, agent) })
		}
		in := Part{When: append(slices.Clone(is.When), shown.condition()), tariff: c.whole, own: &c.Tariff}
		list = append(list, c.whole.parts(in, agent, all)...)
	}
	return append(list, is)
}

// Names yields the names of everything in the part that has prices: the globs of its models in their order, then the names of its catalog
// in alphabetical order, which begin with "catalog:". [Part.Model] returns the prices for each name.
func (p Part) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, m := range p.own.Models {
			if !yield(m.Glob) {
				return
			}
		}
		if p.own.Catalog == nil {
			return
		}
		for _, name := range p.tariff.compiled.catalog.names {
			if !yield(catalogMark + name) {
				return
			}
		}
	}
}

// catalogMark is the beginning of names that come from a catalog, because the same text may also be a glob.
const catalogMark = "catalog:"

// Model returns the prices for one of [Part.Names], and its rates. The Glob of a catalog's model is its name.
func (p Part) Model(name string) (Model, *Rates, bool) {
	t := p.tariff
	if fromFile, is := strings.CutPrefix(name, catalogMark); is {
		return t.compiled.fromCatalog(fromFile, t.Catalog.Markup, t.MaxOutput)
	}
	for i, m := range t.Models {
		if m.Glob == name {
			return m, t.compiled.models[i].rates, true
		}
	}
	return Model{}, nil, false
}

// Find returns the prices by which calls of a model are charged, and their rates, as [Tariff.For] does.
func (t *Tariff) Find(model string) (Model, *Rates, bool) {
	folded := strings.ToLower(model)
	for i, m := range t.compiled.models {
		if MatchExact(m.glob, folded) {
			return t.Models[i], m.rates, true
		}
	}
	if t.compiled.catalog != nil && model != "" {
		if name, ok := t.compiled.catalog.find(t.Catalog.Provider, model); ok {
			return t.compiled.fromCatalog(name, t.Catalog.Markup, t.MaxOutput)
		}
	}
	return Model{}, nil, false
}

// Dearest returns the rates of the tariff's most expensive model, for as much input as output. It returns false if there is no model.
func (t *Tariff) Dearest() (*Rates, bool) {
	t.compiled.dearest.Do(func() {
		most := int64(-1)
		look := func(r *Rates, ok bool) {
			if !ok {
				return
			}
			if n := r.MostFor(1000, 1000); n > most {
				t.compiled.dearestRates, most = r, n
			}
		}
		for _, m := range t.compiled.models {
			look(m.rates, true)
		}
		if t.compiled.catalog != nil {
			for _, name := range t.compiled.catalog.names {
				_, r, ok := t.compiled.fromCatalog(name, t.Catalog.Markup, t.MaxOutput)
				look(r, ok)
			}
		}
	})
	return t.compiled.dearestRates, t.compiled.dearestRates != nil
}

// Tools returns the prices of the part's tools as data, and the rates of calls without a model. ok is false if there are none.
func (p Part) Tools() (list []Listed, r *Rates, ok bool) {
	for _, tool := range p.own.Tools {
		price := tool.price()
		list = append(list, Listed{Class: meter.ToolCall, Amount: price.Amount, Per: price.per(), Unit: string(meter.Calls), Tool: tool.Glob})
	}
	return list, p.tariff.compiled.bare, len(list) > 0
}
