package x402_test

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

const (
	asset = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"
	payTo = "0x1111111111111111111111111111111111111111"
)

// chain is a facilitator, and the chain behind it: it checks signatures (EIP-712, EIP-3009), and moves each authorization once.
type chain struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	verified int
	asked    int // to settle
	used     map[string]bool
	settled  *big.Int
	fault    string // what it does next: down, refuse, lose (settles, but does not answer), late (names a transaction that has not ended)
}

type transfer struct {
	From, To, Value, ValidAfter, ValidBefore, Nonce string
}

func openChain(t testing.TB) *chain {
	c := &chain{t: t, used: make(map[string]bool), settled: new(big.Int)}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *chain) set(fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

func (c *chain) counts() (verified, asked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.verified, c.asked
}

func (c *chain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var order struct {
		PaymentPayload struct {
			Payload struct {
				Signature     string
				Authorization transfer
			}
		}
		PaymentRequirements struct {
			Network, Asset, PayTo     string
			Amount, MaxAmountRequired string
		}
	}
	text, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(text, &order); err != nil {
		c.t.Errorf("the facilitator is asked %s: %v", text, err)
	}
	signed, need := order.PaymentPayload.Payload, order.PaymentRequirements
	a := signed.Authorization
	c.mu.Lock()
	defer c.mu.Unlock()
	reason := ""
	switch now := big.NewInt(time.Now().Unix()); {
	case !strings.EqualFold(signer(digest(a), signed.Signature), a.From):
		reason = "invalid_exact_evm_payload_signature"
	case !strings.EqualFold(a.To, need.PayTo) || !strings.EqualFold(need.PayTo, payTo) || !strings.EqualFold(need.Asset, asset):
		reason = "invalid_exact_evm_payload_recipient_mismatch"
	case a.Value != need.Amount+need.MaxAmountRequired:
		reason = "invalid_exact_evm_payload_authorization_value"
	case number(a.ValidBefore).Cmp(now) <= 0 || number(a.ValidAfter).Cmp(now) > 0:
		reason = "invalid_exact_evm_payload_authorization_valid_before"
	case c.used[a.From+a.Nonce]:
		reason = "invalid_exact_evm_nonce_already_used"
	}
	answer := map[string]any{"isValid": reason == "", "payer": a.From}
	if reason != "" {
		answer["invalidReason"] = reason
	}
	if c.fault == "down" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/verify" {
		c.verified++
		writeJSON(w, answer)
		return
	}
	c.asked++
	answer = map[string]any{"success": reason == "", "transaction": "", "network": need.Network, "payer": a.From}
	if c.fault == "refuse" {
		reason = "insufficient_funds"
	}
	if c.fault == "late" {
		reason, answer["transaction"] = "transaction_confirmation_timed_out", "0xABCD"
	}
	if reason != "" {
		answer["success"], answer["errorReason"] = false, reason
		writeJSON(w, answer)
		return
	}
	c.used[a.From+a.Nonce] = true
	c.settled.Add(c.settled, number(a.Value))
	if c.fault == "lose" {
		panic(http.ErrAbortHandler)
	}
	answer["transaction"] = "0x" + hex.EncodeToString(keccak([]byte(a.From+a.Nonce)))
	writeJSON(w, answer)
}

func writeJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func number(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 10)
	return n
}

func keccak(parts ...[]byte) []byte {
	hash := sha3.NewLegacyKeccak256()
	for _, part := range parts {
		hash.Write(part)
	}
	return hash.Sum(nil)
}

// word is a value of 32 bytes, from decimal or hexadecimal digits.
func word(s string) []byte {
	n, ok := new(big.Int).SetString(s, 0)
	if !ok {
		return make([]byte, 32)
	}
	return n.FillBytes(make([]byte, 32))
}

// digest is what the payer of a transfer signs.
func digest(a transfer) []byte {
	domain := keccak(
		keccak([]byte("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")),
		keccak([]byte("USD Coin")), keccak([]byte("2")), word("8453"), word(asset),
	)
	message := keccak(
		keccak([]byte("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")),
		word(a.From), word(a.To), word(a.Value), word(a.ValidAfter), word(a.ValidBefore), word(a.Nonce),
	)
	return keccak([]byte{0x19, 0x01}, domain, message)
}

// signer returns the address that has made a signature.
func signer(digest []byte, signature string) string {
	raw, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(raw) != 65 {
		return ""
	}
	key, _, err := ecdsa.RecoverCompact(append([]byte{raw[64]}, raw[:64]...), digest)
	if err != nil {
		return ""
	}
	return address(key)
}

func address(key *secp256k1.PublicKey) string {
	return "0x" + hex.EncodeToString(keccak(key.SerializeUncompressed()[1:])[12:])
}

func sign(key *secp256k1.PrivateKey, a transfer) string {
	compact := ecdsa.SignCompact(key, digest(a), false)
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}
