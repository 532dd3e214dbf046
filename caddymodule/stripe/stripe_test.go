package stripe_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/tallygate/tallygate/caddymodule"
	_ "github.com/tallygate/tallygate/caddymodule/stripe"
	"github.com/tallygate/tallygate/internal/commandtest"
)

const (
	operatorKey = "operator-key-of-the-tests"
	secretKey   = "sk_test_of_the_tests"
)

// shop is a real Caddy whose cashier is a fake Stripe. Only one runs at a time in a process.
type shop struct {
	t      testing.TB
	url    string
	stripe *fake
	file   string // the Caddyfile
	config []byte
	log    string
	n      int
}

func openShop(t testing.TB, currency string, more ...string) *shop {
	t.Helper()
	s := newShop(t, currency, more...)
	var err error
	s.config, _, err = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.file), nil)
	must(t, err)
	must(t, caddy.Load(s.config, true))
	t.Cleanup(func() {
		must(t, caddy.Stop())
		s.checkLog()
	})
	return s
}

// newShop prepares a shop that is not open. more are lines of the config of its cashier.
func newShop(t testing.TB, currency string, more ...string) *shop {
	t.Helper()
	if !slices.Contains(more, "refunds by_operator") {
		more = append(more, "refunds at_once")
	}
	s := &shop{t: t, stripe: openFake(t), log: filepath.Join(t.TempDir(), "log")}
	s.url = "http://" + commandtest.FreeAddress(t)
	t.Setenv("TEST_STRIPE_KEY", secretKey)
	s.file = fmt.Sprintf(`{
	admin off
	auto_https off
	log {
		output file %s
	}
	tallygate {
		ledger bolt %s
		operator_key %s
		registration open
		faucet 3.00
		cashier stripe {
			secret_key {env.TEST_STRIPE_KEY}
			webhook_secret %s
			currency %s
			min 1
			max 500
			check_every 50ms
			%s
			success_url https://shop.example/paid
			api %s
		}
	}
}
%s {
	tallygate
}
`, s.log, filepath.Join(t.TempDir(), "ledger.db"), operatorKey, webhookSecret, currency, strings.Join(more, "\n"), s.stripe.URL, s.url)
	return s
}

// checkLog looks for secrets in the log.
func (s *shop) checkLog() {
	s.t.Helper()
	text, err := os.ReadFile(s.log)
	must(s.t, err)
	for _, secret := range []string{secretKey, webhookSecret, operatorKey, "must_not_be_logged"} {
		if bytes.Contains(text, []byte(secret)) {
			s.t.Errorf("the log has the secret %s", secret)
		}
	}
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

// words returns values with spaces between them.
func words(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }

type answer struct {
	status int
	object
}

func (a answer) code() string {
	if code, is := a.object["code"].(string); is {
		return fmt.Sprint(a.status, " ", code)
	}
	return fmt.Sprint(a.status)
}

func (s *shop) send(method, path, key string, body []byte, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+"/api/v1"+path, bytes.NewReader(body))
	must(s.t, err)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	for errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		// The config before the last reload has accepted the connection while it closed, and has read no request: it answers those it reads.
		r.Body, err = r.GetBody()
		must(s.t, err)
		response, err = http.DefaultClient.Do(r)
	}
	must(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(s.t, err)
	a := answer{status: response.StatusCode}
	if len(text) > 0 {
		must(s.t, json.Unmarshal(text, &a.object))
	}
	return a
}

func (s *shop) do(method, path, key, body string, headers ...string) answer {
	s.t.Helper()
	return s.send(method, path, key, []byte(body), headers...)
}

// agent makes an agent, and returns its id and key.
func (s *shop) agent() (id, key string) {
	s.t.Helper()
	s.n++
	id = fmt.Sprintf("agent-%d", s.n)
	a := s.do("POST", "/agents", "", fmt.Sprintf(`{"agent_id":%q}`, id))
	want(s.t, "an agent", a.code(), 201)
	return id, a.object["api_key"].(string)
}

// deliver sends an event to the shop.
func (s *shop) deliver(event object) answer {
	s.t.Helper()
	body, header := signed(s.t, event, webhookSecret, time.Now())
	return s.send("POST", "/checkout/events", "", body, "Stripe-Signature", header)
}

func (s *shop) delivered(event object) {
	s.t.Helper()
	want(s.t, words(event["type"]), s.deliver(event).code(), 204)
}

// paid has a person pay an amount, and books it.
func (s *shop) paid(key, amount string, save bool) (intent object) {
	s.t.Helper()
	a := s.do("POST", "/checkout", key, fmt.Sprintf(`{"amount":%q,"save":%v}`, amount, save))
	want(s.t, "a page", a.code(), 201)
	intent, event := s.stripe.pay(a.object["checkout_id"].(string))
	s.delivered(event)
	return intent
}

func (s *shop) wallet(key string) string {
	s.t.Helper()
	a := s.do("GET", "/wallet", key, "")
	text := fmt.Sprintf("%v held %v", a.object["balance"], a.object["held"])
	if debt, is := a.object["debt"]; is {
		text += fmt.Sprint(" debt ", debt)
	}
	return text
}

func (s *shop) status(agent string) string {
	s.t.Helper()
	return fmt.Sprint(s.do("GET", "/agents/"+agent, operatorKey, "").object["status"])
}

// TestCheckout: a person pays on Stripe's page, and the wallet gets that once, however often and how Stripe tells it.
func TestCheckout(t *testing.T) {
	s := openShop(t, "usd")
	id, key := s.agent()
	a := s.do("POST", "/checkout", key, `{"amount":"12.34"}`, "Idempotency-Key", "one")
	want(t, "a page", a.code(), 201)
	again := s.do("POST", "/checkout", key, `{"amount":"12.34"}`, "Idempotency-Key", "one")
	want(t, "the same page", again.object["checkout_id"], a.object["checkout_id"])
	if url, _ := a.object["url"].(string); !strings.HasPrefix(url, "https://checkout.stripe.test/") || a.object["agent_id"] != id {
		t.Errorf("the page is %v", a.object)
	}
	page := s.stripe.sessions[a.object["checkout_id"].(string)]
	want(t, "what Stripe is asked for", words(page.Minor, page.Currency, page.Save, page.Success), "1234 usd false https://shop.example/paid")
	intent, event := s.stripe.pay(page.ID)
	for range 3 {
		s.delivered(event)
	}
	s.delivered(s.stripe.event("payment_intent.succeeded", copyOf(intent)))
	s.delivered(s.stripe.event("checkout.session.async_payment_succeeded", event["data"].(object)["object"].(object)))
	want(t, "the wallet", s.wallet(key), "12.34 held 0")
	entries := s.do("GET", "/wallet/entries", key, "").object["entries"].([]any)
	entry := entries[0].(object)
	want(t, "the entry", words(len(entries), entry["kind"], entry["reference"], entry["memo"]), words(1, "deposit", intent["id"], "stripe", intent["latest_charge"]))

	for what, body := range map[string]string{
		"too little": `{"amount":"0.50"}`, "too much": `{"amount":"500.01"}`, "half a cent": `{"amount":"5.005"}`, "nothing": `{"amount":"0"}`, "no amount": `{}`,
		"another's wallet": `{"amount":"5","agent_id":"agent-9"}`,
	} {
		code := s.do("POST", "/checkout", key, body).code()
		if code != "422 invalid_request" && code != "404 not_found" {
			t.Errorf("%s: %s", what, code)
		}
	}
	readOnly := s.do("POST", "/agents/me/keys", key, `{"read_only":true}`).object["api_key"].(string)
	want(t, "a key that only reads", s.do("POST", "/checkout", readOnly, `{"amount":"5"}`).code(), "403 forbidden")
	want(t, "without a key", s.do("POST", "/checkout", "", `{"amount":"5"}`).code(), "401 unauthorized")
	s.stripe.set("down")
	down := s.do("POST", "/checkout", key, `{"amount":"5"}`)
	want(t, "Stripe is down", words(down.code(), down.object["paid"]), "503 rail_unavailable none")
}

// TestEventsThatAreRefused: what Stripe has not signed, or long ago, is not read; what is not about a wallet of this ledger changes nothing.
func TestEventsThatAreRefused(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	a := s.do("POST", "/checkout", key, `{"amount":"5"}`)
	intent, event := s.stripe.pay(a.object["checkout_id"].(string))
	body, header := signed(t, event, webhookSecret, time.Now())
	for what, sent := range map[string]struct {
		body   []byte
		header string
	}{
		"no signature":      {body, ""},
		"altered":           {bytes.Replace(body, []byte("500"), []byte("900"), 1), header},
		"another secret":    second(signed(t, event, "whsec_other", time.Now())),
		"replayed tomorrow": second(signed(t, event, webhookSecret, time.Now().Add(-24*time.Hour))),
		"no JSON":           {[]byte("{"), header},
	} {
		got := s.send("POST", "/checkout/events", "", sent.body, "Stripe-Signature", sent.header)
		want(t, what, got.code(), "401 unauthorized")
	}
	want(t, "too large", s.send("POST", "/checkout/events", "", make([]byte, 2<<20), "Stripe-Signature", header).code(), "413 request_too_large")
	want(t, "the wallet", s.wallet(key), "0 held 0")

	metadata := intent["metadata"].(object)
	own := metadata["tallygate_ledger"]
	metadata["tallygate_ledger"] = "another"
	s.delivered(event)
	metadata["tallygate_ledger"] = ""
	s.delivered(event)
	s.delivered(s.stripe.event("customer.created", object{"id": "cus_1", "object": "customer"}))
	s.delivered(s.stripe.event("charge.refunded", object{"id": "ch_x", "object": "charge", "payment_intent": nil}))
	want(t, "the wallet after payments for others", s.wallet(key), "0 held 0")
	metadata["tallygate_ledger"] = own
	intent["status"] = "processing"
	s.delivered(event)
	want(t, "the wallet while the payment is processed", s.wallet(key), "0 held 0")
	intent["status"] = "succeeded"
	intent["currency"] = "eur"
	want(t, "in another currency", s.deliver(event).status, 503)
	intent["currency"] = "usd"
	s.stripe.set("down")
	want(t, "Stripe is down", s.deliver(event).code(), "503 rail_unavailable")
	s.stripe.set("")
	s.delivered(event)
	want(t, "the wallet at the end", s.wallet(key), "5 held 0")
}

func second(body []byte, header string) struct {
	body   []byte
	header string
} {
	return struct {
		body   []byte
		header string
	}{body, header}
}

// TestTakenBack: refunds and disputes are taken from the wallet. What it lacks is a debt, which suspends the agent, and which its next deposit
// pays first.
func TestTakenBack(t *testing.T) {
	s := openShop(t, "usd")
	id, key := s.agent()
	_, sinkKey := s.agent()
	sink := "agent-2"
	first := s.paid(key, "10", false)
	refund, event := s.stripe.refund(first, 400)
	for range 2 {
		s.delivered(event)
	}
	want(t, "after a refund", s.wallet(key), "6 held 0")
	failed := s.stripe.failRefund(refund)
	for range 2 {
		s.delivered(failed)
		s.delivered(event)
	}
	want(t, "after the refund has failed", s.wallet(key), "10 held 0")
	want(t, "spending", s.do("POST", "/wallet/transfer", key, fmt.Sprintf(`{"to_agent_id":%q,"amount":"7"}`, sink)).code(), 200)
	dispute, events := s.stripe.dispute(first, 1000)
	for range 2 {
		s.delivered(events[1])
		s.delivered(events[0])
	}
	want(t, "after a dispute", s.wallet(key), "0 held 0 debt 7")
	want(t, "its agent", s.status(id), "suspended")
	want(t, "the operator is told", s.do("GET", "/agents/"+id, operatorKey, "").object["debt"], "7")
	shown := s.dashboard(operatorKey, "/agents/"+id)
	if !strings.Contains(shown, "This agent owes 7,") || !strings.Contains(shown, "a payment was taken back after its money was spent: 7") {
		t.Errorf("the operator's page does not show the debt and why the agent is suspended:\n%s", shown)
	}
	if list := s.dashboard(operatorKey, "/agents"); !strings.Contains(list, "a payment was taken back after its money was spent: 7") {
		t.Errorf("the operator's list does not show why the agent is suspended:\n%s", list)
	}
	want(t, "a suspended agent spends nothing", s.do("POST", "/wallet/transfer", key, fmt.Sprintf(`{"to_agent_id":%q,"amount":"1"}`, sink)).code(), "403 forbidden")
	s.paid(key, "5", false) // a suspended agent may pay
	want(t, "a deposit pays the debt", s.wallet(key), "0 held 0 debt 2")
	s.delivered(s.stripe.win(dispute))
	s.delivered(events[1])
	want(t, "after the dispute is won", s.wallet(key), "8 held 0")
	want(t, "its agent", s.status(id), "suspended")
	want(t, "the operator ends that", s.do("POST", "/agents/"+id+"/resume", operatorKey, "").code(), 200)
	want(t, "the sink keeps its money", s.wallet(sinkKey), "7 held 0")
	debts := s.do("GET", "/wallet/entries", key, "").object["entries"].([]any)
	kinds := ""
	for _, entry := range debts {
		kinds += fmt.Sprint(entry.(object)["kind"], " ")
	}
	want(t, "the statement", kinds, "debt returned debt deposit taken_back transfer returned taken_back deposit ")
}

// dashboard returns a page of the dashboard, as who has this key sees it.
func (s *shop) dashboard(key, page string) string {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	must(s.t, err)
	reader := &http.Client{Jar: jar}
	read := func(response *http.Response, err error) string {
		must(s.t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(s.t, err)
		return string(text)
	}
	form := url.Values{"key": {key}}
	for _, field := range hiddenField.FindAllStringSubmatch(read(reader.Get(s.url+"/dashboard/login")), -1) {
		form.Set(field[1], field[2])
	}
	read(reader.PostForm(s.url+"/dashboard/login", form))
	return read(reader.Get(s.url + "/dashboard" + page))
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)

// TestEventsOutOfOrder: a refund is told before its payment, and a dispute that is won before it began.
func TestEventsOutOfOrder(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	page := s.do("POST", "/checkout", key, `{"amount":"10"}`).object["checkout_id"].(string)
	intent, paid := s.stripe.pay(page)
	_, refunded := s.stripe.refund(intent, 100)
	dispute, disputed := s.stripe.dispute(intent, 900)
	s.delivered(refunded)
	want(t, "a refund first", s.wallet(key), "0 held 0")
	won := s.stripe.win(dispute)
	s.delivered(won)
	for _, event := range []object{disputed[0], disputed[1], paid} {
		s.delivered(event)
	}
	want(t, "in the end", s.wallet(key), "9 held 0")
}

// TestZeroDecimals: a currency without smaller units.
func TestZeroDecimals(t *testing.T) {
	s := openShop(t, "jpy")
	_, key := s.agent()
	intent := s.paid(key, "500", false)
	want(t, "what was paid", intent["amount"], 500)
	want(t, "the wallet", s.wallet(key), "500 held 0")
	want(t, "half a yen", s.do("POST", "/checkout", key, `{"amount":"10.5"}`).code(), "422 invalid_request")
}

// TestPayouts: money that a payee asks for is set aside, and goes out once.
func TestPayouts(t *testing.T) {
	s := openShop(t, "usd")
	id, key := s.agent()
	_, other := s.agent()
	s.do("POST", "/faucet", key, "")
	s.paid(key, "10", false)
	want(t, "play money is not paid out", s.do("POST", "/payouts", key, `{"amount":"11","to":"acct_1"}`).code(), "402 insufficient_funds")
	ask := func(amount, to string) string {
		t.Helper()
		a := s.do("POST", "/payouts", key, fmt.Sprintf(`{"amount":%q,"to":%q}`, amount, to))
		want(t, "a payout", words(a.code(), a.object["status"]), "201 requested")
		return fmt.Sprint(a.object["payout_id"])
	}
	one, two, three := ask("4", "acct_1"), ask("3", "acct_gone"), ask("2", "acct_2")
	want(t, "the wallet", s.wallet(key), "13 held 9")
	want(t, "more than there is", s.do("POST", "/payouts", key, `{"amount":"2","to":"acct_1"}`).code(), "402 insufficient_funds")
	want(t, "another's payout", s.do("GET", "/payouts/"+one, other, "").code(), "404 not_found")
	want(t, "an agent books", s.do("POST", "/payouts/"+one+"/book", key, `{"reference":"x"}`).code(), "403 forbidden")
	book := func(payout, reference string) answer {
		return s.do("POST", "/payouts/"+payout+"/book", operatorKey, fmt.Sprintf(`{"reference":%q}`, reference))
	}
	for range 2 {
		want(t, "booked", book(one, "bank-1").code(), 200)
	}
	want(t, "booked with another reference", book(one, "bank-2").code(), "409 invalid_status")
	want(t, "another with the same reference", book(two, "bank-1").code(), "409 already_exists")
	want(t, "refused after it was paid", s.do("POST", "/payouts/"+one+"/refuse", operatorKey, "").code(), "409 invalid_status")
	want(t, "Stripe refuses", s.do("POST", "/payouts/"+two+"/send", operatorKey, "").code(), "409 invalid_status")
	want(t, "then it can be refused", s.do("POST", "/payouts/"+two+"/refuse", operatorKey, `{"reason":"no account"}`).code(), 200)

	s.stripe.set("lose")
	lost := s.do("POST", "/payouts/"+three+"/send", operatorKey, "")
	want(t, "the answer is lost", words(lost.code(), lost.object["paid"]), "503 rail_unavailable unknown")
	want(t, "what may have been sent is not refused", s.do("POST", "/payouts/"+three+"/refuse", operatorKey, "").code(), "409 invalid_status")
	s.stripe.set("")
	clear(s.stripe.answers) // Stripe forgets idempotency keys
	for range 2 {
		s.do("POST", "/payouts/"+three+"/send", operatorKey, "")
	}
	want(t, "transfers", len(s.stripe.sent), 1)
	done := s.do("GET", "/payouts/"+three, key, "").object
	want(t, "the payout", words(done["status"], done["reference"]), words("paid", s.stripe.sent[0]["id"]))
	want(t, "the wallet at the end", s.wallet(key), "7 held 0")
	want(t, "the list", len(s.do("GET", "/payouts?status=refused&agent_id="+id, operatorKey, "").object["payouts"].([]any)), 1)
	for range 10 {
		ask("0.01", "bank")
	}
	want(t, "too many", s.do("POST", "/payouts", key, `{"amount":"0.01","to":"bank"}`).code(), "409 invalid_status")
}

// topUp reads an agent's automatic top-up until it is as wanted. Wallets are looked at every few seconds.
func (s *shop) topUp(key string, wanted func(object) bool) object {
	s.t.Helper()
	for {
		a := s.do("GET", "/wallet/top-up", key, "")
		if a.status == http.StatusOK && wanted(a.object) {
			return a.object
		}
		select {
		case <-s.t.Context().Done():
			s.t.Fatal("the top-up never came so far")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (f *fake) intentsMade() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.intents)
}

// TestAutoTopUp: a wallet that falls below an amount is filled, within the day's bound and once for each order, whatever becomes of answers.
func TestAutoTopUp(t *testing.T) {
	s := openShop(t, "usd")
	_, key := s.agent()
	_, _ = s.agent()
	spend := func(amount string) {
		t.Helper()
		want(t, "spending", s.do("POST", "/wallet/transfer", key, fmt.Sprintf(`{"to_agent_id":"agent-2","amount":%q}`, amount)).code(), 200)
	}
	set := `{"below":"5","amount":"10","per_day":"25"}`
	want(t, "without a payment method", s.do("PUT", "/wallet/top-up", key, set).code(), "409 invalid_status")
	want(t, "none is set", s.do("GET", "/wallet/top-up", key, "").code(), "404 not_found")
	s.paid(key, "6", true)
	for what, body := range map[string]string{"more at once than on a day": `{"below":"5","amount":"10","per_day":"9"}`, "nothing": `{"below":"5","amount":"0","per_day":"9"}`} {
		want(t, what, s.do("PUT", "/wallet/top-up", key, body).code(), "422 invalid_request")
	}
	want(t, "set", words(s.do("PUT", "/wallet/top-up", key, set).object["active"]), "true")

	s.stripe.set("lose") // paid, and nobody hears of it
	spend("2")
	s.topUp(key, func(o object) bool { return o["pending"] == true && s.stripe.intentsMade() == 2 })
	s.stripe.set("")
	s.topUp(key, func(o object) bool { return o["pending"] == false && o["paid_today"] == "10" })
	want(t, "an order is paid once", words(s.stripe.intentsMade(), s.wallet(key)), "2 14 held 0")

	s.stripe.set("slow")
	spend("10")
	s.topUp(key, func(o object) bool { return o["pending"] == true && s.stripe.intentsMade() == 3 })
	want(t, "while it is processed", s.wallet(key), "4 held 0")
	s.stripe.set("")
	s.stripe.mu.Lock()
	for _, intent := range s.stripe.intents {
		intent["status"] = "succeeded"
	}
	s.stripe.mu.Unlock()
	s.topUp(key, func(o object) bool { return o["pending"] == false && o["paid_today"] == "20" })
	want(t, "then", s.wallet(key), "14 held 0")
	spend("14") // the day allows 5 more, which is less than one top-up

	// A card that is refused ends it.
	_, poor := s.agent()
	s.paid(poor, "1", true)
	s.stripe.set("decline")
	want(t, "set", s.do("PUT", "/wallet/top-up", poor, set).code(), 200)
	failed := s.topUp(poor, func(o object) bool { return o["failed"] != nil })
	if text := fmt.Sprint(failed["failed"]); !strings.Contains(text, "declined") || failed["active"] != false {
		t.Errorf("after a refusal: %v", failed)
	}
	want(t, "the bound of the day holds", words(s.wallet(key)), "0 held 0")
	s.stripe.set("")
	want(t, "set again", s.do("PUT", "/wallet/top-up", poor, set).code(), 200)
	s.topUp(poor, func(o object) bool { return o["paid_today"] == "10" && o["pending"] == false })
	want(t, "the poor", s.wallet(poor), "11 held 0")
	want(t, "the bound of the day still holds", s.wallet(key), "0 held 0")
	want(t, "forgotten", s.do("DELETE", "/wallet/top-up", poor, "").code(), 204)
	want(t, "none is set", s.do("GET", "/wallet/top-up", poor, "").code(), "404 not_found")
}

// TestCaddyfile: what is written wrong is refused with what was expected, and without the keys.
func TestCaddyfile(t *testing.T) {
	t.Setenv("TEST_STRIPE_KEY", secretKey)
	const good = "secret_key {env.TEST_STRIPE_KEY}\nwebhook_secret whsec_x\ncurrency usd\nsuccess_url https://shop.example/paid\n"
	adapt := func(block string) ([]byte, error) {
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\n\tadmin off\n\ttallygate {\n\t\tledger bolt "+filepath.Join(t.TempDir(), "l.db")+"\n\t\t"+block+"\n\t}\n}\n"), nil)
		return config, err
	}
	for block, want := range map[string]string{
		"cashier":                                                          "'cashier' needs a cashier: this build has stripe",
		"cashier paypal":                                                   `unknown cashier "paypal": this build has stripe`,
		"cashier stripe now {\n" + good + "}":                              `unexpected "now"`,
		"cashier stripe {\n" + good + "limit 5\n}":                         `unrecognized subdirective "limit" of cashier stripe: expected one of secret_key,`,
		"cashier stripe {\n" + good + "min\n}":                             "'min' needs one value",
		"cashier stripe {\ncurrency usd\n}":                                "'cashier stripe' needs 'secret_key'",
		"cashier stripe {\n" + good + good + "}":                           "'secret_key' is there twice",
		"cashier stripe {\n" + good + "}\ncashier stripe {\n" + good + "}": "cashier is given twice",
	} {
		if _, err := adapt(block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", block, err, want)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"", "", ""},
		{"currency", "min 5\nmax 4\ncurrency", "min 5 is more than max 4"},
		{"currency", "min 0.001\ncurrency", "must be a multiple of 0.01"},
		{"currency", "max lots\ncurrency", "max lots"},
		{"currency", "cancel_url /paid\ncurrency", `cancel_url "/paid": expected a URL`},
		{"currency usd", "currency dollar", `currency "dollar": expected a currency of Stripe`},
		{"{env.TEST_STRIPE_KEY}", "{env.NO_SUCH_ENV}", "secret_key and webhook_secret must be given"},
	} {
		config, err := adapt("cashier stripe {\n" + strings.Replace(good, c.from, c.to, 1) + "\n}")
		must(t, err)
		var parsed caddy.Config
		must(t, json.Unmarshal(config, &parsed))
		err = caddy.Validate(&parsed)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secretKey)) {
			t.Errorf("%s: %v, want %q", c.to, err, c.want)
		}
	}
}
