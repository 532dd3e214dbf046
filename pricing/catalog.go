package pricing

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Catalog has the prices of many models, read from a file in the format of LiteLLM's model_prices_and_context_window.json
// (https://github.com/BerriAI/litellm): an object of entries by model name, each with prices per single unit.
type Catalog struct {
	models   map[string]Model
	problems []string
}

// maxCatalogBytes bounds the file; the real one has 1.6 MB.
const maxCatalogBytes = 64 << 20

// catalogClasses maps the fields of an entry to classes. Each may be followed by _above_200k_tokens (any size in k or m) and
// by _batches, _flex or _priority, which become [Above] and [Service]. The file's 0 is a price.
//
// Beside these are read: tiered_pricing (ranges of prompt sizes), search_context_cost_per_query (web_search, at the medium
// size, which is the providers' default), input_cost_per_query (search_unit where the mode is rerank, else call),
// input_cost_per_second and output_cost_per_second (second, where no token is priced; LiteLLM too takes the latter, if it is
// there, alone), and max_output_tokens.
//
// What has no class is not charged: cached audio and images count as cached; citations, characters, pixels, images and
// videos by the piece, code interpreter sessions, file search, vector stores, grounding by maps, annotated pages, and the
// multipliers of regions and fast modes. An entry that prices its input, or its output, by such things alone is left out, so
// that its models are refused (no_price) instead of being served for nothing.
var catalogClasses = map[string]meter.Class{
	"input_cost_per_token":                      meter.Input,
	"cache_read_input_token_cost":               meter.Cached,
	"input_cost_per_token_cache_hit":            meter.Cached, // DeepSeek's, in old files
	"cache_creation_input_token_cost":           meter.CacheWrite,
	"cache_creation_input_token_cost_above_1hr": meter.CacheWrite1h,
	"input_cost_per_audio_token":                meter.AudioInput,
	"input_cost_per_image_token":                meter.ImageInput,
	"output_cost_per_token":                     meter.Output,
	"output_cost_per_reasoning_token":           meter.Reasoning,
	"output_cost_per_audio_token":               meter.AudioOutput,
	"output_cost_per_image_token":               meter.ImageOutput,
	"ocr_cost_per_page":                         meter.Page,
	"input_cost_per_request":                    meter.Calls,
	"search_context_cost_per_query":             meter.WebSearch,
	"input_cost_per_query":                      meter.SearchUnit,
	"input_cost_per_second":                     meter.Second,
	"output_cost_per_second":                    meter.Second,
}

// catalogServices maps the endings of fields to the names of service tiers.
var catalogServices = map[string]string{"": "", "_batches": "batch", "_flex": "flex", "_priority": "priority"}

var catalogEnding = regexp.MustCompile(`^(?:_above_(\d{1,9}[km])_tokens)?(_batches|_flex|_priority)?$`)

// pricedField is a field of a name like input_cost_per_image, whatever it prices.
var pricedField = regexp.MustCompile(`^(input|output)_cost_per_`)

// LoadCatalog reads a catalog. Its decimals are kept exactly, exponents included. An entry that can't be read or has no
// price that is understood is left out and listed by [Catalog.Problems]; what is no catalog at all is an error.
func LoadCatalog(r io.Reader) (*Catalog, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxCatalogBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading catalog: %w", err)
	}
	if len(data) > maxCatalogBytes {
		return nil, fmt.Errorf("catalog has more than %d bytes", maxCatalogBytes)
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("catalog is no JSON object of models: %w", err)
	}
	delete(entries, "sample_spec")
	c := &Catalog{models: make(map[string]Model, len(entries))}
	for name, raw := range entries {
		m, err := parseEntry(name, raw)
		if err == nil {
			_, err = m.compile(nil, 0, nil)
		}
		if err != nil {
			c.problems = append(c.problems, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		c.models[name] = m
	}
	slices.Sort(c.problems)
	if len(c.models) == 0 {
		return nil, fmt.Errorf("catalog has no model with a price (%d entries)", len(entries))
	}
	return c, nil
}

// Problems returns the entries that were left out, each with the reason, by name. Their models have no price.
func (c *Catalog) Problems() []string { return slices.Clone(c.problems) }

// find returns the name under which the catalog has a model: with the provider's prefix first, then as it is; a fine-tuned
// ft:base:org::id is found as ft:base.
func (c *Catalog) find(provider, model string) (string, bool) {
	names := []string{model}
	if parts := strings.SplitN(model, ":", 3); len(parts) == 3 && parts[0] == "ft" {
		names = append(names, parts[0]+":"+parts[1])
	}
	prefixes := []string{""}
	if provider != "" {
		prefixes = []string{provider + "/", ""}
	}
	for _, prefix := range prefixes {
		for _, name := range names {
			if _, ok := c.models[prefix+name]; ok {
				return prefix + name, true
			}
		}
	}
	return "", false
}

// entry collects the prices of one model.
type entry map[layer]map[meter.Class]Price

// layer is where a price stands: in a service ("" is the plain one), above a size of prompt (0 is any).
type layer struct {
	service string
	above   int64
}

func (e entry) set(l layer, c meter.Class, p Price) {
	if e[l] == nil {
		e[l] = map[meter.Class]Price{}
	}
	e[l][c] = p
}

// positive looks at the plain prices.
func (e entry) positive(c meter.Class) bool { return e[layer{}][c].Amount.IsPositive() }

func parseEntry(name string, raw json.RawMessage) (Model, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return Model{}, errors.New("entry is no object")
	}
	e := entry{}
	if err := e.readFields(fields, 0); err != nil {
		return Model{}, err
	}
	if err := e.readTiers(fields["tiered_pricing"]); err != nil {
		return Model{}, err
	}
	if err := e.readSpecial(fields); err != nil {
		return Model{}, err
	}
	if err := e.checkSides(fields); err != nil {
		return Model{}, err
	}
	m := e.model(name)
	m.MaxOutput = maxOutputOf(fields)
	return m, nil
}

// readFields reads the fields that need no other to be understood. above is the size that they all stand under.
func (e entry) readFields(fields map[string]json.RawMessage, above int64) error {
	for _, field := range sortedNames(fields) {
		class, size, tier, ok := parseField(field)
		if !ok || isSpecial(class) {
			continue
		}
		amount, err := catalogAmount(fields[field])
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", field, err)
		case amount == nil:
			continue
		case field == "input_cost_per_token_cache_hit" && fields["cache_read_input_token_cost"] != nil:
			continue
		}
		e.set(layer{tier, max(size, above)}, class, perUnit(*amount, class))
	}
	return nil
}

// sortedNames puts errors into a stable order.
func sortedNames(fields map[string]json.RawMessage) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// parseField splits a field's name into class, size and service.
func parseField(field string) (class meter.Class, above int64, service string, ok bool) {
	var base string
	for name := range catalogClasses { // the longest that it begins with, as one may begin with another
		if strings.HasPrefix(field, name) && len(name) > len(base) {
			base = name
		}
	}
	ending := catalogEnding.FindStringSubmatch(field[len(base):])
	if base == "" || ending == nil {
		return "", 0, "", false
	}
	if ending[1] != "" {
		n, err := ParseNumber(strings.Replace(ending[1], "m", "M", 1))
		if err != nil {
			return "", 0, "", false
		}
		above = n
	}
	return catalogClasses[base], above, catalogServices[ending[2]], true
}

// isSpecial says that the price depends on other fields: see readSpecial.
func isSpecial(c meter.Class) bool {
	return c == meter.Second || c == meter.SearchUnit || c == meter.WebSearch
}

// catalogAmount is nil where the file has null or an empty text.
func catalogAmount(raw json.RawMessage) (*decimal.Decimal, error) {
	word := string(bytes.TrimSpace(raw))
	if strings.HasPrefix(word, `"`) {
		if err := json.Unmarshal(raw, &word); err != nil {
			return nil, err
		}
	}
	if word == "" || word == "null" {
		return nil, nil
	}
	d, err := ParseAmount(word)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// perUnit states a price per token by the million, as everybody does.
func perUnit(amount decimal.Decimal, c meter.Class) Price {
	if slices.Contains(tokenClasses, c) {
		return Price{Amount: amount.Shift(6), Per: 1_000_000, Unit: string(c)}
	}
	return Price{Amount: amount, Per: 1, Unit: string(c)}
}

// readTiers reads [{"range": [from, to], prices...}, ...]: the lowest range has the plain prices.
func (e entry) readTiers(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var tiers []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &tiers); err != nil {
		return fmt.Errorf("tiered_pricing: %w", err)
	}
	lowest := int64(-1)
	var from []int64
	for i, tier := range tiers {
		var bounds []json.RawMessage
		if err := json.Unmarshal(tier["range"], &bounds); err != nil || len(bounds) == 0 {
			return fmt.Errorf("tiered_pricing: tier %d has no range", i+1)
		}
		d, err := catalogAmount(bounds[0])
		if err != nil || d == nil || !d.IsInteger() {
			return fmt.Errorf("tiered_pricing: range %s does not begin with a number of tokens", tier["range"])
		}
		from = append(from, d.IntPart())
		if lowest < 0 || from[i] < lowest {
			lowest = from[i]
		}
	}
	for i, tier := range tiers {
		above := from[i]
		if above == lowest {
			above = 0
		}
		if err := e.readFields(tier, above); err != nil {
			return fmt.Errorf("tiered_pricing: %w", err)
		}
	}
	return nil
}

func (e entry) readSpecial(fields map[string]json.RawMessage) error {
	var mode string
	_ = json.Unmarshal(fields["mode"], &mode) // a mode that is no text is none
	query, err := catalogAmount(fields["input_cost_per_query"])
	if err != nil {
		return fmt.Errorf("input_cost_per_query: %w", err)
	}
	if query != nil {
		class := meter.Calls
		if mode == "rerank" {
			class = meter.SearchUnit
		}
		e.set(layer{}, class, perUnit(*query, class))
	}
	search, err := searchCost(fields["search_context_cost_per_query"])
	if err != nil {
		return fmt.Errorf("search_context_cost_per_query: %w", err)
	}
	if search != nil {
		e.set(layer{}, meter.WebSearch, perUnit(*search, meter.WebSearch))
	}
	if slices.ContainsFunc(tokenClasses, e.positive) {
		return nil
	}
	for _, field := range []string{"input_cost_per_second", "output_cost_per_second"} { // the latter goes first
		second, err := catalogAmount(fields[field])
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if second != nil {
			e.set(layer{}, meter.Second, perUnit(*second, meter.Second))
		}
	}
	return nil
}

// searchCost takes the medium size, else the smallest there is.
func searchCost(raw json.RawMessage) (*decimal.Decimal, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var sizes map[string]json.RawMessage
	if err := json.Unmarshal(raw, &sizes); err != nil {
		return nil, err
	}
	for _, size := range []string{"medium", "low", "high"} {
		if d, err := catalogAmount(sizes["search_context_size_"+size]); d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil
}

// checkSides refuses an entry whose input or output costs something, but nothing that can be counted.
func (e entry) checkSides(fields map[string]json.RawMessage) error {
	if len(e[layer{}]) == 0 {
		return errors.New("no price that can be counted")
	}
	if e.positive(meter.Second) || e.positive(meter.Calls) || e.positive(meter.SearchUnit) || e.positive(meter.Page) {
		return nil
	}
	sides := map[string][]meter.Class{"input": inputClasses, "output": outputClasses}
	for _, field := range sortedNames(fields) {
		side := pricedField.FindStringSubmatch(field)
		if side == nil || slices.ContainsFunc(sides[side[1]], e.positive) {
			continue
		}
		if _, _, _, counted := parseField(field); counted {
			continue
		}
		if d, err := catalogAmount(fields[field]); err != nil || d != nil && d.IsPositive() {
			return fmt.Errorf("%s has a price only by %s, which is not counted", side[1], field)
		}
	}
	return nil
}

// model puts the prices into order, so that the same file gives the same tariff.
func (e entry) model(name string) Model {
	m := Model{Glob: name, Prices: e.prices(layer{}), Above: e.above("")}
	for _, service := range []string{"batch", "flex", "priority"} {
		s := Service{Name: service, Prices: e.prices(layer{service: service}), Above: e.above(service)}
		if len(s.Prices)+len(s.Above) > 0 {
			m.Services = append(m.Services, s)
		}
	}
	return m
}

func (e entry) above(service string) []Above {
	var list []Above
	for l := range e {
		if l.service == service && l.above > 0 {
			list = append(list, Above{Tokens: l.above, Prices: e.prices(l)})
		}
	}
	slices.SortFunc(list, func(a, b Above) int { return cmp.Compare(a.Tokens, b.Tokens) })
	return list
}

func (e entry) prices(l layer) []Price {
	var list []Price
	for _, c := range slices.Concat(tokenClasses, countClasses) {
		if p, ok := e[l][c]; ok {
			list = append(list, p)
		}
	}
	return list
}

// markedUp returns the model with a percentage added to each price.
func (m Model) markedUp(markup Percent) Model {
	if markup.IsZero() {
		return m
	}
	m.Prices = markedUp(m.Prices, markup)
	m.Above = aboveMarkedUp(m.Above, markup)
	m.Services = slices.Clone(m.Services)
	for i, s := range m.Services {
		m.Services[i] = Service{s.Name, markedUp(s.Prices, markup), aboveMarkedUp(s.Above, markup)}
	}
	return m
}

func aboveMarkedUp(list []Above, markup Percent) []Above {
	list = slices.Clone(list)
	for i, a := range list {
		list[i].Prices = markedUp(a.Prices, markup)
	}
	return list
}

func markedUp(list []Price, markup Percent) []Price {
	list = slices.Clone(list)
	for i, p := range list {
		list[i].Amount = markup.onTop(p.Amount)
	}
	return list
}

func maxOutputOf(fields map[string]json.RawMessage) int64 {
	for _, field := range []string{"max_output_tokens", "max_tokens"} {
		d, err := catalogAmount(fields[field])
		if err == nil && d != nil && d.IsPositive() && d.LessThanOrEqual(decimal.New(maxNumber, 0)) {
			return d.IntPart()
		}
	}
	return 0
}
