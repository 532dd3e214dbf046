package x402_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	// fault is what it does next: down, refuse, late (names a transaction that has not ended), front-run (somebody else is faster, so it refuses);
	// or it settles, and does not answer (lose), kills the server (kill), answers twice (garble), or answers only when nobody waits for it any more (slow).
	fault  string
	blind  bool       // its node does not answer
	sent   []transfer // the transfers that the chain has
	kill   func()
	asking chan struct{}   // gets a value when a slow facilitator is asked to settle
	hidden map[string]bool // transfers to somebody else that have used up a nonce
}

type transfer struct {
	From, To, Value, ValidAfter, ValidBefore, Nonce string
}

func openChain(t testing.TB) *chain {
	c := &chain{t: t, used: make(map[string]bool), settled: new(big.Int), asking: make(chan struct{}, 1), hidden: make(map[string]bool)}
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
	if r.URL.Path == "/rpc" {
		c.serveNode(w, r)
		return
	}
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
	if c.fault == "slow" {
		c.asking <- struct{}{}
		<-r.Context().Done()
	}
	c.move(a)
	if c.fault == "kill" {
		c.kill()
	}
	if c.fault == "kill" || c.fault == "lose" || c.fault == "slow" {
		panic(http.ErrAbortHandler)
	}
	answer["transaction"] = transactionOf(a)
	if c.fault == "front-run" {
		answer["success"], answer["errorReason"], answer["transaction"] = false, "invalid_exact_evm_nonce_already_used", ""
	}
	writeJSON(w, answer)
	if c.fault == "garble" {
		writeJSON(w, answer)
	}
}

// move moves the money of an authorization.
func (c *chain) move(a transfer) {
	c.used[a.From+a.Nonce] = true
	c.sent = append(c.sent, a)
	c.settled.Add(c.settled, number(a.Value))
}

// paid returns what the chain has moved.
func (c *chain) paid() *big.Int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return new(big.Int).Set(c.settled)
}

func transactionOf(a transfer) string {
	return "0x" + hex.EncodeToString(keccak([]byte(a.From+a.Nonce)))
}

// newestBlock is the number of the newest block.
const newestBlock = "0x2710"

// serveNode is a node of the chain.
func (c *chain) serveNode(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	serveRPC(c.t, w, r, c.blind, c.tell)
}

// serveRPC answers a question of JSON-RPC, or does not if the node is blind.
func serveRPC(t testing.TB, w http.ResponseWriter, r *http.Request, blind bool, tell func(method string, params []json.RawMessage) (any, error)) {
	var question struct {
		Method string
		Params []json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		t.Errorf("the node is asked: %v", err)
	}
	if blind {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	found, err := tell(question.Method, question.Params)
	if err != nil {
		t.Errorf("the node is asked %s %s: %v", question.Method, question.Params, err)
	}
	writeJSON(w, object{"jsonrpc": "2.0", "id": 1, "result": found})
}

func (c *chain) tell(method string, params []json.RawMessage) (any, error) {
	switch method {
	case "eth_getBlockByNumber":
		return map[string]string{"number": newestBlock, "timestamp": fmt.Sprintf("0x%x", time.Now().Unix())}, nil
	case "eth_call":
		var call struct{ To, Data string }
		if err := json.Unmarshal(params[0], &call); err != nil || call.To != asset || len(call.Data) != 10+128 || call.Data[:10] != "0xe94a0102" {
			return nil, fmt.Errorf("a call of %+v: %w", call, err)
		}
		state := 0
		if c.used["0x"+call.Data[34:74]+"0x"+call.Data[74:]] {
			state = 1
		}
		return fmt.Sprintf("0x%064x", state), nil
	case "eth_getLogs":
		var filter struct {
			Address, FromBlock, ToBlock string
			Topics                      []string
		}
		if err := json.Unmarshal(params[0], &filter); err != nil || filter.Address != asset || filter.FromBlock != "0x1388" || filter.ToBlock != newestBlock {
			return nil, fmt.Errorf("logs of %+v: %w", filter, err)
		}
		found := []object{}
		for _, a := range c.sent {
			if use := events(a)[0]; fmt.Sprint(use["topics"]) == fmt.Sprint(filter.Topics) {
				found = append(found, use)
			}
		}
		return found, nil
	case "eth_getTransactionReceipt":
		var transaction string
		if err := json.Unmarshal(params[0], &transaction); err != nil {
			return nil, err
		}
		for i, a := range c.sent {
			if transactionOf(a) != transaction {
				continue
			}
			logs := events(a)
			if c.hidden[a.From+a.Nonce] { // the payer has sent it together with an honest payment
				logs = append(events(c.sent[i-1]), logs...)
				logs = append(logs, events(c.sent[i-1])...)
			}
			return object{"status": "0x1", "logs": logs}, nil
		}
	}
	return nil, errors.New("it is not known")
}

type object = map[string]any

// events returns what the contract of the asset writes down when it moves an authorization's money.
func events(a transfer) []object {
	from, to := "0x"+strings.Repeat("0", 24)+a.From[2:], "0x"+strings.Repeat("0", 24)+a.To[2:]
	return []object{
		{"address": asset, "transactionHash": transactionOf(a), "data": "0x", "topics": []string{"0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5", from, a.Nonce}},
		{"address": asset, "transactionHash": transactionOf(a), "data": fmt.Sprintf("0x%064x", number(a.Value)), "topics": []string{"0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef", from, to}},
	}
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
