package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/gateway"
	_ "github.com/tallygate/tallygate/internal/steady"
	"github.com/tallygate/tallygate/pricing"
)

// shop is a metered route on plain net/http, over books in memory, or on PostgreSQL. Package caddymodule tests the same through a real Caddy, on a real file.
type shop struct {
	t    testing.TB
	book *escrow.Book
	url  string
	key  string // of the agent alice, who has 1.00
}

func openShop(t testing.TB, rules escrow.Rules, o gateway.Options, route gateway.Route, provider http.HandlerFunc) *shop {
	t.Helper()
	return openShopAt(t, time.Now, rules, o, route, provider)
}

// openShopAt is openShop by another clock. Without a provider there is no server: the test calls a handler of its own.
func openShopAt(t testing.TB, now func() time.Time, rules escrow.Rules, o gateway.Options, route gateway.Route, provider http.HandlerFunc) *shop {
	t.Helper()
	return openShopOn(t, ledger.Options{Now: now}, rules, o, route, provider)
}

// openShopOn is openShopAt on a ledger with other options.
func openShopOn(t testing.TB, on ledger.Options, rules escrow.Rules, o gateway.Options, route gateway.Route, provider http.HandlerFunc) *shop {
	t.Helper()
	on.Currency = "USDC"
	books, err := ledger.New(newStore(t), on)
	must(t, err)
	t.Cleanup(func() { must(t, books.Close()) })
	rules.OpenRegistration = true
	s := &shop{t: t, book: escrow.New(books, rules)}
	must(t, s.book.Reserve(t.Context(), "acme"))
	must(t, s.do(func(tx *escrow.Tx) (err error) {
		if _, _, s.key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: "alice"}); err != nil {
			return err
		}
		_, err = tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("1")})
		return err
	}))
	if provider == nil {
		return s
	}
	route.Payee, route.Logger = "acme", slog.New(slog.DiscardHandler)
	server := httptest.NewServer(gateway.New(s.book, o).Handler(&route, provider))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// disk keeps the records of a ledger after it is closed.
type disk struct {
	open func() (ledger.Store, error)
	// failNext makes the next commit fail with err. The commit takes place all the same if kept is true.
	failNext func(err error, kept bool)
}

// newDisk makes an empty disk. It is in memory if the environment names no other store.
var newDisk = inMemory

func inMemory() disk {
	memory := new(ledgertest.Memory)
	return disk{open: func() (ledger.Store, error) { return memory.Open(), nil }, failNext: memory.FailNext}
}

// newStore opens a store on a new disk.
func newStore(t testing.TB) ledger.Store {
	t.Helper()
	store, err := newDisk().open()
	must(t, err)
	return store
}

var operator = escrow.Actor{Operator: true}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func amount(s string) ledger.Amount {
	a, err := ledger.ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (s *shop) do(op func(*escrow.Tx) error) error {
	_, err := escrow.Do(context.Background(), s.book, func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

func rates(t testing.TB, words string) *pricing.Rates {
	t.Helper()
	price, err := pricing.ParsePrice(strings.Fields(words))
	must(t, err)
	r, err := pricing.NewRates([]pricing.Price{price})
	must(t, err)
	return r
}

// get makes a call with alice's key. headers are names and values alternately.
func (s *shop) get(headers ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/search?q=1", nil)
	must(s.t, err)
	r.Header.Set("Authorization", "Bearer "+s.key)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	must(s.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(s.t, err)
	return answer, string(body)
}

func (s *shop) balance(agent string) string {
	s.t.Helper()
	w, err := s.book.Wallet(s.t.Context(), agent)
	must(s.t, err)
	return w.Balance.String()
}

func want(t testing.TB, what string, got, expected any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("%s: %v, want %v", what, got, expected)
	}
}

func results(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "results") }

func events(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for n := range 10 {
		fmt.Fprintf(w, "data: %d\n\n", n)
		w.(http.Flusher).Flush()
	}
}

// TestWaysOfPaying makes one call in each way of paying.
func TestWaysOfPaying(t *testing.T) {
	t.Parallel()
	plan := escrow.Plan{Payee: "acme", Name: "weekly", Price: amount("0.5"), Period: time.Hour, Unit: "call", Included: 2 * escrow.Micro}
	included := pricing.Measure{N: 2, Unit: "call"}
	for _, test := range []struct {
		name     string
		route    gateway.Route
		prepare  func(t *testing.T, tx *escrow.Tx) (headers []string, err error)
		provider http.HandlerFunc
		status   int
		charge   string // of the header or the trailer
		payer    string // what is left in alice's wallet
		payee    string
	}{
		{name: "wallet", route: gateway.Route{Rates: rates(t, "0.1 per call")}, provider: results, status: 200, charge: "0.1", payer: "0.9", payee: "0.1"},
		{name: "wallet, by what the answer has", route: gateway.Route{Rates: rates(t, "0.01 per byte")}, provider: results, status: 200, charge: "0.07", payer: "0.93", payee: "0.07"},
		{name: "wallet, streamed", route: gateway.Route{Rates: rates(t, "0.01 per event")}, provider: events, status: 200, charge: "0.1", payer: "0.9", payee: "0.1"},
		{name: "wallet, streamed until the money is gone", route: gateway.Route{Rates: rates(t, "0.25 per event"), Batch: pricing.Measure{N: 1, Unit: "event"}}, provider: events, status: 200, charge: "1", payer: "0", payee: "1"},
		{name: "wallet that has too little", route: gateway.Route{Rates: rates(t, "2 per call")}, provider: results, status: 402, payer: "1", payee: "0"},
		{
			name: "an answer that is not charged", route: gateway.Route{Rates: rates(t, "0.1 per call")},
			provider: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }, status: 404, charge: "0", payer: "1", payee: "0",
		},
		{
			name: "escrow that the meter opens", route: gateway.Route{Rates: rates(t, "0.1 per call"), Payment: gateway.Escrow{Open: amount("0.4"), OpenFor: time.Hour}},
			provider: results, status: 200, charge: "0.1", payer: "0.6", payee: "0.1",
		},
		{name: "no escrow", route: gateway.Route{Rates: rates(t, "0.1 per call"), Payment: gateway.Escrow{}}, provider: results, status: 402, payer: "1", payee: "0"},
		{
			name:  "subscription",
			route: gateway.Route{Rates: rates(t, "0 per call"), Payment: &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0 per call")}},
			prepare: func(_ *testing.T, tx *escrow.Tx) ([]string, error) {
				_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "weekly"})
				return nil, err
			},
			provider: results, status: 200, charge: "0", payer: "0.5", payee: "0",
		},
		{
			name: "milestone", route: gateway.Route{Rates: rates(t, "0.1 per call")},
			prepare: func(_ *testing.T, tx *escrow.Tx) ([]string, error) {
				e, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{
					To: "acme", Amount: amount("0.3"), Milestones: []escrow.Milestone{{Name: "draft", Amount: amount("0.3")}},
				})
				return []string{"Tallygate-Escrow", e.ID, "Tallygate-Milestone", "draft"}, err
			},
			provider: results, status: 200, charge: "0", payer: "0.7", payee: "0",
		},
		{name: "shadow", route: gateway.Route{Rates: rates(t, "2 per call"), Shadow: true}, provider: results, status: 200, charge: "0", payer: "1", payee: "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, test.route, test.provider)
			var headers []string
			if test.prepare != nil {
				must(t, s.do(func(tx *escrow.Tx) (err error) {
					headers, err = test.prepare(t, tx)
					return err
				}))
			}
			answer, _ := s.get(headers...)
			charge := answer.Header.Get("Tallygate-Charge")
			if charge == "" {
				charge = answer.Trailer.Get("Tallygate-Charge")
			}
			want(t, "status", answer.StatusCode, test.status)
			want(t, "charge", charge, test.charge)
			want(t, "alice's wallet", s.balance("alice"), test.payer)
			want(t, "acme's wallet", s.balance("acme"), test.payee)
		})
	}
}

// TestAFailedProvider: the gateway answers for a provider that fails, and charges nothing.
func TestAFailedProvider(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call")}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the begin")
		panic(http.ErrAbortHandler)
	})
	answer, body := s.get()
	want(t, "status", answer.StatusCode, http.StatusBadGateway)
	if !strings.Contains(body, `"charge":"none"`) {
		t.Errorf("body %s", body)
	}
	want(t, "wallet", s.balance("alice"), "1")
}

// TestReports: the report of a call says what became of it.
func TestReports(t *testing.T) {
	t.Parallel()
	reports := make(chan gateway.Report, 1)
	o := gateway.Options{Report: func(_ *http.Request, r gateway.Report) { reports <- r }}
	s := openShop(t, escrow.Rules{}, o, gateway.Route{Rates: rates(t, "0.1 per call")}, results)
	answer, _ := s.get()
	report := <-reports
	want(t, "request", report.Request, answer.Header.Get("Tallygate-Request"))
	report.Request = ""
	want(t, "report", report, "{ alice acme    0.1 call=1 map[call:1]}")
}

// headerIdentity takes the caller's id from a header.
type headerIdentity struct{}

func (headerIdentity) Identify(r *http.Request, key string) (escrow.Actor, error) {
	if who := r.Header.Get("X-Who"); who != "" {
		return escrow.Actor{Agent: who}, nil
	}
	return escrow.Actor{}, &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: "say who you are"}
}

func TestAnotherIdentity(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call"), Identity: headerIdentity{}}, results)
	answer, _ := s.get("X-Who", "alice")
	want(t, "status", answer.StatusCode, 200)
	answer, body := s.get()
	want(t, "status of nobody", answer.StatusCode, 401)
	if !strings.Contains(body, "say who you are") {
		t.Errorf("body %s", body)
	}
	want(t, "wallet", s.balance("alice"), "0.9")
}

// lengthJudge scores an answer by its length in bytes.
type lengthJudge struct{}

func (lengthJudge) ReadsBody() bool                      { return true }
func (lengthJudge) Watch(gateway.Answer) gateway.Watcher { return new(lengthWatcher) }

type lengthWatcher int

func (w *lengthWatcher) Feed(p []byte) { *w += lengthWatcher(len(p)) }

func (w *lengthWatcher) Score(context.Context, func() (ledger.Amount, bool)) (gateway.Score, error) {
	return gateway.Score{Value: fmt.Sprint(int(*w))}, nil
}

func TestAnotherJudge(t *testing.T) {
	t.Parallel()
	quality := &gateway.Quality{Judge: lengthJudge{}, Tiers: []escrow.Tier{
		{AtLeast: "100", Verdict: escrow.Verdict{Share: 1_000_000}}, {Verdict: escrow.Verdict{Share: 500_000}},
	}}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per call"), Quality: quality}, results)
	answer, _ := s.get()
	want(t, "charge", answer.Header.Get("Tallygate-Charge"), "0.05")
	want(t, "quality", answer.Header.Get("Tallygate-Quality"), "score=7")
}

// coins is a rail whose payment is a header.
type coins struct{}

func (coins) Name() string { return "coins" }

func (coins) Challenge(need gateway.Need, h http.Header) map[string]any {
	h.Set("Coins-Required", need.Required.String())
	return map[string]any{"coins": "put coins into X-Coins for " + need.URL}
}

func (coins) Take(r *http.Request) (gateway.Payable, bool, error) {
	id, given, found := strings.Cut(r.Header.Get("X-Coins"), "=")
	if !found {
		return gateway.Payable{}, false, nil
	}
	r.Header.Del("X-Coins")
	return gateway.Payable{ID: id, Payer: "bob", Amount: amount(given), Ends: time.Now().Add(time.Hour)}, true, nil
}

func (coins) Verify(context.Context, gateway.Payable) error           { return nil }
func (coins) Settle(context.Context, gateway.Payable) (string, error) { return "", nil }
func (coins) Receipt(p gateway.Payable, _ string, h http.Header)      { h.Set("Coins-Taken", p.ID) }

func TestARail(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{Rails: []gateway.Rail{coins{}}}, gateway.Route{Rates: rates(t, "0.4 per call")}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Coins") != "" {
			t.Error("the provider is shown the money")
		}
		results(w, r)
	})
	s.key = ""
	answer, body := s.get()
	want(t, "status without money", answer.StatusCode, 402)
	if !strings.Contains(body, `"coins":"put coins into X-Coins for `+s.url+`/search"`) {
		t.Errorf("nothing offers the rail: %s", body)
	}
	answer, _ = s.get("X-Coins", "c1=1")
	want(t, "status", answer.StatusCode, 200)
	want(t, "taken", answer.Header.Get("Coins-Taken"), "c1")
	s.key = strings.TrimPrefix(answer.Header.Get("Authorization"), "Bearer ")
	answer, _ = s.get("X-Coins", "c1=1")
	want(t, "status of the same coins for the same call", answer.StatusCode, 409)
	answer, _ = s.get()
	want(t, "left, by the key", answer.Header.Get("Tallygate-Balance"), "0.2")
	answer, _ = s.get()
	want(t, "status when they are spent", answer.StatusCode, 402)
	want(t, "what is needed", answer.Header.Get("Coins-Required"), "0.4")
	want(t, "acme's wallet", s.balance("acme"), "0.8")
}

// TestAPaymentComesAgainForAWhile: the payment of a call that failed serves the same call until some minutes after its end, since others may have
// read it by then.
func TestAPaymentComesAgainForAWhile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		later  time.Duration
		status int
	}{"within its time": {time.Hour, 200}, "a little later": {time.Hour + 9*time.Minute, 200}, "later": {time.Hour + 11*time.Minute, 402}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			var fails atomic.Bool
			fails.Store(true)
			s := openShopAt(t, now, escrow.Rules{}, gateway.Options{Rails: []gateway.Rail{coins{}}}, gateway.Route{Rates: rates(t, "0.4 per call")}, func(w http.ResponseWriter, r *http.Request) {
				if fails.Load() {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				results(w, r)
			})
			s.key = ""
			answer, _ := s.get("X-Coins", "c1=1")
			want(t, "status of the failure", answer.StatusCode, 502)
			fails.Store(false)
			ahead.Store(int64(test.later))
			answer, body := s.get("X-Coins", "c1=1")
			want(t, "status", answer.StatusCode, test.status)
			if test.status == 402 && !strings.Contains(body, `"reason":"expired"`) {
				t.Errorf("the refusal is %s", body)
			}
		})
	}
}

// forgetful is a rail whose network settles, and says so only later.
type forgetful struct {
	coins
	silent atomic.Bool
}

func (f *forgetful) Settle(context.Context, gateway.Payable) (string, error) {
	if f.silent.Load() {
		return "", errors.New("no answer")
	}
	return "0xlater", nil
}

// TestAPaymentIsAskedForLater: a worker books what a request could not find out, and gives up what can't be found out.
func TestAPaymentIsAskedForLater(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	rail := new(forgetful)
	s := openShopAt(t, now, escrow.Rules{}, gateway.Options{Rails: []gateway.Rail{rail}}, gateway.Route{Rates: rates(t, "0.4 per call")}, results)
	s.key = ""
	worker := gateway.New(s.book, gateway.Options{Rails: []gateway.Rail{rail}})
	round := func(later time.Duration) int {
		ahead.Add(int64(later))
		must(t, worker.CollectPending(t.Context(), slog.New(slog.DiscardHandler)))
		pending, err := s.book.PendingPayments(10)
		must(t, err)
		return len(pending)
	}
	rail.silent.Store(true)
	for _, coin := range []string{"c1=1", "c2=1"} {
		answer, _ := s.get("X-Coins", coin)
		want(t, "status", answer.StatusCode, 503)
		want(t, "pending while a request may wait", round(0), 1)
		want(t, "pending while there is no answer", round(5*time.Minute), 1)
		if coin == "c1=1" {
			rail.silent.Store(false)
			want(t, "pending after an answer", round(0), 0)
			want(t, "booked", s.balance("coins:bob"), "1")
			rail.silent.Store(true)
		}
	}
	want(t, "pending when it has ended", round(2*time.Hour), 0)
	rail.silent.Store(false)
	answer, _ := s.get("X-Coins", "c2=1")
	want(t, "status of a lost payment", answer.StatusCode, 503)
	want(t, "booked in the end", s.balance("coins:bob"), "1")
}

// TestTheEndOfTheProcess: when the process ends, what a running call has sent is settled.
func TestTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.1 per event")}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\ndata: two\n\n")
		w.(http.Flusher).Flush()
		close(begun)
		<-end
		_, _ = io.WriteString(w, "data: three\n\n")
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.key)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	<-begun
	s.book.Claims().EndLive()
	want(t, "wallet", s.balance("alice"), "0.8")
	close(end)
	if body, err := io.ReadAll(answer.Body); err == nil || strings.Contains(string(body), "three") {
		t.Errorf("an answer that was given up looks complete: %q", body)
	}
	want(t, "wallet in the end", s.balance("alice"), "0.8")
}

func (s *shop) charges() []escrow.Charge {
	s.t.Helper()
	charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
	must(s.t, err)
	return charges
}
