package escrow

import (
	"context"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Claims is what one process knows for a moment, and the books do not say: what the calls that it runs have taken of things that are
// bounded, so that together they take no more than there is. A claim is gone with its process; what came of it is in the books.
//
// Every book has one, by [Book.Claims], and nothing else keeps such state: not this package, nor those above. The one there is keeps it in
// memory, for a process that has a ledger to itself. Where several processes share a ledger, another one can stand in its place that leases a
// part of each thing from the ledger and gives claims out of that. (Holds of money are the ledger's own, see [ledger.Hold]: the authoriser
// must count them.)
//
// All methods may be called from any goroutine.
type Claims interface {
	// Take claims n of each thing, all of them or none: where one has no room for n, it fails with a *[NoRoom]. The things are of one owner, and
	// of everybody.
	Take(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// TakeUpTo is Take of n, or of as much of it as there is room for, perhaps nothing: the claim's Amount says how much.
	TakeUpTo(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// Await is Take that waits until there is room, or ctx ends. No bound has Left.
	Await(ctx context.Context, n int64, of ...Bound) (Claim, error)
	// Taken is how much all claims together have taken of a thing.
	Taken(of Thing) int64

	// Pass counts one more of a thing that happens at a rate and is over at once, such as a wrong key. Where it happens too often it is not
	// counted: wait is how long until the next may.
	Pass(of Thing, at Rate) (wait time.Duration)

	// Wait is how long Pass would have the next one wait. It counts nothing.
	Wait(of Thing, at Rate) time.Duration

	// Live notes something that lives in this process, such as a call, and how to end it. It returns how to take the note back, once it has
	// ended by itself.
	Live(end func()) (ended func())
	// EndLive ends all that lives, all at once, and returns when each has been ended.
	EndLive()
}

// Claim is what was taken of some things. Its methods may be called from any goroutine; those of a claim that has ended do nothing.
type Claim interface {
	// Amount is how much the claim has, of each of its things.
	Amount() int64
	// Extend takes so much more, or fails as [Claims] Take does and takes nothing.
	Extend(by int64) error
	// ExtendUpTo takes so much more, or as much of it as there is room for, and returns how much that was.
	ExtendUpTo(by int64) (int64, error)
	// GiveBack gives so much back.
	GiveBack(n int64)
	// Settle ends the claim when the operation is durable that writes into the books what was used of it.
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
	OpenedEscrow    Kind = "opener"          // of a payer, by payee: a call that opens an escrow between the two
	RequestBody     Kind = "body"            // of an agent, and of everybody: bytes of request bodies that are kept in memory
	Work            Kind = "work"            // of everybody, by its name: something that one worker at a time sees to, such as a delivery
	RunningDelivery Kind = "delivery"        // of an agent, and of everybody: messages to webhooks that are being sent
	WrongKey        Kind = "wrong key"       // of a client: tries with a key that is not valid; counted by Pass, as are the next two
	Registration    Kind = "registration"    // of a client: agents that it registers
	WithheldAnswer  Kind = "withheld"        // of an agent: complete answers that its money, or a limit, did not reach for; counted by Pass
	FaucetClaim     Kind = "faucet"          // of a client: claims of the faucet
)

// Thing is something that is claimed.
type Thing struct {
	Kind  Kind
	Owner string // whose it is: an agent, or a client's address; empty: everybody's
	Name  string // which of the owner's; empty where there is one
}

// Bound is how much there is of a thing, for all claims together.
type Bound struct {
	Of   Thing
	Most int64
	// Share, on a bound of an owner's thing, lets the owner have no more than the part [SharePart] of what is then left for everybody: of the
	// claim's bound of the same kind that is everybody's. So whoever comes next still finds some.
	Share bool
	// Left, if not nil, reads in the books how much there is, in place of Most. Its error is the claim's.
	Left func(ledger.Reader) (int64, error)
	// Note is told to whoever finds no room beside this claim, in NoRoom. It is for things that one claim at a time can have.
	Note []byte
}

// SharePart is the part that one owner may have, by [Bound].Share, of what is left of a thing, as a divisor.
const SharePart = 2

// NoRoom is the error of a claim of more than there is room for.
type NoRoom struct {
	Bound int   // which of the claim's bounds has the least room, the first being 0
	Room  int64 // that it has; below zero where there is less of the thing than is claimed
	Note  []byte
}

// Error says how much room there is.
func (e *NoRoom) Error() string { return fmt.Sprintf("there is room for %d", e.Room) }

// Rate is how often something may happen.
type Rate struct {
	Every time.Duration // once more after so long
	Burst int           // so often at once
}

// Claims returns what this process has claimed on the ledger.
func (b *Book) Claims() Claims { return b.process.claims }
