package ledger

import (
	"errors"
	"fmt"
)

// Outcome names how an operation ended; the names are part of the interface. Packages above add their own.
type Outcome string

// The ledger's own outcomes.
const (
	OK                Outcome = ""                   // done
	InsufficientFunds Outcome = "insufficient_funds" // the debit account has less available than asked for
	InvalidTransfer   Outcome = "invalid_transfer"   // amount not above zero, one account on both sides, a malformed name
	Overflow          Outcome = "overflow"           // a counter would leave the range of Amount
	PendingNotFound   Outcome = "pending_not_found"  // no pending transfer has this number
	PendingResolved   Outcome = "pending_resolved"   // the pending transfer was posted or voided before
	ExceedsPending    Outcome = "exceeds_pending"    // more to post than is pending
)

// Refusal is an outcome that changes nothing: an answer, not a failure. Errors of this package that are refusals are *Refusal.
type Refusal struct {
	Outcome Outcome           `cbor:"1,keyasint"`
	Detail  string            `cbor:"2,keyasint,omitempty"`
	Fields  map[string]string `cbor:"3,keyasint,omitempty"` // what is needed to mend it, such as required and available
}

// Error returns the outcome and its detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return string(r.Outcome)
	}
	return string(r.Outcome) + ": " + r.Detail
}

// OutcomeOf returns the outcome of a refusal anywhere in err's chain, else [OK]; a nil error is OK too.
func OutcomeOf(err error) Outcome {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Outcome
	}
	return OK
}

func refuseFunds(id AccountID, required, available Amount) *Refusal {
	available = max(available, 0)
	return &Refusal{
		Outcome: InsufficientFunds,
		Detail:  fmt.Sprintf("%s has %s available, %s is required", id, available, required),
		Fields:  map[string]string{"required": required.String(), "available": available.String()},
	}
}
