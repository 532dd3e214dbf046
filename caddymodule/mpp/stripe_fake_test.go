package mpp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const stripeKey = "sk_test_of_the_tests"

// fakeStripe is Stripe's API, as far as shared payment tokens need it: it executes one request for an idempotency key, and takes a token once.
type fakeStripe struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	tokens   map[string]*grantedToken
	requests map[string]executed // by idempotency key
	payments map[string]*payment
	refunds  []map[string]any
	asked    int    // to take a payment
	fault    string // what it does next, see the constants
}

type grantedToken struct {
	currency string
	max      int64
	used     bool
}

type executed struct {
	form   string
	status int
	body   map[string]any
}

type payment struct {
	amount int64
	status string
}

// The faults.
const (
	isDown    = "down"       // does nothing, and says so
	isBusy    = "busy"       // another request with the same key is running
	declines  = "declines"   // the card
	loses     = "loses"      // takes the payment, and the answer is lost
	processes = "processes"  // takes the payment later
	wantsMore = "wants more" // the payment needs an action of its payer
	losesLate = "loses late" // the answer to a payment that was refused is lost
)

var faults = []string{"", "", "", isDown, isBusy, declines, loses, processes, wantsMore, losesLate}

func openStripe(t testing.TB) *fakeStripe {
	f := &fakeStripe{t: t, tokens: make(map[string]*grantedToken), requests: make(map[string]executed), payments: make(map[string]*payment)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeStripe) set(fault string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// token grants a token, as an agent does at Stripe.
func (f *fakeStripe) token(currency string, most int64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("spt_%d", len(f.tokens)+1)
	f.tokens[id] = &grantedToken{currency: currency, max: most}
	return id
}

// paid returns what was paid, in the currency's smallest units.
func (f *fakeStripe) paid() (sum int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.payments {
		if p.status == "succeeded" {
			sum += p.amount
		}
	}
	return sum
}

// process ends the payments that are processing, well or not.
func (f *fakeStripe) process(status string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.payments {
		if p.status == "processing" {
			p.status = status
		}
	}
}

func (f *fakeStripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+stripeKey {
		answerJSON(w, 401, failure("invalid_request_error", "bad key"))
		return
	}
	if f.fault == isDown {
		answerJSON(w, 503, failure("api_error", "down"))
		return
	}
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/shared_payment/granted_tokens/"):
		f.preview(r)
		f.showToken(w, id)
	case r.Method == http.MethodPost && r.URL.Path == "/v1/payment_intents":
		f.preview(r)
		f.take(w, r)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/payment_intents/"):
		answerJSON(w, 200, f.payments[id].show(id))
	case r.Method == http.MethodGet && id == "refunds":
		answerJSON(w, 200, map[string]any{"object": "list", "data": f.refundsOf(r.URL.Query().Get("payment_intent")), "url": "/v1/refunds"})
	case r.Method == http.MethodPost && id == "refunds":
		f.refund(w, r)
	case r.Method == http.MethodPost && id == "cancel":
		id = strings.Split(r.URL.Path, "/")[3]
		if f.payments[id].status == "succeeded" {
			answerJSON(w, 400, failure("invalid_request_error", "it has succeeded"))
			return
		}
		f.payments[id].status = "canceled"
		answerJSON(w, 200, f.payments[id].show(id))
	default:
		f.t.Errorf("Stripe is asked for %s %s", r.Method, r.URL.Path)
		w.WriteHeader(404)
	}
}

func (f *fakeStripe) preview(r *http.Request) {
	if got := r.Header.Values("Stripe-Version"); len(got) != 1 || got[0] != stripePreview {
		f.t.Errorf("%s is asked in version %q", r.URL.Path, got)
	}
}

func (f *fakeStripe) showToken(w http.ResponseWriter, id string) {
	token, exists := f.tokens[id]
	if !exists {
		answerJSON(w, 404, failure("invalid_request_error", "No such token"))
		return
	}
	shown := map[string]any{"id": id, "usage_limits": map[string]any{"currency": token.currency, "max_amount": token.max}, "deactivated_at": nil}
	if token.used {
		shown["deactivated_at"] = 1
	}
	answerJSON(w, 200, shown)
}

func (f *fakeStripe) take(w http.ResponseWriter, r *http.Request) {
	f.asked++
	if err := r.ParseForm(); err != nil {
		f.t.Error(err)
	}
	if f.fault == isBusy {
		answerJSON(w, 409, failure("invalid_request_error", "in use"))
		return
	}
	key, form := r.Header.Get("Idempotency-Key"), r.PostForm.Encode()
	done, before := f.requests[key]
	switch {
	case before && done.form != form:
		answerJSON(w, 400, failure("idempotency_error", "other parameters"))
		return
	case !before:
		done = executed{form: form}
		done.status, done.body = f.execute(r)
		f.requests[key] = done
	}
	if f.fault == loses || f.fault == losesLate {
		panic(http.ErrAbortHandler)
	}
	answerJSON(w, done.status, done.body)
}

func (f *fakeStripe) execute(r *http.Request) (int, map[string]any) {
	token := f.tokens[r.PostForm.Get("shared_payment_granted_token")]
	amount, err := strconv.ParseInt(r.PostForm.Get("amount"), 10, 64)
	switch {
	case err != nil || r.PostForm.Get("confirm") != "true" || r.PostForm.Get("metadata[challenge_id]") == "":
		f.t.Errorf("Stripe is asked for %s", r.PostForm.Encode())
		return 400, failure("invalid_request_error", "wrong")
	case token == nil || token.used || token.max < amount || token.currency != r.PostForm.Get("currency"):
		return 400, failure("invalid_request_error", "the token can't be used")
	case f.fault == declines || f.fault == losesLate:
		return 402, failure("card_error", "Your card was declined.")
	}
	id := fmt.Sprintf("pi_%d", len(f.payments)+1)
	p := &payment{amount: amount, status: "succeeded"}
	switch f.fault {
	case processes:
		p.status = "processing"
	case wantsMore:
		p.status = "requires_action"
	}
	token.used, f.payments[id] = true, p
	return 200, p.show(id)
}

func (f *fakeStripe) refundsOf(payment string) []map[string]any {
	found := []map[string]any{}
	for _, refund := range f.refunds {
		if refund["payment_intent"] == payment {
			found = append(found, refund)
		}
	}
	return found
}

// refund gives a part of a payment back, once for an idempotency key.
func (f *fakeStripe) refund(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		f.t.Error(err)
	}
	id := r.PostForm.Get("payment_intent")
	amount, err := strconv.ParseInt(r.PostForm.Get("amount"), 10, 64)
	if err != nil || r.Header.Get("Idempotency-Key") != "tallygate-"+r.PostForm.Get("metadata[tallygate_payout]") {
		f.t.Errorf("Stripe is asked for the refund %s under the key %q", r.PostForm.Encode(), r.Header.Get("Idempotency-Key"))
	}
	for _, made := range f.refunds {
		if made["metadata"].(map[string]string)["tallygate_payout"] == r.PostForm.Get("metadata[tallygate_payout]") {
			if f.fault == loses { // Go's client sends a request with such a key again
				panic(http.ErrAbortHandler)
			}
			answerJSON(w, 200, made)
			return
		}
	}
	left := int64(0)
	if p := f.payments[id]; p != nil && p.status == "succeeded" {
		left = p.amount
	}
	for _, refund := range f.refundsOf(id) {
		left -= refund["amount"].(int64)
	}
	if f.fault == declines || amount > left {
		answerJSON(w, 400, failure("invalid_request_error", "it can't be refunded"))
		return
	}
	made := map[string]any{
		"id": fmt.Sprintf("re_%d", len(f.refunds)+1), "object": "refund", "amount": amount, "currency": "usd", "payment_intent": id, "status": "succeeded",
		"metadata": map[string]string{"tallygate_ledger": r.PostForm.Get("metadata[tallygate_ledger]"), "tallygate_payout": r.PostForm.Get("metadata[tallygate_payout]")},
	}
	if f.fault == processes {
		made["status"] = "pending"
	}
	if f.refunds = append(f.refunds, made); f.fault == loses {
		panic(http.ErrAbortHandler)
	}
	answerJSON(w, 200, made)
}

func (p *payment) show(id string) map[string]any {
	return map[string]any{"id": id, "object": "payment_intent", "status": p.status, "amount": p.amount}
}

func failure(kind, message string) map[string]any {
	return map[string]any{"error": map[string]any{"type": kind, "message": message}}
}

func answerJSON(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
