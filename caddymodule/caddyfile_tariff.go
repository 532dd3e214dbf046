package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/pricing"
)

// unmarshalTariff reads the block of a tariff.
func unmarshalTariff(d *caddyfile.Dispenser) (*pricing.Tariff, error) {
	t := new(pricing.Tariff)
	if err := unmarshalPrices(d, t); err != nil {
		return nil, err
	}
	if len(t.Models) == 0 && len(t.Tools) == 0 && t.Catalog == nil && len(t.Cases) == 0 {
		return nil, d.Err("the tariff is empty: expected 'model GLOB { ... }', 'tool GLOB A per call' or 'catalog FILE'")
	}
	return t, nil
}

// unmarshalPrices reads the lines of a tariff, or of a case (for, at) in a tariff.
func unmarshalPrices(d *caddyfile.Dispenser, t *pricing.Tariff) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "model":
			err = unmarshalModel(d, t)
		case "tool":
			var tool pricing.ToolPrice
			if tool, err = pricing.ParseToolPrice(d.RemainingArgs()); err == nil {
				t.Tools = append(t.Tools, tool)
			}
			err = atLine(d, err)
		case "catalog":
			var use pricing.CatalogUse
			if t.Catalog != nil {
				return d.Err("catalog is given twice")
			}
			if use, err = pricing.ParseCatalogUse(d.RemainingArgs()); err == nil {
				t.Catalog = &use
			}
			err = atLine(d, err)
		case "max_output":
			t.MaxOutput, err = unmarshalNumber(d)
		case "for", "at":
			err = unmarshalCase(d, t)
		default:
			return d.Errf("unrecognized subdirective %q of tariff: expected one of model, tool, catalog, max_output, for, at", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalCase reads
//
//	for GLOB... {
//		...
//	}
//	at [DAYS] HH:MM-HH:MM ZONE {
//		...
//	}
func unmarshalCase(d *caddyfile.Dispenser, t *pricing.Tariff) error {
	var c pricing.Case
	word, args := d.Val(), d.RemainingArgs()
	switch {
	case word == "at":
		var err error
		if c.At, err = pricing.ParseHours(args); err != nil {
			return atLine(d, err)
		}
	case len(args) == 0:
		return d.Err("expected 'for GLOB... { ... }': the agents that these prices are for; * matches any text")
	default:
		c.Agents = args
	}
	line := d.Line()
	if err := unmarshalPrices(d, &c.Tariff); err != nil {
		return err
	}
	if len(c.Models) == 0 && len(c.Tools) == 0 && c.Catalog == nil && len(c.Cases) == 0 {
		return d.Errf("'%s' in line %d has no prices: expected a block with 'model GLOB { ... }', 'tool GLOB A per call' or 'catalog FILE'", word, line)
	}
	t.Cases = append(t.Cases, c)
	return nil
}

func unmarshalModel(d *caddyfile.Dispenser, t *pricing.Tariff) error {
	var m pricing.Model
	if err := oneArg(d, &m.Glob, "a model's name, in which * matches any text, then a block"); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "above":
			var above pricing.Above
			if above, err = unmarshalAbove(d); err == nil {
				m.Above = append(m.Above, above)
			}
		case "service":
			var service pricing.Service
			if service, err = unmarshalService(d); err == nil {
				m.Services = append(m.Services, service)
			}
		case "minimum":
			m.Minimum, err = pricing.ParseMinimum(d.RemainingArgs())
			err = atLine(d, err)
		case "max_output":
			m.MaxOutput, err = unmarshalNumber(d)
		default:
			m.Prices, err = appendClassPrice(d, m.Prices)
		}
		if err != nil {
			return err
		}
	}
	if len(m.Prices) == 0 {
		return d.Errf("model %s has no price: expected lines such as 'input 0.15 per 1M tokens'", m.Glob)
	}
	t.Models = append(t.Models, m)
	return nil
}

func unmarshalAbove(d *caddyfile.Dispenser) (pricing.Above, error) {
	tokens, err := pricing.ParseAbove(d.RemainingArgs())
	above := pricing.Above{Tokens: tokens}
	if err != nil {
		return above, atLine(d, err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if above.Prices, err = appendClassPrice(d, above.Prices); err != nil {
			return above, err
		}
	}
	return above, nil
}

func unmarshalService(d *caddyfile.Dispenser) (pricing.Service, error) {
	var service pricing.Service
	if err := oneArg(d, &service.Name, "a service tier such as batch, flex or priority, then a block"); err != nil {
		return service, err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		if d.Val() == "above" {
			var above pricing.Above
			if above, err = unmarshalAbove(d); err == nil {
				service.Above = append(service.Above, above)
			}
		} else {
			service.Prices, err = appendClassPrice(d, service.Prices)
		}
		if err != nil {
			return service, err
		}
	}
	return service, nil
}

// appendClassPrice reads a line such as `input 0.15 per 1M tokens`.
func appendClassPrice(d *caddyfile.Dispenser, prices []pricing.Price) ([]pricing.Price, error) {
	price, err := pricing.ParseClassPrice(d.Val(), d.RemainingArgs())
	if err != nil {
		return nil, atLine(d, err)
	}
	price, err = unmarshalTiers(d, price)
	return append(prices, price), err
}

// unmarshalTiers reads the block after a price, if there is one. The lines of the block are
//
//	after N A
//	volume
//	each day|week|month
func unmarshalTiers(d *caddyfile.Dispenser, price pricing.Price, counted ...string) (pricing.Price, error) {
	var t pricing.Tiers
	line := 0
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		line = d.Line()
		switch d.Val() {
		case "after":
			tier, err := pricing.ParseTier(d.RemainingArgs())
			if err != nil {
				return price, atLine(d, err)
			}
			t.After = append(t.After, tier)
		case "volume":
			if d.NextArg() {
				return price, d.Errf("unexpected %q after volume", d.Val())
			}
			t.Volume = true
		case "each":
			if err := oneArg(d, &t.Each, "one of day, week, month"); err != nil {
				return price, err
			}
		default:
			return price, d.Errf("unrecognized subdirective %q of a price: expected one of after, volume, each", d.Val())
		}
	}
	if line == 0 {
		return price, nil
	}
	price, err := price.WithTiers(t, counted...)
	return price, atLine(d, err)
}

func unmarshalNumber(d *caddyfile.Dispenser) (int64, error) {
	var word string
	if err := oneArg(d, &word, "a number such as 4096 or 16k"); err != nil {
		return 0, err
	}
	n, err := pricing.ParseNumber(word)
	return n, atLine(d, err)
}
