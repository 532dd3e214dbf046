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
	// services are the normal prices, which have no name, and then the prices of each service tier.
	services  []service
	tools     []ToolPrice
	maxOutput int64
	minimum   int64         // of a call, in nanos
	ladders   int64         // how many prices with tiers a table has at most
	charged   []meter.Class // the classes that can cost anything, in the order of their names
	flat      bool          // the prices apply to any service tier
	fixed     fixedPrice
}

// fixedPrice is the price of a call, in nanos, if it is known before the call.
type fixedPrice struct {
	nano  int64
	known bool
}

// service has one table for each size of prompt with its own prices, in ascending order. The first is for any size.
type service struct {
	name   string
	tables []*table
}

// NewRates compiles the `price` lines of a route. Prices are added up: with `0.001 per call` and `0.15 per 1M tokens`, a request costs
// both. Two prices of one class are added up too. A class with a price of its own is not also charged at its fallback's price: together
// with `1 per 1M tokens`, `0.5 per 1M cached` is the whole price of cached tokens. counts are the unit names of `count` lines.
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

// CountingRates returns rates that cost nothing but count a unit, for a quota without overage.
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
	r.fixed = r.findFixed()
	return r, nil
}

// pricesOf are the prices of each class, which are added up. Fallbacks are not resolved.
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

// describe returns the text of a price for an error. It does not expand an amount that is too large.
func describe(p Price) string {
	if checkAmount(p.Amount) != nil {
		return "per " + p.Unit
	}
	return p.String()
}

// layers are the prices of a model, in layers. A class without a price in an upper layer has the price of the layer below.
type layers struct {
	name     string // names the counters of prices with tiers
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
	r.fixed = r.findFixed()
	return r
}

// overlay puts prices over those in own, and then the prices of above that apply to prompts of more than the given tokens. above is in
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

// Due returns what the usage costs, in nanos, rounded down once, but never to zero. Negative quantities count as 0. With [ErrOverflow] the
// amount is math.MaxInt64.
func (r *Rates) Due(u meter.Usage) (nano int64, err error) {
	nano, err = r.byPrices(&u, toCharged)
	return r.atLeast(&u, nano, err)
}

// byPrices is what the usage costs without a minimum.
func (r *Rates) byPrices(u *meter.Usage, rounded rounding) (nano int64, err error) {
	t := r.table(u)
	var buf [maxTerms]term
	return t.amount(t.terms(buf[:0], r, u, false), rounded)
}

// Most returns the most that the usage can cost, in nanos, rounded up. It uses the most expensive prices that apply to a prompt of up to
// u.PromptTokens, or to any prompt if that is 0. It uses the prices of the service tier u.ServiceTier ("standard" means the normal prices),
// or the most expensive of all tiers if that is empty. A tool call whose name is unknown counts as a call of the most expensive tool.
// Tokens must be in their classes; if these are unknown, see [Rates.MostFor]. With [ErrOverflow] the amount is math.MaxInt64.
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

// MostFor returns the most that one call can cost, in nanos, rounded up: the call itself, its input at the most expensive class of input,
// and its output at the most expensive class of output, at the most expensive prices that apply to such an input. The result is at most
// math.MaxInt64. It does not include what only the answer shows: seconds, events, searches, tool calls.
func (r *Rates) MostFor(inputTokens, outputTokens int64) int64 {
	in, out := meter.Whole(inputTokens), meter.Whole(outputTokens)
	return max(r.minimum, r.dearest(inputTokens, func(t *table, dst []term) []term {
		dst = t.term(dst, meter.Calls, micro)
		dst = t.dearestTerm(dst, inputClasses, in)
		return t.dearestTerm(dst, outputClasses, out)
	}))
}

// MostOf returns the most that a number of units can cost, such as a batch, in nanos, rounded up. The result is at most math.MaxInt64.
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

// reachable yields the tables that may apply to a prompt of up to promptTokens, or to any prompt if that is 0. An empty tier means any
// tier.
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

// service returns the index of the service tier. known is false if the tier has no prices.
func (r *Rates) service(tier string) (index int, known bool) {
	for i := 1; i < len(r.services); i++ {
		if strings.EqualFold(r.services[i].name, tier) {
			return i, true
		}
	}
	return 0, r.flat || meter.PlainTier(tier) || strings.EqualFold(tier, "batch") // no provider charges more for batches
}

// PricesTier reports whether there are prices for the service tier. The prices of a route apply to every tier, and so do those of a model
// that has no price per token.
func (r *Rates) PricesTier(tier string) bool {
	_, known := r.service(tier)
	return known || !r.UsesTokens()
}

// table returns the table by which the usage is charged. Usage of a service tier without prices is charged at the prices at which it costs
// most.
func (r *Rates) table(u *meter.Usage) *table {
	index, known := r.service(u.ServiceTier)
	best := r.services[index].sized(u.PromptTokens)
	if known {
		return best
	}
	var buf [maxTerms]term
	most, _ := best.amount(best.terms(buf[:0], r, u, false), down)
	for i := 1; i < len(r.services); i++ {
		t := r.services[i].sized(u.PromptTokens)
		if n, _ := t.amount(t.terms(buf[:0], r, u, false), down); n > most {
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

// Fixed returns the price of a call, in nanos, if only the call is charged. ok is false if the price is not known before the call.
func (r *Rates) Fixed() (nano int64, ok bool) { return r.fixed.nano, r.fixed.known }

// findFixed computes what Fixed returns.
func (r *Rates) findFixed() fixedPrice {
	if r.HasTiers() || !r.OnlyCalls() {
		return fixedPrice{}
	}
	one := meter.Usage{Units: meter.Units{meter.Calls: micro}}
	nano, _ := r.Due(one)
	for t := range r.reachable(0, "") {
		if !sameNumber(t, r.services[0].tables[0], meter.Calls) {
			return fixedPrice{}
		}
	}
	return fixedPrice{nano, true}
}

// OnlyOf reports whether nothing but these classes can cost anything.
func (r *Rates) OnlyOf(classes ...meter.Class) bool {
	return !slices.ContainsFunc(r.charged, func(c meter.Class) bool { return !slices.Contains(classes, c) })
}

// OnlyCalls reports whether only the call is charged.
func (r *Rates) OnlyCalls() bool { return r.OnlyOf(meter.Calls) }

// OnlyAsked reports whether only the call and the units that the request itself states are charged.
func (r *Rates) OnlyAsked() bool {
	return !slices.ContainsFunc(r.charged, func(c meter.Class) bool { return c != meter.Calls && !slices.Contains(askedClasses, c) })
}

// PricesAsked reports whether a unit that the request itself states has a price, which may be 0. The bytes of the body are not included.
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

// Charged returns the classes that can cost anything, in the order of their names.
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

// MaxOutput is the highest number of output tokens that is assumed for an answer whose request sets no limit: that of the model's
// `max_output`, otherwise the tariff's, otherwise the catalog's. It is 0 if none of them says.
func (r *Rates) MaxOutput() int64 { return r.maxOutput }
