package ledger

import (
	"errors"
	"fmt"
)

// Outcome is a name for how an operation ended. The names are part of the API. Packages that use the ledger add their own.
type Outcome string

// The ledger's own outcomes.
const (
	OK                Outcome = ""                   // done
	InsufficientFunds Outcome = "insufficient_funds" // the debit account has less available than required
	InvalidTransfer   Outcome = "invalid_transfer"   // the amount is not above zero, both accounts are the same, or a name is malformed
	Overflow          Outcome = "overflow"           // a counter would leave the range of Amount
	PendingNotFound   Outcome = "pending_not_found"  // no pending transfer has this number
	PendingResolved   Outcome = "pending_resolved"   // the pending transfer was posted or voided before
	ExceedsPending    Outcome = "exceeds_pending"    // more was to be posted than is pending
)

// Refusal is the error of an operation that the rules do not allow. A refused operation changes nothing. The ledger itself works as it
// should; failures of the store are other errors.
type Refusal struct {
	Outcome Outcome           `cbor:"1,keyasint"`
	Detail  string            `cbor:"2,keyasint,omitempty"`
	Fields  map[string]string `cbor:"3,keyasint,omitempty"` // details for the caller, such as "required" and "available"
}

// Error returns the outcome and its detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return string(r.Outcome)
	}
	return string(r.Outcome) + ": " + r.Detail
}

// OutcomeOf returns the outcome of the [Refusal] in err's chain. It returns [OK] if there is none, so also for errors that are failures.
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
