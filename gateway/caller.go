package gateway

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tallygate/tallygate/escrow"
)

// Caller is what is known of a call before its provider works: for handlers below the meter, and for the provider.
type Caller struct {
	Request string // the id of the call
	Payer   string // empty in shadow mode if the caller is unknown
	Payee   string
	Key     string            // the id of the key that was used, not the key; empty if there was none
	Plan    string            // the subscription that pays; empty if there is none
	Tags    map[string]string // of the charge
}

// headerPayer tells the provider who calls, if the route says so.
const headerPayer = "Tallygate-Payer"

// signatureHeaders are those of a message that is signed.
var signatureHeaders = []string{standardwebhooks.HeaderWebhookID, standardwebhooks.HeaderWebhookTimestamp, standardwebhooks.HeaderWebhookSignature}

// Identification says what a provider is told about callers.
type Identification struct {
	// Signer, if set, signs the payer's id as a message of Standard Webhooks, whose id is the call's. So the provider can tell that it comes
	// from this server.
	Signer *standardwebhooks.Webhook
}

// Identifies returns an identification that is signed with a secret as [escrow.Book.IdentitySecret] returns it.
func Identifies(secret string) (*Identification, error) {
	signer, err := standardwebhooks.NewWebhook(secret)
	return &Identification{Signer: signer}, err
}

// introduce tells the handlers below, and the provider, who calls.
func (a *arrival) introduce(r *http.Request) {
	if begin := a.gateway.options.Begin; begin != nil {
		c := Caller{Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Key: a.payer.Key, Tags: a.terms.tags}
		if plan, ok := a.route.Payment.(*Subscription); ok {
			c.Plan = plan.Plan.Name
		}
		begin(r, c)
	}
	if a.route.Identify != nil {
		a.route.Identify.write(r.Header, a.id, a.payer, a.gateway.book.Now())
	}
}

func (i *Identification) write(h http.Header, request string, payer escrow.Actor, now time.Time) {
	i.dropIdentity(h) // a client may not pretend
	h.Set(headerRequest, request)
	if payer.Agent == "" { // in shadow mode
		return
	}
	h.Set(headerPayer, payer.Agent)
	if i.Signer == nil {
		return
	}
	signature, err := i.Signer.Sign(request, now, []byte(payer.Agent))
	if err != nil { // can't happen
		return
	}
	h.Set(standardwebhooks.HeaderWebhookID, request)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, signature)
}

// TagText writes the tags in the order of their names: "run=7,team=x".
func (c *Caller) TagText() string {
	pairs := make([]string, 0, len(c.Tags))
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		pairs = append(pairs, name+"="+c.Tags[name])
	}
	return strings.Join(pairs, ",")
}

// dropIdentity removes what a client says in the place of the headers that identify it.
func (i *Identification) dropIdentity(h http.Header) {
	if i.Signer == nil {
		return
	}
	for name := range h {
		if isOneOf(name, signatureHeaders) {
			delete(h, name)
		}
	}
}
