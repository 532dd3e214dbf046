package x402

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// The headers of both versions.
const (
	headerRequired   = "Payment-Required"  // version 2: how to pay
	headerPayment    = "Payment-Signature" // version 2: a payment
	headerResponse   = "Payment-Response"  // version 2: what became of it
	headerPaymentV1  = "X-Payment"         // version 1, which tells in the body how to pay
	headerResponseV1 = "X-Payment-Response"
)

const (
	maxHeader    = 16 << 10 // bytes of a payment's header
	maxSignature = 8 << 10  // characters of a signature; those of wallets that are contracts are long
)

// The schemes of payments: a transfer of what was offered, and one of at most that.
const (
	exact = "exact"
	upTo  = "upto"
)

// requirements is what a payment must be, in the form of one version.
type requirements struct {
	Scheme  string            `json:"scheme"`
	Network string            `json:"network"`
	Amount  string            `json:"amount,omitempty"`            // version 2
	Max     string            `json:"maxAmountRequired,omitempty"` // version 1
	Asset   string            `json:"asset"`
	PayTo   string            `json:"payTo"`
	MaxWait int               `json:"maxTimeoutSeconds"`
	Extra   map[string]string `json:"extra"`
	// In version 1 the resource is here.
	Resource    string  `json:"resource,omitempty"`
	Description *string `json:"description,omitempty"`
	MimeType    *string `json:"mimeType,omitempty"`
}

// resource is what is paid for, in version 2.
type resource struct {
	URL         string `json:"url"`
	Description string `json:"description"`
	MimeType    string `json:"mimeType"`
}

// authorization is the transfer that a payer has signed (EIP-3009).
type authorization struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Value       string `json:"value"`
	ValidAfter  string `json:"validAfter"`
	ValidBefore string `json:"validBefore"`
	Nonce       string `json:"nonce"`
}

type signed struct {
	Signature     string         `json:"signature"`
	Authorization *authorization `json:"authorization,omitempty"`        // of the scheme exact
	Permit        *permit        `json:"permit2Authorization,omitempty"` // of the scheme upto
}

// payment is a payment as it comes in a header, and as it is sent to the facilitator.
type payment struct {
	Version int `json:"x402Version"`
	// Version 1 has these; version 2 has the requirements that the payer accepted.
	Scheme   string        `json:"scheme,omitempty"`
	Network  string        `json:"network,omitempty"`
	Resource *resource     `json:"resource,omitempty"`
	Accepted *requirements `json:"accepted,omitempty"`
	Payload  signed        `json:"payload"`
	// Extensions are what the payer says about extensions. The facilitator is not told.
	Extensions map[string]json.RawMessage `json:"extensions,omitempty"`
}

// requirementsFor returns what a payment of a number of units must be.
func (r *Rail) requirementsFor(version int, units string) requirements {
	need := requirements{
		Scheme: exact, Network: r.Network, Amount: units, Asset: r.Asset, PayTo: r.PayTo, MaxWait: int(maxWait / time.Second),
		Extra: map[string]string{"name": r.DomainName, "version": r.DomainVersion},
	}
	if version == 1 {
		need.Network, need.Amount, need.Max = r.v1, "", units
	}
	return need
}

// description is what a caller is told about what it pays for.
const description = "prepaid credit: the call is charged from it, and what is left pays for later calls"

// Challenge implements [gateway.Rail]. An offer of version 2 has a random text, which comes back with the payment. A chain shows all else that
// is in a payment, so without the text everybody could repeat a payment that was made.
func (r *Rail) Challenge(need gateway.Need, h http.Header) map[string]any {
	units := r.unitsFor(need)
	required := r.required(need)
	required.Extensions = r.extensions(need.URL, need.At)
	text, err := json.Marshal(required)
	if err != nil {
		panic(err) // can't happen: it has only texts and numbers
	}
	h.Set(headerRequired, base64.StdEncoding.EncodeToString(text))
	if r.v1 == "" {
		return nil
	}
	old, say, empty := r.requirementsFor(1, units.String()), description, ""
	old.Resource, old.Description, old.MimeType = need.URL, &say, &empty
	return map[string]any{"x402Version": 1, "accepts": []requirements{old}}
}

// required is how a caller is told to pay, in version 2.
type required struct {
	Version    int            `json:"x402Version"`
	Error      string         `json:"error"`
	Resource   resource       `json:"resource"`
	Accepts    []requirements `json:"accepts"`
	Extensions map[string]any `json:"extensions,omitempty"`
}

func (r *Rail) required(need gateway.Need) required {
	units := r.unitsFor(need).String()
	offers := []requirements{r.requirementsFor(2, units)}
	if settles, known := r.supported.settler(need.At); known {
		offers = append(offers, r.requirementsUpTo(units, settles))
	}
	for _, offer := range offers {
		offer.Extra["offer"] = rand.Text()
	}
	return required{Version: 2, Error: need.Refusal, Resource: resource{URL: need.URL, Description: description}, Accepts: offers}
}

// unitsFor returns how much a caller is asked to pay.
func (r *Rail) unitsFor(need gateway.Need) *big.Int {
	units := need.Required.Minor(r.decimal)
	if units.Cmp(r.topUp) < 0 {
		return r.topUp
	}
	return units
}

// Take implements [gateway.Rail].
func (r *Rail) Take(request *http.Request) (gateway.Payable, bool, error) {
	sent := append(request.Header.Values(headerPayment), request.Header.Values(headerPaymentV1)...)
	if len(sent) == 0 {
		return gateway.Payable{}, false, nil
	}
	request.Header.Del(headerPayment)
	request.Header.Del(headerPaymentV1)
	if len(sent) > 1 {
		return gateway.Payable{}, true, refuse("invalid_payload", "a request brings one payment, not %d", len(sent))
	}
	p, err := decodePayment(sent[0])
	if err != nil {
		return gateway.Payable{}, true, err
	}
	paid, err := r.read(p)
	paid.Secret = []byte(sent[0])
	return paid, true, err
}

func decodePayment(header string) (p payment, err error) {
	if len(header) > maxHeader {
		return p, refuse("invalid_payload", "the header of a payment has at most %d bytes", maxHeader)
	}
	text, err := base64.StdEncoding.DecodeString(header)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		if err = decoder.Decode(&p); err == nil && decoder.More() {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return p, refuse("invalid_payload", "the payment is not JSON in Base64, as x402 has it")
	}
	return p, nil
}

var (
	nonceForm     = regexp.MustCompile(`^0x[0-9a-fA-F]{64}$`)
	signatureForm = regexp.MustCompile(`^0x([0-9a-fA-F]{2})+$`)
	numberForm    = regexp.MustCompile(`^(0|[1-9][0-9]{0,77})$`)
)

// read checks everything about a payment that can be checked without the chain. What the facilitator gets is made anew from what was read
// here, so that it can't read anything else.
func (r *Rail) read(p payment) (paid gateway.Payable, err error) {
	if err := r.checkOffer(p); err != nil {
		return paid, err
	}
	if p.scheme() == upTo {
		return r.readUpTo(p)
	}
	a := p.Payload.Authorization
	if a == nil {
		return paid, refuse("invalid_payload", "the payment has no authorization")
	}
	if !addressForm.MatchString(a.From) || !nonceForm.MatchString(a.Nonce) || !signatureForm.MatchString(p.Payload.Signature) || len(p.Payload.Signature) > maxSignature {
		return paid, refuse("invalid_payload", "the payment's sender, nonce or signature has a wrong form")
	}
	for _, number := range []string{a.Value, a.ValidAfter, a.ValidBefore} {
		if !numberForm.MatchString(number) {
			return paid, refuse("invalid_payload", "the payment has %.100q where a number is expected, as a text", number)
		}
	}
	if !same(a.To, r.PayTo) {
		return paid, refuse("invalid_recipient", "the payment is to %.100s; it must be to %s", a.To, r.PayTo)
	}
	amount, err := r.amountOf(p, a.Value)
	if err != nil {
		return paid, err
	}
	ends, err := endOf(a.ValidBefore)
	if err != nil {
		return paid, err
	}
	proof := payment{Version: p.Version, Payload: signed{Signature: p.Payload.Signature, Authorization: a}}
	need := r.requirementsFor(p.Version, a.Value)
	if p.Version == 1 {
		proof.Scheme, proof.Network = exact, r.v1
	} else {
		proof.Accepted = &need
	}
	kept, err := json.Marshal(order{Version: p.Version, Payment: proof, Requirements: need})
	if err != nil {
		return paid, err
	}
	name, err := p.identifier()
	return gateway.Payable{
		ID: strings.ToLower(a.From + ":" + a.Nonce), Payer: strings.ToLower(a.From), Amount: amount, Name: name, Proof: kept, Ends: ends,
	}, err
}

// amountOf returns how much a payment of a number of units is. It must be what was offered.
func (r *Rail) amountOf(p payment, value string) (ledger.Amount, error) {
	units, _ := new(big.Int).SetString(value, 10)
	amount, whole := ledger.FromMinor(units, r.decimal)
	if units.Cmp(r.topUp) < 0 || p.Version == 2 && p.Accepted.Amount != value {
		return 0, refuse("invalid_amount", "the payment is of %s units of the asset; it must be of what was offered, and at least of %s", value, r.topUp)
	}
	if !whole {
		return 0, refuse("invalid_amount", "the payment is of %s units of the asset, which can't be booked", value)
	}
	return amount, nil
}

// endOf returns the time after which a payment can't be settled, which is given in seconds.
func endOf(seconds string) (time.Time, error) {
	ends, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || ends > 1<<40 {
		return time.Time{}, refuse("invalid_payload", "the payment is valid for too long")
	}
	return time.Unix(ends, 0), nil
}

// scheme returns the scheme that the payer has chosen.
func (p payment) scheme() string {
	if p.Version == 2 && p.Accepted != nil {
		return p.Accepted.Scheme
	}
	return p.Scheme
}

// checkOffer checks that a payment is for an offer of ours.
func (r *Rail) checkOffer(p payment) error {
	scheme, network := p.Scheme, p.Network
	wanted := r.v1
	switch {
	case p.Version == 1 && r.v1 != "":
	case p.Version == 2 && p.Accepted != nil:
		scheme, network, wanted = p.Accepted.Scheme, p.Accepted.Network, r.Network
	default:
		return refuse("invalid_x402_version", "the payment is of version %d of x402, or not complete", p.Version)
	}
	if scheme != exact && (scheme != upTo || p.Version != 2 || !r.Upto) {
		return refuse("unsupported_scheme", "the payment's scheme is %.100q, which was not offered", scheme)
	}
	if network != wanted {
		return refuse("invalid_network", "the payment is on network %.100q; it must be on %s", network, wanted)
	}
	if p.Version == 2 && !same(p.Accepted.Asset, r.Asset) {
		return refuse("invalid_asset", "the payment is in the asset %.100q; it must be in %s", p.Accepted.Asset, r.Asset)
	}
	if p.Version == 2 && !same(p.Accepted.PayTo, r.PayTo) {
		return refuse("invalid_recipient", "the payment is to %.100s; it must be to %s", p.Accepted.PayTo, r.PayTo)
	}
	return nil
}

// refuse refuses a payment. reason is one of the reasons of x402, or is made like them.
func refuse(reason, format string, args ...any) error {
	return &escrow.Refusal{Outcome: api.PaymentRefused, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"reason": reason}}
}

// Verify implements [gateway.Rail].
func (r *Rail) Verify(ctx context.Context, p gateway.Payable) error {
	var found struct {
		IsValid bool   `json:"isValid"`
		Reason  string `json:"invalidReason"`
		Payer   string `json:"payer"`
	}
	if err := r.client.ask(ctx, "verify", p.Proof, &found); err != nil {
		return err
	}
	if !found.IsValid && found.Reason == "" {
		return errors.New("the facilitator does not say whether the payment is valid")
	}
	if !found.IsValid {
		return refuse(found.Reason, "the facilitator refuses the payment: %.200s", found.Reason)
	}
	if found.Payer != "" && !same(found.Payer, p.Payer) {
		return refuse("invalid_payer", "the payment is signed by %.100s, not by its sender", found.Payer)
	}
	return nil
}

// Settle implements [gateway.Rail]. The chain takes each nonce of a payer only once, so a payment that comes again moves nothing. If the
// facilitator does not say that the payment was settled, the chain is asked, where the config names a node of it.
func (r *Rail) Settle(ctx context.Context, p gateway.Payable) (string, error) {
	transaction, err := r.settle(ctx, p)
	if err == nil || r.node == nil || errors.Is(ctx.Err(), context.Canceled) {
		return transaction, err
	}
	var kept order
	if err := json.Unmarshal(p.Proof, &kept); err != nil {
		return "", fmt.Errorf("reading a payment's proof: %w", err)
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), nodeTimeout) // the facilitator may have used up the time
	defer cancel()
	found, unknown := r.onChain(asking, kept)
	switch {
	case unknown != nil && asRefusal(err) == nil:
		return "", fmt.Errorf("%w; %w", err, unknown)
	case unknown != nil: // the facilitator refuses, and the chain knows better, or can't be asked
		return "", fmt.Errorf("the facilitator refuses a payment, and it is not known what the chain has: %s; %w", asRefusal(err).Detail, unknown)
	case found.transaction != "":
		return strings.ToLower(found.transaction), nil
	case found.over:
		return "", errors.Join(refuse("expired", "the payment was not made, and its time is over"), gateway.ErrNotMade)
	}
	return "", err
}

// onChain asks the chain what became of a payment.
func (r *Rail) onChain(ctx context.Context, kept order) (fate, error) {
	switch signed := kept.Payment.Payload; {
	case signed.Authorization != nil:
		return r.node.find(ctx, *signed.Authorization, r.Asset)
	case signed.Permit != nil:
		return r.node.findPermit(ctx, *signed.Permit, kept.Requirements.Amount, r.Asset)
	}
	return fate{}, errors.New("the payment has no authorization")
}

// asRefusal returns an error as a refusal; nil if it is none.
func asRefusal(err error) (refusal *escrow.Refusal) {
	errors.As(err, &refusal)
	return refusal
}

// nodeTimeout is how long the chain's node may take.
const nodeTimeout = 10 * time.Second

// settle has the facilitator settle a payment.
func (r *Rail) settle(ctx context.Context, p gateway.Payable) (string, error) {
	var found struct {
		Success     *bool  `json:"success"`
		Reason      string `json:"errorReason"`
		Transaction string `json:"transaction"`
		Payer       string `json:"payer"`
		Amount      string `json:"amount"` // of the scheme upto
	}
	if err := r.client.ask(ctx, "settle", p.Proof, &found); err != nil {
		return "", err
	}
	switch {
	case found.Success == nil:
		return "", errors.New("the facilitator does not say whether the payment was settled")
	case !*found.Success && found.Transaction == "":
		return "", refuse(found.Reason, "the payment was not settled: %.200s", found.Reason)
	case !*found.Success: // it was sent, and may still be mined
		return "", fmt.Errorf("the facilitator does not know what became of transaction %.100s: %.200s", found.Transaction, found.Reason)
	case found.Transaction == "" || found.Payer != "" && !same(found.Payer, p.Payer):
		return "", fmt.Errorf("the facilitator says that transaction %.100q of %.100q settles a payment of %s", found.Transaction, found.Payer, p.Payer)
	}
	if units := p.Amount.Minor(r.decimal).String(); found.Amount != "" && found.Amount != units {
		return "", fmt.Errorf("the facilitator says that transaction %.100q has moved %.80q units, and was asked for %s", found.Transaction, found.Amount, units)
	}
	return strings.ToLower(fmt.Sprintf("%.200s", found.Transaction)), nil
}

// Receipt implements [gateway.Rail].
func (r *Rail) Receipt(p gateway.Payable, transaction string, h http.Header) {
	var kept order
	if err := json.Unmarshal(p.Proof, &kept); err != nil {
		panic(err) // can't happen: Take has written it
	}
	receipt := map[string]any{"success": true, "transaction": transaction, "network": kept.Requirements.Network, "payer": p.Payer}
	if kept.Requirements.Scheme == upTo {
		receipt["amount"] = p.Amount.Minor(r.decimal).String()
	}
	text, err := json.Marshal(receipt)
	if err != nil {
		panic(err) // can't happen: it has only texts and a boolean
	}
	header := headerResponse
	if kept.Version == 1 {
		header = headerResponseV1
	}
	h.Set(header, base64.StdEncoding.EncodeToString(text))
}
