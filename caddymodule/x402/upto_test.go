package x402_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/tallygate/tallygate/internal/commandtest"
)

const (
	permit2   = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
	proxyUpTo = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
	settler   = "0x2222222222222222222222222222222222222222"
)

// permitted is what a payer signs for the scheme upto.
type permitted struct {
	Permitted struct {
		Token  string `json:"token"`
		Amount string `json:"amount"`
	} `json:"permitted"`
	From     string `json:"from"`
	Spender  string `json:"spender"`
	Nonce    string `json:"nonce"`
	Deadline string `json:"deadline"`
	Witness  struct {
		To          string `json:"to"`
		Facilitator string `json:"facilitator"`
		ValidAfter  string `json:"validAfter"`
	} `json:"witness"`
}

// digestOf is what the payer of a permit signs (EIP-712).
func digestOf(p permitted) []byte {
	const token, witness = "TokenPermissions(address token,uint256 amount)", "Witness(address to,address facilitator,uint256 validAfter)"
	domain := keccak(
		keccak([]byte("EIP712Domain(string name,uint256 chainId,address verifyingContract)")), keccak([]byte("Permit2")), word("8453"), word(permit2),
	)
	message := keccak(
		keccak([]byte("PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)"+token+witness)),
		keccak(keccak([]byte(token)), word(p.Permitted.Token), word(p.Permitted.Amount)),
		word(p.Spender), word(p.Nonce), word(p.Deadline),
		keccak(keccak([]byte(witness)), word(p.Witness.To), word(p.Witness.Facilitator), word(p.Witness.ValidAfter)),
	)
	return keccak([]byte{0x19, 0x01}, domain, message)
}

// permits is a facilitator of the scheme upto, and the chain behind it: it checks signatures and balances, and settles each nonce once.
type permits struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	used    map[string]bool
	money   map[string]*big.Int // of payers; those that are not here have enough
	settled []string            // the amounts that were moved
	asked   int                 // to settle
	kill    func()
	fault   string        // what it does next: down, refuse, lose (settles, but does not answer), kill (settles, and kills the server), late, other (says that it has moved another amount), poor
	sent    []object      // the transactions of its chain
	blind   bool          // the chain's node does not answer
	hides   bool          // it does not say that it supports the scheme
	told    chan struct{} // closed when it has said what it supports
	tell    sync.Once
}

func (c *permits) set(fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

// orders returns how often it was asked to settle.
func (c *permits) orders() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func (c *permits) moved() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.settled, " ")
}

func (c *permits) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path == "/rpc" {
		serveRPC(c.t, w, r, c.blind, c.answer)
		return
	}
	if r.URL.Path == "/supported" {
		kinds := []map[string]any{{"x402Version": 2, "scheme": "exact", "network": "eip155:8453"}}
		if !c.hides {
			kinds = append(kinds, map[string]any{"x402Version": 2, "scheme": "upto", "network": "eip155:8453", "extra": map[string]any{"facilitatorAddress": settler}})
		}
		writeJSON(w, map[string]any{"kinds": kinds})
		c.tell.Do(func() { close(c.told) })
		return
	}
	var order struct {
		PaymentPayload struct {
			Accepted struct{ Scheme, Amount string }
			Payload  struct {
				Signature            string
				Permit2Authorization permitted
			}
		}
		PaymentRequirements struct{ Scheme, Network, Asset, PayTo, Amount string }
	}
	text, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(text, &order); err != nil {
		c.t.Errorf("the facilitator is asked %s: %v", text, err)
	}
	p, need := order.PaymentPayload.Payload.Permit2Authorization, order.PaymentRequirements
	reason := c.check(p, order.PaymentPayload.Payload.Signature, need.Amount, r.URL.Path == "/verify")
	if need.Scheme != "upto" || order.PaymentPayload.Accepted.Scheme != "upto" || need.Network != "eip155:8453" || need.PayTo != payTo {
		reason = "unsupported_scheme"
	}
	switch {
	case c.fault == "down":
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/verify":
		writeJSON(w, map[string]any{"isValid": reason == "", "invalidReason": reason, "payer": p.From})
	default:
		c.settle(w, p, need.Amount, reason)
	}
}

func (c *permits) check(p permitted, signature, amount string, whole bool) (reason string) {
	now := big.NewInt(time.Now().Unix())
	switch {
	case !strings.EqualFold(signer(digestOf(p), signature), p.From):
		return "invalid_permit2_signature"
	case !strings.EqualFold(p.Witness.Facilitator, settler):
		return "upto_facilitator_mismatch"
	case number(p.Deadline).Cmp(now) <= 0 || number(p.Witness.ValidAfter).Cmp(now) > 0:
		return "permit2_deadline_expired"
	case number(amount).Cmp(number(p.Permitted.Amount)) > 0 || whole && amount != p.Permitted.Amount:
		return "invalid_upto_evm_payload_settlement_exceeds_amount"
	case c.used[p.From+p.Nonce]:
		return "permit2_invalid_nonce"
	case c.money[p.From] != nil && c.money[p.From].Cmp(number(amount)) < 0:
		return "insufficient_funds"
	}
	return ""
}

func (c *permits) settle(w http.ResponseWriter, p permitted, amount, reason string) {
	c.asked++
	answer := map[string]any{"success": false, "transaction": "", "network": "eip155:8453", "payer": p.From}
	switch c.fault {
	case "refuse":
		reason = "insufficient_funds"
	case "late":
		reason, answer["transaction"] = "transaction_confirmation_timed_out", "0xabcd"
	}
	if answer["errorReason"] = reason; reason != "" {
		writeJSON(w, answer)
		return
	}
	c.used[p.From+p.Nonce] = true
	c.settled = append(c.settled, amount)
	c.send(p, proxyUpTo, "0x1", callOf(p, amount))
	if c.fault == "kill" {
		c.kill()
	}
	if c.fault == "lose" || c.fault == "kill" {
		panic(http.ErrAbortHandler)
	}
	answer["success"], answer["amount"], answer["transaction"] = true, amount, c.sent[len(c.sent)-1]["hash"]
	if c.fault == "other" {
		answer["amount"] = "1"
	}
	writeJSON(w, answer)
}

// openPermits opens a shop that sells tokens, with the scheme upto.
func openPermits(t testing.TB, hides bool, more ...string) (*shop, *permits) {
	t.Helper()
	s, c := newPermits(t, hides, more...)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.file), nil)
	must(t, err)
	must(t, caddy.Load(config, true))
	t.Cleanup(func() { must(t, caddy.Stop()) })
	return s, c
}

// newPermits returns such a shop, not opened yet. What its provider answers depends on the path.
func newPermits(t testing.TB, hides bool, more ...string) (*shop, *permits) {
	t.Helper()
	c := &permits{t: t, used: make(map[string]bool), money: make(map[string]*big.Int), hides: hides, told: make(chan struct{})}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	s := &shop{t: t, told: c.told}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		usage := `"usage":{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}`
		body, _ := io.ReadAll(r.Body)
		switch {
		case s.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case strings.Contains(string(body), `"stream":true`):
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\ndata: {\"choices\":[],%s}\n\ndata: [DONE]\n\n", usage)
		case strings.Contains(r.URL.Path, "long"): // more than is kept
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.WriteString(w, strings.Repeat("x", 200<<10))
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}],%s}`, usage)
		}
	}))
	t.Cleanup(provider.Close)
	s.url = "http://" + commandtest.FreeAddress(t)
	s.file = fmt.Sprintf(`{
	admin off
	auto_https off
	log {
		output discard
	}
	tallygate {
		ledger bolt %s
		operator_key %s
		discovery first
		rail x402 {
			facilitator %s
			network eip155:8453
			asset %s
			pay_to %s
			top_up 0.10
			upto
			%s
		}
		tariff test {
			model * {
				input 3 per 1M tokens
				output 15 per 1M tokens
			}
		}
	}
}
%s {
	tallygate
	handle /long {
		meter files {
			price 0.04 per call
		}
		reverse_proxy %[8]s
	}
	handle {
		meter {
			payee llm
			tariff test
			keep_responses 1MiB for 1h
		}
		reverse_proxy %[8]s
	}
}
`, filepath.Join(t.TempDir(), "ledger.db"), operatorKey, c.URL, asset, payTo, strings.ReplaceAll(strings.Join(more, "\n"), "FACILITATOR", c.URL), s.url, provider.Listener.Addr())
	return s, c
}

const (
	chatPath = "/v1/chat/completions"
	chatBody = `{"model":"test-1","max_tokens":500,"messages":[{"role":"user","content":"hello"}]}`
)

func (s *shop) chat(path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	must(s.t, err)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		text = []byte("incomplete")
	}
	return answer{response, string(text)}
}

// offers returns what version 2 accepts.
func (s *shop) offers() (accepts []map[string]any) {
	s.t.Helper()
	text, err := base64.StdEncoding.DecodeString(s.chat(chatPath, chatBody).Header.Get("Payment-Required"))
	must(s.t, err)
	var required struct{ Accepts []map[string]any }
	must(s.t, json.Unmarshal(text, &required))
	return required.Accepts
}

// offerUpTo waits until the scheme upto is offered, which is when the gateway has read that the facilitator supports it.
func (s *shop) offerUpTo() map[string]any {
	s.t.Helper()
	<-s.told
	for {
		if accepts := s.offers(); len(accepts) == 2 {
			return accepts[1]
		}
	}
}

// promise signs a permit for an offer, as changed by change before the signature, and returns the header.
func promise(t testing.TB, payer *secp256k1.PrivateKey, offer map[string]any, change func(*permitted)) string {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	var p permitted
	p.Permitted.Token, p.Permitted.Amount = asset, offer["amount"].(string)
	p.From, p.Spender, p.Nonce = address(payer.PubKey()), proxyUpTo, new(big.Int).SetBytes(nonce).String()
	p.Deadline = fmt.Sprint(time.Now().Add(time.Minute).Unix())
	p.Witness.To, p.Witness.Facilitator, p.Witness.ValidAfter = offer["payTo"].(string), offer["extra"].(map[string]any)["facilitatorAddress"].(string), "0"
	if change != nil {
		change(&p)
	}
	compact := ecdsa.SignCompact(payer, digestOf(p), false)
	signature := "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
	return encode(t, map[string]any{"x402Version": 2, "accepted": offer, "payload": map[string]any{"signature": signature, "permit2Authorization": p}})
}

func TestUpToIsSettledAtWhatWasMetered(t *testing.T) {
	s, c := openPermits(t, false)
	payer := newPayer(t)
	offer := s.offerUpTo()
	want(t, "in the description of the API", strings.Contains(s.get("/openapi.json").body, `"scheme":"upto"`), true)
	want(t, "the offer", fmt.Sprint(offer["scheme"], offer["amount"], offer["extra"].(map[string]any)["facilitatorAddress"]), "upto100000"+settler)
	payment := promise(t, payer, offer, nil)
	first := s.chat(chatPath, chatBody, "Payment-Signature", payment)
	want(t, "served", fmt.Sprint(first.code(), " ", first.Header.Get("Tallygate-Charge"), " ", c.moved(), " ", s.balance(payer)), "200 0.006 6000 0")
	receipt, err := base64.StdEncoding.DecodeString(first.Header.Get("Payment-Response"))
	must(t, err)
	if !strings.Contains(string(receipt), `"amount":"6000"`) || first.Header.Get("Authorization") == "" {
		t.Errorf("the receipt is %s, the key %q", receipt, first.Header.Get("Authorization"))
	}
	again := s.chat(chatPath, chatBody, "Payment-Signature", payment)
	want(t, "the same again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), again.body == first.body, " ", c.moved()), "200truetrue 6000")
	other := s.chat(chatPath, strings.Replace(chatBody, "hello", "more", 1), "Payment-Signature", payment)
	want(t, "with another body", other.code(), "409 idempotency_conflict")
	want(t, "with another path", s.chat("/v1/other", chatBody, "Payment-Signature", payment).code(), "402 payment_refused used")

	s.down.Store(true)
	failed := promise(t, payer, offer, nil)
	want(t, "the provider fails", s.chat(chatPath, chatBody, "Payment-Signature", failed).StatusCode, 502)
	want(t, "then nothing is paid", c.moved(), "6000")
	s.down.Store(false)
	want(t, "the same payment, later", s.chat(chatPath, chatBody, "Payment-Signature", failed).code(), "200")
	want(t, "paid", c.moved(), "6000 6000")

	dear := strings.Replace(chatBody, "500", "20000", 1)
	want(t, "what may cost more than was promised", s.chat(chatPath, dear, "Payment-Signature", promise(t, payer, offer, nil)).StatusCode, 200)
	want(t, "is bounded by the promise", c.moved(), "6000 6000 6000")
}

// TestUpToBeforeAStream: what can't wait for its price is paid at the most before its first byte, and the rest is credit.
func TestUpToBeforeAStream(t *testing.T) {
	s, c := openPermits(t, false)
	payer := newPayer(t)
	offer := s.offerUpTo()
	stream := strings.Replace(chatBody, `"model"`, `"stream":true,"model"`, 1)
	got := s.chat(chatPath, stream, "Payment-Signature", promise(t, payer, offer, nil))
	if !strings.Contains(got.body, "[DONE]") || got.Header.Get("Payment-Response") == "" {
		t.Errorf("a stream: %d %v %s", got.StatusCode, got.Header, got.body)
	}
	want(t, "paid, and left", c.moved()+" "+s.balance(payer), "100000 0.094")
	got = s.chat("/long", "", "Payment-Signature", promise(t, payer, offer, nil))
	want(t, "a long answer", fmt.Sprint(got.StatusCode, len(got.body), got.Header.Get("Payment-Response") != ""), fmt.Sprint(200, 200<<10, true))
	want(t, "paid, and left", c.moved()+" "+s.balance(payer), "100000 100000 0.154")
	c.set("refuse")
	for _, path := range []string{chatPath, "/long"} {
		want(t, "not settled: "+path, s.chat(path, stream, "Payment-Signature", promise(t, payer, offer, nil)).code(), "402 payment_refused insufficient_funds")
	}
	want(t, "nothing more is paid", c.moved()+" "+s.balance(payer), "100000 100000 0.154")
}

func TestFaultsOfUpTo(t *testing.T) {
	s, c := openPermits(t, false)
	payer := newPayer(t)
	offer := s.offerUpTo()
	call := func(payment string) string {
		a := s.chat(chatPath, chatBody, "Payment-Signature", payment)
		if a.StatusCode != 200 && strings.Contains(a.body, "assistant") {
			t.Errorf("served with %d: %s", a.StatusCode, a.body)
		}
		return a.code()
	}
	payment := promise(t, payer, offer, nil)
	c.set("down")
	want(t, "down", call(payment), "503 rail_unavailable none")
	c.set("refuse")
	want(t, "not settled", call(payment), "402 payment_refused insufficient_funds")
	c.set("late")
	want(t, "sent, but not known", call(payment), "503 rail_unavailable unknown")
	want(t, "nothing is booked", s.balance(payer), "0")
	c.set("")
	want(t, "asked again, and booked", call(payment), "402 insufficient_funds")
	want(t, "what was metered is credit, which is less than the call may cost", c.moved()+" "+s.balance(payer), "6000 0.006")
	want(t, "asked once more", call(payment), "402 insufficient_funds")

	for _, fault := range []string{"lose", "other"} {
		lost := promise(t, payer, offer, nil)
		c.set(fault)
		want(t, fault, call(lost), "503 rail_unavailable unknown")
		c.set("")
		want(t, "not known later: "+fault, call(lost), "503 rail_unavailable unknown")
	}
	want(t, "what is not known is not booked", c.moved()+" "+s.balance(payer), "6000 6000 6000 0.006")

	// The payer's money goes elsewhere during the call.
	gone := newPayer(t)
	c.set("refuse")
	want(t, "the money is gone", call(promise(t, gone, offer, nil)), "402 payment_refused insufficient_funds")
	c.set("")
	want(t, "not paid", s.balance(gone), "0")
}

func TestPermitsThatAreRefused(t *testing.T) {
	s, c := openPermits(t, false)
	payer := newPayer(t)
	offer := s.offerUpTo()
	with := func(change func(*permitted)) string { return promise(t, payer, offer, change) }
	for _, test := range []struct{ what, payment, code string }{
		{"another spender", with(func(p *permitted) { p.Spender = payTo }), "invalid_permit2_spender"},
		{"another recipient", with(func(p *permitted) { p.Witness.To = asset }), "invalid_recipient"},
		{"another token", with(func(p *permitted) { p.Permitted.Token = payTo }), "invalid_asset"},
		{"another facilitator", with(func(p *permitted) { p.Witness.Facilitator = payTo }), "upto_facilitator_mismatch"},
		{"less than accepted", with(func(p *permitted) { p.Permitted.Amount = "1" }), "invalid_amount"},
		{"another's money", with(func(p *permitted) { p.From = payTo }), "invalid_permit2_signature"},
		{"expired", with(func(p *permitted) { p.Deadline = "1000" }), "expired"},
		{"no number", with(func(p *permitted) { p.Nonce = "1e9" }), "invalid_payload"},
	} {
		want(t, test.what, s.chat(chatPath, chatBody, "Payment-Signature", test.payment).code(), "402 payment_refused "+test.code)
	}
	exact := s.offers()[0]
	exact["extra"].(map[string]any)["facilitatorAddress"] = settler
	want(t, "a permit for the other scheme", s.chat(chatPath, chatBody, "Payment-Signature", promise(t, payer, exact, nil)).code(), "402 payment_refused invalid_payload")
	want(t, "asked to settle", c.orders(), 0)

	// One number is one payment, however it is written.
	var first permitted
	paid := with(func(p *permitted) { p.Nonce = "255"; first = *p })
	want(t, "paid", s.chat(chatPath, chatBody, "Payment-Signature", paid).code(), "200")
	same := with(func(p *permitted) { *p = first; p.Nonce = "0xff" })
	want(t, "the same nonce, written otherwise", s.chat(chatPath, chatBody, "Payment-Signature", same).code(), "402 payment_refused used")
	want(t, "paid", c.moved(), "6000")
}

// TestPromisesAtTheSameTime: one payment in many requests, and many payments of one payer, at the same time. What is served is paid.
func TestPromisesAtTheSameTime(t *testing.T) {
	s, c := openPermits(t, false)
	payer := newPayer(t)
	offer := s.offerUpTo()
	one := promise(t, payer, offer, nil)
	var wait sync.WaitGroup
	var mu sync.Mutex
	served, codes := map[string]bool{}, map[string]int{}
	for i := range 16 {
		payment, path := one, fmt.Sprintf("%s?session=%d", chatPath, i/4)
		if i%4 == 3 {
			payment = promise(t, payer, offer, nil)
		}
		wait.Go(func() {
			a := s.chat(path, chatBody, "Payment-Signature", payment)
			mu.Lock()
			defer mu.Unlock()
			if codes[a.code()]++; a.StatusCode == 200 {
				served[payment] = true
			}
		})
	}
	wait.Wait()
	moved := strings.Fields(c.moved())
	if len(moved) != len(served) || len(moved) == 0 {
		t.Errorf("%d payments were made, and calls on %d were served: %v", len(moved), len(served), codes)
	}
	want(t, "nothing is left", s.balance(payer), "0")
}

// TestUpToIsOfferedIfItIsSupported: the scheme is not offered if the facilitator does not have it.
func TestUpToIsOfferedIfItIsSupported(t *testing.T) {
	s, c := openPermits(t, true)
	for n := range 3 {
		want(t, fmt.Sprint("offers ", n), len(s.offers()), 1)
	}
	want(t, "asked to settle", c.orders(), 0)
	want(t, "in the description of the API", strings.Contains(s.get("/openapi.json").body, `"scheme":"upto"`), false)
}
