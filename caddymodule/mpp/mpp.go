// Package mpp is a Caddy module for payments by MPP, the "Payment" scheme of HTTP authentication: a caller without an account pays for a
// metered call with a credential in the header Authorization. Import it for its side effects, in a Caddy build that has package caddymodule.
// This Caddyfile uses it:
//
//	{
//		tallygate {
//			rail mpp {
//				secret {env.MPP_SECRET}
//				top_up 5
//				method stripe {
//					secret_key {env.STRIPE_SECRET_KEY}
//					network_id profile_1MqDcVKA5fEO2tZvKQm9g8Yj
//				}
//			}
//		}
//	}
//
// The scheme is that of draft-httpauth-payment-00 at https://paymentauth.org, whose source is https://github.com/tempoxyz/mpp-specs at commit
// f9506cd. How money moves is a method's affair: see [Method]. The package has no state. A challenge is bound to what it says by a code
// (HMAC), and what a credential has paid is in the books.
package mpp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

func init() { caddy.RegisterModule(Rail{}) }

// Rail takes payments by MPP. One unit of its currency is one unit of the ledger's currency.
type Rail struct {
	// Secrets are what challenges are bound with, each of at least 32 characters. The first one binds new challenges; a second one is taken
	// too, for the minutes after a change. Gateways that share a ledger have the same. Write them as placeholders.
	Secrets []string `json:"secrets"`
	// Currency is the currency of all methods, by its ISO 4217 code in lower case. Default: usd.
	Currency string `json:"currency,omitempty"`
	// Decimals is how many decimals the currency's smallest unit has. Default: 2.
	Decimals *int `json:"decimals,omitempty"`
	// TopUp is how much a caller is asked to pay, or more if it is known that the call needs more. What the call leaves stays as credit.
	TopUp string `json:"top_up"`
	// MethodsRaw are the ways to pay, in the order in which they are offered. Each is an object that names itself in "method", and has the
	// fields of that method: those of [Stripe], or none for the method test.
	MethodsRaw []json.RawMessage `json:"methods"`

	methods []Method
	decimal int
	topUp   *big.Int // in the currency's smallest units
}

const (
	minSecret       = 32 // characters
	defaultCurrency = "usd"
	defaultDecimals = 2
	maxDecimals     = 9 // of an amount in the ledger
)

var currencyForm = regexp.MustCompile(`^[a-z]{3}$`)

// CaddyModule implements caddy.Module.
func (Rail) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.rails.mpp", New: func() caddy.Module { return new(Rail) }}
}

// Provision checks the config.
func (r *Rail) Provision(ctx caddy.Context) error {
	if err := r.provision(caddy.NewReplacer()); err != nil {
		return fmt.Errorf("rail mpp: %w", err)
	}
	if r.method(testName) != nil {
		ctx.Slogger().Warn("rail mpp has the method test: whoever asks gets credit that nobody has paid for")
	}
	return nil
}

func (r *Rail) provision(replacer *caddy.Replacer) error {
	for i, secret := range r.Secrets {
		if r.Secrets[i] = replacer.ReplaceAll(secret, ""); len(r.Secrets[i]) < minSecret {
			return fmt.Errorf("a secret has %d characters: expected at least %d random ones, the same on all gateways", len(r.Secrets[i]), minSecret)
		}
	}
	if len(r.Secrets) == 0 || len(r.Secrets) > 2 {
		return fmt.Errorf("%d secrets: expected one, or the new one and the one before", len(r.Secrets))
	}
	if r.Currency == "" {
		r.Currency = defaultCurrency
	}
	if !currencyForm.MatchString(r.Currency) {
		return fmt.Errorf("currency %q: expected a code of ISO 4217 in lower case, such as usd", r.Currency)
	}
	if r.decimal = defaultDecimals; r.Decimals != nil {
		r.decimal = *r.Decimals
	}
	if r.decimal < 0 || r.decimal > maxDecimals {
		return fmt.Errorf("decimals %d: expected 0 to %d", r.decimal, maxDecimals)
	}
	amount, err := ledger.ParseAmount(replacer.ReplaceAll(r.TopUp, ""))
	if err != nil || amount <= 0 {
		return fmt.Errorf("top_up %q: expected an amount above zero, such as 5", r.TopUp)
	}
	r.topUp = amount.Minor(r.decimal)
	if back, exact := r.amount(r.topUp.String()); !exact || back != amount {
		return fmt.Errorf("top_up %s: the currency has only %d decimals", r.TopUp, r.decimal)
	}
	return r.loadMethods(replacer)
}

func (r *Rail) loadMethods(replacer *caddy.Replacer) error {
	for _, raw := range r.MethodsRaw {
		var named struct {
			Method string `json:"method"`
		}
		if err := json.Unmarshal(raw, &named); err != nil {
			return fmt.Errorf("methods: %w", err)
		}
		make, exists := methods[named.Method]
		if !exists {
			return fmt.Errorf("there is no method %q: expected one of %s", named.Method, methodNames())
		}
		if r.method(named.Method) != nil {
			return fmt.Errorf("method %s is given twice", named.Method)
		}
		method := make()
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(method); err != nil {
			return fmt.Errorf("method %s: %w", named.Method, err)
		}
		if err := method.provision(replacer); err != nil {
			return fmt.Errorf("method %s: %w", named.Method, err)
		}
		r.methods = append(r.methods, method)
	}
	if len(r.methods) == 0 {
		return fmt.Errorf("there is no method: expected one of %s", methodNames())
	}
	return nil
}

func (r *Rail) method(name string) Method {
	if i := slices.IndexFunc(r.methods, func(m Method) bool { return m.Name() == name }); i >= 0 {
		return r.methods[i]
	}
	return nil
}

func methodNames() string { return strings.Join(slices.Sorted(maps.Keys(methods)), ", ") }

// amount returns a number of the currency's smallest units as an amount. exact is false if it is not such a number.
func (r *Rail) amount(units string) (amount ledger.Amount, exact bool) {
	n, ok := new(big.Int).SetString(units, 10)
	if !ok || len(units) > 19 || n.Sign() <= 0 {
		return 0, false
	}
	return ledger.FromMinor(n, r.decimal)
}

// UnmarshalCaddyfile reads
//
//	mpp {
//		secret SECRET [SECRET_BEFORE]
//		currency CODE [DECIMALS]
//		top_up A
//		method stripe {
//			secret_key KEY
//			network_id PROFILE
//			payment_method_types TYPE...
//			refunds at_once|by_operator
//			api URL
//		}
//		method test
//	}
func (r *Rail) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("unexpected %q: 'rail mpp' takes a block only", d.Val())
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		if seen[word] && word != "method" {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := r.unmarshalWord(d, word); err != nil {
			return err
		}
	}
	for _, word := range []string{"secret", "top_up", "method"} {
		if !seen[word] {
			return d.Errf("'rail mpp' has no %s", word)
		}
	}
	return nil
}

func (r *Rail) unmarshalWord(d *caddyfile.Dispenser, word string) error {
	switch word {
	case "secret":
		if r.Secrets = d.RemainingArgs(); len(r.Secrets) != 1 && len(r.Secrets) != 2 {
			return d.Err("'secret' takes the secret, and the one before if it has changed")
		}
	case "currency":
		args := d.RemainingArgs()
		if len(args) != 1 && len(args) != 2 {
			return d.Err("'currency' takes a code such as usd, and the number of decimals if it is not 2")
		}
		if r.Currency = args[0]; len(args) == 2 {
			decimals, err := strconv.Atoi(args[1])
			if err != nil {
				return d.Errf("currency: %q is not a number of decimals", args[1])
			}
			r.Decimals = &decimals
		}
	case "top_up":
		if !d.Args(&r.TopUp) || d.NextArg() {
			return d.Err("'top_up' takes one amount")
		}
	case "method":
		return r.unmarshalMethod(d)
	default:
		return d.Errf("unrecognized subdirective %q of rail mpp: expected one of secret, currency, top_up, method", word)
	}
	return nil
}

func (r *Rail) unmarshalMethod(d *caddyfile.Dispenser) error {
	var name string
	if !d.Args(&name) || d.NextArg() {
		return d.Errf("'method' takes one of %s, and its block", methodNames())
	}
	make, exists := methods[name]
	if !exists {
		return d.Errf("there is no method %q: expected one of %s", name, methodNames())
	}
	method := make()
	if err := method.unmarshal(d); err != nil {
		return err
	}
	fields, err := json.Marshal(method)
	if err != nil {
		return err
	}
	named := map[string]json.RawMessage{"method": json.RawMessage(strconv.Quote(name))}
	if err := json.Unmarshal(fields, &named); err != nil {
		return err
	}
	raw, err := json.Marshal(named)
	r.MethodsRaw = append(r.MethodsRaw, raw)
	return err
}

// Name implements [gateway.Rail].
func (*Rail) Name() string { return "mpp" }

// Interface guards
var (
	_ gateway.SignInRail    = (*Rail)(nil)
	_ gateway.Offerer       = (*Rail)(nil)
	_ caddy.Provisioner     = (*Rail)(nil)
	_ caddyfile.Unmarshaler = (*Rail)(nil)
)
