package mpp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/rawrequest"

	"github.com/tallygate/tallygate/caddymodule/refund"
	"github.com/tallygate/tallygate/gateway"
)

const stripeName = "stripe"

// stripePreview is the version of Stripe's API that has shared payment tokens, which are a preview. It is the one of the reference client.
// https://github.com/wevm/mppx/blob/d343aae/src/stripe/internal/constants.ts
const stripePreview = "2026-07-29.preview"

// Stripe takes shared payment tokens: the payload is {"spt": "spt_..."}, which the payer's agent has made by Stripe's API for this seller and
// amount. https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/methods/stripe/draft-stripe-charge-00.md
type Stripe struct {
	// Method is the name by which the config selects the method.
	Method string `json:"method,omitempty"`
	// SecretKey is the operator's secret key at Stripe. Write it as a placeholder.
	SecretKey string `json:"secret_key"`
	// NetworkID is the operator's profile at Stripe, for which payers make tokens.
	NetworkID string `json:"network_id"`
	// PaymentMethodTypes are the kinds of payment methods that are taken. Default: card and link.
	PaymentMethodTypes []string `json:"payment_method_types,omitempty"`
	// Refunds says who makes refunds: at_once (whoever has paid gets unspent money back when it asks) or by_operator (the operator decides).
	// Default: by_operator.
	Refunds string `json:"refunds,omitempty"`
	// API is the URL of Stripe's API. Default: Stripe's own.
	API string `json:"api,omitempty"`

	client *stripe.Client
	raw    rawrequest.Client
}

var (
	tokenOfStripe = regexp.MustCompile(`^spt_[0-9A-Za-z_]{1,200}$`)
	wordOfStripe  = regexp.MustCompile(`^[0-9A-Za-z_]{1,100}$`)
)

func (s *Stripe) provision(replacer *caddy.Replacer) error {
	for _, text := range []*string{&s.SecretKey, &s.NetworkID, &s.API} {
		*text = replacer.ReplaceAll(*text, "")
	}
	if s.SecretKey == "" {
		return errors.New("secret_key is empty")
	}
	var err error
	if s.Refunds, err = refund.Check(s.Refunds); err != nil {
		return err
	}
	if len(s.PaymentMethodTypes) == 0 {
		s.PaymentMethodTypes = []string{"card", "link"}
	}
	for _, word := range append([]string{s.NetworkID}, s.PaymentMethodTypes...) {
		if !wordOfStripe.MatchString(word) {
			return fmt.Errorf("%q: expected a network_id such as profile_1MqDcVKA5fEO2tZvKQm9g8Yj, and payment_method_types such as card", word)
		}
	}
	backend := &stripe.BackendConfig{
		HTTPClient:        &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull}, // its errors are in ours
		MaxNetworkRetries: stripe.Int64(0),                                // the gateway asks again
		EnableTelemetry:   stripe.Bool(false),
	}
	if s.API != "" {
		if u, err := url.Parse(s.API); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("api %q: expected a URL", s.API)
		}
		backend.URL = stripe.String(s.API)
	}
	backends := stripe.NewBackendsWithConfig(backend)
	s.client = stripe.NewClient(s.SecretKey, stripe.WithBackends(backends))
	raw, ok := backends.API.(stripe.RawRequestBackend)
	if !ok {
		return errors.New("stripe-go has no raw requests")
	}
	s.raw = rawrequest.Client{B: raw, Key: s.SecretKey}
	return nil
}

func (s *Stripe) unmarshal(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		args := d.RemainingArgs()
		into := map[string]*string{"secret_key": &s.SecretKey, "network_id": &s.NetworkID, "refunds": &s.Refunds, "api": &s.API}[word]
		switch {
		case word == "payment_method_types" && len(args) > 0:
			s.PaymentMethodTypes = args
		case into != nil && len(args) == 1:
			*into = args[0]
		case into != nil || word == "payment_method_types":
			return d.Errf("'%s' has %d words after it: expected one, or several for payment_method_types", word, len(args))
		default:
			return d.Errf("unrecognized subdirective %q of the method stripe: expected one of secret_key, network_id, payment_method_types, refunds, api", word)
		}
	}
	return nil
}

// Name implements [Method].
func (*Stripe) Name() string { return stripeName }

// Details implements [Method].
func (s *Stripe) Details() map[string]any {
	return map[string]any{"networkId": s.NetworkID, "paymentMethodTypes": s.PaymentMethodTypes}
}

// sharedToken is a token, as a payload and as a proof has it.
type sharedToken struct {
	SPT string `json:"spt"`
}

// Read implements [Method]. Stripe makes a token for one payment and one seller, and says nothing about who pays.
func (*Stripe) Read(payload json.RawMessage) (proof json.RawMessage, payer string, known bool, err error) {
	var t sharedToken
	if err := json.Unmarshal(payload, &t); err != nil || !tokenOfStripe.MatchString(t.SPT) {
		return nil, "", false, refuse(malformed, "the payload of the method stripe is {\"spt\": \"spt_...\"}")
	}
	proof, err = json.Marshal(t)
	return proof, t.SPT, false, err
}

// Verify implements [Method]. It reads the token.
// https://docs.stripe.com/api/shared-payment/granted-token
func (s *Stripe) Verify(ctx context.Context, o Order) error {
	token, amount, err := o.stripes()
	if err != nil {
		return err
	}
	params := &stripe.RawParams{}
	params.Context = ctx
	params.Headers = preview()
	response, err := s.raw.RawRequest(http.MethodGet, "/v1/shared_payment/granted_tokens/"+token, "", params)
	if err != nil {
		return s.refusal(err)
	}
	var found struct {
		Deactivated *int64 `json:"deactivated_at"`
		Limits      struct {
			Currency string `json:"currency"`
			Max      int64  `json:"max_amount"`
		} `json:"usage_limits"`
	}
	if err := json.Unmarshal(response.RawJSON, &found); err != nil {
		return fmt.Errorf("reading a token of Stripe: %w", err)
	}
	switch {
	case found.Deactivated != nil:
		return refuse(failed, "the token was used, revoked, or has expired")
	case found.Limits.Currency != o.Currency || found.Limits.Max < amount:
		return refuse("payment-insufficient", "the token is for at most %d %.3s; %d %s are needed", found.Limits.Max, found.Limits.Currency, amount, o.Currency)
	}
	return nil
}

func (o Order) stripes() (token string, amount int64, err error) {
	var t sharedToken
	if err := json.Unmarshal(o.Proof, &t); err != nil {
		return "", 0, fmt.Errorf("reading a token: %w", err)
	}
	n, ok := new(big.Int).SetString(o.Amount, 10)
	if !ok || !n.IsInt64() {
		return "", 0, fmt.Errorf("amount %q", o.Amount)
	}
	return t.SPT, n.Int64(), nil
}

// Settle implements [Method]. Stripe executes one request for an idempotency key, and that is the challenge's id alone: whatever token comes
// with a challenge, it is paid once. So what Stripe says about a key is said about all that was tried.
// https://docs.stripe.com/api/idempotent_requests
func (s *Stripe) Settle(ctx context.Context, o Order) (string, error) {
	token, amount, err := o.stripes()
	if err != nil {
		return "", err
	}
	params := &stripe.PaymentIntentCreateParams{
		Amount: stripe.Int64(amount), Currency: stripe.String(o.Currency), Confirm: stripe.Bool(true),
		AutomaticPaymentMethods: &stripe.PaymentIntentCreateAutomaticPaymentMethodsParams{Enabled: stripe.Bool(true), AllowRedirects: stripe.String("never")},
		Metadata:                map[string]string{"challenge_id": o.ID, "mpp_challenge_id": o.ID, "mpp_intent": o.Intent, "mpp_server_id": o.Realm},
	}
	params.SetIdempotencyKey("mpp_" + o.ID)
	params.Headers = preview()
	params.AddExtra("shared_payment_granted_token", token)
	made, err := s.client.V1PaymentIntents.Create(ctx, params)
	if err != nil {
		return "", s.settled(err)
	}
	return s.outcome(ctx, made)
}

func preview() http.Header { return http.Header{"Stripe-Version": {stripePreview}} }

// outcome finds out what became of a payment. The answer to a repeated request is what it was the first time, so one that was not paid then is
// looked at again, and given up if it still waits for something that will not come.
func (s *Stripe) outcome(ctx context.Context, made *stripe.PaymentIntent) (string, error) {
	if made.Status != stripe.PaymentIntentStatusSucceeded {
		now, err := s.client.V1PaymentIntents.Retrieve(ctx, made.ID, nil)
		if err != nil {
			return "", unknown(err)
		}
		made = now
	}
	switch made.Status {
	case stripe.PaymentIntentStatusSucceeded:
		return made.ID, nil
	case stripe.PaymentIntentStatusCanceled:
		return "", notMade("the payment was given up")
	case stripe.PaymentIntentStatusProcessing:
		return "", fmt.Errorf("payment %s is processing", made.ID)
	}
	ended, err := s.client.V1PaymentIntents.Cancel(ctx, made.ID, nil)
	if err != nil {
		return "", unknown(err)
	}
	if ended.Status != stripe.PaymentIntentStatusCanceled {
		return "", fmt.Errorf("payment %s is %s, and can't be given up", made.ID, ended.Status)
	}
	return "", notMade("the payment needs an action of its payer (" + string(made.Status) + ")")
}

func notMade(why string) error {
	return errors.Join(refuse(failed, "%s", why), gateway.ErrNotMade)
}

// settled returns what an error says about a payment. Only an answer to this very request that refuses it says that nothing was paid.
func (s *Stripe) settled(err error) error {
	refusal := s.refusal(err)
	var said *stripe.Error
	if errors.As(err, &said) && isRefused(said) && said.Type != stripe.ErrorTypeIdempotency {
		return errors.Join(refusal, gateway.ErrNotMade)
	}
	return refusal
}

// isRefused reports whether Stripe has refused a request for what it asks: not because of us, nor for now.
func isRefused(e *stripe.Error) bool {
	return slices.Contains([]int{http.StatusBadRequest, http.StatusPaymentRequired, http.StatusNotFound}, e.HTTPStatusCode)
}

// refusal returns an error of Stripe as a refusal, if it is one. Its text is Stripe's for the payer; it has no secrets.
func (s *Stripe) refusal(err error) error {
	var said *stripe.Error
	if !errors.As(err, &said) || !isRefused(said) {
		return unknown(err)
	}
	what := string(said.Code)
	if said.DeclineCode != "" {
		what += ", " + string(said.DeclineCode)
	}
	return refuse(failed, "Stripe refuses the payment: %.200s (%.100s)", said.Msg, what)
}

// unknown returns an error of Stripe for the log.
func unknown(err error) error {
	var said *stripe.Error
	if errors.As(err, &said) {
		return errors.New("Stripe answers with " + strconv.Itoa(said.HTTPStatusCode) + ": " + fmt.Sprintf("%.200s", said.Msg) + " (request " + said.RequestID + ")")
	}
	return fmt.Errorf("asking Stripe: %w", err)
}
