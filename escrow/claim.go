package escrow

import (
	"context"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Claims is the state that a process has only while it runs, and that is not in the books. It knows how much of each limited thing the running
// calls have claimed, so that together they never take more than there is. Claims are lost when the process ends; their results are in the
// books.
//
// [Book.Claims] returns the claims of a ledger. No other code keeps such state, neither in this package nor in those that use it. The current
// implementation is in memory, for a process that does not share its ledger. If several processes share a ledger, another implementation could
// lease a part of each thing from the ledger. Holds of money are not claims, but belong to the ledger (see [ledger.Hold]).
//
// All methods may be called from any goroutine.
type Claims interface {
	// Take claims n of each thing, or nothing: if there is too little of one of them, it fails with a *[NoRoom]. All things must belong to one
	// owner or to everybody.
	Take(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// TakeUpTo is like Take, but claims less than n, perhaps nothing, if there is too little. The claim's Amount says how much it claimed.
	TakeUpTo(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// Await is like Take, but waits until there is enough, or until ctx ends. No bound may have Left.
	Await(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// Taken returns how much of a thing all claims together have taken.
	Taken(of Thing) int64

	// Pass counts an event whose rate is limited, such as a wrong key. If there were too many, the event is not counted, and wait is the time
	// until the next one is allowed.
	Pass(of Thing, at Rate) (wait time.Duration)

	// Wait returns the wait that Pass would return, without counting an event.
	Wait(of Thing, at Rate) time.Duration

	// Paid returns what is known of a thing that is paid for a time.
	Paid(of Thing) Paid
	// Pay notes until when a thing is paid. If too many are known, all of one kind are forgotten.
	Pay(of Thing, paid Paid)
	// Count counts n events that have happened, even if they are more than the rate allows. Then Pass has to wait the longer.
	Count(of Thing, at Rate, n int64)

	// Live registers something that runs in this process, such as a call, with a function that ends it. The caller must call the returned
	// function when it has ended by itself.
	Live(end func()) (ended func())
	// EndLive ends everything that is registered by Live, concurrently, and returns when all have ended.
	EndLive()
}

// Claim is what was claimed of some things. Its methods may be called from any goroutine. After the claim has ended they do nothing.
type Claim interface {
	// Amount returns how much the claim has of each of its things.
	Amount() int64
	// Extend takes more, or fails like [Claims] Take and takes nothing.
	Extend(by int64) error
	// ExtendUpTo takes more, or as much of it as there is. It returns how much it took.
	ExtendUpTo(by int64) (int64, error)
	// GiveBack gives a part back.
	GiveBack(n int64)
	// Settle ends the claim when the operation t is durable. t must write into the books what was used of the claim.
	Settle(t *Tx, used int64)
	// End gives back what the claim still has.
	End()
}

// Kind says what is claimed.
type Kind string

// The kinds of things that are claimed.
const (
	RunningCalls    Kind = "calls"           // of an agent: calls that run
	RunningKey      Kind = "idempotency key" // of an agent, by its key: the call that runs under it; its note is the digest of the request
	RunningWork     Kind = "milestone"       // of a payer, by escrow and milestone: the call that does its work
	SpendLimit      Kind = "limit"           // of a payer, by limit: what running calls may spend of it, in nanos
	PlanQuota       Kind = "quota"           // of a payer, by subscription: what running calls may use of it, in millionths of a unit
	Cancelling      Kind = "cancellation"    // of a payer, by subscription: the operation that cancels it
	OpenedEscrow    Kind = "opener"          // of a payer, by payee: a call that opens an escrow between the two
	RequestBody     Kind = "body"            // of an agent, and of everybody: bytes of request bodies that are kept in memory
	Work            Kind = "work"            // of everybody, by its name: something that one worker at a time sees to, such as a delivery
	RunningDelivery Kind = "delivery"        // of an agent, and of everybody: messages to webhooks that are being sent
	WrongKey        Kind = "wrong key"       // of a client: tries with a key that is not valid; counted by Pass, as are the next two
	Registration    Kind = "registration"    // of a client: agents that it registers
	WithheldAnswer  Kind = "withheld"        // of an agent: complete answers that its money, or a limit, did not reach for; counted by Pass
	CodeContainer   Kind = "container"       // of a payer, by payee and container: until when it is paid for, see Pay
	ItemizedAnswer  Kind = "itemized"        // of a payer, by payee: a call for results of which each is charged once
	FaucetClaim     Kind = "faucet"          // of a client: claims of the faucet
	RunningReport   Kind = "report"          // of an agent, and of everybody: reports that are added up, or wait for that
	OpenWatch       Kind = "watch"           // of an agent, and of everybody: watches of what changes
	PacedCall       Kind = "pace"            // of an agent, by the name of a rate: its calls, or their tokens; counted by Pass and Count
)

// Thing is something that is claimed.
type Thing struct {
	Kind  Kind
	Owner string // whose it is: an agent, or a client's address; empty: everybody's
	Name  string // which of the owner's things; empty if it has only one
}

// Bound says how much of a thing all claims together may take.
type Bound struct {
	Of   Thing
	Most int64
	// Share is for a thing of an owner, if the claim also has a bound of the same kind that belongs to everybody. The owner then gets no more of
	// it than a [SharePart]th of what is left for everybody, so that there is always something left for the next owner.
	Share bool
	// Left, if not nil, reads from the books how much there is, and replaces Most. If it fails, the claim fails with its error.
	Left func(ledger.Reader) (int64, error)
	// Note is returned in NoRoom to a claim that fails because of this one. It is for things that only one claim at a time can have.
	Note []byte
}

// SharePart says how much one owner gets with [Bound].Share, as a divisor of what is left of a thing.
const SharePart = 2

// NoRoom is the error of a claim for which there is too little of a thing.
type NoRoom struct {
	Bound int   // the index of the claim's bound with the least room
	Room  int64 // the room that it has; negative if more of the thing is claimed than there is
	Note  []byte
}

// Error says how much room there is.
func (e *NoRoom) Error() string { return fmt.Sprintf("there is room for %d", e.Room) }

// Rate is how often something may happen.
type Rate struct {
	Every time.Duration // once more after so long, or N times
	Burst int           // so often at once
	N     int           // 0: once
}

// Paid is until when a thing is paid for. It is zero if nothing is known of the thing.
type Paid struct {
	Session time.Time // by the session
	Minutes time.Time // by the minute
	Size    int64
}

// Claims returns what this process has claimed on the ledger.
func (b *Book) Claims() Claims { return b.process.claims }
