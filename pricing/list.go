package pricing

import (
	"iter"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Listed is one price of a price list, as data: what units of a class cost. Two of one class add up, unless they differ in Above, Service
// or Tool. A class that is not listed costs what its fallback does (see the package comment). The class "minimum" is what a call costs at
// the least, whatever the others come to.
type Listed struct {
	Class  meter.Class     `json:"class"`
	Amount decimal.Decimal `json:"amount"`
	// Per is how many units Amount buys.
	Per int64 `json:"per"`
	// Unit is a unit's word (see [Price]). It may be a multiple of the class's own unit, such as minute for second.
	Unit string `json:"unit"`
	// Above is set on prices of prompts with more tokens.
	Above int64 `json:"above,omitempty"`
	// Service is set on prices of a service tier.
	Service string `json:"service,omitempty"`
	// Tool is set on prices of calls of the tools that this glob matches.
	Tool string `json:"tool,omitempty"`
	// After is set on the price of a tier: of what is used after so many units of a period.
	After int64 `json:"after,omitempty"`
	// Each is set on prices with tiers: the period.
	Each string `json:"each,omitempty"`
	// Volume is set on prices with tiers, where all units of a call have the price of the tier that the use reaches.
	Volume bool `json:"volume,omitempty"`
}

// List returns prices as they are listed, one for each class that they price. counts are the unit names that `count` gives.
func List(prices []Price, counts ...string) []Listed {
	return listed(nil, prices, Listed{}, counts)
}

// listed appends prices to a list. like has what they have in common.
func listed(list []Listed, prices []Price, like Listed, counts []string) []Listed {
	for _, p := range prices {
		u, err := findUnit(p.Unit, counts)
		if err != nil {
			continue // compiled prices have units
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

// List returns the prices of a model as they are listed.
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

// OfCatalog reports whether the model is one of a catalog, whose Glob is a name.
func (m Model) OfCatalog() bool { return m.fromFile }

// Part is what a tariff says outside of its cases, or what one of its cases says.
type Part struct {
	// When are the conditions of its cases, which hold together, in the words of the Caddyfile: "for acme-*", "at 16:30-00:30 UTC".
	When []string

	tariff *Tariff // as calls are charged by it
	own    *Tariff // what the part itself says
}

// Parts returns the parts of the tariff that a caller may know of: all but cases that are for other agents. With all, each. The cases come
// first, in the order in which they are tried. The tariff must be compiled.
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
		if !all { // the other customers of the case are nobody's business
			shown.Agents = slices.DeleteFunc(slices.Clone(c.Agents), func(glob string) bool { return !matchFolded(glob, agent) })
		}
		in := Part{When: append(slices.Clone(is.When), shown.condition()), tariff: c.whole, own: &c.Tariff}
		list = append(list, c.whole.parts(in, agent, all)...)
	}
	return append(list, is)
}

// Names yields what the part has prices for: the globs of its models in their order, then the names of its catalog in alphabetical order,
// which begin with "catalog:". [Part.Model] returns the prices of each.
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

// catalogMark begins the names that are a catalog's, since a glob may be one of those too.
const catalogMark = "catalog:"

// Model returns the prices of one of [Part.Names], and its rates. The Glob of a catalog's model is its name.
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

// Find returns the prices by which calls of a model are charged, and their rates: those of [Tariff.For].
func (t *Tariff) Find(model string) (Model, *Rates, bool) {
	folded := strings.ToLower(model)
	for i, m := range t.compiled.models {
		if matchFolded(m.glob, folded) {
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

// Dearest returns the rates of the model that costs the most, by as much input as output. It reports false where there is none.
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

// Tools returns the prices of the part's tools as they are listed, and the rates of calls without a model. ok is false where it has none.
func (p Part) Tools() (list []Listed, r *Rates, ok bool) {
	for _, tool := range p.own.Tools {
		price := tool.price()
		list = append(list, Listed{Class: meter.ToolCall, Amount: price.Amount, Per: price.per(), Unit: string(meter.Calls), Tool: tool.Glob})
	}
	return list, p.tariff.compiled.bare, len(list) > 0
}
