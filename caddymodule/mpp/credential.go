package mpp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
)

const (
	scheme        = "Payment"
	headerReceipt = "Payment-Receipt"
)

// maxCredential is how many bytes a credential may have. The draft asks servers to take at least 4 KB.
const maxCredential = 16 << 10

// The reasons of refusals, which are named as the draft's types of problems.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/core/draft-httpauth-payment-00.md#error-codes
const (
	malformed        = "malformed-credential"
	invalidChallenge = "invalid-challenge"
	expired          = "payment-expired"
	failed           = "verification-failed"
	unsupported      = "method-unsupported"
)

// credential is what a caller answers to a challenge.
type credential struct {
	Challenge challenge       `json:"challenge"`
	Payload   json.RawMessage `json:"payload"`
}

// session is the part of the payload of a session that is not the method's. The actions are those of draft-lightning-session-00, where the
// secret is the preimage of the session's id too. Here the client makes the secret up, so that no state is needed to know it again.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/methods/lightning/draft-lightning-session-00.md#credential-schema
type session struct {
	Action    string `json:"action"`
	SessionID string `json:"sessionId"`
	Preimage  string `json:"preimage"`
}

var preimageForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Take implements [gateway.Rail]. It leaves a credential that pays nothing to [Rail.SignIn].
func (r *Rail) Take(request *http.Request) (gateway.Payable, bool, error) {
	sent, others := credentials(request.Header)
	if len(sent) == 0 {
		return gateway.Payable{}, false, nil
	}
	var c credential
	err := refuse(malformed, "a request brings one credential, not %d", len(sent))
	if len(sent) == 1 {
		c, err = decode(sent[0])
	}
	if err == nil && c.isBearer() {
		return gateway.Payable{}, false, nil
	}
	leave(request.Header, others)
	if err != nil {
		return gateway.Payable{}, true, err
	}
	p, err := r.read(c, request.Host)
	p.Secret = []byte(sent[0])
	return p, true, err
}

// SignIn implements [gateway.SignInRail]: a credential that pays nothing shows whose call this is, by the secret of a session, or by what has
// paid a charge before.
func (r *Rail) SignIn(request *http.Request, _ string, now time.Time) (s gateway.SignedIn, found bool, err error) {
	sent, others := credentials(request.Header)
	if len(sent) == 0 {
		return s, false, nil
	}
	leave(request.Header, others)
	c, err := decode(sent[0])
	if err != nil || !c.isBearer() {
		return s, false, nil // what is left behind by a payment of another rail
	}
	p, o, err := r.readChallenge(c, request.Host)
	if err == nil && !now.Before(p.Ends) {
		err = refuse(expired, "the challenge has expired: ask for another one")
	}
	if err == nil && o.Intent == intentSession {
		err = r.readSession(c, &o, &p)
	} else if err == nil {
		p.Payer, err = r.payerAgain(c, o)
	}
	if err != nil {
		return s, true, err
	}
	if p.Proof, err = json.Marshal(o); err != nil {
		return s, true, err
	}
	p.At = now
	s = gateway.SignedIn{Payer: p.Payer, ID: o.ID, Secret: []byte(sent[0]), Receipt: http.Header{headerReceipt: nil}} // the provider writes none
	if o.Session != "" {
		// A charge gets none: its receipt names a payment, and there was none now.
		r.Receipt(p, "", s.Receipt)
	}
	return s, true, nil
}

// credentials returns the credentials of this scheme in a header, and the other values of Authorization.
func credentials(h http.Header) (sent, others []string) {
	for _, value := range h.Values("Authorization") {
		if word, rest, _ := strings.Cut(strings.TrimSpace(value), " "); strings.EqualFold(word, scheme) {
			sent = append(sent, strings.TrimSpace(rest))
		} else {
			others = append(others, value)
		}
	}
	return sent, others
}

// leave leaves only these values of Authorization in a header.
func leave(h http.Header, others []string) {
	if h.Del("Authorization"); len(others) > 0 {
		h["Authorization"] = others
	}
}

func decode(text string) (c credential, err error) {
	if len(text) > maxCredential {
		return c, refuse(malformed, "a credential has at most %d bytes", maxCredential)
	}
	plain, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(plain))
		if err = decoder.Decode(&c); err == nil && decoder.More() {
			err = errors.New("more than one value")
		}
	}
	if err != nil || len(c.Payload) == 0 {
		return c, refuse(malformed, "the credential is not JSON in base64url with a challenge and a payload, as the scheme Payment has it")
	}
	return c, nil
}

// isBearer reports whether the credential pays nothing.
func (c credential) isBearer() bool {
	var s session
	return json.Unmarshal(c.Payload, &s) == nil && s.Action == "bearer"
}

// read checks everything about a payment that can be checked without asking anybody.
func (r *Rail) read(c credential, host string) (gateway.Payable, error) {
	p, o, err := r.readChallenge(c, host)
	if err == nil && o.Intent == intentSession {
		err = r.readSession(c, &o, &p)
	}
	if err == nil {
		err = r.readPayment(c, r.method(o.Method), o, &p)
	}
	return p, err
}

// readChallenge checks that a credential is for a challenge of ours. It does not check whether the challenge has expired.
func (r *Rail) readChallenge(c credential, host string) (p gateway.Payable, o Order, err error) {
	if !r.isOurs(c.Challenge) {
		return p, o, refuse(invalidChallenge, "the credential is for a challenge that is not from here, or that was changed")
	}
	if c.Challenge.Realm != host {
		return p, o, refuse(invalidChallenge, "the credential is for %.100s, not for this host", c.Challenge.Realm)
	}
	if r.method(c.Challenge.Method) == nil {
		return p, o, refuse(unsupported, "the method %.100s is no longer taken", c.Challenge.Method)
	}
	ends, err := time.Parse(time.RFC3339, c.Challenge.Expires)
	if err != nil {
		return p, o, refuse(invalidChallenge, "the challenge has no end")
	}
	o = Order{Method: c.Challenge.Method, Intent: c.Challenge.Intent, ID: c.Challenge.ID, Realm: c.Challenge.Realm}
	return gateway.Payable{Ends: ends, OnlyGood: true}, o, nil
}

// readPayment reads how much is paid, and by what.
func (r *Rail) readPayment(c credential, method Method, o Order, p *gateway.Payable) error {
	var request paymentRequest
	text, err := base64.RawURLEncoding.DecodeString(c.Challenge.Request)
	if err == nil {
		err = json.Unmarshal(text, &request)
	}
	amount, exact := r.amount(request.Amount)
	if err != nil || request.Currency != r.Currency || !exact {
		return refuse(invalidChallenge, "the challenge asks for %.40s %.40s, which is no longer taken", request.Amount, request.Currency)
	}
	proof, payer, known, err := method.Read(c.Payload)
	if err != nil {
		return err
	}
	var carried opaque
	if text, err = base64.RawURLEncoding.DecodeString(c.Challenge.Opaque); err == nil {
		err = json.Unmarshal(text, &carried)
	}
	if err != nil {
		return refuse(invalidChallenge, "what the challenge carries can't be read")
	}
	o.Amount, o.Currency, o.Proof = request.Amount, request.Currency, proof
	p.ID, p.Amount = o.Method+":"+o.ID, amount
	switch {
	case p.Payer != "": // of a session
	case !known && carried.Payer != "":
		p.Payer = carried.Payer
	default:
		p.Payer, p.Nameless = payerOf(o.Method, payer), !known
	}
	p.Proof, err = json.Marshal(o)
	return err
}

// readSession reads whose session a credential is for.
func (r *Rail) readSession(c credential, o *Order, p *gateway.Payable) error {
	var s session
	if err := json.Unmarshal(c.Payload, &s); err != nil || !preimageForm.MatchString(s.Preimage) {
		return refuse(malformed, "the payload of a session has an action, and a preimage of 64 hexadecimal digits in lower case, which the client makes up")
	}
	if s.Action != "open" && s.Action != "topUp" && s.Action != "bearer" {
		return refuse(malformed, "the action %.40q is not one of open, topUp and bearer; what is left of a session stays as credit, and the operator pays it back", s.Action)
	}
	secret, err := hex.DecodeString(s.Preimage)
	if err != nil {
		return err // can't happen: it has the form
	}
	id := sha256.Sum256(secret)
	if o.Session = hex.EncodeToString(id[:]); s.SessionID != "" && s.SessionID != o.Session {
		return refuse(failed, "the session's id is not the SHA-256 of the preimage")
	}
	p.Payer = payerOf(intentSession, s.Preimage)
	return nil
}

// payerAgain returns who has made the charge whose payload comes again. Nobody but the payer has it, since it goes to no chain.
func (r *Rail) payerAgain(c credential, o Order) (payer string, err error) {
	_, payer, _, err = r.method(o.Method).Read(c.Payload)
	return payerOf(o.Method, payer), err
}

// payerOf returns what stands for a payer in the id of its agent. Nobody can find a text with the same one.
func payerOf(kind, text string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + text))
	return kind + "-" + hex.EncodeToString(sum[:20])
}

// refuse refuses a credential.
func refuse(reason, format string, args ...any) error {
	return &escrow.Refusal{Outcome: api.PaymentRefused, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"reason": reason}}
}

// order returns what a method is asked to take.
func (r *Rail) order(p gateway.Payable) (Method, Order, error) {
	var o Order
	if err := json.Unmarshal(p.Proof, &o); err != nil {
		return nil, o, fmt.Errorf("reading a payment's proof: %w", err)
	}
	method := r.method(o.Method)
	if method == nil {
		return nil, o, fmt.Errorf("the method %s is no longer configured", o.Method)
	}
	return method, o, nil
}

// Verify implements [gateway.Rail].
func (r *Rail) Verify(ctx context.Context, p gateway.Payable) error {
	method, o, err := r.order(p)
	if err != nil {
		return err
	}
	return method.Verify(ctx, o)
}

// Settle implements [gateway.Rail].
func (r *Rail) Settle(ctx context.Context, p gateway.Payable) (string, error) {
	method, o, err := r.order(p)
	if err != nil {
		return "", err
	}
	return method.Settle(ctx, o)
}

// Receipt implements [gateway.Rail]. The receipt of a call that draws from a session names the session.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/core/draft-httpauth-payment-00.md#payment-receipt-header
func (r *Rail) Receipt(p gateway.Payable, outside string, h http.Header) {
	var o Order
	if err := json.Unmarshal(p.Proof, &o); err != nil {
		panic(err) // can't happen: Take has written it
	}
	receipt := map[string]string{"status": "success", "method": o.Method, "timestamp": p.At.UTC().Format(time.RFC3339), "reference": outside}
	if o.Session != "" {
		receipt["intent"], receipt["reference"], receipt["sessionId"] = o.Intent, o.Session, o.Session
		if outside != "" {
			receipt["paymentReference"] = outside
		}
	}
	h.Set(headerReceipt, encode(receipt))
}
