package mpp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/gateway"
	_ "github.com/tallygate/tallygate/internal/steady"
	"github.com/tallygate/tallygate/pricing"
)

const secretOfTests = "a secret of the tests, of 32 characters or more"

// shop is a metered site at 0.40 a call, and at 5 below /dear, where callers may pay by MPP.
type shop struct {
	t       testing.TB
	url     string
	stripe  *fakeStripe
	books   *ledger.Ledger
	book    *escrow.Book
	gateway *gateway.Gateway
	rail    *Rail
	down    atomic.Bool  // the provider
	ahead   atomic.Int64 // how far the clock is
}

func openRail(t testing.TB, api string, secrets ...string) *Rail {
	t.Helper()
	r := &Rail{Secrets: secrets, TopUp: "1", MethodsRaw: []json.RawMessage{
		json.RawMessage(`{"method":"stripe","secret_key":"` + stripeKey + `","network_id":"profile_1","refunds":"at_once","api":"` + api + `"}`), json.RawMessage(`{"method":"test"}`),
	}}
	must(t, r.provision(caddy.NewReplacer()))
	return r
}

func openShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{t: t, stripe: openStripe(t)}
	s.rail = openRail(t, s.stripe.URL, secretOfTests)
	now := func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	// Nothing but the test's requests may run while the clock is ahead: the books never go back to an earlier time.
	books, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USD", Now: now, Untended: true})
	must(t, err)
	t.Cleanup(func() { must(t, books.Close()) })
	s.books = books
	s.book = escrow.New(books, escrow.Rules{OpenRegistration: true, Rails: []string{"mpp"}})
	must(t, s.book.Reserve(t.Context(), "acme"))
	s.gateway = gateway.New(s.book, gateway.Options{Rails: []gateway.Rail{s.rail}})
	provider := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the provider is shown a credential")
		}
		w.Header().Set("Payment-Receipt", "forged")
		if s.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, "results")
	})
	sites := http.NewServeMux()
	for path, price := range map[string]string{"/": "0.40", "/dear": "5"} {
		price, err := pricing.ParsePrice([]string{price, "per", "call"})
		must(t, err)
		rates, err := pricing.NewRates([]pricing.Price{price})
		must(t, err)
		route := &gateway.Route{Payee: "acme", Name: path, Rates: rates, Keep: &gateway.Keep{Size: 1 << 20, For: time.Hour}, Logger: slog.New(slog.DiscardHandler)}
		sites.Handle(path, s.gateway.Handler(route, provider))
	}
	server := httptest.NewServer(sites)
	t.Cleanup(server.Close)
	s.url = server.URL
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

// receipt returns the receipt of an answer; nil if there is none.
func (a answer) receipt(t testing.TB) (r map[string]string) {
	t.Helper()
	if text := a.Header.Get("Payment-Receipt"); text != "" {
		plain, err := base64.RawURLEncoding.DecodeString(text)
		must(t, err)
		must(t, json.Unmarshal(plain, &r))
	}
	return r
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

// challenge asks how to pay, and returns the parameters of the challenge for a method and an intent.
func (s *shop) challenge(method, intent string) map[string]any {
	s.t.Helper()
	a := s.get("/")
	want(s.t, "without a payment", a.code(), "402 payment_required")
	return challengeOf(s.t, a, method, intent)
}

func challengeOf(t testing.TB, a answer, method, intent string) map[string]any {
	t.Helper()
	for _, value := range a.Header.Values("WWW-Authenticate") {
		params := make(map[string]any)
		for _, pair := range strings.Split(strings.TrimPrefix(value, "Payment "), ", ") {
			name, text, _ := strings.Cut(pair, "=")
			params[name] = strings.Trim(text, `"`)
		}
		if params["method"] == method && params["intent"] == intent {
			return params
		}
	}
	t.Fatalf("no challenge for %s/%s in %q", method, intent, a.Header.Values("WWW-Authenticate"))
	return nil
}

// answers makes a credential for a challenge.
func answers(t testing.TB, challenge map[string]any, payload any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"challenge": challenge, "payload": payload})
	must(t, err)
	return "Payment " + base64.RawURLEncoding.EncodeToString(text)
}

func byStripe(token string) any { return map[string]string{"spt": token} }

// spt makes a credential that pays by Stripe.
func (s *shop) spt() string {
	s.t.Helper()
	return answers(s.t, s.challenge("stripe", "charge"), byStripe(s.stripe.token("usd", 100)))
}

// deposits returns the sum of what was booked.
func (s *shop) deposits() ledger.Amount {
	s.t.Helper()
	world, _, err := s.books.Balance(ledger.World)
	must(s.t, err)
	return -world.Balance()
}

func TestAPaymentServesAndLeavesCredit(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	paid := s.spt()
	first := s.get("/search", "Authorization", paid)
	want(t, "the first call", fmt.Sprint(first.code(), first.Header.Get("Tallygate-Balance"), first.body), "2000.6results")
	if got := first.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	receipt := first.receipt(t)
	want(t, "the receipt", receipt["status"]+receipt["method"]+receipt["reference"], "successstripepi_1")
	key := strings.TrimPrefix(first.Header.Get("Authorization"), "Bearer ")
	again := s.get("/search", "Authorization", paid)
	want(t, "the same request again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed"), again.body, again.receipt(t)["reference"]), "200trueresultspi_1")
	want(t, "the credential with another request", s.get("/other", "Authorization", paid).code(), "402 payment_refused used")
	want(t, "by the key", s.get("/", "Authorization", "Bearer "+key).Header.Get("Tallygate-Balance"), "0.2")

	short := s.get("/", "Tallygate-Key", key)
	want(t, "the credit does not reach", short.code(), "402 insufficient_funds")
	topUp := answers(t, challengeOf(t, short, "stripe", "charge"), byStripe(s.stripe.token("usd", 100)))
	want(t, "a payment beside the key is for the key's agent", s.get("/", "Tallygate-Key", key, "Authorization", topUp).Header.Get("Tallygate-Balance"), "0.8")
	want(t, "without the key it is another's", s.get("/", "Authorization", topUp).code(), "402 payment_refused used")
	want(t, "asked", s.stripe.asked, 2)
	want(t, "booked", s.deposits(), "2")
}

// TestWhoPaysMoreIsTheSame: if what was paid does not reach, the next payment is for the same wallet, though Stripe does not say who pays.
func TestWhoPaysMoreIsTheSame(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	first := s.get("/dear", "Authorization", s.spt())
	want(t, "too little", first.code(), "402 insufficient_funds")
	challenge := challengeOf(t, first, "stripe", "charge")
	second := s.get("/dear", "Authorization", answers(t, challenge, byStripe(s.stripe.token("usd", 1000))))
	want(t, "enough", fmt.Sprint(second.code(), second.Header.Get("Tallygate-Balance")), "2001")
	want(t, "booked", s.deposits(), "6")
	want(t, "by the key of the refusal", s.get("/", "Authorization", first.Header.Get("Authorization")).Header.Get("Tallygate-Balance"), "0.6")
}

// TestAChargeIsSpentWithoutItsKey: a client that has not kept the key shows what it has paid with, and spends what is left of that. Nothing is
// paid twice, and nobody else can do so.
func TestAChargeIsSpentWithoutItsKey(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	bearer := func(method, member, text string) string {
		return answers(t, s.challenge(method, "charge"), map[string]string{"action": "bearer", member: text})
	}
	for _, method := range []struct{ name, member, text, other string }{
		{"stripe", "spt", s.stripe.token("usd", 100), s.stripe.token("usd", 100)},
		{"test", "token", "a-token-of-a-payer", "a-token-of-another"},
	} {
		want(t, "before it was paid", s.get("/", "Authorization", bearer(method.name, method.member, method.text)).code(), "402 payment_required")
		paid := answers(t, s.challenge(method.name, "charge"), map[string]string{method.member: method.text})
		want(t, "paid, and the key is not kept", s.get("/", "Authorization", paid).Header.Get("Tallygate-Balance"), "0.6")
		again := bearer(method.name, method.member, method.text)
		got := s.get("/", "Authorization", again)
		want(t, "what is left", fmt.Sprint(got.code(), got.Header.Get("Tallygate-Balance"), got.receipt(t), got.Header.Get("Authorization")), "2000.2map[]")
		same := s.get("/", "Authorization", again)
		want(t, "the same request again", fmt.Sprint(same.code(), same.Header.Get("Idempotency-Replayed"), same.Header.Get("Tallygate-Charge")), fmt.Sprint("200true", got.Header.Get("Tallygate-Charge")))
		want(t, "another request with it", s.get("/other", "Authorization", again).code(), "402 payment_refused used")
		short := s.get("/", "Authorization", bearer(method.name, method.member, method.text))
		want(t, "used up", short.code(), "402 insufficient_funds")
		want(t, "another payer", s.get("/", "Authorization", bearer(method.name, method.member, method.other)).code(), "402 payment_required")
		late := bearer(method.name, method.member, method.text)
		s.ahead.Store(int64(challengeFor))
		want(t, "an expired challenge", s.get("/", "Authorization", late).code(), "402 payment_refused payment-expired")
		s.ahead.Store(0)
	}
	want(t, "no token", s.get("/", "Authorization", bearer("stripe", "spt", "x")).code(), "402 payment_refused malformed-credential")
	want(t, "asked, and booked", fmt.Sprint(s.stripe.asked, " ", s.deposits()), "1 2")
}

func TestCredentialsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	good := s.challenge("stripe", "charge")
	changed := func(name string, value any) map[string]any {
		other := make(map[string]any)
		for k, v := range good {
			other[k] = v
		}
		other[name] = value
		return other
	}
	cheap := base64.RawURLEncoding.EncodeToString([]byte(`{"amount":"1","currency":"usd"}`))
	foreign := openRail(t, s.stripe.URL, strings.Repeat("another secret ", 3))
	header := make(http.Header)
	foreign.Challenge(gateway.Need{URL: s.url + "/", At: time.Now()}, header)
	theirs := challengeOf(t, answer{Response: &http.Response{Header: header}}, "stripe", "charge")
	header = make(http.Header)
	s.rail.Challenge(gateway.Need{URL: "https://other.example/", At: time.Now()}, header)
	elsewhere := challengeOf(t, answer{Response: &http.Response{Header: header}}, "stripe", "charge")
	token := byStripe(s.stripe.token("usd", 100))
	for _, test := range []struct{ what, credential, code string }{
		{"no base64url", "Payment %%%", malformed},
		{"cut off", answers(t, good, nil)[:40], malformed},
		{"too long", "Payment " + strings.Repeat("A", 17<<10), malformed},
		{"not a token", answers(t, good, byStripe("spt_../../x")), malformed},
		{"an altered amount", answers(t, changed("request", cheap), token), invalidChallenge},
		{"an altered end", answers(t, changed("expires", "2999-01-01T00:00:00Z"), token), invalidChallenge},
		{"another intent", answers(t, changed("intent", "session"), token), invalidChallenge},
		{"a digest that was not asked for", answers(t, changed("digest", "sha-256=:x:"), token), invalidChallenge},
		{"another secret", answers(t, theirs, token), invalidChallenge},
		{"another host", answers(t, elsewhere, token), invalidChallenge},
		{"no such token", answers(t, good, byStripe("spt_none")), failed},
		{"a token for less", answers(t, good, byStripe(s.stripe.token("usd", 99))), "payment-insufficient"},
		{"a token in another currency", answers(t, good, byStripe(s.stripe.token("eur", 100))), "payment-insufficient"},
		{"an action that does not exist", answers(t, s.challenge("test", "session"), map[string]string{"action": "close", "preimage": strings.Repeat("0", 64)}), malformed},
		{"a session's id that is not its own", answers(t, s.challenge("test", "session"), map[string]string{"action": "bearer", "sessionId": "1", "preimage": strings.Repeat("0", 64)}), failed},
	} {
		a := s.get("/", "Authorization", test.credential)
		want(t, test.what, a.code(), "402 payment_refused "+test.code)
		challengeOf(t, a, "stripe", "charge") // another one
	}
	late := answers(t, good, token)
	s.ahead.Store(int64(challengeFor))
	want(t, "expired", s.get("/", "Authorization", late).code(), "402 payment_refused expired")
	want(t, "two credentials", s.get("/", "Authorization", late, "Authorization", late).code(), "402 payment_refused malformed-credential")
	want(t, "asked to take", s.stripe.asked, 0)
}

func TestASessionDrawsFromItsDeposit(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	preimage := hex.EncodeToString([]byte(strings.Repeat("s", 32)))
	sum := sha256.Sum256([]byte(strings.Repeat("s", 32)))
	id := hex.EncodeToString(sum[:])
	show := func(action string, more ...string) answer {
		payload := map[string]string{"action": action, "preimage": preimage}
		for i := 0; i < len(more); i += 2 {
			payload[more[i]] = more[i+1]
		}
		return s.get("/", "Authorization", answers(t, s.challenge("stripe", "session"), payload))
	}
	opened := show("open", "spt", s.stripe.token("usd", 100))
	want(t, "opened", fmt.Sprint(opened.code(), opened.Header.Get("Tallygate-Balance"), opened.receipt(t)["sessionId"], opened.receipt(t)["paymentReference"]), "2000.6"+id+"pi_1")
	challenge := s.challenge("stripe", "session")
	drawn := answers(t, challenge, map[string]string{"action": "bearer", "preimage": preimage, "sessionId": id})
	second := s.get("/", "Authorization", drawn)
	want(t, "drawn", fmt.Sprint(second.code(), second.Header.Get("Tallygate-Balance"), second.receipt(t)["reference"]), "2000.2"+id)
	again := s.get("/", "Authorization", drawn)
	want(t, "the same again", fmt.Sprint(again.code(), again.Header.Get("Idempotency-Replayed")), "200true")
	s.ahead.Store(int64(challengeFor))
	want(t, "an expired challenge", s.get("/", "Authorization", drawn).code(), "402 payment_refused payment-expired")
	s.ahead.Store(0)
	short := show("bearer", "sessionId", id)
	want(t, "used up", fmt.Sprint(short.code(), short.receipt(t)), "402 insufficient_fundsmap[]")
	more := show("topUp", "sessionId", id, "spt", s.stripe.token("usd", 100))
	want(t, "topped up", fmt.Sprint(more.code(), more.Header.Get("Tallygate-Balance")), "2000.8")
	want(t, "the same with another request", s.get("/other", "Authorization", drawn).code(), "402 payment_refused used")
	preimage = hex.EncodeToString([]byte(strings.Repeat("t", 32)))
	want(t, "a session that was not opened", show("bearer").code(), "402 payment_required")
	want(t, "booked", s.deposits(), "2")
}

func TestTheMethodTestKnowsItsPayers(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	for _, left := range []string{"0.6", "1.2"} {
		a := s.get("/", "Authorization", answers(t, s.challenge("test", "charge"), map[string]string{"token": "a-token-of-a-payer"}))
		want(t, "paid", fmt.Sprint(a.code(), a.Header.Get("Tallygate-Balance")), "200"+left)
	}
	a := s.get("/", "Authorization", answers(t, s.challenge("test", "charge"), map[string]string{"token": "guessable"}))
	want(t, "a short token", a.code(), "402 payment_refused malformed-credential")
}

func TestFaultsOfStripe(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	paid := s.spt()
	try := func(fault, expected string) {
		t.Helper()
		s.stripe.set(fault)
		want(t, fault, s.get("/", "Authorization", paid).code(), expected)
	}
	try(isDown, "503 rail_unavailable none")
	try(declines, "402 payment_refused verification-failed")
	try("", "402 payment_refused verification-failed") // Stripe says for this key what it has said

	paid = s.spt()
	try(isBusy, "503 rail_unavailable unknown")
	want(t, "nothing is booked", s.deposits(), "0")
	try(loses, "503 rail_unavailable unknown")
	other := s.stripe.token("usd", 100)
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(paid, "Payment "))
	must(t, err)
	var c credential
	must(t, json.Unmarshal(text, &c))
	s.stripe.set("")
	want(t, "the challenge with another token", s.get("/", "Authorization", answers(t, asMap(t, c.Challenge), byStripe(other))).code(), "503 rail_unavailable unknown")
	s.down.Store(true)
	a := s.get("/", "Authorization", paid)
	want(t, "paid, and the provider is down", fmt.Sprint(a.StatusCode, a.receipt(t), a.Header.Get("Authorization") != ""), "502 map[] true")
	want(t, "the money stays", s.deposits(), "1")
	s.down.Store(false)
	try("", "200")
	want(t, "paid once", fmt.Sprint(s.stripe.paid(), s.deposits()), "100 1")

	paid = s.spt()
	try(wantsMore, "402 payment_refused verification-failed")
	paid = s.spt()
	try(processes, "503 rail_unavailable unknown")
	s.stripe.process("succeeded")
	try("", "200")
	paid = s.spt()
	try(processes, "503 rail_unavailable unknown")
	s.stripe.process("canceled")
	try("", "402 payment_refused verification-failed")
	paid = s.spt()
	try(losesLate, "503 rail_unavailable unknown")
	try("", "402 payment_refused verification-failed")
	pending, err := s.book.PendingPayments(10)
	must(t, err)
	want(t, "pending", len(pending), 0)
	want(t, "in the end", fmt.Sprint(s.stripe.paid(), s.deposits()), "200 2")
}

func asMap(t testing.TB, v any) (m map[string]any) {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	must(t, json.Unmarshal(text, &m))
	return m
}

// TestPaidIsBooked makes payments while Stripe fails as it likes. What Stripe has taken in the end is what was booked.
func TestPaidIsBooked(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	rapid.Check(t, func(rt *rapid.T) {
		var made []string
		for range rapid.IntRange(1, 6).Draw(rt, "calls") {
			s.stripe.set(rapid.SampledFrom(faults).Draw(rt, "fault"))
			s.down.Store(rapid.Bool().Draw(rt, "the provider is down"))
			if len(made) == 0 || rapid.Bool().Draw(rt, "another payment") {
				made = append(made, s.spt())
			}
			paid := rapid.SampledFrom(made).Draw(rt, "payment")
			var both sync.WaitGroup
			for range 2 { // the same payment twice at the same time
				both.Go(func() { s.send(paid) })
			}
			both.Wait()
		}
		s.stripe.set("")
		s.down.Store(false)
		s.stripe.process(rapid.SampledFrom([]string{"succeeded", "canceled"}).Draw(rt, "what was processing"))
		s.ahead.Add(int64(3 * time.Minute)) // no request waits any more
		must(t, s.gateway.CollectPending(t.Context(), slog.New(slog.DiscardHandler)))
		pending, err := s.book.PendingPayments(10)
		must(t, err)
		if booked := s.deposits(); len(pending) > 0 || int64(booked) != s.stripe.paid()*10_000_000 {
			rt.Errorf("Stripe has taken %d cents, and %s is booked; %d payments are pending", s.stripe.paid(), booked, len(pending))
		}
	})
}

// send makes a call on a goroutine that is not the test's own.
func (s *shop) send(credential string) {
	r, err := http.NewRequest(http.MethodGet, s.url+"/", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", credential)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	response.Body.Close()
}

// TestTheCodeOfAChallenge: the code is that of the draft, as the reference implementation computes it, and a secret may be changed.
// https://github.com/wevm/mppx/blob/d343aae/src/Challenge.test.ts
func TestTheCodeOfAChallenge(t *testing.T) {
	t.Parallel()
	amount := map[string]any{"amount": "1000000"}
	for _, test := range []struct {
		c    challenge
		code string
	}{
		{challenge{Request: encode(amount)}, "X6v1eo7fJ76gAxqY0xN9Jd__4lUyDDYmriryOM-5FO4"},
		{challenge{Request: encode(map[string]any{"amount": "1000000", "currency": "0x1234", "methodDetails": map[string]int{"chainId": 42431}})}, "TqujwpuDDg_zsWGINAd5XObO2rRe6uYufpqvtDmr6N8"},
		{challenge{Request: encode(amount), Opaque: encode(map[string]string{"pi": "pi_3abc123XYZ", "deposit": "dep_456"})}, "aKskU8sadR5ZuFbUCsIwhO-ENxuVpTw17FdwHEXsJDk"},
		{challenge{Request: encode(amount), Expires: "2025-01-06T12:00:00Z", Opaque: encode(map[string]string{"pi": "pi_3abc123XYZ"})}, "KAfoMrA4fnzS1DPWN_cUv_b3_yHxCizdp6OhH7gluMY"},
	} {
		test.c.Realm, test.c.Method, test.c.Intent = "api.example.com", "tempo", "charge"
		want(t, test.c.String(), test.c.bind("test-vector-secret"), test.code)
	}
	c := challenge{Realm: "api.example.com", Method: "test", Intent: "charge", Request: encode(amount)}
	before := openRail(t, "http://127.0.0.1:1", secretOfTests)
	after := openRail(t, "http://127.0.0.1:1", strings.Repeat("a new secret ", 3), secretOfTests)
	c.ID = c.bind(secretOfTests)
	want(t, "under the secret before", fmt.Sprint(before.isOurs(c), after.isOurs(c)), "true true")
}

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	stripe := "\n method stripe {\n  secret_key sk\n  network_id profile_1\n  payment_method_types card link\n }\n"
	for _, test := range []struct{ block, err string }{
		{"{\n secret " + strings.Repeat("s", 32) + "\n top_up 5\n currency eur 2" + stripe + " method test\n}", ""},
		{"{\n secret " + strings.Repeat("s", 32) + stripe + "}", "has no top_up"},
		{"{\n secret s\n secret s\n}", "given twice"},
		{"{\n chain 1\n}", "unrecognized subdirective"},
		{"{\n method gold\n}", `no method "gold"`},
		{"{\n method stripe {\n  key sk\n }\n}", `"key" of the method stripe`},
		{"{\n method test {\n  key sk\n }\n}", "has no block"},
	} {
		var rail Rail
		err := rail.UnmarshalCaddyfile(caddyfile.NewTestDispenser("mpp " + test.block))
		if err == nil {
			err = rail.provision(caddy.NewReplacer())
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.block, err, test.err)
		}
	}
	long := []string{secretOfTests}
	test := []json.RawMessage{json.RawMessage(`{"method":"test"}`)}
	for what, rail := range map[string]Rail{
		"32":             {Secrets: []string{"short"}, TopUp: "1", MethodsRaw: test},
		"currency":       {Secrets: long, Currency: "USD", TopUp: "1", MethodsRaw: test},
		"only 2":         {Secrets: long, TopUp: "0.001", MethodsRaw: test},
		"no method":      {Secrets: long, TopUp: "1"},
		"given twice":    {Secrets: long, TopUp: "1", MethodsRaw: append(test, test...)},
		"secret_key":     {Secrets: long, TopUp: "1", MethodsRaw: []json.RawMessage{json.RawMessage(`{"method":"stripe","network_id":"p"}`)}},
		"network_id":     {Secrets: long, TopUp: "1", MethodsRaw: []json.RawMessage{json.RawMessage(`{"method":"stripe","secret_key":"p"}`)}},
		"unknown field":  {Secrets: long, TopUp: "1", MethodsRaw: []json.RawMessage{json.RawMessage(`{"method":"test","x":1}`)}},
		"expected a URL": {Secrets: long, TopUp: "1", MethodsRaw: []json.RawMessage{json.RawMessage(`{"method":"stripe","secret_key":"p","network_id":"p","api":"x"}`)}},
	} {
		if err := rail.provision(caddy.NewReplacer()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
