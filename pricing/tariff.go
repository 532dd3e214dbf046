package pricing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Tariff says what models and tools cost. [Tariff.Compile] is called once, before its other methods. In a Caddyfile:
//
//	tariff gpt {
//		model gpt-4o-mini* {
//			input 0.15 per 1M tokens
//			output 0.60 per 1M tokens
//			above 200k tokens {
//				input 0.30 per 1M tokens
//			}
//			service flex {
//				input 0.075 per 1M tokens
//			}
//		}
//		tool search* 0.001 per call
//		catalog prices.json markup 20%
//		max_output 4096
//		at 16:30-00:30 UTC {
//			model gpt-4o-mini* {
//				token 0.10 per 1M tokens
//			}
//		}
//	}
type Tariff struct {
	// Models are tried in order. The first whose glob matches a model's name sets its prices.
	Models []Model `json:"models,omitempty"`
	// Tools are the prices of MCP tool calls, tried in order. The first whose glob matches the tool's name sets the price of the call. If none
	// matches, the call has the price of the model's class tool_call. Without such a price, [Rates.Due] counts it as 0: so end the list with
	// `tool * A per call` to price all other tools.
	Tools []ToolPrice `json:"tools,omitempty"`
	// Catalog has the prices of models that no entry of Models matches.
	Catalog *CatalogUse `json:"catalog,omitempty"`
	// MaxOutput is the highest number of output tokens that is assumed for an answer whose request sets no limit. 0 means that of the catalog,
	// if it has one.
	MaxOutput int64 `json:"max_output,omitempty"`
	// Cases are prices for some callers or hours, tried in order. The first that applies to a call is the tariff of that call.
	Cases []Case `json:"cases,omitempty"`

	compiled *compiledTariff
}

// Model has the prices of the models that a glob matches. In Above and Services, a class without a price has the price of the block around
// it. A class can have only one price in a block; a second one is refused.
type Model struct {
	// Glob matches the model's whole name. * stands for any characters, including /, and ? for one character. Case does not matter.
	Glob string `json:"glob"`
	// Prices are at least one price. Their units are classes (input, cached, ...), or token, minute, MB and the like.
	Prices []Price `json:"prices"`
	// Above has the prices of calls with long prompts. They apply to the whole call.
	Above []Above `json:"above,omitempty"`
	// Services has the prices for service tiers that the response states.
	Services []Service `json:"services,omitempty"`
	// Minimum is the least that a call costs. If one answer contains several calls, as the results of a batch do, all of them together cost at
	// least that amount for each.
	Minimum decimal.Decimal `json:"minimum,omitzero"`
	// MaxOutput, unless 0, replaces the tariff's for these models.
	MaxOutput int64 `json:"max_output,omitempty"`

	fromFile bool
}

// Above has the prices of calls whose prompt, including cached parts, has more than Tokens tokens. If several apply, a class has its price
// from the one with the most tokens that has a price for it.
type Above struct {
	Tokens int64   `json:"tokens"`
	Prices []Price `json:"prices"`
}

// Service has the prices of calls in a service tier, by the name that the response states: "batch", "flex", "priority"; "fast+us" for
// several at once (see [meter.JoinTiers]). A request for a tier without prices is refused. If only the response states such a tier, the
// model's most expensive prices are charged, and the charge is suspect.
type Service struct {
	Name   string  `json:"name"`
	Prices []Price `json:"prices"`
	Above  []Above `json:"above,omitempty"`
}

// ToolPrice is the price of calls of the MCP tools that a glob matches: `tool GLOB A per [N] call`. Only successful calls are charged.
type ToolPrice struct {
	Glob   string          `json:"glob"`
	Amount decimal.Decimal `json:"amount"`
	// Per is the number of calls that Amount buys; missing means 1.
	Per int64 `json:"per,omitempty"`
}

// CatalogUse names a price file in LiteLLM's format: `catalog FILE [provider NAME] [markup P%]`.
type CatalogUse struct {
	// File is the path of a model_prices_and_context_window.json (see [LoadCatalog]).
	File string `json:"file"`
	// Provider is a prefix of the catalog's names, which is tried first: with "mistral", the model mistral-large-latest is found as
	// mistral/mistral-large-latest.
	Provider string `json:"provider,omitempty"`
	// Markup is added to each price of the catalog. The resulting price of a single call, search or page is rounded up to nine digits.
	Markup Percent `json:"markup,omitzero"`
}

type compiledTariff struct {
	models   []compiledModel
	bare     *Rates // for calls without a model: the prices of tools
	tools    []ToolPrice
	catalog  *Catalog
	fromFile sync.Map // name in the catalog -> *catalogEntry; it has no more entries than the catalog
	warnings []string

	dearest      sync.Once
	dearestRates *Rates // see [Tariff.Dearest]
}

type compiledModel struct {
	glob  string // lower case
	rates *Rates
}

// ParseToolPrice reads the words GLOB A per [N] call.
func ParseToolPrice(args []string) (ToolPrice, error) {
	if len(args) < 1 {
		return ToolPrice{}, errors.New("expected GLOB A per [N] call, as in tool search* 0.001 per call")
	}
	p, word, err := parsePer(args[1:])
	if err != nil {
		return ToolPrice{}, fmt.Errorf("tool %s: %w", args[0], err)
	}
	switch singular(word) {
	case "call", "tool_call":
		tool := ToolPrice{Glob: args[0], Amount: p.Amount, Per: p.Per}
		if _, err := tool.price().check(nil); err != nil {
			return ToolPrice{}, fmt.Errorf("tool %s: %w", tool.Glob, err)
		}
		return tool, nil
	default:
		return ToolPrice{}, fmt.Errorf("tool %s: unit %q: tools are priced per [N] call", args[0], word)
	}
}

func (p ToolPrice) price() Price {
	return Price{Amount: p.Amount, Per: p.Per, Unit: string(meter.ToolCall)}
}

// UnmarshalJSON reads a tool's price. It refuses unknown names, and a price without an amount, since a forgotten amount must not make the
// tool free.
func (p *ToolPrice) UnmarshalJSON(data []byte) error {
	var in struct {
		Glob   string           `json:"glob"`
		Amount *decimal.Decimal `json:"amount"`
		Per    int64            `json:"per"`
	}
	if err := strictJSON(data, &in); err != nil {
		return fmt.Errorf("tool: %w", err)
	}
	if in.Amount == nil {
		return fmt.Errorf(`tool %q without "amount"`, in.Glob)
	}
	*p = ToolPrice{Glob: in.Glob, Amount: *in.Amount, Per: in.Per}
	return nil
}

// ParseCatalogUse reads the words FILE [provider NAME] [markup P%].
func ParseCatalogUse(args []string) (CatalogUse, error) {
	if len(args) == 0 || len(args)%2 == 0 {
		return CatalogUse{}, errors.New("expected FILE [provider NAME] [markup P%]")
	}
	use := CatalogUse{File: args[0]}
	for i := 1; i < len(args); i += 2 {
		switch args[i] {
		case "provider":
			use.Provider = args[i+1]
		case "markup":
			var err error
			if use.Markup, err = ParsePercent(args[i+1]); err != nil {
				return CatalogUse{}, err
			}
		default:
			return CatalogUse{}, fmt.Errorf("unknown option %q of catalog: use provider NAME or markup P%%", args[i])
		}
	}
	return use, nil
}

// ParseAbove reads the words N tokens, which follow `above` in `above 200k tokens`.
func ParseAbove(args []string) (tokens int64, err error) {
	m, err := ParseMeasure(args)
	if err == nil && m.Unit != "token" && m.Unit != "input_token" {
		err = fmt.Errorf("unit %q: prices are tiered by tokens of the prompt, as in above 200k tokens", args[1])
	}
	if err != nil {
		return 0, fmt.Errorf("above: %w", err)
	}
	return m.N, nil
}

// Compile checks the tariff and prepares it for [Tariff.For]. catalog is the file that t.Catalog names, or nil if it names none. counts are
// the unit names of `count` lines.
func (t *Tariff) Compile(catalog *Catalog, counts ...string) error {
	return t.compile(catalog, len(t.Models), counts)
}

// compile is Compile for a tariff of which only the first models are its own; the others are those of the tariff around it.
func (t *Tariff) compile(catalog *Catalog, own int, counts []string) error {
	c := &compiledTariff{catalog: catalog}
	switch {
	case (t.Catalog == nil) != (catalog == nil):
		return errors.New("tariff: a catalog must be loaded exactly when the tariff names one")
	case t.isEmpty():
		return errors.New("tariff without prices: add model GLOB { ... }, tool GLOB A per call, or catalog FILE")
	case t.MaxOutput < 0:
		return fmt.Errorf("max_output %d: use 0 or more", t.MaxOutput)
	}
	for _, p := range t.Tools {
		if _, err := p.price().check(nil); err != nil {
			return fmt.Errorf("tool %s: %w", p.Glob, err)
		}
		if p.Glob == "" {
			return errors.New("tool without a glob: use * for any tool")
		}
	}
	c.tools = slices.Clone(t.Tools)
	for i, m := range t.Models {
		rates, err := m.compile(c.tools, t.MaxOutput, counts)
		if err != nil {
			return fmt.Errorf("model %s: %w", m.Glob, err)
		}
		if i < own {
			c.warnings = append(c.warnings, m.warnings(rates, t.Models[:i])...)
		}
		c.models = append(c.models, compiledModel{strings.ToLower(m.Glob), rates})
	}
	if len(t.Tools) > 0 {
		c.bare = compileRates(layers{}, c.tools, t.MaxOutput)
	}
	for i := range t.Cases {
		if err := t.Cases[i].compile(t, catalog, counts); err != nil {
			return err
		}
		c.warnings = append(c.warnings, t.Cases[i].whole.compiled.warnings...)
	}
	t.compiled = c
	return nil
}

func (m Model) compile(tools []ToolPrice, maxOutput int64, counts []string) (*Rates, error) {
	switch {
	case m.Glob == "":
		return nil, errors.New("no glob: use * for any model")
	case len(m.Prices) == 0:
		return nil, errors.New("no price: add a line such as input 0.15 per 1M tokens")
	case m.MaxOutput < 0:
		return nil, fmt.Errorf("max_output %d: use 0 or more", m.MaxOutput)
	}
	l := layers{name: strings.ToLower(m.Glob)}
	var err error
	if l.minimum, err = compileMinimum(m.Minimum); err != nil {
		return nil, err
	}
	if l.base, err = byClass(m.Prices, counts, false); err != nil {
		return nil, err
	}
	if l.above, err = aboveLayers(m.Above, counts); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, s := range m.Services {
		name := strings.ToLower(s.Name)
		if name == "" || names[name] {
			return nil, fmt.Errorf("service %q: give each service one name, as in service flex { ... }", s.Name)
		}
		names[name] = true
		layer := serviceLayer{name: name}
		if layer.prices, err = byClass(s.Prices, counts, false); err == nil {
			layer.above, err = aboveLayers(s.Above, counts)
		}
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		l.services = append(l.services, layer)
	}
	if m.MaxOutput > 0 {
		maxOutput = m.MaxOutput
	}
	return compileRates(l, tools, maxOutput), nil
}

func aboveLayers(list []Above, counts []string) ([]aboveLayer, error) {
	var layers []aboveLayer
	for _, a := range list {
		if a.Tokens < 1 {
			return nil, fmt.Errorf("above %d tokens: use 1 or more", a.Tokens)
		}
		prices, err := byClass(a.Prices, counts, false)
		if err != nil {
			return nil, fmt.Errorf("above %s tokens: %w", formatNumber(a.Tokens), err)
		}
		if slices.ContainsFunc(layers, func(l aboveLayer) bool { return l.tokens == a.Tokens }) {
			return nil, fmt.Errorf("two blocks above %s tokens: keep one", formatNumber(a.Tokens))
		}
		layers = append(layers, aboveLayer{a.Tokens, prices})
	}
	slices.SortFunc(layers, func(a, b aboveLayer) int { return cmp.Compare(a.tokens, b.tokens) })
	return layers, nil
}

// warnings returns what is allowed in a model's prices but is probably a mistake. before are the models that are tried earlier.
func (m Model) warnings(r *Rates, before []Model) []string {
	list := Warnings(m.Prices)
	plain := r.services[0].tables[0]
	switch in, out := plain.has(meter.Input), plain.has(meter.Output); {
	case in && !out:
		list = append(list, fmt.Sprintf("model %s has no price for output: output tokens cost nothing", m.Glob))
	case out && !in:
		list = append(list, fmt.Sprintf("model %s has no price for input: input tokens cost nothing", m.Glob))
	}
	for _, earlier := range before {
		// If an earlier glob matches a later glob as if that were a name, it matches everything that the later one matches. That is not true for
		// an earlier glob with ?, which matches a * as one character.
		if !strings.Contains(earlier.Glob, "?") && match(earlier.Glob, m.Glob) {
			list = append(list, fmt.Sprintf("model %s is never reached: model %s above it matches first", m.Glob, earlier.Glob))
			break
		}
	}
	return list
}

// Warnings returns what is allowed in a compiled tariff but is probably a mistake. Each warning is one sentence.
func (t *Tariff) Warnings() []string { return slices.Clone(t.compiled.warnings) }

// For returns the rates of a model. It returns false if the model has no price. Such a call must be refused (no_price), so that nothing is
// free by accident. The name may be empty: only a glob such as * matches it.
func (t *Tariff) For(model string) (*Rates, bool) {
	_, rates, ok := t.Find(model)
	return rates, ok
}

// ForTools returns the rates of calls that have no model, and call tools. It returns false if the tariff has no prices of tools.
func (t *Tariff) ForTools() (*Rates, bool) {
	if rates, ok := t.For(""); ok {
		return rates, true
	}
	return t.compiled.bare, t.compiled.bare != nil
}

// catalogEntry is a model of the catalog, with the markup.
type catalogEntry struct {
	model Model
	rates *Rates
}

func (c *compiledTariff) fromCatalog(name string, markup Percent, maxOutput int64) (Model, *Rates, bool) {
	if e, ok := c.fromFile.Load(name); ok {
		return e.(*catalogEntry).model, e.(*catalogEntry).rates, true
	}
	plain, ok := c.catalog.models[name]
	if !ok {
		return Model{}, nil, false
	}
	m := plain.withMarkup(markup)
	m.fromFile = true
	if maxOutput > 0 {
		m.MaxOutput = maxOutput
	}
	r, err := m.compile(c.tools, 0, nil)
	if err != nil { // the catalog's own prices compile, but a markup can make one too large
		return Model{}, nil, false
	}
	kept, _ := c.fromFile.LoadOrStore(name, &catalogEntry{m, r})
	return kept.(*catalogEntry).model, kept.(*catalogEntry).rates, true
}

// ToolsOnly reports whether the tariff has only prices of tools, so that the route is an MCP server's.
func (t *Tariff) ToolsOnly() bool {
	return t != nil && !t.isEmpty() && len(t.Models) == 0 && t.Catalog == nil &&
		!slices.ContainsFunc(t.Cases, func(c Case) bool { return !c.ToolsOnly() })
}
