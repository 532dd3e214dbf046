package stripe_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85/webhook"
	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"
	"github.com/stripe/stripe-mock/spec"

	_ "github.com/tallygate/tallygate/internal/steady"
)

const webhookSecret = "whsec_of_the_tests"

// fake is Stripe, as far as it is needed. It remembers what it has made, as stripe-mock does not. Each request that makes something is also
// given to stripe-mock, which knows Stripe's own description of its API, and refuses what that does not have.
type fake struct {
	*httptest.Server
	t    testing.TB
	mock *server.StubServer

	mu       sync.Mutex
	n        int
	sessions map[string]*session
	intents  map[string]object
	refunds  []object
	disputes []object
	sent     []object          // transfers
	answers  map[string][]byte // by idempotency key
	fault    string            // down: nothing is done; lose: what is asked is done, and not answered; decline: payments are refused; slow: payments are processing; kill: who asks dies; kill late: who has asked dies before the answer
	kill     func()
}

type object = map[string]any

type session struct {
	ID       string
	Minor    int64
	Currency string
	Save     bool
	Metadata object
	Success  string
}

// asked are the paths at which the cashier makes something at Stripe.
var asked = []spec.Path{"/v1/checkout/sessions", "/v1/payment_intents", "/v1/transfers", "/v1/refunds"}

// stripeMock is made once, and knows only these paths: it compiles a validator for each path, of hundreds, which takes seconds, and many of them
// under the race detector. It keeps nothing of the requests that it has checked. At any other path it answers with an error.
var stripeMock = sync.OnceValues(func() (*server.StubServer, error) {
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	if err != nil {
		return nil, err
	}
	whole, err := server.LoadSpec(embedded.OpenAPISpec, "")
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(whole.Paths, func(path spec.Path, _ map[spec.HTTPVerb]*spec.Operation) bool { return !slices.Contains(asked, path) })
	return server.NewStubServer(fixtures, whole, false, false)
})

func openFake(t testing.TB) *fake {
	t.Helper()
	mock, err := stripeMock()
	must(t, err)
	f := &fake{t: t, mock: mock, sessions: map[string]*session{}, intents: map[string]object{}, answers: map[string][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) set(fault string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fake) id(prefix string) string {
	f.n++
	return fmt.Sprintf("%s_%d", prefix, f.n)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+secretKey {
		f.t.Errorf("stripe is asked with the key %q", r.Header.Get("Authorization"))
	}
	if f.fault == "kill" {
		f.kill()
		panic(http.ErrAbortHandler)
	}
	if f.fault == "down" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		f.t.Errorf("the body is no form: %v", err)
	}
	f.conforms(r, body)
	key := r.Header.Get("Idempotency-Key")
	text, known := f.answers[key]
	if !known || key == "" {
		status, answer := f.answer(r, form)
		if text, err = json.Marshal(answer); err != nil {
			f.t.Error(err)
		}
		if status != http.StatusOK {
			w.WriteHeader(status)
			_, _ = w.Write(text)
			return
		}
		f.answers[key] = text
	}
	if f.fault == "kill late" && r.Method == http.MethodPost {
		f.kill()
		panic(http.ErrAbortHandler)
	}
	if f.fault == "lose" && r.Method == http.MethodPost {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(text)
}

// conforms checks a request against Stripe's description of its API.
func (f *fake) conforms(r *http.Request, body []byte) {
	if r.Method != http.MethodPost {
		return
	}
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	again.Header.Set("Authorization", "Bearer sk_test_123")
	answer := httptest.NewRecorder()
	f.mock.HandleRequest(answer, again)
	if answer.Code != http.StatusOK {
		f.t.Errorf("stripe-mock answers %s %s with %d: %s", r.URL.Path, body, answer.Code, answer.Body)
	}
}

func (f *fake) answer(r *http.Request, form url.Values) (int, any) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch {
	case r.Method == http.MethodPost && path == "checkout/sessions":
		return f.makeSession(form)
	case r.Method == http.MethodPost && path == "payment_intents":
		return f.makeIntent(form)
	case r.Method == http.MethodPost && path == "refunds":
		return f.makeRefund(form)
	case r.Method == http.MethodPost && path == "transfers":
		if form.Get("destination") == "acct_gone" {
			return http.StatusBadRequest, object{"error": object{"type": "invalid_request_error", "message": "No such destination: 'acct_gone'"}}
		}
		made := object{"id": f.id("tr"), "object": "transfer", "amount": number(form.Get("amount")), "currency": form.Get("currency"), "destination": form.Get("destination"), "transfer_group": form.Get("transfer_group")}
		f.sent = append(f.sent, made)
		return http.StatusOK, made
	case strings.HasPrefix(path, "payment_intents/"):
		intent, found := f.intents[strings.TrimPrefix(path, "payment_intents/")]
		if !found {
			return http.StatusNotFound, object{"error": object{"type": "invalid_request_error", "message": "No such payment_intent"}}
		}
		return http.StatusOK, intent
	case path == "refunds" || path == "disputes" || path == "transfers":
		all := map[string][]object{"refunds": f.refunds, "disputes": f.disputes, "transfers": f.sent}[path]
		found := []object{}
		for _, o := range all {
			if path == "transfers" && o["transfer_group"] == r.URL.Query().Get("transfer_group") || o["payment_intent"] == r.URL.Query().Get("payment_intent") && path != "transfers" {
				found = append(found, o)
			}
		}
		return http.StatusOK, object{"object": "list", "data": found, "has_more": false, "url": r.URL.Path}
	}
	f.t.Errorf("stripe is asked %s %s", r.Method, r.URL)
	return http.StatusNotFound, object{"error": object{"message": "no such path"}}
}

func metadata(form url.Values, under string) object {
	found := object{}
	for name, values := range form {
		if key, is := strings.CutPrefix(name, under+"["); is {
			found[strings.TrimSuffix(key, "]")] = values[0]
		}
	}
	return found
}

func (f *fake) makeSession(form url.Values) (int, any) {
	s := &session{
		ID: f.id("cs_test"), Minor: number(form.Get("line_items[0][price_data][unit_amount]")), Currency: form.Get("line_items[0][price_data][currency]"),
		Save:     form.Get("payment_intent_data[setup_future_usage]") == "off_session" && form.Get("customer_creation") == "always",
		Metadata: metadata(form, "payment_intent_data[metadata]"), Success: form.Get("success_url"),
	}
	f.sessions[s.ID] = s
	return http.StatusOK, object{"id": s.ID, "object": "checkout.session", "url": "https://checkout.stripe.test/" + s.ID, "expires_at": time.Now().Add(24 * time.Hour).Unix()}
}

func (f *fake) makeIntent(form url.Values) (int, any) {
	if form.Get("off_session") != "true" || form.Get("confirm") != "true" || form.Get("customer") == "" || form.Get("payment_method") == "" {
		f.t.Errorf("a payment without a person is asked for as %v", form)
	}
	intent := f.intent(number(form.Get("amount")), form.Get("currency"), metadata(form, "metadata"))
	switch f.fault {
	case "decline":
		intent["status"] = "requires_payment_method"
		return http.StatusPaymentRequired, object{"error": object{"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "Your card was declined."}}
	case "slow":
		intent["status"] = "processing"
	}
	return http.StatusOK, intent
}

// makeRefund gives a part of a payment back that the cashier asks for. Stripe bounds it by what is left, and leaves disputed payments alone.
func (f *fake) makeRefund(form url.Values) (int, any) {
	refused := func(message string) (int, any) {
		return http.StatusBadRequest, object{"error": object{"type": "invalid_request_error", "message": message}}
	}
	intent, found := f.intents[form.Get("payment_intent")]
	if !found || intent["status"] != "succeeded" {
		return refused("No such payment_intent")
	}
	if slices.ContainsFunc(f.disputes, func(d object) bool { return d["payment_intent"] == intent["id"] && d["status"] != "won" }) {
		return refused("This charge has been charged back.")
	}
	minor := number(form.Get("amount"))
	if minor <= 0 || minor > f.left(intent) {
		return refused("Refund amount is greater than unrefunded amount on charge")
	}
	made := f.addRefund(intent, minor)
	made["metadata"] = metadata(form, "metadata")
	if f.fault == "fail" {
		made["status"] = "failed"
	}
	return http.StatusOK, made
}

// left returns what of a payment is not refunded.
func (f *fake) left(intent object) int64 {
	left := intent["amount"].(int64)
	for _, refund := range f.refunds {
		if refund["payment_intent"] == intent["id"] && refund["status"] != "failed" {
			left -= refund["amount"].(int64)
		}
	}
	return left
}

func (f *fake) addRefund(intent object, minor int64) object {
	made := object{"id": f.id("re"), "object": "refund", "amount": minor, "currency": intent["currency"], "payment_intent": intent["id"], "status": "succeeded"}
	f.refunds = append(f.refunds, made)
	return made
}

// told is an event that tells that a payment was refunded.
func (f *fake) told(intent object) object {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.event("charge.refunded", object{"id": intent["latest_charge"], "object": "charge", "payment_intent": intent["id"]})
}

// refunded returns what was refunded of a payment, and in how many refunds.
func (f *fake) refunded(intent object) (minor int64, refunds int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, refund := range f.refunds {
		if refund["payment_intent"] == intent["id"] && refund["status"] != "failed" {
			minor, refunds = minor+refund["amount"].(int64), refunds+1
		}
	}
	return minor, refunds
}

func (f *fake) intent(minor int64, currency string, metadata object) object {
	intent := object{
		"id": f.id("pi"), "object": "payment_intent", "amount": minor, "amount_received": minor, "currency": currency, "status": "succeeded", "metadata": metadata,
		"latest_charge": f.id("ch"), "client_secret": "must_not_be_logged",
	}
	f.intents[intent["id"].(string)] = intent
	return intent
}

// pay is a person who pays on a page. The event says how.
func (f *fake) pay(page string) (intent object, event object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[page]
	intent = f.intent(s.Minor, s.Currency, s.Metadata)
	if s.Save {
		intent["setup_future_usage"], intent["customer"], intent["payment_method"] = "off_session", f.id("cus"), f.id("pm")
	}
	return intent, f.event("checkout.session.completed", object{
		"id": page, "object": "checkout.session", "payment_intent": intent["id"], "payment_status": "paid", "amount_total": s.Minor, "currency": s.Currency,
	})
}

func (f *fake) event(kind string, about object) object {
	return object{"id": f.id("evt"), "object": "event", "type": kind, "api_version": "2020-08-27", "data": object{"object": about}}
}

// refund gives a part of a payment back.
func (f *fake) refund(intent object, minor int64) (refund object, event object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	refund = f.addRefund(intent, minor)
	return refund, f.event("charge.refunded", object{"id": intent["latest_charge"], "object": "charge", "payment_intent": intent["id"]})
}

// failRefund makes a refund fail: the money comes again.
func (f *fake) failRefund(refund object) (event object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	refund["status"] = "failed"
	return f.event("refund.failed", copyOf(refund))
}

// dispute withdraws a payment. If it is won later, the money comes again.
func (f *fake) dispute(intent object, minor int64) (dispute object, events []object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dispute = object{
		"id": f.id("dp"), "object": "dispute", "amount": minor, "currency": intent["currency"], "payment_intent": intent["id"], "charge": intent["latest_charge"],
		"status": "needs_response", "balance_transactions": []object{},
	}
	f.disputes = append(f.disputes, dispute)
	created := f.event("charge.dispute.created", copyOf(dispute))
	dispute["balance_transactions"] = []object{{"id": f.id("txn"), "object": "balance_transaction", "amount": -minor, "fee": 1500, "currency": intent["currency"]}}
	return dispute, []object{created, f.event("charge.dispute.funds_withdrawn", copyOf(dispute))}
}

func (f *fake) win(dispute object) (event object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	moved := dispute["balance_transactions"].([]object)
	back := object{"id": f.id("txn"), "object": "balance_transaction", "amount": dispute["amount"], "fee": 0, "currency": dispute["currency"]}
	dispute["status"], dispute["balance_transactions"] = "won", append(append([]object{}, moved...), back)
	return f.event("charge.dispute.funds_reinstated", copyOf(dispute))
}

func copyOf(o object) object {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // can't happen: it was made here
	}
	var again object
	if err := json.Unmarshal(text, &again); err != nil {
		panic(err)
	}
	return again
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// signed returns the body of an event, and its signature at a time.
func signed(t testing.TB, event object, secret string, at time.Time) (body []byte, header string) {
	t.Helper()
	body, err := json.Marshal(event)
	must(t, err)
	p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at})
	return body, p.Header
}
