package gateway_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestAQuotaLimitsTheOutput: the provider is not asked for more than what is left of a quota of tokens, and of the money beyond it. If much is
// left, the request stays as it is.
func TestAQuotaLimitsTheOutput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, unit, request string
		included            int64
		overage             bool
		limit               string // of the request that the provider gets; "": none
	}{
		{"less is left than asked", "output_token", `{"model":"m","messages":[],"max_tokens":500}`, 50, false, "50"},
		{"more is left", "output_token", `{"model":"m","messages":[],"max_tokens":40}`, 50, false, "40"},
		{"no limit, and little is left", "output_token", `{"model":"m","messages":[]}`, 50, false, "50"},
		{"no limit, and much is left", "output_token", `{"model":"m","messages":[]}`, 5000, false, ""},
		{"several answers", "output_token", `{"model":"m","messages":[],"n":5,"max_tokens":100}`, 50, false, "10"},
		{"the money beyond", "output_token", `{"model":"m","messages":[],"max_tokens":5000}`, 50, true, "950"}, // 0.9 at 0.001
		{"the prompt counts", "token", `{"model":"m","messages":[],"max_tokens":500}`, 150, false, "42"},       // it has at most 108
		{"calls", "call", `{"model":"m","messages":[],"max_tokens":500}`, 1, false, "500"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got gjson.Result
			included := pricing.Measure{N: test.included, Unit: test.unit}
			price := "0 per call"
			if test.overage {
				price = "0.001 per " + test.unit
			}
			plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: test.unit, Included: test.included * escrow.Micro, Overage: test.overage}
			route := gateway.Route{Rates: rates(t, "0.001 per token"), Payment: &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, price)},
				Batch: pricing.Measure{N: 10, Unit: "token"}}
			s := openShop(t, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = gjson.GetBytes(body, "max_tokens")
				chat(false)(w, r)
			})
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
				return err
			}))
			status, body, _ := (sold{request: test.request}).ask(t, s, false)
			want(t, "status "+body, status, http.StatusOK)
			want(t, "the limit of the output", got.Raw, test.limit)
		})
	}
}
