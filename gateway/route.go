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

// Route is a metered route: whom its calls pay, at which prices, and how. It does not change while calls run on it.
type Route struct {
	// Payee is the agent that is paid.
	Payee string
	// Name is the route's in charges and lists: the paths that it stands before.
	Name string
	// Logger takes what an operator must know of the route's calls. Default: slog.Default().
	Logger *slog.Logger

	// Rates are the prices of every call. Either these or a Tariff.
	Rates *pricing.Rates
	// Tariff has prices by the model that a request asks for.
	Tariff *pricing.Tariff
	// Cost charges what the provider itself states, where it does; the prices then bound a call beforehand. Default: the prices are charged.
	Cost *Cost
	// Counts are units of the provider's own that its answers state.
	Counts []probe.Count
	// Quality pays an answer by what it is worth. Default: in full.
	Quality *Quality
	// Payment is where the money of a call comes from. Default: [Wallet].
	Payment Payment
	// Shared says which of the resources that the provider keeps are not the payer's alone who made them. Default: none, where the route has a
	// tariff or charges tokens; elsewhere payers are not kept apart.
	Shared *Shared
	// Batch is how much a stream uses between two draws. Default: 1000 tokens.
	Batch pricing.Measure

	// Identity finds out who calls. Default: the caller's Tallygate key.
	Identity Identity
	// MaxCharge is the most that one call may cost; 0: no bound but the caller's money.
	MaxCharge ledger.Amount
	// DurableAbove, where it is set, has the hold of a call written to the disk before the call goes on, if it holds more than this.
	DurableAbove *ledger.Amount
	// MaxBody is how many bytes of a request body are read to find out what is asked. Default: [DefaultMaxBody].
	MaxBody int64
	// Keep gives answers again to callers that make a call anew under its Idempotency-Key. Default: such a call is refused with 409.
	Keep *Keep
	// FinishUnpaid lets a stream run on, unpaid, when its money has run out. Default: it ends with an error event.
	FinishUnpaid bool
	// FinishUnheard awaits an answer whose client has left, and charges it. Default: the upstream call is cancelled.
	FinishUnheard bool
	// Charged reports whether an answer with a status is charged. Default: 2xx and 101.
	Charged func(status int) bool
	// Shadow counts, prices and records calls, but refuses and charges nothing.
	Shadow bool
}

// Cost says where an answer states what it costs, as an amount of the ledger's currency.
type Cost struct {
	Probes []*probe.Probe  // of several, the first that the answer has; of a stream, the last message that has it
	Scale  decimal.Decimal // what one of the units is worth in which it is stated; zero stands for 1
	Markup pricing.Percent
	Words  string // as the configuration says it, for quotes: "json usage.cost markup 20%"
}

// Keep is how long an answer is kept to be given again, and how long it may be.
type Keep struct {
	Size int64 // bytes, header included; at most [MaxKept]
	For  time.Duration
}

// MaxKept is how many bytes a kept answer has at most.
const MaxKept = 16 << 20

// DefaultMaxBody is how many bytes of a request body are read where the route does not say.
const DefaultMaxBody = 32 << 20

var defaultBatch = pricing.Measure{N: 1000, Unit: "token"}

func (r *Route) batch() pricing.Measure { return cmp.Or(r.Batch, defaultBatch) }

func (r *Route) maxBody() int64 { return cmp.Or(r.MaxBody, DefaultMaxBody) }

func (r *Route) payment() Payment {
	if r.Payment == nil {
		return Wallet{}
	}
	return r.Payment
}

func (r *Route) charged(status int) bool {
	if r.Charged == nil {
		return status/100 == 2 || status == 101
	}
	return r.Charged(status)
}

// Pattern names how the calls of a route with these rates are paid, for the books.
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

// readsBody reports whether the request is read: what it costs depends on its body, or what it names must be the payer's.
func (r *Route) readsBody() bool {
	return r.separates() || r.Rates == nil || r.Rates.UsesTokens() || r.Rates.Uses(meter.ToolCall) || r.Rates.PricesAsked()
}
