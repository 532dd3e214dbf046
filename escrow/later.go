package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

type shared struct{}

func newShared() *shared { return &shared{} }

func (b *Book) catchUp(ctx context.Context) error { return nil }

// Authenticate finds the agent, or the operator, that holds a key. It is one lookup.
// Refused with unauthorized; the detail tells a mistyped key from an unknown and a revoked one.
func (b *Book) Authenticate(key string) (Actor, error) { panic("unfinished") }

// HashKey is the form in which keys are kept: their SHA-256.
func HashKey(key string) [32]byte { panic("unfinished") }

// ParsePercent reads "1%", "0.25%" or "1" as parts per million.
func ParsePercent(s string) (ppm int64, err error) { panic("unfinished") }

// Reserve makes the payee of a configuration, or finds it. An agent of that id that registered itself stops it, with the remedies.
func (b *Book) Reserve(ctx context.Context, payee string) error { panic("unfinished") }

// CreateKey makes a key for an agent and returns it; it is shown only here.
func (t *Tx) CreateKey(by Actor, agent string, o KeyOrder) (Key, string, error) { panic("unfinished") }

// KeyOrder is what a new key may do.
type KeyOrder struct {
	Name     string
	ReadOnly bool
	Payees   []string
}

// Key is a key as it may be shown: all but the key.
type Key struct {
	ID        string
	Agent     string
	Name      string
	ReadOnly  bool
	Payees    []string
	CreatedAt time.Time
	RevokedAt time.Time
}

// RecoverPending is run once after a ledger was opened, before it serves: draws of calls that died with the process are posted and
// recorded as charges.
func (b *Book) RecoverPending(ctx context.Context) error { panic("unfinished") }

// RunDue does all that is due: auto-releases, refund windows, renewals. It returns when the next thing is due (zero: nothing is).
func (b *Book) RunDue(ctx context.Context) (next time.Time, err error) { panic("unfinished") }

// Report is what [Book.Check] found.
type Report struct {
	Ledger ledger.Report
	Wrong  []Finding
}

// Finding is one thing that is wrong in the books.
type Finding struct{ Subject, Problem string }

// Check proves the books: the ledger's own check, then the rules of this package.
func (b *Book) Check(ctx context.Context, progress func(done, total uint64)) (Report, error) {
	panic("unfinished")
}
