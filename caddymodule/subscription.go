package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// Subscription lets a meter's calls be paid by a flat rate for a period. Agents consent to it by POST /api/v1/subscriptions;
// a call without one is refused with 402 subscription_required. It renews until it is ended, or the wallet does not cover it.
type Subscription struct {
	// Name of the plan, unique among its payee's.
	Name string `json:"name"`
	// Price of a period.
	Price string `json:"price"`
	// Period that the price is for.
	Period caddy.Duration `json:"period"`
	// Included is how much a period includes. Absent: as much as is asked for.
	Included *pricing.Measure `json:"included,omitempty"`
	// Overage is what each unit beyond costs. Absent: a call beyond what is included is refused.
	Overage *Overage `json:"overage,omitempty"`

	plan  escrow.Plan
	rates *pricing.Rates // of what is beyond the quota; of nothing, where that is not for sale
}

// Overage is the price of what is used beyond a quota.
type Overage struct {
	// Price of a unit.
	Price pricing.Price `json:"price"`
	// From is the amount that is locked each period to pay the overage from; what is not used of it comes back at the
	// period's end. Empty: the overage is paid from the wallet.
	From string `json:"from,omitempty"`
}

func (s *Subscription) provision(payee string, counted []string) error {
	price, err := positive("price", s.Price)
	if err != nil {
		return err
	}
	if s.Name == "" || s.Period <= 0 {
		return errors.New("expected 'subscription NAME A per D'")
	}
	s.plan = escrow.Plan{Payee: payee, Name: s.Name, Price: price, Period: time.Duration(s.Period)}
	over := pricing.Price{Unit: "call"}
	if s.Included != nil {
		if err := s.Included.Check(counted...); err != nil {
			return fmt.Errorf("included: %w", err)
		}
		s.plan.Unit, over.Unit = s.Included.Unit, s.Included.Unit
		s.plan.Included = s.Included.N * escrow.Micro
	}
	if s.Overage != nil {
		if s.Included == nil {
			return errors.New("overage goes with 'included N UNIT' only")
		}
		if s.Overage.Price.Unit != s.Included.Unit {
			return fmt.Errorf("overage per %s: expected per %s, as what is included", s.Overage.Price.Unit, s.Included.Unit)
		}
		over = s.Overage.Price
		s.plan.Overage, s.plan.OveragePrice = true, over.String()
		if s.Overage.From != "" {
			if s.plan.Pool, err = positive("overage from", s.Overage.From); err != nil {
				return err
			}
		}
	}
	s.rates, err = pricing.NewRates([]pricing.Price{over}, counted...)
	return err
}

// String writes the plan in the words of the Caddyfile.
func (s *Subscription) String() string {
	text := fmt.Sprintf("subscription %s %s per %s", s.Name, s.plan.Price, escrow.Period(s.plan.Period))
	if s.counted() {
		text += ", included " + s.Included.String()
	}
	if s.Overage != nil {
		text += ", overage " + s.Overage.Price.String()
	}
	if s.plan.Pool > 0 {
		text += " from " + s.plan.Pool.String()
	}
	return text
}

// counted reports whether the plan has a quota.
func (s *Subscription) counted() bool { return s.Included != nil }

// used is how much of the quota's unit is in units, in millionths.
func (s *Subscription) used(units meter.Units) int64 {
	if !s.counted() {
		return 0
	}
	return int64(s.Included.In(units))
}

// over is the price of so many millionths of a unit beyond the quota.
func (s *Subscription) over(units int64) ledger.Amount {
	nano, _ := s.rates.Due(meter.Usage{Units: s.Included.Priced(meter.Quantity(units))}) // too much is the most there is
	return ledger.Amount(nano)
}

// order fills in what a call takes of the subscription: of a unit that is counted before the answer, all; else what the input
// and the first batch of the answer can come to.
func (s *Subscription) order(c *call, o *escrow.CallOrder) {
	o.From, o.Plan, o.Pattern = escrow.FromSubscription, s.Name, "subscription"
	o.Least, o.Most = 0, 0
	if !s.counted() {
		return
	}
	o.Over = s.over
	first := meter.Units{meter.Calls: meter.Whole(1)}
	if c.rates.UsesTokens() {
		output := c.batchTokens()
		if c.asked.MaxOutput > 0 {
			output = min(output, c.asked.MaxOutput)
		}
		first.Add(meter.Input, meter.Whole(c.asked.InputTokens))
		first.Add(meter.Output, meter.Whole(output))
	}
	o.Quota = s.used(first)
}

// cover extends what a running call may take of the quota, and beyond it of the overage. It reports false when neither has
// enough.
func (s *Subscription) cover(c *call, bound meter.Units) bool {
	need := s.used(bound)
	if need <= c.quota {
		return true
	}
	for _, target := range []int64{need + s.batch(c), need} {
		if c.auth.ExtendQuota(target) {
			c.quota = target
			return true
		}
	}
	return false
}

// batch is how much further a running call asks for at a time.
func (s *Subscription) batch(c *call) int64 {
	if s.Included.Unit == c.meter.batch.Unit {
		return c.meter.batch.N * escrow.Micro
	}
	return escrow.Micro
}

// writeTerms tells in headers what is left of the quota, and warns ahead of a renewal that can't be paid.
func (s *Subscription) writeTerms(c *call, h http.Header) {
	sub, ok := c.auth.Subscription()
	if !ok {
		return
	}
	terms := fmt.Sprintf("%s; renews=%s", s.Name, sub.PeriodEnd.UTC().Format(time.RFC3339))
	if s.counted() {
		terms += "; left=" + meter.Quantity(c.charge.QuotaLeft).String()
	}
	if !sub.RenewalFunded {
		terms += "; renewal=unfunded"
	}
	h.Set(headerSubscription, terms)
}

// unmarshalSubscription reads
//
//	subscription NAME A per D {
//		included N UNIT
//		overage A per UNIT [from A]
//	}
func unmarshalSubscription(d *caddyfile.Dispenser, counted []string) (*Subscription, error) {
	args := d.RemainingArgs()
	if len(args) != 4 || args[2] != "per" {
		return nil, d.Errf("unexpected 'subscription %s': expected 'subscription NAME A per D', such as 'subscription weekly 10.00 per 168h'", strings.Join(args, " "))
	}
	if err := checkAmount(d, args[1]); err != nil {
		return nil, err
	}
	period, err := caddy.ParseDuration(args[3])
	if err != nil || period <= 0 {
		return nil, d.Errf("unexpected %q: expected a duration such as 168h", args[3])
	}
	s := &Subscription{Name: args[0], Price: args[1], Period: caddy.Duration(period)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "included":
			included, err := pricing.ParseMeasure(d.RemainingArgs(), counted...)
			if err != nil {
				return nil, atLine(d, err)
			}
			s.Included = &included
		case "overage":
			if s.Overage, err = unmarshalOverage(d, counted); err != nil {
				return nil, err
			}
		default:
			return nil, d.Errf("unrecognized subdirective %q of subscription: expected one of included, overage", d.Val())
		}
	}
	check := *s
	return s, atLine(d, check.provision("payee", counted))
}

func unmarshalOverage(d *caddyfile.Dispenser, counted []string) (*Overage, error) {
	args := d.RemainingArgs()
	o := new(Overage)
	if n := len(args); n >= 2 && args[n-2] == "from" {
		o.From, args = args[n-1], args[:n-2]
		if err := checkAmount(d, o.From); err != nil {
			return nil, err
		}
	}
	price, err := pricing.ParsePrice(args, counted...)
	if err != nil {
		return nil, d.Errf("overage: %v: expected 'overage A per UNIT [from A]'", err)
	}
	o.Price = price
	return o, nil
}
