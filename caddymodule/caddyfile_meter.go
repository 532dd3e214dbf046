package caddymodule

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// meterWords lists the subdirectives of a meter, for error messages.
const meterWords = "payee, price, tariff, subscription, quality, count, cost, charge, agent, agent_auto, max_charge, max_body, durable_holds, on_exhausted, on_cancel, charge_on, keep_responses, shared, identify, rate, enforce"

func parseMeter(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	m := new(Meter)
	if err := m.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if err := checkTariffName(h, m.TariffName); err != nil {
		return nil, err
	}
	return m, m.checkAtLine(h)
}

// checkAtLine compiles a copy of the meter, so that what only the whole of its config shows to be wrong is told with the file and the line
// too. Catalogs are not read: the file may be on another machine.
func (m *Meter) checkAtLine(h httpcaddyfile.Helper) error {
	trial := *m
	var err error
	if trial.app, err = globalOption(h); err != nil {
		return err
	}
	trial.logger = zap.NewNop()
	if trial.Tariff != nil && trial.Tariff.Catalog != nil {
		trial.Tariff = new(pricing.Tariff)
	}
	if err := trial.compile(); err != nil {
		h.Reset()
		h.Next()
		return h.Errf("meter of %s: %v", m.Payee, err)
	}
	return nil
}

// globalOption returns the global option tallygate of the Caddyfile.
func globalOption(h httpcaddyfile.Helper) (*App, error) {
	app := new(App)
	option, ok := h.Option("tallygate").(httpcaddyfile.App)
	if !ok {
		return app, nil
	}
	return app, json.Unmarshal(option.Value, app)
}

// checkTariffName returns an error with the line if there is no tariff of that name.
func checkTariffName(h httpcaddyfile.Helper, name string) error {
	app, err := globalOption(h)
	if err != nil {
		return err
	}
	if _, ok := app.Tariffs[name]; ok || name == "" {
		return nil
	}
	for h.Reset(); h.Next(); {
		if h.Val() == "tariff" && h.NextArg() && h.Val() == name {
			break
		}
	}
	known := slices.Sorted(maps.Keys(app.Tariffs))
	return h.Errf("no tariff %q: the global option tallygate has %s", name, orNone(known))
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// UnmarshalCaddyfile reads
//
//	meter PAYEE A per [N] UNIT
//
// or
//
//	meter [PAYEE] {
//		payee PAYEE
//		price A per [N] UNIT
//		tariff NAME
//		tariff {
//			... (as in the global option: see App.UnmarshalCaddyfile)
//		}
//		subscription NAME A per D {
//			included N UNIT
//			overage A per [N] UNIT [from A]
//			rate N requests|tokens per D
//		}
//		quality header NAME | json PATH | http URL | payer within D {
//			>= X P%
//			else P%|dispute
//			on_error hold|pay|refund
//		}
//		count NAME header HEADER
//		count NAME json PATH
//		cost header NAME [scale S] [markup P%]
//		cost json [sum] PATH... [scale S] [markup P%]
//		charge wallet|escrow {
//			batch N UNIT
//			open A for D
//		}
//		agent PLACEHOLDER|IDENTITY ...
//		agent_auto
//		max_charge A
//		max_body SIZE
//		durable_holds above A
//		on_exhausted stop|finish
//		on_cancel free|finish
//		charge_on [STATUS...] [grpc NAME...]
//		keep_responses SIZE for D
//		shared GLOB...|none
//		identify upstream [signed] | none
//		rate N requests|tokens per D [model GLOB]
//		enforce on|off
//	}
func (m *Meter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	counted := countedNames(d)
	d.Next()
	args := d.RemainingArgs()
	if len(args) > 1 && args[1] == "per" {
		if _, err := ledger.ParseAmount(args[0]); err == nil {
			return d.Errf("'meter %s' names no payee, the agent that is paid: write 'meter PAYEE %[1]s'", strings.Join(args, " "))
		}
		return d.Errf("'meter %s' has no amount: write 'meter %s A %s'", strings.Join(args, " "), args[0], strings.Join(args[1:], " "))
	}
	if len(args) > 0 {
		m.Payee = args[0]
		if err := checkPayee(d, m.Payee); err != nil {
			return err
		}
	}
	if len(args) > 1 {
		if err := m.unmarshalPrice(d, args[1:], counted); err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		word := d.Val()
		if seen[word] && word != "price" && word != "count" && word != "rate" {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := m.checkOnePrice(d, word); err != nil {
			return err
		}
		if err := m.unmarshalWord(d, word, counted); err != nil {
			return err
		}
	}
	if m.Payee == "" {
		return d.Err("the meter has no payee: expected 'meter PAYEE A per [N] UNIT', or 'payee PAYEE' in its block")
	}
	if m.Cost != nil && !m.hasPrices() {
		return d.Errf("the meter of %s: %s", m.Payee, noPriceBesideCost)
	}
	if !m.hasPrices() && m.Subscription == nil {
		return d.Errf("the meter of %s has no price: expected 'price A per [N] UNIT', 'tariff NAME' or 'subscription NAME A per D'", m.Payee)
	}
	return nil
}

// checkOnePrice refuses a second way to price the calls, in its line.
func (m *Meter) checkOnePrice(d *caddyfile.Dispenser, word string) error {
	have := ""
	switch {
	case len(m.Prices) > 0:
		have = "price"
	case m.TariffName != "" || m.Tariff != nil:
		have = "tariff"
	case m.Subscription != nil:
		have = "subscription"
	}
	switch word {
	case "price", "tariff", "subscription":
	default:
		return nil
	}
	if have == "" || have == word {
		return nil
	}
	fix := "leave one of them out"
	if have == "subscription" || word == "subscription" {
		fix = "what calls cost beyond a subscription's quota is 'overage A per UNIT' in its block"
	}
	return d.Errf("the meter of %s has both a %s and a %s: %s", m.Payee, have, word, fix)
}

// checkPayee returns an error with the line if id is not valid as an agent's id.
func checkPayee(d *caddyfile.Dispenser, id string) error {
	var refusal *escrow.Refusal
	if errors.As(escrow.CheckAgentID("payee", id), &refusal) {
		return d.Err(refusal.Detail)
	}
	return nil
}

// unmarshalWord reads a line of the block: what is charged, and how.
func (m *Meter) unmarshalWord(d *caddyfile.Dispenser, word string, counted []string) error {
	switch word {
	case "payee":
		if m.Payee != "" {
			return d.Errf("payee is given twice: 'meter %s' names one already", m.Payee)
		}
		if err := oneArg(d, &m.Payee, "an agent's id"); err != nil {
			return err
		}
		return checkPayee(d, m.Payee)
	case "price":
		if err := m.unmarshalPrice(d, d.RemainingArgs(), counted); err != nil {
			return err
		}
		var err error
		last := &m.Prices[len(m.Prices)-1]
		*last, err = unmarshalTiers(d, *last, counted...)
		return err
	case "subscription":
		var err error
		m.Subscription, err = unmarshalSubscription(d, counted)
		return err
	case "quality":
		var err error
		m.Quality, err = unmarshalQuality(d)
		return err
	case "count":
		return m.unmarshalCount(d)
	case "cost":
		var err error
		m.Cost, err = unmarshalCost(d)
		return err
	case "tariff":
		return m.unmarshalTariff(d)
	case "charge":
		return m.unmarshalCharge(d, counted)
	default:
		return m.unmarshalOption(d, word)
	}
}

// unmarshalOption reads a line of the block that is not about prices.
func (m *Meter) unmarshalOption(d *caddyfile.Dispenser, word string) error {
	switch word {
	case "agent":
		return m.unmarshalAgent(d)
	case "agent_auto":
		if m.AgentAuto = true; d.NextArg() {
			return d.Errf("unexpected %q: expected 'agent_auto' alone", d.Val())
		}
		return nil
	case "max_charge":
		return oneAmount(d, &m.MaxCharge)
	case "max_body":
		return oneSize(d, &m.MaxBody)
	case "durable_holds":
		args := d.RemainingArgs()
		if len(args) != 2 || args[0] != "above" {
			return d.Errf("unexpected 'durable_holds %s': expected 'durable_holds above A'", strings.Join(args, " "))
		}
		m.DurableHolds = args[1]
		if _, err := ledger.ParseAmount(args[1]); err != nil {
			return d.Errf("unexpected %q: expected an amount such as 0.50", args[1])
		}
		return nil
	case "keep_responses":
		var err error
		m.KeepResponses, err = unmarshalKeepResponses(d)
		return err
	case "shared":
		m.Shared = d.RemainingArgs()
		_, err := gateway.ParseShared(m.Shared)
		return atLine(d, err)
	case "identify":
		return unmarshalIdentify(d, &m.Identify)
	case "rate":
		rate, err := unmarshalRate(d, true)
		m.CallRates = append(m.CallRates, rate)
		return err
	case "on_exhausted":
		return oneOf(d, &m.OnExhausted, exhaustedStop, exhaustedFinish)
	case "on_cancel":
		return oneOf(d, &m.OnCancel, cancelFree, cancelFinish)
	case "enforce":
		return oneOf(d, &m.Enforce, "on", "off")
	case "charge_on":
		return m.unmarshalChargeOn(d)
	default:
		return d.Errf("unrecognized subdirective %q of meter: expected one of %s", word, meterWords)
	}
}

// unmarshalChargeOn reads the statuses of answers that are charged.
func (m *Meter) unmarshalChargeOn(d *caddyfile.Dispenser) error {
	m.ChargeOn = d.RemainingArgs()
	statuses, grpc := splitChargeOn(m.ChargeOn)
	if len(statuses)+len(grpc) == 0 {
		return d.Err("charge_on needs statuses: expected for example 'charge_on 2xx 101', or 'charge_on grpc OK'")
	}
	for _, status := range statuses {
		if _, err := parseStatus(status); err != nil {
			return atLine(d, err)
		}
	}
	_, err := grpcChargedOn(grpc)
	return atLine(d, err)
}

// unmarshalAgent reads how the caller is identified: by a placeholder or by a module.
func (m *Meter) unmarshalAgent(d *caddyfile.Dispenser) (err error) {
	if d.NextArg() {
		name := d.Val()
		d.Prev()
		if isGuest(identityKey, name) {
			m.IdentityRaw, err = unmarshalGuest[gateway.Identity](d, "identity", identityKey, "a module that identifies callers")
			return err
		}
	}
	if err := oneArg(d, &m.Agent, "a placeholder such as {http.auth.user.id}"); err != nil {
		return err
	}
	if !strings.Contains(m.Agent, "{") { // a fixed text would make all callers the same agent
		return d.Errf("unexpected %q: expected a placeholder such as {http.auth.user.id}", m.Agent)
	}
	return nil
}

// countedNames returns the units that the `count` lines of the block name. Prices may use these units before the lines that name them.
func countedNames(d *caddyfile.Dispenser) []string {
	var names []string
	for d.Next() {
		if d.Val() == "count" && d.NextArg() {
			names = append(names, d.Val())
		}
	}
	d.Reset()
	return names
}

func (m *Meter) unmarshalPrice(d *caddyfile.Dispenser, args, counted []string) error {
	price, err := pricing.ParsePrice(args, counted...)
	if err != nil {
		return atLine(d, err)
	}
	m.Prices = append(m.Prices, price)
	return nil
}

func (m *Meter) unmarshalCount(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 3 || args[1] != "header" && args[1] != "json" {
		return d.Errf("unexpected 'count %s': expected 'count NAME header HEADER' or 'count NAME json PATH'", strings.Join(args, " "))
	}
	if err := pricing.CheckCount(args[0]); err != nil {
		return atLine(d, err)
	}
	count := Count{Name: args[0]}
	if args[1] == "header" {
		count.Header = args[2]
	} else {
		count.JSON = args[2]
	}
	m.Counts = append(m.Counts, count)
	return nil
}

func (m *Meter) unmarshalTariff(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		m.TariffName = d.Val()
		if d.NextArg() {
			return d.Errf("unexpected %q: expected 'tariff NAME' or 'tariff { ... }'", d.Val())
		}
		return nil
	}
	tariff, err := unmarshalTariff(d)
	m.Tariff = tariff
	return err
}

func (m *Meter) unmarshalCharge(d *caddyfile.Dispenser, counted []string) error {
	m.Charge = new(Charge)
	if err := oneOf(d, &m.Charge.From, fromWallet, fromEscrow); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "batch":
			batch, err := pricing.ParseMeasure(d.RemainingArgs(), counted...)
			if err != nil {
				return atLine(d, err)
			}
			m.Charge.Batch = &batch
		case "open":
			args := d.RemainingArgs()
			if len(args) != 3 || args[1] != "for" {
				return d.Errf("unexpected 'open %s': expected 'open A for D', such as 'open 5.00 for 168h'", strings.Join(args, " "))
			}
			if err := checkAmount(d, args[0]); err != nil {
				return err
			}
			lasts, err := caddy.ParseDuration(args[2])
			if err != nil || lasts <= 0 {
				return d.Errf("unexpected %q: expected a duration such as 168h", args[2])
			}
			m.Charge.Open, m.Charge.For = args[0], caddy.Duration(lasts)
		default:
			return d.Errf("unrecognized subdirective %q of charge: expected one of batch, open", word)
		}
	}
	return nil
}

// oneOf reads an argument that must be one of the words.
func oneOf(d *caddyfile.Dispenser, into *string, words ...string) error {
	expected := "'" + strings.Join(words, "' or '") + "'"
	name := d.Val()
	if err := oneArg(d, into, expected); err != nil {
		return err
	}
	for _, word := range words {
		if *into == word {
			return nil
		}
	}
	return d.Errf("unexpected '%s %s': expected %s", name, *into, expected)
}

// atLine adds file and line to an error that does not come from the Caddyfile parser.
func atLine(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.WrapErr(err)
}
