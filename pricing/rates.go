package pricing

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter"
)

const maxNanos = math.MaxInt64

// Rates are the compiled prices of one model, or of a route's `price` lines. They are immutable and safe for concurrent use.
type Rates struct {
	// services are the plain prices, which have no name, and then those of each service tier.
	services  []service
	tools     []ToolPrice
	maxOutput int64
	minimum   int64         // of a call, in nanos
	ladders   int64         // how many prices with tiers a table has at most
	charged   []meter.Class // the classes that can cost anything, by name
	flat      bool          // the prices hold whatever the service tier
}

// service has one table for each size of prompt that has prices of its own, in ascending order. The first is for any size.
type service struct {
	name   string
	tables []*table
}

// NewRates compiles the `price` lines of a route. Prices add up: with `0.001 per call` and `0.15 per 1M tokens`, a request costs
// both. Two prices of one class add up too. A class with a price of its own is not charged at its fallback's as well: beside
// `1 per 1M tokens`, `0.5 per 1M cached` is the whole price of cached tokens. counts are the unit names that `count` gives.
func NewRates(prices []Price, counts ...string) (*Rates, error) {
	if len(prices) == 0 {
		return nil, fmt.Errorf("no price: add a line `price A per [N] UNIT`")
	}
	own, err := byClass(prices, counts, true)
	if err != nil {
		return nil, err
	}
	r := compileRates(layers{base: own}, nil, 0)
	r.flat = true
	return r, nil
}

// CountingRates are rates that cost nothing and count a unit all the same: for a quota beyond which nothing is for sale.
func CountingRates(m Measure, counts ...string) (*Rates, error) {
	r, err := NewRates([]Price{{Unit: m.Unit}}, counts...)
	if err != nil {
		return nil, err
	}
	u, err := findUnit(m.Unit, counts)
	if err != nil {
		return nil, err
	}
	r.charged = slices.Sorted(slices.Values(u.whole))
	return r, nil
}

// pricesOf are the prices of each class, which add up. Fallbacks are not resolved.
type pricesOf map[meter.Class][]Price

// byClass sorts prices by their classes. Unless addUp is set, a second price of a class is an error.
func byClass(prices []Price, counts []string, addUp bool) (pricesOf, error) {
	own := pricesOf{}
	for _, p := range prices {
		u, err := p.check(counts)
		if err != nil {
			return nil, fmt.Errorf("price %s: %w", describe(p), err)
		}
		p.Unit, p.Per = u.word, p.per()
		for _, c := range u.priced {
			if len(own[c]) > 0 && !addUp {
				return nil, fmt.Errorf("two prices for %s: keep one", c)
			}
			own[c] = append(own[c], p)
			if len(own[c]) > 1 && slices.ContainsFunc(own[c], func(p Price) bool { return p.Tiers != nil }) {
				return nil, fmt.Errorf("two prices for %s, one of them with tiers: keep one", c)
			}
		}
	}
	return own, nil
}

// describe writes a price for an error. It does not expand an amount that is too large.
func describe(p Price) string {
	if checkAmount(p.Amount) != nil {
		return "per " + p.Unit
	}
	return p.String()
}

// layers are the prices of a model, layer over layer. A class without a price in an upper layer has that of the layer below.
type layers struct {
	name     string // of what is counted for tiers
	minimum  int64  // of a call, in nanos
	base     pricesOf
	above    []aboveLayer
	services []serviceLayer
}

type aboveLayer struct {
	tokens int64
	prices pricesOf
}

type serviceLayer struct {
	name   string
	prices pricesOf
	above  []aboveLayer
}

func compileRates(l layers, tools []ToolPrice, maxOutput int64) *Rates {
	r := &Rates{tools: tools, maxOutput: maxOutput, minimum: l.minimum}
	add := func(name string, top pricesOf, topAbove []aboveLayer) {
		sizes := []int64{0}
		for _, a := range slices.Concat(l.above, topAbove) {
			sizes = append(sizes, a.tokens)
		}
		slices.Sort(sizes)
		s := service{name: name}
		for _, tokens := range slices.Compact(sizes) {
			own := pricesOf{}
			overlay(own, l.base, l.above, tokens)
			overlay(own, top, topAbove, tokens)
			s.tables = append(s.tables, newTable(l.name, tokens, own, tools))
		}
		r.services = append(r.services, s)
	}
	add("", nil, nil)
	for _, s := range l.services {
		add(s.name, s.prices, s.above)
	}
	r.charged = r.findCharged()
	for t := range r.reachable(0, "") {
		n := int64(0)
		for _, l := range t.ladders {
			if l != nil {
				n++
			}
		}
		r.ladders = max(r.ladders, n)
	}
	return r
}

// overlay puts prices over those in own, and then those of above that apply to prompts of more than the given tokens. above is in
// ascending order.
func overlay(own, prices pricesOf, above []aboveLayer, tokens int64) {
	for c, p := range prices {
		own[c] = p
	}
	for _, a := range above {
		if a.tokens > tokens {
			return
		}
		for c, p := range a.prices {
			own[c] = p
		}
	}
}

// Due returns what the usage costs, in nanos, rounded down once, but never to nothing. Negative quantities count as 0. With [ErrOverflow] the amount is
// math.MaxInt64.
func (r *Rates) Due(u meter.Usage) (nano int64, err error) {
	nano, err = r.byPrices(&u, toCharged)
	return r.atLeast(&u, nano, err)
}

// byPrices is what the usage costs without a minimum.
func (r *Rates) byPrices(u *meter.Usage, rounded rounding) (nano int64, err error) {
	t := r.table(*u)
	var buf [maxTerms]term
	return t.amount(t.terms(buf[:0], r, u, false), rounded)
}

// Most returns the most that the usage can cost, in nanos, rounded up. It takes the dearest prices that apply to a prompt of up to
// u.PromptTokens, or of any size if that is 0. It takes those of the service tier u.ServiceTier ("standard" stands for the plain
// prices), and the dearest of all tiers if that is empty. A tool call whose name is not known counts as one of the dearest tool.
// Tokens count in their class; where that is not known, see [Rates.MostFor]. With [ErrOverflow] the amount is math.MaxInt64.
func (r *Rates) Most(u meter.Usage) (nano int64, err error) {
	var buf [maxTerms]term
	for t := range r.reachable(u.PromptTokens, u.ServiceTier) {
		n, e := t.amount(t.terms(buf[:0], r, &u, true), up)
		if e != nil {
			return n, e
		}
		nano = max(nano, n)
	}
	return r.atLeast(&u, r.withSlack(nano), nil)
}

// MostFor returns the most that one call can cost, in nanos, rounded up: the call itself, its input at the dearest class of input,
// and its output at the dearest class of output, at the dearest prices that apply to such an input. It is clamped to
// math.MaxInt64. It has no part for what only the answer shows: seconds, events, searches, tool calls.
func (r *Rates) MostFor(inputTokens, outputTokens int64) int64 {
	in, out := meter.Whole(inputTokens), meter.Whole(outputTokens)
	return max(r.minimum, r.dearest(inputTokens, func(t *table, dst []term) []term {
		dst = t.term(dst, meter.Calls, micro)
		dst = t.dearestTerm(dst, inputClasses, in)
		return t.dearestTerm(dst, outputClasses, out)
	}))
}

// MostOf returns the most that a measure of units can cost, such as a batch, in nanos, rounded up and clamped to math.MaxInt64.
func (r *Rates) MostOf(m Measure) int64 {
	def := m.unit()
	n := min(m.N, maxNumber) // so that the product with a scale, at most 2^30, is more than Whole clamps it to
	q := meter.Whole(saturatingMul(n, def.scale))
	return r.dearest(0, func(t *table, dst []term) []term {
		if def.word == string(meter.ToolCall) {
			return t.dearestToolTerm(dst, r, q)
		}
		return t.dearestTerm(dst, def.whole, q)
	})
}

func saturatingMul(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

func (r *Rates) dearest(promptTokens int64, terms func(*table, []term) []term) int64 {
	var most int64
	for t := range r.reachable(promptTokens, "") {
		var buf [4]term
		n, _ := t.amount(terms(t, buf[:0]), up)
		most = max(most, n)
	}
	return r.withSlack(most)
}

// reachable yields the tables that can apply to a prompt of up to promptTokens, or of any size if that is 0. An empty tier means
// any tier.
func (r *Rates) reachable(promptTokens int64, tier string) iter.Seq[*table] {
	return func(yield func(*table) bool) {
		only, known := r.service(tier)
		if !known {
			tier = ""
		}
		for i := range r.services {
			if tier != "" && i != only {
				continue
			}
			for _, t := range r.services[i].tables {
				if promptTokens > 0 && t.above > 0 && t.above >= promptTokens {
					break
				}
				if !yield(t) {
					return
				}
			}
		}
	}
}

// service returns the index of the service tier. known is false where the tier has no prices.
func (r *Rates) service(tier string) (index int, known bool) {
	for i := 1; i < len(r.services); i++ {
		if strings.EqualFold(r.services[i].name, tier) {
			return i, true
		}
	}
	return 0, r.flat || meter.PlainTier(tier) || strings.EqualFold(tier, "batch") // no provider has its batches cost more
}

// PricesTier reports whether there are prices for the service tier. Prices of a route hold for every tier, and so do those of a
// model that has none by the token.
func (r *Rates) PricesTier(tier string) bool {
	_, known := r.service(tier)
	return known || !r.UsesTokens()
}

// table returns the table that the usage is charged by. A service tier without prices is charged at those by which it costs most.
func (r *Rates) table(u meter.Usage) *table {
	index, known := r.service(u.ServiceTier)
	best := r.services[index].sized(u.PromptTokens)
	if known {
		return best
	}
	var buf [maxTerms]term
	most, _ := best.amount(best.terms(buf[:0], r, &u, false), down)
	for i := 1; i < len(r.services); i++ {
		t := r.services[i].sized(u.PromptTokens)
		if n, _ := t.amount(t.terms(buf[:0], r, &u, false), down); n > most {
			best, most = t, n
		}
	}
	return best
}

// sized returns the table for a prompt of this size.
func (s service) sized(promptTokens int64) *table {
	for i := len(s.tables) - 1; i > 0; i-- {
		if promptTokens > s.tables[i].above {
			return s.tables[i]
		}
	}
	return s.tables[0]
}

// tool returns the index of the first tool price whose glob matches, or -1.
func (r *Rates) tool(name string) int {
	for i := range r.tools {
		if match(r.tools[i].Glob, name) {
			return i
		}
	}
	return -1
}

// PricesTool reports whether calls of the tool have a price, which may be 0, by a `tool` line or the class tool_call.
func (r *Rates) PricesTool(name string) bool {
	return r.tool(name) >= 0 || r.services[0].tables[0].has(meter.ToolCall)
}

// Fixed returns the price of a call, in nanos, where nothing but the call is charged. ok is false where the price is not known
// before the call.
func (r *Rates) Fixed() (nano int64, ok bool) {
	if r.HasTiers() || !r.OnlyCalls() {
		return 0, false
	}
	one := meter.Usage{Units: meter.Units{meter.Calls: micro}}
	nano, _ = r.Due(one)
	for t := range r.reachable(0, "") {
		if !sameNumber(t, r.services[0].tables[0], meter.Calls) {
			return 0, false
		}
	}
	return nano, true
}

// OnlyCalls reports whether nothing but the call is charged.
func (r *Rates) OnlyCalls() bool {
	return !slices.ContainsFunc(r.charged, func(c meter.Class) bool { return c != meter.Calls })
}

// OnlyAsked reports whether nothing is charged but the call and what its request says itself.
func (r *Rates) OnlyAsked() bool {
	return !slices.ContainsFunc(r.charged, func(c meter.Class) bool { return c != meter.Calls && !slices.Contains(askedClasses, c) })
}

// PricesAsked reports whether a unit that the request says itself has a price, which may be 0, but for the bytes of its body.
func (r *Rates) PricesAsked() bool {
	return slices.ContainsFunc(askedClasses, func(c meter.Class) bool { return c != meter.InputByte && r.Prices(c) })
}

// IsAsked reports whether a class is counted in the request, and not in the answer.
func IsAsked(c meter.Class) bool { return slices.Contains(askedClasses, c) }

// Prices reports whether a class has a price, which may be 0.
func (r *Rates) Prices(c meter.Class) bool {
	return r.Uses(c) || r.services[0].tables[0].has(c)
}

// Uses reports whether a unit of the class can cost anything.
func (r *Rates) Uses(c meter.Class) bool { return slices.Contains(r.charged, c) }

// UsesTokens reports whether a unit of any class of tokens can cost anything.
func (r *Rates) UsesTokens() bool { return slices.ContainsFunc(tokenClasses, r.Uses) }

// Charged returns the classes whose units can cost anything, by name.
func (r *Rates) Charged() []meter.Class { return slices.Clone(r.charged) }

func (r *Rates) findCharged() []meter.Class {
	seen := map[meter.Class]bool{}
	if r.minimum > 0 {
		seen[meter.Calls] = true
	}
	for t := range r.reachable(0, "") {
		for c := range t.index {
			if t.charges(c) {
				seen[c] = true
			}
		}
		if t.chargesTools() {
			seen[meter.ToolCall] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// MaxOutput is the most output tokens that an answer is taken to have when its request sets no limit: the model's `max_output`,
// else the tariff's, else the catalog's. It is 0 when nothing is known.
func (r *Rates) MaxOutput() int64 { return r.maxOutput }
