package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// problemBase is what the type of a problem begins with. The code follows it.
const problemBase = "https://tallygate.dev/problems/"

// The outcomes that the API and metered routes have beside those of the books.
const (
	RequestTimeout    escrow.Outcome = "request_timeout"    // the body came too slowly
	MalformedRequest  escrow.Outcome = "malformed_request"  // it is none of the protocol's (MCP)
	UnsupportedMedia  escrow.Outcome = "unsupported_media"  // the Content-Type is not one that is read
	RequestTooLarge   escrow.Outcome = "request_too_large"  // the body is larger than what is read
	UnknownResource   escrow.Outcome = "unknown_resource"   // it names something of the provider's that is not the payer's
	NoPrice           escrow.Outcome = "no_price"           // the tariff has no price for what is asked for
	AmbiguousRequest  escrow.Outcome = "ambiguous_request"  // it can be read in two ways that cost differently; the field names where
	MethodNotAllowed  escrow.Outcome = "method_not_allowed" // the path has other methods
	TooEarly          escrow.Outcome = "too_early"          // the request costs money and came as early data (0-RTT), which can be replayed
	LedgerUnavailable escrow.Outcome = "ledger_unavailable" // the field charge says none, or unknown after a commit that failed
	InternalError     escrow.Outcome = "internal"           // something went wrong here

	// These three are of a metered route whose provider fails. Nothing is charged.
	UpstreamFailed      escrow.Outcome = "upstream_failed"
	UpstreamUnavailable escrow.Outcome = "upstream_unavailable"
	UpstreamTimeout     escrow.Outcome = "upstream_timeout"
)

// kind says how an outcome is told over HTTP.
type kind struct {
	status int
	title  string
	sdk    string // the error type that the SDKs of LLM providers know
}

var kinds = map[escrow.Outcome]kind{
	MalformedRequest:            {400, "The request is malformed", "invalid_request_error"},
	escrow.Unauthorized:         {401, "A valid key is needed", "authentication_error"},
	escrow.InsufficientFunds:    {402, "Not enough money", "insufficient_quota"},
	escrow.EscrowRequired:       {402, "An escrow is needed", "insufficient_quota"},
	escrow.SubscriptionRequired: {402, "A subscription is needed", "insufficient_quota"},
	escrow.LimitExceeded:        {402, "A limit would be exceeded", "insufficient_quota"},
	escrow.Forbidden:            {403, "Not allowed", "permission_error"},
	escrow.NotFound:             {404, "Not found", "not_found_error"},
	UnknownResource:             {404, "There is no such resource of yours", "not_found_error"},
	MethodNotAllowed:            {405, "Method not allowed", "invalid_request_error"},
	escrow.InvalidStatus:        {409, "Not in this state", "invalid_request_error"},
	escrow.AlreadyExists:        {409, "It exists already", "invalid_request_error"},
	escrow.IdempotencyConflict:  {409, "The idempotency key was used before", "invalid_request_error"},
	RequestTimeout:              {408, "The request came too slowly", "invalid_request_error"},
	RequestTooLarge:             {413, "The request is too large", "request_too_large"},
	UnsupportedMedia:            {415, "The Content-Type is not read", "invalid_request_error"},
	escrow.InvalidRequest:       {422, "The request is not valid", "invalid_request_error"},
	escrow.ExceedsRemaining:     {422, "More than is left", "invalid_request_error"},
	AmbiguousRequest:            {422, "The request can be read in two ways", "invalid_request_error"},
	NoPrice:                     {422, "There is no price for it", "invalid_request_error"},
	TooEarly:                    {425, "Too early", "invalid_request_error"},
	escrow.RateLimited:          {429, "Too many requests", "rate_limit_error"},
	InternalError:               {500, "Something went wrong here", "api_error"},
	UpstreamFailed:              {502, "The provider did not answer", "api_error"},
	UpstreamUnavailable:         {503, "The provider is not available", "api_error"},
	UpstreamTimeout:             {504, "The provider did not answer in time", "api_error"},
	LedgerUnavailable:           {503, "The ledger is not available", "api_error"},
}

// asRefusal returns err as the caller is told it. What went wrong in the books is for the operator's log, not for the caller.
func asRefusal(err error) *escrow.Refusal {
	var refusal *escrow.Refusal
	switch {
	case errors.As(err, &refusal):
		return known(refusal)
	case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &escrow.Refusal{Outcome: LedgerUnavailable, Fields: map[string]string{"charge": "unknown"},
			Detail: "it is not known whether this took place; ask again with the same Idempotency-Key, or look it up"}
	case errors.Is(err, ledger.ErrUnavailable), errors.Is(err, ledger.ErrReadOnly), errors.Is(err, ledger.ErrClosed), errors.Is(err, ledger.ErrCorrupt):
		return &escrow.Refusal{Outcome: LedgerUnavailable, Fields: map[string]string{"charge": "none"},
			Detail: "the ledger can't be used at the moment; nothing took place; try again later"}
	default:
		return &escrow.Refusal{Outcome: InternalError, Detail: "something went wrong here, and was logged"}
	}
}

// known returns a refusal whose outcome the API has. The ledger's own outcomes have no place in it: they are of amounts beyond its
// range, or of what only this program can do wrong. Both are told as an invalid request.
func known(r *escrow.Refusal) *escrow.Refusal {
	if _, ok := kinds[r.Outcome]; ok {
		return r
	}
	if r.Outcome == ledger.Overflow {
		return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: r.Detail, Fields: map[string]string{"field": "amount"}}
	}
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: string(r.Outcome) + ": " + r.Detail}
}

// Shape says whose clients look for what in an error, beside the problem that it is.
type Shape uint8

const (
	Plain     Shape = iota // the API's own: a problem and nothing else
	OpenAI                 // error: {message, type, code, param}, which the clients of most providers know; and a message, which Cohere's and Mistral's do
	Anthropic              // type: "error", error: {type, message}
	Google                 // error: {code, message, status}
	Ollama                 // error is the message
)

// googleStatus are Google's words for what went wrong, by the HTTP status.
// https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
var googleStatus = map[int]string{
	401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED", 409: "ABORTED",
	400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT", 422: "INVALID_ARGUMENT", 425: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED",
	500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}

// write adds to a problem what the clients look for, and returns the body's content type. The clients of Google and Ollama read an error as
// JSON only by that type, and with Anthropic's type it is a problem no longer.
func (s Shape) write(body map[string]any, r *escrow.Refusal, k kind) (contentType string) {
	const problem, json = "application/problem+json", "application/json"
	if s == Plain {
		return problem
	}
	message := fmt.Sprintf("%s: %s", k.title, body["detail"])
	body["message"] = message
	switch s {
	case Anthropic:
		sdk := k.sdk
		if k.status == http.StatusPaymentRequired {
			sdk = "billing_error"
		}
		body["type"], body["error"] = "error", map[string]any{"type": sdk, "message": message}
		return json
	case Google:
		body["error"] = map[string]any{"code": k.status, "message": message, "status": googleStatus[k.status]}
		return json
	case Ollama:
		body["error"] = message
		return json
	default:
		body["error"] = map[string]any{"message": message, "type": k.sdk, "code": r.Outcome, "param": nil}
		return problem
	}
}

// problem is the body of an error in the form of RFC 9457, with the code and what the caller needs to mend it.
func problem(r *escrow.Refusal, prefix string) map[string]any {
	k := kinds[r.Outcome]
	body := map[string]any{}
	detail := under(prefix, r.Detail+remedy(r))
	for name, value := range r.Fields {
		body[name] = value
		if value == "true" && (name == "withheld" || name == "unbounded") {
			body[name] = true
		}
	}
	maps.Copy(body, map[string]any{
		"type": problemBase + string(r.Outcome), "title": k.title, "status": k.status, "code": r.Outcome, "detail": detail,
	})
	if r.Outcome == escrow.InsufficientFunds {
		body["pay"] = pay(prefix)
	}
	return body
}

// remedy is what the caller can do about a refusal, as far as it is a request to this API.
func remedy(r *escrow.Refusal) string {
	switch {
	case r.Outcome == escrow.EscrowRequired:
		return ": POST /api/v1/escrow"
	case r.Outcome == escrow.SubscriptionRequired && r.Fields["subscription_status"] == "":
		return ": POST /api/v1/subscriptions"
	case r.Outcome == escrow.InvalidRequest && r.Fields["plan"] != "":
		return "; GET /api/v1/tariffs lists them"
	case r.Outcome == escrow.Forbidden && r.Fields["payer"] != "" && r.Fields["payee"] != "":
		return "; it does so by PUT /api/v1/wallet/allowances/" + r.Fields["payee"]
	default:
		return ""
	}
}

// pay lists the ways to fund a wallet.
func pay(prefix string) []map[string]string {
	return []map[string]string{
		{"method": "faucet", "request": under(prefix, "POST /api/v1/faucet"), "note": "once, where the operator has one"},
		{"method": "deposit", "request": under(prefix, "POST /api/v1/wallet/deposit"), "note": "booked by the operator"},
		{"method": "transfer", "request": under(prefix, "POST /api/v1/wallet/transfer"), "note": "from another agent"},
	}
}

// under puts a prefix before the API's paths in a text.
func under(prefix, text string) string {
	return strings.ReplaceAll(text, " "+base+"/", " "+prefix+base+"/")
}

// WriteProblem answers with a refusal, or any other error, as application/problem+json. prefix is the path under which the API is
// mounted. On a metered route shape says what the provider's clients look for.
func WriteProblem(w http.ResponseWriter, err error, prefix string, shape Shape) {
	r := asRefusal(err)
	h := w.Header()
	if after := r.Fields["retry_after"]; after != "" {
		h.Set("Retry-After", after)
	}
	switch r.Outcome {
	case escrow.Unauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tallygate"`)
	case LedgerUnavailable:
		h.Set("Retry-After", "5")
	}
	k := kinds[r.Outcome]
	if shape != Plain && k.status == http.StatusConflict && h.Get("Retry-After") == "" {
		h.Set("X-Should-Retry", "false") // clients take a 409 for a lock that will be free soon
	}
	body := problem(r, prefix)
	h.Set("Content-Type", shape.write(body, r, k))
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // it has strings and numbers
	}
	w.WriteHeader(k.status)
	_, _ = w.Write(append(text, '\n'))
}

// codes are the codes of all problems, in alphabetical order.
func codes() []string {
	var all []string
	for outcome := range kinds {
		all = append(all, string(outcome))
	}
	slices.SortFunc(all, strings.Compare)
	return all
}
