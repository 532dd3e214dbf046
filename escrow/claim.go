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
// [Book.Claims] returns the claims of a ledger. No other code keeps such state, neither in this package nor in those that use it. Claims are in
// memory. If several processes share the ledger, claims of the kinds for which that matters are also records of the ledger, which are valid
// until the session of their process is over; see [Kind.IsShared] and [Kind.IsLeased]. Holds of money are not claims, but belong to the ledger
// (see [ledger.Hold]).
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
	// TakeIn is like Take, in an operation that writes into the books what was used of the claim. The claim ends with the operation.
	TakeIn(t *Tx, n int64, of ...Bound) (Claim, error)
	// TakeUpToIn is like TakeIn, but claims less than n, perhaps nothing, if there is too little.
	TakeUpToIn(t *Tx, n int64, of ...Bound) (Claim, error)
	// Taken returns how much of a thing all claims together have taken.
	Taken(of Thing) int64
	// TakenIn is like Taken, in an operation.
	TakenIn(t *Tx, of Thing) (int64, error)

	// Pass counts an event whose rate is limited, such as a wrong key. If there were too many, the event is not counted, and wait is the time
	// until the next one is allowed.
	Pass(of Thing, at Rate) (wait time.Duration)

	// Wait returns the wait that Pass would return, without counting an event.
	Wait(of Thing, at Rate) time.Duration

	// Paid returns what is known of a thing that is paid for a time.
	Paid(of Thing) Paid
	// PayIn notes until when a thing is paid, in the operation that charges for it. If too many are known in memory, all of one kind are
	// forgotten.
	PayIn(t *Tx, of Thing, paid Paid) error
	// Count counts n events that have happened, even if they are more than the rate allows. Then Pass has to wait the longer.
	Count(of Thing, at Rate, n int64)

	// Clean writes into the books what could not be given back there while the ledger took no operations.
	Clean(ctx context.Context) error

	// Live registers something that runs in this process, such as a call. The caller must call Gone when it has ended by itself.
	Live(of Living)
	// Gone removes what Live has registered.
	Gone(of Living)
	// EndLive ends everything that is registered by Live, concurrently, and returns when all have ended.
	EndLive()
}

// Living is what runs in this process, and must end before the process does. It is a pointer.
type Living interface{ EndNow() }

// Claim is what was claimed of some things. Its methods may be called from any goroutine. After the claim has ended they do nothing.
type Claim interface {
	// Amount returns how much the claim has of each of its things.
	Amount() int64
	// Extend takes more, or fails like [Claims] Take and takes nothing.
	Extend(by int64) error
	// ExtendUpTo takes more, or as much of it as there is. It returns how much it took.
	ExtendUpTo(by int64) (int64, error)
	// Room returns how much more the claim could take at the moment. It is negative if more is claimed than there is.
	Room() (int64, error)
	// GiveBack gives a part back.
	GiveBack(n int64)
	// Settle ends the claim when the operation t is durable. t must write into the books what was used of the claim.
	Settle(t *Tx) error
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
	RunningPlan     Kind = "plan"            // of a payer, by subscription: calls that run on a plan that counts no units
	Cancelling      Kind = "cancellation"    // of a payer, by subscription: the operation that cancels it
	TakenShare      Kind = "share"           // of a payer: a call that takes a part of what is left
	OpenedEscrow    Kind = "opener"          // of a payer, by payee: a call that opens an escrow between the two
	RequestBody     Kind = "body"            // of an agent, and of everybody: bytes of request bodies that are kept in memory
	Work            Kind = "work"            // of everybody, by its name: something that one worker at a time sees to, such as a delivery
	RunningDelivery Kind = "delivery"        // of an agent, and of everybody: messages to webhooks that are being sent
	PromisedPayment Kind = "promised"        // of a payer: a call whose payment is settled when its price is known
	WrongKey        Kind = "wrong key"       // of a client: tries with a key that is not valid; counted by Pass, as are the next three
	Registration    Kind = "registration"    // of a client: agents that it registers
	FreeMessage     Kind = "free message"    // of a client: messages without a key that cost nothing
	WithheldAnswer  Kind = "withheld"        // of an agent: complete answers that its money, or a limit, did not reach for; counted by Pass
	CodeContainer   Kind = "container"       // of a payer, by payee and container: until when it is paid for, see PayIn
	ItemizedAnswer  Kind = "itemized"        // of a payer, by payee: a call for results of which each is charged once
	FaucetClaim     Kind = "faucet"          // of a client: claims of the faucet
	CheckoutPage    Kind = "checkout"        // of an agent: pages on which somebody pays into its wallet; counted by Pass
	RunningReport   Kind = "report"          // of an agent, and of everybody: reports that are added up, or wait for that
	OpenWatch       Kind = "watch"           // of an agent, and of everybody: watches of what changes
	PacedCall       Kind = "pace"            // of an agent, by the name of a rate: its calls, or their tokens; counted by Pass and Count
)

// IsShared reports whether claims of the kind by all processes that share a ledger count together. Those of the other kinds protect a process, or
// only bound how often something may happen; each process counts them by itself.
func (k Kind) IsShared() bool {
	switch k {
	case RunningKey, RunningWork, SpendLimit, PlanQuota, RunningPlan, OpenedEscrow, ItemizedAnswer, Work:
		return true
	default:
		return false
	}
}

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

	others bool  // other processes have claimed some of it
	ahead  int64 // of that, what they have leased and not claimed
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
	Session time.Time `cbor:"1,keyasint"` // by the session
	Minutes time.Time `cbor:"2,keyasint"` // by the minute
	Size    int64     `cbor:"3,keyasint"`
}

// Claims returns what this process has claimed on the ledger.
func (b *Book) Claims() Claims { return b.process.claims }
