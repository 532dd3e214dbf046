package pricing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Price is an amount per a number of units, as in `price 0.15 per 1M tokens`.
type Price struct {
	// Amount is in the ledger's currency. It is an exact decimal from 0 to 1e9. In JSON it is a string or a number.
	Amount decimal.Decimal `json:"amount"`
	// Per is the number of units that Amount buys. It is at most 1e12; missing means 1.
	Per int64 `json:"per,omitempty"`
	// Unit is call, token (input and output together), input_token, output_token, event, byte, KB, MB, GB (1 KB is 1000 bytes),
	// KiB, MiB, GiB (1 KiB is 1024 bytes), second, minute, hour, tool_call, a class of tokens (input, cached, ...), web_search,
	// page, search_unit, or a name that `count` gives.
	Unit string `json:"unit"`
	// Tiers, if not nil, are the prices when more is used.
	Tiers *Tiers `json:"tiers,omitempty"`
}

// The limits of an amount. Within them it is stored exactly. An amount beyond them can only be an attack or a mistake, and is refused.
const (
	maxAmountDigits   = 80
	maxAmountExponent = 100
)

var maxAmount = decimal.New(1, 9)

// ParseAmount reads an amount of a currency, an exact decimal such as "0.15" or "1.5e-07", from 0 to 1e9.
func ParseAmount(word string) (decimal.Decimal, error) {
	if strings.HasPrefix(word, "-") {
		return decimal.Decimal{}, fmt.Errorf("amount %q is negative: use 0 or more", word)
	}
	if !isDecimal(word) {
		return decimal.Decimal{}, fmt.Errorf("amount %q is no decimal number: write it as 0.15, without sign, comma or currency", word)
	}
	d, err := decimal.NewFromString(word)
	if err != nil {
		return decimal.Decimal{}, fmt.Errorf("amount %q is no decimal number: %w", word, err)
	}
	return d, checkAmount(d)
}

// isDecimal reports whether s is digits[.digits][e[+-]digits] of a reasonable length. decimal.NewFromString accepts more than that.
func isDecimal(s string) bool {
	mantissa, exponent, hasExponent := strings.Cut(strings.Replace(s, "E", "e", 1), "e")
	if hasExponent {
		digits := strings.TrimPrefix(exponent, "-")
		if digits == exponent {
			digits = strings.TrimPrefix(exponent, "+")
		}
		if !allDigits(digits) || len(digits) > 4 {
			return false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	return len(mantissa) <= 2*maxAmountDigits && allDigits(whole+fraction)
}

func allDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// checkAmount refuses an amount that is negative, too long or too large. It checks the exponent first, since 1e1000000000 must not be
// expanded.
func checkAmount(d decimal.Decimal) error {
	switch {
	case d.Sign() == 0 && d.Exponent() >= -maxAmountExponent && d.Exponent() <= maxAmountExponent:
		return nil
	case d.Sign() < 0:
		return errors.New("amount is negative: use 0 or more")
	case d.Exponent() > maxAmountExponent, d.Exponent() < -maxAmountExponent, d.NumDigits() > maxAmountDigits:
		return fmt.Errorf("amount has too many digits: use at most %d, of at least 1e-%d", maxAmountDigits, maxAmountExponent)
	case d.GreaterThan(maxAmount):
		return fmt.Errorf("amount %s is absurd: use at most %s", d, maxAmount)
	}
	return nil
}

// ParseNumber reads a whole number from 1 to 1e12: digits, and k for thousands or M for millions.
func ParseNumber(word string) (int64, error) {
	digits, factor := word, int64(1)
	if s, ok := strings.CutSuffix(word, "k"); ok {
		digits, factor = s, 1_000
	} else if s, ok := strings.CutSuffix(word, "M"); ok {
		digits, factor = s, 1_000_000
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !allDigits(digits) || n < 1 || n > maxNumber/factor {
		return 0, fmt.Errorf("number %q: use digits, 1k (thousand) or 1M (million), from 1 to %d", word, int64(maxNumber))
	}
	return n * factor, nil
}

func formatNumber(n int64) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.FormatInt(n/1_000_000, 10) + "M"
	case n >= 1_000 && n%1_000 == 0:
		return strconv.FormatInt(n/1_000, 10) + "k"
	}
	return strconv.FormatInt(n, 10)
}

// ParsePrice reads the words of a `price` line, A per [N] UNIT: 0.15 per 1M tokens. counts are the unit names that `count` gives.
func ParsePrice(args []string, counts ...string) (Price, error) {
	p, word, err := parsePer(args)
	if err != nil {
		return Price{}, err
	}
	if word == "" {
		return Price{}, fmt.Errorf("price %q has no unit: expected A per [N] UNIT, as in 0.15 per 1M tokens", strings.Join(args, " "))
	}
	u, err := findUnit(word, counts)
	if err != nil {
		return Price{}, err
	}
	p.Unit = u.word
	return p, p.checkDigits(u)
}

// parsePer reads A per [N] [UNIT]. The caller interprets the unit.
func parsePer(args []string) (Price, string, error) {
	line := strings.Join(args, " ")
	if len(args) < 3 || len(args) > 4 || args[1] != "per" {
		return Price{}, "", fmt.Errorf("price %q: expected A per [N] UNIT, as in 0.15 per 1M tokens", line)
	}
	amount, err := ParseAmount(args[0])
	if err != nil {
		return Price{}, "", err
	}
	p, rest := Price{Amount: amount, Per: 1}, args[2:]
	if c := rest[0]; c != "" && c[0] >= '0' && c[0] <= '9' || len(rest) == 2 {
		if p.Per, err = ParseNumber(rest[0]); err != nil {
			return Price{}, "", err
		}
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return p, "", nil
	}
	return p, rest[0], nil
}

// classAliases are other words for the unit in the line of a class, besides the class's own name: `web_search 10 per 1k calls`.
var classAliases = map[meter.Class][]string{
	meter.WebSearch:  {"search", "query", "call"},
	meter.SearchUnit: {"search", "unit"},
	meter.MapsSearch: {"search", "query", "call"}, meter.FileSearch: {"search", "query", "call"},
	meter.CodeSession: {"session", "call"}, meter.ContainerMinute: {"minute"}, meter.Citation: {"token"},
	meter.ToolCall: {"call"}, meter.InputCharacter: {"character"}, meter.AskedImage: {"image"}, meter.AskedSecond: {"second"}, meter.InputByte: {"byte"},
}

// ParseClassPrice reads a line of a tariff, which begins with a class: of `input 0.15 per 1M tokens`, class is "input" and args
// are the words after it. After N, the unit may be left out. counts are the unit names that `count` gives.
func ParseClassPrice(class string, args []string, counts ...string) (Price, error) {
	own, err := findUnit(class, counts)
	if err != nil || own.scale != 1 {
		return Price{}, fmt.Errorf("unknown class %q: use one of %s", class, classWords(counts))
	}
	p, word, err := parsePer(args)
	if err != nil {
		return Price{}, fmt.Errorf("%s: %w", class, err)
	}
	p.Unit = own.word
	if word == "" || slices.Contains(classAliases[own.priced[0]], singular(word)) {
		return p, p.checkDigits(own)
	}
	u, err := findUnit(word, counts)
	if err != nil {
		return Price{}, fmt.Errorf("%s: %w", class, err)
	}
	if !containsAll(u.whole, own.priced) {
		return Price{}, fmt.Errorf("%s: a price per %s does not fit this class, use A per [N] %s", class, u.word, classUnit(own))
	}
	if u.scale != 1 {
		p.Unit = u.word
	}
	return p, p.checkDigits(own)
}

func containsAll(all, some []meter.Class) bool {
	for _, c := range some {
		if !slices.Contains(all, c) {
			return false
		}
	}
	return true
}

func classUnit(u unit) string {
	if slices.Contains(tokenClasses, u.priced[0]) {
		return "tokens"
	}
	return pluralOf(u.word, 2)
}

func classWords(counts []string) string {
	var words []string
	for _, u := range units {
		if u.scale == 1 {
			words = append(words, u.word)
		}
	}
	return strings.Join(append(words, counts...), ", ")
}

// String writes the price as [ParsePrice] reads it: "0.15 per 1M tokens".
func (p Price) String() string {
	per := p.per()
	if per == 1 {
		return p.Amount.String() + " per " + p.Unit
	}
	return p.Amount.String() + " per " + formatNumber(per) + " " + pluralOf(p.Unit, per)
}

// of returns the text of the price for a reader who knows the class: it leaves out a unit that is the class's own.
func (p Price) of() string {
	def, err := findUnit(p.Unit, nil)
	if p.per() == 1 || err == nil && def.scale != 1 {
		return p.String()
	}
	return p.Amount.String() + " per " + formatNumber(p.per())
}

func (p Price) per() int64 {
	if p.Per == 0 {
		return 1
	}
	return p.Per
}

// check returns the price's unit, or an error. The price may not come from [ParsePrice].
func (p Price) check(counts []string) (unit, error) {
	if err := checkAmount(p.Amount); err != nil {
		return unit{}, err
	}
	if p.Per < 0 || p.Per > maxNumber {
		return unit{}, fmt.Errorf("per %d: use a number from 1 to %d", p.Per, int64(maxNumber))
	}
	u, err := findUnit(p.Unit, counts)
	if err != nil {
		return u, err
	}
	if err := p.checkDigits(u); err != nil {
		return u, err
	}
	return u, p.checkTiers(u)
}

// nanosPerMicro is the price in nanos of a millionth of a class's unit.
func (p Price) nanosPerMicro(scale int64) *big.Rat {
	r := p.Amount.Rat()
	r.Mul(r, big.NewRat(nano, micro))
	return r.Quo(r, new(big.Rat).SetInt(new(big.Int).Mul(big.NewInt(p.per()), big.NewInt(scale))))
}

// UnmarshalJSON reads a price. It refuses unknown names, and a price without an amount, since a forgotten amount must not make something
// free.
func (p *Price) UnmarshalJSON(data []byte) error {
	var in struct {
		Amount *decimal.Decimal `json:"amount"`
		Per    int64            `json:"per"`
		Unit   string           `json:"unit"`
		Tiers  *Tiers           `json:"tiers"`
	}
	if err := strictJSON(data, &in); err != nil {
		return fmt.Errorf("price: %w", err)
	}
	if in.Amount == nil {
		return errors.New(`price without "amount"`)
	}
	if err := checkAmount(*in.Amount); err != nil {
		return fmt.Errorf("price: %w", err)
	}
	*p = Price{Amount: *in.Amount, Per: in.Per, Unit: in.Unit, Tiers: in.Tiers}
	return nil
}

func strictJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
