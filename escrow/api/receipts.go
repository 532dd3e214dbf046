package api

import (
	"encoding/base64"
	"encoding/json"
	"time"
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

func getReceiptKeys(r *request, _ *none) (keySetOut, error) {
	public, id, err := r.book.ReceiptKey(r.Context())
	return keySetOut{Keys: []publicKeyOut{{
		KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public), ID: id, Use: "sig", Algorithm: "EdDSA",
	}}}, err
}
