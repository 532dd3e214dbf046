package api

import (
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// receipt is the content of a receipt: the charge at the time when the receipt is requested.
type receipt struct {
	chargeOut
	IssuedAt time.Time `json:"issued_at"`
}

type keySetOut struct {
	Keys []publicKeyOut `json:"keys"`
}

// publicKeyOut is a public key as a JWK (RFC 8037).
type publicKeyOut struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
}

func receiptRoutes() []route {
	return []route{
		get("/charges/{id}", "getCharge", "What a metered request cost, and why, with a signed receipt", getCharge),
		get("/identity-secret", "getIdentitySecret", "The secret with which a payee verifies who calls its upstream", getIdentitySecret),
		get("/receipt-keys", "getReceiptKeys", "The public keys of receipts, as a JWK set", getReceiptKeys).open(),
	}
}

func getCharge(r *request, in *byID) (chargeOut, error) {
	c, err := r.book.Charge(r.Context(), r.by, in.ID)
	if err != nil {
		return chargeOut{}, err
	}
	out := chargeAnswer(r.book.Currency(), r.by)(c)
	content, err := json.Marshal(receipt{out, r.book.Now()})
	if err != nil {
		return chargeOut{}, err
	}
	out.Receipt, err = r.book.Sign(r.Context(), content)
	return out, err
}

type identitySecretOut struct {
	AgentID string `json:"agent_id"`
	Secret  string `json:"secret" jsonschema:"verifies, as a secret of Standard Webhooks, the header Tallygate-Payer of requests from a meter with identify upstream signed"`
}

func getIdentitySecret(r *request, in *ofAgent) (identitySecretOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return identitySecretOut{}, err
	}
	if r.by.ReadOnly {
		return identitySecretOut{}, &escrow.Refusal{Outcome: escrow.Forbidden, Detail: "this key is read-only: it may not see secrets"}
	}
	secret, err := r.book.IdentitySecret(r.Context(), agent)
	return identitySecretOut{AgentID: agent, Secret: secret}, err
}

func getReceiptKeys(r *request, _ *none) (keySetOut, error) {
	public, id, err := r.book.ReceiptKey(r.Context())
	return keySetOut{Keys: []publicKeyOut{{
		KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public), ID: id, Use: "sig", Algorithm: "EdDSA",
	}}}, err
}
