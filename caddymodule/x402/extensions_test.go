package x402_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// named gives an identifier to a payment.
func named(t testing.TB, payment string, id any) string {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(payment)
	must(t, err)
	var p map[string]any
	must(t, json.Unmarshal(text, &p))
	p["extensions"] = map[string]any{"payment-identifier": map[string]any{"info": map[string]any{"required": false, "id": id}, "schema": map[string]any{}}}
	return encode(t, p)
}

func TestAPaymentIdentifierIsPaidOnce(t *testing.T) {
	s := openShop(t)
	payer, other := newPayer(t), newPayer(t)
	offer, extensions := s.required("/")
	if extensions["payment-identifier"] == nil {
		t.Errorf("the offer has the extensions %v", extensions)
	}
	const id, next = "pay_7d5d747be160e280504c099d984bcfe0", "pay_0000000000000001"
	first := named(t, pay(t, payer, offer, nil), id)
	want(t, "the first payment", s.get("/", "Payment-Signature", first).code(), "200")
	verified, _ := s.chain.counts()
	want(t, "another payment", s.get("/", "Payment-Signature", named(t, pay(t, payer, offer, nil), id)).code(), "409 idempotency_conflict")
	again := s.get("/", "Payment-Signature", first)
	want(t, "the first payment again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), again.body), "200trueresults")
	after, asked := s.chain.counts()
	want(t, "verified and settled since, and balance", fmt.Sprint(after-verified, asked, " ", s.balance(payer)), "0 1 0.06")
	want(t, "the identifier of another payer", s.get("/", "Payment-Signature", named(t, pay(t, other, offer, nil), id)).code(), "200")

	s.chain.set("refuse")
	want(t, "not settled", s.get("/", "Payment-Signature", named(t, pay(t, payer, offer, nil), next)).code(), "402 payment_refused insufficient_funds")
	s.chain.set("")
	want(t, "its identifier is free", s.get("/", "Payment-Signature", named(t, pay(t, payer, offer, nil), next)).code(), "200")
	for _, wrong := range []any{"short", strings.Repeat("x", 129), "has spaces in the middle", 7} {
		want(t, fmt.Sprint(wrong), s.get("/", "Payment-Signature", named(t, pay(t, payer, offer, nil), wrong)).code(), "402 payment_refused invalid_payload")
	}
	want(t, "settled", s.chain.settled, 300_000)
}

// signIn signs an offer's message with a wallet, as changed by change before the signature.
func signIn(t testing.TB, payer *secp256k1.PrivateKey, extensions map[string]any, change func(info map[string]any)) string {
	t.Helper()
	text, err := json.Marshal(extensions["sign-in-with-x"].(map[string]any)["info"])
	must(t, err)
	info := make(map[string]any)
	must(t, json.Unmarshal(text, &info))
	info["address"], info["chainId"], info["type"] = checksum(address(payer.PubKey())), "eip155:8453", "eip191"
	if change != nil {
		change(info)
	}
	message := fmt.Sprintf("%s wants you to sign in with your Ethereum account:\n%s\n\n%s\n\nURI: %s\nVersion: 1\nChain ID: 8453\nNonce: %s\nIssued At: %s\nExpiration Time: %s\nResources:\n- %s",
		info["domain"], info["address"], info["statement"], info["uri"], info["nonce"], info["issuedAt"], info["expirationTime"], info["resources"].([]any)[0])
	compact := ecdsa.SignCompact(payer, keccak([]byte(fmt.Sprintf("\x19Ethereum Signed Message:\n%d%s", len(message), message))), false)
	info["signature"] = "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
	return encode(t, info)
}

// checksum writes an address as EIP-55 has it.
func checksum(address string) string {
	var out strings.Builder
	sum := hex.EncodeToString(keccak([]byte(address[2:])))
	for i, c := range address[2:] {
		if sum[i] >= '8' {
			c = []rune(strings.ToUpper(string(c)))[0]
		}
		out.WriteRune(c)
	}
	return "0x" + out.String()
}

func TestWhoHasSignedInSpendsTheCredit(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	offer, extensions := s.required("/search")
	want(t, "before anything was paid", s.get("/search", "Sign-In-With-X", signIn(t, payer, extensions, nil)).code(), "402 payment_required")
	both := s.get("/search", "Payment-Signature", pay(t, payer, offer, nil), "Sign-In-With-X", signIn(t, payer, extensions, nil))
	want(t, "a payment and a proof", fmt.Sprint(both.code(), both.Header.Get("Tallygate-Balance")), "2000.06")

	_, extensions = s.required("/search")
	proof := signIn(t, payer, extensions, nil)
	got := s.get("/search", "Sign-In-With-X", proof)
	want(t, "signed in", fmt.Sprint(got.code(), got.Header.Get("Tallygate-Balance"), got.Header.Get("Authorization")), "2000.02")
	again := s.get("/search", "Sign-In-With-X", proof)
	want(t, "the same request again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), s.balance(payer)), "200true0.02")
	want(t, "another request", s.get("/search?q=2", "Sign-In-With-X", proof).code(), "409 idempotency_conflict")
	_, extensions = s.required("/search")
	want(t, "too little is left", s.get("/search", "Sign-In-With-X", signIn(t, payer, extensions, nil)).code(), "402 insufficient_funds")
	_, asked := s.chain.counts()
	want(t, "settled", asked, 1)
}

func TestAProofServesOneRequest(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	want(t, "paid", s.get("/", "Payment-Signature", pay(t, payer, s.offer("/"), nil)).code(), "200")
	_, extensions := s.required("/")
	proof := signIn(t, payer, extensions, nil)
	want(t, "a call with a name", s.get("/", "Sign-In-With-X", proof, "Idempotency-Key", "one").code(), "200")
	_, extensions = s.required("/")
	want(t, "the same call by another proof", s.get("/", "Sign-In-With-X", signIn(t, payer, extensions, nil), "Idempotency-Key", "one").code(), "409 idempotency_conflict")
	want(t, "another call by the same proof", s.get("/", "Sign-In-With-X", proof, "Idempotency-Key", "two").code(), "402 payment_refused used")
	want(t, "charged", s.balance(payer), "0.02")
}

func TestProofsThatAreRefused(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	want(t, "paid", s.get("/", "Payment-Signature", pay(t, payer, s.offer("/"), nil)).code(), "200")
	_, extensions := s.required("/")
	for _, test := range []struct{ what, proof, code string }{
		{"no Base64", "%%%", "invalid_siwx"},
		{"too long", strings.Repeat("A", 17<<10), "invalid_siwx"},
		{"another's address", signIn(t, newPayer(t), extensions, func(info map[string]any) { info["address"] = checksum(address(payer.PubKey())) }), "invalid_siwx_signature"},
		{"another domain", signIn(t, payer, extensions, func(info map[string]any) { info["domain"] = "shop.example" }), "invalid_siwx_domain_mismatch"},
		{"another page", signIn(t, payer, extensions, func(info map[string]any) { info["uri"] = s.url + "/other" }), "invalid_siwx_uri_mismatch"},
		{"another chain", signIn(t, payer, extensions, func(info map[string]any) { info["chainId"] = "eip155:1" }), "invalid_siwx_unsupported_chain"},
		{"a line break", signIn(t, payer, extensions, func(info map[string]any) { info["statement"] = "a\nb" }), "invalid_siwx"},
		{"too old", signIn(t, payer, extensions, func(info map[string]any) {
			info["issuedAt"] = time.Now().Add(-6 * time.Minute).UTC().Format(time.RFC3339)
		}), "invalid_siwx_issued_at"},
		{"from the future", signIn(t, payer, extensions, func(info map[string]any) {
			info["issuedAt"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		}), "invalid_siwx_issued_at"},
		{"expired", signIn(t, payer, extensions, func(info map[string]any) {
			info["expirationTime"] = time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
		}), "invalid_siwx_expired"},
	} {
		want(t, test.what, s.get("/", "Sign-In-With-X", test.proof).code(), "402 payment_refused "+test.code)
	}
	want(t, "nothing is charged", s.balance(payer), "0.06")
}
