package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Funding says where a metered call takes its money.
type Funding int

// A call is paid from the payer's wallet or from an escrow between payer and payee.
const (
	FromWallet Funding = iota
	FromEscrow
)

// CallOrder is what a metered call asks for before it goes upstream.
type CallOrder struct {
	Request string // the id of the request, by [Book.NewRequestID]
	By      Actor  // who pays
	Payee   string
	Route   string // the route's name or pattern in the configuration, for lists and statistics
	Pattern string // how it is charged: "per_call", "per_token", ...
	API     string // the wire format, "openai.chat" for one
	Model   string
	Least   ledger.Amount // the first hold: nothing starts without it
	Most    ledger.Amount // up to this is held where it is available; below Least: Least
	From    Funding
	Escrow  string        // FromEscrow: the one that the caller named, or empty
	Open    ledger.Amount // FromEscrow: without a fitting escrow, one of min(Open, available), at least Least, is opened; 0: refused with escrow_required
	OpenFor time.Duration // after this the opened escrow's rest goes back to the payer; 0: it stays
	Tags    map[string]string
}

// Settlement is what a call came to.
type Settlement struct {
	Amount     ledger.Amount     // price of the final usage, whatever was drawn on the way
	Units      map[string]string // unit -> count, as decimal text
	UnitPrices map[string]string // unit -> price as applied, as text
	Model      string            // the model that answered, if it differs from the order's
	Source     string            // "stated" by the provider or "estimated" here
	Cut        string            // what ended the response early: "none", "client", "upstream", "funds"
	Suspect    bool              // the usage was absurd and has been clamped
	HTTPStatus int               // the upstream's answer
	Duration   time.Duration     // from the request to the end of the response
}

// Authorise takes money aside for a call. From the wallet it writes nothing to disk.
//
// Refusals: insufficient_funds (fields required, available, currency, payee), limit_exceeded, escrow_required, forbidden; for a
// named escrow not_found (absent or another payer's), forbidden (not to this payee, or paid by milestones), invalid_status
// (no longer open).
func (b *Book) Authorise(ctx context.Context, o CallOrder) (*Authorisation, error) {
	panic("unfinished")
}

// Authorisation is money taken aside for one call. Its methods are called from the goroutine that serves the call, but for
// Err, Held and Cancel, which any may call.
type Authorisation struct{}

// Escrow is the id of the escrow that pays, empty for a wallet.
func (a *Authorisation) Escrow() string { panic("unfinished") }

// Held is what is still aside: authorised and not drawn.
func (a *Authorisation) Held() ledger.Amount { panic("unfinished") }

// Extend grows what has been authorised to total, draws included. Refused with insufficient_funds, nothing has changed.
func (a *Authorisation) Extend(total ledger.Amount) error { panic("unfinished") }

// ExtendUpTo grows what has been authorised to total or to what is available, and returns what it came to, draws included.
func (a *Authorisation) ExtendUpTo(total ledger.Amount) ledger.Amount { panic("unfinished") }

// Draw pays what is due so far, cumulative, from what is held, and never more than that. It is queued and does not wait for the
// disk; a failure shows in Err. Units counted exactly are posted at once; an estimate is drawn as the payee's pending credit
// and becomes exact at Settle.
func (a *Authorisation) Draw(due ledger.Amount, exact bool) { panic("unfinished") }

// Err is the failure of an earlier Draw, after which the response must be aborted.
func (a *Authorisation) Err() error { panic("unfinished") }

// Settle charges the call: one durable batch that resolves the draws, posts the rest, and records the charge. An amount beyond
// what can be had is clamped and the charge flagged suspect. Once per request: the same again returns the first charge.
// ctx bounds the waiting alone; an accepted settlement runs on.
func (a *Authorisation) Settle(ctx context.Context, s Settlement) (Charge, error) {
	panic("unfinished")
}

// Cancel gives back what is held. Posted draws stand (and are recorded as a charge), pending ones are voided. It does nothing
// after Settle, or twice.
func (a *Authorisation) Cancel() { panic("unfinished") }

// NewRequestID returns a new id of a metered request, "req_" and a ULID.
func (b *Book) NewRequestID() string { panic("unfinished") }
