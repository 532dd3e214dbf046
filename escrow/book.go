// Package escrow contains the rules about money: agents and their keys, wallets, escrows, subscriptions, and charges of metered calls. It
// uses package [ledger], which moves the money. It knows neither HTTP nor tokens.
//
// To begin, open a ledger and make a [Book] of it with [New] and the [Rules] of a configuration. Methods of [Tx] change the books; run them by
// [Do], as one atomic operation. A metered call is paid by [Book.Authorise]: the [Authorisation] that it returns draws, settles or cancels.
// Every refusal is a [*Refusal] with a stable [Outcome], and changes nothing. Other errors are failures of the ledger.
//
// All files are in one folder, since they are one set of rules. Their names say what they are about:
//
//	book_*          the book itself: records, ids, lists, idempotency keys, what falls due, receipts, the check of the books
//	agent_*         agents, their keys, limits and reputation
//	wallet_*        payments between wallets, allowances, the faucet, money that comes in by rails
//	credit_*        what payees let agents use without money, and the coupons for it
//	escrow_*        escrows: locked, released, refunded, disputed, by milestones
//	call_*          metered calls: authorised, drawn, settled; charges and their quality
//	subscription_*  plans, periods and quotas
//	usage*          sums of charges, kept as they are made, and the reports of them
//	resource        what providers keep, and which payer made it
//	event_*         what agents are told of: events, the outbox, webhooks, watches
//	claim_*         what one process knows for a moment
package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Rules are the settings of a configuration about money. The zero value has no operator, no faucet and no commission.
type Rules struct {
	OpenRegistration bool          // anybody may create an agent; otherwise only the operator
	Faucet           ledger.Amount // given once to each agent that asks; 0: there is no faucet
	FaucetBudget     ledger.Amount // the most that the faucet gives to all agents in one FaucetPeriod; 0: no limit
	FaucetPeriod     time.Duration
	CommissionPPM    int64         // the operator's part of releases, debits and charges, in parts per million; see [ParsePercent]
	MinEscrow        ledger.Amount // the smallest amount of an escrow made by an agent (a meter may open smaller ones), and of a period
	MinPeriod        time.Duration // the shortest period of a subscription without a plan; 0: [DefaultMinPeriod]
	MaxSubscriptions int           // without a plan, that one payer may have at once; 0: [DefaultMaxSubscriptions]
	RefundWindow     time.Duration // after it, a payer's refund request that nobody answered is granted; 0: [DefaultRefundWindow]
	DefaultLimits    []Limit       // the operator's limits of agents that are made from now on, except for payees of the configuration
	MaxCalls         int           // of one agent, that run at once; 0: [DefaultMaxCalls]
	Plans            []Plan        // subscriptions that agents may consent to
	Rails            []string      // the names of payment rails; nobody registers an agent whose id could be that of one's payer
	OperatorKeyHash  [32]byte      // SHA-256 of the operator's key ([HashKey]); zero: the operator's rights are off
}

// DefaultRefundWindow is how long a payee has to answer a refund request, if the rules do not say.
const DefaultRefundWindow = 72 * time.Hour

// The limits of subscriptions without a plan, if the rules do not say. They exist because each period is work for the server, for as long as the
// subscription lasts.
const (
	DefaultMinPeriod        = time.Hour
	DefaultMaxSubscriptions = 100
)

// DefaultMaxCalls is how many calls of one agent may run at the same time, if the rules do not say.
const DefaultMaxCalls = 1000

// Book is a ledger with the rules of one configuration. It is cheap to make: during a reload, two configurations use the same ledger with
// one Book each. The second is made from the first by [Book.With].
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

// Currency returns the label of the ledger's money.
func (b *Book) Currency() string { return b.ledger.Currency() }

// Now returns the ledger's time, which never goes back.
func (b *Book) Now() time.Time { return b.ledger.Now() }

// process is what all books of one ledger share in this process: its claims, and otherwise only things that can be read from the ledger or
// made again at any time.
type process struct {
	shared bool // with other processes
	claims Claims
	ids    *ids
	outbox chan struct{} // has room for one: a message means that there is something new to deliver
	signer *signer       // of receipts

	keys   decoded[Key]
	agents decoded[Agent]
	drawn  decoded[Escrow] // from which calls are paid
	silent *silent         // agents without webhooks

	oldest  oldest
	watches *watches // what open pages wait for

	abandoned abandoned // calls whose charge failed with a commit
	unkept    *unkept   // payees whose totals may be behind

	pacing agentLocks // of [Book.Pace]
	taking agentLocks // of calls that take of several things, see call_take.go
}

func newProcess(l *ledger.Ledger) *process {
	return &process{shared: l.IsShared(), claims: newClaims(l), ids: newIDs(), outbox: make(chan struct{}, 1), signer: &signer{}, drawn: decoded[Escrow]{ready: (*Escrow).loaded}, silent: newSilent(l), watches: newWatches(), unkept: newUnkept(), taking: newAgentLocks(), pacing: newAgentLocks()}
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

// Do runs op as one atomic operation, and returns its result when it is durable. If op returns an error, nothing that it did is kept. If ctx
// ends while Do waits, Do returns, but the operation still takes place.
//
// op may run more than once (see [ledger.Tx]), so it must return its results and change nothing but the books.
func Do[T any](ctx context.Context, b *Book, op func(*Tx) (T, error)) (T, error) {
	return ledger.Do(ctx, b.ledger, func(tx *ledger.Tx) (T, error) { return op(b.tx(tx)) })
}

// queue is Do without the waiting.
func queue[T any](b *Book, op func(*Tx) (T, error)) *ledger.Receipt[T] {
	return ledger.Queue(b.ledger, func(tx *ledger.Tx) (T, error) { return op(b.tx(tx)) })
}

// Tx is one atomic operation on the books. It is valid only inside the function that [Do] calls with it. It has no method that waits for
// another operation, since that operation would wait for this one.
type Tx struct {
	ledger  *ledger.Tx
	rules   *Rules
	process *process
}

func (b *Book) tx(tx *ledger.Tx) *Tx { return &Tx{ledger: tx, rules: &b.rules, process: b.process} }

// Now returns the time of the operation, which is the same during the whole operation.
func (t *Tx) Now() time.Time { return t.ledger.Now() }

// Currency is the label of the ledger's money.
func (t *Tx) Currency() string { return t.ledger.Currency() }
