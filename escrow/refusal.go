package escrow

import (
	"errors"
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Outcome is the stable name of a refusal, the `code` of the API's problems.
type Outcome = ledger.Outcome

// Refusal is the error of a request that breaks a rule. A refused request changes nothing.
type Refusal = ledger.Refusal

// The outcomes of this package, in addition to those of the ledger, such as [InsufficientFunds].
const (
	Unauthorized         Outcome = "unauthorized"          // no key, or one that is not known or no longer valid
	Forbidden            Outcome = "forbidden"             // the caller may see the thing, but not do this
	NotFound             Outcome = "not_found"             // the thing does not exist, or belongs to others
	InvalidStatus        Outcome = "invalid_status"        // the thing is not in a state that allows it
	AlreadyExists        Outcome = "already_exists"        // the thing exists already, or was done already
	InvalidRequest       Outcome = "invalid_request"       // `field` names what is wrong
	ExceedsRemaining     Outcome = "exceeds_remaining"     // more than is left
	EscrowRequired       Outcome = "escrow_required"       // the route is paid from an escrow, and there is no suitable one
	SubscriptionRequired Outcome = "subscription_required" // the route is paid by a subscription that the caller does not have
	LimitExceeded        Outcome = "limit_exceeded"        // a limit would be exceeded
	RateLimited          Outcome = "rate_limited"          // `retry_after` is in seconds
	IdempotencyConflict  Outcome = "idempotency_conflict"  // the idempotency key is in use, or came before with other content
	InsufficientFunds            = ledger.InsufficientFunds
)

// refuse makes a refusal. fields are names and values that help the caller to fix the request.
func refuse(outcome Outcome, fields map[string]string, format string, args ...any) *Refusal {
	return &Refusal{Outcome: outcome, Detail: fmt.Sprintf(format, args...), Fields: fields}
}

// invalid refuses a request for one of its fields.
func invalid(field, format string, args ...any) *Refusal {
	return refuse(InvalidRequest, map[string]string{"field": field}, format, args...)
}

// IsRefusal reports whether err is a refusal with that outcome.
func IsRefusal(err error, outcome Outcome) bool {
	r, is := errors.AsType[*Refusal](err)
	return is && r.Outcome == outcome
}
