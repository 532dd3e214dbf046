package mpp

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tallygate/tallygate/gateway"
)

// The intents. A charge is one payment, whose rest stays as credit. A session is opened by a payment too; later calls then draw from the same
// credit by showing the session's secret.
const (
	intentCharge  = "charge"
	intentSession = "session"
)

// challengeFor is how long a challenge may be answered.
const challengeFor = 5 * time.Minute

// challenge is what a caller is asked for, as it stands in a header and comes back in a credential.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/core/draft-httpauth-payment-00.md#challenge-www-authenticate
type challenge struct {
	ID          string `json:"id"`
	Realm       string `json:"realm"`
	Method      string `json:"method"`
	Intent      string `json:"intent"`
	Request     string `json:"request"` // base64url of a [paymentRequest]
	Expires     string `json:"expires"`
	Digest      string `json:"digest"` // we send none
	Opaque      string `json:"opaque"` // makes each challenge another one
	Description string `json:"description"`
}

// paymentRequest is how much is to be paid.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/intents/draft-payment-intent-charge-00.md#request-schema
type paymentRequest struct {
	Amount   string         `json:"amount"`
	Currency string         `json:"currency"`
	Details  map[string]any `json:"methodDetails,omitempty"`
	// Sessions have these, which are named as in the methods' specifications of session. Here the deposit is the unit that is paid.
	Deposit  string `json:"depositAmount,omitempty"`
	UnitType string `json:"unitType,omitempty"`
}

// bind returns the id of a challenge: a code over its parameters, each in its place.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/core/draft-httpauth-payment-00.md#recommended-hmac-sha256-binding
func (c challenge) bind(secret string) string {
	code := hmac.New(sha256.New, []byte(secret))
	code.Write([]byte(strings.Join([]string{c.Realm, c.Method, c.Intent, c.Request, c.Expires, c.Digest, c.Opaque}, "|")))
	return base64.RawURLEncoding.EncodeToString(code.Sum(nil))
}

// isOurs reports whether this gateway, or one with the same secret, has made the challenge as it is.
func (r *Rail) isOurs(c challenge) bool {
	ours := false
	for _, secret := range r.Secrets {
		ours = hmac.Equal([]byte(c.bind(secret)), []byte(c.ID)) || ours
	}
	return ours
}

// String returns the challenge as a value of WWW-Authenticate.
func (c challenge) String() string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var s strings.Builder
	s.WriteString(scheme)
	for i, pair := range [][2]string{
		{"id", c.ID}, {"realm", c.Realm}, {"method", c.Method}, {"intent", c.Intent}, {"request", c.Request}, {"expires", c.Expires}, {"opaque", c.Opaque},
	} {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(` ` + pair[0] + `="` + quoted.Replace(pair[1]) + `"`)
	}
	return s.String()
}

// opaque is what a challenge carries for us.
type opaque struct {
	Random string `json:"n"`
	// Payer is who has paid before, if what was paid does not reach. Nobody else gets this challenge, so who answers it is the same one.
	Payer string `json:"payer,omitempty"`
}

// Challenge implements [gateway.Rail]. It offers each method with each intent, each in a header of its own.
func (r *Rail) Challenge(need gateway.Need, h http.Header) map[string]any {
	units := need.Required.Minor(r.decimal)
	if units.Cmp(r.topUp) < 0 {
		units = r.topUp
	}
	u, err := url.Parse(need.URL)
	if err != nil || u.Host == "" {
		return nil // a challenge has a realm
	}
	carried := encode(opaque{rand.Text(), need.Payer})
	expires := need.At.Add(challengeFor).UTC().Format(time.RFC3339)
	for _, intent := range []string{intentCharge, intentSession} {
		for _, method := range r.methods {
			request := paymentRequest{Amount: units.String(), Currency: r.Currency, Details: method.Details()}
			if intent == intentSession {
				request.Deposit, request.UnitType = units.String(), "deposit"
			}
			c := challenge{Realm: u.Host, Method: method.Name(), Intent: intent, Request: encode(request), Expires: expires, Opaque: carried}
			c.ID = c.bind(r.Secrets[0])
			h.Add("WWW-Authenticate", c.String())
		}
	}
	return nil
}

// encode writes JSON in its canonical form (RFC 8785), in base64url. The values are texts, lists of texts, and objects of these, whose fields
// the encoder sorts if they are those of a map.
func encode(v any) string {
	text, err := json.Marshal(v)
	var sorted any
	if err == nil {
		err = json.Unmarshal(text, &sorted)
	}
	var canonical bytes.Buffer
	encoder := json.NewEncoder(&canonical)
	encoder.SetEscapeHTML(false)
	if err == nil {
		err = encoder.Encode(sorted)
	}
	if err != nil {
		panic(err) // can't happen: it has only texts
	}
	return base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(canonical.Bytes(), []byte("\n")))
}

// Offers implements [gateway.Offerer].
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/extensions/draft-payment-discovery-00.md#payment-offer-object
func (r *Rail) Offers() (offers []map[string]any) {
	for _, intent := range []string{intentCharge, intentSession} {
		for _, method := range r.methods {
			offers = append(offers, map[string]any{
				"method": method.Name(), "intent": intent, "amount": r.topUp.String(), "currency": r.Currency,
				"description": "prepaid credit: calls are charged from it by what they use",
			})
		}
	}
	return offers
}
