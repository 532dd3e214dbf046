package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestHostilePayers: the price of what was delivered is never above what was charged, for random requests of a payer that says everything
// in two ways. The provider reads them as loosely as real providers do, does the work that it has understood, and states what it has used.
func TestHostilePayers(t *testing.T) {
	t.Parallel()
	var m *stall
	checks := 0
	rapid.Check(t, func(r *rapid.T) {
		if checks%300 == 0 { // a book of many charges is slow to list
			m = openMarket(t)
		}
		checks++
		m.attack(r)
	})
}

// attempt is one call: what the provider has seen, and what its payer got of the answer.
type attempt struct {
	seen     bool
	work     work
	written  bool // the provider has come to its end
	received bytes.Buffer
	status   int
	broken   bool // the answer broke off
	hungUp   bool
	header   http.Header
	after    int // bytes after which the client hangs up; -1: never
	leave    context.CancelFunc
}

func (a *attempt) Header() http.Header { return a.header }
func (a *attempt) WriteHeader(status int) {
	if status >= 200 && a.status == 0 {
		a.status = status
	}
}
func (a *attempt) Flush() {}
func (a *attempt) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.hungUp {
		return 0, io.ErrClosedPipe
	}
	if room := a.after - a.received.Len(); a.after >= 0 && len(p) > room {
		a.received.Write(p[:room])
		a.hungUp = true
		a.leave()
		return room, io.ErrClosedPipe
	}
	return a.received.Write(p)
}

// complete reports whether the payer has the whole answer.
func (a *attempt) complete() bool {
	if a.status != http.StatusOK || a.broken || !a.written {
		return false
	}
	body := a.received.String()
	if wasStopped(body) {
		return false
	}
	if !a.hungUp {
		return true
	}
	kind, parts := a.answer()
	last := parts[len(parts)-1]
	if kind == sse || kind == lines {
		return strings.Contains(body, strings.TrimRight(last, "\n"))
	}
	return len(body) >= len(last)
}

func (a *attempt) answer() (string, []string) { return a.header.Get("Content-Type"), a.parts() }

func (a *attempt) parts() []string {
	for _, g := range market {
		if g.name == a.header.Get("X-Good") {
			_, parts := g.answer(a.work)
			return parts
		}
	}
	return []string{""}
}

// stall is a book with shops for each way of paying.
type stall struct {
	t     *testing.T
	book  *escrow.Book
	mu    sync.Mutex
	calls map[string]*attempt
	moods map[string]mood
	goods map[string]good
	shops map[string]http.Handler // by the way of paying
}

func openMarket(t *testing.T) *stall {
	books, err := ledger.New(newStore(t), ledger.Options{Currency: "USDC", Now: time.Now})
	must(t, err)
	t.Cleanup(func() { must(t, books.Close()) })
	m := &stall{t: t, book: escrow.New(books, escrow.Rules{OpenRegistration: true}), calls: map[string]*attempt{}, moods: map[string]mood{}, goods: map[string]good{}, shops: map[string]http.Handler{}}
	must(t, m.book.Reserve(t.Context(), "acme"))
	tariff := &pricing.Tariff{}
	for _, model := range []struct {
		name  string
		times ledger.Amount
	}{{"cheap", 1}, {"dear", 100}} {
		var prices []pricing.Price
		for _, p := range []struct {
			class, unit string
			nano        ledger.Amount
		}{{"input", "token", inputNano}, {"output", "token", outputNano}, {"asked_image", "image", askedNano}, {"input_character", "character", askedNano}, {"asked_second", "second", askedNano}} {
			price, err := pricing.ParseClassPrice(p.class, []string{(p.nano * model.times).String(), "per", p.unit})
			must(t, err)
			prices = append(prices, price)
		}
		tariff.Models = append(tariff.Models, pricing.Model{Glob: model.name, Prices: prices})
	}
	must(t, tariff.Compile(nil))
	tools := &pricing.Tariff{}
	for _, tool := range []string{"cheap 0.0001 per call", "dear 0.01 per call"} {
		price, err := pricing.ParseToolPrice(strings.Fields(tool))
		must(t, err)
		tools.Tools = append(tools.Tools, price)
	}
	must(t, tools.Compile(nil))
	g := gateway.New(m.book, gateway.Options{})
	for name, pays := range map[string]gateway.Payment{"wallet": nil, "escrow": gateway.Escrow{}} {
		for kind, prices := range map[string]*pricing.Tariff{"": tariff, " of tools": tools} {
			route := &gateway.Route{Payee: "acme", Tariff: prices, Payment: pays, Logger: slog.New(slog.DiscardHandler)}
			m.shops[name+kind] = g.Handler(route, http.HandlerFunc(m.provide))
		}
	}
	return m
}

// provide is the provider's handler.
func (m *stall) provide(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	call := r.Header.Get("X-Call")
	a, mood, g := m.calls[call], m.moods[call], m.goods[call]
	m.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(errReading) {
				panic(p)
			} else if p != nil {
				a.work = work{}
			} else {
				a.seen = true
			}
		}()
		a.work = g.understand(mood, r, body)
	}()
	if !a.seen {
		http.Error(w, `{"error":"bad request"}`, http.StatusBadRequest)
		return
	}
	kind, parts := g.answer(a.work)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Good", g.name)
	for _, part := range parts {
		if _, err := io.WriteString(w, part); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
	a.written = true
}

// attack makes a request, or several at the same time, and compares what was delivered with what was charged.
func (m *stall) attack(t *rapid.T) {
	g := rapid.SampledFrom(market).Draw(t, "good")
	mood := mood{
		reading: rapid.SampledFrom(readings).Draw(t, "reading"), falls: rapid.Bool().Draw(t, "falls"), backwards: rapid.Bool().Draw(t, "backwards"),
		places: rapid.Permutation([]string{"path", "body", "query"}).Draw(t, "places"),
		wants:  rapid.SampledFrom([]int{1, 7, 60, 400}).Draw(t, "wants"), hides: rapid.SampledFrom([]int{0, 0, 5, 300}).Draw(t, "hides"),
	}
	has := rapid.SampledFrom([]string{"0.0001", "0.003", "0.05", "0.6", "9", "9"}).Draw(t, "has")
	pays := rapid.SampledFrom([]string{"wallet", "wallet", "escrow"}).Draw(t, "pays")
	order := drawRequest(t, g)
	limit := rapid.SampledFrom([]string{"", "", "", "0.000000001", "0.001", "0.1"}).Draw(t, "limit")
	calls := rapid.SampledFrom([]int{1, 1, 1, 4}).Draw(t, "calls")
	after := rapid.SampledFrom([]int{-1, -1, 0, 1, 50, 300, 2000}).Draw(t, "hangs up after")

	agent, key := m.register(t, has, pays)
	attempts := make([]*attempt, calls)
	var wg sync.WaitGroup
	for i := range attempts {
		ctx, leave := context.WithCancel(context.Background())
		a := &attempt{header: http.Header{}, after: after, leave: leave}
		attempts[i] = a
		r := httptest.NewRequest(http.MethodPost, order.target, bytes.NewReader(order.body)).WithContext(ctx)
		r.Header = order.header.Clone()
		call := fmt.Sprint(agent, i)
		r.Header.Set("X-Call", call)
		r.Header.Set("Authorization", "Bearer "+key)
		if limit != "" {
			r.Header.Set("Tallygate-Max-Charge", limit)
		}
		m.mu.Lock()
		m.calls[call], m.moods[call], m.goods[call] = a, mood, g
		m.mu.Unlock()
		shop := m.shops[pays]
		if g.name == toolsGood {
			shop = m.shops[pays+" of tools"]
		}
		wg.Go(func() {
			defer leave()
			defer func() {
				if p := recover(); p != nil {
					if p != http.ErrAbortHandler {
						panic(p)
					}
					a.broken = true
				}
			}()
			shop.ServeHTTP(a, r)
		})
	}
	wg.Wait()
	m.compare(t, agent, has, attempts, func() string {
		return fmt.Sprintf("%s %s %v\n%q\n%+v", g.name, order.target, order.header, order.body, mood)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.calls)
	clear(m.moods)
	clear(m.goods)
}

// compare fails if what was delivered is worth more than what was charged.
func (m *stall) compare(t *rapid.T, agent, has string, attempts []*attempt, told func() string) {
	charges, _, err := m.book.Charges(escrow.ChargeFilter{Agent: agent}, escrow.Page{})
	must(m.t, err)
	var paid, worth ledger.Amount
	var detail []string
	for _, c := range charges {
		paid += c.Amount
		detail = append(detail, fmt.Sprintf("charged %s of %s for %v, cut %s", c.Amount, c.Model, c.Units, c.Cut))
	}
	for _, a := range attempts {
		had := ledger.Amount(0)
		visible := strings.Count(a.received.String(), " x")
		switch {
		case !a.seen:
		case a.complete():
			had = a.work.price()
		case visible > 0: // of a part, what can be seen of it
			had = a.work.times() * ledger.Amount(visible*outputNano)
		}
		worth += had
		detail = append(detail, fmt.Sprintf("had %s: %d, complete %v, hung up %v, %d words, %+v\n%.1500s", had, a.status, a.complete(), a.hungUp, visible, a.work, a.received.String()))
	}
	if paid < worth {
		t.Fatalf("what is worth %s was had for %s\n%s\n%s", worth, paid, told(), strings.Join(detail, "\n"))
	}
	w, err := m.book.Wallet(context.Background(), agent)
	must(m.t, err)
	if left := w.Balance; left < 0 || paid > amount(has) {
		t.Fatalf("%s of %s was paid, %s is left\n%s", paid, has, left, told())
	}
}

// register creates a payer that has an amount, in a wallet or in an escrow.
func (m *stall) register(t *rapid.T, has, pays string) (agent, key string) {
	_, err := escrow.Do(context.Background(), m.book, func(tx *escrow.Tx) (struct{}, error) {
		a, _, made, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{})
		if err != nil {
			return struct{}{}, err
		}
		agent, key = a.ID, made
		if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: agent, Amount: amount(has)}); err != nil {
			return struct{}{}, err
		}
		if pays == "escrow" {
			_, err = tx.CreateEscrow(escrow.Actor{Agent: agent}, escrow.EscrowOrder{To: "acme", Amount: amount(has)})
		}
		return struct{}{}, err
	})
	must(m.t, err)
	return agent, key
}
