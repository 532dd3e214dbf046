// Package escrow is the money and its rules: agents and their keys, wallets, charges of metered calls, escrows. It stands
// on [ledger], which alone moves money, and knows no HTTP and no tokens.
//
// A [Book] joins a ledger with the [Rules] of one configuration. What changes the books is a method of [Tx], one atomic
// operation that [Do] runs; what a metered call does (authorise, draw, settle, cancel) is in [Authorisation].
// Every refusal is a [*Refusal] with a stable [Outcome]; it changes nothing. Other errors are failures of the ledger.
//
// The files lie flat, since all of it is one set of rules; their names say what they are about:
//
//	book_*          the book itself: records, ids, lists, idempotency keys, what falls due, receipts, the check of the books
//	agent_*         agents, their keys, limits and reputation
//	wallet_*        payments between wallets, allowances, the faucet, money that comes in by rails
//	escrow_*        escrows: locked, released, refunded, disputed, by milestones
//	call_*          metered calls: authorised, drawn, settled; charges and their quality
//	subscription_*  plans, periods and quotas
//	resource        what providers keep, and which payer made it
//	event_*         what agents are told of: events, the outbox, webhooks
//	claim_*         what one process knows for a moment
package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Rules are what a configuration says about the money. The zero value has no operator, no faucet, no commission.
type Rules struct {
	OpenRegistration bool          // anyone may create an agent; else the operator alone
	Faucet           ledger.Amount // given once to each agent that asks; 0: there is no faucet
	FaucetBudget     ledger.Amount // the most that the faucet gives to all in one FaucetPeriod; 0: no bound
	FaucetPeriod     time.Duration
	CommissionPPM    int64         // the operator's part of releases, debits and charges, in parts per million; see [ParsePercent]
	MinEscrow        ledger.Amount // the least amount of an escrow made by an agent (those opened by a meter may be smaller), and of a period
	MinPeriod        time.Duration // the shortest period of a subscription without a plan; 0: [DefaultMinPeriod]
	MaxSubscriptions int           // without a plan, that one payer may have at once; 0: [DefaultMaxSubscriptions]
	RefundWindow     time.Duration // after it, a payer's refund request that nobody answered is granted; 0: [DefaultRefundWindow]
	MaxCalls         int           // of one agent, that run at once; 0: [DefaultMaxCalls]
	Plans            []Plan        // subscriptions that agents may consent to
	OperatorKeyHash  [32]byte      // SHA-256 of the operator's key ([HashKey]); zero: the operator's rights are off
}

// DefaultRefundWindow is how long a payee has to answer a refund request where the rules do not say.
const DefaultRefundWindow = 72 * time.Hour

// What subscriptions without a plan are bounded by where the rules do not say. Each period is work for the server, for as long as the
// subscription lasts.
const (
	DefaultMinPeriod        = time.Hour
	DefaultMaxSubscriptions = 100
)

// DefaultMaxCalls is how many calls of one agent may run at once where the rules do not say.
const DefaultMaxCalls = 1000

// Book is a ledger under the rules of one configuration. It is a light value: two configurations, during a reload, stand on
// the same ledger with a Book each, the second made from the first by [Book.With].
type Book struct {
	ledger  *ledger.Ledger
	rules   Rules
	process *process
}

// New returns a book over l. Make one per ledger, and further ones by [Book.With], so that they share what they keep in memory.
func New(l *ledger.Ledger, r Rules) *Book {
	return &Book{ledger: l, rules: r.withDefaults(), process: newProcess(l)}
}

// With returns a book with other rules over the same ledger.
func (b *Book) With(r Rules) *Book {
	return &Book{ledger: b.ledger, rules: r.withDefaults(), process: b.process}
}

// Rules returns the rules of the book.
func (b *Book) Rules() Rules { return b.rules }

// Ledger returns the ledger below the book.
func (b *Book) Ledger() *ledger.Ledger { return b.ledger }

// Currency is the label of the ledger's money.
func (b *Book) Currency() string { return b.ledger.Currency() }

// Now is the ledger's time, which never goes back.
func (b *Book) Now() time.Time { return b.ledger.Now() }

// process is what the books over one ledger share in this process: its claims, and besides them only what can be read in the ledger at any
// time, or made up anew.
type process struct {
	claims Claims
	ids    *ids
	outbox chan struct{} // has room for one: there is something new to deliver
	signer *signer       // of receipts

	abandoned abandoned // calls that a failed commit has hit
}

func newProcess(l *ledger.Ledger) *process {
	return &process{claims: newMemory(l), ids: newIDs(), outbox: make(chan struct{}, 1), signer: &signer{}}
}

func (r Rules) withDefaults() Rules {
	if r.RefundWindow <= 0 {
		r.RefundWindow = DefaultRefundWindow
	}
	if r.MinPeriod <= 0 {
		r.MinPeriod = DefaultMinPeriod
	}
	if r.MaxSubscriptions <= 0 {
		r.MaxSubscriptions = DefaultMaxSubscriptions
	}
	if r.MaxCalls <= 0 {
		r.MaxCalls = DefaultMaxCalls
	}
	return r
}

// Do runs op as one atomic operation and returns its result when it is durable: all that op did is kept, or, when it returns an error,
// nothing of it. An op that has been accepted runs to its end whatever happens to ctx, which bounds the waiting alone.
//
// An op may run more than once (see [ledger.Tx]): it returns what it comes to, and changes nothing but the books.
func Do[T any](ctx context.Context, b *Book, op func(*Tx) (T, error)) (T, error) {
	return ledger.Do(ctx, b.ledger, func(tx *ledger.Tx) (T, error) { return op(b.tx(tx)) })
}

// queue is Do without the waiting.
func queue[T any](b *Book, op func(*Tx) (T, error)) *ledger.Receipt[T] {
	return ledger.Queue(b.ledger, func(tx *ledger.Tx) (T, error) { return op(b.tx(tx)) })
}

// Tx is one atomic operation on the books. It is valid only inside the function that it was given to, and has no method that waits for
// another operation: that would wait for itself.
type Tx struct {
	ledger  *ledger.Tx
	rules   *Rules
	process *process
}

func (b *Book) tx(tx *ledger.Tx) *Tx { return &Tx{ledger: tx, rules: &b.rules, process: b.process} }

// Now is the one time of the whole operation.
func (t *Tx) Now() time.Time { return t.ledger.Now() }

// Currency is the label of the ledger's money.
func (t *Tx) Currency() string { return t.ledger.Currency() }
