package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestQuotesKnowLimits: what a limit refuses is not affordable, and the quote says which limit that is. The call that is quoted so is refused.
func TestQuotesKnowLimits(t *testing.T) {
	t.Parallel()
	limits := func(limits ...escrow.Limit) func(*escrow.Tx) error {
		return func(tx *escrow.Tx) error { _, err := tx.SetLimits(operator, "alice", limits); return err }
	}
	for _, test := range []struct {
		name    string
		payment gateway.Payment
		limit   func(*escrow.Tx) error
		by      escrow.Actor
		limited string // what the quote says
	}{
		{"without a limit", nil, nil, alice, ""},
		{"within a limit", nil, limits(escrow.Limit{Amount: amount("0.1"), Window: time.Hour}), alice, ""},
		{"above a limit", nil, limits(escrow.Limit{Amount: amount("0.09"), Window: time.Hour}), alice, "the operator has limited all spending to 0.09"},
		{"above a limit for the payee", nil, limits(escrow.Limit{Amount: 1, Window: time.Hour, Payee: "acme"}), alice, "limited spending to acme"},
		{"an escrow that would be opened", gateway.Escrow{Open: amount("0.5")}, limits(escrow.Limit{Amount: amount("0.09"), Window: time.Hour}), alice, "the operator has limited all spending to 0.09"},
		{"a key for other payees", nil, nil, escrow.Actor{Agent: "alice", Payees: []string{"bob"}}, "may pay only other payees"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			route := gateway.Route{Rates: rates(t, "0.1 per call"), Payment: test.payment}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, route, results)
			if test.limit != nil {
				must(t, s.do(test.limit))
			}
			g := gateway.New(s.book, gateway.Options{})
			route.Payee = "acme"
			quote, err := gateway.Quote(t.Context(), test.by, api.QuoteOrder{Method: "GET", Path: "/search"}, nil, metered{g, &route})
			must(t, err)
			want(t, "affordable", quote.Affordable, test.limited == "")
			if !strings.Contains(quote.Limit, test.limited) || (quote.Limit == "") != (test.limited == "") {
				t.Errorf("limited by %q, want %q", quote.Limit, test.limited)
			}
			want(t, "wallet", s.balance("alice"), "1")
			if test.by.Payees == nil {
				answer, body := s.get()
				if (answer.StatusCode == http.StatusOK) != quote.Affordable {
					t.Errorf("the call: %d %s", answer.StatusCode, body)
				}
			}
		})
	}
}

// TestQuotesOfWhatComesLater: a quote says what is held, and whether that is charged now or when the answer is fetched; a WebSocket is asked for by
// CONNECT.
func TestQuotesOfWhatComesLater(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.01")}
	must(t, tariff.Compile(nil))
	ask := func(route gateway.Route, order api.QuoteOrder) string {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
		route.Payee, route.Shared = "acme", shared(t, "*")
		quote, err := gateway.Quote(t.Context(), alice, order, nil, metered{gateway.New(s.book, gateway.Options{}), &route})
		if err != nil {
			return err.Error()
		}
		most := "-"
		if quote.Most != nil {
			most = quote.Most.String()
		}
		return fmt.Sprint(quote.Model, " ", quote.Estimate, " ", most, " later=", quote.Later)
	}
	for _, test := range []struct{ name, method, path, body, quote string }{
		{"a chat", "POST", "/v1/chat/completions", `{"model":"m","messages":[],"max_tokens":10}`, "m 0.1 0.1 later=false"},
		{"a batch", "POST", "/v1/messages/batches", `{"requests":[{"custom_id":"a","params":{"model":"m","max_tokens":10,"messages":[]}}]}`, "m 0 - later=true"},
		{"a batch in a file", "POST", "/v1/batches", `{"input_file_id":"file-1"}`, " 0 - later=true"},
		{"results", "GET", "/v1/messages/batches/b1/results", "", " 0 - later=false"},
		{"a WebSocket", "CONNECT", "/v1/realtime?model=m", "", "m 1 - later=false"},
		{"a WebSocket of no model yet", "CONNECT", "/v1/responses", "", " 0 - later=false"},
	} {
		want(t, test.name, ask(gateway.Route{Tariff: tariff, Batch: pricing.Measure{N: 100, Unit: "output"}}, api.QuoteOrder{Method: test.method, Path: test.path, Body: []byte(test.body)}), test.quote)
	}
	for _, l := range laters {
		order := api.QuoteOrder{Path: l.ask, Body: []byte(l.request)}
		if got := ask(gateway.Route{Tariff: tariff}, order); !strings.HasSuffix(got, "later=true") {
			t.Errorf("%s: %s", l.name, got)
		}
		want(t, l.name+" by the call", ask(gateway.Route{Rates: rates(t, "0.1 per call")}, order), " 0.1 0.1 later=false")
	}
}

// TestQuotesWithoutAKey: no key is needed for a quote, also where the price depends on the body. Its room is that of its client, so that one
// client takes nothing from others.
func TestQuotesWithoutAKey(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.01")}
	must(t, tariff.Compile(nil))
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
	g := gateway.New(s.book, gateway.Options{MaxBodies: 64 << 10})
	ask := func(by escrow.Actor, client string, size int) string {
		like, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/quote", nil)
		must(t, err)
		like.RemoteAddr = client
		body := fmt.Sprintf(`{"model":"m","messages":[],"max_tokens":10,"user":%q}`, strings.Repeat("u", size))
		quote, err := gateway.Quote(t.Context(), by, api.QuoteOrder{Path: "/v1/chat/completions", Body: []byte(body)}, like,
			metered{g, &gateway.Route{Payee: "acme", Tariff: tariff}})
		if err != nil {
			return string(ledger.OutcomeOf(err))
		}
		return quote.Estimate.String()
	}
	want(t, "with a key", ask(alice, "192.0.2.1:1", 10), "0.1")
	want(t, "without", ask(escrow.Actor{}, "192.0.2.1:1", 10), "0.1")
	want(t, "a large one, without", ask(escrow.Actor{}, "192.0.2.1:1", 20<<10), "insufficient_funds")
	full, err := s.book.Claims().TakeUpTo(t.Context(), 1<<20, escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody, Owner: "client 192.0.2.1:1"}, Share: true},
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody}, Most: 16 << 10})
	must(t, err)
	want(t, "the room of a client", full.Amount(), (16<<10)/3)
	want(t, "of another client", ask(escrow.Actor{}, "192.0.2.2:1", 10), "0.1")
	full.End()
}
