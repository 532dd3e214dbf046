package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// Meter stands before the provider's handlers: it recognises the agent, checks that it can pay, lets the request through,
// counts what the response used, prices it, and charges. A meter within another one charges alone.
type Meter struct {
	// Payee is the agent that is paid. It is made when the server starts, where it does not exist.
	Payee string `json:"payee,omitempty"`

	// Prices add up. Either these or a tariff.
	Prices []pricing.Price `json:"prices,omitempty"`

	// TariffName names a tariff of the global option.
	TariffName string `json:"tariff,omitempty"`

	// Tariff is a price list of this meter alone.
	Tariff *pricing.Tariff `json:"tariff_inline,omitempty"`

	// Subscription lets calls be paid by a flat rate for a period, in place of prices.
	Subscription *Subscription `json:"subscription,omitempty"`

	// Quality pays an answer by what it is worth.
	Quality *Quality `json:"quality,omitempty"`

	// Counts are units of the provider's own that its responses state, for prices such as "0.02 per 1k rows".
	Counts []Count `json:"counts,omitempty"`

	// Cost charges what the provider itself states that an answer costs, beside prices or a tariff.
	Cost *Cost `json:"cost,omitempty"`

	// Charge says where a call is paid from. Default: the agent's wallet.
	Charge *Charge `json:"charge,omitempty"`

	// KeepResponses keeps the answers of calls with an Idempotency-Key, to be given again. Default: a call that is made again is refused with
	// 409 and told its charge.
	KeepResponses *KeepResponses `json:"keep_responses,omitempty"`

	// Agent is a placeholder that names the calling agent, such as {http.auth.user.id}, where something before this
	// handler has authenticated it. Default: the agent is known by its Tallygate key.
	Agent string `json:"agent,omitempty"`

	// MaxCharge is the most that one call may cost. Default: no bound but the caller's money.
	MaxCharge string `json:"max_charge,omitempty"`

	// DurableHolds names an amount: what a call that can cost more than it is first held for is written to the disk before
	// the call goes to the provider (a few milliseconds), not only kept in memory. If the server dies in the middle of the
	// call, that amount is charged at the next start, marked "crash", so that a costly answer is never lost; the
	// payee or the operator may refund it. Default: no call's hold is written.
	DurableHolds string `json:"durable_holds,omitempty"`

	// OnExhausted says what happens when the money runs out in the middle of a stream: "stop" (the default) ends the stream
	// with an error event, "finish" lets it run on, unpaid from there.
	OnExhausted string `json:"on_exhausted,omitempty"`

	// OnCancel says what a client pays that leaves before the first byte: "free" (the default) cancels the upstream call
	// and charges nothing, "finish" awaits the upstream's answer and charges it.
	OnCancel string `json:"on_cancel,omitempty"`

	// ChargeOn lists the response statuses that are charged: codes, or classes such as "2xx". Default: 2xx and 101.
	ChargeOn []string `json:"charge_on,omitempty"`

	// Enforce "off" is shadow mode: calls are counted, priced and recorded, but nothing is refused and nothing charged, so
	// that a provider can see what it would earn. Default: on.
	Enforce string `json:"enforce,omitempty"`

	// MaxBody is the largest request body in bytes that is read to find out what is asked (tariffs only). Default: 32 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	app       *App
	route     string // the paths it stands before; set when the app starts
	logger    *zap.Logger
	rates     *pricing.Rates  // of Prices; nil with a tariff
	tariff    *pricing.Tariff // nil with Prices
	maxCharge ledger.Amount
	durable   ledger.Amount // holds above it are written to the disk; below zero: none
	open      ledger.Amount
	batch     pricing.Measure
	statuses  []statusRange
	counts    []probe.Count
}

// Count finds how many units of a kind a response has used.
type Count struct {
	// Name of the unit, as prices have it.
	Name string `json:"name"`
	// Header is the response header that states the number.
	Header string `json:"header,omitempty"`
	// JSON is the path of the number in the response body, in gjson's syntax; a leading "$." is ignored.
	JSON string `json:"json,omitempty"`
}

// Charge pays calls from an escrow, by partial releases.
type Charge struct {
	// From is "wallet" or "escrow".
	From string `json:"from"`

	// Batch is how much is used between two partial releases, while a response is streamed. Default: 1000 tokens.
	Batch *pricing.Measure `json:"batch,omitempty"`

	// Open is the amount of the escrow that is made when the caller has none that fits. Empty: such a call is refused
	// with 402 escrow_required.
	Open string `json:"open,omitempty"`

	// For is how long an escrow that is made this way lasts; what remains then goes back to the payer. Default: 168h.
	For caddy.Duration `json:"for,omitempty"`
}

const (
	fromWallet      = "wallet"
	fromEscrow      = "escrow"
	exhaustedStop   = "stop"
	exhaustedFinish = "finish"
	cancelFree      = "free"
	cancelFinish    = "finish"

	defaultMaxBody = 32 << 20
	defaultOpenFor = 168 * time.Hour
)

var defaultBatch = pricing.Measure{N: 1000, Unit: "token"}

// CaddyModule tells Caddy what this is.
func (Meter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.meter", New: func() caddy.Module { return new(Meter) }}
}

// Provision checks the config and makes the prices ready.
func (m *Meter) Provision(ctx caddy.Context) error {
	m.logger = ctx.Logger()
	app, err := ctx.App("tallygate")
	if err != nil {
		return err
	}
	m.app = app.(*App)
	if m.Payee == "" {
		return errors.New("a meter needs a payee: the agent that is paid")
	}
	if err := m.provisionPrices(); err != nil {
		return fmt.Errorf("meter of %s: %w", m.Payee, err)
	}
	if m.Quality != nil {
		if err := m.Quality.provision(); err != nil {
			return fmt.Errorf("meter of %s: %w", m.Payee, err)
		}
	}
	if err := m.provisionCharge(); err != nil {
		return fmt.Errorf("meter of %s: %w", m.Payee, err)
	}
	if err := m.provisionPolicy(); err != nil {
		return fmt.Errorf("meter of %s: %w", m.Payee, err)
	}
	m.app.register(m)
	return nil
}

func (m *Meter) provisionPrices() error {
	if m.Cost != nil {
		if !m.hasPrices() {
			return errors.New(noPriceBesideCost)
		}
		if err := m.Cost.provision(); err != nil {
			return err
		}
	}
	given := 0
	for _, is := range []bool{len(m.Prices) > 0, m.TariffName != "", m.Tariff != nil, m.Subscription != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return errors.New("expected one of 'price A per [N] UNIT', 'tariff NAME', 'tariff { ... }' and 'subscription NAME A per D'")
	}
	counted, err := m.provisionCounts()
	if err != nil {
		return err
	}
	switch {
	case m.Subscription != nil:
		err = m.Subscription.provision(m.Payee, counted)
		m.rates = m.Subscription.rates
	case len(m.Prices) > 0:
		m.rates, err = pricing.NewRates(m.Prices, counted...)
	case m.Tariff != nil:
		m.tariff, err = m.Tariff, compileTariff(m.Tariff, m.logger, counted...)
	default:
		t, ok := m.app.Tariffs[m.TariffName]
		if !ok {
			err = fmt.Errorf("no tariff %q: expected one of the global option's: %s", m.TariffName, strings.Join(slices.Sorted(maps.Keys(m.app.Tariffs)), ", "))
		}
		m.tariff = t
	}
	return err
}

func (m *Meter) hasPrices() bool {
	return len(m.Prices) > 0 || m.TariffName != "" || m.Tariff != nil
}

func (m *Meter) provisionCounts() (names []string, err error) {
	for _, count := range m.Counts {
		if err := pricing.CheckCount(count.Name); err != nil {
			return nil, err
		}
		var at *probe.Probe
		switch {
		case count.Header != "" && count.JSON == "":
			at, err = probe.Header(count.Header)
		case count.JSON != "" && count.Header == "":
			at, err = probe.JSON(count.JSON)
		default:
			err = errors.New("expected either a header or a JSON path")
		}
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", count.Name, err)
		}
		m.counts = append(m.counts, probe.Count{Class: meter.Class(count.Name), Probe: at})
		names = append(names, count.Name)
	}
	return names, nil
}

func (m *Meter) provisionCharge() error {
	m.batch = defaultBatch
	if m.Charge == nil {
		return nil
	}
	if m.Subscription != nil && (m.Charge.From != fromWallet || m.Charge.Open != "") {
		return errors.New("'charge escrow' means nothing beside a subscription, which pays the calls")
	}
	switch m.Charge.From {
	case fromWallet:
		if m.Charge.Open != "" || m.Charge.For != 0 {
			return errors.New("'open' goes with 'charge escrow' only")
		}
	case fromEscrow:
	default:
		return fmt.Errorf("unknown charge %q: expected 'wallet' or 'escrow'", m.Charge.From)
	}
	if m.Charge.Batch != nil {
		m.batch = *m.Charge.Batch
		if err := m.batch.Check(m.countNames()...); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
	if m.Charge.Open != "" {
		var err error
		if m.open, err = positive("open", m.Charge.Open); err != nil {
			return err
		}
	}
	return nil
}

func (m *Meter) provisionPolicy() error {
	var err error
	if m.MaxCharge != "" {
		if m.maxCharge, err = positive("max_charge", m.MaxCharge); err != nil {
			return err
		}
	}
	m.durable = -1
	if m.DurableHolds != "" {
		if m.durable, err = ledger.ParseAmount(m.DurableHolds); err != nil || m.durable < 0 {
			return fmt.Errorf("durable_holds above %q: expected an amount such as 0.50", m.DurableHolds)
		}
	}
	switch m.OnExhausted {
	case "":
		m.OnExhausted = exhaustedStop
	case exhaustedStop, exhaustedFinish:
	default:
		return fmt.Errorf("unknown on_exhausted %q: expected 'stop' or 'finish'", m.OnExhausted)
	}
	switch m.OnCancel {
	case "":
		m.OnCancel = cancelFree
	case cancelFree, cancelFinish:
	default:
		return fmt.Errorf("unknown on_cancel %q: expected 'free' or 'finish'", m.OnCancel)
	}
	if m.Enforce != "" && m.Enforce != "on" && m.Enforce != "off" {
		return fmt.Errorf("unknown enforce %q: expected 'on' or 'off'", m.Enforce)
	}
	if m.Quality != nil && m.Quality.selfScored() {
		m.logger.Warn("the score comes from the provider itself, which may praise its own answers; a judge (quality http) or the payer is independent", zap.String("payee", m.Payee))
	}
	if m.KeepResponses != nil {
		if err := m.KeepResponses.check(); err != nil {
			return err
		}
	}
	if m.MaxBody < 0 {
		return fmt.Errorf("max_body %d: expected a number of bytes", m.MaxBody)
	}
	if m.MaxBody == 0 {
		m.MaxBody = min(defaultMaxBody, m.app.bodies.most/agentsPart-1)
	}
	if m.MaxBody >= m.app.bodies.most/agentsPart {
		return fmt.Errorf("max_body %d: expected less than half of max_bodies, %d, as that is what one agent may take of it", m.MaxBody, m.app.bodies.most)
	}
	if len(m.ChargeOn) == 0 {
		m.statuses = []statusRange{{200, 299}, {101, 101}}
	}
	for _, word := range m.ChargeOn {
		r, err := parseStatus(word)
		if err != nil {
			return err
		}
		m.statuses = append(m.statuses, r)
	}
	return nil
}

// countNames are the units of the provider's own.
func (m *Meter) countNames() []string {
	var names []string
	for _, count := range m.Counts {
		names = append(names, count.Name)
	}
	return names
}

// statusRange is a class of response statuses, both ends included.
type statusRange struct{ from, to int }

func parseStatus(word string) (statusRange, error) {
	var n int
	if len(word) == 3 && word[1:] == "xx" && word[0] >= '2' && word[0] <= '5' {
		n = int(word[0]-'0') * 100
		return statusRange{n, n + 99}, nil
	}
	if _, err := fmt.Sscanf(word, "%3d", &n); err != nil || len(word) != 3 || n != 101 && n < 200 || n > 599 {
		return statusRange{}, fmt.Errorf("charge_on %q: expected a status such as 200, a class such as 2xx, or 101", word)
	}
	return statusRange{n, n}, nil
}

// charged reports whether a response of this status is charged.
func (m *Meter) charged(status int) bool {
	return slices.ContainsFunc(m.statuses, func(r statusRange) bool { return r.from <= status && status <= r.to })
}

func (m *Meter) shadow() bool { return m.Enforce == "off" }

// charges reports whether a price is charged as it comes to be due: not what a quota covers, nor what is scored in the end.
func (m *Meter) charges() bool {
	return m.Quality == nil && (m.Subscription == nil || !m.Subscription.counted())
}

func (m *Meter) fromEscrow() bool { return m.Charge != nil && m.Charge.From == fromEscrow }

func (m *Meter) openFor() time.Duration {
	if m.Charge != nil && m.Charge.For > 0 {
		return time.Duration(m.Charge.For)
	}
	return defaultOpenFor
}

// ServeHTTP carries one request along the path of a metered call: identify, inspect, bound, hold, proxy, count, draw,
// settle, finish.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	release, err := m.app.open(r.Context())
	if err != nil {
		m.logger.Error("the ledger can't be used", zap.Error(err))
		writeProblem(w, unavailable("none"))
		return nil
	}
	defer release()
	if q, ok := r.Context().Value(quoteKey{}).(*quoted); ok {
		m.answerQuote(r, q)
		return next.ServeHTTP(w, r)
	}
	if isPreflight(r) {
		return m.passPreflight(w, r, next)
	}

	c, refusal := m.admit(r)
	defer c.giveRoom()
	if refusal != nil && m.shadow() {
		metrics.shadow.WithLabelValues(m.Payee, string(refusal.Outcome)).Inc()
		m.logger.Info("shadow mode lets a call pass that would be refused", zap.String("request", c.id), zap.String("payee", m.Payee), zap.String("code", string(refusal.Outcome)))
		c.request = r.WithContext(context.WithValue(r.Context(), callKey{}, c)) // a meter further in finds the key there
		return c.serve(w, next)
	}
	if c.kept != nil {
		return c.writeAgain(w)
	}
	if refusal != nil {
		metrics.refused.WithLabelValues(m.Payee, string(refusal.Outcome)).Inc()
		w.Header().Set(headerRequest, c.id)
		openRefusal(w.Header(), r)
		api.WriteProblem(w, refusal, m.app.prefix, true)
		return nil
	}
	defer c.leave()
	return c.serve(w, next)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Meter)(nil)
	_ caddyhttp.MiddlewareHandler = (*Meter)(nil)
)
