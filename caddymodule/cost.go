package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// Cost charges an answer at the price that the provider itself states in it, taken as an amount of the ledger's currency. The prices or the
// tariff beside it bound the call beforehand, are drawn while it streams, and are charged where the provider states no cost.
type Cost struct {
	// Header is the response header that states it.
	Header string `json:"header,omitempty"`

	// JSON are the paths at which the response body states it, in gjson's syntax; a leading "$." is ignored. Of several, the first that the
	// response has. Of a stream, the last message that has it counts. Either these or a header.
	JSON []string `json:"json,omitempty"`

	// Markup is added to it, as in "20%". Default: nothing is.
	Markup pricing.Percent `json:"markup,omitzero"`

	probes []*probe.Probe
}

// noPriceBesideCost is what is said of a cost that stands alone.
const noPriceBesideCost = "expected 'price A per [N] UNIT' or 'tariff NAME' beside cost: it bounds a call before it is made, and is charged where the provider states no cost"

func (c *Cost) provision() error {
	if (c.Header == "") == (len(c.JSON) == 0) {
		return errors.New("cost: expected either a header or a JSON path")
	}
	if c.Header != "" {
		at, err := probe.Header(c.Header)
		c.probes = []*probe.Probe{at}
		return err
	}
	for _, path := range c.JSON {
		at, err := probe.JSON(path)
		if err != nil {
			return err
		}
		if at.Sums() {
			return fmt.Errorf("cost json %q: expected the path of one value; what # adds up is no longer exact", path)
		}
		c.probes = append(c.probes, at)
	}
	return nil
}

// String writes it in the words of the Caddyfile.
func (c *Cost) String() string {
	words := "header " + c.Header
	if c.Header == "" {
		words = "json " + strings.Join(c.JSON, " ")
	}
	if !c.Markup.IsZero() {
		words += " markup " + c.Markup.String()
	}
	return words
}

// unmarshalCost reads
//
//	cost header NAME [markup P%]
//	cost json PATH... [markup P%]
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
	switch {
	case len(at) == 2 && at[0] == "header":
		c.Header = at[1]
	case len(at) >= 2 && at[0] == "json":
		c.JSON = at[1:]
	default:
		return nil, d.Errf("unexpected 'cost %s': expected 'cost header NAME' or 'cost json PATH', and 'markup P%%' after it where there is one", strings.Join(args, " "))
	}
	check := *c
	return c, atLine(d, check.provision())
}

// readsCost reports whether the response may state what it costs. A connection that leaves HTTP, or a file of results, has many answers, each
// with a cost of its own.
func (c *call) readsCost() bool {
	return c.meter.Cost != nil && c.status != http.StatusSwitchingProtocols && c.asked.Once == ""
}

// bill prices a usage at the cost that the provider states; where that is none, at the prices. Some providers state 0 in each event
// until the last one: in an answer that was cut it is no cost.
func (c *call) bill(usage meter.Usage, cut bool) (bill, error) {
	b, err := c.priceUsage(usage)
	if usage.Cost == "" || !c.readsCost() {
		return b, err
	}
	markup := c.meter.Cost.Markup
	nano, refused := pricing.MarkupCost(usage.Cost, markup)
	if refused != nil {
		return b, errors.Join(err, refused)
	}
	cost, _ := pricing.ParseAmount(usage.Cost)
	if cut && cost.IsZero() {
		return b, err
	}
	return bill{amount: ledger.Amount(nano), units: b.units, cost: cost.String(), markup: markup.String()}, nil
}
