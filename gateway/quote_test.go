package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
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
