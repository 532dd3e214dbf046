package pricing

import (
	"math/big"
	"math/bits"
	"slices"

	"github.com/tallygate/tallygate/meter"
)

// table has the prices that apply together, over one common denominator: the class at index i costs num[i]/den nanos per millionth of a
// unit. If a numerator or the denominator needs more than 64 bits, num is nil, and bigNum and bigDen are used.
type table struct {
	above  int64 // the table is for prompts of more tokens than this
	index  map[meter.Class]int
	num    []uint64
	den    uint64
	bigNum []*big.Int
	bigDen *big.Int
	// firstTool is the index of the first tool. The others follow in the order of Rates.tools.
	firstTool int
	words     []string  // by index, for the record of a charge; of a price with tiers, those of the most expensive tier
	ladders   []*ladder // by index; nil for a price without tiers. The numbers are those of the most expensive tier
}

// term is a quantity of the class or tool at an index of the table.
type term struct {
	index    int
	quantity uint64
}

// maxTerms is how many terms fit without an allocation.
const maxTerms = 12

// newTable returns the table of the prices in own, with their fallbacks, and of the tools.
func newTable(name string, above int64, own pricesOf, tools []ToolPrice) *table {
	t := &table{above: above, index: map[meter.Class]int{}}
	var rates []*big.Rat
	add := func(c meter.Class, prices []Price, words string) {
		sum := new(big.Rat)
		var climb *ladder
		for _, p := range prices {
			if p.Tiers != nil {
				climb = newLadder(name, c, p)
				words = climb.dearestWords()
				sum.Add(sum, climb.dearest())
			} else {
				sum.Add(sum, p.nanosPerMicro(scaleOf(p.Unit)))
			}
		}
		rates, t.words, t.ladders = append(rates, sum), append(t.words, words), append(t.ladders, climb)
	}
	for c, prices := range own {
		t.index[c] = len(rates)
		add(c, prices, sumOf(prices))
	}
	for _, c := range tokenClasses {
		for from, ok := c, true; ok; from, ok = fallbacks[from] {
			if i, has := t.index[from]; has {
				t.index[c] = i
				break
			}
		}
	}
	t.firstTool = len(rates)
	for _, tool := range tools {
		add("", []Price{tool.price()}, tool.words())
	}
	t.setRates(rates)
	return t
}

func scaleOf(word string) int64 {
	if u, err := findUnit(word, nil); err == nil {
		return u.scale
	}
	return 1
}

func (t *table) setRates(rates []*big.Rat) {
	den := big.NewInt(1)
	for _, r := range rates { // compute the least common multiple
		gcd := new(big.Int).GCD(nil, nil, den, r.Denom())
		den.Mul(den, new(big.Int).Quo(r.Denom(), gcd))
	}
	fits := den.IsUint64()
	for _, r := range rates {
		n := new(big.Int).Mul(r.Num(), new(big.Int).Quo(den, r.Denom()))
		t.bigNum = append(t.bigNum, n)
		fits = fits && n.IsUint64()
	}
	t.bigDen = den
	if !fits {
		return
	}
	t.den = den.Uint64()
	for _, n := range t.bigNum {
		t.num = append(t.num, n.Uint64())
	}
}

func (t *table) has(c meter.Class) bool {
	_, ok := t.index[c]
	return ok
}

func (t *table) charges(c meter.Class) bool {
	i, ok := t.index[c]
	return ok && t.bigNum[i].Sign() > 0
}

func (t *table) chargesTools() bool {
	return slices.ContainsFunc(t.bigNum[t.firstTool:], func(n *big.Int) bool { return n.Sign() > 0 })
}

// sameNumber reports whether a class has the same price in two tables.
func sameNumber(a, b *table, c meter.Class) bool {
	return a.rate(c).Cmp(b.rate(c)) == 0
}

func (t *table) rate(c meter.Class) *big.Rat {
	if i, ok := t.index[c]; ok {
		return new(big.Rat).SetFrac(t.bigNum[i], t.bigDen)
	}
	return new(big.Rat)
}

// term appends a quantity of a class, if it has a price.
func (t *table) term(dst []term, c meter.Class, q meter.Quantity) []term {
	if i, ok := t.index[c]; ok && q > 0 {
		return append(dst, term{i, uint64(q)})
	}
	return dst
}

// terms appends everything by which a usage is charged. A call of a tool with a price of its own is not also charged as a tool_call. With
// most, a tool call whose name is unknown counts as a call of the most expensive tool.
func (t *table) terms(dst []term, r *Rates, u *meter.Usage, most bool) []term {
	var priced, known meter.Quantity
	for name, n := range u.Tools {
		q := meter.Whole(n)
		known = addQuantity(known, q)
		if i := r.tool(name); i >= 0 && q > 0 {
			priced = addQuantity(priced, q)
			dst = append(dst, term{t.firstTool + i, uint64(q)})
		}
	}
	for c, q := range u.Units {
		if c == meter.ToolCall && len(r.tools) > 0 {
			q -= priced
			if unknown := u.Units[c] - known; most && unknown > 0 {
				dst = t.dearestToolTerm(dst, r, unknown)
				q -= unknown
			}
		}
		dst = t.term(dst, c, q)
	}
	return dst
}

func addQuantity(a, b meter.Quantity) meter.Quantity { return min(a+b, meter.MaxQuantity) }

// dearestTerm appends a quantity at the price of the most expensive of the classes.
func (t *table) dearestTerm(dst []term, classes []meter.Class, q meter.Quantity) []term {
	best := -1
	for _, c := range classes {
		if i, ok := t.index[c]; ok && (best < 0 || t.bigNum[i].Cmp(t.bigNum[best]) > 0) {
			best = i
		}
	}
	if best < 0 || q <= 0 {
		return dst
	}
	return append(dst, term{best, uint64(q)})
}

// dearestToolTerm appends tool calls at the price of the most expensive of the tools and the class tool_call.
func (t *table) dearestToolTerm(dst []term, r *Rates, q meter.Quantity) []term {
	best := -1
	if i, ok := t.index[meter.ToolCall]; ok {
		best = i
	}
	for i := t.firstTool; i < t.firstTool+len(r.tools); i++ {
		if best < 0 || t.bigNum[i].Cmp(t.bigNum[best]) > 0 {
			best = i
		}
	}
	if best < 0 || q <= 0 {
		return dst
	}
	return append(dst, term{best, uint64(q)})
}

// rounding is how a sum is rounded to nanos.
type rounding int

const (
	down      rounding = iota
	up                 // for holds
	toCharged          // down, but never to zero
)

// more reports whether a nano is added to a sum that was rounded down although there was a rest.
func (r rounding) more(isZero bool) bool { return r == up || r == toCharged && isZero }

// amount is the sum of the terms in nanos.
func (t *table) amount(terms []term, r rounding) (int64, error) {
	if t.num == nil && len(t.bigNum) > 0 {
		return t.bigAmount(terms, r)
	}
	var hi, lo uint64
	for _, x := range terms {
		h, l := bits.Mul64(t.num[x.index], x.quantity)
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		if hi, carry = bits.Add64(hi, h, carry); carry != 0 {
			return maxNanos, ErrOverflow
		}
	}
	if hi >= t.den { // the quotient needs more than 64 bits
		return maxNanos, ErrOverflow
	}
	quo, rem := bits.Div64(hi, lo, t.den)
	if quo <= maxNanos && rem > 0 && r.more(quo == 0) {
		quo++
	}
	if quo > maxNanos {
		return maxNanos, ErrOverflow
	}
	return int64(quo), nil
}

// product is what a quantity costs at a numerator, exactly.
func (t *table) product(num *big.Int, quantity uint64) *big.Rat {
	n := new(big.Int).SetUint64(quantity)
	return new(big.Rat).SetFrac(n.Mul(n, num), t.bigDen)
}

func (t *table) bigAmount(terms []term, r rounding) (int64, error) {
	sum, product := new(big.Int), new(big.Int)
	for _, x := range terms {
		product.SetUint64(x.quantity)
		sum.Add(sum, product.Mul(product, t.bigNum[x.index]))
	}
	rem := new(big.Int)
	sum.QuoRem(sum, t.bigDen, rem)
	if rem.Sign() > 0 && r.more(sum.Sign() == 0) {
		sum.Add(sum, big.NewInt(1))
	}
	if !sum.IsInt64() {
		return maxNanos, ErrOverflow
	}
	return sum.Int64(), nil
}
