package api

import (
	"cmp"
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

// ProblemsPath is the path, below the gateway's prefix, of the pages about problems. A problem's code follows it. The address of the page is
// the problem's type, unless the operator has its own pages.
const ProblemsPath = "/problems/"

// The outcomes of the API and of metered routes, in addition to those of package escrow.
const (
	RequestTimeout    escrow.Outcome = "request_timeout"    // the body came too slowly
	MalformedRequest  escrow.Outcome = "malformed_request"  // the request is not a message of MCP
	UnsupportedMedia  escrow.Outcome = "unsupported_media"  // the Content-Type is not supported
	RequestTooLarge   escrow.Outcome = "request_too_large"  // the body is too large
	UnknownResource   escrow.Outcome = "unknown_resource"   // it names something of the provider's that is not the payer's
	NoPrice           escrow.Outcome = "no_price"           // the tariff has no price for what is asked for
	AmbiguousRequest  escrow.Outcome = "ambiguous_request"  // the request can be read in two ways that cost differently; "field" names the ambiguous field
	MethodNotAllowed  escrow.Outcome = "method_not_allowed" // the path has other methods
	TooEarly          escrow.Outcome = "too_early"          // the request costs money, but came as early data (0-RTT), which can be replayed
	LedgerUnavailable escrow.Outcome = "ledger_unavailable" // the ledger can't be used; the field "charge" is none, or unknown after a failed commit
	InternalError     escrow.Outcome = "internal"           // something failed in this program

	// A metered route answers with these to a caller that may pay by a rail.
	PaymentRequired escrow.Outcome = "payment_required" // there is neither a key nor a payment
	PaymentRefused  escrow.Outcome = "payment_refused"  // the payment is not good; "reason" says why. No money moved, or it was booked before
	RailUnavailable escrow.Outcome = "rail_unavailable" // the rail does not answer; "paid" is none, or unknown

	// A metered route answers with these four if its provider fails. Nothing is charged.
	UpstreamFailed      escrow.Outcome = "upstream_failed"
	UpstreamUnavailable escrow.Outcome = "upstream_unavailable"
	UpstreamTimeout     escrow.Outcome = "upstream_timeout"
	UsageUnknown        escrow.Outcome = "usage_unknown" // it has answered, but the price can't be computed from the answer
)

// kind says how an outcome is shown over HTTP.
type kind struct {
	status int
	title  string
	sdk    string // the error type that the SDKs of LLM providers know
}

var kinds = map[escrow.Outcome]kind{
	MalformedRequest:            {400, "The request is malformed", "invalid_request_error"},
	escrow.Unauthorized:         {401, "A valid key is needed", "authentication_error"},
	PaymentRequired:             {402, "A payment is needed", "insufficient_quota"},
	PaymentRefused:              {402, "The payment is refused", "insufficient_quota"},
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
	UsageUnknown:                {502, "The provider did not say what it used", "api_error"},
	UpstreamUnavailable:         {503, "The provider is not available", "api_error"},
	UpstreamTimeout:             {504, "The provider did not answer in time", "api_error"},
	NotReady:                    {503, "The server is not ready", "api_error"},
	RailUnavailable:             {503, "The payment can't be taken", "api_error"},
	LedgerUnavailable:           {503, "The ledger is not available", "api_error"},
}

// asRefusal returns the refusal that the caller gets for err. The details of a failure are logged for the operator, but not shown to the
// caller.
func asRefusal(err error) *escrow.Refusal {
	var refusal *escrow.Refusal
	switch {
	case errors.As(err, &refusal):
		return known(refusal)
	case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &escrow.Refusal{Outcome: LedgerUnavailable, Fields: map[string]string{"charge": "unknown"},
			Detail: "it is not known whether this took place; repeat the request with the same Idempotency-Key, or look it up"}
	case errors.Is(err, ledger.ErrUnavailable), errors.Is(err, ledger.ErrReadOnly), errors.Is(err, ledger.ErrClosed), errors.Is(err, ledger.ErrCorrupt):
		return &escrow.Refusal{Outcome: LedgerUnavailable, Fields: map[string]string{"charge": "none"},
			Detail: "the ledger can't be used at the moment; nothing took place; try again later"}
	default:
		return &escrow.Refusal{Outcome: InternalError, Detail: "something went wrong here, and was logged"}
	}
}

// known returns a refusal with an outcome of the API. The ledger's own outcomes mean that an amount is out of range, or that this program
// has an error. Both are shown as an invalid request.
func known(r *escrow.Refusal) *escrow.Refusal {
	if _, ok := kinds[r.Outcome]; ok {
		return r
	}
	if r.Outcome == ledger.Overflow {
		return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: r.Detail, Fields: map[string]string{"field": "amount"}}
	}
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: string(r.Outcome) + ": " + r.Detail}
}

// Shape says for which clients an error has additional fields, besides those of a problem.
type Shape uint8

const (
	Plain     Shape = iota // the API's own clients: only a problem
	OpenAI                 // error: {message, type, code, param}, which the clients of most providers know; and a message, which Cohere's and Mistral's do
	Anthropic              // type: "error", error: {type, message}
	Google                 // error: {code, message, status}
	Ollama                 // error is the message
)

// googleStatus are Google's error codes by the HTTP status.
// https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
var googleStatus = map[int]string{
	401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED", 409: "ABORTED",
	400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT", 422: "INVALID_ARGUMENT", 425: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED",
	500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}

// write adds the fields for the clients to a problem, and returns the body's content type. That is application/json for the clients of Google
// and Ollama, which read only that type as JSON, and for Anthropic, whose type field replaces the problem's.
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

// Shop is what an error tells of the gateway that answers: where its API is, and what it offers to callers that lack a key or money.
type Shop struct {
	Prefix string       // the path under which the API is mounted
	Types  string       // what the type of a problem begins with, before its code; empty: Prefix and [ProblemsPath]
	Book   *escrow.Book // nil: what it offers is not known, and not told
	// Members are added to the problem, for payment rails. They replace none of the problem's own.
	Members map[string]any
}

// typeOf returns the type of a problem: the address of the page about it. A relative one is meant from the gateway's own address (RFC 9457,
// section 3.1.1).
func (s Shop) typeOf(code escrow.Outcome) string {
	return cmp.Or(s.Types, s.Prefix+ProblemsPath) + string(code)
}

// problem returns the body of an error in the form of RFC 9457, with the code and the fields that help the caller to fix it.
func problem(r *escrow.Refusal, shop Shop) map[string]any {
	k := kinds[r.Outcome]
	body := maps.Clone(shop.Members)
	if body == nil {
		body = map[string]any{}
	}
	detail := under(shop.Prefix, r.Detail+remedy(r, shop))
	for name, value := range r.Fields {
		body[name] = value
		if value == "true" && (name == "withheld" || name == "unbounded") {
			body[name] = true
		}
	}
	maps.Copy(body, map[string]any{
		"type": shop.typeOf(r.Outcome), "title": k.title, "status": k.status, "code": r.Outcome, "detail": detail,
	})
	if r.Outcome == escrow.InsufficientFunds {
		body["pay"] = pay(shop)
	}
	return body
}

// remedy returns the request to this API by which the caller can fix a refusal, if there is one.
func remedy(r *escrow.Refusal, shop Shop) string {
	switch {
	case r.Outcome == escrow.Unauthorized && shop.Book != nil && shop.Book.Rules().OpenRegistration:
		return "; POST /api/v1/agents makes an agent and its key"
	case r.Outcome == escrow.Unauthorized && shop.Book != nil:
		return "; agents get their keys from the operator"
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

// pay lists the ways to fund a wallet that the shop offers.
func pay(shop Shop) (ways []map[string]string) {
	var rules escrow.Rules
	if shop.Book != nil {
		rules = shop.Book.Rules()
	}
	if rules.Faucet > 0 {
		ways = append(ways, map[string]string{
			"method": "faucet", "request": under(shop.Prefix, "POST /api/v1/faucet"), "note": "once for each agent", "amount": rules.Faucet.String(),
		})
	}
	deposit := map[string]string{"method": "deposit", "note": "booked by the operator: ask there how to pay"}
	if rules.OperatorKeyHash != [32]byte{} {
		deposit["request"] = under(shop.Prefix, "POST /api/v1/wallet/deposit")
	}
	return append(ways, deposit, map[string]string{
		"method": "transfer", "request": under(shop.Prefix, "POST /api/v1/wallet/transfer"), "note": "from another agent",
	})
}

// under adds a prefix to the API's paths in a text.
func under(prefix, text string) string {
	return strings.ReplaceAll(text, " "+base+"/", " "+prefix+base+"/")
}

// bearerChallenge tells with a 401 that a key is a bearer token.
const bearerChallenge = `Bearer realm="tallygate"`

// WriteProblem answers with a refusal, or with any other error, as application/problem+json.
// On a metered route, shape says for which provider's clients the answer is written.
func WriteProblem(w http.ResponseWriter, err error, shop Shop, shape Shape) {
	r := asRefusal(err)
	h := w.Header()
	if after := r.Fields["retry_after"]; after != "" {
		h.Set("Retry-After", after)
	}
	switch r.Outcome {
	case escrow.Unauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h.Set("WWW-Authenticate", bearerChallenge)
		}
	case LedgerUnavailable:
		h.Set("Retry-After", "5")
	}
	k := kinds[r.Outcome]
	if shape != Plain && k.status == http.StatusConflict && h.Get("Retry-After") == "" {
		h.Set("X-Should-Retry", "false") // clients would treat a 409 as a lock that will be free soon
	}
	body := problem(r, shop)
	h.Set("Content-Type", shape.write(body, r, k))
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // can't happen: the body has only strings and numbers, and what rails make of them
	}
	w.WriteHeader(k.status)
	_, _ = w.Write(append(text, '\n'))
}

// codes returns the codes of all problems in alphabetical order.
func codes() []string {
	var all []string
	for outcome := range kinds {
		all = append(all, string(outcome))
	}
	slices.SortFunc(all, strings.Compare)
	return all
}
