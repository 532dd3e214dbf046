package gateway

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// Route is a metered route: who is paid for its calls, at which prices, and how. It must not change while calls run on it.
type Route struct {
	// Payee is the agent that is paid.
	Payee string
	// Name is the route's name in charges and lists: the paths that it covers.
	Name string
	// Logger gets what an operator should know about the route's calls. Default: slog.Default().
	Logger *slog.Logger

	// Rates are the prices of every call. A route has either these or a Tariff.
	Rates *pricing.Rates
	// Tariff has prices that depend on the requested model.
	Tariff *pricing.Tariff
	// Cost charges the cost that the provider states, if it states one. The prices are then only the bound before the call. Default: the
	// prices are charged.
	Cost *Cost
	// Counts are the provider's own units, whose numbers its answers state.
	Counts []probe.Count
	// Quality makes the price depend on the quality of the answer. Default: the full price.
	Quality *Quality
	// Payment is where the money of a call comes from. Default: [Wallet].
	Payment Payment
	// Shared says which of the resources that the provider keeps are not the payer's alone who made them. Default: none, where the route has a
	// tariff or charges tokens; elsewhere payers are not kept apart.
	Shared *Shared
	// Batch is how much a stream uses between two draws. Default: 1000 tokens.
	Batch pricing.Measure

	// CallRates is how often each agent may call, and how many tokens its calls may use. A call beyond that is refused with 429.
	CallRates []CallRate

	// Identity finds out who calls. Default: the caller's Tallygate key.
	Identity Identity
	// MakesAgents makes the agents that Identity finds and the books do not have, at their first call. Default: such a call is refused.
	MakesAgents bool
	// Identify tells the provider who calls, in headers of the request. Default: the provider is told nothing.
	Identify *Identification
	// KeepKeys leaves keys in the request that are not Tallygate's. It is for routes whose Identity does not look at keys: what is in the usual
	// places is then for the provider. Default: the first key that is found is the caller's, and is removed.
	KeepKeys bool
	// MaxCharge is the most that one call may cost. 0: no limit but the caller's money.
	MaxCharge ledger.Amount
	// DurableAbove, if set, is an amount. A hold above it is written to disk before the request goes to the provider.
	DurableAbove *ledger.Amount
	// MaxBody is how many bytes of a request body are read to find out what is asked. Default: [DefaultMaxBody].
	MaxBody int64
	// Keep stores answers, and gives them again to callers that repeat a call with its Idempotency-Key. Default: such a call is refused with
	// 409.
	Keep *Keep
	// FinishUnpaid lets a stream go on without a charge when its money has run out. Default: the stream ends with an error event.
	FinishUnpaid bool
	// FinishUnheard waits for the end of an answer whose client has left, and charges it. Default: the upstream call is cancelled.
	FinishUnheard bool
	// Charged reports whether an answer with a status is charged. Default: 2xx and 101.
	Charged func(status int) bool
	// ChargedGRPC reports whether an answer of gRPC with a status of gRPC's own is charged, if its HTTP status is. Default: OK, which is 0.
	ChargedGRPC func(code int) bool
	// Includes says that handlers below send requests to the server itself, to make the answer out of theirs. They are part of the call, and
	// cost nothing.
	Includes bool
	// Shadow counts, prices and records calls, but refuses and charges nothing.
	Shadow bool
}

// Cost says where an answer states its cost, as an amount in the ledger's currency.
type Cost struct {
	Probes []*probe.Probe  // the first that the answer has counts; in a stream the last message that has it
	Scale  decimal.Decimal // the value of the unit in which the cost is stated; zero means 1
	Markup pricing.Percent
	Words  string // as in the configuration, for quotes: "json usage.cost markup 20%"
}

// Keep says how long an answer is stored, and how long it may be.
type Keep struct {
	Size int64 // bytes, including the header; at most [MaxKept]
	For  time.Duration
}

// MaxKept is the largest size of a stored answer, in bytes.
const MaxKept = 16 << 20

// DefaultMaxBody is how many bytes of a request body are read if the route does not say.
const DefaultMaxBody = 32 << 20

var defaultBatch = pricing.Measure{N: 1000, Unit: "token"}

func (r *Route) batch() pricing.Measure { return cmp.Or(r.Batch, defaultBatch) }

func (r *Route) maxBody() int64 { return cmp.Or(r.MaxBody, DefaultMaxBody) }

func (r *Route) logger() *slog.Logger { return cmp.Or(r.Logger, slog.Default()) }

func (r *Route) payment() Payment {
	if r.Payment == nil {
		return Wallet{}
	}
	return r.Payment
}

// leavesKeys reports whether keys that are not Tallygate's go on to the provider.
func (r *Route) leavesKeys() bool { return r.KeepKeys || r.Shadow }

func (r *Route) charged(status int) bool {
	if r.Charged == nil {
		return status/100 == 2 || status == 101
	}
	return r.Charged(status)
}

// Pattern returns a name for how the calls of a route with these rates are paid, for the books.
func Pattern(rates *pricing.Rates) string {
	_, perCall := rates.Fixed()
	switch {
	case perCall:
		return "per_call"
	case rates.UsesTokens():
		return "per_token"
	default:
		return "per_unit"
	}
}

// readsBody reports whether the request is read: because its price depends on the body, or because what it names must be the payer's.
func (r *Route) readsBody() bool {
	return r.separates() || r.Rates == nil || r.Rates.UsesTokens() || r.Rates.Uses(meter.ToolCall) || r.Rates.PricesAsked()
}
