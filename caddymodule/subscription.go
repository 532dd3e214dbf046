package caddymodule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// Subscription is a plan: calls to the meter are paid by a flat rate for a period. An agent subscribes by POST /api/v1/subscriptions. A
// call of an agent without the subscription is refused with 402 subscription_required. A subscription is renewed until it is ended, or
// until the agent's wallet has too little money.
type Subscription struct {
	// Name of the plan. It must be unique among the plans of its payee.
	Name string `json:"name"`
	// Price of one period.
	Price string `json:"price"`
	// Period is the time that the price pays for.
	Period caddy.Duration `json:"period,omitempty"`
	// Months, instead of Period, is how many calendar months a period has. A period ends on the day of the month on which the first one began,
	// or on the last day of a shorter month.
	Months int `json:"months,omitempty"`
	// Included is how much may be used in a period. Default: no limit.
	Included *pricing.Measure `json:"included,omitempty"`
	// Overage is the price of what is used beyond Included. Default: a call beyond Included is refused.
	Overage *Overage `json:"overage,omitempty"`
	// CallRates is how often each subscriber may call, on all routes of the plan together. Default: no limit.
	CallRates []CallRate `json:"rates,omitempty"`
}

// Overage is the price of what is used beyond the included quantity.
type Overage struct {
	// Price of one unit.
	Price pricing.Price `json:"price"`
	// From is an amount that is locked each period, and from which the overage is paid. What is left goes back to the payer at the end
	// of the period. Default: the overage is paid from the wallet.
	From string `json:"from,omitempty"`
}

// compile checks the subscription and converts it for the gateway.
func (s *Subscription) compile(payee string, counted []string) (*gateway.Subscription, error) {
	price, err := positive("price", s.Price)
	if err != nil {
		return nil, err
	}
	if s.Name == "" || (s.Period <= 0) == (s.Months <= 0) {
		return nil, errors.New("expected 'subscription NAME A per D'")
	}
	c := &gateway.Subscription{
		Plan:     escrow.Plan{Payee: payee, Name: s.Name, Price: price, Period: time.Duration(s.Period), Months: s.Months},
		Included: s.Included,
	}
	over := pricing.Price{Unit: "call"}
	if s.Included != nil {
		if err := s.Included.Check(counted...); err != nil {
			return nil, fmt.Errorf("included: %w", err)
		}
		c.Plan.Unit, over.Unit = s.Included.Unit, s.Included.Unit
		c.Plan.Included = s.Included.N * escrow.Micro
	}
	if s.Overage != nil {
		if over, err = s.compileOverage(&c.Plan); err != nil {
			return nil, err
		}
	} else if s.Included != nil {
		c.Rates, err = pricing.CountingRates(*s.Included, counted...)
		return c, err
	}
	c.Rates, err = pricing.NewRates([]pricing.Price{over}, counted...)
	return c, err
}

// compileOverage sets the overage in the plan, and returns its price.
func (s *Subscription) compileOverage(plan *escrow.Plan) (over pricing.Price, err error) {
	if s.Included == nil {
		return over, errors.New("overage can only be used with 'included N UNIT'")
	}
	if s.Overage.Price.Unit != s.Included.Unit {
		return over, fmt.Errorf("overage per %s: expected per %s, the unit of what is included", s.Overage.Price.Unit, s.Included.Unit)
	}
	if t := s.Overage.Price.Tiers; t != nil && t.Each != "" {
		return over, errors.New("overage: its tiers always count per period of the plan: leave 'each' out")
	}
	plan.Overage, plan.OveragePrice = true, s.Overage.Price.Words()
	if s.Overage.From != "" {
		if plan.Pool, err = positive("overage from", s.Overage.From); err != nil {
			return over, err
		}
	}
	return s.Overage.Price, nil
}

// String returns the subscription in the syntax of the Caddyfile.
func (s *Subscription) String() string {
	price, _ := ledger.ParseAmount(s.Price)
	text := fmt.Sprintf("subscription %s %s per %s", s.Name, price, escrow.Term{Length: time.Duration(s.Period), Months: s.Months})
	if s.Included != nil {
		text += ", included " + s.Included.String()
	}
	if s.Overage == nil {
		return text
	}
	text += ", overage " + s.Overage.Price.Words()
	if s.Overage.From != "" {
		from, _ := ledger.ParseAmount(s.Overage.From)
		text += " from " + from.String()
	}
	return text
}

// unmarshalSubscription reads
//
//	subscription NAME A per D {
//		included N UNIT
//		overage A per UNIT [from A] {
//			after N A
//			volume
//		}
//		rate N requests|tokens per D
//	}
func unmarshalSubscription(d *caddyfile.Dispenser, counted []string) (*Subscription, error) {
	args := d.RemainingArgs()
	if len(args) != 4 || args[2] != "per" {
		return nil, d.Errf("unexpected 'subscription %s': expected 'subscription NAME A per D', such as 'subscription weekly 10.00 per 168h'", strings.Join(args, " "))
	}
	if err := checkAmount(d, args[1]); err != nil {
		return nil, err
	}
	term, err := escrow.ParseTerm(args[3], caddy.ParseDuration)
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a duration such as 168h, or calendar months such as 1mo", args[3])
	}
	s := &Subscription{Name: args[0], Price: args[1], Period: caddy.Duration(term.Length), Months: term.Months}
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
		case "rate":
			rate, err := unmarshalRate(d, false)
			if err != nil {
				return nil, err
			}
			s.CallRates = append(s.CallRates, rate)
		default:
			return nil, d.Errf("unrecognized subdirective %q of subscription: expected one of included, overage, rate", d.Val())
		}
	}
	_, err = s.compile("payee", counted)
	return s, atLine(d, err)
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
	o.Price, err = unmarshalTiers(d, price, counted...)
	return o, err
}
