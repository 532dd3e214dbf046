package pricing

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/tallygate/tallygate/meter"
)

// unit is a word that prices and measures can be stated in.
type unit struct {
	word   string        // in the singular, as it is written
	priced []meter.Class // the classes that have a price per this unit; others fall back to these
	whole  []meter.Class // the classes whose quantities add up to a quantity of this unit
	scale  int64         // how many of a class's unit make one of this unit
	plural bool          // the word has an s for more than one
}

// units are the built-in units, in the order in which errors list them.
var units = builtinUnits()

func builtinUnits() []unit {
	list := []unit{
		{"call", []meter.Class{meter.Calls}, []meter.Class{meter.Calls}, 1, true},
		{"token", []meter.Class{meter.Input, meter.Output}, tokenClasses, 1, true},
		{"input_token", []meter.Class{meter.Input}, inputClasses, 1, true},
		{"output_token", []meter.Class{meter.Output}, outputClasses, 1, true},
	}
	scaled := func(word string, c meter.Class, scale int64, plural bool) {
		list = append(list, unit{word, []meter.Class{c}, []meter.Class{c}, scale, plural})
	}
	scaled("event", meter.Event, 1, true)
	scaled("byte", meter.Byte, 1, true)
	scaled("KB", meter.Byte, 1e3, false)
	scaled("MB", meter.Byte, 1e6, false)
	scaled("GB", meter.Byte, 1e9, false)
	scaled("KiB", meter.Byte, 1<<10, false)
	scaled("MiB", meter.Byte, 1<<20, false)
	scaled("GiB", meter.Byte, 1<<30, false)
	scaled("second", meter.Second, 1, true)
	scaled("minute", meter.Second, 60, true)
	scaled("hour", meter.Second, 3600, true)
	scaled("elapsed_second", meter.Elapsed, 1, true)
	scaled("tool_call", meter.ToolCall, 1, true)
	for _, c := range tokenClasses {
		scaled(string(c), c, 1, false)
	}
	scaled("web_search", meter.WebSearch, 1, false)
	scaled("maps_search", meter.MapsSearch, 1, false)
	scaled("file_search", meter.FileSearch, 1, false)
	scaled("code_session", meter.CodeSession, 1, true)
	scaled("container_minute", meter.ContainerMinute, 1, true)
	scaled("citation", meter.Citation, 1, true)
	scaled("page", meter.Page, 1, true)
	scaled("search_unit", meter.SearchUnit, 1, true)
	scaled("input_character", meter.InputCharacter, 1, true)
	scaled("asked_image", meter.AskedImage, 1, true)
	scaled("asked_second", meter.AskedSecond, 1, true)
	scaled("asked_minute", meter.AskedSecond, 60, true)
	scaled("input_byte", meter.InputByte, 1, true)
	scaled("input_KB", meter.InputByte, 1e3, false)
	scaled("input_MB", meter.InputByte, 1e6, false)
	scaled("input_GB", meter.InputByte, 1e9, false)
	return list
}

// maxNumber bounds the N of `per N UNIT` and of measures.
const maxNumber = 1_000_000_000_000

// findUnit finds the unit of a word, in the singular or plural, among the names that `count` gives and the built-in units. The case
// of built-in units does not matter.
func findUnit(word string, counts []string) (unit, error) {
	one := singular(word)
	for _, name := range counts {
		if name == word || singular(name) == one {
			return ownUnit(name), nil
		}
	}
	for _, u := range units {
		if strings.EqualFold(u.word, word) || strings.EqualFold(u.word, one) {
			return u, nil
		}
	}
	return unit{}, fmt.Errorf("unknown unit %q: use one of %s, or a name that `count` gives", word, unitWords(counts))
}

func ownUnit(name string) unit {
	c := []meter.Class{meter.Class(name)}
	return unit{name, c, c, 1, false}
}

func unitWords(counts []string) string {
	words := make([]string, 0, len(units)+len(counts))
	for _, u := range units {
		words = append(words, u.word)
	}
	return strings.Join(append(words, counts...), ", ")
}

// singular makes an English plural singular: calls, searches, entries.
func singular(word string) string {
	switch {
	case strings.HasSuffix(word, "ies") && len(word) > 4:
		return strings.TrimSuffix(word, "ies") + "y"
	case strings.HasSuffix(word, "ches"), strings.HasSuffix(word, "shes"), strings.HasSuffix(word, "xes"):
		return strings.TrimSuffix(word, "es")
	case strings.HasSuffix(word, "s") && !strings.HasSuffix(word, "ss") && len(word) > 1:
		return strings.TrimSuffix(word, "s")
	}
	return word
}

// CheckCount returns an error unless `count NAME` may introduce a unit of this name: up to 64 small letters, digits, - and _ that
// begin with a letter and are no built-in unit, in the singular or plural, and no keyword.
func CheckCount(name string) error {
	if !isUnitName(name) {
		return fmt.Errorf("unit name %q: use up to 64 small letters, digits, - and _, beginning with a letter", name)
	}
	if u, err := findUnit(name, nil); err == nil {
		return fmt.Errorf("unit name %q: %q is a built-in unit, use another name", name, u.word)
	}
	switch name {
	case "per", "tool", "model", "above", "service", "minimum", "for", "at":
		return fmt.Errorf("unit name %q is a keyword, use another name", name)
	}
	return nil
}

func isUnitName(s string) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Measure is a number of a unit, as in `batch 1000 tokens` and `included 500 calls`.
type Measure struct {
	// N is how many units, from 1 to 1e12.
	N int64 `json:"n"`
	// Unit is a unit's word (see [Price]).
	Unit string `json:"unit"`
}

// ParseMeasure reads the words N UNIT. counts are the unit names that `count` gives.
func ParseMeasure(args []string, counts ...string) (Measure, error) {
	if len(args) != 2 {
		return Measure{}, fmt.Errorf("%q: expected N UNIT, as in 1000 tokens", strings.Join(args, " "))
	}
	n, err := ParseNumber(args[0])
	if err != nil {
		return Measure{}, err
	}
	u, err := findUnit(args[1], counts)
	if err != nil {
		return Measure{}, err
	}
	return Measure{N: n, Unit: u.word}, nil
}

// String writes the measure as in the Caddyfile: "1k tokens".
func (m Measure) String() string { return formatNumber(m.N) + " " + pluralOf(m.Unit, m.N) }

// Check returns what is wrong with the measure, which may not come from [ParseMeasure].
func (m Measure) Check(counts ...string) error {
	if m.N < 1 || m.N > maxNumber {
		return fmt.Errorf("n %d: use a number from 1 to %d", m.N, int64(maxNumber))
	}
	_, err := findUnit(m.Unit, counts)
	return err
}

// UnitsOf returns a quantity of a unit, which a word names, as units of the class that is priced per it. counts are the unit names that `count`
// gives.
func UnitsOf(word string, q meter.Quantity, counts ...string) (meter.Units, error) {
	u, err := findUnit(word, counts)
	switch {
	case err != nil:
		return nil, err
	case len(u.priced) > 1:
		return nil, fmt.Errorf("unit %q stands for several classes, which may have several prices: use %s and %s", word, u.priced[0], u.priced[1])
	case q < 0 || q > meter.MaxQuantity/meter.Quantity(u.scale):
		return nil, fmt.Errorf("quantity %s of %s is more than can be counted", q, word)
	}
	return meter.Units{u.priced[0]: q * meter.Quantity(u.scale)}, nil
}

// Of returns how many times the measure goes into the units: `1000 tokens` goes twice into 2,300 tokens of input and output
// together.
func (m Measure) Of(u meter.Units) int64 {
	times, _ := m.Goes(u)
	return times
}

// Goes returns what Of does, and how much is missing until the measure goes into the units once more.
func (m Measure) Goes(u meter.Units) (times int64, missing meter.Quantity) {
	def := m.unit()
	if m.N < 1 {
		return 0, 0
	}
	var total uint64
	for _, c := range def.whole {
		total += uint64(max(0, min(u[c], meter.MaxQuantity)))
	}
	hi, size := bits.Mul64(uint64(m.N), uint64(def.scale)*micro)
	if hi != 0 {
		return 0, meter.MaxQuantity
	}
	return int64(total / size), meter.Quantity(min(size-total%size, uint64(meter.MaxQuantity)))
}

// In returns the quantity of the measure's unit in u, rounded down to a millionth of that unit. N does not matter.
func (m Measure) In(u meter.Units) meter.Quantity {
	def := m.unit()
	var total meter.Quantity
	for _, c := range def.whole {
		total = min(total+max(0, min(u[c], meter.MaxQuantity)), meter.MaxQuantity)
	}
	return total / meter.Quantity(def.scale)
}

// Priced returns a quantity of the measure's unit as units of a class that has a price per that unit. N does not matter.
func (m Measure) Priced(q meter.Quantity) meter.Units {
	def := m.unit()
	if q > meter.MaxQuantity/meter.Quantity(def.scale) {
		return meter.Units{def.priced[0]: meter.MaxQuantity}
	}
	return meter.Units{def.priced[0]: max(0, q) * meter.Quantity(def.scale)}
}

// unit is the measure's unit. A word that is no built-in unit is a name that `count` gave: [Measure.Check] has refused others.
func (m Measure) unit() unit {
	if def, err := findUnit(m.Unit, nil); err == nil {
		return def
	}
	return ownUnit(m.Unit)
}

func pluralOf(word string, n int64) string {
	for _, u := range units {
		if u.word == word && u.plural && n > 1 {
			return word + "s"
		}
	}
	return word
}
