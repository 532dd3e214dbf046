package pricing

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Explanation shows how the amount of a usage was computed.
type Explanation struct {
	Lines []Line `json:"lines"`
	// Sum is the sum of the products, before rounding.
	Sum string `json:"sum"`
	// Amount is Sum, rounded down to nanos, but never to zero.
	Amount     string `json:"amount"`
	AmountNano int64  `json:"-"`
}

// Line is the part of one class: Quantity x Price = Product. The numbers are exact decimals. A product with too many digits is cut after 18
// digits, and "..." follows.
type Line struct {
	Class    meter.Class `json:"class"`
	Quantity string      `json:"quantity"`
	Price    string      `json:"price"`
	Product  string      `json:"product"`
}

// toolPrefix marks the calls of one tool in the units and prices of a charge record: "tool:search".
const toolPrefix = "tool:"

// plus separates the prices of a class that are added up.
const plus = " + "

// Quantities returns the units by which the usage is charged, for the record of a charge. They are the units that were used. Calls of a
// tool that has a price of its own are in "tool:NAME", and not in tool_call. If a call costs its model's minimum, there is one unit
// "minimum", whose price is the difference between the minimum and the price of the usage.
func (r *Rates) Quantities(u meter.Usage) meter.Units {
	units, _ := r.lines(&u)
	return units
}

// quantities are the units of Quantities without the minimum.
func (r *Rates) quantities(u *meter.Usage) meter.Units {
	units := meter.Units{}
	for c, q := range u.Units {
		units.Add(c, q)
	}
	var priced meter.Quantity
	for name, n := range u.Tools {
		if q := meter.Whole(n); q > 0 && r.tool(name) >= 0 {
			units[toolClass(name)] = q
			priced = addQuantity(priced, q)
		}
	}
	if q, ok := units[meter.ToolCall]; ok && priced > 0 {
		units[meter.ToolCall] = max(0, q-priced)
		if q <= priced {
			delete(units, meter.ToolCall)
		}
	}
	return units
}

func toolClass(name string) meter.Class { return meter.Class(toolPrefix + name) }

// UnitPrices returns the price of each class of [Rates.Quantities] that has one, for the record of a charge:
// {"input": "0.15 per 1M", "call": "0.001 per call", "second": "0.006 per minute", "tool:search": "0.01 per call"}.
func (r *Rates) UnitPrices(u meter.Usage) map[meter.Class]string {
	_, prices := r.lines(&u)
	return prices
}

// lines are Quantities and UnitPrices.
func (r *Rates) lines(u *meter.Usage) (meter.Units, map[meter.Class]string) {
	units := r.quantities(u)
	prices := r.unitPrices(r.table(u), units)
	if by := r.raised(u); by > 0 {
		units[raise], prices[raise] = raiseUnits(by), raiseWords(by)
	}
	return units, prices
}

// unitPrices are the prices of UnitPrices without the minimum. For a price with tiers it is the price of the most expensive tier.
func (r *Rates) unitPrices(t *table, units meter.Units) map[meter.Class]string {
	prices := map[meter.Class]string{}
	for c, q := range units {
		if name, isTool := strings.CutPrefix(string(c), toolPrefix); isTool {
			prices[c] = t.words[t.firstTool+r.tool(name)]
		} else if i, ok := t.index[c]; ok && q > 0 {
			prices[c] = t.words[i]
		}
	}
	return prices
}

func sumOf(prices []Price) string {
	words := make([]string, len(prices))
	for i, p := range prices {
		words[i] = p.of()
	}
	return strings.Join(words, plus)
}

func (p ToolPrice) words() string {
	per := Price{Per: p.Per}.per()
	if per == 1 {
		return p.Amount.String() + " per call"
	}
	return p.Amount.String() + " per " + formatNumber(per) + " calls"
}

// Explain shows how the price of the usage is computed. The amount is that of [Rates.Due]. With [ErrOverflow], everything except the amount
// is set.
func (r *Rates) Explain(u meter.Usage) (Explanation, error) {
	return Explain(r.lines(&u))
}

// Explain shows how the amount of a recorded charge was computed. units are those of [Rates.Quantities], and unitPrices those of
// [Rates.UnitPrices]. The amount is the result of [Rates.Due] at that time. With [ErrOverflow], everything except the amount is set.
func Explain(units meter.Units, unitPrices map[meter.Class]string) (Explanation, error) {
	var e Explanation
	sum, plain, steps := new(big.Rat), new(big.Rat), new(big.Int)
	for _, c := range inOrder(units) {
		words, ok := unitPrices[c]
		if !ok {
			e.Lines = append(e.Lines, Line{Class: c, Quantity: units[c].String(), Price: "none", Product: "0"})
			continue
		}
		var product *big.Rat
		if strings.Contains(words, tierMark) {
			l, before, err := parseLadder(c, words)
			if err != nil {
				return Explanation{}, fmt.Errorf("price of %s: %w", c, err)
			}
			step := l.between(before, units[c])
			steps.Add(steps, step)
			product = new(big.Rat).SetInt(step)
		} else {
			rate, err := parseSum(c, words)
			if err != nil {
				return Explanation{}, err
			}
			product = rate.Mul(rate, new(big.Rat).SetInt64(int64(units[c])))
			plain.Add(plain, product)
		}
		sum.Add(sum, product)
		e.Lines = append(e.Lines, Line{c, units[c].String(), words, formatNanos(product)})
	}
	var err error
	e.Sum = formatNanos(sum)
	e.AmountNano, err = roundSteps(plain, steps)
	e.Amount = decimal.New(e.AmountNano, -9).String()
	return e, err
}

// ExplainCost shows how an amount was computed from a cost that the provider stated, and a markup. The units have no prices then. The
// amount is the result of [MarkupCost] at that time.
func ExplainCost(units meter.Units, cost, markup string) (Explanation, error) {
	e, err := Explain(units, nil)
	if err != nil {
		return e, err
	}
	d, err := ParseAmount(cost)
	if err != nil {
		return e, fmt.Errorf("provider's cost: %w", err)
	}
	percent, err := ParsePercent(markup)
	if err != nil {
		return e, err
	}
	factor := Percent{percent.value.Add(decimal.New(100, 0))}
	e.Sum = percent.onTop(d).String()
	e.Lines = append(e.Lines, Line{Class: "cost", Quantity: d.String(), Price: factor.String(), Product: e.Sum})
	e.AmountNano, err = MarkupCost(cost, percent)
	e.Amount = decimal.New(e.AmountNano, -9).String()
	return e, err
}

// inOrder lists the classes that were used: tokens from input to output, then the other built-in classes, then the rest by name.
func inOrder(units meter.Units) []meter.Class {
	var list []meter.Class
	for _, c := range slices.Concat(tokenClasses, countClasses) {
		if units[c] > 0 {
			list = append(list, c)
		}
	}
	known := len(list)
	for c, q := range units {
		if q > 0 && !slices.Contains(list[:known], c) {
			list = append(list, c)
		}
	}
	slices.Sort(list[known:])
	return list
}

// parseSum reads the text that sumOf writes, as nanos per millionth of a unit of the class.
func parseSum(c meter.Class, words string) (*big.Rat, error) {
	sum := new(big.Rat)
	for part := range strings.SplitSeq(words, plus) {
		p, word, err := parsePer(strings.Fields(part))
		if err != nil {
			return nil, fmt.Errorf("price of %s: %w", c, err)
		}
		scale := int64(1)
		if u, err := findUnit(word, nil); err == nil && slices.Contains(u.whole, c) {
			scale = u.scale
		}
		sum.Add(sum, p.nanosPerMicro(scale))
	}
	return sum, nil
}

// formatNanos writes nanos as a decimal of the currency, exactly or cut after 18 digits.
func formatNanos(nanos *big.Rat) string {
	const maxDigits = 18
	amount := new(big.Rat).Quo(nanos, big.NewRat(nano, 1))
	digits, exact := amount.FloatPrec()
	if exact {
		return amount.FloatString(digits)
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(maxDigits), nil)
	cut := new(big.Int).Mul(amount.Num(), scale)
	cut.Quo(cut, amount.Denom())
	return decimal.NewFromBigInt(cut, -maxDigits).StringFixed(maxDigits) + "..."
}
