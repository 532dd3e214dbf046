package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
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

	// IdentityRaw is a module of the namespace tallygate.identity, named by "identity", that finds out who calls. In place of Agent.
	IdentityRaw json.RawMessage `json:"identity,omitempty" caddy:"namespace=tallygate.identity inline_key=identity"`

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

	// OnCancel says what happens when the client leaves. "free" (the default) cancels the upstream call: before the first byte of the
	// answer nothing is charged, later what was used. Where that is tokens, the answer is read on for up to 10 seconds, since providers
	// state the usage at the end. "finish" awaits the whole answer and charges it.
	OnCancel string `json:"on_cancel,omitempty"`

	// ChargeOn lists the response statuses that are charged: codes, or classes such as "2xx". Default: 2xx and 101.
	ChargeOn []string `json:"charge_on,omitempty"`

	// Enforce "off" is shadow mode: calls are counted, priced and recorded, but nothing is refused and nothing charged, so
	// that a provider can see what it would earn. Default: on.
	Enforce string `json:"enforce,omitempty"`

	// MaxBody is the largest request body, in bytes, that is read: to find out what is asked, where the price depends on that, and to tell
	// calls with an Idempotency-Key apart. A larger one is refused with 413. Default: 32 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	app    *App
	logger *zap.Logger
	route  gateway.Route // what the config says, made ready
	plan   *gateway.Subscription
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

	defaultOpenFor = 168 * time.Hour
)

// CaddyModule tells Caddy what this is.
func (Meter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.meter", New: func() caddy.Module { return new(Meter) }}
}

// Provision checks the config and makes the route ready.
func (m *Meter) Provision(ctx caddy.Context) error {
	app, err := ctx.App("tallygate")
	if err != nil {
		return err
	}
	m.app, m.logger = app.(*App), ctx.Logger()
	m.route.Logger = ctx.Slogger()
	if m.Payee == "" {
		return errors.New("a meter needs a payee: the agent that is paid")
	}
	if err := m.loadGuests(ctx); err != nil {
		return fmt.Errorf("meter of %s: %w", m.Payee, err)
	}
	if err := m.compile(); err != nil {
		return fmt.Errorf("meter of %s: %w", m.Payee, err)
	}
	m.app.register(m)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		m.app.guardServer(server)
	}
	return nil
}

// compile makes the route of the config.
func (m *Meter) compile() error {
	m.route.Payee = m.Payee
	for _, step := range []func() error{m.compilePrices, m.compileQuality, m.compileCharge, m.compileLimits, m.compilePolicy} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Meter) compilePrices() (err error) {
	if m.Cost != nil {
		if !m.hasPrices() {
			return errors.New(noPriceBesideCost)
		}
		if m.route.Cost, err = m.Cost.compile(); err != nil {
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
	counted, err := m.compileCounts()
	if err != nil {
		return err
	}
	switch {
	case m.Subscription != nil:
		if m.plan, err = m.Subscription.compile(m.Payee, counted); err == nil {
			m.route.Payment, m.route.Rates = m.plan, m.plan.Rates
		}
	case len(m.Prices) > 0:
		m.route.Rates, err = pricing.NewRates(m.Prices, counted...)
	case m.Tariff != nil:
		m.route.Tariff, err = m.Tariff, compileTariff(m.Tariff, m.logger, counted...)
	default:
		m.route.Tariff, err = m.app.tariff(m.TariffName)
	}
	return err
}

func (m *Meter) hasPrices() bool {
	return len(m.Prices) > 0 || m.TariffName != "" || m.Tariff != nil
}

func (m *Meter) compileCounts() (names []string, err error) {
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
		m.route.Counts = append(m.route.Counts, probe.Count{Class: meter.Class(count.Name), Probe: at})
		names = append(names, count.Name)
	}
	return names, nil
}

func (m *Meter) compileQuality() (err error) {
	if m.Quality == nil {
		return nil
	}
	if m.Quality.selfScored() {
		m.logger.Warn("the score comes from the provider itself, which may praise its own answers; a judge (quality http) or the payer is independent", zap.String("payee", m.Payee))
	}
	m.route.Quality, err = m.Quality.compile()
	return err
}

func (m *Meter) compileCharge() error {
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
		from := gateway.Escrow{OpenFor: cmp.Or(time.Duration(m.Charge.For), defaultOpenFor)}
		if m.Charge.Open != "" {
			var err error
			if from.Open, err = positive("open", m.Charge.Open); err != nil {
				return err
			}
		}
		m.route.Payment = from
	default:
		return fmt.Errorf("unknown charge %q: expected 'wallet' or 'escrow'", m.Charge.From)
	}
	if m.Charge.Batch != nil {
		m.route.Batch = *m.Charge.Batch
		if err := m.route.Batch.Check(m.countNames()...); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
	return nil
}

// compileLimits bounds calls and what is kept of them.
func (m *Meter) compileLimits() (err error) {
	if m.MaxCharge != "" {
		if m.route.MaxCharge, err = positive("max_charge", m.MaxCharge); err != nil {
			return err
		}
	}
	if m.DurableHolds != "" {
		above, err := ledger.ParseAmount(m.DurableHolds)
		if err != nil || above < 0 {
			return fmt.Errorf("durable_holds above %q: expected an amount such as 0.50", m.DurableHolds)
		}
		m.route.DurableAbove = &above
	}
	if m.KeepResponses != nil {
		if err := m.KeepResponses.check(); err != nil {
			return err
		}
		m.route.Keep = &gateway.Keep{Size: m.KeepResponses.Size, For: time.Duration(m.KeepResponses.For)}
	}
	if m.MaxBody < 0 {
		return fmt.Errorf("max_body %d: expected a number of bytes", m.MaxBody)
	}
	most := m.app.maxBodies()
	m.route.MaxBody = cmp.Or(m.MaxBody, min(gateway.DefaultMaxBody, most/gateway.AgentsPart-1))
	if m.route.MaxBody >= most/gateway.AgentsPart {
		return fmt.Errorf("max_body %d: expected less than half of max_bodies, %d, as that is what one agent may take of it", m.MaxBody, most)
	}
	return nil
}

// compilePolicy says who calls, and what happens when a call does not go as planned.
func (m *Meter) compilePolicy() (err error) {
	if m.Agent != "" && m.route.Identity != nil {
		return errors.New("expected one of agent and identity, which both say who calls")
	}
	if m.Agent != "" {
		m.route.Identity = placeholderIdentity(m.Agent)
	}
	if m.route.FinishUnpaid, err = isOne("on_exhausted", m.OnExhausted, exhaustedStop, exhaustedFinish); err != nil {
		return err
	}
	if m.route.FinishUnheard, err = isOne("on_cancel", m.OnCancel, cancelFree, cancelFinish); err != nil {
		return err
	}
	if m.route.Shadow, err = isOne("enforce", m.Enforce, "on", "off"); err != nil {
		return err
	}
	m.route.Charged, err = chargedOn(m.ChargeOn)
	return err
}

// isOne reports whether an option is set to other, and not to what it is by default.
func isOne(name, value, byDefault, other string) (bool, error) {
	if value != "" && value != byDefault && value != other {
		return false, fmt.Errorf("unknown %s %q: expected '%s' or '%s'", name, value, byDefault, other)
	}
	return value == other, nil
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

// chargedOn reports which statuses are charged; nil is the default's.
func chargedOn(words []string) (func(status int) bool, error) {
	if len(words) == 0 {
		return nil, nil
	}
	var ranges []statusRange
	for _, word := range words {
		r, err := parseStatus(word)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return func(status int) bool {
		return slices.ContainsFunc(ranges, func(r statusRange) bool { return r.from <= status && status <= r.to })
	}, nil
}

// ServeHTTP carries one request along the path of a metered call.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	release, err := m.app.open(r.Context())
	if err != nil {
		m.logger.Error("the ledger can't be used", zap.Error(err))
		gateway.WriteProblem(w, r, gateway.Unavailable("none"))
		return nil
	}
	defer release()
	err = m.app.gateway.Serve(&m.route, w, r, next)
	if failure, ok := err.(*gateway.Failure); ok {
		return m.answerFailure(w, r, failure)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Meter)(nil)
	_ caddyhttp.MiddlewareHandler = (*Meter)(nil)
)
