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
	headerEscrow  = "Tallygate-Escrow"
	// headerSubscription tells the plan, when it renews, what is left, and whether the renewal is funded.
	headerSubscription = "Tallygate-Subscription"
	// headerQuality tells the score that an answer was paid by, or that the decision is open.
	headerQuality = "Tallygate-Quality"
)

// chargeHeaders are known only when the response is charged.
var chargeHeaders = []string{headerCharge, headerUnits, headerBalance, headerCredit, headerEscrow, headerSubscription, headerQuality}

// dropOwn takes off h what stands there under our names, as header or as trailer: of a request it is for us, of a response it is the
// upstream's, which has none to give.
func dropOwn(h http.Header) {
	for name := range h {
		if isOwn(strings.TrimPrefix(name, http.TrailerPrefix)) {
			delete(h, name)
		}
	}
	announced := strings.Join(h.Values("Trailer"), ",")
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

// isOwn reports whether a header's name is one of ours, in any case, and with the underscores that many programs take for hyphens.
func isOwn(name string) bool {
	if len(name) < len(headerPrefix) {
		return false
	}
	name = strings.ReplaceAll(name[:len(headerPrefix)], "_", "-")
	return strings.EqualFold(name, headerPrefix)
}

// RefuseEarly refuses a request that moves money and came as TLS early data.
func RefuseEarly() *ledger.Refusal {
	return refuse(api.TooEarly, "this request moves money and came before the TLS handshake was complete, so it may be a replay: send it again")
}

// Unavailable tells that the books can't be used. charge says what is known of the request's charge: "none" or "unknown". What went
// wrong in the books is for the operator's log, not for the caller.
func Unavailable(charge string) *ledger.Refusal {
	return refuse(api.LedgerUnavailable, "the ledger can't be used at the moment; try again later", "charge", charge)
}

// WriteProblem answers a request on a metered route with a problem that the provider's clients understand too, and that names no path.
func WriteProblem(w http.ResponseWriter, r *http.Request, refusal *ledger.Refusal) {
	api.WriteProblem(w, refusal, "", shapeFor(r))
}

// shapeFor is the shape of an error that the clients who send such requests know.
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

// refuse makes a refusal; fields are names and values by turns.
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

// asRefusal is err as the caller is told it: a refusal as it is, any other failure as an unavailable ledger.
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
	pairs := make([]string, 0, len(charge.Units))
	for class, quantity := range charge.Units {
		pairs = append(pairs, class+"="+quantity)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
