package x402_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/tallygate/tallygate/caddymodule/x402"
	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/internal/rounds"
)

// asksTheChain is the config of a rail that knows a node of the chain.
const asksTheChain = "rpc FACILITATOR/rpc"

// TestTheChainSaysWhatBecameOfAPayment: what the facilitator does not say, or does not know, is found on the chain by what the payer has signed.
func TestTheChainSaysWhatBecameOfAPayment(t *testing.T) {
	s := openShopWith(t, asksTheChain)
	payer := newPayer(t)
	offer := s.offer("/")
	left := 0
	for _, fault := range []string{"lose", "garble", "front-run"} {
		payment := pay(t, payer, offer, nil)
		s.chain.set(fault)
		got := s.get("/", "Payment-Signature", payment)
		left += 6
		want(t, fault, fmt.Sprint(got.code(), " ", got.Header.Get("Tallygate-Balance")), fmt.Sprintf("200 0.%02d", left))
		if receipt := string(decode64(got.Header.Get("Payment-Response"))); !strings.Contains(receipt, `"transaction":"0x`) {
			t.Errorf("%s: the receipt is %s", fault, receipt)
		}
		again := s.get("/", "Payment-Signature", payment)
		want(t, fault+", again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed")), "200true")
	}

	payment := pay(t, payer, offer, nil)
	s.chain.set("late")
	want(t, "sent, and not on the chain yet", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	s.chain.set("refuse")
	want(t, "refused, and not on the chain yet", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	s.chain.set("front-run")
	s.chain.mu.Lock()
	s.chain.blind = true
	s.chain.mu.Unlock()
	want(t, "on the chain, which nobody can see", s.get("/", "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	want(t, "not booked yet", s.balance(payer), "0.18")
	s.chain.mu.Lock()
	s.chain.blind = false
	s.chain.mu.Unlock()
	want(t, "on the chain", s.get("/", "Payment-Signature", payment).code(), "200")
	want(t, "moved, and left of it", fmt.Sprint(s.chain.paid(), " ", s.balance(payer)), "400000 0.24")

	refused := pay(t, payer, offer, nil)
	s.chain.set("refuse")
	want(t, "refused", s.get("/", "Payment-Signature", refused).code(), "402 payment_refused insufficient_funds")
	want(t, "nothing is booked", s.balance(payer), "0.24")
}

// openRail returns a rail, and a payment that it has taken.
func openRail(t *testing.T, c *chain, payer *secp256k1.PrivateKey, change func(*transfer)) (*x402.Rail, gateway.Payable) {
	t.Helper()
	rail := &x402.Rail{Facilitator: c.URL, Network: "eip155:8453", Asset: asset, PayTo: payTo, TopUp: "0.10", RPC: c.URL + "/rpc"}
	must(t, rail.Provision(caddy.Context{}))
	return rail, take(t, rail, payer, change)
}

func take(t *testing.T, rail *x402.Rail, payer *secp256k1.PrivateKey, change func(*transfer)) gateway.Payable {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://shop.example/", nil)
	must(t, err)
	offer := map[string]any{"scheme": "exact", "network": "eip155:8453", "asset": asset, "payTo": payTo, "amount": "100000"}
	r.Header.Set("Payment-Signature", pay(t, payer, offer, change))
	p, found, err := rail.Take(r)
	must(t, err)
	if !found {
		t.Fatal("the rail takes no payment")
	}
	return p
}

// TestASlowFacilitator: a payment that is settled only after the time in which an answer is waited for is not known first, and found later.
func TestASlowFacilitator(t *testing.T) {
	c := openChain(t)
	rail, p := openRail(t, c, newPayer(t), nil)
	c.set("slow")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := rail.Settle(ctx, p)
		failed <- err
	}()
	<-c.asking
	cancel()
	if err := <-failed; err == nil || refusalOf(err) != nil {
		t.Errorf("without an answer: %v", err)
	}
	c.set("") // when the slow one has ended
	transaction, err := rail.Settle(t.Context(), p)
	must(t, err)
	want(t, "the transaction, and what it has moved", fmt.Sprint(transaction == transactionOf(c.sent[0]), len(c.sent), c.paid()), "true 1 100000")
}

func refusalOf(err error) (refusal *escrow.Refusal) {
	errors.As(err, &refusal)
	return refusal
}

// TestAPaymentThatTheChainDoesNotHave: a payment whose time is over, and that the chain does not have, was not made, and will not be.
func TestAPaymentThatTheChainDoesNotHave(t *testing.T) {
	c := openChain(t)
	payer := newPayer(t)
	for _, test := range []struct {
		ago  time.Duration
		over bool
	}{{time.Minute, false}, {3 * time.Minute, true}} {
		rail, p := openRail(t, c, payer, func(a *transfer) { a.ValidBefore = fmt.Sprint(time.Now().Add(-test.ago).Unix()) })
		_, err := rail.Settle(t.Context(), p)
		want(t, fmt.Sprint(test.ago, " after its end it was certainly not made"), errors.Is(err, gateway.ErrNotMade), test.over)
	}
}

// TestAUsedNonceIsNoPayment: a payer may use the nonce of its payment for a transfer to itself, and have it stand beside transfers to us that
// pay for something else.
func TestAUsedNonceIsNoPayment(t *testing.T) {
	c := openChain(t)
	payer := newPayer(t)
	var honest, cheat transfer
	rail, first := openRail(t, c, payer, func(a *transfer) { honest = *a })
	second := take(t, rail, payer, func(a *transfer) { cheat = *a })
	_, err := rail.Settle(t.Context(), first)
	must(t, err)
	c.mu.Lock()
	cheat.To = "0x2222222222222222222222222222222222222222"
	c.move(cheat)
	c.hidden[cheat.From+cheat.Nonce] = true
	c.mu.Unlock()
	if transaction, err := rail.Settle(t.Context(), second); err == nil || refusalOf(err) != nil {
		t.Errorf("a transfer to somebody else is taken for a payment, or its outcome is called certain: %s, %v", transaction, err)
	}
	transaction, err := rail.Settle(t.Context(), first)
	must(t, err)
	want(t, "the honest payment", transaction, transactionOf(honest))
}

// TestSettledIsBooked makes many payments over a facilitator, and a node, that fail at random, each payment twice at the same time. Whatever
// fails, what the chain has moved is what was booked, and nothing is served that was not paid.
func TestSettledIsBooked(t *testing.T) {
	s := openShopWith(t, asksTheChain)
	payer := newPayer(t)
	offer := s.offer("/")
	faults := []string{"", "", "down", "refuse", "late", "lose", "garble", "front-run"}
	var payments []string
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	roll := func(n int) int {
		seed = seed*6364136223846793005 + 1442695040888963407
		return int(uint64(seed)>>33) % n
	}
	for range rounds.Of(60, 200) {
		s.chain.mu.Lock()
		s.chain.fault, s.chain.blind = faults[roll(len(faults))], roll(3) == 0
		s.chain.mu.Unlock()
		if len(payments) == 0 || roll(2) == 0 {
			payments = append(payments, pay(t, payer, offer, nil))
		}
		payment := payments[roll(len(payments))]
		done := make(chan int)
		for range 2 {
			go func() { done <- s.status(payment) }()
		}
		served := <-done == 200
		served = <-done == 200 || served
		s.chain.mu.Lock()
		paid := s.chain.used[idOf(t, payment)]
		s.chain.mu.Unlock()
		if served && !paid {
			t.Fatal("a call is served whose payment was not made")
		}
		if booked, moved := s.booked(payer), s.chain.paid(); booked.Cmp(moved) > 0 {
			t.Fatalf("%s units are booked, and the chain has moved %s", booked, moved)
		}
	}
	s.chain.mu.Lock()
	s.chain.fault, s.chain.blind = "", false
	s.chain.mu.Unlock()
	for _, payment := range payments {
		want(t, "in the end each payment serves", s.get("/", "Payment-Signature", payment).code(), "200")
	}
	want(t, "the chain has moved", s.chain.paid(), 100_000*len(payments))
	want(t, "booked", s.booked(payer), s.chain.paid())
	balance, ok := new(big.Rat).SetString(s.balance(payer))
	if n := int64(len(payments)); !ok || balance.Cmp(big.NewRat(n*6, 100)) != 0 {
		t.Errorf("%d payments, each of 0.10 for a call of 0.04, leave %s", n, balance.FloatString(2))
	}
}
