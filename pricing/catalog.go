package pricing

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

// Catalog has the prices of many models. It is read from a file in the format of LiteLLM's model_prices_and_context_window.json
// (https://github.com/BerriAI/litellm), an object of entries by model name, which have prices per single unit.
type Catalog struct {
	models   map[string]Model
	names    []string // of models, in order
	problems []string
}

// maxCatalogBytes bounds the file. LiteLLM's has 1.6 MB.
const maxCatalogBytes = 64 << 20

// catalogClasses maps the fields of an entry to classes. A field's name may continue with _above_200k_tokens (any size in k or m), and then
// with _batches, _flex or _priority. These become [Above] and [Service]. A 0 in the file counts as a price.
//
// The meaning of some fields depends on others. search_context_cost_per_query is the price of a web_search; of its sizes the medium one
// counts, which is the providers' default. input_cost_per_query is the price of a search_unit if the mode is rerank, and otherwise of a
// call. input_cost_per_second and output_cost_per_second are prices of a second if no token has a price; if both are there, only the latter
// counts, as in LiteLLM. If no token has a price, there are also prices of what the request asks for: input_cost_per_character is that of
// an input_character in the mode audio_speech; input_cost_per_image or output_cost_per_image that of an asked_image in the mode
// image_generation; output_cost_per_second or output_cost_per_video_per_second that of an asked_second in the mode video_generation. The
// factors of provider_specific_entry ({"fast": 6, "us": 1.1}) become services, in all combinations ("fast+us"). tiered_pricing (ranges of
// prompt sizes) and max_output_tokens are read too.
//
// Other fields have no class and are not charged: pixels, images and videos by the piece in other modes, vector stores, and annotated
// pages. Cached audio and images count as cached. An entry whose input or output has a price only in such fields is left out, so that calls
// of its model are refused (no_price) instead of being free.
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
	"file_search_cost_per_1k_calls":             meter.FileSearch,
	"code_interpreter_cost_per_session":         meter.CodeSession,
	"citation_cost_per_token":                   meter.Citation,
	"input_cost_per_query":                      meter.SearchUnit,
	"input_cost_per_second":                     meter.Second,
	"output_cost_per_second":                    meter.Second,
}

// catalogServices maps the endings of field names to the names of service tiers.
var catalogServices = map[string]string{"": "", "_batches": "batch", "_flex": "flex", "_priority": "priority"}

var catalogEnding = regexp.MustCompile(`^(?:_above_(\d{1,9}[km])_tokens)?(_batches|_flex|_priority)?$`)

// pricedField matches the names of all fields that price input or output, such as input_cost_per_image.
var pricedField = regexp.MustCompile(`^(input|output)_cost_per_`)

// LoadCatalog reads a catalog. Its decimals are kept exactly, exponents included. An entry is left out if it can't be read or has
// no price that can be counted; [Catalog.Problems] lists it. It is an error if no entry is left.
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
			_, err = m.withMarkup(Percent{}).compile(nil, 0, nil)
		}
		if err != nil {
			c.problems = append(c.problems, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		c.models[name] = m
	}
	slices.Sort(c.problems)
	c.names = slices.Sorted(maps.Keys(c.models))
	if len(c.models) == 0 {
		return nil, fmt.Errorf("catalog has no model with a price (%d entries)", len(entries))
	}
	return c, nil
}

// Problems returns the entries that were left out, in the order of their names, each with the reason. Their models have no price.
func (c *Catalog) Problems() []string { return slices.Clone(c.problems) }

// find returns the name under which the catalog has a model. It tries the name with the provider's prefix first, and then without. A
// fine-tuned ft:base:org::id is found as ft:base.
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

// layer says for which calls a price is: those of a service tier ("" is none), with prompts of more than above tokens.
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

// positive reports whether the normal price of a class is above zero.
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
	if err := m.multiply(fields["provider_specific_entry"]); err != nil {
		return Model{}, fmt.Errorf("provider_specific_entry: %w", err)
	}
	m.MaxOutput = maxOutputOf(fields)
	return m, nil
}

// readFields reads the fields that can be read by themselves. above is the size of prompt for which all of them are.
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
		price := perUnit(*amount, class)
		if strings.Contains(field, "_per_1k_") {
			price.Per = 1000
		}
		e.set(layer{tier, max(size, above)}, class, price)
	}
	return nil
}

// sortedNames returns the names of the fields in order, so that the same file always gives the same errors.
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
	for name := range catalogClasses { // the longest name that the field begins with, since one name may be the beginning of another
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

// isSpecial reports whether the price of a class depends on other fields. readSpecial reads those fields.
func isSpecial(c meter.Class) bool {
	return c == meter.Second || c == meter.SearchUnit || c == meter.WebSearch
}

// catalogAmount reads a field's amount. It returns nil if the file has null or an empty text.
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

// perUnit returns the price of one unit. The price of a token is stated per million, as usual.
func perUnit(amount decimal.Decimal, c meter.Class) Price {
	if slices.Contains(tokenClasses, c) {
		return Price{Amount: amount.Shift(6), Per: 1_000_000, Unit: string(c)}
	}
	return Price{Amount: amount, Per: 1, Unit: string(c)}
}

// readTiers reads [{"range": [from, to], prices...}, ...]. The lowest range has the normal prices.
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

// readSpecial reads the fields whose meaning depends on other fields: see catalogClasses.
func (e entry) readSpecial(fields map[string]json.RawMessage) error {
	var mode string
	_ = json.Unmarshal(fields["mode"], &mode) // an entry whose mode is not a text has no mode
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
	for _, m := range mediaFields {
		if m.mode != "" && m.mode != mode || m.mode == "" && m.class == meter.Second && mode == "video_generation" {
			continue
		}
		amount, err := catalogAmount(fields[m.field])
		if err != nil {
			return fmt.Errorf("%s: %w", m.field, err)
		}
		if amount != nil {
			e.set(layer{}, m.class, perUnit(*amount, m.class))
		}
	}
	return nil
}

// mediaFields are the fields with the prices of models that have no price per token. For units that the request asks for, they depend on
// the mode of the model. If several fields are for one class, the last counts.
var mediaFields = []struct {
	field, mode string
	class       meter.Class
}{
	{"input_cost_per_second", "", meter.Second},
	{"output_cost_per_second", "", meter.Second},
	{"input_cost_per_character", "audio_speech", meter.InputCharacter},
	{"input_cost_per_image", "image_generation", meter.AskedImage},
	{"output_cost_per_image", "image_generation", meter.AskedImage},
	{"output_cost_per_second", "video_generation", meter.AskedSecond},
	{"output_cost_per_video_per_second", "video_generation", meter.AskedSecond},
}

// searchCost returns the price of a search at the medium size, or at the smallest size that has a price.
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

// checkSides refuses an entry whose input, or output, has a price only in units that are not counted.
func (e entry) checkSides(fields map[string]json.RawMessage) error {
	if len(e[layer{}]) == 0 {
		return errors.New("no price that can be counted")
	}
	if slices.ContainsFunc(askedClasses, e.positive) || e.positive(meter.Second) || e.positive(meter.Calls) || e.positive(meter.SearchUnit) || e.positive(meter.Page) {
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

// model returns the entry's prices as a Model. The order is always the same.
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

// multiply adds services whose prices per token are a multiple, such as {"fast": 6, "us": 1.1}: of the normal prices, of the other
// services, and of each other ("fast+us").
func (m *Model) multiply(raw json.RawMessage) error {
	var factors map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &factors) != nil {
		return nil
	}
	for _, name := range sortedNames(factors) {
		factor, err := catalogAmount(factors[name])
		if err != nil || factor == nil || !isUnitName(name) || len(m.Services) > maxServices {
			continue // not a factor
		}
		if !factor.IsPositive() {
			return fmt.Errorf("%s: expected a factor above zero", name)
		}
		plain := Service{Prices: m.Prices, Above: m.Above}
		for _, s := range append([]Service{plain}, m.Services...) {
			if s.Name != "" {
				s.Above = overAbove(m.Above, s)
				s.Prices = over(m.Prices, s.Prices)
			}
			above := slices.Clone(s.Above)
			for i, a := range above {
				above[i].Prices = times(a.Prices, *factor)
			}
			m.Services = append(m.Services, Service{strings.TrimPrefix(s.Name+"+"+name, "+"), times(s.Prices, *factor), above})
		}
	}
	return nil
}

// maxServices is the highest number of services of one model that are still multiplied.
const maxServices = 16

// over returns the prices of upper, and those of lower for units that have no price in upper.
func over(lower, upper []Price) []Price {
	list := slices.Clone(upper)
	for _, p := range lower {
		if !slices.ContainsFunc(upper, func(q Price) bool { return q.Unit == p.Unit }) {
			list = append(list, p)
		}
	}
	return list
}

// overAbove returns the prices for larger prompts in the service s: its own, and those of lower for units that have no price in s.
func overAbove(lower []Above, s Service) []Above {
	list := slices.Clone(s.Above)
	for _, a := range lower {
		a.Prices = slices.DeleteFunc(slices.Clone(a.Prices), func(p Price) bool {
			return slices.ContainsFunc(s.Prices, func(q Price) bool { return q.Unit == p.Unit })
		})
		i := slices.IndexFunc(list, func(b Above) bool { return b.Tokens == a.Tokens })
		if i < 0 {
			list = append(list, a)
		} else {
			list[i].Prices = over(a.Prices, list[i].Prices)
		}
	}
	slices.SortFunc(list, func(a, b Above) int { return cmp.Compare(a.Tokens, b.Tokens) })
	return list
}

// times returns the prices per token, multiplied.
func times(prices []Price, factor decimal.Decimal) []Price {
	var list []Price
	for _, p := range prices {
		if slices.Contains(tokenClasses, meter.Class(p.Unit)) {
			p.Amount = p.Amount.Mul(factor)
			list = append(list, p)
		}
	}
	return list
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

// withMarkup returns the model with the markup added to each price, and each price rounded as it is charged.
func (m Model) withMarkup(markup Percent) Model {
	change := func(list []Price) []Price {
		list = slices.Clone(list)
		for i, p := range list {
			p.Amount = markup.onTop(p.Amount)
			list[i] = p.charged()
		}
		return list
	}
	above := func(list []Above) []Above {
		list = slices.Clone(list)
		for i, a := range list {
			list[i].Prices = change(a.Prices)
		}
		return list
	}
	m.Prices, m.Above = change(m.Prices), above(m.Above)
	m.Services = slices.Clone(m.Services)
	for i, s := range m.Services {
		m.Services[i] = Service{s.Name, change(s.Prices), above(s.Above)}
	}
	return m
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
