package x402_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/tallygate/tallygate/caddymodule/x402"
	"github.com/tallygate/tallygate/gateway"
)

// callOf is how the contract of the scheme upto is called to settle a permit.
func callOf(p permitted, amount string) string {
	const settle = "settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)"
	words := []string{p.Permitted.Token, p.Permitted.Amount, p.Nonce, p.Deadline, amount, p.From, p.Witness.To, p.Witness.Facilitator, p.Witness.ValidAfter, "320", "65"}
	text := "0x" + hex.EncodeToString(keccak([]byte(settle))[:4])
	for _, w := range words {
		text += hex.EncodeToString(word(w))
	}
	return text
}

// withPermit is the same call, made by the function that approves Permit2 first.
func withPermit(call string) string {
	const settle = "settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)"
	return "0x" + hex.EncodeToString(keccak([]byte(settle))[:4]) + strings.Repeat("0", 5*64) + call[10:]
}

// send puts a transaction on the chain that transfers from a payer to the operator.
func (c *permits) send(p permitted, to, status, input string) (hash string) {
	units := "0x" + hex.EncodeToString(word("6000"))
	hash = "0x" + hex.EncodeToString(keccak(fmt.Append(nil, p.From, p.Nonce, len(c.sent))))
	c.sent = append(c.sent, object{"hash": hash, "from": strings.ToLower(p.From), "to": to, "status": status, "input": input, "units": units})
	return hash
}

// answer is what a node of the chain says.
func (c *permits) answer(method string, params []json.RawMessage) (any, error) {
	var name string
	_ = json.Unmarshal(params[0], &name) // of those that ask for something by a name
	switch method {
	case "eth_getBlockByNumber":
		return object{"number": newestBlock, "timestamp": fmt.Sprintf("0x%x", time.Now().Unix())}, nil
	case "eth_call":
		return c.nonces(params[0])
	case "eth_getLogs":
		var filter struct {
			Address string
			Topics  []string
		}
		if err := json.Unmarshal(params[0], &filter); err != nil || filter.Address != asset || len(filter.Topics) != 3 || filter.Topics[2] != "0x"+strings.Repeat("0", 24)+payTo[2:] {
			return nil, fmt.Errorf("logs of %+v: %w", filter, err)
		}
		logs := []object{}
		for _, sent := range c.sent {
			if sent["status"] == "0x1" && filter.Topics[1] == "0x"+strings.Repeat("0", 24)+sent["from"].(string)[2:] {
				logs = append(logs, object{"address": asset, "transactionHash": sent["hash"], "topics": filter.Topics, "data": sent["units"]})
			}
		}
		return logs, nil
	}
	for _, sent := range c.sent {
		if sent["hash"] == name {
			return sent, nil
		}
	}
	return nil, errors.New("it is not known")
}

// nonces is what Permit2 says of 256 nonces of a payer.
func (c *permits) nonces(params json.RawMessage) (any, error) {
	var call struct{ To, Data string }
	if err := json.Unmarshal(params, &call); err != nil || call.To != permit2 || len(call.Data) != 10+128 || call.Data[:10] != "0x4fe02b44" {
		return nil, fmt.Errorf("a call of %+v: %w", call, err)
	}
	bits := new(big.Int)
	place, _ := new(big.Int).SetString(call.Data[74:], 16)
	for used := range c.used {
		from, nonce := used[:42], number(used[42:])
		if strings.EqualFold(from, "0x"+call.Data[34:74]) && new(big.Int).Rsh(nonce, 8).Cmp(place) == 0 {
			bits.SetBit(bits, int(new(big.Int).And(nonce, big.NewInt(255)).Int64()), 1)
		}
	}
	return fmt.Sprintf("0x%064x", bits), nil
}

// TestTheChainSaysWhatBecameOfAPermit: what the facilitator does not say of a payment whose amount was metered is found on the chain, and the
// answer that waits for it goes out.
func TestTheChainSaysWhatBecameOfAPermit(t *testing.T) {
	s, c := openPermits(t, false, asksTheChain)
	payer := newPayer(t)
	offer := s.offerUpTo()
	see := func(blind bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.blind = blind
	}
	payment := promise(t, payer, offer, nil)
	c.set("lose")
	a := s.chat(chatPath, chatBody, "Payment-Signature", payment)
	want(t, "the answer to the settlement is lost", a.code(), "200")
	want(t, "what was settled", fmt.Sprint(c.moved(), " ", a.Header.Get("Tallygate-Charge"), " ", s.balance(payer)), "6000 0.006 0")
	want(t, "again", s.chat(chatPath, chatBody, "Payment-Signature", payment).Header.Get("Idempotency-Replayed"), "true")

	payment = promise(t, payer, offer, nil)
	see(true)
	want(t, "nobody can see it", s.chat(chatPath, chatBody, "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	c.set("down")
	see(false)
	want(t, "on the chain: it is credit", s.chat(chatPath, chatBody, "Payment-Signature", payment).code()+" "+s.balance(payer), "402 insufficient_funds 0.006")

	payment = promise(t, payer, offer, nil)
	c.set("late")
	want(t, "sent, and not on the chain yet", s.chat(chatPath, chatBody, "Payment-Signature", payment).code(), "503 rail_unavailable unknown")
	want(t, "nothing is booked for it", s.balance(payer), "0.006")
}

// TestOtherTransfersAreNoPayment: a permit is used by the call of the contract with just this permit and amount, and by nothing that looks like it.
func TestOtherTransfersAreNoPayment(t *testing.T) {
	_, c := openPermits(t, false)
	rail := &x402.Rail{Facilitator: c.URL, Network: "eip155:8453", Asset: asset, PayTo: payTo, TopUp: "0.10", RPC: c.URL + "/rpc", Upto: true}
	must(t, rail.Provision(caddy.Context{}))
	payer := newPayer(t)
	take := func(change func(*permitted)) (p permitted, payable gateway.Payable) {
		r, err := http.NewRequest(http.MethodGet, "http://shop.example/", nil)
		must(t, err)
		offer := map[string]any{"scheme": "upto", "network": "eip155:8453", "asset": asset, "payTo": payTo, "amount": "100000", "extra": map[string]any{"facilitatorAddress": settler}}
		r.Header.Set("Payment-Signature", promise(t, payer, offer, func(a *permitted) {
			if change != nil {
				change(a)
			}
			p = *a
		}))
		payable, found, err := rail.Take(r)
		must(t, err)
		want(t, "taken", found, true)
		payable, err = rail.UpTo(payable, 6_000_000)
		must(t, err)
		return p, payable
	}
	p, payable := take(nil)
	other, _ := take(nil)
	c.mu.Lock()
	c.fault = "down"
	c.used[p.From+p.Nonce] = true // its owner has given the nonce up
	signature := callOf(p, "6000")[10:]
	c.send(other, proxyUpTo, "0x1", callOf(other, "6000"))
	c.send(other, proxyUpTo, "0x1", callOf(other, "6000")+signature) // the words of p stand where the signature of the other is
	c.send(p, proxyUpTo, "0x1", callOf(p, "5999"))
	c.send(p, asset, "0x1", callOf(p, "6000"))     // a transfer with more data than it needs
	c.send(p, proxyUpTo, "0x0", callOf(p, "6000")) // undone, so that it has no events
	c.send(p, proxyUpTo, "0x1", withPermit(callOf(p, "6000"))[:10+3*64])
	c.mu.Unlock()
	if transaction, err := rail.Settle(context.Background(), payable); err == nil || refusalOf(err) != nil || errors.Is(err, gateway.ErrNotMade) {
		t.Errorf("another transfer is taken for the payment, or its outcome is called certain: %s, %v", transaction, err)
	}
	c.mu.Lock()
	hash := c.send(p, strings.ToLower(proxyUpTo), "0x1", withPermit(callOf(p, "6000")))
	for range 200 { // the payer hides it behind transfers of next to nothing
		c.send(p, asset, "0x1", "")
		c.sent[len(c.sent)-1]["units"] = "0x" + hex.EncodeToString(word("1"))
	}
	c.mu.Unlock()
	transaction, err := rail.Settle(context.Background(), payable)
	must(t, err)
	want(t, "the transaction", transaction, hash)

	for ago, over := range map[time.Duration]bool{time.Minute: false, 3 * time.Minute: true} {
		_, payable := take(func(a *permitted) { a.Deadline = fmt.Sprint(time.Now().Add(-ago).Unix()) })
		_, err := rail.Settle(context.Background(), payable)
		want(t, fmt.Sprint(ago, " after its end it was certainly not made"), errors.Is(err, gateway.ErrNotMade), over)
	}
}
