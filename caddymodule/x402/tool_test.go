package x402_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serveTools is a server of MCP.
func serveTools(t testing.TB, w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	if bytes.Contains(text, []byte("x402")) {
		t.Errorf("the server of tools is shown a payment: %s", text)
	}
	var asked struct {
		ID     json.RawMessage
		Method string
	}
	if json.Unmarshal(text, &asked) != nil || asked.ID == nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"found"}]}}`, asked.ID)
}

func decode64(text string) []byte {
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return decoded
}

// post sends a message of MCP to the server of tools.
func (s *shop) post(message any, headers ...string) answer {
	s.t.Helper()
	text, err := json.Marshal(message)
	must(s.t, err)
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/tools", bytes.NewReader(text))
	must(s.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
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

func message(method string, params map[string]any) map[string]any {
	return map[string]any{"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
}

// search calls a tool. payment is the content of a payment's header; empty for none.
func search(payment string) map[string]any {
	params := map[string]any{"name": "search", "arguments": map[string]any{"q": "x"}}
	if payment != "" {
		var p any
		text := decode64(payment)
		if json.Unmarshal(text, &p) != nil {
			p = string(text)
		}
		params["_meta"] = map[string]any{"x402/payment": p, "progressToken": 1}
	}
	return message("tools/call", params)
}

// toolResult is the result of a call that needs a payment.
type toolResult struct {
	ID     int
	Result struct {
		IsError           bool
		StructuredContent struct {
			X402Version int
			Error       string
			Accepts     []map[string]any
			Extensions  map[string]any
		}
		Content []struct{ Type, Text string }
	}
}

// needs reads the result of a call that needs a payment.
func needs(t testing.TB, a answer) toolResult {
	t.Helper()
	var r toolResult
	must(t, json.Unmarshal([]byte(a.body), &r))
	if a.StatusCode != http.StatusOK || r.ID != 7 || !r.Result.IsError || r.Result.StructuredContent.X402Version != 2 || len(r.Result.StructuredContent.Accepts) != 1 || len(r.Result.Content) != 1 {
		t.Fatalf("expected a result that asks for a payment: %d %s", a.StatusCode, a.body)
	}
	var whole struct {
		Result struct{ StructuredContent json.RawMessage }
	}
	must(t, json.Unmarshal([]byte(a.body), &whole))
	want(t, "the text and the structured content", r.Result.Content[0].Text, string(whole.Result.StructuredContent))
	return r
}

func TestAToolIsPaidInItsCall(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	want(t, "a session without a key", s.post(message("initialize", map[string]any{})).code(), "200")
	want(t, "the list of tools", s.post(message("tools/list", nil)).code(), "200")
	want(t, "a notification", s.post(map[string]any{"jsonrpc": "2.0", "method": "notifications/initialized"}).code(), "200")
	want(t, "what is no message", s.post(map[string]any{"q": 1}).code(), "402 payment_required")
	want(t, "a batch with a call", s.post([]any{message("ping", nil), search("")}).code(), "402 payment_required")

	asked := needs(t, s.post(search("")))
	offer := asked.Result.StructuredContent.Accepts[0]
	want(t, "the offer", fmt.Sprint(offer["amount"], offer["network"], offer["scheme"]), "100000eip155:8453exact")
	payment := pay(t, payer, offer, nil)
	paid := s.post(search(payment))
	if !strings.Contains(paid.body, "found") || paid.Header.Get("Payment-Response") == "" || paid.Header.Get("Authorization") == "" {
		t.Errorf("paid: %d %v %s", paid.StatusCode, paid.Header, paid.body)
	}
	want(t, "the credit", s.balance(payer), "0.06")
	again := s.post(search(payment))
	want(t, "the same call again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), again.body == paid.body, s.balance(payer)), "200truetrue0.06")
	key := paid.Header.Get("Authorization")
	want(t, "by the key", s.post(search(""), "Authorization", key).code(), "200")
	want(t, "the credit", s.balance(payer), "0.02")
	poor := needs(t, s.post(search(""), "Authorization", key))
	topped := s.post(search(pay(t, payer, poor.Result.StructuredContent.Accepts[0], nil)), "Authorization", key)
	if !strings.Contains(topped.body, "found") {
		t.Errorf("a key and a payment: %d %s", topped.StatusCode, topped.body)
	}
	want(t, "the credit", s.balance(payer), "0.08")
	want(t, "settled", s.chain.settled, 200_000)
}

func TestToolPaymentsThatAreRefused(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	offer := needs(t, s.post(search(""))).Result.StructuredContent.Accepts[0]
	for _, test := range []struct{ what, payment, says string }{
		{"no object", "MQ==", "payment"},
		{"another's money", pay(t, payer, offer, func(a *transfer) { a.From = payTo }), "signature"},
		{"expired", pay(t, payer, offer, func(a *transfer) { a.ValidBefore = "1000" }), "expired"},
	} {
		if says := needs(t, s.post(search(test.payment))).Result.StructuredContent.Error; !strings.Contains(says, test.says) {
			t.Errorf("%s: %s", test.what, says)
		}
	}
	_, asked := s.chain.counts()
	want(t, "asked to settle", asked, 0)
}

// TestFreeMessagesAreBounded: what a server of tools is asked for nothing is limited by address. Who pays, or has a key, is not limited by it.
func TestFreeMessagesAreBounded(t *testing.T) {
	s := openShop(t)
	payer := newPayer(t)
	from := func(client string, message any, headers ...string) answer {
		return s.post(message, append([]string{"X-Forwarded-For", client}, headers...)...)
	}
	const client = "203.0.113.7"
	// One more message is let through each second, so a slow machine needs more of them to reach the limit.
	var refused answer
	for began, sent := time.Now(), 0; ; sent++ {
		if refused = from(client, message("tools/list", nil)); refused.StatusCode == http.StatusTooManyRequests {
			if sent < 60 {
				t.Errorf("refused after %d messages", sent)
			}
			break
		}
		want(t, "the list of tools", refused.code(), "200")
		if sent > 60+int(time.Since(began)/time.Second) {
			t.Fatalf("%d messages in %s", sent, time.Since(began))
		}
	}
	want(t, "too many", refused.code(), "429 rate_limited")
	if after := refused.Header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After %q", after)
	}
	offer := needs(t, from(client, search(""))).Result.StructuredContent.Accepts[0]
	paid := from(client, search(pay(t, payer, offer, nil)))
	want(t, "a payment", fmt.Sprint(paid.code(), s.balance(payer)), "2000.06")
	want(t, "with a key", from(client, message("tools/list", nil), "Authorization", paid.Header.Get("Authorization")).code(), "200")
	want(t, "from another address", from("203.0.113.8", message("tools/list", nil)).code(), "200")
}
