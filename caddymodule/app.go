package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // prices by the hour name time zones, which may not be installed on the machine

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// App is the global option `tallygate`: the ledger and the rules that all metered routes share.
type App struct {
	// StoreRaw is the store that the ledger is kept in: a module of the namespace tallygate.stores, named by "store".
	// Default: {"store": "bolt"}, one bbolt file in Caddy's data folder.
	StoreRaw json.RawMessage `json:"ledger,omitempty" caddy:"namespace=tallygate.stores inline_key=store"`

	// Currency is the label of all amounts. A new ledger stores it; after that, a config with another currency does not start.
	// Default: USDC.
	Currency string `json:"currency,omitempty"`

	// OperatorKey is the key for the operator's routes. If it is empty, these routes are off. Write it as a placeholder, such as
	// {env.TALLYGATE_OPERATOR_KEY}, since Caddy's admin endpoint shows the config. Placeholders are replaced.
	OperatorKey string `json:"operator_key,omitempty"`

	// Registration says who may register agents: "operator" (the default), or "open" for anybody.
	Registration string `json:"registration,omitempty"`

	// Faucet is an amount that each agent may claim once. Default: no faucet.
	Faucet *Faucet `json:"faucet,omitempty"`

	// Commission is the operator's part of each release and debit, in percent, as a decimal: "1" or "0.25". Default: "0".
	Commission string `json:"commission,omitempty"`

	// MinEscrow is the smallest amount of an escrow that agents may create by the API. Default: "1.00".
	MinEscrow string `json:"min_escrow,omitempty"`
	// MinPeriod is the shortest period of a subscription without a plan. Default: 1h.
	MinPeriod caddy.Duration `json:"min_period,omitempty"`
	// MaxSubscriptions is how many subscriptions without a plan one agent may have. Default: 100.
	MaxSubscriptions int `json:"max_subscriptions,omitempty"`

	// DefaultLimits are limits of what an agent may spend. Each agent that is made from now on gets them, except for the payees of meters, as
	// if the operator had set them: the agent can't lift them, and the operator can change them for each agent. Default: none.
	DefaultLimits []DefaultLimit `json:"default_limits,omitempty"`

	// RefundWindow is how long a payee has to answer a payer's refund request. After that the request is granted. Default: 72h.
	RefundWindow caddy.Duration `json:"refund_window,omitempty"`

	// Webhooks says to which addresses agents may have events sent. "public" (the default) allows public addresses only. "private"
	// also allows loopback and local networks, for agents that run beside the server.
	Webhooks string `json:"webhooks,omitempty"`

	// ProblemTypes is what the type of a problem begins with, such as "https://docs.example/problems/": the code follows. Default: the pages
	// that this gateway serves itself, at /problems/ below the prefix of its API.
	ProblemTypes string `json:"problem_types,omitempty"`

	// Invoice is the operator's name, address and tax lines, as invoices and statements print them. Default: they name only the parties.
	Invoice api.Issuer `json:"invoice,omitzero"`

	// Dashboard says whether the directive tallygate serves the pages for agents and the operator, at /dashboard: "on" (the default) or "off".
	Dashboard string `json:"dashboard,omitempty"`

	// Discovery says when the directive tallygate answers /openapi.json, /llms.txt and /.well-known/x402, where programs look for what is sold:
	// "last" (the default) if the site has nothing there, or "first", before the site. Below the prefix of the API they are always answered.
	Discovery string `json:"discovery,omitempty"`

	// MetricsByPayer counts the charged calls of each payer apart in the metrics. Each payer is then a time series, for up to 10,000 of them.
	// Default: they are counted by payee, route and model.
	MetricsByPayer bool `json:"metrics_by_payer,omitempty"`

	// MaxBodies is the largest total size, in bytes, of the request bodies that are in memory at the same time. These are the bodies of
	// running calls whose price depends on what they ask for. The bodies of one agent may take 7/24 of it, or less if others have
	// some. A call that does not fit is refused with 429. The server needs about four times as much memory for the bodies. Default: 128 MiB.
	MaxBodies int64 `json:"max_bodies,omitempty"`

	// Identify says what providers are told about callers, for meters that do not say it themselves: "upstream" or "upstream signed". See
	// Meter.Identify. Default: nothing.
	Identify string `json:"identify,omitempty"`

	// RailsRaw are modules of the namespace tallygate.rails, each named by "rail". A rail is a way to pay directly with a request to a
	// metered route. A request is offered to the rails in their order.
	RailsRaw []json.RawMessage `json:"rails,omitempty" caddy:"namespace=tallygate.rails inline_key=rail"`

	// CashierRaw is a module of the namespace tallygate.cashiers, named by "cashier": a service outside, such as Stripe, at which people pay by
	// card, and by which payees are paid. Default: none.
	CashierRaw json.RawMessage `json:"cashier,omitempty" caddy:"namespace=tallygate.cashiers inline_key=cashier"`

	// Tariffs are the price lists that meters can refer to, by name.
	Tariffs map[string]*pricing.Tariff `json:"tariffs,omitempty"`

	store  StoreModule
	rails  []gateway.Rail
	cards  *cashier.Cashier // nil: nobody pays by card
	giving *cashier.Refunds // has rails give deposits back
	rules  escrow.Rules
	ctx    caddy.Context
	logger *zap.Logger

	served bool   // a handler serves the API
	prefix string // the prefix of the first handler that serves the API, for texts that name the API's paths

	mu     sync.Mutex
	payees []string // the payees of all meters, which Start makes agents of
	meters []*Meter
	guards map[*caddyhttp.Server]func() // by server, for the servers that have meters

	// started is closed when Start has ended. Before that, books, book and startErr must not be read.
	started   chan struct{}
	books     *books
	book      *escrow.Book
	gateway   *gateway.Gateway
	startErr  error
	pooled    bool
	ledgerID  atomic.Value // of the ledger, when it is open
	looked    sync.Once    // whether the configuration was searched for slips
	clock     *worker      // does what is due at a certain time
	totals    *worker      // adds charges to the totals that reports are made of
	judging   *worker      // asks judges again whose decision is missing
	paying    *worker      // asks rails for payments whose outcome is not known; nil without rails
	filling   *worker      // tops wallets up from saved payment methods; nil without a cashier
	refunding *worker      // has rails give deposits back; nil if none can
	sender    *worker      // sends webhooks
}

// Faucet gives each agent some money to start with.
type Faucet struct {
	// Amount is what each agent may claim once.
	Amount string `json:"amount"`
	// Budget is the most that the faucet gives to all agents together within Per. Default: no limit.
	Budget string `json:"budget,omitempty"`
	// Per is the period of the budget.
	Per caddy.Duration `json:"per,omitempty"`
}

// DefaultLimit is how much an agent may spend in a window of time.
type DefaultLimit struct {
	// Amount is the most that the agent may spend.
	Amount string `json:"amount"`
	// Per is the length of the window, which begins with the first spending after the one before.
	Per caddy.Duration `json:"per"`
}

func (l DefaultLimit) compile() (escrow.Limit, error) {
	amount, err := positive("amount", l.Amount)
	if err != nil {
		return escrow.Limit{}, err
	}
	limit := escrow.Limit{Amount: amount, Window: time.Duration(l.Per)}
	return limit, limit.CheckWindow()
}

const (
	defaultCurrency     = "USDC"
	defaultMinEscrow    = ledger.Amount(1_000_000_000)
	defaultRefundWindow = 72 * time.Hour
)

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate", New: func() caddy.Module { return new(App) }}
}

// Provision checks the config. It must not open the ledger, since `caddy validate` also calls it, while a server is running.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	a.started = make(chan struct{})
	if err := checkIdentify(a.Identify); err != nil {
		return err
	}
	if a.MaxBodies < 0 {
		return fmt.Errorf("max_bodies %d: expected a number of bytes", a.MaxBodies)
	}
	store, err := a.loadStore(ctx)
	if err != nil {
		return err
	}
	a.store = store
	if a.rails, err = loadRails(ctx, a); err != nil {
		return err
	}
	if a.cards, err = loadCashier(ctx, a); err != nil {
		return err
	}
	a.giving = a.refunds(ctx.Slogger())
	for _, collector := range append(gateway.Collectors(), healthMetrics{a}) {
		var registered prometheus.AlreadyRegisteredError
		if err := ctx.GetMetricsRegistry().Register(collector); err != nil && !errors.As(err, &registered) {
			return fmt.Errorf("registering the metrics: %w", err)
		}
	}
	if a.Currency == "" {
		a.Currency = defaultCurrency
	}
	for name, tariff := range a.Tariffs {
		if err := compileTariff(tariff, a.logger); err != nil {
			return fmt.Errorf("tariff %s: %w", name, err)
		}
	}
	return a.provisionRules()
}

// loadStore loads the store module. It does not open the store.
func (a *App) loadStore(ctx caddy.Context) (StoreModule, error) {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"store":"bolt"}`)
	}
	module, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the ledger's store: %w", err)
	}
	return module.(StoreModule), nil
}

func (a *App) provisionRules() error {
	r := escrow.Rules{
		MinEscrow:        defaultMinEscrow,
		MinPeriod:        time.Duration(a.MinPeriod),
		MaxSubscriptions: a.MaxSubscriptions,
		RefundWindow:     time.Duration(a.RefundWindow),
	}
	if a.MinPeriod < 0 {
		return fmt.Errorf("min_period %s: expected a duration above zero, such as 1h", time.Duration(a.MinPeriod))
	}
	if a.MaxSubscriptions < 0 {
		return fmt.Errorf("max_subscriptions %d: expected a number above zero", a.MaxSubscriptions)
	}
	for _, rail := range a.rails {
		r.Rails = append(r.Rails, rail.Name())
	}
	if r.RefundWindow == 0 {
		r.RefundWindow = defaultRefundWindow
	}
	switch a.Registration {
	case "", "operator":
	case "open":
		r.OpenRegistration = true
	default:
		return fmt.Errorf("unknown registration %q: expected 'operator' or 'open'", a.Registration)
	}
	if err := a.checkProblemTypes(); err != nil {
		return err
	}
	switch a.Discovery {
	case "", "last", discoveryFirst:
	default:
		return fmt.Errorf("unknown discovery %q: expected 'last' or 'first'", a.Discovery)
	}
	switch a.Webhooks {
	case "", "public", "private":
	default:
		return fmt.Errorf("unknown webhooks %q: expected 'public' or 'private'", a.Webhooks)
	}
	if err := a.provisionAmounts(&r); err != nil {
		return err
	}
	key := caddy.NewReplacer().ReplaceAll(a.OperatorKey, "")
	if key != "" {
		r.OperatorKeyHash = escrow.HashKey(key)
	} else if a.OperatorKey != "" {
		a.logger.Warn("operator_key is empty: the operator's routes are off", zap.String("operator_key", a.OperatorKey))
	}
	a.rules = r
	return nil
}

// provisionAmounts reads the amounts and shares of the rules.
func (a *App) provisionAmounts(r *escrow.Rules) (err error) {
	for i, l := range a.DefaultLimits {
		limit, err := l.compile()
		if err != nil {
			return fmt.Errorf("default_limit: %w", err)
		}
		if slices.ContainsFunc(a.DefaultLimits[:i], func(other DefaultLimit) bool { return other.Per == l.Per }) {
			return fmt.Errorf("default_limit: two for the same window of %s", escrow.Period(limit.Window))
		}
		r.DefaultLimits = append(r.DefaultLimits, limit)
	}
	if a.MinEscrow != "" {
		if r.MinEscrow, err = positive("min_escrow", a.MinEscrow); err != nil {
			return err
		}
	}
	if f := a.Faucet; f != nil {
		if r.Faucet, err = positive("faucet", f.Amount); err != nil {
			return err
		}
		if f.Budget != "" {
			if r.FaucetBudget, err = positive("faucet budget", f.Budget); err != nil {
				return err
			}
			if r.FaucetPeriod = time.Duration(f.Per); r.FaucetPeriod <= 0 {
				return fmt.Errorf("faucet budget %s has no period: expected 'budget A per D'", f.Budget)
			}
		}
	}
	if a.Commission != "" {
		if r.CommissionPPM, err = escrow.ParsePercent(a.Commission); err != nil {
			return fmt.Errorf("commission: %w", err)
		}
	}
	return nil
}

func positive(name, s string) (ledger.Amount, error) {
	amount, err := ledger.ParseAmount(s)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if amount <= 0 {
		return 0, fmt.Errorf("%s %s: expected an amount above zero", name, s)
	}
	return amount, nil
}

// compileTariff compiles a tariff. It also reads the tariff's price catalog, if there is one.
func compileTariff(t *pricing.Tariff, logger *zap.Logger, counts ...string) error {
	var catalog *pricing.Catalog
	if t.Catalog != nil {
		file, err := os.Open(t.Catalog.File)
		if err != nil {
			return fmt.Errorf("opening the price catalog: %w", err)
		}
		defer file.Close()
		if catalog, err = pricing.LoadCatalog(file); err != nil {
			return fmt.Errorf("price catalog %s: %w", t.Catalog.File, err)
		}
		logProblems(logger, t.Catalog.File, catalog.Problems())
	}
	if err := t.Compile(catalog, counts...); err != nil {
		return err
	}
	for _, warning := range t.Warnings() {
		logger.Warn("tariff", zap.String("warning", warning))
	}
	return nil
}

// shownProblems is the largest number of a catalog's problems that are logged, since a catalog can have thousands of entries.
const shownProblems = 20

// logProblems logs which models of a catalog have no price, and why.
func logProblems(logger *zap.Logger, file string, problems []string) {
	if len(problems) == 0 {
		return
	}
	shown := problems[:min(len(problems), shownProblems)]
	logger.Warn("price catalog: entries without a price that can be charged; calls of their models are refused",
		zap.String("file", file), zap.Int("entries", len(problems)), zap.Strings("problems", shown))
}

// tariff returns a tariff of the global option by its name.
func (a *App) tariff(name string) (*pricing.Tariff, error) {
	t, ok := a.Tariffs[name]
	if !ok {
		return nil, fmt.Errorf("no tariff %q: the global option tallygate has %s", name, strings.Join(slices.Sorted(maps.Keys(a.Tariffs)), ", "))
	}
	return t, nil
}

// maxBodies returns the largest total size of request bodies in memory, in bytes.
// checkProblemTypes refuses a beginning of problems' types that makes no addresses of pages.
func (a *App) checkProblemTypes() error {
	if a.ProblemTypes == "" {
		return nil
	}
	u, err := url.Parse(a.ProblemTypes)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || !strings.HasSuffix(a.ProblemTypes, "/") {
		return fmt.Errorf("problem_types %q: expected a URL that ends in a slash, such as https://docs.example/problems/", a.ProblemTypes)
	}
	return nil
}

// problemTypes returns what the type of a problem begins with.
func (a *App) problemTypes() string { return cmp.Or(a.ProblemTypes, a.prefix+api.ProblemsPath) }

func (a *App) maxBodies() int64 { return cmp.Or(a.MaxBodies, gateway.DefaultMaxBodies) }

// register adds a meter to the app. It is called when the meter is provisioned, before any app starts.
func (a *App) register(m *Meter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.meters = append(a.meters, m)
	if !slices.Contains(a.payees, m.Payee) {
		a.payees = append(a.payees, m.Payee)
	}
}

func (a *App) privateWebhooks() bool { return a.Webhooks == "private" }

// Start opens the ledger. During a reload it shares the ledger that the old config has open.
func (a *App) Start() error {
	defer close(a.started)
	a.startErr = a.start()
	return a.startErr
}

func (a *App) start() error {
	value, _, err := pool.LoadOrNew(a.store.Key(), func() (caddy.Destructor, error) {
		return openBooks(a.store, a.Currency, a.rules, a.logger, a.ctx.Slogger())
	})
	if err != nil {
		return err
	}
	a.pooled = true
	a.books = value.(*books)
	if have := a.books.ledger.Currency(); have != a.Currency {
		return fmt.Errorf("the currency of the ledger is %s, but the config says currency %s: the currency of a ledger can't be changed", have, a.Currency)
	}
	if a.rules.Plans, err = a.plans(); err != nil {
		return err
	}
	a.book = a.books.book.With(a.rules)
	for _, payee := range a.payees {
		if err := a.book.Reserve(context.Background(), payee); err != nil {
			return fmt.Errorf("payee %s: %w", payee, err)
		}
	}
	a.gateway = gateway.New(a.book, gateway.Options{
		Prefix: a.prefix, ProblemTypes: a.problemTypes(), MaxBodies: a.maxBodies(), Client: clientHost, Path: originalPath, Begin: begin, Report: report, Rails: a.rails,
		MetricsByPayer: a.MetricsByPayer,
	})
	a.warnOnce()
	if err := a.refuseNeighbours(); err != nil {
		return err
	}
	if err := a.identifyCallers(); err != nil {
		return err
	}
	a.nameRoutes()
	for _, guarded := range a.guards {
		guarded()
	}
	sender := api.NewSender(a.openBook, api.SenderOptions{Private: a.privateWebhooks(), Version: Version(), Listens: listens, Logger: a.ctx.Slogger()})
	alert := func(ctx context.Context, event escrow.Event) { sender.Alert(ctx, a.book, event) }
	a.clock = startClock(a.books, a.book, alert, a.logger)
	a.totals = startTotals(a.books, a.book, a.logger)
	a.judging = startJudging(a.books, a.book, a.ctx.Slogger())
	a.sender = startWorker(sender.Run)
	if len(a.rails) > 0 {
		a.paying = startCollecting(a.books, a.gateway, a.ctx.Slogger())
	}
	if a.cards != nil {
		a.filling = startFilling(a.books, a.cards, a.ctx.Slogger())
	}
	if len(a.giving.Rails) > 0 {
		a.refunding = startRefunding(a.books, a.giving, a.cards, a.ctx.Slogger())
	}
	return nil
}

// plans returns the subscriptions that the meters offer. Two meters may offer the same subscription if its terms are the same.
func (a *App) plans() (plans []escrow.Plan, err error) {
	for _, m := range a.meters {
		if m.plan == nil {
			continue
		}
		plan := m.plan.Plan
		i := slices.IndexFunc(plans, func(p escrow.Plan) bool { return p.Payee == plan.Payee && p.Name == plan.Name })
		if i < 0 {
			plans = append(plans, plan)
		} else if plans[i] != plan {
			return nil, fmt.Errorf("subscription %s of %s has two different terms: give one of them another name", plan.Name, plan.Payee)
		}
	}
	return plans, nil
}

// Stop does nothing, since running requests still use the ledger. See Cleanup.
func (a *App) Stop() error { return nil }

// Cleanup releases the ledger. Caddy calls it after Stop, and also for an app that was not started or whose start failed.
func (a *App) Cleanup() error {
	a.warnOnce() // for commands that only check a configuration
	a.clock.end()
	a.totals.end()
	a.judging.end()
	a.sender.end()
	a.paying.end()
	a.filling.end()
	a.refunding.end()
	if !a.pooled {
		return nil
	}
	a.pooled = false
	if caddy.Exiting() {
		a.books.book.Claims().EndLive()
	}
	_, err := pool.Delete(a.store.Key())
	return err
}

var errNotStarted = errors.New("the ledger is not open")

// open keeps the books open for one request. It first waits until the app has started, since Caddy may serve requests before that.
// The caller must call release when the request is done.
func (a *App) open(ctx context.Context) (release func(), err error) {
	select {
	case <-a.started:
	default:
		select {
		case <-a.started:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if a.startErr != nil {
		return nil, a.startErr
	}
	if a.books == nil || !a.books.acquire() {
		return nil, errNotStarted
	}
	return a.books.release, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
