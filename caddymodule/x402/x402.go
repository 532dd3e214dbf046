// Package x402 is a Caddy module for payments by x402, versions 1 and 2: a caller without an account pays for a metered call with a signed
// transfer of a stablecoin. Import it for its side effects, in a Caddy build that has package caddymodule. This Caddyfile uses it:
//
//	{
//		tallygate {
//			rail x402 {
//				facilitator https://facilitator.example
//				network eip155:8453
//				asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913
//				pay_to 0x1111111111111111111111111111111111111111
//				top_up 0.10
//			}
//		}
//	}
//
// It offers the scheme exact, which is a transfer by EIP-3009. The facilitator checks signatures and balances, and sends transactions; this
// package holds no private key, and reads the chain only to find out what became of a payment, if the config names a node. See https://github.com/coinbase/x402/tree/main/specs.
package x402

import (
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

func init() { caddy.RegisterModule(Rail{}) }

// Rail takes payments by x402. One unit of the asset is one unit of the ledger's currency.
type Rail struct {
	// Facilitator is the URL of the server that verifies and settles payments.
	Facilitator string `json:"facilitator"`
	// FacilitatorHeaders are headers for the facilitator, such as Authorization. Write secrets as placeholders, such as {env.FACILITATOR_AUTH}.
	FacilitatorHeaders map[string]string `json:"facilitator_headers,omitempty"`
	// Network is the chain, by its CAIP-2 name: eip155: and the chain's id.
	Network string `json:"network"`
	// Asset is the address of the token's contract, which must implement EIP-3009.
	Asset string `json:"asset"`
	// Decimals is how many decimals the asset has. Default: 6, as USDC has.
	Decimals *int `json:"decimals,omitempty"`
	// DomainName and DomainVersion are the name and the version of the asset in signatures (EIP-712), as its contract has them. Default: those
	// of USDC on most chains, "USD Coin" and "2".
	DomainName    string `json:"domain_name,omitempty"`
	DomainVersion string `json:"domain_version,omitempty"`
	// PayTo is the operator's address, which gets the money.
	PayTo string `json:"pay_to"`
	// TopUp is how much a caller is asked to pay, or more if it is known that the call needs more. What the call leaves stays as credit.
	TopUp string `json:"top_up"`
	// RPC is the URL of a node of the chain (JSON-RPC). If the facilitator does not say that a payment was settled, the chain is asked for it.
	// Write a URL that has a secret as a placeholder. Default: none, and what the facilitator does not say stays unknown.
	RPC string `json:"rpc,omitempty"`

	client  facilitator
	node    *node // nil if there is none
	decimal int
	topUp   *big.Int // in the asset's smallest units
	v1      string   // the network's name in version 1; empty if it has none
}

// networksV1 are the names that version 1 has for chains.
// https://github.com/coinbase/x402/blob/main/typescript/packages/legacy/x402/src/types/shared/network.ts
var networksV1 = map[string]string{
	"eip155:8453": "base", "eip155:84532": "base-sepolia", "eip155:137": "polygon", "eip155:80002": "polygon-amoy", "eip155:43114": "avalanche",
	"eip155:43113": "avalanche-fuji", "eip155:2741": "abstract", "eip155:11124": "abstract-testnet", "eip155:1329": "sei",
	"eip155:1328": "sei-testnet", "eip155:4689": "iotex", "eip155:3338": "peaq",
}

var (
	networkForm = regexp.MustCompile(`^eip155:[1-9][0-9]{0,18}$`)
	addressForm = regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)
)

const (
	defaultDecimals = 6
	maxDecimals     = 18
)

// CaddyModule implements caddy.Module.
func (Rail) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.rails.x402", New: func() caddy.Module { return new(Rail) }}
}

// Provision checks the config.
func (r *Rail) Provision(caddy.Context) error {
	replacer := caddy.NewReplacer()
	for _, text := range []*string{&r.Facilitator, &r.Network, &r.Asset, &r.PayTo, &r.TopUp, &r.DomainName, &r.DomainVersion, &r.RPC} {
		*text = replacer.ReplaceAll(*text, "")
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("rail x402: %w", err)
	}
	headers := make(map[string]string)
	for name, value := range r.FacilitatorHeaders {
		headers[name] = replacer.ReplaceAll(value, "")
	}
	r.client = newFacilitator(r.Facilitator, headers)
	if r.RPC != "" {
		r.node = &node{r.RPC, r.client.client}
	}
	return nil
}

func (r *Rail) check() error {
	u, err := url.Parse(r.Facilitator)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("facilitator %q: expected a URL such as https://facilitator.example", r.Facilitator)
	}
	if u, err := url.Parse(r.RPC); r.RPC != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("rpc: expected a URL such as https://node.example") // it may have a secret, so it is not named
	}
	if !networkForm.MatchString(r.Network) {
		return fmt.Errorf("network %q: expected eip155: and the id of a chain, such as eip155:8453", r.Network)
	}
	r.v1 = networksV1[r.Network]
	for word, address := range map[string]*string{"asset": &r.Asset, "pay_to": &r.PayTo} {
		if !addressForm.MatchString(*address) {
			return fmt.Errorf("%s %q: expected an address, 0x and 40 hexadecimal digits", word, *address)
		}
	}
	if r.decimal = defaultDecimals; r.Decimals != nil {
		r.decimal = *r.Decimals
	}
	if r.decimal < 0 || r.decimal > maxDecimals {
		return fmt.Errorf("decimals %d: expected 0 to %d", r.decimal, maxDecimals)
	}
	if r.DomainName == "" && r.DomainVersion == "" {
		r.DomainName, r.DomainVersion = "USD Coin", "2"
	}
	amount, err := ledger.ParseAmount(r.TopUp)
	if err != nil || amount <= 0 {
		return fmt.Errorf("top_up %q: expected an amount above zero, such as 0.10", r.TopUp)
	}
	r.topUp = amount.Minor(r.decimal)
	if back, exact := ledger.FromMinor(r.topUp, r.decimal); !exact || back != amount {
		return fmt.Errorf("top_up %s: the asset has only %d decimals", r.TopUp, r.decimal)
	}
	return nil
}

// UnmarshalCaddyfile reads
//
//	x402 {
//		facilitator URL {
//			header NAME VALUE
//		}
//		network eip155:CHAIN
//		asset ADDRESS [DECIMALS]
//		domain NAME VERSION
//		pay_to ADDRESS
//		top_up A
//		rpc URL
//	}
func (r *Rail) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("unexpected %q: 'rail x402' takes a block only", d.Val())
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		if seen[word] {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := r.unmarshalWord(d, word); err != nil {
			return err
		}
	}
	for _, word := range []string{"facilitator", "network", "asset", "pay_to", "top_up"} {
		if !seen[word] {
			return d.Errf("'rail x402' has no %s", word)
		}
	}
	return nil
}

func (r *Rail) unmarshalWord(d *caddyfile.Dispenser, word string) error {
	one := func(into *string) error {
		if !d.Args(into) || d.NextArg() {
			return d.Errf("'%s' takes one word", word)
		}
		return nil
	}
	switch word {
	case "facilitator":
		if err := one(&r.Facilitator); err != nil {
			return err
		}
		return r.unmarshalHeaders(d)
	case "network":
		return one(&r.Network)
	case "pay_to":
		return one(&r.PayTo)
	case "top_up":
		return one(&r.TopUp)
	case "rpc":
		return one(&r.RPC)
	case "domain":
		if !d.Args(&r.DomainName, &r.DomainVersion) || d.NextArg() {
			return d.Err("'domain' takes the asset's name and version in signatures, such as 'domain \"USD Coin\" 2'")
		}
		return nil
	case "asset":
		args := d.RemainingArgs()
		if len(args) != 1 && len(args) != 2 {
			return d.Err("'asset' takes an address, and the number of decimals if it is not 6")
		}
		if r.Asset = args[0]; len(args) == 2 {
			decimals, err := strconv.Atoi(args[1])
			if err != nil {
				return d.Errf("asset: %q is not a number of decimals", args[1])
			}
			r.Decimals = &decimals
		}
		return nil
	default:
		return d.Errf("unrecognized subdirective %q of rail x402: expected one of facilitator, network, asset, domain, pay_to, top_up, rpc", word)
	}
}

func (r *Rail) unmarshalHeaders(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var name, value string
		if d.Val() != "header" || !d.Args(&name, &value) || d.NextArg() {
			return d.Err("expected 'header NAME VALUE'")
		}
		if r.FacilitatorHeaders == nil {
			r.FacilitatorHeaders = make(map[string]string)
		}
		r.FacilitatorHeaders[name] = value
	}
	return nil
}

// Name implements [gateway.Rail].
func (*Rail) Name() string { return "x402" }

// maxWait is how long after its signature a payment may be settled, as callers are told.
const maxWait = 5 * time.Minute

// same reports whether two addresses are the same one. Their case is only a checksum.
func same(a, b string) bool { return strings.EqualFold(a, b) }

// Interface guards
var (
	_ gateway.SignInRail    = (*Rail)(nil)
	_ gateway.ToolRail      = (*Rail)(nil)
	_ caddy.Provisioner     = (*Rail)(nil)
	_ caddyfile.Unmarshaler = (*Rail)(nil)
)
