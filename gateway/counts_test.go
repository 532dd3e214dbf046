package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// TestCountsThatAreNoNumbers: what is charged by a count is not passed on as complete if the answer states something else than a number. A
// count that costs nothing may be anything.
func TestCountsThatAreNoNumbers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, price, header, body string
		charge                    string // "": the answer is withheld
	}{
		{"a number", "0.01 per rows", "", `{"rows":7,"pages":1}`, "0.07"},
		{"a number as text", "0.01 per rows", "", `{"rows":"7"}`, "0.07"},
		{"nothing", "0.01 per rows", "", `{"rows":0}`, "0"},
		{"commas", "0.01 per rows", "", `{"rows":"5,000"}`, ""},
		{"a word", "0.01 per rows", "", `{"rows":true}`, ""},
		{"below zero", "0.01 per rows", "", `{"rows":-5}`, ""},
		{"an object", "0.01 per rows", "", `{"rows":{"read":5}}`, ""},
		{"a header", "0.01 per pages", "7", `{}`, "0.07"},
		{"a header with commas", "0.01 per pages", "5,000", `{}`, ""},
		{"beside a call", "0.01 per rows; 0.05 per call", "", `{"rows":"many"}`, ""},
		{"another one", "0.01 per pages", "7", `{"rows":"many"}`, "0.07"},
		{"a stream", "0.01 per rows", "", "data: {\"rows\":3}\n\ndata: {\"rows\":\"5,000\"}\n\ndata: [DONE]\n\n", ""},
		{"a stream that ends well", "0.01 per rows", "", "data: {\"rows\":\"?\"}\n\ndata: {\"rows\":7}\n\ndata: [DONE]\n\n", "0.07"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rows, err := probe.JSON("rows")
			must(t, err)
			pages, err := probe.Header("X-Pages")
			must(t, err)
			var prices []pricing.Price
			for line := range strings.SplitSeq(test.price, ";") {
				price, err := pricing.ParsePrice(strings.Fields(line), "rows", "pages")
				must(t, err)
				prices = append(prices, price)
			}
			rates, err := pricing.NewRates(prices, "rows", "pages")
			must(t, err)
			route := gateway.Route{Rates: rates, Counts: []probe.Count{{Class: "rows", Probe: rows}, {Class: "pages", Probe: pages}}}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, route, func(w http.ResponseWriter, _ *http.Request) {
				kind := "application/json"
				if strings.HasPrefix(test.body, "data:") {
					kind = "text/event-stream"
				}
				w.Header().Set("Content-Type", kind)
				w.Header().Set("X-Pages", test.header)
				_, _ = w.Write([]byte(test.body))
			})
			_, body, complete := sold{}.ask(t, s, false)
			if test.charge != "" {
				want(t, "paid", s.balance("acme"), test.charge)
				return
			}
			want(t, "paid", s.balance("acme"), "0")
			if complete {
				t.Errorf("the answer is complete, and nothing was paid: %s", body)
			}
		})
	}
}
