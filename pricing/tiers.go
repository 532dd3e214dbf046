package pricing

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Tiers are further prices that apply when a caller uses more in a period. Use is counted for each caller, model line (or route) and class.
// In a Caddyfile:
//
//	input 2.00 per 1M tokens {
//		after 100M 1.50
//		after 1000M 1.00
//		each month
//	}
type Tiers struct {
	// After are the further prices, in ascending order of N.
	After []Tier `json:"after"`
	// Volume gives all units of a call the price of the tier that the use reaches with the call. Without it the tiers are graduated: each unit
	// has the price of the tier in which it lies.
	Volume bool `json:"volume,omitempty"`
	// Each is the period, by the calendar in UTC: "day", "week" (from Monday) or "month". Empty: "month".
	Each string `json:"each,omitempty"`
}

// Tier is the price of what is used after N units in a period.
type Tier struct {
	// N is in the unit of the price to which the tier belongs.
	N int64 `json:"n"`
	// Amount buys as many units as the price's own amount does.
	Amount decimal.Decimal `json:"amount"`
}

// UnmarshalJSON reads a tier. It refuses unknown names, and a tier without an amount.
func (t *Tier) UnmarshalJSON(data []byte) error {
	var in struct {
		N      int64            `json:"n"`
		Amount *decimal.Decimal `json:"amount"`
	}
	if err := strictJSON(data, &in); err != nil {
		return fmt.Errorf("tier: %w", err)
	}
	if in.Amount == nil {
		return errors.New(`tier without "amount"`)
	}
	*t = Tier{in.N, *in.Amount}
	return nil
}

// periods are the values of Each.
var periods = []string{"day", "week", "month"}

// ParseTier reads the words N A, which follow `after` in `after 100M 1.50`.
func ParseTier(args []string) (Tier, error) {
	if len(args) != 2 {
		return Tier{}, fmt.Errorf("after %s: expected a number of units and an amount, as in after 100M 1.50", strings.Join(args, " "))
	}
	n, err := ParseNumber(args[0])
	if err != nil {
		return Tier{}, fmt.Errorf("after: %w", err)
	}
	amount, err := ParseAmount(args[1])
	if err != nil {
		return Tier{}, fmt.Errorf("after %s: %w", args[0], err)
	}
	return Tier{n, amount}, nil
}

// WithTiers returns the price with tiers, or what is wrong with them. counts are the unit names that `count` gives.
func (p Price) WithTiers(t Tiers, counts ...string) (Price, error) {
	p.Tiers = &t
	_, err := p.check(counts)
	return p, err
}

// checkTiers refuses tiers that do not fit the price.
func (p Price) checkTiers(u unit) error {
	t := p.Tiers
	switch {
	case t == nil:
		return nil
	case len(t.After) == 0:
		return errors.New("tiers without a tier: add lines such as after 100M 1.50")
	case len(u.priced) > 1:
		return fmt.Errorf("a price per %s has no tiers: give input and output prices of their own, each with its tiers", u.word)
	case t.Each != "" && !slices.Contains(periods, t.Each):
		return fmt.Errorf("each %s: use one of %s", t.Each, strings.Join(periods, ", "))
	}
	before := int64(0)
	for _, tier := range t.After {
		if tier.N <= before || tier.N > maxNumber {
			return fmt.Errorf("after %d: use numbers from 1 to %d, in ascending order", tier.N, int64(maxNumber))
		}
		before = tier.N
		if err := checkAmount(tier.Amount); err != nil {
			return fmt.Errorf("after %s: %w", formatNumber(tier.N), err)
		}
		if err := p.at(tier).checkDigits(u); err != nil {
			return fmt.Errorf("after %s: %w", formatNumber(tier.N), err)
		}
	}
	return nil
}

// Words returns the text of the price and its tiers: "2 per 1M tokens; 1.5 after 100M".
func (p Price) Words() string {
	words := p.String()
	if p.Tiers == nil {
		return words
	}
	for _, t := range p.Tiers.After {
		words += tierMark + t.Amount.String() + " after " + formatNumber(t.N)
	}
	if p.Tiers.Volume {
		words += tierMark + "volume"
	}
	return words
}

// at returns the price of a tier, without tiers.
func (p Price) at(t Tier) Price { return Price{Amount: t.Amount, Per: p.Per, Unit: p.Unit} }

// plain returns the price of the first units, without tiers.
func (p Price) plain() Price { return Price{Amount: p.Amount, Per: p.Per, Unit: p.Unit} }

// Counter identifies a count of a caller's use in a period.
type Counter struct {
	Name  string // of the model line, and the class
	Class meter.Class
	Each  string // "day", "week", "month"
}

// Use is what a call adds to a counter.
type Use struct {
	Counter
	Quantity meter.Quantity
}

// Used returns how much of a counter was used before a call, in the current period.
type Used func(Counter) meter.Quantity

// ladder is a compiled price with tiers.
type ladder struct {
	counter Counter
	price   Price
	starts  []meter.Quantity // where each tier begins, in the class's unit; the first is 0
	rates   []*big.Rat       // of each tier, in nanos per millionth of a unit
}

func newLadder(name string, c meter.Class, p Price) *ladder {
	scale := scaleOf(p.Unit)
	l := &ladder{counter: Counter{name + " " + string(c), c, p.Tiers.Each}, price: p}
	if l.counter.Each == "" {
		l.counter.Each = "month"
	}
	l.add(0, p.nanosPerMicro(scale))
	for _, t := range p.Tiers.After {
		l.add(meter.Quantity(saturatingMul(saturatingMul(t.N, scale), micro)), p.at(t).nanosPerMicro(scale))
	}
	return l
}

func (l *ladder) add(start meter.Quantity, rate *big.Rat) {
	l.starts, l.rates = append(l.starts, start), append(l.rates, rate)
}

// dearest returns the highest rate of all tiers, which is used for holds.
func (l *ladder) dearest() *big.Rat {
	return slices.MaxFunc(l.rates, (*big.Rat).Cmp)
}

// dearestWords is the text of the most expensive tier's price.
func (l *ladder) dearestWords() string {
	dearest := slices.IndexFunc(l.rates, func(r *big.Rat) bool { return r.Cmp(l.dearest()) == 0 })
	if dearest == 0 {
		return l.price.plain().of()
	}
	return l.price.at(l.price.Tiers.After[dearest-1]).of()
}

// tier returns the tier that applies after so much was used.
func (l *ladder) tier(used meter.Quantity) int {
	i := len(l.starts) - 1
	for i > 0 && used <= l.starts[i] {
		i--
	}
	return i
}

// upTo is what the first units of a period cost, in nanos, rounded down.
func (l *ladder) upTo(used meter.Quantity) *big.Int {
	sum := new(big.Rat)
	for i, start := range l.starts {
		end := used
		if i+1 < len(l.starts) {
			end = min(used, l.starts[i+1])
		}
		if end > start {
			sum.Add(sum, new(big.Rat).Mul(l.rates[i], new(big.Rat).SetInt64(int64(end-start))))
		}
	}
	return new(big.Int).Quo(sum.Num(), sum.Denom())
}

// between is what further units cost after others were used, in nanos. The prices of several calls add up to the price of all their units
// together: nothing is lost or gained by rounding.
func (l *ladder) between(before, q meter.Quantity) *big.Int {
	after := l.upTo(before + q)
	return after.Sub(after, l.upTo(before))
}

// clamped limits a number of units so that two of them can be added.
func clamped(q meter.Quantity) meter.Quantity { return max(0, min(q, meter.MaxQuantity)) }

// tierMark separates the tiers in the text of a graduated price: "2 per 1M; 1.5 after 1M; from 900000".
const tierMark = "; "

// words is the text of the price, for the record of a charge, of units that were used after others.
func (l *ladder) words(before, q meter.Quantity) string {
	if l.price.Tiers.Volume {
		if i := l.tier(before + q); i > 0 {
			return l.price.at(l.price.Tiers.After[i-1]).of()
		}
		return l.price.plain().of()
	}
	words := l.price.plain().of()
	for _, t := range l.price.Tiers.After {
		words += tierMark + t.Amount.String() + " after " + formatNumber(t.N)
	}
	return words + tierMark + "from " + before.String()
}

// parseLadder reads the text that words has written for a graduated price.
func parseLadder(c meter.Class, words string) (l *ladder, before meter.Quantity, err error) {
	parts := strings.Split(words, tierMark)
	first, word, err := parsePer(strings.Fields(parts[0]))
	if err != nil {
		return nil, 0, err
	}
	if first.Unit = word; word == "" {
		first.Unit = string(c)
	}
	first.Tiers = &Tiers{}
	for _, part := range parts[1 : len(parts)-1] {
		amount, n, _ := strings.Cut(part, " after ")
		t, err := ParseTier([]string{n, amount})
		if err != nil {
			return nil, 0, err
		}
		first.Tiers.After = append(first.Tiers.After, t)
	}
	from, ok := strings.CutPrefix(parts[len(parts)-1], "from ")
	if !ok {
		return nil, 0, fmt.Errorf("price %q: expected from N in the end", words)
	}
	before, err = meter.ParseQuantity(from)
	return newLadder("", c, first), before, err
}

// Priced is a usage with its price.
type Priced struct {
	Nano       int64                  // the price
	Units      meter.Units            // see [Rates.Quantities]
	UnitPrices map[meter.Class]string // see [Rates.UnitPrices]
	Uses       []Use                  // what the usage adds to the counters of prices with tiers
}

// withSlack adds what separate rounding can add: each step of a ladder is rounded by itself, perhaps up.
func (r *Rates) withSlack(nano int64) int64 {
	if nano == 0 || r.ladders == 0 {
		return nano
	}
	slack := r.ladders - 1
	return min(nano, maxNanos-slack) + slack
}

// most is the most that the usage costs, whatever was used before.
func (r *Rates) most(u meter.Usage) (int64, error) {
	t := r.table(&u)
	nano, err := t.amount(t.terms(nil, r, &u, false), up)
	return r.atLeast(&u, r.withSlack(nano), err)
}

// HasTiers reports whether a price depends on what was used before.
func (r *Rates) HasTiers() bool { return r.ladders > 0 }

// Price computes the price of a usage, after what was used before. If used is nil, it is the most that the usage can cost: prices with
// tiers are then those of the most expensive tier, as in everything that is computed before a call. With [ErrOverflow], the amount is
// math.MaxInt64.
func (r *Rates) Price(u meter.Usage, used Used) (Priced, error) {
	if !r.HasTiers() || used == nil {
		nano, err := r.Due(u)
		if r.HasTiers() {
			nano, err = r.most(u)
		}
		units, prices := r.lines(&u)
		return Priced{nano, units, prices, nil}, err
	}
	t := r.table(&u)
	p := Priced{Units: r.quantities(&u)}
	p.UnitPrices = r.unitPrices(t, p.Units)
	plain, steps := new(big.Rat), new(big.Int)
	climbed := map[int]meter.Quantity{}
	for _, x := range t.terms(nil, r, &u, false) {
		if l := t.ladders[x.index]; l != nil {
			climbed[x.index] = addQuantity(climbed[x.index], meter.Quantity(x.quantity))
			continue
		}
		plain.Add(plain, t.product(t.bigNum[x.index], x.quantity))
	}
	for i, l := range t.ladders {
		q := climbed[i]
		if q == 0 {
			continue
		}
		before := clamped(used(l.counter))
		if l.price.Tiers.Volume {
			rate := l.rates[l.tier(before+q)]
			plain.Add(plain, new(big.Rat).Mul(rate, new(big.Rat).SetInt64(int64(q))))
		} else {
			steps.Add(steps, l.between(before, q))
		}
		p.Uses = append(p.Uses, Use{l.counter, q})
		t.nameClimb(p, i, before, q)
	}
	return p, r.finish(&p, &u, plain, steps)
}

// nameClimb writes the texts of the classes that share a ladder, one after the other in the order of an explanation.
func (t *table) nameClimb(p Priced, index int, before, all meter.Quantity) {
	l := t.ladders[index]
	at := before
	for _, c := range inOrder(p.Units) {
		if i, ok := t.index[c]; !ok || i != index {
			continue
		}
		if l.price.Tiers.Volume {
			p.UnitPrices[c] = l.words(before, all)
			continue
		}
		p.UnitPrices[c] = l.words(at, p.Units[c])
		at += p.Units[c]
	}
}

// finish adds up a usage: the part that is rounded here, the steps of ladders, which were rounded already, and the rest up to the minimum.
func (r *Rates) finish(p *Priced, u *meter.Usage, plain *big.Rat, steps *big.Int) error {
	least, err := r.least(u)
	if err != nil {
		p.Nano = maxNanos
		return err
	}
	floor := new(big.Int).Quo(plain.Num(), plain.Denom())
	if floor.Add(floor, steps); floor.IsInt64() && least > floor.Int64() {
		by := least - floor.Int64()
		p.Units[raise], p.UnitPrices[raise] = raiseUnits(by), raiseWords(by)
		p.Nano = least
		return nil
	}
	p.Nano, err = roundSteps(plain, steps)
	return err
}

// roundSteps adds the steps of ladders to the rest, rounded down. The result is zero only if both are zero.
func roundSteps(plain *big.Rat, steps *big.Int) (int64, error) {
	if steps.Sign() == 0 {
		return roundNanos(plain)
	}
	sum := new(big.Int).Quo(plain.Num(), plain.Denom())
	if sum.Add(sum, steps); !sum.IsInt64() {
		return maxNanos, ErrOverflow
	}
	return sum.Int64(), nil
}

// TierNow is the present state of a price with tiers, for a caller.
type TierNow struct {
	Listed
	Used meter.Quantity // in the period so far
}

// TiersNow returns which tier each price with tiers has reached. It looks only at the normal prices, and not at those of service tiers and
// of larger prompts.
func (r *Rates) TiersNow(used Used) []TierNow {
	var list []TierNow
	t := r.services[0].tables[0]
	for _, l := range t.ladders {
		if l == nil {
			continue
		}
		n := clamped(used(l.counter))
		price := l.price.plain()
		if at := l.tier(n + 1); at > 0 {
			price = l.price.at(l.price.Tiers.After[at-1])
		}
		list = append(list, TierNow{Listed{Class: l.counter.Class, Amount: price.Amount, Per: price.per(), Unit: price.Unit, Each: l.counter.Each}, n})
	}
	slices.SortFunc(list, func(a, b TierNow) int { return strings.Compare(string(a.Class), string(b.Class)) })
	return list
}
