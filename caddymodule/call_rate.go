package caddymodule

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// CallRate is how often each agent may call, or how many tokens its calls may use. A call beyond that is refused with 429 and Retry-After. What
// was used comes back evenly over the period. Rates are counted in memory.
type CallRate struct {
	// N is how many.
	N int64 `json:"n"`
	// Unit is "requests" or "tokens".
	Unit string `json:"unit"`
	// Per is the period.
	Per caddy.Duration `json:"per"`
	// Model is a glob; only calls of models that it matches count. Default: all calls.
	Model string `json:"model,omitempty"`
}

const (
	rateRequests = "requests"
	rateTokens   = "tokens"
	maxRate      = 1_000_000_000
)

// compile converts the rate for the gateway. owner is what has the rate, and name tells it from others.
func (r CallRate) compile(owner, name string) (gateway.CallRate, error) {
	if r.N <= 0 || r.N > maxRate || r.Per <= 0 || r.Unit != rateRequests && r.Unit != rateTokens {
		return gateway.CallRate{}, fmt.Errorf("rate %s: expected 'rate N requests|tokens per D', with N up to %d", r, maxRate)
	}
	if r.Model != "" {
		owner = "model"
	}
	return gateway.CallRate{
		CallRate: escrow.CallRate{Name: name + " " + r.String(), Owner: owner, N: r.N, Per: time.Duration(r.Per), Tokens: r.Unit == rateTokens}, Model: r.Model,
	}, nil
}

// String returns the rate in the syntax of the Caddyfile, without the word rate.
func (r CallRate) String() string {
	text := fmt.Sprintf("%d %s per %s", r.N, r.Unit, escrow.Period(time.Duration(r.Per)))
	if r.Model != "" {
		text += " model " + r.Model
	}
	return text
}

// compileRates adds rates to the meter's route.
func (m *Meter) compileRates() error {
	for _, r := range m.CallRates {
		rate, err := r.compile("route", "")
		if err != nil {
			return err
		}
		m.route.CallRates = append(m.route.CallRates, rate)
	}
	if m.Subscription == nil {
		return nil
	}
	for _, r := range m.Subscription.CallRates {
		rate, err := r.compile("plan", m.Subscription.Name)
		if err != nil {
			return fmt.Errorf("subscription %s: %w", m.Subscription.Name, err)
		}
		m.route.CallRates = append(m.route.CallRates, rate)
	}
	return nil
}

// unmarshalRate reads
//
//	rate N requests|tokens per D [model GLOB]
//
// The word model is accepted where models is true.
func unmarshalRate(d *caddyfile.Dispenser, models bool) (r CallRate, err error) {
	expected := "expected 'rate N requests|tokens per D'"
	if models {
		expected = "expected 'rate N requests|tokens per D [model GLOB]'"
	}
	args := d.RemainingArgs()
	if len(args) != 4 && (len(args) != 6 || args[4] != "model" || !models) || args[2] != "per" {
		return r, d.Errf("unexpected 'rate %s': %s, such as 'rate 60 requests per 1m'", strings.Join(args, " "), expected)
	}
	if r.N, err = pricing.ParseNumber(args[0]); err != nil {
		return r, d.Errf("unexpected %q: expected a number such as 60 or 100k", args[0])
	}
	r.Unit = args[1]
	if !strings.HasSuffix(r.Unit, "s") {
		r.Unit += "s"
	}
	per, err := caddy.ParseDuration(args[3])
	if err != nil || per <= 0 {
		return r, d.Errf("unexpected %q: expected a duration such as 1m", args[3])
	}
	r.Per = caddy.Duration(per)
	if len(args) == 6 {
		r.Model = args[5]
	}
	_, err = r.compile("", "")
	return r, atLine(d, err)
}
