package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// problemBase is what the type of every problem begins with; its code follows.
const problemBase = "https://tallygate.dev/problems/"

// The outcomes of the API beside those of the books.
const (
	requestTooLarge   escrow.Outcome = "request_too_large"  // the body is beyond what is read
	noPrice           escrow.Outcome = "no_price"           // the tariff has no price for what is asked for
	methodNotAllowed  escrow.Outcome = "method_not_allowed" // the path has other methods
	tooEarly          escrow.Outcome = "too_early"          // the request came as 0-RTT data and costs money
	ledgerUnavailable escrow.Outcome = "ledger_unavailable" // `charge`: none, or unknown after a failed commit
	internalError     escrow.Outcome = "internal"

	// Those of a metered route whose provider fails; nothing is charged.
	upstreamFailed      escrow.Outcome = "upstream_failed"
	upstreamUnavailable escrow.Outcome = "upstream_unavailable"
	upstreamTimeout     escrow.Outcome = "upstream_timeout"
)

// kind is how an outcome is told over HTTP.
type kind struct {
	status int
	title  string
	sdk    string // the error type that the SDKs of LLM providers know
}

var kinds = map[escrow.Outcome]kind{
	escrow.Unauthorized:         {401, "A valid key is needed", "authentication_error"},
	escrow.InsufficientFunds:    {402, "Not enough money", "insufficient_quota"},
	escrow.EscrowRequired:       {402, "An escrow is needed", "insufficient_quota"},
	escrow.SubscriptionRequired: {402, "A subscription is needed", "insufficient_quota"},
	escrow.LimitExceeded:        {402, "A limit would be exceeded", "insufficient_quota"},
	escrow.Forbidden:            {403, "Not allowed", "permission_error"},
	escrow.NotFound:             {404, "Not found", "not_found_error"},
	methodNotAllowed:            {405, "Method not allowed", "invalid_request_error"},
	escrow.InvalidStatus:        {409, "Not in this state", "invalid_request_error"},
	escrow.AlreadyExists:        {409, "It exists already", "invalid_request_error"},
	escrow.IdempotencyConflict:  {409, "The idempotency key was used before", "invalid_request_error"},
	requestTooLarge:             {413, "The request is too large", "request_too_large"},
	escrow.InvalidRequest:       {422, "The request is not valid", "invalid_request_error"},
	escrow.ExceedsRemaining:     {422, "More than is left", "invalid_request_error"},
	noPrice:                     {422, "There is no price for it", "invalid_request_error"},
	tooEarly:                    {425, "Too early", "invalid_request_error"},
	escrow.RateLimited:          {429, "Too many requests", "rate_limit_error"},
	internalError:               {500, "Something went wrong here", "api_error"},
	upstreamFailed:              {502, "The provider did not answer", "api_error"},
	upstreamUnavailable:         {503, "The provider is not available", "api_error"},
	upstreamTimeout:             {504, "The provider did not answer in time", "api_error"},
	ledgerUnavailable:           {503, "The ledger is not available", "api_error"},
}

// asRefusal is err as the caller is told it. What went wrong in the books is for the operator's log, not for the caller.
func asRefusal(err error) *escrow.Refusal {
	var refusal *escrow.Refusal
	switch {
	case errors.As(err, &refusal):
		return known(refusal)
	case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &escrow.Refusal{Outcome: ledgerUnavailable, Fields: map[string]string{"charge": "unknown"},
			Detail: "it is not known whether this took place; ask again with the same Idempotency-Key, or look it up"}
	case errors.Is(err, ledger.ErrUnavailable), errors.Is(err, ledger.ErrReadOnly), errors.Is(err, ledger.ErrClosed), errors.Is(err, ledger.ErrCorrupt):
		return &escrow.Refusal{Outcome: ledgerUnavailable, Fields: map[string]string{"charge": "none"},
			Detail: "the ledger can't be used at the moment; nothing took place; try again later"}
	default:
		return &escrow.Refusal{Outcome: internalError, Detail: "something went wrong here, and was logged"}
	}
}

// known gives the ledger's own refusals, which say what only this program can do wrong or amounts beyond its range, a code of the
// interface.
func known(r *escrow.Refusal) *escrow.Refusal {
	if _, ok := kinds[r.Outcome]; ok {
		return r
	}
	if r.Outcome == ledger.Overflow {
		return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: r.Detail, Fields: map[string]string{"field": "amount"}}
	}
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: string(r.Outcome) + ": " + r.Detail}
}

// problem is the body of an error: RFC 9457, with the code, and what is needed to mend it.
func problem(r *escrow.Refusal, prefix string, metered bool) map[string]any {
	k := kinds[r.Outcome]
	body := map[string]any{}
	for name, value := range r.Fields {
		body[name] = value
	}
	maps.Copy(body, map[string]any{
		"type": problemBase + string(r.Outcome), "title": k.title, "status": k.status, "code": r.Outcome, "detail": under(prefix, r.Detail),
	})
	if r.Outcome == escrow.InsufficientFunds {
		body["pay"] = pay(prefix)
	}
	if metered {
		body["error"] = map[string]string{"message": k.title + ": " + under(prefix, r.Detail), "type": k.sdk, "code": string(r.Outcome)}
	}
	return body
}

// pay tells how a wallet is funded.
func pay(prefix string) []map[string]string {
	return []map[string]string{
		{"method": "faucet", "request": under(prefix, "POST /api/v1/faucet"), "note": "once, where the operator has one"},
		{"method": "deposit", "request": under(prefix, "POST /api/v1/wallet/deposit"), "note": "booked by the operator"},
		{"method": "transfer", "request": under(prefix, "POST /api/v1/wallet/transfer"), "note": "from another agent"},
	}
}

// under writes the API's paths in a text as they are below a prefix.
func under(prefix, text string) string {
	return strings.ReplaceAll(text, " "+base+"/", " "+prefix+base+"/")
}

// WriteProblem answers with a refusal, or any other error, as application/problem+json; prefix is what the API's paths are
// below. On a metered route (metered) it carries what the SDKs of LLM providers look for too: error {message, type, code}.
func WriteProblem(w http.ResponseWriter, err error, prefix string, metered bool) {
	r := asRefusal(err)
	h := w.Header()
	if after := r.Fields["retry_after"]; after != "" {
		h.Set("Retry-After", after)
	}
	switch r.Outcome {
	case escrow.Unauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tallygate"`)
	case ledgerUnavailable:
		h.Set("Retry-After", "5")
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	body, err := json.Marshal(problem(r, prefix, metered))
	if err != nil {
		panic(err) // it is made of strings and one number
	}
	w.WriteHeader(kinds[r.Outcome].status)
	_, _ = w.Write(append(body, '\n'))
}

// codes are the codes of all problems, in order.
func codes() []string {
	var all []string
	for outcome := range kinds {
		all = append(all, string(outcome))
	}
	slices.SortFunc(all, strings.Compare)
	return all
}
