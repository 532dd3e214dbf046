// Package stripe is a Caddy module for payments by card: people pay into wallets on Stripe's own pages, wallets are filled from saved payment
// methods, and payees are paid by transfers of Stripe Connect. Import it for its side effects, in a Caddy build that has package caddymodule.
// This Caddyfile uses it:
//
//	{
//		tallygate {
//			cashier stripe {
//				secret_key {env.STRIPE_SECRET_KEY}
//				webhook_secret {env.STRIPE_WEBHOOK_SECRET}
//				currency usd
//				success_url https://shop.example/paid
//			}
//		}
//	}
//
// Stripe sends its messages to /api/v1/checkout/events. A message only says which payment to look at: what is booked is what Stripe's API then
// says about it. So it does not matter how often, how late and in which order messages come.
package stripe

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	stripe "github.com/stripe/stripe-go/v85"

	"github.com/tallygate/tallygate/caddymodule/refund"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func init() { caddy.RegisterModule(Cashier{}) }

// Cashier takes payments by card at Stripe. One unit of the currency is one unit of the ledger's currency.
type Cashier struct {
	// SecretKey is Stripe's secret key, or a restricted one. Write it as a placeholder, such as {env.STRIPE_SECRET_KEY} or {file./run/key}.
	SecretKey string `json:"secret_key"`
	// WebhookSecret is the signing secret of the webhook endpoint at Stripe. Write it as a placeholder.
	WebhookSecret string `json:"webhook_secret"`
	// Currency is the currency in which people pay, such as "usd".
	Currency string `json:"currency"`
	// Min and Max bound what is paid at once. Default: 1.00 and 1000.00.
	Min string `json:"min,omitempty"`
	Max string `json:"max,omitempty"`
	// SuccessURL is the address to which Stripe leads a person who has paid, and CancelURL the one for a person who has not. Default of
	// CancelURL: SuccessURL.
	SuccessURL string `json:"success_url"`
	CancelURL  string `json:"cancel_url,omitempty"`
	// CheckEvery is the time between two looks at wallets that are to be topped up, and at refunds whose outcome is not known. Each look at an
	// order that waits costs Stripe a request. At least 10ms. Default: 5s.
	CheckEvery string `json:"check_every,omitempty"`
	// Refunds says who makes refunds: at_once (whoever has paid gets unspent money back when it asks) or by_operator (the operator decides).
	// Default: by_operator.
	Refunds string `json:"refunds,omitempty"`
	// API is the address of Stripe's API, for tests and proxies. Default: Stripe's own.
	API string `json:"api,omitempty"`

	every    time.Duration
	client   *stripe.Client
	money    money
	min, max ledger.Amount
}

const (
	defaultMin, defaultMax = "1.00", "1000.00"
	timeout                = 20 * time.Second
	defaultEvery, minEvery = "5s", 10 * time.Millisecond
)

// CaddyModule implements caddy.Module.
func (Cashier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.cashiers.stripe", New: func() caddy.Module { return new(Cashier) }}
}

// Provision checks the config.
func (c *Cashier) Provision(caddy.Context) error {
	replacer := caddy.NewReplacer()
	for _, text := range []*string{&c.SecretKey, &c.WebhookSecret, &c.Currency, &c.Min, &c.Max, &c.SuccessURL, &c.CancelURL, &c.CheckEvery, &c.Refunds, &c.API} {
		*text = strings.TrimSpace(replacer.ReplaceAll(*text, ""))
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("cashier stripe: %w", err)
	}
	backend := &stripe.BackendConfig{
		HTTPClient: &http.Client{Timeout: timeout}, LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
		EnableTelemetry:   stripe.Bool(false),
		MaxNetworkRetries: stripe.Int64(0), // whoever asks tries again: the caller, Stripe with its message, and the next round of top-ups
	}
	if c.API != "" {
		backend.URL = stripe.String(strings.TrimSuffix(c.API, "/"))
	}
	c.client = stripe.NewClient(c.SecretKey, stripe.WithBackends(stripe.NewBackendsWithConfig(backend)))
	return nil
}

var currencyForm = regexp.MustCompile(`^[a-z]{3}$`)

func (c *Cashier) check() (err error) {
	if c.SecretKey == "" || c.WebhookSecret == "" {
		return errors.New("secret_key and webhook_secret must be given, and are empty: is the environment variable set?")
	}
	if c.Currency = strings.ToLower(c.Currency); !currencyForm.MatchString(c.Currency) {
		return fmt.Errorf("currency %q: expected a currency of Stripe, such as usd", c.Currency)
	}
	c.money = moneyOf(c.Currency)
	if c.every, err = time.ParseDuration(cmp.Or(c.CheckEvery, defaultEvery)); err != nil || c.every < minEvery {
		return fmt.Errorf("check_every %q: expected a time such as 5s, of at least %s", c.CheckEvery, minEvery)
	}
	if c.Refunds, err = refund.Check(c.Refunds); err != nil {
		return err
	}
	for word, bound := range map[string]struct {
		text *string
		into *ledger.Amount
	}{"min": {&c.Min, &c.min}, "max": {&c.Max, &c.max}} {
		*bound.text = cmp.Or(*bound.text, map[string]string{"min": defaultMin, "max": defaultMax}[word])
		if *bound.into, err = ledger.ParseAmount(*bound.text); err == nil {
			_, err = c.money.minor(*bound.into)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", word, *bound.text, err)
		}
	}
	if c.min > c.max {
		return fmt.Errorf("min %s is more than max %s", c.Min, c.Max)
	}
	c.CancelURL = cmp.Or(c.CancelURL, c.SuccessURL)
	for word, address := range map[string]string{"success_url": c.SuccessURL, "cancel_url": c.CancelURL, "api": cmp.Or(c.API, "https://api.stripe.com")} {
		if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("%s %q: expected a URL such as https://shop.example/paid", word, address)
		}
	}
	return nil
}

const words = "secret_key, webhook_secret, currency, min, max, success_url, cancel_url, check_every, refunds, api"

// UnmarshalCaddyfile reads
//
//	cashier stripe {
//		secret_key PLACEHOLDER
//		webhook_secret PLACEHOLDER
//		currency CODE
//		min A
//		max A
//		success_url URL
//		cancel_url URL
//		check_every DURATION
//		refunds at_once|by_operator
//		api URL
//	}
func (c *Cashier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("unexpected %q: 'cashier stripe' has a block, and no arguments", d.Val())
	}
	into := map[string]*string{
		"secret_key": &c.SecretKey, "webhook_secret": &c.WebhookSecret, "currency": &c.Currency, "min": &c.Min, "max": &c.Max,
		"success_url": &c.SuccessURL, "cancel_url": &c.CancelURL, "check_every": &c.CheckEvery, "refunds": &c.Refunds, "api": &c.API,
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		text, known := into[word]
		if !known {
			return d.Errf("unrecognized subdirective %q of cashier stripe: expected one of %s", word, words)
		}
		if *text != "" {
			return d.Errf("'%s' is there twice", word)
		}
		if !d.AllArgs(text) {
			return d.Errf("'%s' needs one value", word)
		}
	}
	for _, word := range []string{"secret_key", "webhook_secret", "currency", "success_url"} {
		if *into[word] == "" {
			return d.Errf("'cashier stripe' needs '%s'", word)
		}
	}
	return nil
}

// Name implements [cashier.Service].
func (*Cashier) Name() string { return "stripe" }

// Every implements [cashier.Service].
func (c *Cashier) Every() time.Duration { return c.every }

// Interface guards
var (
	_ caddy.Provisioner     = (*Cashier)(nil)
	_ caddyfile.Unmarshaler = (*Cashier)(nil)
	_ cashier.Service       = (*Cashier)(nil)
	_ cashier.Refunder      = (*Cashier)(nil)
)
