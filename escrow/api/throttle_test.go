package api_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow/api"
)

func TestThrottles(t *testing.T) {
	g := newGate(t, rules(), api.Options{Client: func(r *http.Request) string { return r.Header.Get("X-Client") }})
	from := func(client, path, key, body string) answer { return g.post(path, key, body, "X-Client", client) }
	var key string
	for i := range 30 {
		key = from("203.0.113.7", "/agents", "", fmt.Sprintf(`{"agent_id":"a%d"}`, i)).want(201).str("api_key")
	}
	if after := from("203.0.113.7", "/agents", "", `{}`).want(429, "code", "rate_limited").header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After: %q", after)
	}
	from("203.0.113.7", "/agents", operatorKey, `{}`).want(201)
	from("203.0.113.8", "/agents", "", `{}`).want(201)
	for i := range 35 {
		from("127.0.0.1", "/agents", "", fmt.Sprintf(`{"agent_id":"b%d"}`, i)).want(201)
	}
	// By MCP as by REST.
	register := func(client string) string {
		return g.do("POST", "/mcp", "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"agent_register","arguments":{}}}`,
			"X-Client", client, "Accept", "application/json, text/event-stream", "Content-Type", "application/json").text
	}
	if text := register("203.0.113.7"); !strings.Contains(text, "rate_limited") {
		t.Errorf("by MCP: %s", text)
	}
	for range 29 {
		if text := register("203.0.113.8"); !strings.Contains(text, "api_key") {
			t.Fatalf("by MCP: %s", text)
		}
	}
	if text := register("203.0.113.8"); !strings.Contains(text, "rate_limited") {
		t.Errorf("by MCP, once more: %s", text)
	}
	// All of an IPv6 network is one client.
	for i := range 30 {
		from(fmt.Sprintf("2001:db8:1:2::%x", i+1), "/agents", "", `{}`).want(201)
	}
	from("2001:db8:1:2::ffff", "/agents", "", `{}`).want(429)

	// The faucet.
	for i := range 12 {
		key := from("127.0.0.1", "/agents", "", fmt.Sprintf(`{"agent_id":"c%d"}`, i)).str("api_key")
		want := 200
		if i >= 10 {
			want = 429
		}
		from("198.51.100.1", "/faucet", key, "").want(want)
	}

	// Wrong keys: a valid key is still accepted.
	for range 30 {
		from("198.51.100.9", "/wallet/transfer", "tg_wrong", "").want(401)
	}
	from("198.51.100.9", "/wallet/transfer", "tg_wrong", "").want(429)
	from("198.51.100.9", "/wallet/transfer", key, "").want(422)
	g.get("/wallet", "").want(401)
}

func TestReceipts(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "10")
	g.agent("bob", "0")
	id := g.call("alice", "bob", "2")
	keys := g.get("/receipt-keys", "").want(200, "keys.0.kty", "OKP", "keys.0.crv", "Ed25519", "keys.0.alg", "EdDSA")
	public, err := base64.RawURLEncoding.DecodeString(keys.str("keys.0.x"))
	must(t, err)
	parts := strings.Split(g.get("/charges/"+id, alice).want(200).str("receipt"), ".")
	if len(parts) != 3 {
		t.Fatalf("a receipt of %d parts", len(parts))
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	must(t, err)
	if !ed25519.Verify(public, []byte(parts[0]+"."+parts[1]), signature) {
		t.Error("the receipt does not verify")
	}
	var header, content map[string]any
	for i, into := range []*map[string]any{&header, &content} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(t, err)
		must(t, json.Unmarshal(text, into))
	}
	if header["alg"] != "EdDSA" || header["kid"] != keys.str("keys.0.kid") {
		t.Errorf("header %v", header)
	}
	if content["request_id"] != id || content["amount"] != "2" || content["issued_at"] == "" || content["receipt"] != nil {
		t.Errorf("content %v", content)
	}
	g.get("/receipt-keys", "wrong").want(401)
	if again := g.get("/receipt-keys", ""); again.text != keys.text {
		t.Error("the key has changed")
	}
}

// TestIdentitySecrets: each payee has a secret of its own, which is always the same, and which no read-only key sees.
func TestIdentitySecrets(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice, bob := g.agent("alice", "0"), g.agent("bob", "0")
	secret := g.get("/identity-secret", alice).want(200, "agent_id", "alice").str("secret")
	if !strings.HasPrefix(secret, "whsec_") || g.get("/identity-secret", alice).str("secret") != secret || g.get("/identity-secret", bob).str("secret") == secret {
		t.Errorf("secret %.10s", secret)
	}
	g.get("/identity-secret?agent_id=alice", bob).want(404)
	g.get("/identity-secret", "").want(401)
	reader := g.post("/agents/me/keys", alice, `{"read_only":true}`).want(201).str("api_key")
	g.get("/identity-secret", reader).want(403)
}
