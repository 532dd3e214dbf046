package x402

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

// The extensions of version 2 that the rail offers.
// https://github.com/coinbase/x402/blob/main/specs/x402-specification-v2.md#51-paymentrequired-schema
const (
	extensionIdentifier = "payment-identifier"
	extensionSignIn     = "sign-in-with-x"
)

// identifierSchema is the one of the specification.
// https://github.com/coinbase/x402/blob/main/specs/extensions/payment_identifier.md
const identifierSchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"required":{"type":"boolean"},` +
	`"id":{"type":"string","minLength":16,"maxLength":128,"pattern":"^[a-zA-Z0-9_-]+$"}},"required":["required"]}`

// signInSchema is the one of the specification.
// https://github.com/coinbase/x402/blob/main/specs/extensions/sign-in-with-x.md
const signInSchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"domain":{"type":"string"},` +
	`"address":{"type":"string"},"statement":{"type":"string"},"uri":{"type":"string","format":"uri"},"version":{"type":"string"},` +
	`"chainId":{"type":"string"},"type":{"type":"string"},"nonce":{"type":"string"},"issuedAt":{"type":"string","format":"date-time"},` +
	`"expirationTime":{"type":"string","format":"date-time"},"notBefore":{"type":"string","format":"date-time"},"requestId":{"type":"string"},` +
	`"resources":{"type":"array","items":{"type":"string","format":"uri"}},"signature":{"type":"string"}},` +
	`"required":["domain","address","uri","version","chainId","type","nonce","issuedAt","signature"]}`

// extensions returns what an offer for a URL says about extensions.
func (r *Rail) extensions(url string, now time.Time) map[string]any {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails
	return map[string]any{
		extensionIdentifier: map[string]any{"info": map[string]any{"required": false}, "schema": json.RawMessage(identifierSchema)},
		extensionSignIn: map[string]any{
			"info": map[string]any{
				"domain": hostOf(url), "uri": url, "version": "1", "nonce": hex.EncodeToString(nonce), "statement": statement, "resources": []string{url},
				"issuedAt": now.UTC().Format(timeForm), "expirationTime": now.Add(signInFor).UTC().Format(timeForm),
			},
			"supportedChains": []map[string]string{{"chainId": r.Network, "type": "eip191"}},
			"schema":          json.RawMessage(signInSchema),
		},
	}
}

// hostOf returns the host of a URL as urls of calls are written.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// identifierForm is the form of a payment's identifier, by the specification.
var identifierForm = regexp.MustCompile(`^[a-zA-Z0-9_-]{16,128}$`)

// identifier returns the identifier that the payer has given to a payment; empty if it gave none.
func (p payment) identifier() (string, error) {
	raw, found := p.Extensions[extensionIdentifier]
	if !found {
		return "", nil
	}
	var extension struct {
		Info struct {
			ID *string `json:"id"`
		} `json:"info"`
	}
	if err := json.Unmarshal(raw, &extension); err != nil {
		return "", refuse("invalid_payload", "the extension payment-identifier has not the form of the specification")
	}
	if extension.Info.ID == nil {
		return "", nil // the client has sent back what it was offered
	}
	if !identifierForm.MatchString(*extension.Info.ID) {
		return "", refuse("invalid_payload", "the payment's identifier must have 16 to 128 letters, digits, hyphens and underscores")
	}
	return *extension.Info.ID, nil
}
