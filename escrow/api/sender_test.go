package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
)

// sink is a webhook that accepts messages, or refuses them.
type sink struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	messages []*http.Request
	bodies   []string
}

func newSink(t *testing.T) *sink {
	s := &sink{status: 204}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.messages, s.bodies = append(s.messages, r), append(s.bodies, string(body))
		w.WriteHeader(s.status)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// took returns the types of the messages since the last time.
func (s *sink) took(t *testing.T) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var types []string
	for _, body := range s.bodies {
		var message struct{ Type string }
		must(t, json.Unmarshal([]byte(body), &message))
		types = append(types, message.Type)
	}
	s.messages, s.bodies = nil, nil
	return strings.Join(types, ",")
}

func (g *gate) sender(private bool) *api.Sender {
	return api.NewSender(func() *escrow.Book { return g.book }, api.SenderOptions{Private: private, Logger: slog.New(slog.DiscardHandler)})
}

func (g *gate) send(s *api.Sender) time.Time {
	g.t.Helper()
	next, err := s.Send(context.Background())
	must(g.t, err)
	return next
}

func TestWebhooks(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	g.now = time.Now().UTC() // receivers check the time of a signature
	alice, shop := g.agent("alice", "25"), g.agent("shop", "0")
	s, sender := newSink(t), g.sender(true)
	made := g.post("/webhooks", alice, `{"url":"`+s.URL+`/hook","events":["escrow.created","escrow.released","balance.low"],"balance_below":"20"}`).want(201, "events.0", "escrow.created", "balance_below", "20")
	id, secret := made.str("webhook_id"), made.str("secret")
	if text := g.get("/webhooks", alice).want(200, "webhooks.0.webhook_id", id).text; strings.Contains(text, "whsec_") {
		t.Errorf("a list shows secrets: %s", text)
	}
	escrowID := g.post("/escrow", alice, `{"to_agent_id":"shop","amount":6}`).str("escrow_id")
	g.send(sender)
	s.mu.Lock()
	verifier, err := standardwebhooks.NewWebhook(secret)
	must(t, err)
	for i, r := range s.messages {
		if err := verifier.Verify([]byte(s.bodies[i]), r.Header); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if err := verifier.Verify([]byte(s.bodies[i]+" "), r.Header); err == nil {
			t.Error("a changed message verifies")
		}
	}
	all := strings.Join(s.bodies, "\n")
	s.mu.Unlock()
	for _, part := range []string{`"type":"escrow.created"`, `"escrow_id":"` + escrowID + `"`, `"remaining":"6"`, `"data":{"agent_id":"alice","balance":"19","below":"20","currency":"USDC"}`} {
		if !strings.Contains(all, part) {
			t.Errorf("no %s in %s", part, all)
		}
	}
	s.took(t)
	g.send(sender)
	if again := s.took(t); again != "" {
		t.Errorf("delivered twice: %s", again)
	}

	// A sink that is down loses nothing.
	s.answer(500)
	g.post("/escrow/"+escrowID+"/refund", shop, `{"amount":1}`).want(200) // not asked for
	g.post("/escrow/"+escrowID+"/release-partial", alice, `{"amount":1}`).want(200)
	for _, wait := range []time.Duration{0, 5 * time.Second, 30 * time.Second, 2 * time.Minute} {
		g.wait(wait)
		next := g.send(sender)
		if got := s.took(t); got != "escrow.released" {
			t.Fatalf("after %s it was tried to deliver %q", wait, got)
		}
		if !next.After(g.clock()) {
			t.Fatalf("the next attempt is at %s, it is %s", next, g.clock())
		}
		g.send(sender)
		if got := s.took(t); got != "" {
			t.Fatalf("tried before its time: %s", got)
		}
	}
	s.answer(200)
	g.wait(10 * time.Minute)
	g.send(sender)
	if got := s.took(t); got != "escrow.released" {
		t.Errorf("in the end it was delivered %q", got)
	}

	// An answer with 410 deletes the webhook. Messages for a deleted webhook are dropped.
	s.answer(410)
	g.post("/escrow/"+escrowID+"/release", alice, ``).want(200)
	g.send(sender)
	g.get("/webhooks", alice).want(200, "webhooks", "[]")
	g.do("DELETE", "/api/v1/webhooks/"+id, alice, "").want(404)
	second := g.post("/webhooks", alice, `{"url":"`+s.URL+`"}`).want(201, "events", "[]", "balance_below", "null").str("webhook_id")
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	g.do("DELETE", "/api/v1/webhooks/"+second, shop, "").want(404)
	g.do("DELETE", "/api/v1/webhooks/"+second, alice, "").want(204)
	s.took(t)
	if next := g.send(sender); !next.IsZero() || s.took(t) != "" {
		t.Errorf("something waits for a webhook that is gone, until %s", next)
	}
}

// elsewhere is a client that is not on the server's machine.
func elsewhere(*http.Request) string { return "203.0.113.7" }

func TestWebhooksThatAreRefused(t *testing.T) {
	g := newGate(t, rules(), api.Options{Client: elsewhere})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	for _, url := range []string{
		"", "ftp://example.com", "example.com/x", "https://", "https://user:pass@example.com/", "http://127.0.0.1/", "http://10.1.2.3/", "http://[::1]:80/",
		"http://169.254.169.254/latest", "http://localhost:8080/", "http://[::ffff:10.0.0.1]/", "http://0.0.0.0/", "http://100.64.0.1/", "http://[64:ff9b::a00:1]/",
		"http://[::]/", "unix:///run/admin.sock", "unix//run/admin.sock", "http+unix://%2Frun%2Fadmin.sock/stop",
	} {
		g.post("/webhooks", alice, `{"url":"`+url+`"}`).want(422, "field", "url")
	}
	g.post("/webhooks", alice, `{"url":"https://example.com","events":["escrow.exploded"]}`).want(422, "field", "events")
	g.post("/webhooks", alice, `{"url":"https://example.com","balance_below":0}`).want(422, "field", "balance_below")
	for range 20 {
		g.post("/webhooks", alice, `{"url":"https://93.184.215.14/x","events":["balance.low"]}`).want(201)
	}
	g.post("/webhooks", alice, `{"url":"https://example.com/x"}`).want(409, "code", "invalid_status")
}

// TestSpecialAddressesAreRefused tries one address of each block in IANA's registries of special-purpose addresses, and of other blocks that are
// not used on the internet.
// https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
func TestSpecialAddressesAreRefused(t *testing.T) {
	g := newGate(t, rules(), api.Options{Client: elsewhere})
	alice := g.agent("alice", "25")
	for _, host := range []string{
		"0.0.0.1", "10.255.0.1", "100.127.255.254", "127.8.9.10", "169.254.169.254", "172.31.255.254", "192.0.0.8", "192.0.0.170", "192.0.2.1",
		"192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.19.255.254", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
		"[::]", "[::1]", "[::7f00:1]", "[::ffff:127.0.0.1]", "[::ffff:192.168.1.1]", "[64:ff9b::a00:1]", "[64:ff9b:1::1]", "[100::1]", "[100:0:0:1::1]",
		"[2001::1]", "[2001:1::1]", "[2001:2::1]", "[2001:3::1]", "[2001:4:112::1]", "[2001:10::1]", "[2001:20::1]", "[2001:30::1]", "[2001:db8::1]",
		"[2002:7f00:1::1]", "[2620:4f:8000::1]", "[3fff::1]", "[3fff:fff::1]", "[4000::1]", "[5f00::1]", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]",
		"[fec0::1]", "[ff02::1]",
	} {
		g.post("/webhooks", alice, `{"url":"https://`+host+`:8443/x"}`).want(422, "field", "url")
	}
	for _, host := range []string{"93.184.215.14", "100.128.0.1", "172.32.0.1", "[::ffff:8.8.8.8]", "[2001:200::1]", "[2606:4700::1111]", "[3ffe::1]"} {
		g.post("/webhooks", alice, `{"url":"https://`+host+`:8443/x"}`).want(201)
	}
}

// TestPrivateAddressesAreNotDialled: private addresses are not dialled, whatever host name resolves to them.
func TestPrivateAddressesAreNotDialled(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true, Client: elsewhere})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	s := newSink(t)
	g.post("/webhooks", alice, `{"url":"`+strings.Replace(s.URL, "127.0.0.1", "localhost", 1)+`"}`).want(201)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	if next := g.send(g.sender(false)); next.IsZero() {
		t.Error("the message is gone")
	}
	if got := s.took(t); got != "" {
		t.Errorf("a private address got %s", got)
	}
	g.wait(time.Hour)
	g.send(g.sender(true))
	if got := s.took(t); got != "escrow.created" {
		t.Errorf("where it is allowed, it got %q", got)
	}
}

// TestWebhooksOfThisMachine: a caller on the server's own machine may have webhooks at loopback, but at no other private address.
func TestWebhooksOfThisMachine(t *testing.T) {
	g := newGate(t, rules(), api.Options{})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	s := newSink(t)
	g.post("/webhooks", alice, `{"url":"`+s.URL+`"}`).want(201)
	g.post("/webhooks", alice, `{"url":"http://10.1.2.3/"}`).want(422, "field", "url")
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	g.send(g.sender(false))
	if got := s.took(t); got != "escrow.created" {
		t.Errorf("it got %q", got)
	}
}

// TestSenderRuns: events are delivered without further requests.
func TestSenderRuns(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	took := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		took <- body.String()
	}))
	defer s.Close()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { g.sender(true).Run(ctx); close(ended) }()
	g.post("/webhooks", alice, `{"url":"`+s.URL+`"}`).want(201)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	if body := <-took; !strings.Contains(body, "escrow.created") {
		t.Errorf("delivered %s", body)
	}
	stop()
	<-ended
}

// TestOneSenderAtATime: while one sender waits for a webhook's answer, another sender does not send the same message.
func TestOneSenderAtATime(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	reached, answer := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached <- struct{}{}
		<-answer
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	g.post("/webhooks", alice, `{"url":"`+server.URL+`/hook","events":["escrow.created"]}`).want(201)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":6}`).want(201)
	done := make(chan error)
	go func() {
		_, err := g.sender(true).Send(context.Background())
		done <- err
	}()
	<-reached
	if next := g.send(g.sender(true)); !next.After(g.clock()) {
		t.Errorf("a sender that finds another at work is to look again at %s", next)
	}
	close(answer)
	must(t, <-done)
	if len(reached) != 0 {
		t.Error("the message was sent twice")
	}
	if next := g.send(g.sender(true)); !next.IsZero() {
		t.Errorf("something is still to be sent at %s", next)
	}
}

// TestATarpitDelaysOnlyItsOwn: webhooks of one agent that never answer do not delay another agent's messages, however many messages there are.
func TestATarpitDelaysOnlyItsOwn(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	mallory, alice := g.agent("mallory", "100"), g.agent("alice", "25")
	g.agent("shop", "0")
	reached, release := make(chan struct{}, 1000), make(chan struct{})
	tarpit := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	defer tarpit.Close()
	took := make(chan struct{}, 10)
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { took <- struct{}{} }))
	defer good.Close()
	for i := range 20 {
		g.post("/webhooks", mallory, fmt.Sprintf(`{"url":"%s/%d"}`, tarpit.URL, i)).want(201)
	}
	for range 10 {
		g.post("/escrow", mallory, `{"to_agent_id":"shop","amount":1}`).want(201)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { g.sender(true).Run(ctx); close(ended) }()
	for range escrow.DeliveriesOf {
		<-reached
	}
	g.post("/webhooks", alice, `{"url":"`+good.URL+`"}`).want(201)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	<-took
	if n := len(reached); n != 0 {
		t.Errorf("%d more messages of one agent are being sent than %d", n, escrow.DeliveriesOf)
	}
	stop()
	close(release)
	<-ended
}

// TestManyTarpitsDelayOnlyTheirOwn: webhooks of many agents that never answer, with fewer messages each than may be sent at once, do not
// keep the next agent's message waiting.
func TestManyTarpitsDelayOnlyTheirOwn(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	g.agent("shop", "0")
	reached, release := make(chan struct{}, 1000), make(chan struct{})
	tarpit := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	defer tarpit.Close()
	took := make(chan struct{}, 10)
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { took <- struct{}{} }))
	defer good.Close()
	const many = 100 // more agents than are looked up at once
	for i := range many {
		mallory := g.agent(fmt.Sprint("mallory-", i), "2")
		g.post("/webhooks", mallory, `{"url":"`+tarpit.URL+`"}`).want(201)
		g.post("/escrow", mallory, `{"to_agent_id":"shop","amount":1}`).want(201)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { g.sender(true).Run(ctx); close(ended) }()
	for range many {
		<-reached
	}
	alice := g.agent("zoe", "25")
	g.post("/webhooks", alice, `{"url":"`+good.URL+`"}`).want(201)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	<-took
	stop()
	close(release)
	<-ended
}

// TestMessagesThatWaitAreBounded: of the 10,000 messages that may wait for a webhook that accepts none, those about one payer and one payee take at
// most half. The webhook counts those that are lost. For each message that it then accepts, one new message may wait.
func TestMessagesThatWaitAreBounded(t *testing.T) {
	g := newGate(t, rules(), api.Options{PrivateWebhooks: true})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	g.post("/webhooks", alice, `{"url":"https://93.184.215.14/x"}`).want(201, "lost", "0", "lost_at", "null")
	_, err := escrow.Do(t.Context(), g.book, func(tx *escrow.Tx) (struct{}, error) {
		for range 10_003 {
			if err := tx.Withheld(escrow.WithheldCall{Request: "req_1", Payer: "alice", Payee: "shop", Reason: escrow.LimitExceeded}); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	must(t, err)
	g.get("/webhooks", alice).want(200, "webhooks.0.lost", "5003")
	due, _, err := g.book.Deliveries(t.Context(), 1, func(escrow.Delivery) bool { return false })
	must(t, err)
	_, err = escrow.Do(t.Context(), g.book, func(tx *escrow.Tx) (struct{}, error) {
		return struct{}{}, errors.Join(tx.Delivered(due[0], escrow.Attempt{Status: 200}), tx.Delivered(due[0], escrow.Attempt{Status: 200})) // once, whoever else says so
	})
	must(t, err)
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	g.get("/webhooks", alice).want(200, "webhooks.0.lost", "5003")
	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":1}`).want(201)
	g.get("/webhooks", alice).want(200, "webhooks.0.lost", "5004")
}

func TestUserAgent(t *testing.T) {
	for version, want := range map[string]string{"": "Tallygate-Webhooks", "v1.2.0": "Tallygate-Webhooks/v1.2.0", "(devel)": "Tallygate-Webhooks/devel"} {
		if got := api.UserAgent("Tallygate-Webhooks", version); got != want {
			t.Errorf("version %q: %q, want %q", version, got, want)
		}
	}
}
