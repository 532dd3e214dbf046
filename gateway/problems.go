package gateway

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// The response headers of a metered call (and the trailers of a streamed one).
const (
	headerPrefix  = "Tallygate-"
	headerRequest = "Tallygate-Request"
	headerCharge  = "Tallygate-Charge"
	headerUnits   = "Tallygate-Units"
	headerBalance = "Tallygate-Balance"
	headerCredit  = "Tallygate-Credit"
	headerOwed    = "Tallygate-Owed"
	headerEscrow  = "Tallygate-Escrow"
	// headerSubscription states the plan, when it renews, what is left, and whether the renewal is funded.
	headerSubscription = "Tallygate-Subscription"
	// headerQuality states the score that decided the price, or that it is not decided yet.
	headerQuality = "Tallygate-Quality"
)

// chargeHeaders are the headers that are known only when the response is charged.
var chargeHeaders = []string{headerCharge, headerUnits, headerBalance, headerCredit, headerEscrow, headerSubscription, headerQuality}

// dropOwn removes Tallygate's headers and trailers from h. In a request they are for Tallygate only. In a response they are false, since an
// upstream can't know them.
func dropOwn(h http.Header) {
	for name := range h {
		if isOwn(strings.TrimPrefix(name, http.TrailerPrefix)) {
			delete(h, name)
		}
	}
	announced := strings.Join(h["Trailer"], ",")
	if !strings.Contains(strings.ToLower(announced), "tallygate") {
		return
	}
	h.Del("Trailer")
	for name := range strings.SplitSeq(announced, ",") {
		if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" && !isOwn(name) {
			h.Add("Trailer", name)
		}
	}
}

// isOwn reports whether a header's name is one of Tallygate's, in any case, and with underscores, which many programs take for hyphens.
func isOwn(name string) bool {
	return len(name) >= len(headerPrefix) && isNamed(name[:len(headerPrefix)], headerPrefix)
}

// RefuseEarly refuses a request that moves money and came as TLS early data.
func RefuseEarly() *ledger.Refusal {
	return refuse(api.TooEarly, "this request moves money and came before the TLS handshake was complete, so it may be a replay: send it again")
}

// Unavailable refuses a call because the books can't be used. charge is what is known about the charge: "none" or "unknown". The cause is
// not in the refusal: it is for the operator's log, not for the caller.
func Unavailable(charge string) *ledger.Refusal {
	return refuse(api.LedgerUnavailable, "the ledger can't be used at the moment; try again later", "charge", charge)
}

// tell answers with a refusal that names what this gateway offers to mend it. members are added to the problem.
func (a *arrival) tell(w http.ResponseWriter, refusal *ledger.Refusal, members map[string]any) {
	for name := range a.goodReceipt {
		w.Header().Del(name)
	}
	shop := api.Shop{Prefix: a.gateway.options.Prefix, Types: a.gateway.options.ProblemTypes, Book: a.gateway.book, Members: members}
	api.WriteProblem(w, refusal, shop, shapeFor(a.request))
}

// WriteProblem answers a request on a metered route with a problem in a form that the provider's clients understand. It names no
// way to pay. types is what the problem's type begins with.
func WriteProblem(w http.ResponseWriter, r *http.Request, types string, refusal *ledger.Refusal) {
	api.WriteProblem(w, refusal, api.Shop{Types: types}, shapeFor(r))
}

// shapeFor returns the form of errors for clients that send such requests.
func shapeFor(r *http.Request) api.Shape {
	switch formats.Provider(meter.Head{Path: r.URL.Path, Header: r.Header}) {
	case formats.Anthropic:
		return api.Anthropic
	case formats.Google:
		return api.Google
	case formats.Ollama:
		return api.Ollama
	default:
		return api.OpenAI
	}
}

// refuse makes a refusal. fields are names and values alternately.
func refuse(outcome ledger.Outcome, detail string, fields ...string) *ledger.Refusal {
	r := &ledger.Refusal{Outcome: outcome, Detail: detail}
	for i := 0; i+1 < len(fields); i += 2 {
		if r.Fields == nil {
			r.Fields = make(map[string]string)
		}
		r.Fields[fields[i]] = fields[i+1]
	}
	return r
}

// asRefusal returns what the caller is told about err: a refusal unchanged, and any other error as an unavailable ledger.
func asRefusal(err error) *ledger.Refusal {
	var refusal *ledger.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	charge := "none"
	if errors.Is(err, ledger.ErrOutcomeUnknown) {
		charge = "unknown"
	}
	return Unavailable(charge)
}

// unitsOf writes a charge's units in the order of their names: "input=12,output=34".
func unitsOf(charge escrow.Charge) string {
	var room [4]string // enough for most charges
	pairs := room[:0]
	for class, quantity := range charge.Units {
		pairs = append(pairs, class+"="+quantity)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
