package pricing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Case has prices for some callers, or for some hours. Its own lines are tried before those of the tariff around it, which apply to
// everything that the case does not mention. In a Caddyfile:
//
//	at 16:30-00:30 UTC {
//		model deepseek-chat {
//			input 0.135 per 1M tokens
//			output 0.55 per 1M tokens
//		}
//	}
//	for acme-* partner {
//		catalog prices.json markup 5%
//	}
type Case struct {
	// Agents are globs of the callers' ids. Empty: the case is for all callers.
	Agents []string `json:"agents,omitempty"`
	// At are the hours in which a call must arrive. Missing: the case is for any time.
	At Hours `json:"at,omitzero"`
	// Tariff has the prices. It may have cases of its own. A catalog in it must be that of the tariff around it, and may have another markup.
	Tariff

	whole *Tariff // Tariff, completed from the tariff around it
}

// holds reports whether the case applies to a call.
func (c *Case) holds(agent string, at time.Time) bool {
	return c.isFor(agent) && (c.At.IsZero() || c.At.Hold(at))
}

// isFor reports whether the case is for a caller.
func (c *Case) isFor(agent string) bool {
	return len(c.Agents) == 0 || slices.ContainsFunc(c.Agents, func(glob string) bool { return MatchExact(glob, agent) }) // ids are case-sensitive
}

// Under returns the tariff for a call that an agent makes at a time: t itself, or the first of its cases that applies. t must be compiled.
func (t *Tariff) Under(agent string, at time.Time) *Tariff {
	if t == nil {
		return nil
	}
	for i := range t.Cases {
		if c := &t.Cases[i]; c.holds(agent, at) {
			return c.whole.Under(agent, at)
		}
	}
	return t
}

// compile prepares a case of the tariff around it.
func (c *Case) compile(around *Tariff, catalog *Catalog, counts []string) error {
	if len(c.Agents) == 0 && c.At.IsZero() || slices.Contains(c.Agents, "") {
		return errors.New("a case without a condition: name agents (* for any), or hours")
	}
	if err := c.compileWhole(around, catalog, counts); err != nil {
		return fmt.Errorf("%s: %w", c.condition(), err)
	}
	return nil
}

func (c *Case) compileWhole(around *Tariff, catalog *Catalog, counts []string) error {
	if c.isEmpty() {
		return errors.New("no prices: add model GLOB { ... }, tool GLOB A per call, or catalog FILE")
	}
	if c.Catalog != nil && (around.Catalog == nil || c.Catalog.File != around.Catalog.File) {
		return fmt.Errorf("catalog %s: name the catalog of the tariff around, which has the other prices too", c.Catalog.File)
	}
	whole := c.Tariff
	whole.Models = slices.Concat(c.Models, around.Models)
	whole.Tools = slices.Concat(c.Tools, around.Tools)
	whole.Catalog = cmp.Or(c.Catalog, around.Catalog)
	whole.MaxOutput = cmp.Or(c.MaxOutput, around.MaxOutput)
	c.whole = &whole
	return whole.compile(catalog, len(c.Models), counts)
}

// isEmpty reports whether the tariff has no line with a price.
func (t *Tariff) isEmpty() bool {
	return len(t.Models) == 0 && len(t.Tools) == 0 && t.Catalog == nil && len(t.Cases) == 0
}

// condition returns the condition of the case in the words of the Caddyfile.
func (c *Case) condition() string {
	if len(c.Agents) > 0 {
		return "for " + strings.Join(c.Agents, " ")
	}
	return "at " + c.At.String()
}
