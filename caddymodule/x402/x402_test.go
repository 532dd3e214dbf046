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
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	_ "github.com/tallygate/tallygate/caddymodule"
	"github.com/tallygate/tallygate/caddymodule/x402"
	"github.com/tallygate/tallygate/internal/commandtest"
	_ "github.com/tallygate/tallygate/internal/steady"
)

const operatorKey = "operator-key-of-the-tests"

// shop is a real Caddy with a metered site at 0.04 a call, where callers may pay by x402. Only one runs at a time in a process.
type shop struct {
	t     testing.TB
	url   string
	chain *chain
	down  atomic.Bool     // the provider
	file  string          // the Caddyfile
	told  <-chan struct{} // closed when the facilitator has said what it supports
}

func openShop(t testing.TB) *shop { return openShopWith(t, "") }

// openShopWith opens a shop whose rail has more words. FACILITATOR stands for the facilitator's address.
func openShopWith(t testing.TB, words string) *shop {
	t.Helper()
	s := newShop(t, words)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.file), nil)
	must(t, err)
	must(t, caddy.Load(config, true))
	t.Cleanup(func() { must(t, caddy.Stop()) })
	return s
}

// newShop prepares a shop that is not open.
func newShop(t testing.TB, words string) *shop {
	t.Helper()
	s := &shop{t: t, chain: openChain(t)}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Payment") != "" || r.Header.Get("Payment-Signature") != "" || r.Header.Get("Sign-In-With-X") != "" {
			t.Error("the provider is shown a payment, or who has signed in")
		}
		if s.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Payment-Response", "forged")
		if r.URL.Path == "/tools" {
			serveTools(t, w, r)
			return
		}
		_, _ = io.WriteString(w, "results")
	}))
	t.Cleanup(provider.Close)
	s.url = "http://" + commandtest.FreeAddress(t)
	s.file = fmt.Sprintf(`{
	admin off
	auto_https off
	log {
		output discard
	}
	servers {
		trusted_proxies static 127.0.0.1/32
	}
	tallygate {
		ledger bolt %s
		operator_key %s
		registration open
		rail x402 {
			facilitator %s
			network eip155:8453
			asset %s
			pay_to %s
			top_up 0.10
			%s
		}
	}
}
%s {
	tallygate
	handle /tools {
		meter {
			payee tools
			tariff {
				tool * 0.04 per call
			}
			keep_responses 1MiB for 1h
		}
		reverse_proxy %[8]s
	}
	handle {
		meter acme {
			price 0.04 per call
			keep_responses 1MiB for 1h
		}
		reverse_proxy %[8]s
	}
}
`, filepath.Join(t.TempDir(), "ledger.db"), operatorKey, s.chain.URL, asset, payTo, strings.ReplaceAll(words, "FACILITATOR", s.chain.URL), s.url, provider.Listener.Addr())
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, what string, got, expected any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("%s: %v, want %v", what, got, expected)
	}
}

type answer struct {
	*http.Response
	body string
}

func (a answer) code() string {
	var problem struct{ Code, Reason, Paid string }
	_ = json.Unmarshal([]byte(a.body), &problem)
	return strings.TrimSpace(fmt.Sprint(a.StatusCode, " ", problem.Code, " ", problem.Reason+problem.Paid))
}

// get makes a call. headers are names and values alternately.
func (s *shop) get(path string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	must(s.t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(s.t, err)
	return answer{response, string(body)}
}

// balance returns what is in the wallet of a payer's agent; empty if there is no such agent.
func (s *shop) balance(payer *secp256k1.PrivateKey) string {
	s.t.Helper()
	a := s.get("/api/v1/wallet?agent_id=x402:"+address(payer.PubKey()), "Authorization", "Bearer "+operatorKey)
	var wallet struct{ Balance string }
	must(s.t, json.Unmarshal([]byte(a.body), &wallet))
	return wallet.Balance
}

// booked returns what was booked as deposits of a payer, in the smallest units of the asset.
func (s *shop) booked(payer *secp256k1.PrivateKey) *big.Int {
	s.t.Helper()
	sum := new(big.Rat)
	for cursor := ""; ; {
		a := s.get("/api/v1/wallet/entries?limit=100&agent_id=x402:"+address(payer.PubKey())+cursor, "Authorization", "Bearer "+operatorKey)
		var page struct {
			Entries []struct{ Kind, Amount string }
			Next    string `json:"next_cursor"`
		}
		must(s.t, json.Unmarshal([]byte(a.body), &page))
		for _, entry := range page.Entries {
			if amount, ok := new(big.Rat).SetString(entry.Amount); ok && entry.Kind == "deposit" {
				sum.Add(sum, amount)
			}
		}
		if page.Next == "" {
			break
		}
		cursor = "&cursor=" + page.Next
	}
	if sum.Mul(sum, big.NewRat(1_000_000, 1)); !sum.IsInt() {
		s.t.Fatalf("booked are %s units", sum)
	}
	return sum.Num()
}

// status makes a call with a payment on a goroutine that is not the test's own.
func (s *shop) status(payment string) int {
	r, err := http.NewRequest(http.MethodGet, s.url+"/", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Payment-Signature", payment)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// idOf returns by what the chain knows a payment.
func idOf(t testing.TB, payment string) string {
	t.Helper()
	var p struct {
		Payload struct{ Authorization transfer }
	}
	must(t, json.Unmarshal(decode64(payment), &p))
	return p.Payload.Authorization.From + p.Payload.Authorization.Nonce
}

func newPayer(t testing.TB) *secp256k1.PrivateKey {
	key, err := secp256k1.GeneratePrivateKey()
	must(t, err)
	return key
}

// offer asks how to pay, and returns what version 2 accepts.
func (s *shop) offer(path string) map[string]any {
	s.t.Helper()
	offer, _ := s.required(path)
	return offer
}

// required asks how to pay, and returns what version 2 accepts, and its extensions.
func (s *shop) required(path string) (offer map[string]any, extensions map[string]any) {
	s.t.Helper()
	a := s.get(path)
	want(s.t, "without a payment", a.code(), "402 payment_required")
	text, err := base64.StdEncoding.DecodeString(a.Header.Get("Payment-Required"))
	must(s.t, err)
	var required struct {
		X402Version int
		Accepts     []map[string]any
		Extensions  map[string]any
	}
	must(s.t, json.Unmarshal(text, &required))
	if required.X402Version != 2 || len(required.Accepts) != 1 {
		s.t.Fatalf("the offer is %s", text)
	}
	return required.Accepts[0], required.Extensions
}

// pay signs a transfer for an offer, as changed by change before the signature, and returns the header of version 2.
func pay(t testing.TB, payer *secp256k1.PrivateKey, offer map[string]any, change func(*transfer)) string {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	a := transfer{
		From: address(payer.PubKey()), To: offer["payTo"].(string), Value: offer["amount"].(string), ValidAfter: "0",
		ValidBefore: fmt.Sprint(time.Now().Add(time.Minute).Unix()), Nonce: "0x" + hex.EncodeToString(nonce),
	}
	if change != nil {
		change(&a)
	}
	return encode(t, map[string]any{"x402Version": 2, "accepted": offer, "payload": payload(a, sign(payer, a))})
}

func payload(a transfer, signature string) map[string]any {
	return map[string]any{"signature": signature, "authorization": map[string]any{
		"from": a.From, "to": a.To, "value": a.Value, "validAfter": a.ValidAfter, "validBefore": a.ValidBefore, "nonce": a.Nonce,
	}}
}

func encode(t testing.TB, v any) string {
	text, err := json.Marshal(v)
	must(t, err)
	return base64.StdEncoding.EncodeToString(text)
}

func TestAPaymentServesAndLeavesCredit(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	payment := pay(t, payer, s.offer("/search"), nil)
	first := s.get("/search", "Payment-Signature", payment)
	want(t, "the first call", fmt.Sprint(first.code(), first.Header.Get("Tallygate-Balance"), first.body), "2000.06results")
	key := first.Header.Get("Authorization")
	receipt, err := base64.StdEncoding.DecodeString(first.Header.Get("Payment-Response"))
	must(t, err)
	if key == "" || !strings.Contains(string(receipt), `"success":true`) || len(first.Header.Values("Payment-Response")) != 1 {
		t.Errorf("key %q, receipts %q, the first is %s", key, first.Header.Values("Payment-Response"), receipt)
	}
	again := s.get("/search", "Payment-Signature", payment)
	want(t, "the same request again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), again.body, again.Header.Get("Authorization")), "200trueresults")
	want(t, "the payment with another request", s.get("/other", "Payment-Signature", payment).code(), "402 payment_refused used")
	want(t, "the credit", s.balance(payer), "0.06")
	next := s.get("/search", "Authorization", key)
	want(t, "by the key", fmt.Sprint(next.code(), next.Header.Get("Tallygate-Balance")), "2000.02")
	_, asked := s.chain.counts()
	want(t, "settled", fmt.Sprint(s.chain.settled, " ", asked), "100000 1")
	want(t, "a payer's agent is not for others", func() int {
		r, err := http.Post(s.url+"/api/v1/agents", "application/json", strings.NewReader(`{"agent_id":"x402:0x1"}`))
		must(t, err)
		defer r.Body.Close()
		return r.StatusCode
	}(), 403)
}

func TestPaymentsThatAreRefused(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	offer := s.offer("/")
	changed := func(name string, value any) map[string]any {
		other := make(map[string]any)
		for k, v := range offer {
			other[k] = v
		}
		other[name] = value
		return other
	}
	for _, test := range []struct{ what, payment, code string }{
		{"no Base64", "%%%", "invalid_payload"},
		{"too long", strings.Repeat("A", 17<<10), "invalid_payload"},
		{"another version", encode(t, map[string]any{"x402Version": 3}), "invalid_x402_version"},
		{"another network", pay(t, payer, changed("network", "eip155:1"), nil), "invalid_network"},
		{"another asset", pay(t, payer, changed("asset", payTo), nil), "invalid_asset"},
		{"another recipient in the offer", pay(t, payer, changed("payTo", asset), nil), "invalid_recipient"},
		{"another recipient", pay(t, payer, offer, func(a *transfer) { a.To = asset }), "invalid_recipient"},
		{"too little", pay(t, payer, changed("amount", "99999"), nil), "invalid_amount"},
		{"less than accepted", pay(t, payer, offer, func(a *transfer) { a.Value = "1" }), "invalid_amount"},
		{"more than fits", pay(t, payer, changed("amount", strings.Repeat("9", 70)), nil), "invalid_amount"},
		{"not a number", pay(t, payer, changed("amount", "1e9"), nil), "invalid_payload"},
		{"another's money", pay(t, payer, offer, func(a *transfer) { a.From = payTo }), "invalid_exact_evm_payload_signature"},
		{"an altered sender", alter(t, pay(t, payer, offer, nil), "from", payTo), "invalid_exact_evm_payload_signature"},
		{"an altered nonce", alter(t, pay(t, payer, offer, nil), "nonce", "0x"+strings.Repeat("a", 64)), "invalid_exact_evm_payload_signature"},
		{"an altered end", alter(t, pay(t, payer, offer, nil), "validBefore", fmt.Sprint(time.Now().Add(time.Hour).Unix())), "invalid_exact_evm_payload_signature"},
		{"expired", pay(t, payer, offer, func(a *transfer) { a.ValidBefore = "1000" }), "expired"},
		{"not yet valid", pay(t, payer, offer, func(a *transfer) { a.ValidAfter = fmt.Sprint(time.Now().Unix() + 1000) }), "invalid_exact_evm_payload_authorization_valid_before"},
	} {
		a := s.get("/", "Payment-Signature", test.payment)
		want(t, test.what, a.code(), "402 payment_refused "+test.code)
		if a.Header.Get("Payment-Required") == "" {
			t.Errorf("%s: the refusal does not say how to pay", test.what)
		}
	}
	good := pay(t, payer, offer, nil)
	want(t, "two payments", s.get("/", "Payment-Signature", good, "X-Payment", good).code(), "402 payment_refused invalid_payload")
	_, asked := s.chain.counts()
	want(t, "asked to settle", asked, 0)
	want(t, "booked", s.balance(payer), "")
}

// alter changes a payment after its signature.
func alter(t testing.TB, payment, member, value string) string {
	t.Helper()
	var p map[string]any
	must(t, json.Unmarshal(decode64(payment), &p))
	p["payload"].(map[string]any)["authorization"].(map[string]any)[member] = value
	return encode(t, p)
}

func TestFaultsOfTheFacilitator(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	offer := s.offer("/")
	payment := pay(t, payer, offer, nil)
	s.chain.set("down")
	want(t, "down", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable none")
	s.chain.set("refuse")
	want(t, "not settled", s.get("/", "Payment-Signature", payment).code(), "402 payment_refused insufficient_funds")
	s.chain.set("late")
	want(t, "sent, but not known", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	s.chain.set("refuse")
	want(t, "refused after it was sent", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	want(t, "nothing is booked", s.balance(payer), "")
	s.chain.set("")
	s.down.Store(true)
	want(t, "paid, and the provider is down", s.get("/", "Payment-Signature", payment).StatusCode, 502)
	want(t, "the money stays the payer's", s.balance(payer), "0.1")
	s.down.Store(false)
	want(t, "served by the same payment", s.get("/", "Payment-Signature", payment).code(), "200")
	want(t, "charged once", s.balance(payer), "0.06")

	lost := pay(t, payer, offer, nil)
	s.chain.set("lose")
	want(t, "settled, but not told", s.get("/", "Payment-Signature", lost).code(), "503 rail_unavailable unknown")
	s.chain.set("")
	want(t, "already used", s.get("/", "Payment-Signature", lost).code(), "503 rail_unavailable unknown")
	want(t, "what is not known is not booked", s.balance(payer), "0.06")
}

func TestVersion1(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	var required struct {
		X402Version int
		Accepts     []struct{ Network, MaxAmountRequired, PayTo, Resource string }
	}
	must(t, json.Unmarshal([]byte(s.get("/a?b=c").body), &required))
	if required.X402Version != 1 || len(required.Accepts) != 1 || required.Accepts[0].Network != "base" || !strings.HasSuffix(required.Accepts[0].Resource, "/a") {
		t.Fatalf("the offer is %+v", required)
	}
	offer := map[string]any{"amount": required.Accepts[0].MaxAmountRequired, "payTo": required.Accepts[0].PayTo}
	var a transfer
	pay(t, payer, offer, func(made *transfer) { a = *made })
	header := encode(t, map[string]any{"x402Version": 1, "scheme": "exact", "network": "base", "payload": payload(a, sign(payer, a))})
	got := s.get("/a?b=c", "X-Payment", header)
	want(t, "paid", fmt.Sprint(got.code(), got.Header.Get("X-Payment-Response") != ""), "200true")
	header = encode(t, map[string]any{"x402Version": 1, "scheme": "exact", "network": "polygon", "payload": payload(a, sign(payer, a))})
	want(t, "another network", s.get("/a?b=c", "X-Payment", header).code(), "402 payment_refused invalid_network")
}

func TestCaddyfile(t *testing.T) {
	for _, test := range []struct{ block, err string }{
		{"{\n facilitator https://f.example\n network eip155:8453\n asset " + asset + "\n pay_to " + payTo + "\n}", "has no top_up"},
		{"{\n chain 1\n}", "unrecognized subdirective"},
		{"{\n top_up 1\n top_up 2\n}", "given twice"},
		{"{\n rpc a b\n}", "takes one word"},
		{"{\n facilitator https://f.example {\n  header Authorization {env.AUTH}\n }\n network eip155:8453\n asset " + asset + " 6\n domain USDC 2\n pay_to " + payTo + "\n top_up 0.10\n}", ""},
	} {
		var rail x402.Rail
		err := rail.UnmarshalCaddyfile(caddyfile.NewTestDispenser("x402 " + test.block))
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.block, err, test.err)
		}
	}
	for what, rail := range map[string]x402.Rail{
		"facilitator": {Facilitator: "f.example"},
		"network":     {Facilitator: "https://f.example", Network: "base"},
		"asset":       {Facilitator: "https://f.example", Network: "eip155:1", Asset: "0x1", PayTo: payTo},
		"rpc":         {Facilitator: "https://f.example", RPC: "secret"},
		"top_up":      {Facilitator: "https://f.example", Network: "eip155:1", Asset: asset, PayTo: payTo, TopUp: "0.0000001"},
	} {
		if err := rail.Provision(caddy.Context{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
