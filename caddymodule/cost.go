package caddymodule

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// Cost charges the cost that the provider itself states in its answer, as an amount of the ledger's currency. The meter also needs prices
// or a tariff: they bound the cost of a call before it is made, and are drawn while a response is streamed. If the provider states no
// cost, they are charged.
type Cost struct {
	// Header is the response header that states the cost.
	Header string `json:"header,omitempty"`

	// JSON are the paths of the cost in the response body, in gjson's syntax. A leading "$." is ignored. Of several paths, the first counts
	// that the response has. In a stream, the last message counts that has the path. Set either JSON or Header.
	JSON []string `json:"json,omitempty"`

	// Sum adds up the values at all paths. A path that the response does not have counts as 0.
	Sum bool `json:"sum,omitempty"`

	// Scale is the value of the unit in which the cost is stated, such as "1e-10" for xAI's ticks. Default: "1".
	Scale string `json:"scale,omitempty"`

	// Markup is added to the cost, such as "20%". Default: nothing.
	Markup pricing.Percent `json:"markup,omitzero"`
}

// noPriceBesideCost is the error for a cost without prices and without a tariff.
const noPriceBesideCost = "cost also needs 'price A per [N] UNIT' or 'tariff NAME': that bounds a call before it is made, and is charged if the provider states no cost"

// compile checks the cost and converts it for the gateway.
func (c *Cost) compile() (*gateway.Cost, error) {
	if (c.Header == "") == (len(c.JSON) == 0) {
		return nil, errors.New("cost: expected either a header or a JSON path")
	}
	if c.Sum && len(c.JSON) < 2 {
		return nil, errors.New("cost: expected two JSON paths or more after sum")
	}
	compiled := &gateway.Cost{Markup: c.Markup, Words: c.String()}
	if c.Scale != "" {
		var err error
		if compiled.Scale, err = pricing.ParseAmount(c.Scale); err != nil || !compiled.Scale.IsPositive() {
			return nil, fmt.Errorf("cost scale %q: expected a decimal above 0, such as 1e-10", c.Scale)
		}
	}
	if c.Header != "" {
		at, err := probe.Header(c.Header)
		if err != nil {
			return nil, err
		}
		compiled.Probes = []*probe.Probe{at}
	}
	for _, path := range c.JSON {
		at, err := probe.JSON(path)
		if err != nil {
			return nil, err
		}
		if at.Sums() {
			return nil, fmt.Errorf("cost json %q: expected the path of one value; a path with # is not exact, use 'sum' to add up several paths", path)
		}
		compiled.Probes = append(compiled.Probes, at)
	}
	if c.Sum {
		compiled.Probes = []*probe.Probe{probe.Sum(compiled.Probes)}
	}
	return compiled, nil
}

// String returns the cost in the syntax of the Caddyfile.
func (c *Cost) String() string {
	words := "header " + c.Header
	if c.Header == "" {
		words = "json " + strings.Join(c.JSON, " ")
	}
	if c.Sum {
		words = "json sum " + strings.Join(c.JSON, " ")
	}
	if c.Scale != "" {
		words += " scale " + c.Scale
	}
	if !c.Markup.IsZero() {
		words += " markup " + c.Markup.String()
	}
	return words
}

// unmarshalCost reads
//
//	cost header NAME [scale S] [markup P%]
//	cost json [sum] PATH... [scale S] [markup P%]
func unmarshalCost(d *caddyfile.Dispenser) (*Cost, error) {
	args := d.RemainingArgs()
	c := new(Cost)
	at := args
	if n := len(args); n >= 2 && args[n-2] == "markup" {
		var err error
		if c.Markup, err = pricing.ParsePercent(args[n-1]); err != nil {
			return nil, atLine(d, err)
		}
		at = args[:n-2]
	}
	if n := len(at); n >= 3 && at[n-2] == "scale" {
		c.Scale, at = at[n-1], at[:n-2]
	}
	switch {
	case len(at) == 2 && at[0] == "header":
		c.Header = at[1]
	case len(at) >= 4 && at[0] == "json" && at[1] == "sum":
		c.Sum, c.JSON = true, at[2:]
	case len(at) >= 2 && at[0] == "json":
		c.JSON = at[1:]
	default:
		return nil, d.Errf("unexpected 'cost %s': expected 'cost header NAME [markup P%%]' or 'cost json PATH [markup P%%]'", strings.Join(args, " "))
	}
	_, err := c.compile()
	return c, atLine(d, err)
}
