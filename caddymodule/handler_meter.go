package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
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

// Meter is a handler that charges for the answers of the handlers after it. It identifies the calling agent, checks that the agent can
// pay, passes the request on, counts what the response used, computes the price, and charges it. If a meter is inside another meter,
// only the inner one charges.
type Meter struct {
	// Payee is the agent that is paid. If there is no such agent, it is made when the server starts.
	Payee string `json:"payee,omitempty"`

	// Prices are added up. Set either prices or a tariff.
	Prices []pricing.Price `json:"prices,omitempty"`

	// TariffName is the name of a tariff in the global option.
	TariffName string `json:"tariff,omitempty"`

	// Tariff is a price list for this meter only.
	Tariff *pricing.Tariff `json:"tariff_inline,omitempty"`

	// Subscription makes calls paid by a flat rate for a period, instead of prices.
	Subscription *Subscription `json:"subscription,omitempty"`

	// Quality makes the payment depend on a score of the answer.
	Quality *Quality `json:"quality,omitempty"`

	// Counts are additional units whose number the provider's responses state, for prices such as "0.02 per 1k rows".
	Counts []Count `json:"counts,omitempty"`

	// Cost charges the cost that the provider states in its answer. It is used in addition to prices or a tariff.
	Cost *Cost `json:"cost,omitempty"`

	// Charge says from where calls are paid. Default: from the agent's wallet.
	Charge *Charge `json:"charge,omitempty"`

	// KeepResponses stores the answers to calls with an Idempotency-Key. A repeated call gets the stored answer. Default: a repeated call is
	// refused with 409; the refusal tells what was charged.
	KeepResponses *KeepResponses `json:"keep_responses,omitempty"`

	// Shared lists which of the resources that the provider keeps (files, responses, batches and others) all callers may use. Others are only
	// for the agent that made them through this meter. "*" stands for all resources; then lists are not filtered. "none" stands for none. Other
	// words are ids such as "file-abc*", or a collection and an id such as "vector_stores/*", where * stands for any characters. Default:
	// "none" if the meter has a tariff or charges tokens; otherwise "*".
	Shared []string `json:"shared,omitempty"`

	// CallRates is how often each agent may call, and how many tokens its calls may use. Default: no limit.
	CallRates []CallRate `json:"rates,omitempty"`

	// Agent is a placeholder with the id of the calling agent, such as {http.auth.user.id}. Use it if a handler before this one
	// authenticates callers. Default: callers are identified by their Tallygate keys.
	Agent string `json:"agent,omitempty"`

	// AgentAuto makes agents that Agent or the identity names and that do not exist, at their first call. Default: such a call is refused with
	// 401. Use it only if callers can't choose the id themselves, since each new id becomes an agent for ever.
	AgentAuto bool `json:"agent_auto,omitempty"`

	// IdentityRaw is a module that identifies the caller, of the namespace tallygate.identity, named by "identity". It replaces Agent.
	IdentityRaw json.RawMessage `json:"identity,omitempty" caddy:"namespace=tallygate.identity inline_key=identity"`

	// Identify says what the provider is told about callers: "upstream" sends the headers Tallygate-Payer and Tallygate-Request to it,
	// "upstream signed" also a signature, and "none" nothing. Default: as the global option says.
	Identify string `json:"identify,omitempty"`

	// MaxCharge is the most that one call may cost. Default: all that the caller has.
	MaxCharge string `json:"max_charge,omitempty"`

	// DurableHolds is an amount. Before each call a hold for what the call can cost is made in memory. If a call can cost more than
	// DurableHolds, its hold is also written to disk before the call goes to the provider, which takes a few milliseconds. If the server
	// dies during such a call, the held amount is charged at the next start, marked "crash", so that the payee is paid for a costly
	// answer. The payee or the operator may refund it. Default: holds are not written to disk.
	DurableHolds string `json:"durable_holds,omitempty"`

	// OnExhausted says what happens when the caller's money runs out during a stream. "stop" (the default) ends the stream with an error
	// event. "finish" passes on the rest of the stream without charging for it.
	OnExhausted string `json:"on_exhausted,omitempty"`

	// OnCancel says what happens when the client disconnects before the answer is complete. "free" (the default) cancels the call to the
	// provider. Before the first byte of the answer nothing is charged; later, what was used until then. If tokens are charged, the answer
	// is read for up to 10 more seconds first, since providers state the usage at the end. "finish" reads the whole answer and charges it.
	OnCancel string `json:"on_cancel,omitempty"`

	// ChargeOn lists the response statuses that are charged: codes, or classes such as "2xx". Default: 2xx and 101. After the word "grpc" it
	// lists the statuses of gRPC that are charged, by their names or codes. Default: OK.
	ChargeOn []string `json:"charge_on,omitempty"`

	// Enforce is "on" (the default) or "off". "off" is shadow mode: calls are counted, priced and recorded, but nothing is refused and
	// nothing is charged. So a provider can see what it would earn.
	Enforce string `json:"enforce,omitempty"`

	// MaxBody is the largest request body, in bytes, that the meter reads. It reads the body if the price depends on it, and to compare
	// calls with the same Idempotency-Key. A larger body is refused with 413. It must be less than what one agent
	// may take of max_bodies. Default: 32 MiB, or just under what one agent may take if that is less.
	MaxBody int64 `json:"max_body,omitempty"`

	app    *App
	logger *zap.Logger
	route  gateway.Route // the compiled config
	plan   *gateway.Subscription
	host   string // the hosts of its site, for the list of tariffs
	paths  []string
}

// Count finds in a response how many units of one kind it used. Set either Header or JSON.
type Count struct {
	// Name of the unit, as used in prices.
	Name string `json:"name"`
	// Header is the response header that states the number.
	Header string `json:"header,omitempty"`
	// JSON is the path of the number in the response body, in gjson's syntax. A leading "$." is ignored.
	JSON string `json:"json,omitempty"`
}

// Charge says from where calls are paid: from the caller's wallet, or from an escrow by partial releases.
type Charge struct {
	// From is "wallet" or "escrow".
	From string `json:"from"`

	// Batch is how much is used between two partial releases while a response is streamed. Default: 1000 tokens.
	Batch *pricing.Measure `json:"batch,omitempty"`

	// Open is the amount of the escrow that is made if the caller has no suitable one. Default: a call without an escrow is refused with
	// 402 escrow_required.
	Open string `json:"open,omitempty"`

	// For is how long such an escrow lasts. After that, what is left goes back to the payer. Default: 168h.
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

// CaddyModule implements caddy.Module.
func (Meter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.meter", New: func() caddy.Module { return new(Meter) }}
}

// Provision checks and compiles the config.
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
	m.warnOfBatch()
	m.app.register(m)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		m.app.guardServer(server)
	}
	return nil
}

// compile converts the config into a route for the gateway.
func (m *Meter) compile() error {
	m.route.Payee = m.Payee
	for _, step := range []func() error{m.compilePrices, m.compileQuality, m.compileCharge, m.compileLimits, m.compilePolicy, m.compileRates} {
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
		if m.route.Rates, err = pricing.NewRates(m.Prices, counted...); err == nil {
			for _, warning := range pricing.Warnings(m.Prices, counted...) {
				m.warn(warning)
			}
		}
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
		return errors.New("'charge escrow' can't be used together with a subscription, since the subscription pays for the calls")
	}
	switch m.Charge.From {
	case fromWallet:
		if m.Charge.Open != "" || m.Charge.For != 0 {
			return errors.New("'open' can only be used with 'charge escrow'")
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

// warnOfBatch warns of a batch in a unit without a price: it is never full, so a stream is paid at its end.
func (m *Meter) warnOfBatch() {
	if m.Charge == nil || m.Charge.Batch == nil {
		return
	}
	rates := m.route.Rates
	if m.route.Tariff != nil {
		rates, _ = m.route.Tariff.Dearest()
	}
	if rates != nil && !m.route.Batch.Counts(rates, m.countNames()...) {
		m.warn("the batch is in a unit that has no price, so it is never full, and a stream is paid only at its end", zap.String("batch", m.route.Batch.String()))
	}
}

// warn logs what is allowed but is probably a mistake.
func (m *Meter) warn(text string, fields ...zap.Field) {
	m.logger.Warn("meter: "+text, append(fields, zap.String("payee", m.Payee))...)
}

// compileLimits compiles the limits of calls and of stored answers.
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
	room := gateway.RoomOfAgent(m.app.maxBodies())
	m.route.MaxBody = cmp.Or(m.MaxBody, min(gateway.DefaultMaxBody, room-1))
	if m.route.MaxBody >= room {
		return fmt.Errorf("max_body %d: expected less than %d, which is what one agent may take of max_bodies, %d", m.MaxBody, room, m.app.maxBodies())
	}
	return nil
}

// compilePolicy compiles how callers are identified, and what happens if a call does not go as planned.
func (m *Meter) compilePolicy() (err error) {
	if m.Agent != "" && m.route.Identity != nil {
		return errors.New("expected either agent or identity, not both: each of them identifies the caller")
	}
	if m.Agent != "" {
		m.route.Identity, m.route.KeepKeys = placeholderIdentity(m.Agent), true
	}
	if m.route.MakesAgents = m.AgentAuto; m.AgentAuto && m.Agent == "" && m.IdentityRaw == nil {
		return errors.New("agent_auto needs 'agent PLACEHOLDER': callers with Tallygate keys are agents already")
	}
	if len(m.Shared) > 0 {
		if m.route.Shared, err = gateway.ParseShared(m.Shared); err != nil {
			return err
		}
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
	if err := checkIdentify(m.Identify); err != nil {
		return err
	}
	statuses, grpc := splitChargeOn(m.ChargeOn)
	if m.route.Charged, err = chargedOn(statuses); err != nil {
		return err
	}
	m.route.ChargedGRPC, err = grpcChargedOn(grpc)
	return err
}

// isOne reports whether an option is set to other. It returns an error if the option is set to neither byDefault nor other.
func isOne(name, value, byDefault, other string) (bool, error) {
	if value != "" && value != byDefault && value != other {
		return false, fmt.Errorf("unknown %s %q: expected '%s' or '%s'", name, value, byDefault, other)
	}
	return value == other, nil
}

// countNames returns the names of the units in Counts.
func (m *Meter) countNames() []string {
	var names []string
	for _, count := range m.Counts {
		names = append(names, count.Name)
	}
	return names
}

// statusRange is a range of response statuses, including both ends.
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

// splitChargeOn divides the words of charge_on into HTTP's statuses, and gRPC's after the word grpc.
func splitChargeOn(words []string) (statuses, grpc []string) {
	if i := slices.Index(words, "grpc"); i >= 0 {
		return words[:i], words[i+1:]
	}
	return words, nil
}

// parseGRPC returns the code of a status of gRPC, which is given by its name or as a number.
func parseGRPC(word string) (int, error) {
	if code := slices.Index(gateway.GRPCCodes, strings.ToUpper(word)); code >= 0 {
		return code, nil
	}
	if code, err := strconv.ParseUint(word, 10, 31); err == nil {
		return int(code), nil
	}
	return 0, fmt.Errorf("charge_on grpc %q: expected a status of gRPC such as OK or NOT_FOUND, or its number", word)
}

// grpcChargedOn returns a function that reports whether a status of gRPC is charged. It returns nil for the default.
func grpcChargedOn(words []string) (func(code int) bool, error) {
	if len(words) == 0 {
		return nil, nil
	}
	var codes []int
	for _, word := range words {
		code, err := parseGRPC(word)
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	return func(code int) bool { return slices.Contains(codes, code) }, nil
}

// chargedOn returns a function that reports whether a status is charged. It returns nil for the default.
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

// ServeHTTP serves one request as a metered call.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	release, err := m.app.open(r.Context())
	if err != nil {
		m.logger.Error("the ledger can't be used", zap.Error(err))
		if m.route.Shadow {
			gateway.DropKeys(r, nil)
			return next.ServeHTTP(w, r)
		}
		gateway.WriteProblem(w, r, m.app.problemTypes(), gateway.Unavailable("none"))
		return nil
	}
	defer release()
	err = m.app.gateway.Serve(&m.route, w, r, m.below(m.repeatable(next, r), r))
	if failure, ok := err.(*gateway.Failure); ok {
		return m.answerFailure(w, r, failure)
	}
	return err
}

// repeatable returns handlers that can serve a request more than once, if the gateway may have them do so: if it asks for a list. Of blocks
// such as handle Caddy runs only one of a group for each request. It notes in the request's context which groups have had theirs.
func (m *Meter) repeatable(next caddyhttp.Handler, r *http.Request) gateway.Handler {
	if r.Method != http.MethodGet || !m.route.MayRepeat() {
		return next
	}
	groups, _ := r.Context().Value(caddy.CtxKey("route_group")).(map[string]struct{})
	if groups == nil {
		return next
	}
	before := maps.Clone(groups)
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		clear(groups)
		maps.Copy(groups, before)
		return next.ServeHTTP(w, r)
	})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Meter)(nil)
	_ caddyhttp.MiddlewareHandler = (*Meter)(nil)
)
